//! What is to be synced so that bodies are durable, and up to where of the log they are.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::Bodies;
use super::state::BodyState;
use crate::rows::BodyId;
use crate::store::disk::SyncedFile;
use crate::store::log::Lsn;

/// A body to be synced.
#[derive(Clone, Debug)]
pub(in crate::store) struct ToSync {
    body: BodyId,
    born: Lsn,
    pub(in crate::store) file: Option<Arc<SyncedFile>>,
    /// Where its name lies, if that may not be durable.
    pub(in crate::store) folder: Option<PathBuf>,
    version: u64,
}

impl Bodies {
    pub(super) fn unsynced(&self) -> impl Iterator<Item = (&BodyId, &BodyState)> {
        self.states.iter().filter(|(_, state)| state.is_unsynced())
    }

    /// The last record up to which all changes are in the files and synced there; `last` if nothing waits.
    pub(in crate::store) fn durable_through(&self, last: Lsn) -> Lsn {
        let waiting = self.pending.front().map(|pending| pending.lsn);
        let since =
            |state: &BodyState| [state.overwritten_since, state.appended_since].into_iter().flatten().min();
        let unsynced = self.states.values().filter_map(since).min();
        waiting.into_iter().chain(unsynced).min().map_or(last, |first| Lsn(first.0.saturating_sub(1)))
    }

    /// What is to be synced so that these bodies (all without a choice) are durable, and the folders made for them.
    pub(in crate::store) fn to_sync(&self, chosen: Option<&[BodyId]>) -> (Vec<ToSync>, Vec<PathBuf>) {
        let entry = |(&body, state): (&BodyId, &BodyState)| ToSync {
            body,
            born: state.born,
            file: state.file.clone(),
            folder: state.name_unsynced.then(|| self.folder(body)),
            version: state.version,
        };
        let bodies: Vec<_> = match chosen {
            None => self.unsynced().map(entry).collect(),
            Some(chosen) => {
                let states = chosen.iter().filter_map(|body| self.states.get_key_value(body));
                states.filter(|(_, state)| state.is_unsynced()).map(entry).collect()
            }
        };
        let named = bodies.iter().any(|body| body.folder.is_some());
        let folders = if named { self.new_folders.iter().cloned().collect() } else { Vec::new() };
        (bodies, folders)
    }

    /// Syncs the whole file system that the bodies lie on.
    pub(in crate::store) fn sync_all(&self) -> io::Result<()> {
        self.disk.sync_all(&self.root)
    }

    /// What [`to_sync`](Self::to_sync) gave out has been synced; `settled` is as it was then.
    pub(in crate::store) fn synced(&mut self, bodies: &[ToSync], folders: &[PathBuf], settled: Lsn) {
        for done in bodies {
            let state = self.states.get_mut(&done.body).filter(|state| state.born == done.born);
            let Some(state) = state else { continue };
            state.synced = state.synced.max(done.version);
            state.name_unsynced &= done.folder.is_none();
            if state.version <= state.synced {
                state.appended_since = None;
            }
            // changes go to files in the order of the log, so all up to `settled` were in this one
            if state.overwritten_since.is_some_and(|since| since <= settled) {
                state.overwritten_since = (state.version > state.synced).then(|| Lsn(settled.0 + 1));
            }
        }
        for folder in folders {
            self.new_folders.remove(folder);
        }
    }
}
