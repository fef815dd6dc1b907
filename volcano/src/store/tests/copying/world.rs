//! A store that becomes a copy of another one's slice.

use std::path::{Path, PathBuf};
use std::time::Duration;

use magma_common::key::KeyRange;
use magma_common::topology::Position;

use super::super::super::simulated::{Dice, SimDisk};
use super::super::super::{Imported, Inside, Opened, Rewound, Store, StoreError, SyncBodies};
use super::super::making::{SLICE, open_sim, small};
use super::source::Source;
use crate::missing::Missing;
use crate::node::message::SentRecord;

/// The copy, on a disk that can lose what was not synced.
pub(super) struct Follower {
    pub(super) store: Option<Store>,
    pub(super) disk: SimDisk,
    home: PathBuf,
    boot: u64,
    now: Duration,
    /// The last record that was on disk with all bodies.
    pub(super) safe: Position,
}

impl Follower {
    pub(super) fn new(home: &Path) -> Self {
        let disk = SimDisk::new(home);
        let (store, _) = open_sim(home, &disk, small(true, "0")).unwrap();
        let safe = Position::default();
        Self { store: Some(store), disk, home: home.to_path_buf(), boot: 0, now: Duration::ZERO, safe }
    }

    pub(super) fn store(&mut self) -> &mut Store {
        self.store.as_mut().unwrap()
    }

    pub(super) fn position(&self) -> Position {
        self.store.as_ref().and_then(|store| store.position(SLICE)).unwrap_or_default()
    }

    /// Begins anew where the source stands.
    pub(super) fn place(&mut self, source: &Source) -> Result<(), StoreError> {
        let (position, history) = source.standing();
        self.store().place(SLICE, KeyRange::ALL, position, &history, &[])?;
        self.store().flush()
    }

    pub(super) fn receive(&mut self, sent: &SentRecord) -> Result<(), StoreError> {
        self.store().receive(&sent.record, &sent.appended)?;
        self.store().flush()
    }

    /// Upkeep, with a job if there is one.
    pub(super) fn maintain(&mut self, dice: &mut Dice) -> Result<(), StoreError> {
        self.now += Duration::from_millis(dice.below(3000));
        let now = self.now;
        if let Some(job) = self.store().maintain(now)?.job {
            let done = job.run();
            self.store().finish_sync(done)?;
        }
        Ok(())
    }

    /// Upkeep until nothing that was copied can be lost.
    pub(super) fn settle(&mut self, dice: &mut Dice) {
        let mut steps = 0;
        while !self.store().is_complete(SLICE) {
            self.maintain(dice).unwrap();
            steps += 1;
            assert!(steps < 100, "it does not come to an end");
        }
    }

    /// Makes records of its own.
    pub(super) fn go_astray(&mut self, seed: u64) {
        let mut alone = Source::new(self.store.take().unwrap(), seed + 1_000_000);
        (0..20).for_each(|_| drop(alone.act()));
        self.store = Some(alone.store);
    }

    pub(super) fn sync(&mut self) -> Result<(), StoreError> {
        let position = self.store().position(SLICE).unwrap_or_default();
        self.store().sync_now(SyncBodies::All)?;
        self.safe = position;
        Ok(())
    }

    /// The process dies; with `power` the machine, too. The copy comes back where nothing of it can have been lost.
    pub(super) fn crash(&mut self, power: Option<&mut Dice>) {
        let lost = power.is_some();
        drop(self.store.take());
        self.disk.revive();
        if let Some(dice) = power {
            self.disk.cut_power(dice);
            self.boot += 1;
        }
        let (store, _) = self.open();
        self.store = Some(store);
        if lost {
            self.go_back();
        }
    }

    fn open(&self) -> (Store, Opened) {
        open_sim(&self.home, &self.disk, small(false, &self.boot.to_string())).unwrap()
    }

    fn go_back(&mut self) {
        let safe = self.safe;
        let Some(position) = self.store().position(SLICE) else { return };
        if safe < position {
            let rewound = self.store().rewind(SLICE, safe).unwrap();
            assert!(matches!(rewound, Rewound::Done | Rewound::NotInLog));
            if rewound == Rewound::NotInLog {
                self.safe = Position::default();
                self.store().place(SLICE, KeyRange::ALL, Position::default(), &[], &[]).unwrap();
            }
        }
    }
}

/// Copying, as a primary would drive it.
#[derive(Default)]
pub(super) struct Driver {
    /// What the copy lacks as far as the primary has heard; none before it has asked.
    missing: Option<Missing>,
    inside: Option<Inside>,
    /// Tells which answers are lost.
    losses: Option<Dice>,
}

impl Driver {
    pub(super) fn with_losses(losses: Dice) -> Self {
        Self { losses: Some(losses), ..Self::default() }
    }

    /// Sends one part. The copy stands where the source does. Whether there was one to send.
    pub(super) fn part(
        &mut self,
        source: &Source,
        follower: &mut Follower,
        budget: usize,
    ) -> Result<bool, StoreError> {
        let store = follower.store();
        let missing = self.missing.get_or_insert_with(|| store.missing(SLICE).clone());
        let Some(&within) = missing.ranges().first() else { return Ok(false) };
        let (part, inside) = source.store.export(SLICE, within, self.inside.as_ref(), budget).unwrap();
        let imported = store.import(SLICE, &part)?;
        store.flush()?;
        if self.losses.as_mut().is_some_and(|dice| dice.one_in(4)) {
            return Ok(true);
        }
        match imported {
            Imported::Done => {
                self.inside = inside;
                if part.last {
                    missing.remove(part.range);
                }
            }
            Imported::Later => {}
            Imported::OutOfPlace => (self.missing, self.inside) = (None, None),
        }
        Ok(true)
    }
}
