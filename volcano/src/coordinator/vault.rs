//! The consensus' state in two files of the volcano's folder.
//!
//! They are written in turn, so a crash in the middle of one leaves the other. Their space is reserved when the volcano starts, or
//! else when the first state is saved: a vote must be kept on a full disk too, or a network would have lost its coordinator for good when the space is back.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Unsaved, Vault};
use crate::store::{Disk, DiskFile, is_full};

/// The files' names.
const NAMES: [&str; 2] = ["consensus.a", "consensus.b"];
/// What is reserved for each, in bytes: the topology of fifty volcanos and its latest changes take a tenth of it.
const RESERVED: u64 = 256 << 10;
/// Largest file that is read, in bytes.
const MAX_LEN: u64 = 64 << 20;
/// Number of the state, its length and the checksum of all.
const HEADER_LEN: usize = 20;

/// Keeps the state in two files; the one with the greater number holds.
#[derive(Debug)]
pub struct FileVault {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    /// The number of the last state saved, and whether that is known.
    number: Option<u64>,
}

impl FileVault {
    /// The vault of the volcano in this folder.
    pub fn new(disk: Arc<dyn Disk>, folder: PathBuf) -> Self {
        Self { disk, folder, number: None }
    }

    /// Reserves the space of the files if it is not. A disk that is full at the start of a volcano may not be so when its vote is
    /// asked for, so that this comes to nothing is no error yet.
    pub fn reserve_early(&self) {
        if let Err(error) = self.reserve() {
            tracing::warn!(target: "magma::boot", error = self.named(&error), "no space is reserved for a vote");
        }
    }

    fn write(&mut self, state: &[u8]) -> io::Result<()> {
        let newest = match self.number {
            Some(number) => number,
            None => self.newest()?.map_or(0, |(number, _)| number),
        };
        if newest == 0 {
            self.reserve()?;
        }
        let number = newest + 1;
        let file = self.disk.open(&self.path(number))?;
        let mut bytes = header(number, state).to_vec();
        bytes.extend_from_slice(state);
        file.write_at(&bytes, 0)?;
        file.sync()?;
        self.number = Some(number);
        Ok(())
    }

    /// The states are written in turn, to the file that does not hold the last one.
    fn path(&self, number: u64) -> PathBuf {
        let [even, odd] = NAMES;
        self.folder.join(if number.is_multiple_of(2) { even } else { odd })
    }

    fn reserve(&self) -> io::Result<()> {
        for name in NAMES {
            let file = self.disk.create(&self.folder.join(name))?;
            if file.length()? < RESERVED {
                file.allocate(0, RESERVED, true)?;
                file.sync()?;
            }
        }
        self.disk.sync_dir(&self.folder)
    }

    /// The newest state that is whole, and its number; an error if both files hold something and neither is whole. One alone
    /// may be the very first state, cut short by a crash.
    fn newest(&self) -> io::Result<Option<(u64, Vec<u8>)>> {
        let mut found: Option<(u64, Vec<u8>)> = None;
        let mut damaged = 0;
        for name in NAMES {
            let file = match self.disk.open(&self.folder.join(name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            let bytes = read(&*file)?;
            match parse(&bytes) {
                Some((number, state)) if found.as_ref().is_none_or(|(newest, _)| number > *newest) => {
                    found = Some((number, state.to_vec()));
                }
                Some(_) => {}
                None => damaged += usize::from(bytes.iter().any(|byte| *byte != 0)),
            }
        }
        if damaged == NAMES.len() {
            return Err(io::Error::other("no state in it is whole"));
        }
        Ok(found)
    }

    fn named(&self, error: &io::Error) -> String {
        format!("{}: {error}", self.folder.join("consensus.a, .b").display())
    }
}

impl Vault for FileVault {
    fn save(&mut self, state: &[u8]) -> Result<(), Unsaved> {
        self.write(state).map_err(|error| {
            let of_kind = if is_full(&error) { Unsaved::Full } else { Unsaved::Failed };
            of_kind(self.named(&error))
        })
    }

    fn load(&self) -> Result<Option<Vec<u8>>, String> {
        let newest = self.newest().map_err(|error| self.named(&error))?;
        Ok(newest.map(|(_, state)| state))
    }
}

fn read(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    let length = file.length()?;
    if length > MAX_LEN {
        return Err(io::Error::other("it is too long"));
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

fn header(number: u64, state: &[u8]) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    let (fields, crc) = bytes.split_at_mut(HEADER_LEN - 4);
    let lengths = [number, state.len() as u64].map(u64::to_le_bytes);
    fields.copy_from_slice(lengths.as_flattened());
    crc.copy_from_slice(&crc32c::crc32c_append(crc32c::crc32c(fields), state).to_le_bytes());
    bytes
}

fn parse(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<HEADER_LEN>()?;
    let (fields, _) = head.as_chunks::<8>();
    let mut fields = fields.iter().map(|field| u64::from_le_bytes(*field));
    let (number, length) = (fields.next()?, fields.next()?);
    let state = rest.get(..usize::try_from(length).ok()?)?;
    (number > 0 && header(number, state) == *head).then_some((number, state))
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::store::RealDisk;
    use crate::store::simulated::{Dice, SimDisk};

    #[test]
    fn what_was_saved_last_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let vault = || FileVault::new(Arc::new(RealDisk), folder.path().to_path_buf());
        assert_eq!(vault().load(), Ok(None));
        let mut first = vault();
        first.save(b"a longer first state").unwrap();
        first.save(b"second").unwrap();
        assert_eq!(vault().load(), Ok(Some(b"second".to_vec())));
        vault().save(b"third, by another process").unwrap();
        assert_eq!(vault().load(), Ok(Some(b"third, by another process".to_vec())));
    }

    /// A disk that was full for a while had cost two of three volcanos their votes, and nobody coordinated when it had space again.
    #[test]
    fn a_full_disk_keeps_nobody_from_voting() {
        let folder = tempfile::tempdir().unwrap();
        let disk = SimDisk::new(folder.path());
        let mut vault = FileVault::new(Arc::new(disk.clone()), folder.path().to_path_buf());
        vault.save(b"before").unwrap();
        disk.set_full(true);
        vault.save(&[7; 1000]).unwrap();
        assert_eq!(vault.load(), Ok(Some(vec![7; 1000])));
    }

    /// A volcano that had never voted was to be the only voter when its disk was full. It could not save its first state, and the network
    /// had no coordinator any more.
    #[test]
    fn a_full_disk_keeps_nobody_from_the_first_vote() {
        let folder = tempfile::tempdir().unwrap();
        let disk = SimDisk::new(folder.path());
        let vault = || FileVault::new(Arc::new(disk.clone()), folder.path().to_path_buf());
        vault().reserve_early();
        assert_eq!(vault().load(), Ok(None), "nothing is in it yet");
        disk.set_full(true);
        vault().save(b"first").unwrap();
        vault().save(b"second").unwrap();
        assert_eq!(vault().load(), Ok(Some(b"second".to_vec())));
    }

    #[test]
    fn a_power_cut_leaves_the_last_state_or_the_one_before() {
        for seed in 0..200 {
            let folder = tempfile::tempdir().unwrap();
            let disk = SimDisk::new(folder.path());
            let vault = || FileVault::new(Arc::new(disk.clone()), folder.path().to_path_buf());
            let mut dice = Dice::new(seed);
            let mut writing = vault();
            let mut saved = 0;
            disk.kill_after(8 + dice.below(20));
            while writing.save(&[saved + 1; 3000]).is_ok() {
                saved += 1;
            }
            disk.revive();
            disk.cut_power(&mut dice);
            let loaded = vault().load().unwrap().map_or(0, |state| state[0]);
            assert!(
                loaded == saved || loaded == saved + 1,
                "seed {seed}: {saved} states were saved, {loaded} is there"
            );
        }
    }

    #[test]
    fn damage_to_both_is_an_error_and_not_a_new_volcano() {
        let folder = tempfile::tempdir().unwrap();
        let mut vault = FileVault::new(Arc::new(RealDisk), folder.path().to_path_buf());
        vault.save(b"one").unwrap();
        vault.save(b"two").unwrap();
        for name in NAMES {
            let path = folder.path().join(name);
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[HEADER_LEN] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
        assert!(vault.load().unwrap_err().contains("whole"));
    }
}
