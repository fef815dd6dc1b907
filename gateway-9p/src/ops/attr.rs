//! Tgetattr, Tsetattr, Tstatfs.

use magma_common::attr::{Attr, Kind, MODE_MASK, SetAttr, SetTime};
use magma_common::handle::BirthNumber;
use magma_common::name::NAME_MAX;
use magma_common::proto::operation::{Setattr, Statfs};
use magma_common::time::Timestamp;

use super::{Session, call, qid};
use crate::errno::{Refusal, refusals};
use crate::fid::Role;
use crate::wire::Reply;
use crate::wire::attr::{
    Rgetattr, Rsetattr, Rstatfs, Tgetattr, Time, Tsetattr, Tstatfs, getattr as valid, setattr as set,
};

/// Size of a block of the file system in bytes.
const BLOCK: u32 = 4096;
/// Size of the unit of `st_blocks` in bytes.
const SECTOR: u64 = 512;
/// The magic number by which Linux knows a 9P file system.
const V9FS_MAGIC: u32 = 0x0102_1997;
/// The set-group-id bit.
const SETGID: u32 = 0o2000;

impl Session {
    /// Reads all attributes whatever was asked for: they come together.
    pub(super) async fn getattr(&self, getattr: &Tgetattr) -> Result<Reply, Refusal> {
        let fid = self.fids.get(getattr.fid)?;
        let target = fid.file()?;
        let attr = self.attributes(&target.user, target.handle).await?;
        Ok(rgetattr(&attr).into())
    }

    pub(super) async fn setattr(&self, setattr: &Tsetattr) -> Result<Reply, Refusal> {
        let fid = self.fids.get(setattr.fid)?;
        let target = fid.file()?;
        self.check_writable()?;
        let user = &target.user;
        let set = changes(setattr)?;
        let opened = matches!(&fid.role, Role::Open(opened) if opened.write);
        // Who gives a file to a group must be in it, and who sets the set-group-id bit in the file's. What the client
        // vouches for is said at once, since the bit would be dropped silently.
        let mut groups: Vec<u32> = set.gid.into_iter().collect();
        if set.mode.is_some_and(|mode| mode & SETGID != 0) && !user.is_root() && !user.groups_known() {
            groups.push(self.attributes(user, target.handle).await?.gid);
        }
        let context = user.context();
        let context = user.vouched_for(&context, groups).unwrap_or(context);
        let setattr = Setattr { handle: target.handle, set, guard: None, opened };
        call(&self.gateway.client, user, &context, setattr).await?;
        Ok(Rsetattr {}.into())
    }

    pub(super) async fn statfs(&self, statfs: &Tstatfs) -> Result<Reply, Refusal> {
        let fid = self.fids.get(statfs.fid)?;
        let space = self.call(&fid.file()?.user, Statfs).await?;
        let blocks = |bytes: u64| bytes / u64::from(BLOCK);
        let reply = Rstatfs {
            kind: V9FS_MAGIC,
            bsize: BLOCK,
            blocks: blocks(space.total),
            bfree: blocks(space.free),
            bavail: blocks(space.available),
            files: space.flares.saturating_add(space.flares_free),
            ffree: space.flares_free,
            fsid: self.gateway.client.topology().network,
            namelen: NAME_MAX as u32,
        };
        Ok(reply.into())
    }
}

/// The changes that a Tsetattr asks for. The time of last change is the volcano's business.
fn changes(setattr: &Tsetattr) -> Result<SetAttr, Refusal> {
    let when = |bit: u32| setattr.valid & bit != 0;
    let time = |now: u32, given: u32, time: &Time| {
        if !when(now) {
            Ok(SetTime::Keep)
        } else if when(given) {
            timestamp(time).map(SetTime::Client)
        } else {
            Ok(SetTime::Server)
        }
    };
    Ok(SetAttr {
        mode: when(set::MODE).then_some(setattr.mode & MODE_MASK),
        uid: when(set::UID).then_some(setattr.uid),
        gid: when(set::GID).then_some(setattr.gid),
        size: when(set::SIZE).then_some(setattr.size),
        atime: time(set::ATIME, set::ATIME_SET, &setattr.atime)?,
        mtime: time(set::MTIME, set::MTIME_SET, &setattr.mtime)?,
    })
}

fn timestamp(time: &Time) -> Result<Timestamp, Refusal> {
    let nanos = u32::try_from(time.nanos).map_err(|_| refusals::INVALID)?;
    Timestamp::new(time.seconds.cast_signed(), nanos).ok_or(refusals::INVALID)
}

fn time(timestamp: Timestamp) -> Time {
    Time { seconds: timestamp.seconds().cast_unsigned(), nanos: u64::from(timestamp.nanos()) }
}

fn rgetattr(attr: &Attr) -> Rgetattr {
    Rgetattr {
        valid: valid::ALL,
        qid: qid(attr),
        mode: type_bits(attr.kind) | attr.mode,
        uid: attr.uid,
        gid: attr.gid,
        nlink: u64::from(attr.nlink),
        rdev: attr.rdev,
        size: attr.size,
        blksize: u64::from(BLOCK),
        blocks: attr.used.div_ceil(SECTOR),
        atime: time(attr.atime),
        mtime: time(attr.mtime),
        ctime: time(attr.ctime),
        btime: time(attr.btime),
        generation: generation(attr.handle.birth),
        data_version: attr.change,
    }
}

/// The birth number folded to 32 bits: Linux keeps no more of it, but compares what it kept with all 64, so that
/// with a longer one it would never find an inode again that it has.
fn generation(birth: BirthNumber) -> u64 {
    (birth.0 >> 32) ^ (birth.0 & 0xffff_ffff)
}

/// The `S_IF` bits of `st_mode`.
fn type_bits(kind: Kind) -> u32 {
    match kind {
        Kind::Fifo => 0o010_000,
        Kind::CharDevice => 0o020_000,
        Kind::Directory => 0o040_000,
        Kind::BlockDevice => 0o060_000,
        Kind::File => 0o100_000,
        Kind::Symlink => 0o120_000,
        Kind::Socket => 0o140_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setattr(valid: u32, seconds: u64, nanos: u64) -> Tsetattr {
        let time = Time { seconds, nanos };
        Tsetattr { fid: 1, valid, mode: 0o10_7777, uid: 1, gid: 2, size: 3, atime: time.clone(), mtime: time }
    }

    #[test]
    fn only_the_fields_that_count_are_set() {
        let none = changes(&setattr(set::CTIME, u64::MAX, u64::MAX)).unwrap();
        assert_eq!(none, SetAttr::default());
        let some = changes(&setattr(set::MODE | set::GID | set::ATIME, 0, 0)).unwrap();
        assert_eq!((some.mode, some.uid, some.gid, some.size), (Some(0o7777), None, Some(2), None));
        assert_eq!((some.atime, some.mtime), (SetTime::Server, SetTime::Keep));
    }

    #[test]
    fn times_before_1970_are_taken_and_impossible_ones_refused() {
        let valid = set::MTIME | set::MTIME_SET;
        let before = changes(&setattr(valid, (-5_i64).cast_unsigned(), 7)).unwrap();
        assert_eq!(before.mtime, SetTime::Client(Timestamp::new(-5, 7).unwrap()));
        assert_eq!(changes(&setattr(valid, 0, 1_000_000_000)), Err(refusals::INVALID));
        assert_eq!(changes(&setattr(valid, 0, u64::MAX)), Err(refusals::INVALID));
    }

    #[test]
    fn a_generation_fits_what_linux_keeps_of_it() {
        for birth in [0, 1, u64::MAX, 0x1234_5678_9abc_def0] {
            assert!(u32::try_from(generation(BirthNumber(birth))).is_ok());
        }
        assert_ne!(generation(BirthNumber(1 << 32)), generation(BirthNumber(2 << 32)));
    }
}
