//! One slice becomes two, in this copy of it.
//!
//! No row is moved: flares are found by their keys, and a slice is a range of them. The record that divides a slice cuts the range of its copy, and a copy of the
//! new slice comes to be that stands where this one stands and has its history. What belongs to a slice as a whole is copied (sessions)
//! or parted (transactions). As long as the new copy has had no record of its own, a rewind of the old one to before the division takes it back.
//!
//! The ranges of the copies here never overlap. A copy that was not there when its slice was divided, and has no part in it any more, makes way for the new one.

use std::collections::BTreeMap;

use magma_common::key::{Ino, KeyRange};
use magma_common::topology::{Division, Position, Seq, SliceId};

use super::Store;
use super::copy::Landed;
use super::db::Db;
use super::slices::SliceState;
use crate::missing::Missing;
use crate::record::{Change, Record};
use crate::view::ReadError;

impl Store {
    /// The slice that this one was divided off here, and the record of it that did it.
    pub fn parent(&self, slice: SliceId) -> Option<(SliceId, Seq)> {
        self.db.slices.get(&slice)?.parent
    }

    /// Other copies here whose keys are, in part, those of this range.
    pub fn overlapping(&self, slice: SliceId, range: KeyRange) -> Vec<SliceId> {
        overlapping(&self.db.slices, slice, range)
    }
}

/// Whether a record that divides its slice fits what is here.
pub(super) fn check(record: &Record, db: &Db) -> Result<(), String> {
    let divides = |change: &Change| matches!(change, Change::Divide(_));
    if !record.changes.iter().any(divides) {
        return Ok(());
    }
    let Some(Division { at, new }) = record.division() else {
        return Err("a record that divides a slice does something else, too".to_owned());
    };
    let range = db.slices.get(&record.slice).map(|state| state.range);
    if range.and_then(|range| range.cut(at)).is_none() {
        return Err(format!(
            "the slice cannot be divided at {:016x}: that lies at its border or outside",
            at.0
        ));
    }
    if db.slices.contains_key(&new) {
        return Err(format!("there is a slice {} here already", new.0));
    }
    Ok(())
}

/// Divides the copy of a slice, which has just had the record that says so.
pub(super) fn apply(slice: SliceId, division: Division, db: &mut Db) -> Result<(), ReadError> {
    let Some(child) = db.slices.get_mut(&slice).and_then(|state| state.divide(slice, division.at)) else {
        return Ok(());
    };
    db.divide_whole(slice, division.new, child.range)?;
    db.slices.insert(division.new, child);
    Ok(())
}

/// The copy of a slice was set back: what was divided off it by later records is a part of it again.
pub(super) fn take_back(slice: SliceId, to: Seq, db: &mut Db) -> Result<(), ReadError> {
    for (child, range) in children(&db.slices, slice, to) {
        db.wipe_slice(child)?;
        db.slices.remove(&child);
        if let Some(state) = db.slices.get_mut(&slice) {
            state.range = KeyRange::new(state.range.start(), range.stop()).unwrap_or(state.range);
        }
    }
    Ok(())
}

/// A copy of these keys begins anew: others that claim some of them make way.
pub(super) fn make_way(slice: SliceId, range: KeyRange, db: &mut Db) -> Result<(), ReadError> {
    for other in overlapping(&db.slices, slice, range) {
        db.wipe_slice(other)?;
        db.slices.remove(&other);
    }
    Ok(())
}

/// The keys that a copy has after it was set back, and what is missing of them besides what was touched.
pub(super) fn before_divisions(
    slices: &BTreeMap<SliceId, SliceState>,
    slice: SliceId,
    to: Seq,
) -> Option<(KeyRange, Missing)> {
    let state = slices.get(&slice)?;
    let (mut range, mut missing) = (state.range, state.missing_on_disk());
    for (child, taken) in children(slices, slice, to) {
        range = KeyRange::new(range.start(), taken.stop()).unwrap_or(range);
        let lacked = slices.get(&child).map(SliceState::missing_on_disk).unwrap_or_default();
        lacked.ranges().iter().for_each(|range| missing.insert(*range));
    }
    Some((range, missing))
}

/// Whether what this record of a slice divided off could be taken back.
pub(super) fn can_take_back(slices: &BTreeMap<SliceId, SliceState>, record: &Record, new: SliceId) -> bool {
    slices
        .get(&new)
        .is_some_and(|child| child.is_child(record.slice) && child.parent_seq() == Some(record.seq))
}

/// What was divided off a copy by records after this one and has had none of its own, by its keys.
fn children(slices: &BTreeMap<SliceId, SliceState>, slice: SliceId, to: Seq) -> Vec<(SliceId, KeyRange)> {
    let is_later = |child: &SliceState| child.parent_seq().is_some_and(|seq| seq > to);
    let children = slices.iter().filter(|(_, child)| child.is_child(slice) && is_later(child));
    let mut children: Vec<_> = children.map(|(id, child)| (*id, child.range)).collect();
    children.sort_by_key(|(_, range)| range.start());
    children
}

fn overlapping(slices: &BTreeMap<SliceId, SliceState>, slice: SliceId, range: KeyRange) -> Vec<SliceId> {
    let overlaps = |id: SliceId, state: &SliceState| {
        id != slice && state.range != range && state.range.common(range).is_some()
    };
    slices.iter().filter(|(id, state)| overlaps(**id, state)).map(|(id, _)| *id).collect()
}

impl SliceState {
    /// Gives the keys from `at` on to a copy of a new slice, which this one's last record has divided off; `None` if there are none on one side.
    fn divide(&mut self, own: SliceId, at: Ino) -> Option<Self> {
        let (kept, given) = self.range.cut(at)?;
        // what belongs to the slice as a whole travels with the first key
        let (first, new_first) = (kept.start(), KeyRange::single(given.start()));
        let lacked = !self.missing.is_empty();
        let lacks_whole = self.missing.contains(first);
        let mut missing = self.missing.take_within(given);
        if lacks_whole {
            missing.insert(new_first);
        }
        if lacked && self.missing.is_empty() {
            self.floor = self.position.seq;
        }
        let mut landed = Vec::new();
        for old in std::mem::take(&mut self.landed) {
            let part = |range: KeyRange| old.range.common(range).map(|range| Landed { range, ..old });
            self.landed.extend(part(kept));
            landed.extend(part(given));
            if old.range.contains_ino(first) && !missing.contains(given.start()) {
                landed.push(Landed { range: new_first, ..old });
            }
        }
        let child = Self {
            range: given,
            position: self.position,
            time: self.time,
            history: self.history.clone(),
            missing,
            floor: self.position.seq,
            partial: self.partial.take_if(|partial| given.contains_ino(partial.ino())),
            landed,
            parent: Some((own, self.position.seq)),
        };
        self.range = kept;
        Some(child)
    }

    /// Whether it was divided off that slice here, and has had no record since.
    fn is_child(&self, of: SliceId) -> bool {
        self.parent == Some((of, self.position.seq))
    }

    fn parent_seq(&self) -> Option<Seq> {
        self.parent.map(|(_, seq)| seq)
    }

    /// Whether a copy can be set back so far: what it had before it was divided off belongs to another slice.
    pub(super) fn reaches_back_to(&self, to: Position) -> bool {
        self.parent_seq().is_none_or(|seq| to.seq >= seq)
    }
}
