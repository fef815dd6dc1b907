//! How a request is answered.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::FlareError;
use crate::proto::frame::{self, Tag};
use crate::proto::{Failure, Reply};
use crate::transport::credit::Permit;
use crate::transport::forward::Answer;
use crate::transport::outbox::Outbox;

/// Answers one request, at any time and from any thread. Dropped without an answer it says [`Unavailable`](FlareError::Unavailable),
/// upon which the client asks again under the same operation id.
pub struct ReplyTo {
    outbox: Arc<Outbox>,
    tag: Tag,
    opcode: u16,
    topology_version: u64,
    /// Keeps the request counted until its answer is on its way; taken when it is answered.
    permit: Option<Permit>,
    answered: bool,
}

impl ReplyTo {
    pub(super) fn new(outbox: Arc<Outbox>, tag: Tag, opcode: u16, permit: Permit) -> Self {
        Self { outbox, tag, opcode, topology_version: 0, permit: Some(permit), answered: false }
    }

    /// The request's tag.
    pub fn tag(&self) -> Tag {
        self.tag
    }

    /// Sends the answer; the bytes are a read's data and are not copied.
    ///
    /// An answer above the protocol's limits goes out as [`TooBig`](FlareError::TooBig). A connection that is gone takes no answer.
    pub fn send(mut self, outcome: Result<(Reply, Bytes), Failure>, topology_version: u64) {
        self.topology_version = topology_version;
        self.answer(outcome);
    }

    /// Sends what the owner has answered; the body is not decoded on the way.
    pub fn pass_on(mut self, answer: Answer, topology_version: u64) {
        self.answered = true;
        let encoded = frame::pass_on(self.tag, topology_version, answer.0);
        // A closed outbox has no reader left.
        let _ = self.outbox.push(encoded, self.permit.take());
    }

    /// Sends a failure without attributes.
    pub(super) fn refuse(mut self, error: FlareError) {
        self.answer(Err(error.into()));
    }

    fn answer(&mut self, outcome: Result<(Reply, Bytes), Failure>) {
        self.answered = true;
        let encoded = match outcome {
            Ok((reply, payload)) => {
                frame::reply(self.tag, self.opcode, self.topology_version, Ok((&reply, payload)))
            }
            Err(failure) => frame::reply(self.tag, self.opcode, self.topology_version, Err(&failure)),
        };
        let encoded = encoded.or_else(|error| {
            tracing::error!(target: "magma::net", opcode = self.opcode, "an answer breaks the protocol's limits");
            frame::reply(self.tag, self.opcode, self.topology_version, Err(&error.into()))
        });
        match encoded {
            // A closed outbox has no reader left.
            Ok(encoded) => drop(self.outbox.push(encoded, self.permit.take())),
            Err(error) => tracing::error!(target: "magma::net", %error, "an answer could not be encoded"),
        }
    }
}

impl Drop for ReplyTo {
    fn drop(&mut self) {
        if !self.answered {
            self.answer(Err(FlareError::Unavailable.into()));
        }
    }
}
