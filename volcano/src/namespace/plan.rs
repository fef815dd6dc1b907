//! The plan of one operation: what it reads, with its own changes laid over, and what it changes.

use bytes::Bytes;
use magma_common::attr::{Attr, Kind, Wcc, WccAttr};
use magma_common::error::FlareError;
use magma_common::handle::{BirthNumber, Handle};
use magma_common::key::Key;
use magma_common::name::Name;
use magma_common::proto::{Credentials, Failure, OpId, SessionId};
use magma_common::stripes::StripeUnit;
use magma_common::time::Timestamp;
use magma_common::topology::{Epoch, Seq};

use crate::record::{BodyChange, Change};
use crate::rows::{BodyId, Content, EntryRow, FlareRow, INLINE_MAX, Life, LockRow, ReferenceRow, Striping};
use crate::transaction::{Newborn, Step};
use crate::view::{ReadError, View};

/// Sizes that count as used storage are multiples of this, in bytes (`st_blocks`).
const SECTOR: u64 = 512;

/// On whose behalf an operation is done.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// Who is checked for permission.
    pub credentials: &'a Credentials,
    /// Whose locks and opens they are.
    pub session: SessionId,
    /// What it does has to be on disk before it is answered.
    pub stable: bool,
}

/// Who holds flares open. It decides whether a flare without a name dies.
pub trait Opens {
    /// Whether any session has the flare open, or may have it open as far as is known.
    fn is_open(&self, handle: &Handle) -> bool;
}

/// When and where the record that the plan becomes will stand.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The slice's clock.
    pub now: Timestamp,
    /// The record's place in the slice's log.
    pub seq: Seq,
    /// The slice's epoch.
    pub epoch: Epoch,
    /// The operation; it names the references that the operation makes.
    pub op: OpId,
    /// A number that was never used before, for a birth string whose key is taken.
    pub generation: u64,
    /// The unit of new files, if they are striped.
    pub stripes: Option<StripeUnit>,
}

/// Why an operation came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// It was refused; nothing has changed.
    #[error(transparent)]
    Failure(Box<Failure>),
    /// The store cannot answer: the volcano must not go on.
    #[error(transparent)]
    Store(ReadError),
    /// What it needs to know is in another slice: once more, when that has been asked.
    #[error("another slice has to be asked first")]
    Elsewhere,
    /// It must wait for the outcome of a transaction: once more after that.
    #[error("the outcome of another operation has to be known first")]
    Held,
}

impl From<FlareError> for Stop {
    fn from(error: FlareError) -> Self {
        Self::Failure(Box::new(error.into()))
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failure(Box::new(failure))
    }
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Checksum { .. } => FlareError::Io.into(),
            ReadError::Elsewhere => Self::Elsewhere,
            ReadError::Held => Self::Held,
            fatal => Self::Store(fatal),
        }
    }
}

/// Bytes for a body at an offset at or above everything ever written to it. They are written before the record.
pub type Append = (BodyId, u64, Bytes);

/// What a plan has come to.
#[derive(Debug, Default)]
pub struct Planned {
    /// The record's changes, in order; none if nothing changes.
    pub changes: Vec<Change>,
    /// The bytes of the [`BodyChange::Append`]s among them.
    pub appends: Vec<Append>,
    /// The payload of the reply, if it is still to be read.
    pub read: Option<BodyRange>,
    /// The steps at flares of other slices. If there are any, `changes` is what happens here.
    pub elsewhere: Vec<Steps>,
    /// If there are steps elsewhere: those that `changes` consists of.
    pub here: Vec<Steps>,
}

/// The steps at one flare, in order.
pub type Steps = (Key, Vec<Step>);

/// Bytes of a body that a reply will carry. What lies beyond the body's end is zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyRange {
    /// Which body.
    pub body: BodyId,
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: usize,
}

/// One operation in the making.
///
/// Make it with [`new`](Self::new), let one operation run on it, take the result with [`finish`](Self::finish).
pub struct Plan<'a> {
    pub(super) view: &'a dyn View,
    pub(super) opens: &'a dyn Opens,
    pub(super) moment: Moment,
    random: &'a mut dyn FnMut() -> u64,
    /// Rows as they were before the operation, for its "before" attributes and to read each only once.
    loaded: Vec<FlareRow>,
    changes: Vec<Change>,
    appends: Vec<Append>,
    /// The steps of the operation, unless everything is in one slice.
    steps: Vec<(Key, Step)>,
    /// Flares that it brings to life, and for whom they are open from the beginning.
    births: Vec<(Key, Option<SessionId>)>,
    /// Bytes that the operation needs so far.
    needed: u64,
    /// Bodies are read by the caller.
    leaves_reads: bool,
    pub(super) read: Option<BodyRange>,
}

impl<'a> Plan<'a> {
    /// A plan without changes. `random` gives birth numbers and body numbers.
    pub fn new(
        view: &'a dyn View,
        opens: &'a dyn Opens,
        moment: Moment,
        random: &'a mut dyn FnMut() -> u64,
    ) -> Self {
        let (loaded, changes, appends, steps, births) = Default::default();
        let (leaves_reads, read) = (false, None);
        Self {
            view,
            opens,
            moment,
            random,
            loaded,
            changes,
            appends,
            steps,
            births,
            needed: 0,
            leaves_reads,
            read,
        }
    }

    /// Leaves the reading of bodies to the caller, who may do it on another thread: see [`Planned::read`].
    #[must_use]
    pub fn leaving_reads(mut self) -> Self {
        self.leaves_reads = true;
        self
    }

    /// Whether the caller reads bodies.
    pub(super) fn leaves_reads(&self) -> bool {
        self.leaves_reads
    }

    /// The changes of everything that was planned. After a failure they must be thrown away.
    pub fn finish(self) -> Planned {
        let Self { view, mut changes, appends, steps, births, read, .. } = self;
        let (mut here, mut elsewhere) = (Vec::new(), Vec::new());
        for (key, step) in steps {
            // Who moves directories is alone with that wherever the root is.
            let is_elsewhere = !view.is_here(&key) || step == Step::MoveDirectory;
            add_step(if is_elsewhere { &mut elsewhere } else { &mut here }, key, step);
        }
        for (key, opened_by) in births {
            if let Some(newborn) = newborn(&key, &changes) {
                let step = Step::Birth { newborn: Box::new(newborn), opened_by };
                add_step(if view.is_here(&key) { &mut here } else { &mut elsewhere }, key, step);
            }
        }
        changes.retain(|change| change.flare().is_none_or(|key| view.is_here(&key)));
        Planned { changes, appends, read, elsewhere, here }
    }

    /// Whether the flare with this key is in this slice, if there is one.
    pub(super) fn is_here(&self, key: &Key) -> bool {
        self.view.is_here(key)
    }

    /// Notes that a flare is brought to life. What it is born with is what will have been planned for it in the end.
    pub(super) fn is_born(&mut self, key: Key, opened_by: Option<SessionId>) {
        if !self.view.is_alone() {
            self.births.push((key, opened_by));
        }
    }

    /// Notes a step of the operation at a flare, beside the changes that it consists of.
    pub(super) fn step(&mut self, key: Key, step: impl FnOnce(OpId) -> Step) {
        if !self.view.is_alone() {
            self.steps.push((key, step(self.moment.op)));
        }
    }

    /// The flare with this handle as the plan leaves it; stale if it is gone, or another bears its key, or it is a stripe, which is nobody's
    /// business but its file's.
    pub(super) fn row(&mut self, handle: &Handle) -> Result<FlareRow, Stop> {
        if handle.birth == BirthNumber::INTERNAL {
            return Err(FlareError::ReadOnly.into());
        }
        match self.row_by_key(&handle.key)? {
            Some(row) if row.handle == *handle && is_shown(&row) => Ok(row),
            _ => Err(FlareError::Stale.into()),
        }
    }

    /// The directory with this handle.
    pub(super) fn directory(&mut self, handle: &Handle) -> Result<FlareRow, Stop> {
        let row = self.row(handle)?;
        if row.kind == Kind::Directory { Ok(row) } else { Err(FlareError::NotDirectory.into()) }
    }

    /// The flare with this key as the plan leaves it.
    pub(super) fn row_by_key(&mut self, key: &Key) -> Result<Option<FlareRow>, Stop> {
        for change in self.changes.iter().rev() {
            match change {
                Change::PutFlare(row) if row.handle.key == *key => return Ok(Some(row.clone())),
                Change::DeleteFlare(dead) if dead == key => return Ok(None),
                _ => {}
            }
        }
        if let Some(row) = self.loaded.iter().find(|row| row.handle.key == *key) {
            return Ok(Some(row.clone()));
        }
        let row = self.view.flare(key)?;
        self.loaded.extend(row.clone());
        Ok(row)
    }

    /// An entry of a directory as the plan leaves it.
    pub(crate) fn entry(&self, dir: &Key, wanted: &Name) -> Result<Option<EntryRow>, Stop> {
        for change in self.changes.iter().rev() {
            match change {
                Change::PutEntry { dir: at, entry } if at == dir && entry.name == *wanted => {
                    return Ok(Some(entry.clone()));
                }
                Change::DeleteEntry { dir: at, name } if at == dir && name == wanted => return Ok(None),
                _ => {}
            }
        }
        Ok(self.view.entry(dir, wanted)?)
    }

    /// How many entries of this flare the plan removes.
    pub(super) fn lost_entries(&self, of: &Key) -> usize {
        let is_lost = |change: &&Change| matches!(change, Change::DeleteEntry { dir, .. } if dir == of);
        self.changes.iter().filter(is_lost).count()
    }

    /// The names of a flare, without what is planned.
    pub(crate) fn references(&self, flare: &Key) -> Result<Vec<ReferenceRow>, Stop> {
        Ok(self.view.references(flare)?)
    }

    /// The bytes of a small body as the plan leaves them.
    pub(super) fn inline(&self, wanted: &Key) -> Result<Bytes, Stop> {
        let planned = self.changes.iter().rev().find_map(|change| match change {
            Change::PutInline { flare, data } if flare == wanted => Some(data.clone()),
            _ => None,
        });
        planned.map_or_else(|| Ok(self.view.inline(wanted)?), Ok)
    }

    /// An extended attribute as the plan leaves it.
    pub(super) fn xattr(&self, of: &Key, wanted: &Name) -> Result<Option<Bytes>, Stop> {
        for change in self.changes.iter().rev() {
            match change {
                Change::PutXattr { flare, name, value } if flare == of && name == wanted => {
                    return Ok(Some(value.clone()));
                }
                Change::DeleteXattr { flare, name } if flare == of && name == wanted => return Ok(None),
                _ => {}
            }
        }
        Ok(self.view.xattr(of, wanted)?)
    }

    /// All locks of a flare as the plan leaves them.
    pub(super) fn locks(&self, wanted: &Key) -> Result<Vec<LockRow>, Stop> {
        let planned = self.changes.iter().rev().find_map(|change| match change {
            Change::PutLocks { flare, locks } if flare == wanted => Some(locks.clone()),
            _ => None,
        });
        planned.map_or_else(|| Ok(self.view.locks(wanted)?), Ok)
    }

    /// What was planned so far.
    pub(super) fn planned(&self) -> &[Change] {
        &self.changes
    }

    /// Adds a change.
    pub(super) fn push(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// Plans a flare's row. A row planned before is replaced where it stands, so that a new flare's row stays ahead of what hangs on it.
    pub(super) fn put(&mut self, row: FlareRow) {
        let planned = self.changes.iter_mut().find_map(|change| match change {
            Change::PutFlare(planned) if planned.handle.key == row.handle.key => Some(planned),
            _ => None,
        });
        match planned {
            Some(planned) => *planned = row,
            None => self.changes.push(Change::PutFlare(row)),
        }
    }

    /// Plans bytes that are written to a body before the record.
    pub(super) fn append(&mut self, flare: Handle, body: BodyId, offset: u64, data: Bytes) {
        let length = data.len() as u64;
        self.push(Change::Body { body, flare, change: BodyChange::Append { offset, length } });
        self.appends.push((body, offset, data));
    }

    /// Stamps a row as changed by this plan: a ctime that never goes back, and the record's number. The stamp.
    pub(super) fn touch(&self, row: &mut FlareRow) -> Timestamp {
        if row.change != self.moment.seq.0 {
            row.ctime = self.stamp(row);
            row.change = self.moment.seq.0;
        }
        row.ctime
    }

    /// [`touch`](Self::touch), and the content has changed as well.
    pub(super) fn touch_content(&self, row: &mut FlareRow) {
        row.mtime = self.touch(row);
    }

    /// The clock, but later than the flare's last change.
    pub(super) fn stamp(&self, row: &FlareRow) -> Timestamp {
        if row.change == self.moment.seq.0 { row.ctime } else { self.moment.now.max(row.ctime.next()) }
    }

    /// Refuses the operation if there is no space for so many more bytes.
    pub(super) fn need(&mut self, bytes: u64) -> Result<(), Stop> {
        self.needed = self.needed.saturating_add(bytes);
        if bytes > 0 && self.view.space().available < self.needed {
            return Err(FlareError::NoSpace.into());
        }
        Ok(())
    }

    /// 64 random bits.
    pub(super) fn random(&mut self) -> u64 {
        (self.random)()
    }

    /// Whether the flare is held open.
    pub(super) fn is_open(&self, handle: &Handle) -> bool {
        self.opens.is_open(handle)
    }

    /// What the doors show of a row.
    pub(super) fn attr(&self, row: &FlareRow) -> Result<Attr, Stop> {
        let used = match (row.kind, row.content) {
            (Kind::File, _) if !self.is_here(&row.key()) => self.used_elsewhere(row),
            (Kind::File, Content::Inline) if row.size > INLINE_MAX => self.inline(&row.key())?.len() as u64,
            (Kind::File, Content::Body { body, .. }) => self.body_used(row, body)?,
            (Kind::File, _) => row.own_bytes(),
            (Kind::Directory, _) => row.size,
            _ => 0,
        };
        let used = used + if self.is_here(&row.key()) { row.in_stripes() } else { 0 };
        Ok(row.attr(used.next_multiple_of(SECTOR)))
    }

    /// Of a file that is cut or born it is not known exactly what it will take.
    fn used_elsewhere(&self, row: &FlareRow) -> u64 {
        let known = self.view.used_elsewhere(&row.key());
        known.unwrap_or(0).min(row.size.next_multiple_of(SECTOR))
    }

    fn body_used(&self, row: &FlareRow, wanted: BodyId) -> Result<u64, Stop> {
        let existed = self.loaded.iter().any(|before| {
            before.handle == row.handle
                && matches!(before.content, Content::Body { body, .. } if body == wanted)
        });
        let stored = if existed { self.view.body_used(wanted)? } else { 0 };
        let planned = self.appends.iter().filter(|(body, ..)| *body == wanted);
        Ok(planned.map(|(.., data)| data.len() as u64).sum::<u64>() + stored)
    }

    /// A flare's attributes before the operation and as the plan leaves them.
    pub(super) fn wcc(&mut self, handle: &Handle) -> Result<Wcc, Stop> {
        let after = match self.row_by_key(&handle.key)? {
            Some(row) if row.handle == *handle => Some(self.attr(&row)?),
            _ => None,
        };
        Ok(Wcc { before: self.before(handle), after })
    }

    /// A flare's row without the plan's changes; none if the handle is stale.
    pub(super) fn stored_row(&self, handle: &Handle) -> Result<Option<FlareRow>, Stop> {
        if let Some(row) = self.loaded.iter().find(|row| row.handle == *handle) {
            return Ok(Some(row.clone()).filter(is_shown));
        }
        Ok(self.view.flare(&handle.key)?.filter(|row| row.handle == *handle && is_shown(row)))
    }

    /// What the doors show of a row without the plan's changes.
    pub(super) fn stored_attr(&self, row: &FlareRow) -> Result<Attr, Stop> {
        let used = match (row.kind, row.content) {
            (Kind::File, _) if !self.is_here(&row.key()) => self.used_elsewhere(row),
            (Kind::File, Content::Inline) if row.size > INLINE_MAX => {
                self.view.inline(&row.key())?.len() as u64
            }
            (Kind::File, Content::Body { body, .. }) => self.view.body_used(body)?,
            (Kind::File, _) => row.own_bytes(),
            (Kind::Directory, _) => row.size,
            _ => 0,
        };
        let used = used + if self.is_here(&row.key()) { row.in_stripes() } else { 0 };
        Ok(row.attr(used.next_multiple_of(SECTOR)))
    }

    /// A flare's attributes before the operation, if it was read.
    pub(super) fn before(&self, handle: &Handle) -> Option<WccAttr> {
        let row = self.loaded.iter().find(|row| row.handle == *handle)?;
        Some(WccAttr { size: row.size, mtime: row.mtime, ctime: row.ctime })
    }
}

/// Whether clients may know of this flare.
fn is_shown(row: &FlareRow) -> bool {
    row.life != Life::Dying && !matches!(row.striping, Striping::Stripe { .. })
}

fn add_step(to: &mut Vec<Steps>, key: Key, step: Step) {
    match to.iter_mut().find(|(known, _)| *known == key) {
        Some((_, steps)) => steps.push(step),
        None => to.push((key, vec![step])),
    }
}

/// A flare with everything that was planned for it. Which record brings it to life is not known yet.
fn newborn(key: &Key, planned: &[Change]) -> Option<Newborn> {
    let (mut row, mut reference, mut inline, mut xattrs) = (None, None, Bytes::new(), Vec::new());
    for change in planned.iter().filter(|change| change.flare() == Some(*key)).cloned() {
        match change {
            Change::PutFlare(put) => row = Some(FlareRow { change: 0, ..put }),
            Change::PutReference { reference: put, .. } => reference = Some(put),
            Change::PutInline { data, .. } => inline = data,
            Change::PutXattr { name, value, .. } => xattrs.push((name, value)),
            _ => {}
        }
    }
    Some(Newborn { row: row?, reference: reference?, inline, xattrs })
}
