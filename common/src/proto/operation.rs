//! The operations, one struct each, with the reply each one has.
//!
//! An operation that changes something carries an operation id in its header; its
//! reply carries the attributes that NFSv3's weak cache consistency wants, so that no
//! front end asks twice. A [`Failure`] carries them too.
//!
//! Here is the table of them all, with their opcodes. The structs are grouped by what they are about:
//!
//! | module | operations on |
//! |---|---|
//! | `session` | sessions, their opens, the topology |
//! | `listing` | names in a directory, to find flares by |
//! | `attributes` | attributes, access, and the space of the network |
//! | `making` | flares to be made |
//! | `naming` | names of flares that exist: link, unlink, rename |
//! | `data` | opens, and what files and symbolic links hold |
//! | `stripes` | parts of striped files |
//! | `xattr` | extended attributes |
//! | `lock` | advisory locks |

mod attributes;
mod data;
mod listing;
mod lock;
mod making;
mod naming;
mod session;
mod stripes;
mod xattr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use attributes::{
    ACCESS_DELETE, ACCESS_EXECUTE, ACCESS_READ, ACCESS_WRITE, Access, AccessReply, Getattr, Setattr,
    StatMany, Statfs, StatfsReply,
};
pub use data::{
    Allocate, AllocateHow, Commit, CommitReply, Open, Read, ReadReply, Readlink, ReadlinkReply, Release,
    Seek, SeekReply, SeekWhence, Write, WriteAt, WriteReply,
};
pub use listing::{Dirent, EntryReply, Lookup, LookupParent, Readdir, ReaddirReply};
pub use lock::{HeldLock, Lock, LockFamily, LockKind, LockOwner, TestLock};
pub use making::{Create, CreateHow, MadeReply, Mkdir, Mknod, Symlink};
pub use naming::{Link, LinkReply, RemovedReply, Rename, RenameHow, RenameReply, Rmdir, Unlink};
pub use session::{
    EndSession, FetchTopology, KeepAlive, KeepAliveReply, OpenSession, ReclaimOpens, SessionReply,
};
pub use stripes::{
    CommitPart, Layout, LayoutPurpose, LayoutReply, MakeStripes, ReadStripe, Shed, StripeAt, WriteDone,
    WriteStripe, WriteStripeReply,
};
pub use xattr::{GetXattr, ListXattr, RemoveXattr, SetXattr, XattrHow, XattrValue};

use super::header::OpId;
use crate::attr::{Attr, Wcc};
use crate::error::FlareError;
use crate::name::Name;
use crate::topology::Topology;

/// An operation that did not succeed, with the attributes of what it touched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{error}")]
pub struct Failure {
    /// What went wrong.
    pub error: FlareError,
    /// Of the directory or flare that the operation names first.
    pub first: Wcc,
    /// Of the second: rename's target directory, link's directory.
    pub second: Wcc,
}

impl From<FlareError> for Failure {
    fn from(error: FlareError) -> Self {
        Self { error, first: Wcc::default(), second: Wcc::default() }
    }
}

/// One kind of request and the reply it gets.
pub trait Operation: Into<Request> + Clone + Send + 'static {
    /// The number that stands in the header.
    const OPCODE: u16;
    /// What a success is answered with.
    type Reply: Send + 'static;

    /// Takes this operation's reply out of the general one; `None` if the volcano answered something else.
    fn reply(reply: Reply) -> Option<Self::Reply>;
}

macro_rules! operations {
    ($($number:literal $effect:ident $operation:ident => $reply:ty;)*) => {
        /// Any request. The variant's number is its opcode.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[allow(missing_docs, reason = "each operation's struct is documented")]
        #[repr(u16)]
        pub enum Request { $($operation($operation) = $number,)* }

        /// The reply to any request that succeeded.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[allow(missing_docs, reason = "each reply's struct is documented")]
        pub enum Reply { $($operation($reply),)* }

        impl Request {
            /// The number that stands in the header.
            pub const fn opcode(&self) -> u16 {
                match self { $(Self::$operation(_) => $number,)* }
            }

            /// The operation's name, for logs and metrics.
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$operation(_) => stringify!($operation),)* }
            }

            /// Whether it changes the state of a slice, and so carries an operation id.
            pub const fn mutates(&self) -> bool {
                match self { $(Self::$operation(_) => operations!(@ $effect),)* }
            }

            /// Encodes the fields as a message body.
            pub fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
                match self { $(Self::$operation(fields) => postcard::to_stdvec(fields),)* }
            }

            /// Decodes a message body. Bytes left over are an error.
            pub fn decode(opcode: u16, body: &[u8]) -> Result<Self, FlareError> {
                match opcode {
                    $($number => decode_whole(body).map(Self::$operation),)*
                    _ => Err(FlareError::NotSupported),
                }
            }
        }

        impl Reply {
            /// Encodes the fields as a message body.
            pub fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
                match self { $(Self::$operation(fields) => postcard::to_stdvec(fields),)* }
            }

            /// Decodes the body of the reply to a request with this opcode.
            pub fn decode(opcode: u16, body: &[u8]) -> Result<Self, FlareError> {
                match opcode {
                    $($number => decode_whole(body).map(Self::$operation),)*
                    _ => Err(FlareError::NotSupported),
                }
            }
        }

        $(
            impl From<$operation> for Request {
                fn from(operation: $operation) -> Self { Self::$operation(operation) }
            }

            impl Operation for $operation {
                const OPCODE: u16 = $number;
                type Reply = $reply;

                fn reply(reply: Reply) -> Option<$reply> {
                    match reply { Reply::$operation(reply) => Some(reply), _ => None }
                }
            }
        )*
    };
    (@ reads) => { false };
    (@ mutates) => { true };
}

fn decode_whole<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, FlareError> {
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        Ok(_) | Err(_) => Err(FlareError::BadRequest),
    }
}

operations! {
    1  reads   OpenSession => SessionReply;
    2  reads   KeepAlive => KeepAliveReply;
    3  reads   EndSession => ();
    4  reads   ReclaimOpens => ();
    5  reads   FetchTopology => Topology;
    10 reads   Lookup => EntryReply;
    11 reads   LookupParent => EntryReply;
    12 reads   Getattr => Attr;
    13 reads   StatMany => Vec<Result<Attr, FlareError>>;
    14 mutates Setattr => Wcc;
    15 reads   Access => AccessReply;
    16 mutates Create => MadeReply;
    17 mutates Mkdir => MadeReply;
    18 mutates Symlink => MadeReply;
    19 mutates Mknod => MadeReply;
    20 mutates Link => LinkReply;
    21 mutates Unlink => RemovedReply;
    22 mutates Rmdir => RemovedReply;
    23 mutates Rename => RenameReply;
    24 reads   Readdir => ReaddirReply;
    25 reads   Readlink => ReadlinkReply;
    26 mutates Open => Attr;
    27 mutates Release => ();
    28 reads   Read => ReadReply;
    29 mutates Write => WriteReply;
    30 reads   Commit => CommitReply;
    31 mutates Allocate => Wcc;
    32 reads   Seek => SeekReply;
    33 reads   Statfs => StatfsReply;
    34 reads   GetXattr => XattrValue;
    35 mutates SetXattr => Wcc;
    36 reads   ListXattr => Vec<Name>;
    37 mutates RemoveXattr => Wcc;
    38 mutates Lock => ();
    39 reads   TestLock => Option<HeldLock>;
    40 reads   Layout => LayoutReply;
    41 reads   ReadStripe => ();
    42 mutates WriteStripe => WriteStripeReply;
    43 mutates WriteDone => WriteReply;
    44 reads   CommitPart => CommitReply;
    45 mutates Shed => ();
    46 mutates MakeStripes => ();
}

/// The record of an operation's outcome that a retry is answered from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Which operation.
    pub id: OpId,
    /// Its opcode.
    pub opcode: u16,
    /// Its encoded reply.
    pub reply: Bytes,
}
