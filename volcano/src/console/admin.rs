//! What the console asks the volcano that it runs in.

use std::sync::Arc;
use std::time::Duration;

use magma_common::key::{Ino, Key};
use magma_common::logging::{Channel, Channels, LoggingError};
use magma_common::name::Name;
use magma_common::time::Timestamp;
use magma_common::topology::{SliceId, Topology, VolcanoId};

use crate::coordinator::{Change, Refusal};
use crate::dht::Figures;
use crate::rows::{FlareRow, LockRow, ReferenceRow};
use crate::view::{ReadError, View};

/// Most references and extended attributes that an inspection lists.
const MAX_LISTED: usize = 1000;

/// Local knowledge and control of the volcano; the engine implements it. All calls return at once.
pub trait Admin {
    /// The network and what is known of its volcanos.
    fn lava(&self) -> Lava;

    /// Everything known of the flare with this key, if one of the slices served here has it.
    ///
    /// [`Inspection::of`] collects it from a view.
    fn inspect(&self, key: &Key) -> Result<Option<Inspection>, ReadError>;

    /// Where to divide a slice so that both halves have about as much to store; none if this volcano has no copy of it.
    fn median(&self, slice: SliceId) -> Result<Option<Ino>, ReadError>;

    /// The volcano's caches.
    fn caches(&self) -> Vec<CacheFigures>;

    /// Who may mount what; empty if nothing restricts it.
    fn acl(&self) -> Vec<AclRule>;

    /// The debug channels that are on.
    fn channels(&self) -> Channels;

    /// Switches a debug channel.
    fn set_channel(&self, channel: Channel, on: bool) -> Result<(), LoggingError>;

    /// Asks for a change of the network. That it was made is seen from the topology; it may be asked for again until then.
    fn propose(&self, change: Change);

    /// Why that change was refused, if it was since it was first asked for.
    fn refusal(&self, change: &Change) -> Option<Refusal>;

    /// Goes on without this volcano whatever votes are missing, as another line of history.
    fn force_out(&self, who: VolcanoId) -> Result<(), Refusal>;

    /// Begins an orderly shutdown: of the whole network, or of this volcano as SIGTERM does.
    fn shutdown(&self, everywhere: bool);
}

/// The network, for the command `lava`.
#[derive(Clone, Debug)]
pub struct Lava {
    /// Members and slices.
    pub topology: Arc<Topology>,
    /// Figures of the volcanos that were heard from.
    pub volcanos: Vec<(VolcanoId, Figures)>,
    /// Figures of the slices that are known.
    pub slices: Vec<SliceFigures>,
    /// The volcano that was asked.
    pub own: VolcanoId,
    /// How long each other volcano has not been heard from.
    pub silences: Vec<(VolcanoId, Duration)>,
    /// Who coordinates.
    pub leader: Option<VolcanoId>,
    /// When this was true.
    pub now: Timestamp,
}

/// What a slice holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceFigures {
    /// Which slice.
    pub slice: SliceId,
    /// Flares in it.
    pub keys: u64,
    /// Bytes of storage that they use.
    pub bytes: u64,
}

/// How a cache does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheFigures {
    /// What it holds, in a word.
    pub name: String,
    /// How many it holds.
    pub entries: u64,
    /// How many it may hold; 0 if that is limited elsewhere.
    pub capacity: u64,
    /// Questions it answered.
    pub hits: u64,
    /// Questions it could not answer.
    pub misses: u64,
}

/// One rule about who may mount what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclRule {
    /// Which hosts.
    pub network: String,
    /// Which path.
    pub path: String,
    /// `none`, `ro` or `rw`, and what else applies.
    pub access: String,
}

/// Everything known of one flare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Its row.
    pub row: FlareRow,
    /// The slice it is in.
    pub slice: SliceId,
    /// Bytes of storage that its content takes.
    pub used: u64,
    /// Its names, at most 1000 of them.
    pub references: Vec<ReferenceRow>,
    /// Its extended attributes, at most 1000 of them.
    pub xattrs: Vec<Name>,
    /// The advisory locks on it.
    pub locks: Vec<LockRow>,
    /// How often sessions have it open.
    pub opens: u64,
}

impl Inspection {
    /// Collects what a slice's state says about a flare; `opens` is in the engine's memory only.
    pub fn of(view: &dyn View, slice: SliceId, key: &Key, opens: u64) -> Result<Option<Self>, ReadError> {
        let Some(row) = view.flare(key)? else { return Ok(None) };
        let used = match row.content {
            crate::rows::Content::Inline => view.inline(key)?.len() as u64,
            crate::rows::Content::Body { body, .. } => view.body_used(body)?,
        };
        let (mut references, mut xattrs) = (view.references(key)?, view.xattr_names(key)?);
        references.truncate(MAX_LISTED);
        xattrs.truncate(MAX_LISTED);
        Ok(Some(Self { row, slice, used, references, xattrs, locks: view.locks(key)?, opens }))
    }
}
