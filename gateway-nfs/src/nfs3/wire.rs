//! NFSv3's data types (RFC 1813 §2.5, §2.6) on the wire.

use bytes::Bytes;
use magma_common::attr::{Attr, Kind, MODE_MASK, SetAttr, SetTime, Wcc, WccAttr};
use magma_common::time::Timestamp;

use crate::handle::WIRE_LEN;
use crate::xdr::{Decoder, Encoder, XdrError, opaque_len};

/// Longest handle that NFSv3 knows, in bytes.
const MAX_HANDLE: usize = 64;
/// Size of `post_op_attr` with attributes, in bytes.
pub(super) const POST_OP_ATTR_LEN: usize = 4 + 84;
/// Size of `post_op_fh3` with a handle, in bytes.
pub(super) const POST_OP_HANDLE_LEN: usize = 4 + opaque_len(WIRE_LEN);

/// `diropargs3`: a directory's handle and a name as they came.
#[derive(Debug)]
pub(super) struct DirOp {
    pub(super) dir: Bytes,
    pub(super) name: Bytes,
}

/// `specdata3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeviceNumber {
    pub(super) major: u32,
    pub(super) minor: u32,
}

/// `nfs_fh3`.
pub(super) fn handle(from: &mut Decoder) -> Result<Bytes, XdrError> {
    from.opaque(MAX_HANDLE)
}

/// `filename3`. Its length is judged later, so that a long name is an error of NFS and not of RPC.
pub(super) fn filename(from: &mut Decoder) -> Result<Bytes, XdrError> {
    // Copied, so that a name that is kept somewhere does not keep a whole record.
    Ok(Bytes::copy_from_slice(&from.opaque(usize::MAX)?))
}

/// The arguments of procedures that take a handle and nothing else.
pub(super) fn only_handle(mut from: Decoder) -> Result<Bytes, XdrError> {
    let handle = handle(&mut from)?;
    from.finish()?;
    Ok(handle)
}

/// The arguments of procedures that take a directory and a name and nothing else.
pub(super) fn only_dir_op(mut from: Decoder) -> Result<DirOp, XdrError> {
    let at = dir_op(&mut from)?;
    from.finish()?;
    Ok(at)
}

pub(super) fn dir_op(from: &mut Decoder) -> Result<DirOp, XdrError> {
    Ok(DirOp { dir: handle(from)?, name: filename(from)? })
}

/// `nfstime3`.
pub(super) fn time(from: &mut Decoder) -> Result<Timestamp, XdrError> {
    let (seconds, nanos) = (from.u32()?, from.u32()?);
    Timestamp::new(i64::from(seconds), nanos).ok_or(XdrError::BadValue)
}

/// `sattr3`.
pub(super) fn set_attr(from: &mut Decoder) -> Result<SetAttr, XdrError> {
    Ok(SetAttr {
        mode: optional(from, Decoder::u32)?.map(|mode| mode & MODE_MASK),
        uid: optional(from, Decoder::u32)?,
        gid: optional(from, Decoder::u32)?,
        size: optional(from, Decoder::u64)?,
        atime: set_time(from)?,
        mtime: set_time(from)?,
    })
}

/// A value behind a `bool` that says whether it is there.
pub(super) fn optional<T>(
    from: &mut Decoder,
    value: impl FnOnce(&mut Decoder) -> Result<T, XdrError>,
) -> Result<Option<T>, XdrError> {
    from.bool()?.then(|| value(from)).transpose()
}

fn set_time(from: &mut Decoder) -> Result<SetTime, XdrError> {
    match from.u32()? {
        0 => Ok(SetTime::Keep),
        1 => Ok(SetTime::Server),
        2 => time(from).map(SetTime::Client),
        _ => Err(XdrError::BadValue),
    }
}

/// `fattr3`.
pub(super) fn attributes(out: &mut Encoder, attr: &Attr, fsid: u64) {
    out.u32(match attr.kind {
        Kind::File => 1,
        Kind::Directory => 2,
        Kind::BlockDevice => 3,
        Kind::CharDevice => 4,
        Kind::Symlink => 5,
        Kind::Socket => 6,
        Kind::Fifo => 7,
    });
    out.u32(attr.mode);
    out.u32(attr.nlink);
    out.u32(attr.uid);
    out.u32(attr.gid);
    out.u64(attr.size);
    out.u64(attr.used);
    out.u32(rustix::fs::major(attr.rdev));
    out.u32(rustix::fs::minor(attr.rdev));
    out.u64(fsid);
    out.u64(attr.handle.ino().0);
    put_time(out, attr.atime);
    put_time(out, attr.mtime);
    put_time(out, attr.ctime);
}

/// `nfstime3` reaches from 1970 to 2106; times outside are shown as its ends.
pub(super) fn put_time(out: &mut Encoder, time: Timestamp) {
    let latest = i64::from(u32::MAX);
    out.u32(u32::try_from(time.seconds().clamp(0, latest)).unwrap_or(u32::MAX));
    out.u32(time.nanos());
}

/// `post_op_attr`.
pub(super) fn post_op(out: &mut Encoder, attr: Option<&Attr>, fsid: u64) {
    out.bool(attr.is_some());
    if let Some(attr) = attr {
        attributes(out, attr, fsid);
    }
}

/// `wcc_data`.
pub(super) fn wcc(out: &mut Encoder, wcc: &Wcc, fsid: u64) {
    out.bool(wcc.before.is_some());
    if let Some(WccAttr { size, mtime, ctime }) = wcc.before {
        out.u64(size);
        put_time(out, mtime);
        put_time(out, ctime);
    }
    post_op(out, wcc.after.as_ref(), fsid);
}

/// `post_op_fh3`.
pub(super) fn post_op_handle(out: &mut Encoder, handle: Option<&[u8; WIRE_LEN]>) {
    out.bool(handle.is_some());
    if let Some(handle) = handle {
        out.opaque(handle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use magma_common::handle::Handle;

    fn attr() -> Attr {
        let time = |seconds| Timestamp::new(seconds, 5).unwrap();
        Attr {
            handle: Handle::root(),
            kind: Kind::CharDevice,
            mode: 0o4755,
            nlink: 2,
            uid: 3,
            gid: 4,
            rdev: rustix::fs::makedev(259, 300),
            size: 1 << 40,
            used: 512,
            atime: time(-1),
            mtime: time(1 << 32),
            ctime: time(7),
            btime: time(8),
            change: 9,
        }
    }

    #[test]
    fn attributes_have_the_size_and_order_of_the_standard() {
        let mut out = Encoder::new();
        post_op(&mut out, Some(&attr()), 42);
        let mut decoder = Decoder::new(out.finish().to_bytes());
        assert_eq!(decoder.rest().len(), POST_OP_ATTR_LEN);
        let words: Vec<u32> = std::iter::from_fn(|| decoder.u32().ok()).collect();
        assert_eq!(words[..6], [1, 4, 0o4755, 2, 3, 4]);
        assert_eq!(words[6..12], [256, 0, 0, 512, 259, 300]);
        assert_eq!(words[12..14], [0, 42]);
        assert_eq!(words[16..], [0, 5, u32::MAX, 5, 7, 5]);
    }

    #[test]
    fn a_handle_behind_a_bool_has_the_size_that_listings_count_with() {
        let mut out = Encoder::new();
        post_op_handle(&mut out, Some(&[0; WIRE_LEN]));
        assert_eq!(out.len(), POST_OP_HANDLE_LEN);
    }

    #[test]
    fn set_attributes_say_what_to_keep_and_whose_clock_counts() {
        let mut out = Encoder::new();
        for word in [1, 0o100_755, 0, 1, 9, 0, 1, 2, 6, 7] {
            out.u32(word);
        }
        let mut decoder = Decoder::new(out.finish().to_bytes());
        let set = set_attr(&mut decoder).unwrap();
        assert_eq!((set.mode, set.uid, set.gid, set.size), (Some(0o755), None, Some(9), None));
        assert_eq!((set.atime, set.mtime), (SetTime::Server, SetTime::Client(Timestamp::new(6, 7).unwrap())));
        assert_eq!(decoder.finish(), Ok(()));
    }

    #[test]
    fn a_billion_nanoseconds_are_no_time() {
        let mut out = Encoder::new();
        out.u32(1);
        out.u32(1_000_000_000);
        assert_eq!(time(&mut Decoder::new(out.finish().to_bytes())), Err(XdrError::BadValue));
    }
}
