//! From a record to the program that answers it.

use crate::gateway::Gateway;
use crate::rpc::connection::{ConnectionId, Peer};
use crate::rpc::message::{Accept, Call, Incoming, accepted, denied};
use crate::xdr::{Body, Encoder, XdrError};
use crate::{mount, nfs3, portmap};

/// What happens to a record.
#[derive(Debug)]
pub(crate) enum Answer {
    /// This goes back.
    Reply(Body),
    /// The connection ends: what came is no RPC, or a change's outcome is not known and the client shall ask again.
    HangUp,
}

/// How a call came in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) peer: Peer,
    /// `None` for a datagram.
    pub(crate) connection: Option<ConnectionId>,
}

/// Why a call has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The program is not served in this version, but in these.
    Version { low: u32, high: u32 },
    /// There is no such procedure.
    Procedure,
    /// The arguments do not decode.
    Garbage,
    /// No answer that is true can be given; the client asks again over a new connection.
    HangUp,
}

impl From<XdrError> for Fault {
    fn from(_: XdrError) -> Self {
        Self::Garbage
    }
}

/// Answers what came in one record.
pub(crate) async fn answer(gateway: &Gateway, arrival: &Arrival, incoming: Incoming) -> Answer {
    let call = match incoming {
        Incoming::Call(call) => call,
        Incoming::Refused { xid, refusal } => return Answer::Reply(denied(xid, refusal).finish()),
        Incoming::NotACall => return Answer::HangUp,
    };
    match route(gateway, arrival, &call).await {
        Ok(body) => Answer::Reply(body),
        Err(Fault::HangUp) => Answer::HangUp,
        Err(fault) => Answer::Reply(refuse(call.xid, fault).finish()),
    }
}

async fn route(gateway: &Gateway, arrival: &Arrival, call: &Call) -> Result<Body, Fault> {
    match (call.program, arrival.connection) {
        (nfs3::PROGRAM, Some(connection)) => nfs3::answer(gateway, &arrival.peer, connection, call).await,
        (mount::PROGRAM, _) => mount::answer(gateway, &arrival.peer, call).await,
        (portmap::PROGRAM, _) => portmap::answer(gateway, arrival, call),
        _ => Ok(accepted(call.xid, Accept::ProgramUnavailable).finish()),
    }
}

fn refuse(xid: u32, fault: Fault) -> Encoder {
    match fault {
        Fault::Version { low, high } => accepted(xid, Accept::ProgramMismatch { low, high }),
        Fault::Procedure => accepted(xid, Accept::ProcedureUnavailable),
        Fault::Garbage => accepted(xid, Accept::GarbageArguments),
        Fault::HangUp => accepted(xid, Accept::SystemError),
    }
}
