//! POSIX ACLs (the withdrawn POSIX 1003.1e draft 17, as Linux has them) and their encoding in extended attributes.

use bytes::{BufMut, Bytes, BytesMut};
use magma_common::error::FlareError;
use magma_common::name::Name;
use magma_common::proto::Credentials;

/// Version at the front of an encoded ACL (`POSIX_ACL_XATTR_VERSION`).
const VERSION: u32 = 2;
/// Length of that version in bytes.
const HEADER_LEN: usize = 4;
/// Length of an encoded entry in bytes: tag, permission, id, all little-endian.
const ENTRY_LEN: usize = 8;
/// The id of entries that have none.
const NO_ID: u32 = u32::MAX;

/// The extended attribute that holds the ACL by which access is decided.
pub(super) fn access_name() -> Name {
    known("system.posix_acl_access")
}

/// The extended attribute of a directory that holds the ACL its children are born with.
pub(super) fn default_name() -> Name {
    known("system.posix_acl_default")
}

fn known(name: &'static str) -> Name {
    #[allow(clippy::expect_used, reason = "the two constants above are valid names")]
    Name::new(name).expect("a valid name")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tag {
    UserObject,
    User(u32),
    GroupObject,
    Group(u32),
    Mask,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: Tag,
    /// `rwx` as in one digit of a mode.
    permission: u32,
}

/// A valid ACL: owner, named users, owning group, named groups, mask (if anyone is named), others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Acl {
    entries: Vec<Entry>,
}

impl Acl {
    /// Decodes and validates the value of an extended attribute. An ACL without entries is `None`: it removes what is there.
    pub(super) fn decode(value: &[u8]) -> Result<Option<Self>, FlareError> {
        if value.is_empty() {
            return Ok(None);
        }
        let (version, rest) = value.split_first_chunk::<HEADER_LEN>().ok_or(FlareError::Invalid)?;
        if u32::from_le_bytes(*version) != VERSION {
            return Err(FlareError::NotSupported);
        }
        let (chunks, []) = rest.as_chunks::<ENTRY_LEN>() else { return Err(FlareError::Invalid) };
        if chunks.is_empty() {
            return Ok(None);
        }
        let entries = chunks.iter().copied().map(decode_entry).collect::<Result<Vec<_>, _>>()?;
        let acl = Self { entries };
        if acl.is_valid() { Ok(Some(acl)) } else { Err(FlareError::Invalid) }
    }

    /// The value of the extended attribute.
    pub(super) fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(HEADER_LEN + ENTRY_LEN * self.entries.len());
        bytes.put_u32_le(VERSION);
        for entry in &self.entries {
            let (tag, id) = match entry.tag {
                Tag::UserObject => (0x01, NO_ID),
                Tag::User(id) => (0x02, id),
                Tag::GroupObject => (0x04, NO_ID),
                Tag::Group(id) => (0x08, id),
                Tag::Mask => (0x10, NO_ID),
                Tag::Other => (0x20, NO_ID),
            };
            bytes.put_u16_le(tag);
            bytes.put_u16_le(entry.permission as u16);
            bytes.put_u32_le(id);
        }
        bytes.freeze()
    }

    /// The order of tags that Linux wants, each unnamed one once, and a mask if anyone is named.
    fn is_valid(&self) -> bool {
        let rank = |tag: Tag| match tag {
            Tag::UserObject => 0,
            Tag::User(_) => 1,
            Tag::GroupObject => 2,
            Tag::Group(_) => 3,
            Tag::Mask => 4,
            Tag::Other => 5,
        };
        let count = |wanted: u8| self.entries.iter().filter(|entry| rank(entry.tag) == wanted).count();
        self.entries.iter().map(|entry| rank(entry.tag)).is_sorted()
            && (count(0), count(2), count(5)) == (1, 1, 1)
            && (count(4) == 1 || (count(4) == 0 && count(1) + count(3) == 0))
    }

    /// Whether a caller who does not own the flare has the wanted bits (Linux's `posix_acl_permission`).
    pub(super) fn grants(&self, who: &Credentials, owning_group: u32, want: u32) -> bool {
        let has = |entry: &Entry| entry.permission & want == want;
        let masked = |entry: &Entry| has(entry) && self.find(Tag::Mask).is_none_or(has);
        if let Some(user) = self.entries.iter().find(|entry| entry.tag == Tag::User(who.uid)) {
            return masked(user);
        }
        let mut groups = self
            .entries
            .iter()
            .filter(|entry| match entry.tag {
                Tag::GroupObject => who.in_group(owning_group),
                Tag::Group(gid) => who.in_group(gid),
                _ => false,
            })
            .peekable();
        if groups.peek().is_some() {
            return groups.any(masked);
        }
        self.find(Tag::Other).is_some_and(has)
    }

    /// The nine permission bits that the ACL shows as, and whether it says nothing beyond them (`posix_acl_equiv_mode`).
    pub(super) fn as_mode(&self) -> (u32, bool) {
        let bits = |tag| self.find(tag).map_or(0, |entry| entry.permission);
        let group = self.find(Tag::Mask).map_or_else(|| bits(Tag::GroupObject), |mask| mask.permission);
        (bits(Tag::UserObject) << 6 | group << 3 | bits(Tag::Other), self.is_minimal())
    }

    fn is_minimal(&self) -> bool {
        self.entries.iter().all(|entry| matches!(entry.tag, Tag::UserObject | Tag::GroupObject | Tag::Other))
    }

    /// After a chmod: owner, mask (or owning group) and others follow the mode (`posix_acl_chmod`).
    pub(super) fn follow_mode(&mut self, mode: u32) {
        let group = self.group_class();
        for entry in &mut self.entries {
            match entry.tag {
                Tag::UserObject => entry.permission = mode >> 6 & 7,
                Tag::Other => entry.permission = mode & 7,
                tag if tag == group => entry.permission = mode >> 3 & 7,
                _ => {}
            }
        }
    }

    /// A directory's default ACL becomes the access ACL of a child created with `mode`: each class
    /// is cut to what the mode grants. The child's mode comes with it (`posix_acl_create`).
    pub(super) fn inherit(mut self, mode: u32) -> (Self, u32) {
        let group = self.group_class();
        let mut inherited = mode & !0o777;
        for entry in &mut self.entries {
            let shift = match entry.tag {
                Tag::UserObject => 6,
                Tag::Other => 0,
                tag if tag == group => 3,
                _ => continue,
            };
            entry.permission &= mode >> shift & 7;
            inherited |= entry.permission << shift;
        }
        (self, inherited)
    }

    /// The entry that the group digit of the mode stands for.
    fn group_class(&self) -> Tag {
        self.find(Tag::Mask).map_or(Tag::GroupObject, |mask| mask.tag)
    }

    fn find(&self, tag: Tag) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.tag == tag)
    }
}

fn decode_entry(bytes: [u8; ENTRY_LEN]) -> Result<Entry, FlareError> {
    let [t0, t1, p0, p1, id @ ..] = bytes;
    let id = u32::from_le_bytes(id);
    let tag = match (u16::from_le_bytes([t0, t1]), id) {
        (0x01, _) => Tag::UserObject,
        (0x04, _) => Tag::GroupObject,
        (0x10, _) => Tag::Mask,
        (0x20, _) => Tag::Other,
        (0x02, id) if id != NO_ID => Tag::User(id),
        (0x08, id) if id != NO_ID => Tag::Group(id),
        _ => return Err(FlareError::Invalid),
    };
    let permission = u32::from(u16::from_le_bytes([p0, p1]));
    if permission > 7 { Err(FlareError::Invalid) } else { Ok(Entry { tag, permission }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16, u32)]) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_u32_le(VERSION);
        for (tag, permission, id) in entries {
            bytes.put_u16_le(*tag);
            bytes.put_u16_le(*permission);
            bytes.put_u32_le(*id);
        }
        bytes.freeze()
    }

    fn valid(entries: &[(u16, u16, u32)]) -> Acl {
        Acl::decode(&acl(entries)).unwrap().unwrap()
    }

    fn who(uid: u32, gid: u32, groups: &[u32]) -> Credentials {
        Credentials { uid, gid, groups: groups.to_vec() }
    }

    const FULL: &[(u16, u16, u32)] = &[
        (0x01, 7, NO_ID),
        (0x02, 6, 1000),
        (0x04, 5, NO_ID),
        (0x08, 7, 50),
        (0x10, 5, NO_ID),
        (0x20, 0, NO_ID),
    ];

    #[test]
    fn encoding_gives_back_what_was_decoded() {
        assert_eq!(valid(FULL).encode(), acl(FULL));
    }

    #[test]
    fn what_linux_refuses_is_refused() {
        let version_1 = [1u8, 0, 0, 0];
        assert_eq!(Acl::decode(&version_1), Err(FlareError::NotSupported));
        assert_eq!(Acl::decode(&[2, 0]), Err(FlareError::Invalid));
        assert_eq!(Acl::decode(&acl(&[])), Ok(None), "an empty list removes");
        for wrong in [
            &[(0x01, 7, NO_ID), (0x04, 5, NO_ID)][..],
            &[(0x01, 7, NO_ID), (0x04, 5, NO_ID), (0x20, 8, NO_ID)],
            &[(0x04, 7, NO_ID), (0x01, 5, NO_ID), (0x20, 0, NO_ID)],
            &[(0x01, 7, NO_ID), (0x02, 7, 5), (0x04, 5, NO_ID), (0x20, 0, NO_ID)],
            &[(0x01, 7, NO_ID), (0x04, 5, NO_ID), (0x10, 1, NO_ID), (0x10, 1, NO_ID), (0x20, 0, NO_ID)],
            &[(0x01, 7, NO_ID), (0x03, 5, 1), (0x04, 5, NO_ID), (0x10, 1, NO_ID), (0x20, 0, NO_ID)],
        ] {
            assert_eq!(Acl::decode(&acl(wrong)), Err(FlareError::Invalid), "{wrong:?}");
        }
        let torn = acl(FULL);
        assert_eq!(Acl::decode(&torn[..torn.len() - 1]), Err(FlareError::Invalid));
    }

    #[test]
    fn the_mask_bounds_named_users_and_groups_but_not_others() {
        let acl = valid(FULL);
        assert!(acl.grants(&who(1000, 1, &[]), 9, 4));
        assert!(!acl.grants(&who(1000, 1, &[]), 9, 2), "masked");
        assert!(acl.grants(&who(1, 1, &[50]), 9, 5));
        assert!(!acl.grants(&who(1, 1, &[50]), 9, 2), "masked");
        assert!(acl.grants(&who(1, 9, &[]), 9, 5));
        assert!(!acl.grants(&who(1, 1, &[]), 9, 4), "others have nothing");
    }

    #[test]
    fn a_group_that_matches_without_granting_hides_others() {
        let acl = valid(&[(1, 7, NO_ID), (4, 0, NO_ID), (8, 1, 50), (0x10, 7, NO_ID), (0x20, 7, NO_ID)]);
        assert!(!acl.grants(&who(1, 50, &[]), 9, 4));
        assert!(acl.grants(&who(1, 1, &[]), 9, 4));
    }

    #[test]
    fn mode_and_mask_follow_each_other() {
        let mut acl = valid(FULL);
        assert_eq!(acl.as_mode(), (0o750, false));
        acl.follow_mode(0o621);
        assert_eq!(acl.as_mode(), (0o621, false));
        let minimal = valid(&[(1, 6, NO_ID), (4, 4, NO_ID), (0x20, 0, NO_ID)]);
        assert_eq!(minimal.as_mode(), (0o640, true));
    }

    #[test]
    fn inheritance_cuts_each_class_to_the_mode() {
        let (child, mode) = valid(FULL).inherit(0o2604);
        assert_eq!(mode, 0o2600);
        assert_eq!(child.as_mode().0, 0o600);
    }
}
