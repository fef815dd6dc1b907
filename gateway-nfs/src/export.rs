//! What is exported, to whom, and as whom they act there. The options are those of `exports(5)`.

mod network;
mod parse;
mod path;

use std::net::{IpAddr, SocketAddr};

use magma_common::proto::Credentials;
use sha2::{Digest, Sha256};

use crate::rpc::auth::Credential;

pub use network::{Network, ParseNetworkError};
pub use parse::{ExportSection, ParseExportError};
pub use path::{ExportPath, ParsePathError};

/// The user and group that squashed callers act as unless told otherwise: nobody, nogroup.
pub const NOBODY: u32 = 65_534;
/// Ports below this one can only be used by root on the client.
const FIRST_UNPRIVILEGED_PORT: u16 = 1024;

/// Names an export in handles: follows from its path, so that every gateway with the same exports makes the same handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ExportId(pub(crate) u32);

/// Whose identity is replaced by the anonymous one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Squash {
    /// Nobody's.
    None,
    /// Root's: user 0 and group 0.
    Root,
    /// Everybody's.
    All,
}

/// A directory that clients may mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Which directory.
    pub path: ExportPath,
    /// From where; anybody else is refused.
    pub clients: Vec<Network>,
    /// Nothing can be changed through it.
    pub read_only: bool,
    /// Who becomes anonymous.
    pub squash: Squash,
    /// The anonymous user.
    pub anonuid: u32,
    /// The anonymous group.
    pub anongid: u32,
    /// Calls must come from a port below 1024, which on the client only root can use.
    pub secure: bool,
}

/// Why an export does not let a caller in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAdmitted {
    /// The address is not among the clients.
    #[error("its address is not among the export's clients")]
    Address,
    /// The port could be anybody's on that host.
    #[error("its port is not below 1024; the export option `insecure` would allow it")]
    Port,
}

impl Export {
    /// Read-write for this host only, root squashed.
    pub fn new(path: ExportPath) -> Self {
        Self {
            path,
            clients: Network::loopback(),
            read_only: false,
            squash: Squash::Root,
            anonuid: NOBODY,
            anongid: NOBODY,
            secure: true,
        }
    }

    pub(crate) fn id(&self) -> ExportId {
        let digest = Sha256::digest(self.path.as_bytes());
        let mut id = 0;
        for byte in digest.iter().take(4) {
            id = id << 8 | u32::from(*byte);
        }
        ExportId(id)
    }

    /// Whether a caller from there is let in.
    pub(crate) fn admit(&self, client: SocketAddr) -> Result<(), NotAdmitted> {
        if !self.lists(client.ip()) {
            return Err(NotAdmitted::Address);
        }
        if self.secure && client.port() >= FIRST_UNPRIVILEGED_PORT {
            return Err(NotAdmitted::Port);
        }
        Ok(())
    }

    /// Whether the address is among the clients.
    pub(crate) fn lists(&self, address: IpAddr) -> bool {
        self.clients.iter().any(|network| network.contains(address))
    }

    /// As whom a caller acts.
    pub(crate) fn credentials(&self, credential: &Credential) -> Credentials {
        let anonymous = Credentials { uid: self.anonuid, gid: self.anongid, groups: Vec::new() };
        let Credential::Sys(sys) = credential else { return anonymous };
        match self.squash {
            Squash::All => anonymous,
            Squash::None => Credentials { uid: sys.uid, gid: sys.gid, groups: sys.gids.clone() },
            Squash::Root => {
                let gid = |gid: u32| if gid == 0 { self.anongid } else { gid };
                Credentials {
                    uid: if sys.uid == 0 { self.anonuid } else { sys.uid },
                    gid: gid(sys.gid),
                    groups: sys.gids.iter().map(|&group| gid(group)).collect(),
                }
            }
        }
    }
}

/// Why a list of exports cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExportsError {
    /// One path twice.
    #[error("{0} is exported twice")]
    Twice(ExportPath),
    /// Two paths whose numbers collide; handles could not tell them apart.
    #[error("{0} and {1} get the same number in file handles; export one of them under another path")]
    SameId(ExportPath, ExportPath),
}

/// All exports of this gateway.
#[derive(Debug)]
pub(crate) struct Exports {
    exports: Vec<(ExportId, Export)>,
}

impl Exports {
    pub(crate) fn new(list: Vec<Export>) -> Result<Self, ExportsError> {
        let mut exports: Vec<(ExportId, Export)> = Vec::with_capacity(list.len());
        for export in list {
            let id = export.id();
            if let Some((_, other)) = exports.iter().find(|(taken, _)| *taken == id) {
                return Err(if other.path == export.path {
                    ExportsError::Twice(export.path)
                } else {
                    ExportsError::SameId(other.path.clone(), export.path)
                });
            }
            exports.push((id, export));
        }
        Ok(Self { exports })
    }

    pub(crate) fn by_id(&self, id: ExportId) -> Option<&Export> {
        self.exports.iter().find(|(known, _)| *known == id).map(|(_, export)| export)
    }

    /// The export that a path lies in: the one with the longest path.
    pub(crate) fn containing(&self, path: &ExportPath) -> Option<(ExportId, &Export)> {
        let within = self.exports.iter().filter(|(_, export)| path.is_within(&export.path));
        within.max_by_key(|(_, export)| export.path.as_bytes().len()).map(|(id, export)| (*id, export))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Export> {
        self.exports.iter().map(|(_, export)| export)
    }

    /// Whether any export is for that address.
    pub(crate) fn know(&self, address: IpAddr) -> bool {
        self.iter().any(|export| export.lists(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::auth::SysCredential;

    fn export(text: &str) -> Export {
        text.parse().unwrap()
    }

    fn sys(uid: u32, gid: u32, gids: &[u32]) -> Credential {
        Credential::Sys(SysCredential { machine: "host".into(), uid, gid, gids: gids.to_vec() })
    }

    #[test]
    fn root_and_its_groups_are_squashed_and_others_are_not() {
        let export = export("/:anonuid=99,anongid=98");
        let root = export.credentials(&sys(0, 0, &[0, 4]));
        assert_eq!((root.uid, root.gid, root.groups), (99, 98, vec![98, 4]));
        let user = export.credentials(&sys(1000, 100, &[4]));
        assert_eq!((user.uid, user.gid, user.groups), (1000, 100, vec![4]));
    }

    #[test]
    fn callers_without_identity_are_anonymous_even_where_root_is_not_squashed() {
        let nobody = export("/:no_root_squash").credentials(&Credential::None);
        assert_eq!((nobody.uid, nobody.gid), (NOBODY, NOBODY));
        let all = export("/:all_squash").credentials(&sys(1000, 100, &[4]));
        assert_eq!((all.uid, all.gid, all.groups), (NOBODY, NOBODY, vec![]));
        assert!(export("/:no_root_squash").credentials(&sys(0, 0, &[])).is_root());
    }

    #[test]
    fn only_listed_clients_and_reserved_ports_are_let_in() {
        let from = |text: &str| text.parse::<SocketAddr>().unwrap();
        let export = export("/:client=10.0.0.0/8");
        assert_eq!(export.admit(from("10.1.2.3:900")), Ok(()));
        assert_eq!(export.admit(from("10.1.2.3:1024")), Err(NotAdmitted::Port));
        assert_eq!(export.admit(from("127.0.0.1:900")), Err(NotAdmitted::Address));
        assert_eq!(Export { secure: false, ..export }.admit(from("10.1.2.3:1024")), Ok(()));
    }

    #[test]
    fn a_path_belongs_to_the_deepest_export_around_it() {
        let exports = Exports::new(vec![export("/"), export("/a/b"), export("/a")]).unwrap();
        let of = |path: &str| exports.containing(&path.parse().unwrap()).unwrap().1.path.to_string();
        assert_eq!(of("/a/b/c"), "/a/b");
        assert_eq!(of("/a/bc"), "/a");
        assert_eq!(of("/x"), "/");
    }

    #[test]
    fn an_export_has_the_same_number_everywhere_and_no_path_counts_twice() {
        assert_eq!(export("/").id(), export("/:ro").id());
        assert_ne!(export("/").id(), export("/a").id());
        let twice = Exports::new(vec![export("/a"), export("/a/:ro")]);
        assert_eq!(twice.unwrap_err().to_string(), "/a is exported twice");
    }
}
