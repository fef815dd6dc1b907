//! Calls and replies (RFC 5531 §9).

use bytes::Bytes;

use super::auth::{Credential, MAX_AUTH_BODY};
use crate::xdr::{Decoder, Encoder, XdrError};

const CALL: u32 = 0;
const REPLY: u32 = 1;
const RPC_VERSION: u32 = 2;
const MSG_ACCEPTED: u32 = 0;
const MSG_DENIED: u32 = 1;
const RPC_MISMATCH: u32 = 0;
const AUTH_ERROR: u32 = 1;
/// `AUTH_BADCRED` of `auth_stat`: the credentials are malformed or of a flavour that is not served.
const AUTH_BADCRED: u32 = 1;

/// A call that asks for something.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// The client's number for it; a retransmission bears the same.
    pub(crate) xid: u32,
    pub(crate) program: u32,
    pub(crate) version: u32,
    pub(crate) procedure: u32,
    pub(crate) credential: Credential,
    /// The procedure's arguments, encoded.
    pub(crate) arguments: Bytes,
    /// The whole message, which names the call together with who sent it.
    pub(crate) message: Bytes,
}

/// What a record turns out to be.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A call to be answered.
    Call(Box<Call>),
    /// A call that is refused before anybody looks at what it asks.
    Refused { xid: u32, refusal: Denial },
    /// Nothing that has an answer.
    NotACall,
}

/// Why a call is refused whatever it asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denial {
    /// Not RPC version 2.
    RpcVersion,
    /// Malformed credentials, or of a flavour that is not served.
    BadCredential,
}

/// `accept_stat`: how far a call got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accept {
    /// The procedure's result follows.
    Success,
    /// No such program here.
    ProgramUnavailable,
    /// The program is here in these versions.
    ProgramMismatch { low: u32, high: u32 },
    /// The program has no such procedure.
    ProcedureUnavailable,
    /// The arguments do not decode.
    GarbageArguments,
    /// The answer would not fit the transport.
    SystemError,
}

impl Incoming {
    /// Takes a record apart.
    pub(crate) fn parse(message: &Bytes) -> Self {
        let mut decoder = Decoder::new(message.clone());
        let (Ok(xid), Ok(CALL)) = (decoder.u32(), decoder.u32()) else { return Self::NotACall };
        if decoder.u32() != Ok(RPC_VERSION) {
            return Self::Refused { xid, refusal: Denial::RpcVersion };
        }
        let refused = Self::Refused { xid, refusal: Denial::BadCredential };
        let (Ok(program), Ok(version), Ok(procedure)) = (decoder.u32(), decoder.u32(), decoder.u32()) else {
            return Self::NotACall;
        };
        let Ok(Some(credential)) = credential(&mut decoder) else { return refused };
        let arguments = decoder.rest().clone();
        let message = message.clone();
        Self::Call(Box::new(Call { xid, program, version, procedure, credential, arguments, message }))
    }
}

/// Credential and verifier; `None` if the flavour is not served.
fn credential(decoder: &mut Decoder) -> Result<Option<Credential>, XdrError> {
    let flavour = decoder.u32()?;
    let body = decoder.opaque(MAX_AUTH_BODY)?;
    let _verifier_flavour = decoder.u32()?;
    let _verifier = decoder.opaque(MAX_AUTH_BODY)?;
    Credential::parse(flavour, body)
}

/// Begins the reply to a call that was accepted; on success the result follows.
pub(crate) fn accepted(xid: u32, accept: Accept) -> Encoder {
    let mut out = Encoder::new();
    out.u32(xid);
    out.u32(REPLY);
    out.u32(MSG_ACCEPTED);
    // The verifier: AUTH_NONE, empty.
    out.u32(0);
    out.u32(0);
    out.u32(match accept {
        Accept::Success => 0,
        Accept::ProgramUnavailable => 1,
        Accept::ProgramMismatch { .. } => 2,
        Accept::ProcedureUnavailable => 3,
        Accept::GarbageArguments => 4,
        Accept::SystemError => 5,
    });
    if let Accept::ProgramMismatch { low, high } = accept {
        out.u32(low);
        out.u32(high);
    }
    out
}

/// The reply to a call that was denied.
pub(crate) fn denied(xid: u32, refusal: Denial) -> Encoder {
    let mut out = Encoder::new();
    out.u32(xid);
    out.u32(REPLY);
    out.u32(MSG_DENIED);
    match refusal {
        Denial::RpcVersion => {
            out.u32(RPC_MISMATCH);
            out.u32(RPC_VERSION);
            out.u32(RPC_VERSION);
        }
        Denial::BadCredential => {
            out.u32(AUTH_ERROR);
            out.u32(AUTH_BADCRED);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn words(words: &[u32]) -> Bytes {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    #[test]
    fn a_call_comes_apart_into_its_fields() {
        let message = words(&[7, 0, 2, 100_003, 3, 1, 0, 0, 0, 0, 0xdead]);
        let Incoming::Call(call) = Incoming::parse(&message) else { panic!("not a call") };
        assert_eq!((call.xid, call.program, call.version, call.procedure), (7, 100_003, 3, 1));
        assert_eq!(call.arguments, words(&[0xdead]));
        assert_eq!(call.credential, Credential::None);
    }

    #[test]
    fn another_rpc_version_and_another_flavour_are_refused() {
        let message = words(&[7, 0, 3, 100_003, 3, 1, 0, 0, 0, 0]);
        assert!(matches!(
            Incoming::parse(&message),
            Incoming::Refused { xid: 7, refusal: Denial::RpcVersion }
        ));
        let gss = words(&[7, 0, 2, 100_003, 3, 1, 6, 0, 0, 0]);
        assert!(matches!(
            Incoming::parse(&gss),
            Incoming::Refused { xid: 7, refusal: Denial::BadCredential }
        ));
    }

    #[test]
    fn a_reply_sent_to_us_has_no_answer() {
        assert!(matches!(Incoming::parse(&words(&[7, 1, 0, 0, 0, 0])), Incoming::NotACall));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_apart_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Incoming::parse(&Bytes::from(bytes));
        }

        #[test]
        fn any_call_shaped_bytes_are_taken_apart_without_a_panic(
            head in proptest::collection::vec(0u32..8, 6), tail in proptest::collection::vec(any::<u32>(), 0..40)
        ) {
            let all: Vec<u32> = [7, 0, 2].into_iter().chain(head).chain(tail).collect();
            let _ = Incoming::parse(&words(&all));
        }
    }
}
