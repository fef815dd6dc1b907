//! What a power cut leaves of a database, whose files are real ones.
//!
//! `SQLite` syncs its write-ahead log before a checkpoint, and the database after it; between two checkpoints nothing is synced.
//! So both files as they are after a checkpoint are durable, and of what the write-ahead log gains later any prefix may survive.

use std::fs;
use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::Dice;

/// Where the salts lie in a write-ahead log's header; they change whenever it is started over.
const SALTS: Range<usize> = 16..24;

/// A database and what is durable of it.
#[derive(Debug)]
pub(super) struct Database {
    path: PathBuf,
    main: Vec<u8>,
    /// None: there was no file.
    wal: Option<Vec<u8>>,
}

impl Database {
    /// The database as it is now is durable.
    pub(super) fn new(path: &Path) -> Self {
        let mut database = Self { path: path.to_path_buf(), main: Vec::new(), wal: None };
        database.note();
        database
    }

    /// The database as it has become is durable.
    pub(super) fn note(&mut self) {
        // In place: fresh memory for some hundred kilobytes each time is what a simulation would spend its time on.
        self.main.clear();
        read_to_end(&self.path, &mut self.main);
        let mut wal = self.wal.take().unwrap_or_default();
        wal.clear();
        self.wal = read_to_end(&beside(&self.path, "-wal"), &mut wal).then_some(wal);
    }

    /// The power goes.
    pub(super) fn cut_power(&mut self, dice: &mut Dice) {
        let wal = beside(&self.path, "-wal");
        if dice.one_in(2) {
            fs::write(&self.path, &self.main).unwrap();
            match &self.wal {
                Some(bytes) => fs::write(&wal, bytes).unwrap(),
                None => drop(fs::remove_file(&wal)),
            }
        } else if let Ok(now) = fs::read(&wal) {
            let kept = self.durable_prefix(&now);
            let cut = kept as u64 + dice.below((now.len() - kept) as u64 + 1);
            fs::OpenOptions::new().write(true).open(&wal).unwrap().set_len(cut).unwrap();
        }
        // the index of the write-ahead log is memory that processes share
        let _ = fs::remove_file(beside(&self.path, "-shm"));
        self.note();
    }

    /// How much of the write-ahead log's file a power cut cannot take: what was synced, unless the log was started over since:
    /// none of the frames that followed was synced.
    fn durable_prefix(&self, now: &[u8]) -> usize {
        let synced = self.wal.as_deref().unwrap_or_default();
        let salts = |bytes: &[u8]| bytes.get(SALTS).map(<[u8]>::to_vec);
        let is_same = salts(now).is_some() && salts(now) == salts(synced);
        if is_same { synced.len().min(now.len()) } else { 0 }
    }
}

/// Appends what a file holds; false if there is no such file.
fn read_to_end(path: &Path, bytes: &mut Vec<u8>) -> bool {
    let Ok(mut file) = fs::File::open(path) else { return false };
    file.read_to_end(bytes).unwrap();
    true
}

/// The file whose name is the database's and this ending.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
