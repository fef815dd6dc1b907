//! Writes the corpus of the flare protocol's frames: one file for each kind of request, and some replies.
//!
//! `cargo run -p magma-tests --example flare_corpus FOLDER`, whenever the protocol changes.

use std::path::PathBuf;

use bytes::Bytes;
use magma_common::attr::{Kind, SetAttr};
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::name::Name;
use magma_common::proto::frame::{self, RequestHeader, StreamClass, Tag};
#[allow(clippy::wildcard_imports, reason = "all operations are made here")]
use magma_common::proto::operation::*;
use magma_common::proto::{Credentials, Durability, SessionId};
use magma_common::topology::Epoch;

fn requests() -> Vec<Request> {
    let (dir, handle) = (Handle::root(), Handle::root());
    let name = Name::new(&b"name"[..]).expect("a name");
    let set = SetAttr { mode: Some(0o644), size: Some(9), ..SetAttr::default() };
    let (mode, umask) = (0o644, 0o022);
    let owner = LockOwner { owner: 7, pid: 8 };
    vec![
        OpenSession { client: "client".into() }.into(),
        KeepAlive { acknowledged: 5 }.into(),
        EndSession.into(),
        ReclaimOpens {
            at: handle.key,
            reign: Epoch(3),
            opens: vec![(handle, 2), (handle, 1)],
            last: true,
            number: 7,
        }
        .into(),
        FetchTopology.into(),
        Lookup { dir, name: name.clone() }.into(),
        LookupParent { dir }.into(),
        Getattr { handle }.into(),
        StatMany { handles: vec![handle; 5] }.into(),
        Setattr { handle, set: set.clone(), guard: None, opened: false }.into(),
        Access { handle, mask: 7 }.into(),
        Create {
            dir,
            name: name.clone(),
            mode,
            umask,
            how: CreateHow::Exclusive(9),
            set: set.clone(),
            open: true,
        }
        .into(),
        Mkdir { dir, name: name.clone(), mode, umask, set: set.clone() }.into(),
        Symlink { dir, name: name.clone(), target: Bytes::from_static(b"target"), set: set.clone() }.into(),
        Mknod { dir, name: name.clone(), kind: Kind::Fifo, mode, umask, rdev: 0, set }.into(),
        Link { handle, dir, name: name.clone() }.into(),
        Unlink { dir, name: name.clone() }.into(),
        Rmdir { dir, name: name.clone() }.into(),
        Rename {
            from_dir: dir,
            from_name: name.clone(),
            to_dir: dir,
            to_name: name.clone(),
            how: RenameHow::Exchange,
        }
        .into(),
        Readdir { dir, cookie: 3, limit: 100, attributes: true, opened: true }.into(),
        Readlink { handle }.into(),
        Open { handle, read: true, write: true, execute: false, truncate: false }.into(),
        Release { handle, count: 1 }.into(),
        Read { handle, offset: 4096, length: 65536, opened: true }.into(),
        Write { handle, at: WriteAt::Offset(5), opened: true }.into(),
        Commit { handle }.into(),
        Allocate { handle, offset: 1, length: 2, how: AllocateHow::PunchHole }.into(),
        Seek { handle, offset: 0, whence: SeekWhence::Hole }.into(),
        Statfs.into(),
        GetXattr { handle, name: name.clone() }.into(),
        SetXattr {
            handle,
            name: name.clone(),
            value: Bytes::from_static(b"value"),
            how: XattrHow::Any,
            clear_setgid: false,
        }
        .into(),
        ListXattr { handle }.into(),
        RemoveXattr { handle, name }.into(),
        Lock {
            handle,
            family: LockFamily::Posix,
            owner,
            kind: LockKind::Shared,
            start: 0,
            end: 9,
            wait: true,
        }
        .into(),
        TestLock { handle, family: LockFamily::Flock, owner, kind: LockKind::Exclusive, start: 0, end: 9 }
            .into(),
    ]
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("name the folder")?);
    for request in requests() {
        let header = RequestHeader {
            tag: Tag(3),
            durability: Durability::Stable,
            topology_version: 4,
            session: SessionId(5),
            sequence: 6,
            acknowledged: 5,
            call: Some(7),
            deadline_ms: Some(1000),
            forwarded: false,
            credentials: Credentials { uid: 1, gid: 2, groups: vec![3, 4] },
        };
        let payload = if request.name() == "Write" { Bytes::from_static(b"payload") } else { Bytes::new() };
        let encoded = frame::request(&header, request.opcode(), &request.encode()?, payload)?;
        let bytes = [&encoded.head[..], &encoded.payload[..]].concat();
        std::fs::write(folder.join(request.name().to_lowercase()), bytes)?;
    }
    let failure = frame::reply(Tag(3), 21, 4, Err(&FlareError::NotEmpty.into()))?;
    std::fs::write(folder.join("failure"), &failure.head)?;
    std::fs::write(folder.join("hello"), &frame::hello(StreamClass::Bulk).head)?;
    std::fs::write(folder.join("cancel"), &frame::cancel(Tag(3)).head)?;
    Ok(())
}
