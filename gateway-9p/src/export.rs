//! What the operator lets clients do: which trees, who they may be, whether they may change anything.

use bytes::Bytes;
use magma_common::name::{NAME_MAX, PATH_MAX};

use crate::errno::{Refusal, refusals};

/// Whose word counts for a user's groups, which 9P does not transmit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Groups {
    /// The client's kernel, which checks permissions itself before it asks: where group membership would grant what is
    /// refused, it is taken for granted. A client is trusted with users and groups alike, as in NFS with `AUTH_SYS`.
    #[default]
    Client,
    /// The user database of this host, /etc/passwd and /etc/group.
    Host,
}

/// Whose requests are done as those of the anonymous user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Squash {
    /// Nobody's.
    #[default]
    Nobody,
    /// Root's.
    Root,
    /// Everybody's.
    All,
}

/// The terms on which clients attach.
#[derive(Clone, Debug)]
pub struct Export {
    /// Trees that may be attached to, and what is below them; none for all.
    pub trees: Vec<Tree>,
    /// Nothing may be changed.
    pub read_only: bool,
    /// Who becomes anonymous.
    pub squash: Squash,
    /// The anonymous user.
    pub anonymous_uid: u32,
    /// Its group.
    pub anonymous_gid: u32,
    /// Where a user's groups come from.
    pub groups: Groups,
    /// Every change is answered when it is on disk, not only what was fsynced.
    pub sync: bool,
}

impl Default for Export {
    fn default() -> Self {
        Self {
            trees: Vec::new(),
            read_only: false,
            squash: Squash::default(),
            anonymous_uid: 65_534,
            anonymous_gid: 65_534,
            groups: Groups::default(),
            sync: false,
        }
    }
}

impl Export {
    /// Whether a client may attach to this tree.
    pub(crate) fn contains(&self, tree: &Tree) -> bool {
        self.trees.is_empty() || self.trees.iter().any(|allowed| tree.is_below(allowed))
    }
}

/// A directory by its path from the network's root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree(Vec<Bytes>);

impl Tree {
    /// Takes a path. Slashes at its ends or doubled do not count, nor does `.`; `..` is refused.
    pub(crate) fn parse(path: &[u8]) -> Result<Self, Refusal> {
        if path.len() > PATH_MAX {
            return Err(Refusal(rustix::io::Errno::NAMETOOLONG));
        }
        let names = path.split(|&b| b == b'/').filter(|name| !name.is_empty() && *name != b".");
        names
            .map(|name| match name {
                b".." => Err(refusals::INVALID),
                odd if odd.contains(&0) => Err(refusals::INVALID),
                long if long.len() > NAME_MAX => Err(Refusal(rustix::io::Errno::NAMETOOLONG)),
                name => Ok(Bytes::copy_from_slice(name)),
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether it is the network's root.
    pub(crate) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path, from the root.
    pub(crate) fn path(&self) -> Vec<u8> {
        let mut path = Vec::new();
        for name in &self.0 {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        path
    }

    fn is_below(&self, above: &Self) -> bool {
        self.0.starts_with(&above.0)
    }
}

impl std::str::FromStr for Tree {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text.as_bytes())
            .map_err(|_| format!("`{text}` is no path of a tree: /name/name, without `..`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(path: &str) -> Tree {
        Tree::parse(path.as_bytes()).unwrap()
    }

    #[test]
    fn trees_are_compared_name_by_name() {
        let export = Export { trees: vec![tree("/home"), tree("/srv/a/")], ..Export::default() };
        assert!(export.contains(&tree("home")));
        assert!(export.contains(&tree("//home/./x")));
        assert!(export.contains(&tree("/srv/a")));
        assert!(!export.contains(&tree("/srv")));
        assert!(!export.contains(&tree("/homes")));
        assert!(!export.contains(&tree("/")));
        assert!(Export::default().contains(&tree("")));
    }

    #[test]
    fn a_tree_cannot_be_left_by_its_path() {
        assert_eq!(Tree::parse(b"/home/../etc"), Err(refusals::INVALID));
        assert_eq!(Tree::parse(b"/a\0b"), Err(refusals::INVALID));
        assert!(Tree::parse(&[b'x'; 256]).is_err());
        assert!(Tree::parse(&[b'/'; 5000]).is_err());
    }
}
