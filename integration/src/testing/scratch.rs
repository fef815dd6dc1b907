//! Folders that go away when all went well and stay, named, when something failed.

use std::path::{Path, PathBuf};

use crate::error::{Doing, Result};

/// A folder of one test.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    keep: bool,
}

impl Scratch {
    /// Makes `parent/name`, empty. What a failed run left there before is removed.
    pub(crate) fn fresh(parent: &Path, name: &str) -> Result<Self> {
        let path = parent.join(name);
        if path.exists() {
            std::fs::remove_dir_all(&path).doing(|| format!("cannot remove {}", path.display()))?;
        }
        std::fs::create_dir_all(&path).doing(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path, keep: true })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a folder inside.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        std::fs::create_dir_all(&path).doing(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    /// All went well: nothing of it is needed any more.
    pub(crate) fn discard(mut self) {
        self.keep = false;
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            eprintln!("cannot remove {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Scratch;

    #[test]
    fn a_folder_stays_until_it_is_discarded() {
        let parent = tempfile::tempdir().unwrap();
        let kept = Scratch::fresh(parent.path(), "kept").unwrap();
        let path = kept.path().to_owned();
        drop(kept);
        assert!(path.exists());
        Scratch::fresh(parent.path(), "kept").unwrap().discard();
        assert!(!path.exists());
    }
}
