//! Operations through the flare protocol: each one walks its path and sends what a front end would send.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use magma_common::attr::{Attr, Kind, SetAttr};
use magma_common::client::{Client, Context};
use magma_common::handle::Handle;
use magma_common::name::Name;
use magma_common::proto::limits::MAX_IO;
use magma_common::proto::operation as op;
use magma_common::proto::{Credentials, Durability, Failure};
use rustix::io::Errno;
use tokio::runtime::Handle as Runtime;

use crate::operation::{Attributes, How, Operation, Outcome, Path, SLOTS, Shown, Tree, pattern};

/// A tree below one directory, seen through a client. Its calls block: use it outside the client's runtime.
pub struct ThroughClient {
    runtime: Runtime,
    client: Client,
    context: Context,
    root: Handle,
    slots: [Option<Handle>; SLOTS],
}

impl ThroughClient {
    /// `root` is the directory that paths start from.
    pub fn new(runtime: Runtime, client: Client, root: Handle) -> Self {
        let context = Context {
            credentials: Arc::new(Credentials::ROOT),
            durability: Durability::Replicated,
            deadline: None,
            call: None,
        };
        Self { runtime, client, context, root, slots: [None; SLOTS] }
    }

    fn wait<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Errno> {
        self.runtime.block_on(work).map_err(|failure| failure.error.errno())
    }

    fn call<O: op::Operation>(&self, operation: O) -> Result<O::Reply, Errno> {
        self.wait(self.client.call(&self.context, operation))
    }

    fn walk(&self, path: &[&'static str]) -> Result<Attr, Errno> {
        let mut attr = self.call(op::Getattr { handle: self.root })?;
        for part in path {
            attr = self.call(op::Lookup { dir: attr.handle, name: name(part) })?.attr;
        }
        Ok(attr)
    }

    fn parent(&self, path: &Path) -> Result<(Handle, Name), Errno> {
        let (last, dirs) = path.split_last().ok_or(Errno::EXIST)?;
        let dir = self.walk(dirs)?;
        if dir.kind == Kind::Directory { Ok((dir.handle, name(last))) } else { Err(Errno::NOTDIR) }
    }

    fn file(&self, path: &Path) -> Result<Attr, Errno> {
        let attr = self.walk(path)?;
        if attr.kind == Kind::Directory { Err(Errno::ISDIR) } else { Ok(attr) }
    }

    fn write(&self, handle: Handle, at: op::WriteAt, data: &[u8]) -> Outcome {
        for (n, piece) in data.chunks(MAX_IO as usize).enumerate() {
            let at = match at {
                op::WriteAt::Offset(offset) => op::WriteAt::Offset(offset + n as u64 * u64::from(MAX_IO)),
                op::WriteAt::End => op::WriteAt::End,
            };
            let write = op::Write { handle, at, opened: true };
            self.wait(self.client.write(&self.context, write, Bytes::copy_from_slice(piece)))?;
        }
        Ok(Shown::Done)
    }

    fn read(&self, handle: Handle, offset: u64, length: usize) -> Outcome {
        let read = op::Read { handle, offset, length: length as u32, opened: true };
        let (_, data) = self.wait(self.client.read(&self.context, read))?;
        Ok(Shown::Bytes(data.to_vec()))
    }

    fn close(&mut self, slot: usize) {
        if let Some(handle) = self.slots[slot].take() {
            self.client.release(handle);
        }
    }

    fn make(&self, operation: &Operation) -> Outcome {
        match operation {
            Operation::Create { path, mode, exclusive } => {
                let (dir, name) = self.parent(path)?;
                let how = if *exclusive { op::CreateHow::Guarded } else { op::CreateHow::Unchecked };
                let set = SetAttr::default();
                self.call(op::Create { dir, name, mode: *mode, umask: 0, how, set, open: false })?;
            }
            Operation::Mkdir { path, mode } => {
                let (dir, name) = self.parent(path)?;
                let set = SetAttr::default();
                self.call(op::Mkdir { dir, name, mode: mode & 0o1777, umask: 0, set })?;
            }
            Operation::Symlink { path, target } => {
                let (dir, name) = self.parent(path)?;
                let target = Bytes::copy_from_slice(target.as_bytes());
                self.call(op::Symlink { dir, name, target, set: SetAttr::default() })?;
            }
            other => unreachable!("{other:?} makes nothing"),
        }
        Ok(Shown::Done)
    }

    fn names(&self, operation: &Operation) -> Outcome {
        match operation {
            Operation::Link { from, to } => {
                let handle = self.walk(from)?.handle;
                let (dir, name) = self.parent(to)?;
                self.call(op::Link { handle, dir, name })?;
            }
            Operation::Unlink { path } => {
                let (dir, name) = self.parent(path)?;
                self.call(op::Unlink { dir, name })?;
            }
            Operation::Rmdir { path } => {
                let (dir, name) = self.parent(path)?;
                self.call(op::Rmdir { dir, name })?;
            }
            Operation::Rename { from, to, how } => {
                let (from_dir, from_name) = self.parent(from)?;
                let (to_dir, to_name) = self.parent(to)?;
                let how = match how {
                    How::Replace => op::RenameHow::Replace,
                    How::NoReplace => op::RenameHow::NoReplace,
                    How::Exchange => op::RenameHow::Exchange,
                };
                self.call(op::Rename { from_dir, from_name, to_dir, to_name, how })?;
            }
            other => unreachable!("{other:?} changes no name"),
        }
        Ok(Shown::Done)
    }

    fn data(&self, operation: &Operation) -> Outcome {
        match operation {
            Operation::Write { path, offset, length, seed } => {
                let at = op::WriteAt::Offset(*offset);
                self.write(self.file(path)?.handle, at, &pattern(*seed, *offset, *length))
            }
            Operation::Append { path, length, seed } => {
                let file = self.file(path)?;
                self.write(file.handle, op::WriteAt::End, &pattern(*seed, file.size, *length))
            }
            Operation::Read { path, offset, length } => self.read(self.file(path)?.handle, *offset, *length),
            Operation::Truncate { path, size } => {
                let set = SetAttr { size: Some(*size), ..SetAttr::default() };
                self.call(op::Setattr { handle: self.file(path)?.handle, set, guard: None, opened: false })?;
                Ok(Shown::Done)
            }
            Operation::Punch { path, offset, length } => {
                let handle = self.file(path)?.handle;
                let how = op::AllocateHow::PunchHole;
                self.call(op::Allocate { handle, offset: *offset, length: *length, how })?;
                Ok(Shown::Done)
            }
            Operation::WriteOpen { slot, offset, length, seed } => {
                let handle = self.slots[*slot].ok_or(Errno::BADF)?;
                self.write(handle, op::WriteAt::Offset(*offset), &pattern(*seed, *offset, *length))
            }
            Operation::ReadOpen { slot, offset, length } => {
                self.read(self.slots[*slot].ok_or(Errno::BADF)?, *offset, *length)
            }
            Operation::Fsync { path } => {
                self.call(op::Commit { handle: self.file(path)?.handle })?;
                Ok(Shown::Done)
            }
            other => unreachable!("{other:?} is not about data"),
        }
    }

    fn attributes(&self, operation: &Operation) -> Outcome {
        match operation {
            Operation::Chmod { path, mode } => {
                let set = SetAttr { mode: Some(*mode), ..SetAttr::default() };
                self.call(op::Setattr { handle: self.walk(path)?.handle, set, guard: None, opened: false })?;
                Ok(Shown::Done)
            }
            Operation::SetXattr { path, name: xattr, value } => {
                let handle = self.walk(path)?.handle;
                let value = Bytes::copy_from_slice(value);
                let how = op::XattrHow::Any;
                self.call(op::SetXattr { handle, name: name(xattr), value, how, clear_setgid: false })?;
                Ok(Shown::Done)
            }
            Operation::GetXattr { path, name: xattr } => {
                let handle = self.walk(path)?.handle;
                let found = self.call(op::GetXattr { handle, name: name(xattr) })?;
                Ok(Shown::Bytes(found.value.to_vec()))
            }
            Operation::RemoveXattr { path, name: xattr } => {
                self.call(op::RemoveXattr { handle: self.walk(path)?.handle, name: name(xattr) })?;
                Ok(Shown::Done)
            }
            Operation::Stat { path } => Ok(Shown::Attributes(attributes(&self.walk(path)?))),
            Operation::Readlink { path } => {
                let link = self.call(op::Readlink { handle: self.walk(path)?.handle })?;
                Ok(Shown::Bytes(link.target.to_vec()))
            }
            Operation::List { path } => self.list(path),
            other => unreachable!("{other:?} is not about attributes"),
        }
    }

    fn list(&self, path: &Path) -> Outcome {
        let dir = self.walk(path)?.handle;
        let mut names = Vec::new();
        let mut cookie = 0;
        loop {
            // Few at a time, so that listings have several parts.
            let part = self.call(op::Readdir { dir, cookie, limit: 2, attributes: false, opened: false })?;
            for entry in &part.entries {
                assert!(entry.cookie > cookie, "cookies ascend");
                cookie = entry.cookie;
                names.push(entry.name.to_string());
            }
            if part.eof {
                names.sort();
                return Ok(Shown::Names(names));
            }
        }
    }
}

fn name(text: &str) -> Name {
    Name::new(Bytes::copy_from_slice(text.as_bytes())).expect("the tests' names are names")
}

fn attributes(attr: &Attr) -> Attributes {
    let kind = match attr.kind {
        Kind::Directory => 'd',
        Kind::Symlink => 'l',
        _ => 'f',
    };
    let size = if kind == 'd' { 0 } else { attr.size };
    Attributes { kind, mode: attr.mode, nlink: attr.nlink, size }
}

impl Tree for ThroughClient {
    fn apply(&mut self, operation: &Operation) -> Outcome {
        match operation {
            Operation::Create { .. } | Operation::Mkdir { .. } | Operation::Symlink { .. } => {
                self.make(operation)
            }
            Operation::Link { .. }
            | Operation::Unlink { .. }
            | Operation::Rmdir { .. }
            | Operation::Rename { .. } => self.names(operation),
            Operation::Open { path, slot } => {
                self.close(*slot);
                let handle = self.file(path)?.handle;
                self.call(op::Open { handle, read: true, write: true, execute: false, truncate: false })?;
                self.slots[*slot] = Some(handle);
                Ok(Shown::Done)
            }
            Operation::Close { slot } => {
                self.close(*slot);
                Ok(Shown::Done)
            }
            Operation::Chmod { .. }
            | Operation::SetXattr { .. }
            | Operation::GetXattr { .. }
            | Operation::RemoveXattr { .. }
            | Operation::Stat { .. }
            | Operation::Readlink { .. }
            | Operation::List { .. } => self.attributes(operation),
            _ => self.data(operation),
        }
    }
}
