//! On whose behalf a fid's requests are done.
//!
//! An attach names its user, by number or by name; of groups 9P says nothing. Requests that make
//! something carry the group of what they make, which is the caller's own or that of a directory with
//! the set-group-id bit. For everything else see [`Groups`].

use std::path::Path;
use std::sync::Arc;

use magma_common::client::Context;
use magma_common::proto::limits::MAX_GROUPS;
use magma_common::proto::{Credentials, Durability};

use crate::export::{Export, Groups, Squash};
use crate::wire::session::NONUNAME;

/// A group that no file can have: what stands for a primary group nobody told us.
const NO_GROUP: u32 = u32::MAX;
/// Largest user database that is read, in bytes.
const MAX_DATABASE: u64 = 16 << 20;

/// A user who attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    credentials: Arc<Credentials>,
    /// The client vouches for the user's groups; see [`Groups::Client`].
    vouched: bool,
    /// Group 0 is nobody's.
    root_squashed: bool,
    anonymous_gid: u32,
    durability: Durability,
}

impl User {
    /// The user that an attach names.
    pub(crate) fn attach(export: &Export, uname: &[u8], n_uname: u32, database: &Database) -> Self {
        let uid = match (n_uname, uname) {
            (NONUNAME, b"root") => Some(0),
            (NONUNAME, name) => database.uid(name).or_else(|| number(name)),
            (uid, _) => Some(uid),
        };
        let squashed = match (export.squash, uid) {
            (Squash::All, _) | (Squash::Root, Some(0)) | (_, None) => true,
            (Squash::Nobody | Squash::Root, Some(_)) => false,
        };
        let uid = uid.filter(|_| !squashed).unwrap_or(export.anonymous_uid);
        let credentials = match export.groups {
            _ if squashed => Credentials { uid, gid: export.anonymous_gid, groups: Vec::new() },
            _ if uid == 0 => Credentials::ROOT,
            Groups::Client => Credentials { uid, gid: NO_GROUP, groups: Vec::new() },
            Groups::Host => {
                let (gid, groups) = database.groups(uid).unwrap_or((export.anonymous_gid, Vec::new()));
                Credentials { uid, gid, groups }
            }
        };
        Self {
            credentials: Arc::new(credentials),
            vouched: export.groups == Groups::Client && export.squash != Squash::All && uid != 0,
            root_squashed: export.squash == Squash::Root,
            anonymous_gid: export.anonymous_gid,
            durability: if export.sync { Durability::Stable } else { Durability::Replicated },
        }
    }

    /// For requests that say nothing of a group.
    pub(crate) fn context(&self) -> Context {
        self.with(Arc::clone(&self.credentials))
    }

    /// For requests that make something with this group.
    pub(crate) fn making(&self, gid: u32) -> Context {
        let gid = if gid == 0 && self.root_squashed { self.anonymous_gid } else { gid };
        if gid == self.credentials.gid || gid == NO_GROUP {
            return self.context();
        }
        let may = self.credentials.is_root() || self.vouched || self.credentials.in_group(gid);
        if !may {
            return self.context();
        }
        self.with(Arc::new(Credentials { gid, ..Credentials::clone(&self.credentials) }))
    }

    /// As a member of these groups too, if the client's word counts for that and they are new.
    pub(crate) fn vouched_for(
        &self,
        context: &Context,
        groups: impl IntoIterator<Item = u32>,
    ) -> Option<Context> {
        if !self.vouched {
            return None;
        }
        let mut credentials = Credentials::clone(&context.credentials);
        let known = credentials.groups.len();
        for gid in groups {
            let theirs = gid != NO_GROUP && !(gid == 0 && self.root_squashed);
            if theirs && !credentials.in_group(gid) {
                credentials.groups.push(gid);
            }
        }
        let more = credentials.groups.len() > known;
        more.then(|| Context { credentials: Arc::new(credentials), ..context.clone() })
    }

    /// Whether permission bits do not bind the user.
    pub(crate) fn is_root(&self) -> bool {
        self.credentials.is_root()
    }

    /// Whether the user's groups are known for certain.
    pub(crate) fn groups_known(&self) -> bool {
        !self.vouched
    }

    fn with(&self, credentials: Arc<Credentials>) -> Context {
        Context { credentials, durability: self.durability, deadline: None, call: None }
    }
}

/// The host's users and groups, as its files list them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Database {
    /// Name, uid, gid.
    users: Vec<(Vec<u8>, u32, u32)>,
    /// Gid, names of members.
    groups: Vec<(u32, Vec<Vec<u8>>)>,
}

impl Database {
    /// Reads /etc/passwd and /etc/group. A file that cannot be read counts as empty.
    pub(crate) fn of_this_host() -> Self {
        Self::parse(&read(Path::new("/etc/passwd")), &read(Path::new("/etc/group")))
    }

    fn parse(passwd: &[u8], group: &[u8]) -> Self {
        let users = lines(passwd).filter_map(|fields| match fields[..] {
            [name, _, uid, gid, ..] => Some((name.to_vec(), number(uid)?, number(gid)?)),
            _ => None,
        });
        let groups = lines(group).filter_map(|fields| match fields[..] {
            [_, _, gid, members, ..] => {
                let members = members.split(|&b| b == b',').filter(|name| !name.is_empty());
                Some((number(gid)?, members.map(<[u8]>::to_vec).collect()))
            }
            _ => None,
        });
        Self { users: users.collect(), groups: groups.collect() }
    }

    fn uid(&self, name: &[u8]) -> Option<u32> {
        self.users.iter().find(|(known, ..)| known == name).map(|&(_, uid, _)| uid)
    }

    /// The primary and the other groups of a user.
    fn groups(&self, uid: u32) -> Option<(u32, Vec<u32>)> {
        let (name, _, gid) = self.users.iter().find(|&&(_, known, _)| known == uid)?;
        let member = self.groups.iter().filter(|(_, members)| members.contains(name));
        Some((*gid, member.map(|&(gid, _)| gid).take(MAX_GROUPS).collect()))
    }
}

fn read(path: &Path) -> Vec<u8> {
    let small = std::fs::metadata(path).is_ok_and(|meta| meta.len() <= MAX_DATABASE);
    if small { std::fs::read(path).unwrap_or_default() } else { Vec::new() }
}

fn lines(file: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    file.split(|&b| b == b'\n').map(|line| line.split(|&b| b == b':').collect())
}

fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> Database {
        Database::parse(
            b"root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/:\nbroken\n",
            b"ann:x:1000:\nwheel:x:10:bob,ann\n",
        )
    }

    fn attach(export: &Export, uname: &[u8], n_uname: u32) -> User {
        User::attach(export, uname, n_uname, &database())
    }

    #[test]
    fn numbers_go_before_names_and_unknown_names_are_anonymous() {
        let export = Export::default();
        assert_eq!(attach(&export, b"", 1000).credentials.uid, 1000);
        assert_eq!(attach(&export, b"ann", 7).credentials.uid, 7);
        assert_eq!(attach(&export, b"ann", NONUNAME).credentials.uid, 1000);
        assert_eq!(attach(&export, b"1234", NONUNAME).credentials.uid, 1234);
        assert!(attach(&export, b"root", NONUNAME).is_root());
        assert_eq!(attach(&export, b"nobody-knows", NONUNAME).credentials.uid, 65_534);
    }

    #[test]
    fn squashing_takes_root_or_everybody() {
        let root = Export { squash: Squash::Root, ..Export::default() };
        assert_eq!(attach(&root, b"", 0).credentials.uid, 65_534);
        assert_eq!(attach(&root, b"", 5).credentials.uid, 5);
        assert_eq!(attach(&root, b"", 5).making(0).credentials.gid, 65_534);
        let all = Export { squash: Squash::All, ..Export::default() };
        let user = attach(&all, b"", 5);
        assert_eq!((user.credentials.uid, user.making(7).credentials.gid), (65_534, 65_534));
        assert!(user.vouched_for(&user.context(), [7]).is_none());
    }

    #[test]
    fn what_is_made_gets_the_group_that_the_client_names() {
        let user = attach(&Export::default(), b"", 1000);
        assert_eq!(user.making(50).credentials.gid, 50);
        assert_eq!(user.making(u32::MAX).credentials.gid, NO_GROUP);
    }

    #[test]
    fn by_the_host_only_its_own_groups_count() {
        let export = Export { groups: Groups::Host, ..Export::default() };
        let ann = attach(&export, b"", 1000);
        assert_eq!((ann.credentials.gid, &ann.credentials.groups[..]), (1000, &[10][..]));
        assert_eq!(ann.making(10).credentials.gid, 10);
        assert_eq!(ann.making(11).credentials.gid, 1000);
        assert!(ann.vouched_for(&ann.context(), [11]).is_none());
        assert_eq!(attach(&export, b"", 77).credentials.gid, 65_534);
    }

    #[test]
    fn the_clients_word_adds_groups_but_never_group_0_of_a_squashed_root() {
        let user = attach(&Export { squash: Squash::Root, ..Export::default() }, b"", 1000);
        assert!(user.vouched_for(&user.context(), [0]).is_none());
        let more = user.vouched_for(&user.context(), [0, 5, 5]).unwrap();
        assert_eq!(more.credentials.groups, [5]);
        assert!(user.vouched_for(&more, [5]).is_none());
    }
}
