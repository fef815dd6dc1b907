//! POSIX semantics as simply as possible: a tree of nodes in memory, for a caller who is root.

use std::collections::{BTreeMap, HashMap};

use rustix::io::Errno;

use crate::operation::{Attributes, How, Operation, Outcome, Path, SLOTS, Shown, Tree, pattern};

type Id = u64;

const ROOT: Id = 0;

enum Content {
    File(Vec<u8>),
    Directory(BTreeMap<&'static str, Id>),
    Symlink(String),
}

struct Node {
    content: Content,
    mode: u32,
    names: u32,
    xattrs: BTreeMap<&'static str, Vec<u8>>,
}

/// The tree.
pub struct Model {
    nodes: HashMap<Id, Node>,
    next: Id,
    slots: [Option<Id>; SLOTS],
}

impl Default for Model {
    fn default() -> Self {
        let root = Node {
            content: Content::Directory(BTreeMap::new()),
            mode: 0o755,
            names: 1,
            xattrs: BTreeMap::new(),
        };
        Self { nodes: HashMap::from([(ROOT, root)]), next: 1, slots: [None; SLOTS] }
    }
}

impl Model {
    fn node(&mut self, id: Id) -> &mut Node {
        self.nodes.get_mut(&id).expect("ids in the tree lead to nodes")
    }

    fn children(&mut self, id: Id) -> Result<&mut BTreeMap<&'static str, Id>, Errno> {
        match &mut self.node(id).content {
            Content::Directory(children) => Ok(children),
            Content::File(_) | Content::Symlink(_) => Err(Errno::NOTDIR),
        }
    }

    fn is_directory(&self, id: Id) -> bool {
        matches!(self.nodes.get(&id), Some(Node { content: Content::Directory(_), .. }))
    }

    fn walk(&mut self, path: &[&'static str]) -> Result<Id, Errno> {
        let mut at = ROOT;
        for name in path {
            at = *self.children(at)?.get(name).ok_or(Errno::NOENT)?;
        }
        Ok(at)
    }

    /// The directory that the path's last name is looked up in, that name, and what it leads to.
    fn target(&mut self, path: &Path) -> Result<(Id, &'static str, Option<Id>), Errno> {
        let (name, dirs) = path.split_last().ok_or(Errno::EXIST)?;
        let dir = self.walk(dirs)?;
        let found = self.children(dir)?.get(name).copied();
        Ok((dir, name, found))
    }

    fn existing(&mut self, path: &Path) -> Result<(Id, &'static str, Id), Errno> {
        let (dir, name, found) = self.target(path)?;
        Ok((dir, name, found.ok_or(Errno::NOENT)?))
    }

    fn make(&mut self, path: &Path, content: Content, mode: u32) -> Outcome {
        let (dir, name, found) = self.target(path)?;
        if found.is_some() {
            return Err(Errno::EXIST);
        }
        let id = self.next;
        self.next += 1;
        self.nodes.insert(id, Node { content, mode, names: 1, xattrs: BTreeMap::new() });
        self.children(dir)?.insert(name, id);
        Ok(Shown::Done)
    }

    fn file(&mut self, path: &Path) -> Result<&mut Vec<u8>, Errno> {
        let id = self.walk(path)?;
        self.data(id)
    }

    fn data(&mut self, id: Id) -> Result<&mut Vec<u8>, Errno> {
        match &mut self.node(id).content {
            Content::File(data) => Ok(data),
            Content::Directory(_) => Err(Errno::ISDIR),
            Content::Symlink(_) => Err(Errno::LOOP),
        }
    }

    fn drop_name(&mut self, id: Id) {
        let node = self.node(id);
        node.names -= 1;
        if node.names == 0 && !self.slots.contains(&Some(id)) {
            self.nodes.remove(&id);
        }
    }

    fn close(&mut self, slot: usize) {
        if let Some(id) = self.slots[slot].take()
            && self.node(id).names == 0
            && !self.slots.contains(&Some(id))
        {
            self.nodes.remove(&id);
        }
    }

    fn attributes(&mut self, id: Id) -> Attributes {
        let subdirectories = match &self.node(id).content {
            Content::Directory(children) => {
                let children: Vec<Id> = children.values().copied().collect();
                children.into_iter().filter(|child| self.is_directory(*child)).count() as u32
            }
            _ => 0,
        };
        let node = self.node(id);
        let (kind, nlink, size) = match &node.content {
            Content::File(data) => ('f', node.names, data.len() as u64),
            Content::Directory(_) => ('d', 2 + subdirectories, 0),
            Content::Symlink(target) => ('l', node.names, target.len() as u64),
        };
        Attributes { kind, mode: node.mode, nlink, size }
    }

    /// Whether `below` is `above` or lies anywhere under it.
    fn within(&mut self, below: Id, above: Id) -> bool {
        if below == above {
            return true;
        }
        let children: Vec<Id> = match &self.node(above).content {
            Content::Directory(children) => children.values().copied().collect(),
            _ => return false,
        };
        children.into_iter().any(|child| self.within(below, child))
    }

    fn link(&mut self, from: &Path, to: &Path) -> Outcome {
        let (_, _, id) = self.existing(from)?;
        let (dir, name, found) = self.target(to)?;
        if found.is_some() {
            return Err(Errno::EXIST);
        }
        if self.is_directory(id) {
            return Err(Errno::PERM);
        }
        self.node(id).names += 1;
        self.children(dir)?.insert(name, id);
        Ok(Shown::Done)
    }

    fn unlink(&mut self, path: &Path) -> Outcome {
        let (dir, name, id) = self.existing(path)?;
        if self.is_directory(id) {
            return Err(Errno::ISDIR);
        }
        self.children(dir)?.remove(name);
        self.drop_name(id);
        Ok(Shown::Done)
    }

    fn rmdir(&mut self, path: &Path) -> Outcome {
        let (dir, name, id) = self.existing(path)?;
        if !self.children(id)?.is_empty() {
            return Err(Errno::NOTEMPTY);
        }
        self.children(dir)?.remove(name);
        self.drop_name(id);
        Ok(Shown::Done)
    }

    /// The order of the checks is the kernel's (`do_renameat2`, then `vfs_rename`).
    fn rename(&mut self, from: &Path, to: &Path, how: How) -> Outcome {
        let from_dir = self.walk(&from[..from.len() - 1])?;
        self.children(from_dir)?;
        let to_dir = self.walk(&to[..to.len() - 1])?;
        self.children(to_dir)?;
        let (_, from_name, moved) = self.existing(from)?;
        let (_, to_name, replaced) = self.target(to)?;
        match (how, replaced) {
            (How::NoReplace, Some(_)) => return Err(Errno::EXIST),
            (How::Exchange, None) => return Err(Errno::NOENT),
            _ => {}
        }
        if from_dir != to_dir && self.within(to_dir, moved) {
            return Err(Errno::INVAL);
        }
        if let Some(replaced) = replaced
            && from_dir != to_dir
            && self.within(from_dir, replaced)
        {
            return Err(if how == How::Exchange { Errno::INVAL } else { Errno::NOTEMPTY });
        }
        if replaced == Some(moved) {
            return Ok(Shown::Done);
        }
        if let (How::Exchange, Some(other)) = (how, replaced) {
            self.children(from_dir)?.insert(from_name, other);
            self.children(to_dir)?.insert(to_name, moved);
            return Ok(Shown::Done);
        }
        if let Some(replaced) = replaced {
            match (self.is_directory(moved), self.is_directory(replaced)) {
                (true, false) => return Err(Errno::NOTDIR),
                (false, true) => return Err(Errno::ISDIR),
                (true, true) if !self.children(replaced)?.is_empty() => return Err(Errno::NOTEMPTY),
                _ => {}
            }
        }
        self.children(from_dir)?.remove(from_name);
        self.children(to_dir)?.insert(to_name, moved);
        if let Some(replaced) = replaced {
            self.drop_name(replaced);
        }
        Ok(Shown::Done)
    }

    fn create(&mut self, path: &Path, mode: u32, exclusive: bool) -> Outcome {
        let (_, _, found) = self.target(path)?;
        match found {
            None => self.make(path, Content::File(Vec::new()), mode),
            Some(_) if exclusive => Err(Errno::EXIST),
            Some(id) if self.is_directory(id) => Err(Errno::ISDIR),
            Some(_) => Ok(Shown::Done),
        }
    }

    fn apply_to_data(&mut self, operation: &Operation) -> Outcome {
        match operation {
            Operation::Write { path, offset, length, seed } => {
                write(self.file(path)?, *offset, &pattern(*seed, *offset, *length));
                Ok(Shown::Done)
            }
            Operation::Append { path, length, seed } => {
                let data = self.file(path)?;
                let end = data.len() as u64;
                write(data, end, &pattern(*seed, end, *length));
                Ok(Shown::Done)
            }
            Operation::Read { path, offset, length } => Ok(read(self.file(path)?, *offset, *length)),
            Operation::Truncate { path, size } => {
                self.file(path)?.resize(*size as usize, 0);
                Ok(Shown::Done)
            }
            Operation::Punch { path, offset, length } => {
                let data = self.file(path)?;
                let end = (offset + length).min(data.len() as u64) as usize;
                if let Some(hole) = data.get_mut(*offset as usize..end) {
                    hole.fill(0);
                }
                Ok(Shown::Done)
            }
            Operation::WriteOpen { slot, offset, length, seed } => {
                let id = self.slots[*slot].ok_or(Errno::BADF)?;
                write(self.data(id)?, *offset, &pattern(*seed, *offset, *length));
                Ok(Shown::Done)
            }
            Operation::ReadOpen { slot, offset, length } => {
                let id = self.slots[*slot].ok_or(Errno::BADF)?;
                Ok(read(self.data(id)?, *offset, *length))
            }
            other => unreachable!("{other:?} is not about data"),
        }
    }

    fn apply_to_xattrs(&mut self, operation: &Operation) -> Outcome {
        match operation {
            Operation::SetXattr { path, name, value } => {
                let id = self.walk(path)?;
                self.node(id).xattrs.insert(name, value.clone());
                Ok(Shown::Done)
            }
            Operation::GetXattr { path, name } => {
                let id = self.walk(path)?;
                self.node(id).xattrs.get(name).cloned().map(Shown::Bytes).ok_or(Errno::NODATA)
            }
            Operation::RemoveXattr { path, name } => {
                let id = self.walk(path)?;
                self.node(id).xattrs.remove(name).map(|_| Shown::Done).ok_or(Errno::NODATA)
            }
            other => unreachable!("{other:?} is not about extended attributes"),
        }
    }

    fn look(&mut self, operation: &Operation) -> Outcome {
        match operation {
            Operation::Stat { path } => {
                let id = self.walk(path)?;
                Ok(Shown::Attributes(self.attributes(id)))
            }
            Operation::Readlink { path } => {
                let id = self.walk(path)?;
                match &self.node(id).content {
                    Content::Symlink(target) => Ok(Shown::Bytes(target.clone().into_bytes())),
                    _ => Err(Errno::INVAL),
                }
            }
            Operation::List { path } => {
                let id = self.walk(path)?;
                Ok(Shown::Names(self.children(id)?.keys().map(ToString::to_string).collect()))
            }
            other => unreachable!("{other:?} is not about looking"),
        }
    }
}

fn write(data: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let (start, end) = (offset as usize, offset as usize + bytes.len());
    if data.len() < end {
        data.resize(end, 0);
    }
    data[start..end].copy_from_slice(bytes);
}

fn read(data: &[u8], offset: u64, length: usize) -> Shown {
    let start = (offset as usize).min(data.len());
    let end = (start + length).min(data.len());
    Shown::Bytes(data[start..end].to_vec())
}

impl Tree for Model {
    fn apply(&mut self, operation: &Operation) -> Outcome {
        match operation {
            Operation::Create { path, mode, exclusive } => self.create(path, *mode, *exclusive),
            Operation::Mkdir { path, mode } => {
                self.make(path, Content::Directory(BTreeMap::new()), mode & 0o1777)
            }
            Operation::Symlink { path, target } => self.make(path, Content::Symlink(target.clone()), 0o777),
            Operation::Link { from, to } => self.link(from, to),
            Operation::Unlink { path } => self.unlink(path),
            Operation::Rmdir { path } => self.rmdir(path),
            Operation::Rename { from, to, how } => self.rename(from, to, *how),
            Operation::Write { .. }
            | Operation::Append { .. }
            | Operation::Read { .. }
            | Operation::Truncate { .. }
            | Operation::Punch { .. }
            | Operation::WriteOpen { .. }
            | Operation::ReadOpen { .. } => self.apply_to_data(operation),
            Operation::SetXattr { .. } | Operation::GetXattr { .. } | Operation::RemoveXattr { .. } => {
                self.apply_to_xattrs(operation)
            }
            Operation::Stat { .. } | Operation::Readlink { .. } | Operation::List { .. } => {
                self.look(operation)
            }
            Operation::Chmod { path, mode } => {
                let id = self.walk(path)?;
                self.node(id).mode = *mode;
                Ok(Shown::Done)
            }
            Operation::Open { path, slot } => {
                self.close(*slot);
                let id = self.walk(path)?;
                self.data(id)?;
                self.slots[*slot] = Some(id);
                Ok(Shown::Done)
            }
            Operation::Close { slot } => {
                self.close(*slot);
                Ok(Shown::Done)
            }
            Operation::Fsync { path } => self.file(path).map(|_| Shown::Done),
        }
    }
}
