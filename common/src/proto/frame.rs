//! Frames: how messages follow each other on a stream.
//!
//! A frame is a header of fixed layout, a body in postcard's encoding and a raw payload.
//! Numbers in headers are big-endian. `docs/PROTOCOL.md` draws the layout.
//!
//! Decoding has two steps with different consequences. [`Frame::decode`] reads the header;
//! if that fails the stream has lost its rhythm and the connection ends. The body is
//! read afterwards, by [`RequestFrame::request`] and [`ReplyFrame::outcome`]; if that fails it
//! costs that one request, whose tag is known by then.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::header::{Credentials, Durability, OpId, PROTOCOL_VERSION, SessionId};
use super::limits::{MAX_BODY, MAX_GROUPS, MAX_IO};
use super::operation::{Failure, Reply, Request};
use crate::error::FlareError;

/// Length of the header that every frame has, in bytes.
pub const COMMON_HEADER_LEN: usize = 32;
/// Length of what a request's header has beyond that, groups not counted, in bytes.
pub const REQUEST_HEADER_LEN: usize = 56;
/// Longest frame in bytes.
pub const MAX_FRAME: usize =
    COMMON_HEADER_LEN + REQUEST_HEADER_LEN + 4 * MAX_GROUPS + MAX_BODY as usize + MAX_IO as usize;

const LENGTH_LEN: usize = 4;
const FLAG_STABLE: u8 = 1;
const FLAG_CALL: u8 = 2;
const FLAG_FORWARDED: u8 = 4;

/// Names a request within its connection until it is answered or cancelled; chosen by the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u32);

/// What a stream is used for, so that bulk data never stands in the way of a stat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamClass {
    /// Short requests with short replies; sent before bulk.
    Metadata,
    /// Data and long listings.
    Bulk,
}

/// A header that breaks the protocol: the connection it came on ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Shorter than its own header or longer than [`MAX_FRAME`].
    #[error("a frame of {0} bytes")]
    Length(usize),
    /// Another version of the protocol than the handshake agreed on.
    #[error("a frame of protocol version {0}")]
    Version(u8),
    /// No such message type, or one that this side does not expect.
    #[error("a frame of unknown type {0}")]
    Type(u8),
    /// A flag or a field that must be zero is not.
    #[error("a frame with unknown flags {0:#04x}")]
    Flags(u8),
    /// The parts do not fit the whole, or a part is above its limit.
    #[error("a frame whose parts do not fit its length")]
    Parts,
    /// The peer ended the stream within a frame.
    #[error("the stream ended within a frame")]
    Truncated,
}

/// Everything a request says about itself beside its fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// Its name on this connection.
    pub tag: Tag,
    /// How safe it must be when it is answered.
    pub durability: Durability,
    /// The newest topology that the client knows.
    pub topology_version: u64,
    /// Whose it is.
    pub session: SessionId,
    /// Its number in the session, from 1; 0 if it has none.
    pub sequence: u64,
    /// The client has the results of all its operations up to this sequence number.
    pub acknowledged: u64,
    /// The operation id of a call that any gateway recognises.
    pub call: Option<u128>,
    /// Time left to answer, in milliseconds.
    pub deadline_ms: Option<u32>,
    /// A volcano passes it on for a client. Who gets it answers it, and passes it on no further; only a peer that proves
    /// the node key may say so.
    pub forwarded: bool,
    /// The end user.
    pub credentials: Credentials,
}

impl RequestHeader {
    /// The name under which a retry of this operation is recognised, if it has one.
    pub fn op_id(&self) -> Option<OpId> {
        match (self.call, self.sequence) {
            (Some(call), _) => Some(OpId::Call(call)),
            (None, 0) => None,
            (None, sequence) => Some(OpId::Session { session: self.session, sequence }),
        }
    }
}

/// A request as it arrived, its body not yet decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestFrame {
    /// About it.
    pub header: RequestHeader,
    /// Which operation.
    pub opcode: u16,
    /// Its fields, encoded.
    pub body: Bytes,
    /// The data of a write.
    pub payload: Bytes,
}

impl RequestFrame {
    /// Decodes the body and checks it against the protocol's limits.
    pub fn request(&self) -> Result<Request, FlareError> {
        let request = Request::decode(self.opcode, &self.body)?;
        request.check(self.payload.len())?;
        Ok(request)
    }
}

/// An answer as it arrived, its body not yet decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyFrame {
    /// Which request it answers.
    pub tag: Tag,
    /// That request's operation.
    pub opcode: u16,
    /// Whether the body is a [`Failure`].
    pub failed: bool,
    /// The newest topology that the volcano knows.
    pub topology_version: u64,
    /// The reply's fields, encoded.
    pub body: Bytes,
    /// The data of a read.
    pub payload: Bytes,
}

impl ReplyFrame {
    /// Decodes the body. `Err` of the outer result means that it could not be decoded.
    pub fn outcome(self) -> Result<Result<(Reply, Bytes), Failure>, FlareError> {
        if self.failed {
            match postcard::take_from_bytes(&self.body) {
                Ok((failure, [])) => Ok(Err(failure)),
                Ok(_) | Err(_) => Err(FlareError::BadRequest),
            }
        } else {
            Reply::decode(self.opcode, &self.body).map(|reply| Ok((reply, self.payload)))
        }
    }
}

/// One message on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Opens a stream and says what it is for.
    Hello(StreamClass),
    /// Asks for an operation.
    Request(RequestFrame),
    /// Answers a request.
    Reply(ReplyFrame),
    /// The client no longer waits for this request.
    Cancel(Tag),
}

const TYPE_HELLO: u8 = 1;
const TYPE_REQUEST: u8 = 2;
const TYPE_REPLY: u8 = 3;
const TYPE_FAILURE: u8 = 4;
const TYPE_CANCEL: u8 = 5;

impl Frame {
    /// How many bytes the frame at the front of `buffer` has, its length field included; `None` while that is not there yet.
    pub fn length(buffer: &[u8]) -> Result<Option<usize>, FrameError> {
        let Some(length) = buffer.first_chunk::<LENGTH_LEN>() else { return Ok(None) };
        let length = (u32::from_be_bytes(*length) as usize).saturating_add(LENGTH_LEN);
        if (COMMON_HEADER_LEN..=MAX_FRAME).contains(&length) {
            Ok(Some(length))
        } else {
            Err(FrameError::Length(length))
        }
    }

    /// Takes the frame at the front of `buffer`; `None` while it is not there as a whole.
    pub fn decode(buffer: &mut BytesMut) -> Result<Option<Self>, FrameError> {
        match Self::length(buffer)? {
            Some(length) if length <= buffer.len() => {
                Self::decode_whole(buffer.split_to(length).freeze()).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn decode_whole(mut frame: Bytes) -> Result<Self, FrameError> {
        let header = frame.split_to(COMMON_HEADER_LEN.min(frame.len()));
        let common = CommonHeader::decode(header)?;
        match common.kind {
            TYPE_HELLO if frame.is_empty() && common.body_len == 0 => match common.opcode {
                0 => Ok(Self::Hello(StreamClass::Metadata)),
                1 => Ok(Self::Hello(StreamClass::Bulk)),
                _ => Err(FrameError::Parts),
            },
            TYPE_CANCEL if frame.is_empty() && common.body_len == 0 => Ok(Self::Cancel(common.tag)),
            TYPE_HELLO | TYPE_CANCEL => Err(FrameError::Parts),
            TYPE_REQUEST => decode_request(&common, frame).map(Self::Request),
            TYPE_REPLY | TYPE_FAILURE => {
                let (body, payload) = split_parts(frame, common.body_len)?;
                Ok(Self::Reply(ReplyFrame {
                    tag: common.tag,
                    opcode: common.opcode,
                    failed: common.kind == TYPE_FAILURE,
                    topology_version: common.topology_version,
                    body,
                    payload,
                }))
            }
            other => Err(FrameError::Type(other)),
        }
    }
}

fn split_parts(mut rest: Bytes, body_len: u32) -> Result<(Bytes, Bytes), FrameError> {
    let body_len = body_len as usize;
    if body_len > rest.len() || body_len > MAX_BODY as usize || rest.len() - body_len > MAX_IO as usize {
        return Err(FrameError::Parts);
    }
    let body = rest.split_to(body_len);
    Ok((body, rest))
}

fn decode_request(common: &CommonHeader, mut rest: Bytes) -> Result<RequestFrame, FrameError> {
    let groups = usize::from(common.groups);
    if groups > MAX_GROUPS || rest.len() < REQUEST_HEADER_LEN + 4 * groups {
        return Err(FrameError::Parts);
    }
    let session = SessionId(rest.get_u64());
    let sequence = rest.get_u64();
    let acknowledged = rest.get_u64();
    let call = rest.get_u128();
    let deadline_ms = rest.get_u32();
    let uid = rest.get_u32();
    let gid = rest.get_u32();
    if rest.get_u32() != 0 {
        return Err(FrameError::Parts);
    }
    let groups = (0..groups).map(|_| rest.get_u32()).collect();
    let (body, payload) = split_parts(rest, common.body_len)?;
    let header = RequestHeader {
        tag: common.tag,
        durability: if common.flags & FLAG_STABLE == 0 { Durability::Replicated } else { Durability::Stable },
        topology_version: common.topology_version,
        session,
        sequence,
        acknowledged,
        call: (common.flags & FLAG_CALL != 0).then_some(call),
        deadline_ms: (deadline_ms != 0).then_some(deadline_ms),
        forwarded: common.flags & FLAG_FORWARDED != 0,
        credentials: Credentials { uid, gid, groups },
    };
    Ok(RequestFrame { header, opcode: common.opcode, body, payload })
}

struct CommonHeader {
    kind: u8,
    opcode: u16,
    flags: u8,
    groups: u16,
    tag: Tag,
    body_len: u32,
    topology_version: u64,
}

impl CommonHeader {
    /// `header` is [`COMMON_HEADER_LEN`] bytes long, which [`Frame::length`] has seen to.
    fn decode(mut header: Bytes) -> Result<Self, FrameError> {
        if header.len() != COMMON_HEADER_LEN {
            return Err(FrameError::Length(header.len()));
        }
        header.advance(LENGTH_LEN);
        let version = header.get_u8();
        if version != PROTOCOL_VERSION {
            return Err(FrameError::Version(version));
        }
        let kind = header.get_u8();
        let opcode = header.get_u16();
        let flags = header.get_u8();
        let known = if kind == TYPE_REQUEST { FLAG_STABLE | FLAG_CALL | FLAG_FORWARDED } else { 0 };
        if flags & !known != 0 {
            return Err(FrameError::Flags(flags));
        }
        let zero = header.get_u8();
        let groups = header.get_u16();
        let tag = Tag(header.get_u32());
        let body_len = header.get_u32();
        let topology_version = header.get_u64();
        let zero_too = header.get_u32();
        if zero != 0 || zero_too != 0 || (kind != TYPE_REQUEST && groups != 0) {
            return Err(FrameError::Parts);
        }
        Ok(Self { kind, opcode, flags, groups, tag, body_len, topology_version })
    }

    fn encode(&self, into: &mut BytesMut, rest: usize) {
        // Every part has been held against its limit, so the sum fits.
        into.put_u32((COMMON_HEADER_LEN - LENGTH_LEN + rest) as u32);
        into.put_u8(PROTOCOL_VERSION);
        into.put_u8(self.kind);
        into.put_u16(self.opcode);
        into.put_u8(self.flags);
        into.put_u8(0);
        into.put_u16(self.groups);
        into.put_u32(self.tag.0);
        into.put_u32(self.body_len);
        into.put_u64(self.topology_version);
        into.put_u32(0);
    }
}

/// A frame ready to be sent: the header and the body in one piece, and the payload as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Header and body.
    pub head: Bytes,
    /// The payload; may be empty.
    pub payload: Bytes,
}

impl Encoded {
    /// Bytes on the stream.
    pub fn len(&self) -> usize {
        self.head.len() + self.payload.len()
    }

    /// Never: there is always a header.
    pub fn is_empty(&self) -> bool {
        false
    }
}

/// Encodes the first frame of a stream.
pub fn hello(class: StreamClass) -> Encoded {
    let opcode = match class {
        StreamClass::Metadata => 0,
        StreamClass::Bulk => 1,
    };
    short(TYPE_HELLO, opcode, Tag(0))
}

/// Encodes that nobody waits for a request any more.
pub fn cancel(tag: Tag) -> Encoded {
    short(TYPE_CANCEL, 0, tag)
}

fn short(kind: u8, opcode: u16, tag: Tag) -> Encoded {
    let mut head = BytesMut::with_capacity(COMMON_HEADER_LEN);
    let common = CommonHeader { kind, opcode, flags: 0, groups: 0, tag, body_len: 0, topology_version: 0 };
    common.encode(&mut head, 0);
    Encoded { head: head.freeze(), payload: Bytes::new() }
}

/// Encodes a request whose body is encoded already, so that retries need not encode it again.
///
/// Fails with [`FlareError::TooBig`] if a part is above its limit, with [`FlareError::Invalid`] for too many groups.
pub fn request(
    header: &RequestHeader,
    opcode: u16,
    body: &[u8],
    payload: Bytes,
) -> Result<Encoded, FlareError> {
    let groups = &header.credentials.groups;
    if groups.len() > MAX_GROUPS {
        return Err(FlareError::Invalid);
    }
    if body.len() > MAX_BODY as usize || payload.len() > MAX_IO as usize {
        return Err(FlareError::TooBig);
    }
    let rest = REQUEST_HEADER_LEN + 4 * groups.len() + body.len();
    let mut head = BytesMut::with_capacity(COMMON_HEADER_LEN + rest);
    let stable = if header.durability == Durability::Stable { FLAG_STABLE } else { 0 };
    let call = if header.call.is_some() { FLAG_CALL } else { 0 };
    let forwarded = if header.forwarded { FLAG_FORWARDED } else { 0 };
    let common = CommonHeader {
        kind: TYPE_REQUEST,
        opcode,
        flags: stable | call | forwarded,
        groups: groups.len() as u16,
        tag: header.tag,
        body_len: body.len() as u32,
        topology_version: header.topology_version,
    };
    common.encode(&mut head, rest + payload.len());
    head.put_u64(header.session.0);
    head.put_u64(header.sequence);
    head.put_u64(header.acknowledged);
    head.put_u128(header.call.unwrap_or(0));
    head.put_u32(header.deadline_ms.unwrap_or(0));
    head.put_u32(header.credentials.uid);
    head.put_u32(header.credentials.gid);
    head.put_u32(0);
    for &group in groups {
        head.put_u32(group);
    }
    head.put_slice(body);
    Ok(Encoded { head: head.freeze(), payload })
}

/// Encodes the answer to the request with this tag and opcode.
///
/// Fails with [`FlareError::TooBig`] if the answer is above a limit.
pub fn reply(
    tag: Tag,
    opcode: u16,
    topology_version: u64,
    outcome: Result<(&Reply, Bytes), &Failure>,
) -> Result<Encoded, FlareError> {
    let (kind, body, payload) = match outcome {
        Ok((reply, payload)) => (TYPE_REPLY, reply.encode(), payload),
        Err(failure) => (TYPE_FAILURE, postcard::to_stdvec(failure), Bytes::new()),
    };
    let body = body.map_err(|_| FlareError::TooBig)?;
    if body.len() > MAX_BODY as usize || payload.len() > MAX_IO as usize {
        return Err(FlareError::TooBig);
    }
    let mut head = BytesMut::with_capacity(COMMON_HEADER_LEN + body.len());
    let common = CommonHeader {
        kind,
        opcode,
        flags: 0,
        groups: 0,
        tag,
        body_len: body.len() as u32,
        topology_version,
    };
    common.encode(&mut head, body.len() + payload.len());
    head.put_slice(&body);
    Ok(Encoded { head: head.freeze(), payload })
}

/// Encodes somebody else's answer as the answer to the request with this tag.
pub fn pass_on(tag: Tag, topology_version: u64, answer: ReplyFrame) -> Encoded {
    let mut head = BytesMut::with_capacity(COMMON_HEADER_LEN + answer.body.len());
    let common = CommonHeader {
        kind: if answer.failed { TYPE_FAILURE } else { TYPE_REPLY },
        opcode: answer.opcode,
        flags: 0,
        groups: 0,
        tag,
        body_len: answer.body.len() as u32,
        topology_version,
    };
    // Its parts were held against their limits when it arrived.
    common.encode(&mut head, answer.body.len() + answer.payload.len());
    head.put_slice(&answer.body);
    Encoded { head: head.freeze(), payload: answer.payload }
}

#[cfg(test)]
mod tests;
