//! What every procedure does first and last: check handle and export, act as the right user, ask the volcano.

use std::time::{Duration, Instant};

use bytes::Bytes;
use magma_common::attr::{Attr, Wcc};
use magma_common::client::Context;
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::name::{Name, NameError};
use magma_common::proto::operation::{Getattr, Read, ReadReply, Write, WriteReply};
use magma_common::proto::{Durability, Failure, Operation};

use super::status::{Status, outcome_is_open};
use super::wire;
use crate::export::{Export, ExportId};
use crate::gateway::{Gateway, PATIENCE};
use crate::handle::WIRE_LEN;
use crate::rpc::auth::Credential;
use crate::rpc::connection::Peer;
use crate::rpc::reply_cache::CallId;
use crate::xdr::{Encoder, XdrError};

/// How long a change whose outcome is open is followed up. After that the connection is closed, and the client,
/// which then sends the same call again, is the one who goes on.
const CHANGE_PATIENCE: Duration = Duration::from_secs(300);
/// Pause before a change is asked for again.
const CHANGE_PAUSE: Duration = Duration::from_millis(200);

/// Why a procedure did not succeed.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The arguments do not decode.
    Garbage,
    /// Whether the change was made cannot be found out; "try again" would be wrong, for the client would do so under a new name.
    Undecided,
    /// It failed, and this is what the client hears.
    Failed(Box<Failed>),
}

/// A status, and the attributes that go with it.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) status: Status,
    pub(super) first: Wcc,
    pub(super) second: Wcc,
}

impl From<XdrError> for Refusal {
    fn from(_: XdrError) -> Self {
        Self::Garbage
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self::Failed(Box::new(Failed { status, first: Wcc::default(), second: Wcc::default() }))
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let Failure { error, first, second } = failure;
        Self::Failed(Box::new(Failed { status: error.into(), first, second }))
    }
}

/// The caller of one procedure.
pub(super) struct Door<'a> {
    pub(super) gateway: &'a Gateway,
    pub(super) peer: &'a Peer,
    pub(super) credential: &'a Credential,
    /// The name of the call, if it changes something.
    pub(super) id: Option<CallId>,
}

/// What a handle of the call names, and the terms on which the caller gets at it.
pub(super) struct Target<'a> {
    pub(super) handle: Handle,
    pub(super) export: &'a Export,
    pub(super) export_id: ExportId,
    context: Context,
}

impl<'a> Door<'a> {
    /// Opens a handle: it must be one of ours, for an export that lets the caller in.
    pub(super) fn target(&self, handle: &[u8]) -> Result<Target<'a>, Refusal> {
        let (export_id, handle) = self.gateway.signer.open(handle).ok_or(Status::BadHandle)?;
        // The handle is genuine, so there was such an export: for the client it is as if the file were gone.
        let export = self.gateway.exports.by_id(export_id).ok_or(Status::Stale)?;
        export.admit(self.peer.client).map_err(|_| Status::Access)?;
        let durability = if self.gateway.asynchronous { Durability::Replicated } else { Durability::Stable };
        let context = Context {
            credentials: export.credentials(self.credential).into(),
            durability,
            deadline: None,
            call: self.id.map(|id| id.0),
        };
        Ok(Target { handle, export, export_id, context })
    }

    /// The same for a handle through which something is to be changed.
    pub(super) fn writable(&self, handle: &[u8]) -> Result<Target<'a>, Refusal> {
        let target = self.target(handle)?;
        if target.export.read_only { Err(Status::ReadOnly.into()) } else { Ok(target) }
    }

    /// Asks something that changes nothing.
    pub(super) async fn ask<O: Operation>(
        &self,
        target: &Target<'_>,
        operation: O,
    ) -> Result<O::Reply, Refusal> {
        self.gateway.client.call(&target.within_patience(), operation).await.map_err(Refusal::from)
    }

    /// Reads.
    pub(super) async fn read(&self, target: &Target<'_>, read: Read) -> Result<(ReadReply, Bytes), Refusal> {
        self.gateway.client.read(&target.within_patience(), read).await.map_err(Refusal::from)
    }

    /// Changes something, and does not let go while the outcome is open.
    pub(super) async fn change<O: Operation>(
        &self,
        target: &Target<'_>,
        operation: O,
    ) -> Result<O::Reply, Refusal> {
        let follow_up = FollowUp::begin();
        loop {
            let result = self.gateway.client.call(&target.within_patience(), operation.clone()).await;
            if let Some(decided) = follow_up.judge(self.gateway, result).await {
                return decided;
            }
        }
    }

    /// Writes, in the same way.
    pub(super) async fn write(
        &self,
        target: &Target<'_>,
        write: Write,
        data: Bytes,
    ) -> Result<WriteReply, Refusal> {
        let follow_up = FollowUp::begin();
        loop {
            let result =
                self.gateway.client.write(&target.within_patience(), write.clone(), data.clone()).await;
            if let Some(decided) = follow_up.judge(self.gateway, result).await {
                return decided;
            }
        }
    }

    /// The target's attributes.
    pub(super) async fn attributes(&self, target: &Target<'_>) -> Result<Attr, Refusal> {
        self.ask(target, Getattr { handle: target.handle }).await
    }

    /// Whether the directory is where its export begins: `..` goes no higher.
    pub(super) async fn is_export_root(&self, target: &Target<'_>) -> Result<bool, Refusal> {
        let path = &target.export.path;
        if path.is_root() {
            return Ok(target.handle == Handle::root());
        }
        let context = Context {
            credentials: magma_common::proto::Credentials::ROOT.into(),
            ..target.within_patience()
        };
        match self.gateway.client.walk(&context, path.as_bytes()).await {
            Ok(root) => Ok(root.handle == target.handle),
            // Nothing is there any more, so nothing can be proved to lie below it.
            Err(failure) if matches!(failure.error, FlareError::NotFound | FlareError::NotDirectory) => {
                Ok(true)
            }
            Err(failure) => Err(failure.into()),
        }
    }

    /// A handle for what was found in or made through the target.
    pub(super) fn seal(&self, target: &Target<'_>, handle: Handle) -> [u8; WIRE_LEN] {
        self.gateway.signer.seal(target.export_id, handle)
    }

    pub(super) fn post_op(&self, out: &mut Encoder, attr: Option<&Attr>) {
        wire::post_op(out, attr, self.gateway.network);
    }

    pub(super) fn wcc(&self, out: &mut Encoder, wcc: &Wcc) {
        wire::wcc(out, wcc, self.gateway.network);
    }
}

impl Target<'_> {
    /// As which user the caller acts.
    pub(super) fn uid(&self) -> u32 {
        self.context.credentials.uid
    }

    fn within_patience(&self) -> Context {
        Context { deadline: Some(Instant::now() + PATIENCE), ..self.context.clone() }
    }

    /// With another durability than changes of names have.
    #[must_use]
    pub(super) fn with_durability(mut self, durability: Durability) -> Self {
        self.context.durability = durability;
        self
    }
}

/// Decides whether a change that failed is asked for again, under the same name.
struct FollowUp {
    give_up: Instant,
}

impl FollowUp {
    fn begin() -> Self {
        Self { give_up: Instant::now() + CHANGE_PATIENCE }
    }

    /// The outcome, or `None`, after a pause, if it is open and worth asking for again.
    async fn judge<T>(&self, gateway: &Gateway, result: Result<T, Failure>) -> Option<Result<T, Refusal>> {
        match result {
            Err(failure) if outcome_is_open(failure.error) => {
                if Instant::now() >= self.give_up || gateway.is_stopping() {
                    return Some(Err(Refusal::Undecided));
                }
                tokio::time::sleep(CHANGE_PAUSE).await;
                None
            }
            decided => Some(decided.map_err(Refusal::from)),
        }
    }
}

/// A name to be made. `.` and `..` exist everywhere (RFC 1813 §3.3.8, §3.3.9).
pub(super) fn new_name(bytes: Bytes) -> Result<Name, Refusal> {
    name(bytes, Status::Exists)
}

/// A name to be removed or renamed; `.` and `..` cannot be (RFC 1813 §3.3.12, §3.3.14).
pub(super) fn old_name(bytes: Bytes) -> Result<Name, Refusal> {
    name(bytes, Status::Invalid)
}

fn name(bytes: Bytes, dot: Status) -> Result<Name, Refusal> {
    Name::new(bytes).map_err(|error| match error {
        NameError::Dot => dot.into(),
        other => Refusal::from(Status::from(FlareError::from(other))),
    })
}
