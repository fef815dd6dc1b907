//! NFS version 3 (RFC 1813): its procedures, one file for each or for a few that are alike.
//!
//! A procedure decodes its arguments, asks the volcano, and encodes a success; what a
//! failure looks like follows from the procedure's number, in one table here.

mod attributes;
mod create;
mod door;
mod filesystem;
mod link;
mod lookup;
mod read;
mod readdir;
mod remove;
mod status;
mod wire;
mod write;

use std::time::Instant;

use bytes::Bytes;
use magma_common::proto::limits::MAX_IO;

pub(crate) use status::outcome_is_open;

use crate::dispatch::Fault;
use crate::exactly_once::{self, Once};
use crate::gateway::Gateway;
use crate::rpc::connection::{ConnectionId, Peer};
use crate::rpc::message::{Accept, Call, Incoming, accepted};
use crate::rpc::reply_cache::CallId;
use crate::xdr::{Body, Decoder, Encoder, XdrError};
use door::{Door, Refusal};
use read::ReadArguments;
use readdir::Listing;

pub(crate) const PROGRAM: u32 = 100_003;
pub(crate) const VERSION: u32 = 3;

/// Replies without bulk data are smaller than this, in bytes.
const SMALL_REPLY: usize = 4096;

/// The procedures, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Procedure {
    Null = 0,
    Getattr = 1,
    Setattr = 2,
    Lookup = 3,
    Access = 4,
    Readlink = 5,
    Read = 6,
    Write = 7,
    Create = 8,
    Mkdir = 9,
    Symlink = 10,
    Mknod = 11,
    Remove = 12,
    Rmdir = 13,
    Rename = 14,
    Link = 15,
    Readdir = 16,
    Readdirplus = 17,
    Fsstat = 18,
    Fsinfo = 19,
    Pathconf = 20,
    Commit = 21,
}

/// What follows the status when a procedure fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnFailure {
    Nothing,
    /// `post_op_attr` of the first object.
    Attributes,
    /// `wcc_data` of the first object.
    Wcc,
    /// `wcc_data` of both objects.
    TwoWcc,
    /// `post_op_attr` of the first, `wcc_data` of the second.
    AttributesWcc,
}

impl Procedure {
    const ALL: [Self; 22] = [
        Self::Null,
        Self::Getattr,
        Self::Setattr,
        Self::Lookup,
        Self::Access,
        Self::Readlink,
        Self::Read,
        Self::Write,
        Self::Create,
        Self::Mkdir,
        Self::Symlink,
        Self::Mknod,
        Self::Remove,
        Self::Rmdir,
        Self::Rename,
        Self::Link,
        Self::Readdir,
        Self::Readdirplus,
        Self::Fsstat,
        Self::Fsinfo,
        Self::Pathconf,
        Self::Commit,
    ];

    fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// Whether executing it twice may differ from executing it once. WRITE is among them: a late first
    /// transmission must not undo what was written after the second.
    fn changes(self) -> bool {
        matches!(
            self,
            Self::Setattr
                | Self::Write
                | Self::Create
                | Self::Mkdir
                | Self::Symlink
                | Self::Mknod
                | Self::Remove
                | Self::Rmdir
                | Self::Rename
                | Self::Link
        )
    }

    fn on_failure(self) -> OnFailure {
        match self {
            Self::Null | Self::Getattr => OnFailure::Nothing,
            Self::Lookup
            | Self::Access
            | Self::Readlink
            | Self::Read
            | Self::Readdir
            | Self::Readdirplus
            | Self::Fsstat
            | Self::Fsinfo
            | Self::Pathconf => OnFailure::Attributes,
            Self::Setattr
            | Self::Write
            | Self::Create
            | Self::Mkdir
            | Self::Symlink
            | Self::Mknod
            | Self::Remove
            | Self::Rmdir
            | Self::Commit => OnFailure::Wcc,
            Self::Rename => OnFailure::TwoWcc,
            Self::Link => OnFailure::AttributesWcc,
        }
    }
}

/// Answers an NFS call.
pub(crate) async fn answer(
    gateway: &Gateway,
    peer: &Peer,
    connection: ConnectionId,
    call: &Call,
) -> Result<Body, Fault> {
    if call.version != VERSION {
        return Err(Fault::Version { low: VERSION, high: VERSION });
    }
    let procedure = Procedure::from_number(call.procedure).ok_or(Fault::Procedure)?;
    if !procedure.changes() {
        return execute(gateway, peer, call, procedure, None).await;
    }
    match exactly_once::admit(gateway, peer, connection, call).await? {
        Once::Replay(reply) => Ok(reply),
        Once::Execute(id, ticket) => {
            let reply = execute(gateway, peer, call, procedure, Some(id)).await?;
            ticket.complete(reply.to_bytes(), Instant::now());
            Ok(reply)
        }
    }
}

async fn execute(
    gateway: &Gateway,
    peer: &Peer,
    call: &Call,
    procedure: Procedure,
    id: Option<CallId>,
) -> Result<Body, Fault> {
    let door = Door { gateway, peer, credential: &call.credential, id };
    let mut out = accepted(call.xid, Accept::Success);
    let start = out.len();
    let result = run(&door, procedure, Decoder::new(call.arguments.clone()), &mut out).await;
    tracing::trace!(
        target: "magma::nfs", client = %peer.client, xid = call.xid, ?procedure,
        refusal = ?result.as_ref().err(), "answered"
    );
    match result {
        Ok(()) => {}
        Err(Refusal::Garbage) => return Err(Fault::Garbage),
        Err(Refusal::Undecided) => return Err(Fault::HangUp),
        Err(Refusal::Failed(failed)) => {
            out.truncate(start);
            out.u32(failed.status as u32);
            let fsid = gateway.network;
            match procedure.on_failure() {
                OnFailure::Nothing => {}
                OnFailure::Attributes => wire::post_op(&mut out, failed.first.after.as_ref(), fsid),
                OnFailure::Wcc => wire::wcc(&mut out, &failed.first, fsid),
                OnFailure::TwoWcc => {
                    wire::wcc(&mut out, &failed.first, fsid);
                    wire::wcc(&mut out, &failed.second, fsid);
                }
                OnFailure::AttributesWcc => {
                    wire::post_op(&mut out, failed.first.after.as_ref(), fsid);
                    wire::wcc(&mut out, &failed.second, fsid);
                }
            }
        }
    }
    Ok(out.finish())
}

async fn run(
    door: &Door<'_>,
    procedure: Procedure,
    arguments: Decoder,
    out: &mut Encoder,
) -> Result<(), Refusal> {
    match procedure {
        Procedure::Null => Ok(()),
        Procedure::Getattr => attributes::getattr(door, arguments, out).await,
        Procedure::Setattr => attributes::setattr(door, arguments, out).await,
        Procedure::Lookup => lookup::lookup(door, arguments, out).await,
        Procedure::Access => attributes::access(door, arguments, out).await,
        Procedure::Readlink => lookup::readlink(door, arguments, out).await,
        Procedure::Read => read::read(door, arguments, out).await,
        Procedure::Write => write::write(door, arguments, out).await,
        Procedure::Create => create::create(door, arguments, out).await,
        Procedure::Mkdir => create::mkdir(door, arguments, out).await,
        Procedure::Symlink => create::symlink(door, arguments, out).await,
        Procedure::Mknod => create::mknod(door, arguments, out).await,
        Procedure::Remove => remove::remove(door, arguments, out).await,
        Procedure::Rmdir => remove::rmdir(door, arguments, out).await,
        Procedure::Rename => link::rename(door, arguments, out).await,
        Procedure::Link => link::link(door, arguments, out).await,
        Procedure::Readdir => readdir::readdir(door, arguments, out).await,
        Procedure::Readdirplus => readdir::readdirplus(door, arguments, out).await,
        Procedure::Fsstat => filesystem::fsstat(door, arguments, out).await,
        Procedure::Fsinfo => filesystem::fsinfo(door, arguments, out).await,
        Procedure::Pathconf => filesystem::pathconf(door, arguments, out).await,
        Procedure::Commit => write::commit(door, arguments, out).await,
    }
}

/// How large the reply may become, in bytes: what is set aside for it before the call runs.
pub(crate) fn reply_bound(incoming: &Incoming) -> usize {
    let Incoming::Call(call) = incoming else { return SMALL_REPLY };
    if call.program != PROGRAM {
        return SMALL_REPLY;
    }
    let arguments = Decoder::new(call.arguments.clone());
    let bulk = match Procedure::from_number(call.procedure) {
        Some(Procedure::Read) => ReadArguments::decode(arguments).map_or(0, |read| read.count as usize),
        Some(Procedure::Readdir) => Listing::decode(arguments, false).map_or(0, |listing| listing.bytes),
        Some(Procedure::Readdirplus) => Listing::decode(arguments, true).map_or(0, |listing| listing.bytes),
        _ => 0,
    };
    SMALL_REPLY + bulk.min(MAX_IO as usize)
}

/// Decodes the arguments of a procedure, to see whether they decode.
pub(crate) fn decode_arguments(procedure: u32, arguments: &Bytes) -> Result<(), XdrError> {
    let from = Decoder::new(arguments.clone());
    let Some(procedure) = Procedure::from_number(procedure) else { return Err(XdrError::BadValue) };
    match procedure {
        Procedure::Null => Ok(()),
        Procedure::Getattr
        | Procedure::Readlink
        | Procedure::Fsstat
        | Procedure::Fsinfo
        | Procedure::Pathconf => wire::only_handle(from).map(drop),
        Procedure::Lookup | Procedure::Remove | Procedure::Rmdir => wire::only_dir_op(from).map(drop),
        Procedure::Setattr => attributes::SetattrArguments::decode(from).map(drop),
        Procedure::Access => attributes::AccessArguments::decode(from).map(drop),
        Procedure::Read => ReadArguments::decode(from).map(drop),
        Procedure::Write => write::WriteArguments::decode(from).map(drop),
        Procedure::Create => create::CreateArguments::decode(from).map(drop),
        Procedure::Mkdir => create::MkdirArguments::decode(from).map(drop),
        Procedure::Symlink => create::SymlinkArguments::decode(from).map(drop),
        Procedure::Mknod => create::MknodArguments::decode(from).map(drop),
        Procedure::Rename => link::RenameArguments::decode(from).map(drop),
        Procedure::Link => link::LinkArguments::decode(from).map(drop),
        Procedure::Readdir => Listing::decode(from, false).map(drop),
        Procedure::Readdirplus => Listing::decode(from, true).map(drop),
        Procedure::Commit => write::commit_arguments(from).map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    #[test]
    fn procedures_have_the_numbers_of_the_standard() {
        for (number, procedure) in (0..).zip(Procedure::ALL) {
            assert_eq!(procedure as u32, number);
        }
        assert_eq!(Procedure::from_number(22), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_arguments_or_not_without_a_panic(
            procedure in 0u32..23, bytes in proptest::collection::vec(any::<u8>(), 0..200)
        ) {
            let _ = decode_arguments(procedure, &Bytes::from(bytes));
        }

        #[test]
        fn small_words_reach_deep_into_the_arguments_without_a_panic(
            procedure in 0u32..23, words in proptest::collection::vec(0u32..10, 0..60)
        ) {
            let bytes: Bytes = words.iter().flat_map(|word| word.to_be_bytes()).collect();
            let _ = decode_arguments(procedure, &bytes);
        }
    }
}
