//! Operations through a mounted tree, with the system calls of an ordinary program.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path as FsPath, PathBuf};

use rustix::fs::{AtFlags, CWD, FallocateFlags, RenameFlags, XattrFlags};
use rustix::io::Errno;

use crate::operation::{Attributes, How, Operation, Outcome, Path, SLOTS, Shown, Tree, pattern};

/// A tree below one directory of a mounted file system. Run it with umask 0.
pub struct ThroughFiles {
    root: PathBuf,
    slots: [Option<File>; SLOTS],
}

impl ThroughFiles {
    /// `root` is the directory that paths start from.
    pub fn new(root: PathBuf) -> Self {
        Self { root, slots: [const { None }; SLOTS] }
    }

    fn path(&self, path: &Path) -> PathBuf {
        self.root.join(path.join("/"))
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(self.path(path))
    }

    fn slot(&self, slot: usize) -> Result<&File, Errno> {
        self.slots[slot].as_ref().ok_or(Errno::BADF)
    }

    fn make(&self, operation: &Operation) -> io::Result<Shown> {
        match operation {
            Operation::Create { path, mode, exclusive } => {
                let mut options = OpenOptions::new();
                options.read(true).write(true).create(true).create_new(*exclusive).mode(*mode);
                options.open(self.path(path))?;
            }
            Operation::Mkdir { path, mode } => {
                rustix::fs::mkdir(self.path(path), rustix::fs::Mode::from_raw_mode(mode & 0o1777))?;
            }
            Operation::Symlink { path, target } => std::os::unix::fs::symlink(target, self.path(path))?,
            Operation::Link { from, to } => {
                rustix::fs::linkat(CWD, self.path(from), CWD, self.path(to), AtFlags::empty())?;
            }
            Operation::Unlink { path } => rustix::fs::unlink(self.path(path))?,
            Operation::Rmdir { path } => rustix::fs::rmdir(self.path(path))?,
            Operation::Rename { from, to, how } => {
                let flags = match how {
                    How::Replace => RenameFlags::empty(),
                    How::NoReplace => RenameFlags::NOREPLACE,
                    How::Exchange => RenameFlags::EXCHANGE,
                };
                rustix::fs::renameat_with(CWD, self.path(from), CWD, self.path(to), flags)?;
            }
            other => unreachable!("{other:?} makes nothing"),
        }
        Ok(Shown::Done)
    }

    fn data(&mut self, operation: &Operation) -> io::Result<Shown> {
        match operation {
            Operation::Write { path, offset, length, seed } => {
                self.open(path)?.write_all_at(&pattern(*seed, *offset, *length), *offset)?;
            }
            Operation::Append { path, length, seed } => {
                let mut file = OpenOptions::new().append(true).open(self.path(path))?;
                let end = file.metadata()?.len();
                io::Write::write_all(&mut file, &pattern(*seed, end, *length))?;
            }
            Operation::Read { path, offset, length } => return read(&self.open(path)?, *offset, *length),
            Operation::Truncate { path, size } => self.open(path)?.set_len(*size)?,
            Operation::Punch { path, offset, length } => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(self.open(path)?, flags, *offset, *length)?;
            }
            Operation::Fsync { path } => self.open(path)?.sync_all()?,
            Operation::Open { path, slot } => {
                self.slots[*slot] = None;
                self.slots[*slot] = Some(self.open(path)?);
            }
            Operation::Close { slot } => self.slots[*slot] = None,
            Operation::WriteOpen { slot, offset, length, seed } => {
                self.slot(*slot)?.write_all_at(&pattern(*seed, *offset, *length), *offset)?;
            }
            Operation::ReadOpen { slot, offset, length } => {
                return read(self.slot(*slot)?, *offset, *length);
            }
            other => unreachable!("{other:?} is not about data"),
        }
        Ok(Shown::Done)
    }

    fn attributes(&self, operation: &Operation) -> io::Result<Shown> {
        match operation {
            Operation::Chmod { path, mode } => {
                fs::set_permissions(self.path(path), Permissions::from_mode(*mode))?;
                Ok(Shown::Done)
            }
            Operation::SetXattr { path, name, value } => {
                rustix::fs::lsetxattr(self.path(path), *name, value, XattrFlags::empty())?;
                Ok(Shown::Done)
            }
            Operation::GetXattr { path, name } => {
                let mut value = vec![0; 256];
                let length = rustix::fs::lgetxattr(self.path(path), *name, &mut value[..])?;
                value.truncate(length);
                Ok(Shown::Bytes(value))
            }
            Operation::RemoveXattr { path, name } => {
                rustix::fs::lremovexattr(self.path(path), *name)?;
                Ok(Shown::Done)
            }
            Operation::Stat { path } => attributes(&self.path(path)),
            Operation::Readlink { path } => {
                Ok(Shown::Bytes(fs::read_link(self.path(path))?.into_os_string().into_encoded_bytes()))
            }
            Operation::List { path } => {
                let entries = fs::read_dir(self.path(path))?;
                let names: io::Result<Vec<String>> =
                    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect();
                let mut names = names?;
                names.sort();
                Ok(Shown::Names(names))
            }
            other => unreachable!("{other:?} is not about attributes"),
        }
    }
}

fn read(file: &File, offset: u64, length: usize) -> io::Result<Shown> {
    let mut data = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut data[filled..], offset + filled as u64)? {
            0 => break,
            n => filled += n,
        }
    }
    data.truncate(filled);
    Ok(Shown::Bytes(data))
}

fn attributes(path: &FsPath) -> io::Result<Shown> {
    let meta = fs::symlink_metadata(path)?;
    let kind = match meta.file_type() {
        kind if kind.is_dir() => 'd',
        kind if kind.is_symlink() => 'l',
        _ => 'f',
    };
    let size = if kind == 'd' { 0 } else { meta.size() };
    let mode = meta.mode() & 0o7777;
    Ok(Shown::Attributes(Attributes { kind, mode, nlink: meta.nlink() as u32, size }))
}

impl Tree for ThroughFiles {
    fn apply(&mut self, operation: &Operation) -> Outcome {
        let outcome = match operation {
            Operation::Create { .. }
            | Operation::Mkdir { .. }
            | Operation::Symlink { .. }
            | Operation::Link { .. }
            | Operation::Unlink { .. }
            | Operation::Rmdir { .. }
            | Operation::Rename { .. } => self.make(operation),
            Operation::Chmod { .. }
            | Operation::SetXattr { .. }
            | Operation::GetXattr { .. }
            | Operation::RemoveXattr { .. }
            | Operation::Stat { .. }
            | Operation::Readlink { .. }
            | Operation::List { .. } => self.attributes(operation),
            _ => self.data(operation),
        };
        outcome.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }
}
