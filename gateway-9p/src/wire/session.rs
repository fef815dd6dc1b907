//! Messages about the connection itself: version, authentication, attach, flush, and the error reply.

use super::codec::{Qid, Text, messages};

/// "No tag": the tag of a [`Tversion`].
pub const NOTAG: u16 = u16::MAX;
/// "No fid": the `afid` of an attach without authentication.
pub const NOFID: u32 = u32::MAX;
/// "No number": an attach that names its user by `uname` alone.
pub const NONUNAME: u32 = u32::MAX;
/// The version spoken here.
pub const VERSION: &[u8] = b"9P2000.L";
/// What a server answers that does not speak the version asked for.
pub const UNKNOWN_VERSION: &[u8] = b"unknown";

messages! {
    /// Any request that did not succeed.
    Rlerror {
        /// A Linux errno.
        ecode: u32,
    }
    /// Begins a session, and ends the one before: all fids are clunked, all requests aborted.
    Tversion {
        /// Largest message that the client takes, in bytes.
        msize: u32,
        /// The protocol asked for.
        version: Text,
    }
    /// The terms of the session.
    Rversion {
        /// Largest message either side may send, in bytes.
        msize: u32,
        /// [`VERSION`] or [`UNKNOWN_VERSION`].
        version: Text,
    }
    /// Asks for an authentication fid.
    Tauth {
        /// The fid to be made.
        afid: u32,
        /// User by name.
        uname: Text,
        /// Tree to attach to.
        aname: Text,
        /// User by number.
        n_uname: u32,
    }
    /// An authentication fid. Never sent: there is no authentication inside 9P here.
    Rauth {
        /// What authenticates.
        aqid: Qid,
    }
    /// Makes a fid for the root of a tree, on behalf of a user.
    Tattach {
        /// The fid to be made.
        fid: u32,
        /// [`NOFID`].
        afid: u32,
        /// User by name, where `n_uname` is [`NONUNAME`].
        uname: Text,
        /// Path of the tree below the network's root.
        aname: Text,
        /// User by number.
        n_uname: u32,
    }
    /// Attached.
    Rattach {
        /// The tree's root.
        qid: Qid,
    }
    /// Gives up a request.
    Tflush {
        /// Its tag.
        oldtag: u16,
    }
    /// The request will not be answered any more; it has been, or never will be.
    Rflush {}
}
