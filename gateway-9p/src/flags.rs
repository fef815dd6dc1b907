//! Linux's open flags in the numbers of 9P2000.L, which are those of x86 on every architecture.

/// The access mode's bits.
const ACCESS_MODE: u32 = 0o3;
const WRITE_ONLY: u32 = 0o1;
const READ_WRITE: u32 = 0o2;
/// `O_CREAT`.
pub const CREATE: u32 = 0o100;
/// `O_EXCL`.
pub const EXCLUSIVE: u32 = 0o200;
/// `O_TRUNC`.
pub const TRUNCATE: u32 = 0o1000;
/// `O_APPEND`. Clients send the offsets of appended data themselves.
pub const APPEND: u32 = 0o2000;
/// `O_DSYNC`.
pub const DSYNC: u32 = 0o10_000;
/// `O_DIRECTORY`.
pub const DIRECTORY: u32 = 0o200_000;
/// `O_SYNC`, without `O_DSYNC`'s bit.
pub const SYNC: u32 = 0o4_000_000;

/// What an open asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenFlags {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) truncate: bool,
    pub(crate) exclusive: bool,
    /// The file must be a directory.
    pub(crate) directory: bool,
    /// Each write is answered when it is on disk.
    pub(crate) stable: bool,
}

impl OpenFlags {
    /// Takes the flags of a Tlopen or Tlcreate; `None` if the access mode is none.
    pub(crate) fn parse(flags: u32) -> Option<Self> {
        let (read, write) = match flags & ACCESS_MODE {
            0 => (true, false),
            WRITE_ONLY => (false, true),
            READ_WRITE => (true, true),
            _ => return None,
        };
        Some(Self {
            read,
            write,
            truncate: flags & TRUNCATE != 0,
            exclusive: flags & EXCLUSIVE != 0,
            directory: flags & DIRECTORY != 0,
            stable: flags & (SYNC | DSYNC) != 0,
        })
    }

    /// Whether opening changes the file or prepares to.
    pub(crate) fn changes(self) -> bool {
        self.write || self.truncate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_taken_in_dotl_numbers() {
        let flags = OpenFlags::parse(READ_WRITE | TRUNCATE | EXCLUSIVE | DSYNC).unwrap();
        assert!(flags.read && flags.write && flags.truncate && flags.exclusive && flags.stable);
        assert!(!flags.directory);
        assert!(!OpenFlags::parse(0o100_000).unwrap().changes());
        assert!(OpenFlags::parse(TRUNCATE).unwrap().changes());
        assert_eq!(OpenFlags::parse(3), None);
    }
}
