//! A disk in memory that keeps what was not synced apart, and can lose it.
//!
//! At a power cut every file and every folder keeps an arbitrary prefix of what was done to it since its last sync, each
//! independently of the others, the last write of a prefix perhaps in part.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::super::disk::{Disk, DiskFile};
use super::Dice;
use super::database::Database;

#[derive(Debug, Clone)]
enum FileOp {
    Write(u64, Vec<u8>),
    Truncate(u64),
    Grow(u64),
    Punch(u64, u64),
}

impl FileOp {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => {
                let (start, end) = (*offset as usize, *offset as usize + data.len());
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[start..end].copy_from_slice(data);
            }
            Self::Truncate(length) => bytes.resize(*length as usize, 0),
            Self::Grow(length) => bytes.resize(bytes.len().max(*length as usize), 0),
            Self::Punch(offset, length) => {
                let start = (*offset as usize).min(bytes.len());
                let end = (*offset as usize + *length as usize).min(bytes.len());
                bytes[start..end].fill(0);
            }
        }
    }

    /// The part of it that reached the disk before the power went.
    fn torn(&self, dice: &mut Dice) -> Option<Self> {
        match self {
            Self::Write(offset, data) if !data.is_empty() => {
                let part = dice.below(data.len() as u64) as usize;
                Some(Self::Write(*offset, data[..part].to_vec()))
            }
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Inode {
    now: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<FileOp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    File(usize),
    Folder,
}

#[derive(Debug, Clone)]
enum NameOp {
    Link(String, Entry),
    Unlink(String),
    Rename(String, String),
}

impl NameOp {
    fn apply(&self, names: &mut BTreeMap<String, Entry>) {
        match self {
            Self::Link(name, entry) => drop(names.insert(name.clone(), *entry)),
            Self::Unlink(name) => drop(names.remove(name)),
            Self::Rename(from, to) => {
                if let Some(entry) = names.remove(from) {
                    names.insert(to.clone(), entry);
                }
            }
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Folder {
    now: BTreeMap<String, Entry>,
    durable: BTreeMap<String, Entry>,
    pending: Vec<NameOp>,
}

#[derive(Debug, Default)]
struct World {
    inodes: Vec<Inode>,
    root: PathBuf,
    folders: BTreeMap<PathBuf, Folder>,
    /// The process dies at the operation with this number.
    kill_at: Option<u64>,
    operations: u64,
    is_full: bool,
    fail_sync: bool,
    /// The database, as far as it is durable; none before it was made.
    database: Option<Database>,
}

/// The disk. Its clones are the same one.
#[derive(Debug, Clone)]
pub struct SimDisk(Arc<Mutex<World>>);

impl SimDisk {
    /// An empty disk with one folder, which is durable.
    pub fn new(root: &Path) -> Self {
        let mut world = World { root: root.to_path_buf(), ..World::default() };
        world.folders.insert(root.to_path_buf(), Folder::default());
        Self(Arc::new(Mutex::new(world)))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    /// The process dies in the middle of the `n`-th operation from now on: from then on everything fails.
    pub fn kill_after(&self, n: u64) {
        let mut world = self.world();
        world.kill_at = Some(world.operations + n);
    }

    /// Whether the process has died in the middle of an operation, and no other one has begun.
    pub fn is_killed(&self) -> bool {
        let world = self.world();
        world.kill_at.is_some_and(|at| world.operations >= at)
    }

    /// Whether the process is to die in the middle of an operation.
    pub fn is_doomed(&self) -> bool {
        self.world().kill_at.is_some()
    }

    /// A new process, with the same machine still running.
    pub fn revive(&self) {
        self.world().kill_at = None;
    }

    /// Nothing can grow any more, or can again.
    pub fn set_full(&self, full: bool) {
        self.world().is_full = full;
    }

    /// The next sync of a file fails, once.
    pub fn fail_next_sync(&self) {
        self.world().fail_sync = true;
    }

    /// The power goes: unsynced changes are lost but for an arbitrary prefix of those of each file and folder, and of the database's.
    /// The store must have been dropped before, or the database's files change under it.
    pub fn cut_power(&self, dice: &mut Dice) {
        let mut world = self.world();
        for inode in &mut world.inodes {
            let kept = dice.below(inode.pending.len() as u64 + 1) as usize;
            let pending = std::mem::take(&mut inode.pending);
            pending[..kept].iter().for_each(|op| op.apply(&mut inode.durable));
            if let Some(torn) = pending.get(kept).and_then(|op| op.torn(dice)) {
                torn.apply(&mut inode.durable);
            }
            inode.now = inode.durable.clone();
        }
        for folder in world.folders.values_mut() {
            let kept = dice.below(folder.pending.len() as u64 + 1) as usize;
            let pending = std::mem::take(&mut folder.pending);
            pending[..kept].iter().for_each(|op| op.apply(&mut folder.durable));
            folder.now = folder.durable.clone();
        }
        world.kill_at = None;
        let there: Vec<_> = world.folders.keys().cloned().collect();
        for path in there {
            let (parent, name) = (path.parent().unwrap(), path.file_name().unwrap().to_str().unwrap());
            // parents come first; one that is gone takes what is below with it
            let is_named = world.folders.get(parent).is_some_and(|parent| parent.now.contains_key(name));
            if !is_named && path != world.root {
                world.folders.remove(&path);
            }
        }
        if let Some(database) = &mut world.database {
            database.cut_power(dice);
        }
    }
}

fn split(path: &Path) -> (PathBuf, String) {
    (path.parent().unwrap().to_path_buf(), path.file_name().unwrap().to_str().unwrap().to_owned())
}

fn absent() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl World {
    /// Counts an operation that changes something; whether the process lives on after it.
    fn step(&mut self) -> io::Result<()> {
        self.operations += 1;
        if self.kill_at.is_some_and(|at| self.operations >= at) {
            return Err(io::Error::other("the process is dead"));
        }
        Ok(())
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        let (folder, name) = split(path);
        match self.folders.get(&folder).and_then(|folder| folder.now.get(&name)) {
            Some(Entry::File(index)) => Ok(*index),
            _ => Err(absent()),
        }
    }

    fn name(&mut self, folder: &Path, op: NameOp) -> io::Result<()> {
        let folder = self.folders.get_mut(folder).ok_or_else(absent)?;
        op.apply(&mut folder.now);
        folder.pending.push(op);
        Ok(())
    }

    fn change(&mut self, index: usize, op: FileOp) -> io::Result<()> {
        let killed = self.step();
        let op = if killed.is_err() && self.kill_at != Some(self.operations) { None } else { Some(op) };
        // the operation in which the process dies may have got half-way
        let op =
            if killed.is_err() { op.and_then(|op| op.torn(&mut Dice::new(self.operations))) } else { op };
        if let Some(op) = op {
            let inode = &mut self.inodes[index];
            op.apply(&mut inode.now);
            inode.pending.push(op);
        }
        killed
    }

    fn check_full(&self, index: usize, end: u64) -> io::Result<()> {
        if self.is_full && end > self.inodes[index].now.len() as u64 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let index = self.world().file(path)?;
        Ok(Arc::new(SimFile { disk: self.clone(), index }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        if let Ok(file) = self.open(path) {
            return Ok(file);
        }
        let mut world = self.world();
        world.step()?;
        let index = world.inodes.len();
        world.inodes.push(Inode::default());
        let (folder, name) = split(path);
        world.name(&folder, NameOp::Link(name, Entry::File(index)))?;
        Ok(Arc::new(SimFile { disk: self.clone(), index }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        let mut world = self.world();
        if world.folders.contains_key(path) {
            return Ok(false);
        }
        world.step()?;
        let (parent, name) = split(path);
        world.name(&parent, NameOp::Link(name, Entry::Folder))?;
        world.folders.insert(path.to_path_buf(), Folder::default());
        Ok(true)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        Ok(self.world().folders.get(path).map_or(Vec::new(), |folder| folder.now.keys().cloned().collect()))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.step()?;
        let ((folder, from), (target, to)) = (split(from), split(to));
        assert_eq!(folder, target, "the store renames within a folder only");
        world.name(&folder, NameOp::Rename(from, to))
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.step()?;
        if world.file(path).is_err() {
            return Ok(());
        }
        let (folder, name) = split(path);
        world.name(&folder, NameOp::Unlink(name))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.step()?;
        let folder = world.folders.get_mut(path).ok_or_else(absent)?;
        folder.durable = folder.now.clone();
        folder.pending.clear();
        Ok(())
    }

    fn sync_all(&self, _: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.step()?;
        for inode in &mut world.inodes {
            inode.durable = inode.now.clone();
            inode.pending.clear();
        }
        for folder in world.folders.values_mut() {
            folder.durable = folder.now.clone();
            folder.pending.clear();
        }
        Ok(())
    }

    fn space(&self, _: &Path) -> io::Result<(u64, u64)> {
        Ok((1 << 30, if self.world().is_full { 0 } else { 1 << 30 }))
    }

    fn database_synced(&self, path: &Path) {
        let world = &mut *self.world();
        match &mut world.database {
            Some(database) => database.note(),
            None => world.database = Some(Database::new(path)),
        }
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    index: usize,
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let world = self.disk.world();
        let bytes = world.inodes[self.index].now.get(offset as usize..).unwrap_or_default();
        let read = bytes.len().min(buffer.len());
        buffer[..read].copy_from_slice(&bytes[..read]);
        Ok(read)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let mut world = self.disk.world();
        world.check_full(self.index, offset + data.len() as u64)?;
        world.change(self.index, FileOp::Write(offset, data.to_vec()))
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.disk.world();
        world.step()?;
        if std::mem::take(&mut world.fail_sync) {
            return Err(io::Error::from_raw_os_error(5));
        }
        let inode = &mut world.inodes[self.index];
        inode.durable = inode.now.clone();
        inode.pending.clear();
        Ok(())
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.disk.world().change(self.index, FileOp::Truncate(length))
    }

    fn allocate(&self, offset: u64, length: u64, grow: bool) -> io::Result<()> {
        let mut world = self.disk.world();
        world.check_full(self.index, offset + length)?;
        if grow { world.change(self.index, FileOp::Grow(offset + length)) } else { Ok(()) }
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        self.disk.world().change(self.index, FileOp::Punch(offset, length))
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.world().inodes[self.index].now.len() as u64)
    }

    fn used(&self) -> io::Result<u64> {
        self.length()
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        Ok((offset < self.length()?).then_some(offset))
    }

    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        Ok(offset.max(self.length()?))
    }
}
