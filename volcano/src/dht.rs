//! The internal directory `/.dht`: who is in the network, as files that every door can read.
//!
//! It can be looked up in the root but is not listed there. One file per volcano holds its
//! configuration and figures as `key = value` lines; no secret is among them. Nothing of it is stored: each
//! request is answered from the [`DhtState`] of the moment. Its flares have the birth number
//! [`INTERNAL`](BirthNumber::INTERNAL) and the keys that their paths would have.

use std::fmt::Write as _;

use bytes::Bytes;
use magma_common::attr::{Attr, Kind, Wcc, WccAttr};
use magma_common::error::FlareError;
use magma_common::handle::{BirthNumber, Handle};
use magma_common::key::{BirthString, Key};
use magma_common::name::Name;
use magma_common::proto::limits::{MAX_IO, MAX_READDIR_ENTRIES};
use magma_common::proto::operation::{
    ACCESS_EXECUTE, ACCESS_READ, AccessReply, CommitReply, CreateHow, Dirent, EntryReply, Open, Read,
    ReadReply, Readdir, ReaddirReply, Request, Seek, SeekReply, SeekWhence,
};
use magma_common::proto::{Failure, Reply};
use magma_common::time::Timestamp;
use magma_common::topology::{
    CONSOLE_PORT_OFFSET, Member, NODE_PORT_OFFSET, Replica, STATUS_PORT_OFFSET, Slice, Topology, VolcanoId,
};

use crate::health::{doing, role};
use crate::rows::FIRST_COOKIE;
use crate::slice::report::{CopyReport, Doing};

/// The directory's name in the root.
pub const DHT_NAME: &[u8] = b".dht";

/// What a volcano says about itself at some moment.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Figures {
    /// Load average of its machine over the last minute.
    pub load: f64,
    /// Flares in its copies.
    pub keys: u64,
    /// Bytes of storage that they use.
    pub bytes: u64,
    /// Bytes of its disk in all.
    pub total: u64,
    /// Bytes of its disk that can still be used.
    pub free: u64,
    /// When it started.
    pub started: Timestamp,
    /// Its release.
    pub version: String,
    /// Its copies of slices.
    pub copies: Vec<CopyReport>,
    /// It coordinates changes of the topology.
    pub coordinates: bool,
}

/// What `/.dht` is made from.
///
/// Take figures at most once a second and keep them until then: a reader that asks for the size first
/// and for the content afterwards should see one state.
#[derive(Clone, Copy, Debug)]
pub struct DhtState<'a> {
    /// Who is in the network.
    pub topology: &'a Topology,
    /// The figures of the volcanos that were heard from.
    pub figures: &'a [(VolcanoId, Figures)],
    /// When the figures were taken.
    pub taken: Timestamp,
    /// The root directory, `/.dht`'s parent.
    pub root: &'a Attr,
}

/// What a request about `/.dht` is answered with.
pub type Answer = Result<(Reply, Bytes), Failure>;

/// The load average of this machine over the last minute.
pub fn load_of_this_machine() -> f64 {
    // sysinfo(2): fixed point with 16 bits behind the point.
    #[allow(clippy::cast_precision_loss, reason = "a load average for people to read")]
    let load = rustix::system::sysinfo().loads[0] as f64;
    load / 65536.0
}

/// The handle of `/.dht`.
pub fn dht_handle() -> Handle {
    Handle { key: BirthString::root().child(DHT_NAME).key(), birth: BirthNumber::INTERNAL }
}

/// Whether a request concerns `/.dht`; cheap, as every request is asked. `StatMany` does if all its handles do.
pub fn concerns(request: &Request) -> bool {
    let internal = |handle: &Handle| handle.birth == BirthNumber::INTERNAL;
    if let Request::StatMany(many) = request {
        return !many.handles.is_empty() && many.handles.iter().all(internal);
    }
    let (first, second) = subjects(request);
    [first, second].iter().flatten().any(|(handle, name)| internal(handle) || names_dht(handle, *name))
}

/// The attributes behind a handle of `/.dht`; `None` if the handle is a stored flare's.
pub fn attr(state: &DhtState, handle: &Handle) -> Option<Result<Attr, FlareError>> {
    (handle.birth == BirthNumber::INTERNAL).then(|| Node::find(state, handle).map(|node| node.attr(state)))
}

/// Answers a request that concerns `/.dht`; `None` for all others.
///
/// Not answered here, because they may speak of stored flares at the same time: a `StatMany` of both kinds
/// (use [`attr`] for the internal ones) and `ReclaimOpens` (skip the internal ones; their opens are not counted).
pub fn answer(state: &DhtState, request: &Request) -> Option<Answer> {
    concerns(request).then(|| match request {
        Request::Lookup(op) if names_dht(&op.dir, Some(&op.name)) => {
            Ok(plain(Reply::Lookup(EntryReply { attr: Node::Dht.attr(state), dir: state.root.clone() })))
        }
        Request::StatMany(op) => {
            let attrs =
                op.handles.iter().map(|handle| Node::find(state, handle).map(|node| node.attr(state)));
            Ok(plain(Reply::StatMany(attrs.collect())))
        }
        _ if request.mutates()
            && !matches!(request, Request::Open(_) | Request::Release(_) | Request::Lock(_)) =>
        {
            Err(refuse(state, request))
        }
        _ => {
            let handle = subjects(request).0.map_or(dht_handle(), |(handle, _)| *handle);
            let node = Node::find(state, &handle)?;
            node.answer(state, request).map_err(|error| {
                let first = unchanged(node.attr(state));
                Failure { error, first, second: Wcc::default() }
            })
        }
    })
}

/// A flare of `/.dht`.
#[derive(Clone, Copy)]
enum Node<'a> {
    Dht,
    Volcano(&'a Member),
}

impl<'a> Node<'a> {
    fn find(state: &DhtState<'a>, handle: &Handle) -> Result<Self, FlareError> {
        if handle.birth != BirthNumber::INTERNAL {
            return Err(FlareError::Stale);
        }
        if *handle == dht_handle() {
            return Ok(Self::Dht);
        }
        let volcano = state.topology.members.iter().find(|member| Self::Volcano(member).handle() == *handle);
        volcano.map(Self::Volcano).ok_or(FlareError::Stale)
    }

    fn handle(self) -> Handle {
        match self {
            Self::Dht => dht_handle(),
            Self::Volcano(member) => {
                let birth = BirthString::root().child(DHT_NAME).child(member.nickname.as_bytes());
                Handle { key: birth.key(), birth: BirthNumber::INTERNAL }
            }
        }
    }

    fn attr(self, state: &DhtState) -> Attr {
        let (kind, mode, nlink, size) = match self {
            Self::Dht => (Kind::Directory, 0o555, 2, 32 * state.topology.members.len() as u64),
            Self::Volcano(member) => (Kind::File, 0o444, 1, content(state, member).len() as u64),
        };
        let taken = state.taken;
        Attr {
            handle: self.handle(),
            kind,
            mode,
            nlink,
            uid: 0,
            gid: 0,
            rdev: 0,
            size,
            used: 0,
            atime: taken,
            mtime: taken,
            ctime: taken,
            btime: state.root.btime,
            change: taken
                .seconds()
                .unsigned_abs()
                .wrapping_mul(1_000_000_000)
                .wrapping_add(u64::from(taken.nanos())),
        }
    }

    /// Answers a request that changes nothing and whose first handle is this flare.
    fn answer(self, state: &DhtState, request: &Request) -> Result<(Reply, Bytes), FlareError> {
        let attr = self.attr(state);
        let reply = match request {
            Request::Getattr(_) => Reply::Getattr(attr),
            Request::Lookup(op) => {
                let child = self.child(state, &op.name)?.attr(state);
                Reply::Lookup(EntryReply { attr: child, dir: attr })
            }
            Request::LookupParent(_) => match self {
                Self::Dht => Reply::LookupParent(EntryReply { attr: state.root.clone(), dir: attr }),
                Self::Volcano(_) => return Err(FlareError::NotDirectory),
            },
            Request::Access(op) => {
                let execute = if attr.kind == Kind::Directory { ACCESS_EXECUTE } else { 0 };
                Reply::Access(AccessReply { granted: op.mask & (ACCESS_READ | execute), attr })
            }
            Request::Readdir(op) => Reply::Readdir(self.readdir(state, op)?),
            Request::Readlink(_) => return Err(FlareError::NotSymlink),
            Request::Open(op) => Reply::Open(self.open(op, attr)?),
            Request::Release(_) => Reply::Release(()),
            Request::Read(op) => return self.read(state, op),
            Request::Seek(op) => Reply::Seek(self.seek(op, attr.size)?),
            Request::Commit(_) => {
                Reply::Commit(CommitReply { verifier: state.topology.write_verifier(), wcc: unchanged(attr) })
            }
            Request::GetXattr(_) => return Err(FlareError::NoAttribute),
            Request::ListXattr(_) => Reply::ListXattr(Vec::new()),
            _ => return Err(FlareError::NotSupported),
        };
        Ok(plain(reply))
    }

    fn child(self, state: &DhtState<'a>, name: &Name) -> Result<Self, FlareError> {
        match self {
            Self::Volcano(_) => Err(FlareError::NotDirectory),
            Self::Dht => {
                let mut members = state.topology.members.iter();
                let named = members.find(|member| member.nickname.as_bytes() == name.as_bytes());
                named.map(Self::Volcano).ok_or(FlareError::NotFound)
            }
        }
    }

    fn readdir(self, state: &DhtState, op: &Readdir) -> Result<ReaddirReply, FlareError> {
        let Self::Dht = self else { return Err(FlareError::NotDirectory) };
        // A volcano's position comes from its number, so it stays when others come and go.
        let cookie = |member: &Member| (member.id.0 & ((1 << 62) - 1)) + FIRST_COOKIE;
        let mut following: Vec<&Member> =
            state.topology.members.iter().filter(|member| cookie(member) > op.cookie).collect();
        following.sort_by_key(|member| cookie(member));
        let limit = op.limit.clamp(1, MAX_READDIR_ENTRIES) as usize;
        let eof = following.len() <= limit;
        let entries = following.into_iter().take(limit).filter_map(|member| {
            // A nickname that is no name was refused when its volcano was configured.
            let name = Name::new(member.nickname.clone()).ok()?;
            let node = Node::Volcano(member);
            let attr = op.attributes.then(|| node.attr(state));
            Some(Dirent { name, handle: node.handle(), kind: Kind::File, cookie: cookie(member), attr })
        });
        Ok(ReaddirReply { entries: entries.collect(), eof, dir: self.attr(state) })
    }

    fn open(self, op: &Open, attr: Attr) -> Result<Attr, FlareError> {
        match self {
            Self::Dht if op.write || op.truncate => Err(FlareError::IsDirectory),
            Self::Volcano(_) if op.write || op.truncate => Err(FlareError::ReadOnly),
            Self::Volcano(_) if op.execute => Err(FlareError::AccessDenied),
            _ => Ok(attr),
        }
    }

    fn read(self, state: &DhtState, op: &Read) -> Result<(Reply, Bytes), FlareError> {
        let Self::Volcano(member) = self else { return Err(FlareError::IsDirectory) };
        let content = Bytes::from(content(state, member));
        let start = usize::try_from(op.offset).unwrap_or(usize::MAX).min(content.len());
        let end = start.saturating_add(op.length.min(MAX_IO) as usize).min(content.len());
        let reply = ReadReply { eof: end == content.len(), attr: self.attr(state) };
        Ok((Reply::Read(reply), content.slice(start..end)))
    }

    fn seek(self, op: &Seek, size: u64) -> Result<SeekReply, FlareError> {
        match self {
            Self::Dht => Err(FlareError::IsDirectory),
            Self::Volcano(_) if op.offset >= size => Err(FlareError::NoSuchOffset),
            Self::Volcano(_) => Ok(SeekReply {
                offset: match op.whence {
                    SeekWhence::Data => op.offset,
                    SeekWhence::Hole => size,
                },
            }),
        }
    }
}

/// A volcano's file: configuration first, then its part in the network, then figures.
fn content(state: &DhtState, member: &Member) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: &dyn std::fmt::Display| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{key} = {value}");
    };
    let port = |offset: u16| member.port.saturating_add(offset);
    line("nickname", &member.nickname.escape_default());
    line("servername", &member.servername.escape_default());
    line("ip", &member.address);
    line("port", &member.port);
    line("node_port", &port(NODE_PORT_OFFSET));
    line("console_port", &port(CONSOLE_PORT_OFFSET));
    line("status_port", &port(STATUS_PORT_OFFSET));
    line("bandwidth", &member.bandwidth);
    line("volcano_id", &format_args!("{:016x}", member.id.0));
    line("boot_id", &format_args!("{:016x}", member.boot.0));
    line("boot", &(member.boot.0 >> 32));
    line("network", &format_args!("{:016x}", state.topology.network));
    line("lineage", &format_args!("{:016x}", state.topology.lineage));
    line("topology_version", &state.topology.version);

    let mut served =
        state.topology.slices.iter().filter(|slice| slice.primary.volcano == member.id).peekable();
    let first = served.peek().map(|slice| slice.range);
    let bound = |key: Option<Key>| key.map_or_else(|| "none".to_owned(), |key| key.to_string());
    line("start_key", &bound(first.map(|range| range.first_key())));
    line("stop_key", &bound(first.map(|range| range.last_key())));
    for slice in served {
        let (range, epoch) = (slice.range, slice.epoch.0);
        let value = format_args!("{} {} epoch {epoch}", range.first_key(), range.last_key()).to_string();
        line(&format!("slice.{}", slice.id.0), &value);
    }
    line("role", &role(state.topology, state.figures, member));
    line("leaving", &if member.leaving { "yes" } else { "no" });
    for slice in &state.topology.slices {
        if slice.copies().any(|copy| copy.volcano == member.id) {
            for (key, value) in copies(state, slice) {
                line(&format!("slice.{}.{key}", slice.id.0), &value);
            }
        }
    }
    match state.figures.iter().find(|(id, _)| *id == member.id) {
        Some((_, figures)) => {
            line("load", &format_args!("{:.2}", figures.load));
            line("keys", &figures.keys);
            line("bytes", &figures.bytes);
            line("disk_total", &figures.total);
            line("disk_free", &figures.free);
            line("started", &figures.started.seconds());
            line("version", &figures.version.escape_default());
        }
        None => line("load", &"unknown"),
    }
    text
}

/// Who has copies of a slice, and whether they are enough.
fn copies(state: &DhtState, slice: &Slice) -> [(&'static str, String); 4] {
    let name = |copy: Replica| {
        let member = state.topology.member(copy.volcano);
        member.map_or_else(
            || format!("{:016x}", copy.volcano.0),
            |member| member.nickname.escape_default().to_string(),
        )
    };
    let names: Vec<String> = slice.copies().map(name).collect();
    let degraded = match doing(state.figures, slice.primary.volcano, slice) {
        Some(Doing::Serving { degraded, .. }) => *degraded,
        _ => None,
    };
    [
        ("copies", names.join(" ")),
        ("epoch", slice.epoch.0.to_string()),
        ("in_sync", format!("{} of {}", slice.in_sync().count(), state.topology.copies)),
        ("degraded_since", degraded.map_or_else(|| "none".to_owned(), |since| since.seconds().to_string())),
    ]
}

/// What a request names: one or two flares, with the name in each where the request has one.
type Subject<'a> = Option<(&'a Handle, Option<&'a Name>)>;

fn subjects(request: &Request) -> (Subject<'_>, Subject<'_>) {
    let first = match request {
        Request::Lookup(op) => (&op.dir, Some(&op.name)),
        Request::Create(op) => (&op.dir, Some(&op.name)),
        Request::Mkdir(op) => (&op.dir, Some(&op.name)),
        Request::Symlink(op) => (&op.dir, Some(&op.name)),
        Request::Mknod(op) => (&op.dir, Some(&op.name)),
        Request::Unlink(op) => (&op.dir, Some(&op.name)),
        Request::Rmdir(op) => (&op.dir, Some(&op.name)),
        Request::Link(op) => return (Some((&op.handle, None)), Some((&op.dir, Some(&op.name)))),
        Request::Rename(op) => {
            return (Some((&op.from_dir, Some(&op.from_name))), Some((&op.to_dir, Some(&op.to_name))));
        }
        Request::LookupParent(op) => (&op.dir, None),
        Request::Readdir(op) => (&op.dir, None),
        Request::Getattr(op) => (&op.handle, None),
        Request::Setattr(op) => (&op.handle, None),
        Request::Access(op) => (&op.handle, None),
        Request::Readlink(op) => (&op.handle, None),
        Request::Open(op) => (&op.handle, None),
        Request::Release(op) => (&op.handle, None),
        Request::Read(op) => (&op.handle, None),
        Request::Write(op) => (&op.handle, None),
        Request::Commit(op) => (&op.handle, None),
        Request::Allocate(op) => (&op.handle, None),
        Request::Seek(op) => (&op.handle, None),
        Request::Layout(op) => (&op.handle, None),
        Request::ReadStripe(op) => (&op.stripe, None),
        Request::WriteStripe(op) => (&op.stripe, None),
        Request::WriteDone(op) => (&op.handle, None),
        Request::CommitPart(op) => (&op.part, None),
        Request::Shed(op) => (&op.handle, None),
        Request::MakeStripes(op) => (&op.handle, None),
        Request::GetXattr(op) => (&op.handle, None),
        Request::SetXattr(op) => (&op.handle, None),
        Request::ListXattr(op) => (&op.handle, None),
        Request::RemoveXattr(op) => (&op.handle, None),
        Request::Lock(op) => (&op.handle, None),
        Request::TestLock(op) => (&op.handle, None),
        Request::OpenSession(_)
        | Request::KeepAlive(_)
        | Request::EndSession(_)
        | Request::ReclaimOpens(_)
        | Request::FetchTopology(_)
        | Request::StatMany(_)
        | Request::Statfs(_) => return (None, None),
    };
    (Some(first), None)
}

fn names_dht(dir: &Handle, name: Option<&Name>) -> bool {
    name.is_some_and(|name| name.as_bytes() == DHT_NAME) && *dir == Handle::root()
}

/// Why a request that would change something is refused, with the attributes of what it names.
fn refuse(state: &DhtState, request: &Request) -> Failure {
    let (first, second) = subjects(request);
    let wcc = |subject: Subject| -> Result<Wcc, FlareError> {
        let Some((handle, _)) = subject else { return Ok(Wcc::default()) };
        match attr(state, handle) {
            Some(known) => known.map(unchanged),
            None if *handle == Handle::root() => Ok(unchanged(state.root.clone())),
            None => Ok(Wcc::default()),
        }
    };
    let (first, second, stale) = match (wcc(first), wcc(second)) {
        (Ok(first), Ok(second)) => (first, second, false),
        (first, second) => (first.unwrap_or_default(), second.unwrap_or_default(), true),
    };
    let error = match request {
        _ if stale => FlareError::Stale,
        Request::Create(op) if names_dht(&op.dir, Some(&op.name)) => match op.how {
            CreateHow::Unchecked => FlareError::IsDirectory,
            CreateHow::Guarded | CreateHow::Exclusive(_) => FlareError::Exists,
        },
        Request::Mkdir(op) if names_dht(&op.dir, Some(&op.name)) => FlareError::Exists,
        Request::Symlink(op) if names_dht(&op.dir, Some(&op.name)) => FlareError::Exists,
        Request::Mknod(op) if names_dht(&op.dir, Some(&op.name)) => FlareError::Exists,
        Request::Link(op) if names_dht(&op.dir, Some(&op.name)) => FlareError::Exists,
        _ => FlareError::ReadOnly,
    };
    Failure { error, first, second }
}

fn unchanged(attr: Attr) -> Wcc {
    Wcc { before: Some(WccAttr::from(&attr)), after: Some(attr) }
}

fn plain(reply: Reply) -> (Reply, Bytes) {
    (reply, Bytes::new())
}

#[cfg(test)]
mod tests;
