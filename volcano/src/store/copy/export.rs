//! Giving out a slice, part by part.

use bytes::Bytes;
use magma_common::handle::Handle;
use magma_common::key::{Ino, KeyRange};
use magma_common::name::Name;
use magma_common::topology::SliceId;

use super::super::Store;
use super::super::body::checksum::BLOCK;
use super::super::db::Flare;
use super::{after, whole};
use crate::node::message::Part;
use crate::record::{BodyChange, Change};
use crate::rows::{BodyId, Content, ReferenceRow};
use crate::view::{ReadError, View};

/// Most bytes of one append.
const APPEND_MAX: u64 = 1 << 20;
/// Flares and rows that are fetched at a time.
const PAGE: usize = 64;
/// What a change weighs besides its names and bytes.
const CHANGE_WEIGHT: usize = 64;
/// What a flare's row weighs besides its birth string.
const ROW_WEIGHT: usize = 256;

/// Where to go on within what is too large for one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside(At);

#[derive(Clone, Debug, PartialEq, Eq)]
enum At {
    /// Among what belongs to the slice as a whole.
    Whole(whole::Place),
    /// Within a flare.
    Flare(Handle, Place),
}

/// How far a flare has been given out. In this order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// The bytes below this offset of this body.
    Bytes(BodyId, u64),
    /// Its body, and nothing else.
    Row,
    /// Its names up to this one, too.
    References(Option<ReferenceRow>),
    /// Its extended attributes up to this one, too.
    Xattrs(Option<Name>),
    /// Its entries up to this cookie, too.
    Entries(u64),
}

/// A part in the making.
#[derive(Debug, Default)]
pub(super) struct Parcel {
    changes: Vec<Change>,
    appended: Vec<Bytes>,
    weight: usize,
    budget: usize,
}

/// A state of a parcel to go back to.
#[derive(Clone, Copy, Debug)]
struct Mark {
    changes: usize,
    appended: usize,
    weight: usize,
}

impl Store {
    /// The part of a slice that starts `within`, as of now: as much as weighs about `budget` bytes, and a little of something
    /// in any case. With `inside` the part goes on within that flare.
    ///
    /// If the answer has an [`Inside`], the next call takes it and the same `within`. Else the next `within` begins after the
    /// part's range. A flare that has changed too much since the call before is begun anew; the part says so.
    ///
    /// The slice's sessions and transactions come with the first key of its range.
    pub fn export(
        &self,
        slice: SliceId,
        within: KeyRange,
        inside: Option<&Inside>,
        budget: usize,
    ) -> Result<(Part, Option<Inside>), ReadError> {
        self.readable()?;
        match inside.map(|inside| &inside.0) {
            None => self.export_anew(slice, within, budget),
            Some(At::Whole(place)) => self.export_whole(slice, within, place.clone(), budget),
            Some(At::Flare(handle, place)) => {
                let ino = handle.ino();
                if let Some(flare) = self.db.flare_by_ino(ino)?.filter(|flare| place.fits(*handle, flare)) {
                    let mut parcel = Parcel::new(budget);
                    let next = self.fill(&mut parcel, &flare, place.clone())?;
                    return Ok(parcel.close_single(ino, false, At::in_flare(&flare, next)));
                }
                let rest = KeyRange::new(ino, within.stop()).unwrap_or(KeyRange::single(ino));
                self.export_anew(slice, rest, budget)
            }
        }
    }

    /// Goes on with what belongs to the slice as a whole; behind it comes the flare with which it travels, if there is one.
    fn export_whole(
        &self,
        slice: SliceId,
        within: KeyRange,
        place: whole::Place,
        budget: usize,
    ) -> Result<(Part, Option<Inside>), ReadError> {
        let ino = self.range(slice).unwrap_or(within).start();
        let mut parcel = Parcel::new(budget);
        let mut next = self.fill_whole(&mut parcel, slice, place)?.map(At::Whole);
        if next.is_none()
            && let Some(flare) = self.db.flare_by_ino(ino)?
        {
            next = At::in_flare(&flare, self.fill(&mut parcel, &flare, Place::first(&flare))?);
        }
        Ok(parcel.close_single(ino, false, next))
    }

    fn export_anew(
        &self,
        slice: SliceId,
        within: KeyRange,
        budget: usize,
    ) -> Result<(Part, Option<Inside>), ReadError> {
        let mut parcel = Parcel::new(budget);
        if self.brings_whole(slice, within)
            && let Some(next) = self.fill_whole(&mut parcel, slice, whole::Place::FIRST)?
        {
            return Ok(parcel.close_single(within.start(), true, Some(At::Whole(next))));
        }
        let (mut left, mut flares) = (Some(within), 0_usize);
        while let Some(range) = left {
            let inos = self.db.inos(range, PAGE)?;
            left = inos.last().filter(|_| inos.len() == PAGE).and_then(|&last| after(range, last));
            for ino in inos {
                let Some(flare) = self.db.flare_by_ino(ino)? else { continue };
                let mark = parcel.mark();
                let fits = flares == 0 || parcel.has_room_for(&flare);
                let next = if fits { self.fill(&mut parcel, &flare, Place::first(&flare))? } else { None };
                if fits && next.is_none() {
                    flares += 1;
                    continue;
                }
                let before = ino.0.checked_sub(1).and_then(|stop| KeyRange::new(within.start(), Ino(stop)));
                let Some(before) = before else {
                    return Ok(parcel.close_single(ino, true, At::in_flare(&flare, next)));
                };
                parcel.back_to(mark);
                return Ok((parcel.close(before), None));
            }
        }
        Ok((parcel.close(within), None))
    }

    /// Puts as much of a flare into the parcel as has room there, from `place` on, and a little in any case. Where to go on;
    /// none if all is in it.
    fn fill(&self, parcel: &mut Parcel, flare: &Flare, mut place: Place) -> Result<Option<Place>, ReadError> {
        loop {
            place = match &place {
                Place::Bytes(body, from) => self.fill_bytes(parcel, flare, *body, *from)?,
                Place::Row => self.fill_row(parcel, flare)?,
                Place::References(after) => self.fill_references(parcel, flare, after.as_ref())?,
                Place::Xattrs(after) => self.fill_xattr(parcel, flare, after.as_ref())?,
                Place::Entries(after) => match self.fill_entries(parcel, flare, *after)? {
                    Some(cookie) => Place::Entries(cookie),
                    None => return Ok(None),
                },
            };
            if parcel.room() == 0 {
                return Ok(Some(place));
            }
        }
    }

    /// The next bytes of a body, up to a hole or the end of a block; behind the last ones a mark of the body's end.
    fn fill_bytes(
        &self,
        parcel: &mut Parcel,
        flare: &Flare,
        body: BodyId,
        from: u64,
    ) -> Result<Place, ReadError> {
        let handle = flare.row.handle;
        let high = self.bodies.borrow_mut().high(&self.db, body)?;
        let Some(start) = self.body_data(body, from, high)? else {
            if from < high {
                // a hole; what is written later lies above it, so the copy must know that it is there
                parcel.append(handle, body, high, Bytes::new());
            }
            return Ok(Place::Row);
        };
        let hole = self.body_hole(body, start, high)?;
        let room = (parcel.room() as u64).clamp(1, APPEND_MAX);
        // to the end of a block, so that none is read twice for its checksum
        let end = ((start + room) / BLOCK * BLOCK).max((start / BLOCK + 1) * BLOCK).min(hole).min(high);
        let length = usize::try_from(end.saturating_sub(start)).unwrap_or(0);
        parcel.append(handle, body, start, self.read_body(body, start, length)?);
        Ok(Place::Bytes(body, end))
    }

    fn fill_row(&self, parcel: &mut Parcel, flare: &Flare) -> Result<Place, ReadError> {
        let key = flare.row.key();
        parcel.push(Change::PutFlare(flare.row.clone()));
        let (data, locks) = (self.inline(&key)?, self.locks(&key)?);
        if !data.is_empty() {
            parcel.push(Change::PutInline { flare: key, data });
        }
        if !locks.is_empty() {
            parcel.push(Change::PutLocks { flare: key, locks });
        }
        Ok(Place::References(None))
    }

    fn fill_references(
        &self,
        parcel: &mut Parcel,
        flare: &Flare,
        after: Option<&ReferenceRow>,
    ) -> Result<Place, ReadError> {
        let page = self.db.references_after(flare.local, after, PAGE)?;
        let Some(last) = page.last().cloned() else { return Ok(Place::Xattrs(None)) };
        let key = flare.row.key();
        for reference in page {
            parcel.push(Change::PutReference { flare: key, reference });
        }
        Ok(Place::References(Some(last)))
    }

    fn fill_xattr(
        &self,
        parcel: &mut Parcel,
        flare: &Flare,
        after: Option<&Name>,
    ) -> Result<Place, ReadError> {
        let Some((name, value)) = self.db.xattr_after(flare.local, after)? else {
            return Ok(Place::Entries(0));
        };
        parcel.push(Change::PutXattr { flare: flare.row.key(), name: name.clone(), value });
        Ok(Place::Xattrs(Some(name)))
    }

    /// The cookie of the last entry put; none if there are no more.
    fn fill_entries(&self, parcel: &mut Parcel, flare: &Flare, after: u64) -> Result<Option<u64>, ReadError> {
        let dir = flare.row.key();
        let page = self.db.entries_after(&dir, after, PAGE)?;
        let last = page.last().map(|entry| entry.cookie);
        for entry in page {
            parcel.push(Change::PutEntry { dir, entry });
        }
        Ok(last)
    }
}

impl At {
    /// Where to go on within a flare.
    fn in_flare(flare: &Flare, next: Option<Place>) -> Option<Self> {
        next.map(|place| Self::Flare(flare.row.handle, place))
    }
}

impl Place {
    fn first(flare: &Flare) -> Self {
        match flare.row.content {
            Content::Body { body, .. } => Self::Bytes(body, 0),
            Content::Inline => Self::Row,
        }
    }

    /// Whether what was given out so far of the flare with this handle is still the beginning of the one that is there.
    fn fits(&self, handle: Handle, flare: &Flare) -> bool {
        let same_body = match self {
            Self::Bytes(body, _) => {
                matches!(flare.row.content, Content::Body { body: now, .. } if now == *body)
            }
            _ => true,
        };
        flare.row.handle == handle && same_body
    }
}

impl Parcel {
    fn new(budget: usize) -> Self {
        Self { budget, ..Self::default() }
    }

    pub(super) fn push(&mut self, change: Change) {
        self.weight += weight(&change);
        self.changes.push(change);
    }

    fn append(&mut self, flare: Handle, body: BodyId, offset: u64, data: Bytes) {
        self.weight += data.len();
        let change = BodyChange::Append { offset, length: data.len() as u64 };
        self.push(Change::Body { body, flare, change });
        self.appended.push(data);
    }

    pub(super) fn room(&self) -> usize {
        self.budget.saturating_sub(self.weight)
    }

    /// Whether it is worth a try to put this flare in besides others; one with holes may need less than this says.
    fn has_room_for(&self, flare: &Flare) -> bool {
        let high = match flare.row.content {
            Content::Body { high, .. } => high,
            Content::Inline => 0,
        };
        self.room() as u64 > high
    }

    fn mark(&self) -> Mark {
        Mark { changes: self.changes.len(), appended: self.appended.len(), weight: self.weight }
    }

    fn back_to(&mut self, mark: Mark) {
        self.changes.truncate(mark.changes);
        self.appended.truncate(mark.appended);
        self.weight = mark.weight;
    }

    /// A part of whole flares.
    fn close(self, range: KeyRange) -> Part {
        Part { range, first: true, last: true, changes: self.changes, appended: self.appended }
    }

    /// A part of one key.
    fn close_single(self, ino: Ino, first: bool, next: Option<At>) -> (Part, Option<Inside>) {
        let range = KeyRange::single(ino);
        let (changes, appended) = (self.changes, self.appended);
        let part = Part { range, first, last: next.is_none(), changes, appended };
        (part, next.map(Inside))
    }
}

/// About how many bytes a change takes on its way, without those that it appends.
fn weight(change: &Change) -> usize {
    CHANGE_WEIGHT
        + match change {
            Change::PutFlare(row) => ROW_WEIGHT + row.birth.as_bytes().len(),
            Change::PutInline { data, .. } => data.len(),
            Change::PutEntry { entry, .. } => CHANGE_WEIGHT + entry.name.as_bytes().len(),
            Change::PutReference { reference, .. } => CHANGE_WEIGHT + reference.name.as_bytes().len(),
            Change::PutXattr { name, value, .. } => name.as_bytes().len() + value.len(),
            Change::PutLocks { locks, .. } => CHANGE_WEIGHT * locks.len(),
            Change::PutSession(session) => session.client.len(),
            Change::PutTransaction(row) => {
                postcard::serialize_with_flavor(row, postcard::ser_flavors::Size::default()).unwrap_or(0)
            }
            _ => 0,
        }
}
