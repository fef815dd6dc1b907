//! What clients asked and heard.

use bytes::Bytes;
use magma_common::error::FlareError;
use magma_common::proto::{Durability, OpId, Reply, Request, SessionId};

use super::clock::Time;

/// Something that must never be was seen.
#[derive(Clone, Debug)]
pub struct Violation(pub String);

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A violation with this sentence.
pub fn violation<T>(sentence: impl Into<String>) -> Result<T, Violation> {
    Err(Violation(sentence.into()))
}

/// What was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// By which client.
    pub client: usize,
    /// Whether that is a client library.
    pub by_library: bool,
    /// In which session.
    pub session: SessionId,
    /// Under which id; reads have none.
    pub id: Option<OpId>,
    /// What.
    pub request: Request,
    /// The bytes of a write.
    pub payload: Bytes,
    /// How safe it must be.
    pub durability: Durability,
}

impl Asked {
    /// Under which name it is kept what has been opened: a library's files stay open when it gets another session.
    pub fn holder(&self) -> SessionId {
        if self.by_library { SessionId(self.client as u64 + 1) } else { self.session }
    }

    /// Whether its answer says that it is on disk.
    pub fn is_stable(&self) -> bool {
        let is_asked = self.durability == Durability::Stable && self.request.mutates();
        is_asked || matches!(self.request, Request::Commit(_) | Request::CommitPart(_))
    }
}

/// An answer that a client has taken.
#[derive(Clone, Debug)]
pub struct Answered {
    /// When the client had it.
    pub at: Time,
    /// When the try that it answers was sent; of an answer that was kept, since when it may have been true.
    pub sent: Time,
    /// When it left the volcano that had evaluated it; none if the client had kept an answer.
    pub released: Option<Time>,
    /// What it says.
    pub answer: Result<(Reply, Bytes), FlareError>,
}

/// One operation of a client.
#[derive(Clone, Debug)]
pub struct Operation {
    /// What was asked.
    pub asked: Asked,
    /// When it was sent first.
    pub sent: Time,
    /// The answer that counts; an operation without one may have been done or not.
    pub answered: Option<Answered>,
    /// What had been acknowledged when it was sent: the number of the last record of its slice.
    pub floor: u64,
    /// The client was told that nobody knows what became of it.
    pub in_doubt: bool,
}

/// All operations, in the order in which they were sent first.
#[derive(Debug, Default)]
pub struct History {
    /// All.
    pub operations: Vec<Operation>,
}

impl History {
    /// An operation is about to be sent; its number.
    pub fn begin(&mut self, asked: Asked, now: Time, floor: u64) -> usize {
        self.operations.push(Operation { asked, sent: now, answered: None, floor, in_doubt: false });
        self.operations.len() - 1
    }
}

/// The verifier of an answer to a write.
pub fn verifier_of(reply: &Reply) -> Option<u64> {
    match reply {
        Reply::Write(written) | Reply::WriteDone(written) => Some(written.verifier),
        Reply::WriteStripe(written) => Some(written.verifier),
        _ => None,
    }
}

/// For people.
pub fn describe(asked: &Asked) -> String {
    let bytes =
        if asked.payload.is_empty() { String::new() } else { format!(" {} bytes", asked.payload.len()) };
    let stable = if asked.is_stable() { " stable" } else { "" };
    let id = match asked.id {
        Some(OpId::Session { sequence, .. }) => format!("#{sequence}"),
        Some(OpId::Call(call)) => format!("call {:x}", call >> 96),
        None => "read".into(),
    };
    let mut request = format!("{:?}", asked.request);
    for (long, short) in [("birth: BirthNumber", "b"), ("Handle ", ""), ("key: ", "")] {
        request = request.replace(long, short);
    }
    if request.len() > 400 {
        request.truncate(400);
    }
    format!("client {} {:04x} {id}{stable}{bytes} {request}", asked.client, asked.session.0 & 0xffff)
}

/// For people.
pub fn describe_answer(answer: &Result<(Reply, Bytes), FlareError>) -> String {
    match answer {
        Err(error) => format!("refused: {error}"),
        Ok((Reply::Create(made), _)) => format!("made {:?} (created: {})", made.attr.handle, made.created),
        Ok((Reply::Mkdir(made) | Reply::Symlink(made), _)) => format!("made {:?}", made.attr.handle),
        Ok((Reply::Lookup(found), _)) => format!("found {:?} nlink {}", found.attr.handle, found.attr.nlink),
        Ok((Reply::Getattr(attr), _)) => {
            format!("nlink {} size {} change {}", attr.nlink, attr.size, attr.change)
        }
        Ok((Reply::Write(written), _)) => {
            format!("written at {} verifier {:x}", written.offset, written.verifier)
        }
        Ok((Reply::WriteStripe(written), _)) => format!("written, verifier {:x}", written.verifier),
        Ok((Reply::WriteDone(written), _)) => format!("noted, verifier {:x}", written.verifier),
        Ok((Reply::Layout(layout), _)) => {
            format!("size {} cut {} stripes {:?}", layout.attr.size, layout.cut, layout.stripes)
        }
        Ok((Reply::Commit(commit) | Reply::CommitPart(commit), _)) => {
            format!("committed, verifier {:x}", commit.verifier)
        }
        Ok((Reply::Readdir(listing), _)) => {
            let names: Vec<String> = listing.entries.iter().map(|entry| entry.name.to_string()).collect();
            format!("lists {}", names.join(" "))
        }
        Ok((Reply::Read(_) | Reply::ReadStripe(()), data)) => {
            format!("{} bytes {:02x?}", data.len(), &data[..data.len().min(8)])
        }
        Ok((Reply::KeepAlive(alive), _)) => format!("alive, topology {}", alive.topology_version),
        Ok((Reply::OpenSession(session), _)) => {
            format!("session {:04x}", session.session.0 & 0xffff)
        }
        Ok(_) => "done".into(),
    }
}
