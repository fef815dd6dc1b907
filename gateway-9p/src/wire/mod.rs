//! 9P2000.L as it is on the wire: `size[4] type[1] tag[2]`, then the fields of the message.
//!
//! One file per group of messages; [`codec`] holds what they are made of. The two enums here name
//! every message with its number; the client's side is encoded too, for tests and fuzzing.

pub mod attr;
pub mod codec;
pub mod fid;
pub mod io;
pub mod lock;
pub mod names;
pub mod session;

use attr::{
    Rgetattr, Rsetattr, Rstatfs, Rxattrcreate, Rxattrwalk, Tgetattr, Tsetattr, Tstatfs, Txattrcreate,
    Txattrwalk,
};
use bytes::{BufMut, Bytes, BytesMut};
use codec::{Malformed, Wire};
use fid::{Rclunk, Rremove, Rwalk, Tclunk, Tremove, Twalk};
use io::{
    Rfsync, Rlcreate, Rlopen, Rread, Rreaddir, Rwrite, Tfsync, Tlcreate, Tlopen, Tread, Treaddir, Twrite,
};
use lock::{Rgetlock, Rlock, Tgetlock, Tlock};
use names::{
    Rlink, Rmkdir, Rmknod, Rreadlink, Rrename, Rrenameat, Rsymlink, Runlinkat, Tlink, Tmkdir, Tmknod,
    Treadlink, Trename, Trenameat, Tsymlink, Tunlinkat,
};
use session::{Rattach, Rauth, Rflush, Rlerror, Rversion, Tattach, Tauth, Tflush, Tversion};

/// Bytes before the fields of a message.
pub const HEADER: usize = 7;
/// Bytes of a reply to a read or readdir that are not payload.
pub const READ_OVERHEAD: u32 = 11;

/// Why a message could not be taken. The connection stays, its sender gets an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A message of another dialect, or of none.
    #[error("message type {0} is not one of 9P2000.L's requests")]
    Unknown(u8),
    /// The fields do not fit the message.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// A whole message, without its size field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The message's number.
    pub kind: u8,
    /// Names the request until it is answered.
    pub tag: u16,
    /// The fields.
    pub body: Bytes,
}

/// An encoded reply: the bytes up to the payload, and the payload, so that it is never copied.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// Header and fields.
    pub head: Bytes,
    /// What was read; empty for other messages.
    pub payload: Bytes,
}

macro_rules! message_enum {
    ($(#[$doc:meta])* $enum:ident { $($number:literal $message:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "each message's struct is documented")]
        pub enum $enum { $($message($message),)* }

        impl $enum {
            /// Decodes the fields of the message with this number. Bytes left over are an error.
            pub fn decode(kind: u8, mut body: Bytes) -> Result<Self, DecodeError> {
                let message = match kind {
                    $($number => Self::$message($message::take(&mut body)?),)*
                    _ => return Err(DecodeError::Unknown(kind)),
                };
                if body.is_empty() { Ok(message) } else { Err(Malformed::Trailing.into()) }
            }

            /// The message's number.
            pub const fn kind(&self) -> u8 {
                match self { $(Self::$message(_) => $number,)* }
            }

            /// The message's name, for the log.
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$message(_) => stringify!($message),)* }
            }

            /// Encodes the message with its header.
            pub fn encode(&self, tag: u16) -> Bytes {
                let mut out = header(self.kind(), tag);
                match self { $(Self::$message(message) => message.put(&mut out),)* }
                with_size(out, 0)
            }
        }

        $(
            impl From<$message> for $enum {
                fn from(message: $message) -> Self { Self::$message(message) }
            }
        )*
    };
}

message_enum! {
    /// What a client may send.
    Request {
        8 Tstatfs,
        12 Tlopen,
        14 Tlcreate,
        16 Tsymlink,
        18 Tmknod,
        20 Trename,
        22 Treadlink,
        24 Tgetattr,
        26 Tsetattr,
        30 Txattrwalk,
        32 Txattrcreate,
        40 Treaddir,
        50 Tfsync,
        52 Tlock,
        54 Tgetlock,
        70 Tlink,
        72 Tmkdir,
        74 Trenameat,
        76 Tunlinkat,
        100 Tversion,
        102 Tauth,
        104 Tattach,
        108 Tflush,
        110 Twalk,
        116 Tread,
        118 Twrite,
        120 Tclunk,
        122 Tremove,
    }
}

message_enum! {
    /// What a server may send.
    Reply {
        7 Rlerror,
        9 Rstatfs,
        13 Rlopen,
        15 Rlcreate,
        17 Rsymlink,
        19 Rmknod,
        21 Rrename,
        23 Rreadlink,
        25 Rgetattr,
        27 Rsetattr,
        31 Rxattrwalk,
        33 Rxattrcreate,
        41 Rreaddir,
        51 Rfsync,
        53 Rlock,
        55 Rgetlock,
        71 Rlink,
        73 Rmkdir,
        75 Rrenameat,
        77 Runlinkat,
        101 Rversion,
        103 Rauth,
        105 Rattach,
        109 Rflush,
        111 Rwalk,
        117 Rread,
        119 Rwrite,
        121 Rclunk,
        123 Rremove,
    }
}

impl Reply {
    /// Encodes the reply, leaving the payload of a read where it is.
    pub fn encode_apart(self, tag: u16) -> Encoded {
        let kind = self.kind();
        match self {
            Self::Rread(Rread { data }) | Self::Rreaddir(Rreaddir { data }) => {
                let mut out = header(kind, tag);
                out.put_u32_le(data.0.len() as u32);
                Encoded { head: with_size(out, data.0.len()), payload: data.0 }
            }
            other => Encoded { head: other.encode(tag), payload: Bytes::new() },
        }
    }
}

fn header(kind: u8, tag: u16) -> BytesMut {
    let mut out = BytesMut::with_capacity(64);
    out.put_u32_le(0);
    out.put_u8(kind);
    out.put_u16_le(tag);
    out
}

/// Fills in the size of a message, `payload` bytes that follow counted in.
fn with_size(mut out: BytesMut, payload: usize) -> Bytes {
    let size = (out.len() + payload) as u32;
    for (to, from) in out.iter_mut().zip(size.to_le_bytes()) {
        *to = from;
    }
    out.freeze()
}

#[cfg(test)]
mod tests;
