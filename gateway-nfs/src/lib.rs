//! MagmaFS's NFSv3 gateway: NFS (RFC 1813) in, flare operations out.
//!
//! It is thin. Permissions, names, data and the record of what was executed live in the
//! volcanos; handles are signed with a key that all gateways share. So a gateway can be
//! restarted, or replaced by another, under a mounted file system.
//!
//! From the socket inwards:
//!
//! * `rpc`: connections, records, messages, credentials, the cache of replies
//! * `dispatch`: from a record to the program that answers it
//! * `portmap`, `mount`, `nfs3`: the programs; in `nfs3` one file per procedure, or for a few alike
//! * `exactly_once`, `call_id`: how a retransmission is known
//! * `export`, `handle`: who may see what, and what a file handle is
//!
//! What it does not do: NFS version 4, locks (NLM), NFS over UDP, Kerberos.

mod call_id;
mod dispatch;
mod exactly_once;
mod export;
pub mod fuzz;
mod gateway;
mod handle;
mod mount;
mod nfs3;
mod options;
mod portmap;
mod rpc;
mod service;
mod xdr;

pub use export::{
    Export, ExportPath, ExportSection, ExportsError, NOBODY, Network, ParseExportError, ParseNetworkError,
    ParsePathError, Squash,
};
pub use options::{
    Config, ConfigError, Listen, MAX_CONNECTIONS, NFS_PORT, Options, PORTMAP_PORT, ParseListenError,
};
pub use service::{RunError, Running, StartError, run, start};
