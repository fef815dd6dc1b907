//! After an unclean stop: removing the files of bodies that no record mentions.
//!
//! Bytes are written to a body's file before the record that says so; a crash in between leaves a file that nobody knows. So does
//! one between the removal of a body's row and that of its file. They cost only space, so they are looked for bit by bit.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use super::Store;
use super::error::StoreError;
use super::log::Lsn;
use crate::rows::BodyId;

/// Folders still to be looked at.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    started: bool,
    outer: VecDeque<PathBuf>,
    inner: VecDeque<PathBuf>,
}

impl Store {
    /// Looks at one folder. Whether there are more.
    pub(super) fn sweep_step(&mut self) -> Result<bool, StoreError> {
        let Some(sweep) = &mut self.upkeep.sweep else { return Ok(false) };
        let root = self.bodies.get_mut().root().to_path_buf();
        let subfolders = |folder: PathBuf| -> Result<VecDeque<PathBuf>, StoreError> {
            let names = self.disk.list(&folder).map_err(|error| StoreError::file(&folder, error))?;
            Ok(names.into_iter().filter(|name| name.len() == 2).map(|name| folder.join(name)).collect())
        };
        if !sweep.started {
            sweep.started = true;
            sweep.outer = subfolders(root)?;
        } else if let Some(folder) = sweep.inner.pop_front() {
            self.sweep_folder(&folder)?;
        } else if let Some(folder) = sweep.outer.pop_front() {
            sweep.inner = subfolders(folder)?;
        } else {
            self.upkeep.sweep = None;
            self.meta.update(|meta| meta.sweep = false)?;
            return Ok(false);
        }
        Ok(true)
    }

    fn sweep_folder(&mut self, folder: &Path) -> Result<(), StoreError> {
        let names = self.disk.list(folder).map_err(|error| StoreError::file(folder, error))?;
        for name in names {
            let number = |hex| u64::from_str_radix(hex, 16);
            let (body, born) = name.split_once('-').unwrap_or((&name, "0"));
            let (Ok(body), Ok(born)) = (number(body), number(born)) else { continue };
            let (body, born, path) = (BodyId(body), Lsn(born), folder.join(&name));
            if self.bodies.get_mut().path(body, born) != path {
                continue;
            }
            // between two calls no write waits for its record, so a body without a row has none to come
            if !self.db.knows_body(body, born)? {
                self.bodies.get_mut().forget(body, born);
                self.disk.unlink(&path).map_err(|error| StoreError::file(&path, error))?;
                tracing::info!(target: "garbage", file = %path.display(), "removed a body that no record mentions");
            }
        }
        Ok(())
    }
}
