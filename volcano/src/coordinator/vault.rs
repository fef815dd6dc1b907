//! The consensus' state in a file of the volcano's folder.

use std::path::PathBuf;
use std::sync::Arc;

use super::Vault;
use crate::store::Disk;

/// The file's name.
const NAME: &str = "consensus";
/// Largest state that is read, in bytes; a topology of fifty volcanos and its latest changes take far less.
const MAX_LEN: u64 = 64 << 20;

/// Keeps the state as one file, replaced as a whole: it is always the old one or the new one.
#[derive(Debug)]
pub struct FileVault {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
}

impl FileVault {
    /// The vault of the volcano in this folder.
    pub fn new(disk: Arc<dyn Disk>, folder: PathBuf) -> Self {
        Self { disk, folder }
    }
}

impl Vault for FileVault {
    fn save(&mut self, state: &[u8]) -> Result<(), String> {
        let (path, new) = (self.folder.join(NAME), self.folder.join(format!("{NAME}.new")));
        let write = || {
            let file = self.disk.create(&new)?;
            file.truncate(0)?;
            file.write_at(state, 0)?;
            file.sync()?;
            self.disk.rename(&new, &path)?;
            self.disk.sync_dir(&self.folder)
        };
        write().map_err(|error: std::io::Error| format!("{}: {error}", path.display()))
    }

    fn load(&self) -> Result<Option<Vec<u8>>, String> {
        let path = self.folder.join(NAME);
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let file = match self.disk.open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(failed)?,
        };
        let length = file.length().map_err(failed)?;
        if length > MAX_LEN {
            return Err(format!("{} is too long", path.display()));
        }
        let mut state = vec![0; usize::try_from(length).unwrap_or(0)];
        let read = file.read_at(&mut state, 0).map_err(failed)?;
        state.truncate(read);
        Ok(Some(state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::store::RealDisk;

    #[test]
    fn what_was_saved_last_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let vault = || FileVault::new(Arc::new(RealDisk), folder.path().to_path_buf());
        assert_eq!(vault().load(), Ok(None));
        vault().save(b"a longer first state").unwrap();
        vault().save(b"second").unwrap();
        assert_eq!(vault().load(), Ok(Some(b"second".to_vec())));
    }
}
