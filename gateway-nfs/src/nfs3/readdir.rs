//! READDIR and READDIRPLUS (RFC 1813 §3.3.16, §3.3.17).
//!
//! `.` and `..` are the entries with cookies 1 and 2; the volcano's begin with 3 and stay
//! valid while entries come and go. Hence the cookie verifier is always the same and never refused.

use bytes::Bytes;
use magma_common::attr::Attr;
use magma_common::handle::Handle;
use magma_common::proto::limits::{MAX_IO, MAX_STAT_MANY};
use magma_common::proto::operation::{Dirent, Readdir, ReaddirReply};

use super::door::{Door, Refusal, Target};
use super::lookup::parent_attributes;
use super::status::Status;
use super::wire::{self, POST_OP_ATTR_LEN, POST_OP_HANDLE_LEN};
use crate::xdr::{Decoder, Encoder, XdrError, opaque_len};

/// The cookie of `.`.
const DOT: u64 = 1;
/// The cookie of `..`.
const DOT_DOT: u64 = 2;
/// `cookieverf3`, for ever.
const COOKIE_VERIFIER: u64 = 0;
/// Bytes of a reply around its entries: `post_op_attr` of the directory, verifier, end of list, `eof`.
const FRAME: usize = POST_OP_ATTR_LEN + 8 + 4 + 4;
/// Most entries asked of the volcano at once.
const MAX_ENTRIES: usize = MAX_STAT_MANY;

/// `READDIR3args` and `READDIRPLUS3args`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listing {
    handle: Bytes,
    cookie: u64,
    /// Bytes of names, numbers and cookies wanted; READDIRPLUS only.
    dir_bytes: usize,
    /// Bytes of the reply allowed.
    pub(super) bytes: usize,
    plus: bool,
}

pub(super) async fn readdir(door: &Door<'_>, arguments: Decoder, out: &mut Encoder) -> Result<(), Refusal> {
    list(door, &Listing::decode(arguments, false)?, out).await
}

pub(super) async fn readdirplus(
    door: &Door<'_>,
    arguments: Decoder,
    out: &mut Encoder,
) -> Result<(), Refusal> {
    list(door, &Listing::decode(arguments, true)?, out).await
}

impl Listing {
    pub(super) fn decode(mut from: Decoder, plus: bool) -> Result<Self, XdrError> {
        let handle = wire::handle(&mut from)?;
        let (cookie, _verifier) = (from.u64()?, from.u64()?);
        let dir_bytes = if plus { from.u32()? as usize } else { usize::MAX };
        let bytes = from.u32()?.min(MAX_IO) as usize;
        from.finish()?;
        Ok(Self { handle, cookie, dir_bytes, bytes, plus })
    }

    /// How many entries are worth asking for: as many as fit if their names are short.
    fn limit(&self) -> u32 {
        let fit = self.bytes.saturating_sub(FRAME) / self.entry_len(8);
        let wanted = self.dir_bytes / plain_len(8);
        fit.min(wanted).clamp(1, MAX_ENTRIES) as u32
    }

    /// Bytes of an entry whose name has that many, at most.
    fn entry_len(&self, name: usize) -> usize {
        plain_len(name) + if self.plus { POST_OP_ATTR_LEN + POST_OP_HANDLE_LEN } else { 0 }
    }
}

/// Bytes of an entry without attributes and handle: "one more", number, name, cookie.
fn plain_len(name: usize) -> usize {
    4 + 8 + opaque_len(name) + 8
}

async fn list(door: &Door<'_>, listing: &Listing, out: &mut Encoder) -> Result<(), Refusal> {
    let target = &door.target(&listing.handle)?;
    let readdir = Readdir {
        dir: target.handle,
        cookie: if listing.cookie <= DOT_DOT { 0 } else { listing.cookie },
        limit: listing.limit(),
        attributes: listing.plus,
        opened: false,
    };
    let ReaddirReply { entries, eof, dir } = door.ask(target, readdir).await?;
    let above = if listing.cookie < DOT_DOT { Some(above(door, target, &dir).await?) } else { None };

    let mut page = Page::begin(door, target, listing, &dir, out);
    let mut whole = listing.cookie >= DOT || page.add(b".", dir.handle, DOT, Some(&dir));
    if let Some(above) = above {
        whole = whole && page.add(b"..", above.handle, DOT_DOT, Some(&above));
    }
    for Dirent { name, handle, cookie, attr, .. } in &entries {
        whole = whole && page.add(name.as_bytes(), *handle, *cookie, attr.as_ref());
    }
    page.end(whole && eof)
}

/// The attributes behind `..`. A caller who may list a directory but not search it still gets its listing.
async fn above(door: &Door<'_>, target: &Target<'_>, dir: &Attr) -> Result<Attr, Refusal> {
    match parent_attributes(door, target).await {
        Ok(above) => Ok(above),
        Err(Refusal::Failed(failed)) if matches!(failed.status, Status::Access | Status::Perm) => {
            Ok(dir.clone())
        }
        Err(refusal) => Err(refusal),
    }
}

/// One reply, filled entry by entry until the next would exceed what the client allows.
struct Page<'a, 'b> {
    door: &'a Door<'b>,
    target: &'a Target<'b>,
    listing: &'a Listing,
    out: &'a mut Encoder,
    /// Bytes of the reply so far, its end included.
    used: usize,
    /// Bytes that count towards `dir_bytes`.
    dir_used: usize,
    entries: usize,
}

impl<'a, 'b> Page<'a, 'b> {
    fn begin(
        door: &'a Door<'b>,
        target: &'a Target<'b>,
        listing: &'a Listing,
        dir: &Attr,
        out: &'a mut Encoder,
    ) -> Self {
        out.u32(Status::Ok as u32);
        door.post_op(out, Some(dir));
        out.u64(COOKIE_VERIFIER);
        Self { door, target, listing, out, used: FRAME, dir_used: 0, entries: 0 }
    }

    /// Adds an entry; false if it does not fit.
    fn add(&mut self, name: &[u8], handle: Handle, cookie: u64, attr: Option<&Attr>) -> bool {
        let (used, dir_used) =
            (self.used + self.listing.entry_len(name.len()), self.dir_used + plain_len(name.len()));
        // The allowance for names is a hint: one entry goes out in any case.
        if used > self.listing.bytes || (self.entries > 0 && dir_used > self.listing.dir_bytes) {
            return false;
        }
        (self.used, self.dir_used, self.entries) = (used, dir_used, self.entries + 1);
        self.out.bool(true);
        self.out.u64(handle.ino().0);
        self.out.opaque(name);
        self.out.u64(cookie);
        if self.listing.plus {
            self.door.post_op(self.out, attr);
            // Without attributes the caller may list the directory but not search it: then no handle either.
            wire::post_op_handle(self.out, attr.map(|_| self.door.seal(self.target, handle)).as_ref());
        }
        true
    }

    /// Ends the list. One that has no room for a single entry and is not at its end is an error, or the client would ask for ever.
    fn end(self, eof: bool) -> Result<(), Refusal> {
        if self.entries == 0 && !eof {
            return Err(Status::TooSmall.into());
        }
        self.out.bool(false);
        self.out.bool(eof);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(dir_bytes: usize, bytes: usize, plus: bool) -> Listing {
        Listing { handle: Bytes::new(), cookie: 0, dir_bytes, bytes, plus }
    }

    #[test]
    fn as_many_entries_are_asked_for_as_can_fit() {
        assert_eq!(listing(usize::MAX, FRAME + 10 * plain_len(8), false).limit(), 10);
        assert_eq!(listing(3 * plain_len(8), 1 << 20, true).limit(), 3);
        assert_eq!(listing(0, 0, true).limit(), 1);
        assert_eq!(listing(usize::MAX, 1 << 20, false).limit(), MAX_ENTRIES as u32);
    }
}
