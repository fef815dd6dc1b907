//! What of the names is not on disk yet.
//!
//! When several slices lose power together, each comes back with what it had on its own disks. An operation across slices that one of them still
//! has is done again by the others (`recall`). So none may stand on something that all of them can have lost: a file that was created in a directory would
//! be known while the directory is not. Before a slice consents to a step, or commits as the driver, whatever the step stands on is on the disks of all its
//! copies: that the flare was born or got its names, what the name led to before, that a directory was emptied, that the directory moved before has arrived.
//!
//! It does not wait if every slice that takes part took part in that, too: whoever still has the later operation then has the earlier one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use magma_common::key::Key;
use magma_common::name::Name;
use magma_common::topology::{Seq, SliceId};

use crate::record::{Change, Record};
use crate::rows::EntryRow;
use crate::slice::gate::Need;
use crate::slice::{Held, Now, Slice, Trouble};
use crate::transaction::{Part, Participant, Step};

/// What is noted goes to the disks after this time at the latest.
const SYNC_AFTER: Duration = Duration::from_secs(1);
/// Changes that are noted one by one; with more, all of them count as not on disk until a sync.
const MAX_NOTED: usize = 100_000;

/// A change of names that may not be on disk.
struct Changed {
    at: Seq,
    /// The flares that took part in it, all over the network; none if it concerned this slice alone.
    parties: Arc<[Key]>,
}

/// See the module's documentation.
pub(super) struct Unsynced {
    /// Any flare may have changed in any record up to this one.
    unknown: Seq,
    /// Flares that were born or died, or whose names changed.
    flares: BTreeMap<Key, Changed>,
    /// Names of directories.
    entries: BTreeMap<Key, BTreeMap<Name, Changed>>,
    /// How many changes of flares and entries are noted, at most.
    noted: usize,
    /// A directory was moved to another parent.
    moved: Option<Seq>,
    /// A sync is under way, or will be, that covers everything up to here.
    awaited: Option<Seq>,
    /// When the last one was wanted.
    wanted: Duration,
}

impl Unsynced {
    /// A new primary does not know which of the records that it has are on all disks.
    pub(super) fn up_to(last: Seq, now: Duration) -> Self {
        Self {
            unknown: last,
            flares: BTreeMap::new(),
            entries: BTreeMap::new(),
            noted: 0,
            moved: None,
            awaited: None,
            wanted: now,
        }
    }

    /// A record was made.
    pub(super) fn note(&mut self, record: &Record) {
        let at = record.seq;
        let parties = parties(record);
        let changed = || Changed { at, parties: Arc::clone(&parties) };
        for change in &record.changes {
            match change {
                Change::PutReference { flare, .. }
                | Change::DeleteReference { flare, .. }
                | Change::DeleteFlare(flare) => drop(self.flares.insert(*flare, changed())),
                Change::PutEntry { dir, entry: EntryRow { name, .. } }
                | Change::DeleteEntry { dir, name } => {
                    self.entries.entry(*dir).or_default().insert(name.clone(), changed());
                }
                Change::PutTransaction(row) if row.part == Part::Applied => {
                    if row.transaction.part_of(&row.key).is_some_and(Participant::moves_directory) {
                        self.moved = Some(at);
                    }
                }
                _ => continue,
            }
            self.noted += 1;
        }
        if self.noted > MAX_NOTED {
            self.unknown = at;
            self.forget(Seq(0));
        }
    }

    /// Everything up to here is on all disks, or counted as unknown.
    fn forget(&mut self, synced: Seq) {
        let until = synced.max(self.unknown);
        self.flares.retain(|_, changed| changed.at > until);
        self.entries.retain(|_, of_dir| {
            of_dir.retain(|_, changed| changed.at > until);
            !of_dir.is_empty()
        });
        self.noted = self.flares.len() + self.entries.values().map(BTreeMap::len).sum::<usize>();
        self.moved = self.moved.filter(|at| *at > until);
    }

    /// Everything up to here is on all disks.
    fn synced(&mut self, to: Seq) {
        if self.unknown <= to {
            self.unknown = Seq(0);
        }
        self.awaited = self.awaited.filter(|awaited| *awaited > to);
        self.forget(to);
    }

    /// No sync that was wanted will be heard of.
    pub(super) fn give_up(&mut self) {
        self.awaited = None;
    }

    fn is_empty(&self) -> bool {
        self.unknown == Seq(0) && self.flares.is_empty() && self.entries.is_empty() && self.moved.is_none()
    }

    /// The last record that these steps stand on and that is not on all disks. `is_excused`: whether a change with these parties need not be.
    fn stood_on(&self, parts: &[Participant], is_excused: impl Fn(&[Key]) -> bool) -> Option<Seq> {
        let counts = |changed: &&Changed| !is_excused(&changed.parties);
        let flare = |key: &Key| self.flares.get(key).filter(counts).map(|changed| changed.at);
        let entry = |key: &Key, name: &Name| {
            self.entries.get(key)?.get(name).filter(counts).map(|changed| changed.at)
        };
        let any_entry =
            |key: &Key| self.entries.get(key)?.values().filter(counts).map(|changed| changed.at).max();
        let steps = parts.iter().flat_map(|part| part.steps.iter().map(|step| (&part.key, step)));
        let stood_on = steps.map(|(key, step)| match step {
            Step::AddEntry(link) | Step::ReplaceEntry { new: link, .. } => {
                flare(key).max(entry(key, &link.name))
            }
            Step::Birth { .. }
            | Step::AddReference(_)
            | Step::DropMoved(_)
            | Step::Extend { .. }
            | Step::GainStripe { .. }
            | Step::Fill { .. }
            | Step::DropStripe { .. } => flare(key),
            Step::DropRemoved(_) => flare(key).max(any_entry(key)),
            Step::MoveDirectory => self.moved,
            // Whoever has this has what made the name, the file, or the stripe.
            Step::RemoveEntry(_)
            | Step::TakeExisting { .. }
            | Step::LoseStripe(_)
            | Step::ForgetTrim { .. }
            | Step::ClearEnd { .. } => None,
        });
        let unknown = Some(self.unknown).filter(|unknown| *unknown > Seq(0) && !parts.is_empty());
        stood_on.max().flatten().max(unknown)
    }
}

/// Who takes part in the operation that this record belongs to.
fn parties(record: &Record) -> Arc<[Key]> {
    let transaction = record.changes.iter().find_map(|change| match change {
        Change::PutTransaction(row) if row.part != Part::Prepared => Some(&row.transaction),
        _ => None,
    });
    let keys = transaction.map(|transaction| {
        let parts = transaction.participants.iter().chain(&transaction.own).map(|part| part.key);
        parts.chain([transaction.attempt.driver]).collect()
    });
    keys.unwrap_or_default()
}

impl Slice<'_> {
    /// The last record that these steps stand on and that a loss of power could take, while a slice of an operation with these parties still has that. Without
    /// parties nobody knows yet who they are.
    pub(super) fn stands_on_unsynced(&self, parts: &[Participant], parties: &[Key]) -> Option<Seq> {
        let slices_of = |keys: &[Key]| -> BTreeSet<SliceId> {
            keys.iter().filter_map(|key| self.topology.slice_of(key)).map(|slice| slice.id).collect()
        };
        let taking_part = slices_of(parties);
        let is_excused =
            |earlier: &[Key]| !taking_part.is_empty() && taking_part.is_subset(&slices_of(earlier));
        self.across.unsynced.stood_on(parts, is_excused)
    }

    /// What has to be before a slice consents to these steps.
    pub(super) fn need_of_consent(&self, part: &Participant, parties: &[Key]) -> Need {
        match self.stands_on_unsynced(std::slice::from_ref(part), parties) {
            Some(_) => Need::OnDisk(Vec::new()),
            None => Need::Logged,
        }
    }

    /// Sees to it that a sync covers this record, and all before it.
    pub(super) fn sync_through(&mut self, now: Now, seq: Seq) {
        if self.across.unsynced.awaited.is_some_and(|awaited| awaited >= seq) {
            return;
        }
        let at = self.position().seq;
        self.across.unsynced.awaited = Some(at);
        self.across.unsynced.wanted = now.monotonic;
        self.gate.hold(Held::Synced(at), Need::OnDisk(Vec::new()), at);
    }

    /// Everything up to this record is on the disks of all copies: who has waited for that goes on.
    pub(in crate::slice) fn synced_up_to(&mut self, now: Now, seq: Seq) -> Result<(), Trouble> {
        self.across.unsynced.synced(seq);
        self.drive_on(now)
    }

    /// Brings to the disks what is noted, so that it does not become more and more.
    pub(super) fn sync_noted(&mut self, now: Now) {
        let unsynced = &self.across.unsynced;
        let is_due = now.monotonic.saturating_sub(unsynced.wanted) >= SYNC_AFTER;
        if is_due && self.topology.slices.len() > 1 && !unsynced.is_empty() {
            self.sync_through(now, self.position().seq);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use magma_common::attr::Kind;
    use magma_common::handle::Handle;
    use magma_common::proto::OpId;
    use magma_common::time::Timestamp;
    use magma_common::topology::Epoch;

    use crate::rows::ReferenceRow;
    use crate::transaction::Link;

    const MADE_BY: OpId = OpId::Call(1);

    fn key(byte: u8) -> Key {
        Key::from_bytes([byte; 20])
    }

    fn handle(byte: u8) -> Handle {
        Handle { key: key(byte), ..Handle::root() }
    }

    fn name(text: &str) -> Name {
        Name::new(text.to_owned()).unwrap()
    }

    fn record(seq: u64, changes: Vec<Change>) -> Record {
        let time = Timestamp::new(1_795_409_333, 0).unwrap();
        Record { slice: SliceId(1), epoch: Epoch(1), seq: Seq(seq), time, changes, outcome: None }
    }

    fn put_entry(dir: u8, text: &str) -> Change {
        let entry =
            EntryRow { name: name(text), child: handle(99), kind: Kind::File, cookie: 3, made_by: MADE_BY };
        Change::PutEntry { dir: key(dir), entry }
    }

    fn put_reference(flare: u8) -> Change {
        let reference = ReferenceRow { parent: handle(1), name: name("x"), made_by: MADE_BY };
        Change::PutReference { flare: key(flare), reference }
    }

    fn part(flare: u8, step: Step) -> [Participant; 1] {
        [Participant { key: key(flare), seen: None, steps: vec![step] }]
    }

    fn add(dir: u8, text: &str) -> [Participant; 1] {
        let link = Link { name: name(text), child: handle(9), kind: Kind::File, made_by: MADE_BY };
        part(dir, Step::AddEntry(link))
    }

    fn dropped(flare: u8) -> [Participant; 1] {
        let reference = ReferenceRow { parent: handle(1), name: name("x"), made_by: MADE_BY };
        part(flare, Step::DropRemoved(reference))
    }

    fn never(_: &[Key]) -> bool {
        false
    }

    fn noted() -> Unsynced {
        let mut unsynced = Unsynced::up_to(Seq(0), Duration::ZERO);
        unsynced.note(&record(5, vec![put_entry(1, "a"), put_reference(2)]));
        unsynced.note(&record(7, vec![put_entry(2, "b")]));
        unsynced
    }

    #[test]
    fn steps_stand_on_the_flare_and_on_the_name() {
        let unsynced = noted();
        assert_eq!(unsynced.stood_on(&add(1, "a"), never), Some(Seq(5)), "the name was another's");
        assert_eq!(unsynced.stood_on(&add(1, "c"), never), None, "other names of the directory do not count");
        assert_eq!(unsynced.stood_on(&add(2, "c"), never), Some(Seq(5)), "the directory was born");
        assert_eq!(unsynced.stood_on(&dropped(2), never), Some(Seq(7)), "the directory must be empty");
        assert_eq!(unsynced.stood_on(&dropped(3), never), None);
        assert_eq!(unsynced.stood_on(&add(1, "a"), |_| true), None);
    }

    #[test]
    fn what_is_on_disk_is_forgotten() {
        let mut unsynced = noted();
        unsynced.synced(Seq(6));
        assert_eq!(unsynced.stood_on(&add(1, "a"), never), None);
        assert_eq!(unsynced.stood_on(&add(2, "b"), never), Some(Seq(7)));
        unsynced.synced(Seq(7));
        assert!(unsynced.is_empty());
    }

    #[test]
    fn a_new_primary_counts_on_nothing_before_its_first_sync() {
        let mut unsynced = Unsynced::up_to(Seq(20), Duration::ZERO);
        assert_eq!(unsynced.stood_on(&add(1, "a"), |_| true), Some(Seq(20)));
        unsynced.synced(Seq(19));
        assert_eq!(unsynced.stood_on(&add(1, "a"), |_| true), Some(Seq(20)));
        unsynced.synced(Seq(20));
        assert_eq!(unsynced.stood_on(&add(1, "a"), |_| true), None);
    }

    #[test]
    fn more_than_can_be_noted_is_unknown() {
        let mut unsynced = Unsynced::up_to(Seq(0), Duration::ZERO);
        let last = MAX_NOTED as u64 + 1;
        for seq in 1..=last {
            unsynced.note(&record(seq, vec![put_entry(1, &seq.to_string())]));
        }
        assert_eq!(unsynced.entries.len(), 0);
        assert_eq!(unsynced.stood_on(&add(8, "z"), never), Some(Seq(last)));
    }
}
