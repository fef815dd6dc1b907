//! The encoding under all messages: little-endian integers, counted byte strings, qids.
//!
//! Nothing here allocates by a number that a peer wrote: lists have fixed limits, and strings and
//! data are slices of the frame that carried them.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Most names in a walk (`MAXWELEM` of the protocol).
pub const MAX_WALK_NAMES: usize = 16;

/// Why the body of a well-framed message could not be decoded. It costs its sender an error, the connection stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The body ends in the middle of a field.
    #[error("the message ends in the middle of a field")]
    Short,
    /// Bytes follow the last field.
    #[error("bytes follow the last field")]
    Trailing,
    /// A list above its limit.
    #[error("a list is longer than the protocol allows")]
    TooMany,
}

/// Something with a place in a message.
pub trait Wire: Sized {
    /// Takes it from the front of `body`.
    fn take(body: &mut Bytes) -> Result<Self, Malformed>;
    /// Appends it to `out`.
    fn put(&self, out: &mut BytesMut);
}

macro_rules! integers {
    ($($type:ty, $take:ident, $put:ident;)*) => {
        $(
            impl Wire for $type {
                fn take(body: &mut Bytes) -> Result<Self, Malformed> {
                    body.$take().map_err(|_| Malformed::Short)
                }

                fn put(&self, out: &mut BytesMut) {
                    out.$put(*self);
                }
            }
        )*
    };
}

integers! {
    u8, try_get_u8, put_u8;
    u16, try_get_u16_le, put_u16_le;
    u32, try_get_u32_le, put_u32_le;
    u64, try_get_u64_le, put_u64_le;
}

/// A string of up to 65,535 bytes: any bytes, not text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text(Bytes);

impl Text {
    /// Takes the bytes; what is beyond the 65,535 that the length field can say is cut off.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        let mut bytes = bytes.into();
        bytes.truncate(usize::from(u16::MAX));
        Self(bytes)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, sharing memory with the frame they came in.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl Wire for Text {
    fn take(body: &mut Bytes) -> Result<Self, Malformed> {
        let length = usize::from(u16::take(body)?);
        take_bytes(body, length).map(Self)
    }

    fn put(&self, out: &mut BytesMut) {
        out.put_u16_le(self.0.len() as u16);
        out.put_slice(&self.0);
    }
}

/// The payload of a read, write or readdir; it ends its message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Data(pub Bytes);

impl Wire for Data {
    fn take(body: &mut Bytes) -> Result<Self, Malformed> {
        let length = u32::take(body)?;
        take_bytes(body, length as usize).map(Self)
    }

    fn put(&self, out: &mut BytesMut) {
        out.put_u32_le(self.0.len() as u32);
        out.put_slice(&self.0);
    }
}

fn take_bytes(body: &mut Bytes, length: usize) -> Result<Bytes, Malformed> {
    if body.len() < length {
        return Err(Malformed::Short);
    }
    Ok(body.split_to(length))
}

/// The server's name for a file: same path and version, same file and content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Qid {
    /// What it is; see the `QT` constants.
    pub kind: u8,
    /// Changes with the content.
    pub version: u32,
    /// The inode number.
    pub path: u64,
}

impl Qid {
    /// Directory.
    pub const QTDIR: u8 = 0x80;
    /// Symbolic link.
    pub const QTSYMLINK: u8 = 0x02;
    /// Everything else.
    pub const QTFILE: u8 = 0x00;
}

impl Wire for Qid {
    fn take(body: &mut Bytes) -> Result<Self, Malformed> {
        Ok(Self { kind: u8::take(body)?, version: u32::take(body)?, path: u64::take(body)? })
    }

    fn put(&self, out: &mut BytesMut) {
        self.kind.put(out);
        self.version.put(out);
        self.path.put(out);
    }
}

/// A list with a 16-bit count, at most [`MAX_WALK_NAMES`] long.
impl<T: Wire> Wire for Vec<T> {
    fn take(body: &mut Bytes) -> Result<Self, Malformed> {
        let count = usize::from(u16::take(body)?);
        if count > MAX_WALK_NAMES {
            return Err(Malformed::TooMany);
        }
        (0..count).map(|_| T::take(body)).collect()
    }

    fn put(&self, out: &mut BytesMut) {
        debug_assert!(self.len() <= MAX_WALK_NAMES, "lists are made from lists of this length");
        out.put_u16_le(self.len() as u16);
        for item in self {
            item.put(out);
        }
    }
}

/// A last field that older clients leave out.
impl Wire for Option<u32> {
    fn take(body: &mut Bytes) -> Result<Self, Malformed> {
        if body.is_empty() { Ok(None) } else { u32::take(body).map(Some) }
    }

    fn put(&self, out: &mut BytesMut) {
        if let Some(value) = self {
            value.put(out);
        }
    }
}

/// Declares messages: a struct each, whose fields travel in their order.
macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

            impl $crate::wire::codec::Wire for $name {
                fn take(_body: &mut bytes::Bytes) -> Result<Self, $crate::wire::codec::Malformed> {
                    Ok(Self { $($field: $crate::wire::codec::Wire::take(_body)?,)* })
                }

                fn put(&self, _out: &mut bytes::BytesMut) {
                    $($crate::wire::codec::Wire::put(&self.$field, _out);)*
                }
            }
        )*
    };
}
pub(crate) use messages;
