//! Random records, with the process killed and the power cut at random moments, compared with a model.
//!
//! What must hold: after a death of the process every flushed record is there, and every byte; after a power cut every stable
//! record is there, and every byte of the bodies that were synced with it; the state is always exactly that after some record.

use std::path::PathBuf;
use std::time::Duration;

use magma_common::attr::Kind;
use magma_common::proto::SessionId;
use magma_common::proto::operation::{LockFamily, LockKind, LockOwner, Outcome};
use magma_common::topology::Seq;

use super::super::simulated::{Dice, SimDisk};
use super::super::{Opened, Store, StoreError, SyncBodies};
use super::making::{body_change, entry, flare, name, op, open_sim, reference, small, time};
use super::model::Model;
use crate::record::{BodyChange, Change, Record};
use crate::rows::{BodyId, Content, LockRow, SessionRow};

/// Flares that the records are about; number 0 is a directory.
const FLARES: u64 = 6;

/// A record and the bytes of its appends.
type Step = (Record, Vec<Vec<u8>>);

struct Run {
    what: String,
    dice: Dice,
    dir: tempfile::TempDir,
    disk: SimDisk,
    store: Option<Store>,
    /// The state after `base`, and every record since.
    base: Model,
    base_seq: Seq,
    steps: Vec<Step>,
    /// The state now.
    model: Model,
    flushed: Seq,
    stable: Seq,
    /// Bodies (or all) synced with the records up to a number, since `base`.
    syncs: Vec<(Option<Vec<BodyId>>, Seq)>,
    boot: u64,
    next_body: u64,
    abandoned: bool,
    now: Duration,
}

impl Run {
    fn new(seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("store");
        let disk = SimDisk::new(&home);
        let (store, opened) = open_sim(&home, &disk, small(true, "0")).unwrap();
        assert!(opened.created && opened.clean);
        Self {
            what: format!("seed {seed}"),
            dice: Dice::new(seed),
            dir,
            disk,
            store: Some(store),
            base: Model::default(),
            base_seq: Seq(0),
            steps: Vec::new(),
            model: Model::default(),
            flushed: Seq(0),
            stable: Seq(0),
            syncs: Vec::new(),
            boot: 0,
            next_body: 1,
            abandoned: false,
            now: Duration::ZERO,
        }
    }

    fn home(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn store(&mut self) -> &mut Store {
        self.store.as_mut().unwrap()
    }

    /// One random action. An error means that the process has died.
    fn act(&mut self) -> Result<(), StoreError> {
        match self.dice.below(20) {
            0..12 => self.append()?,
            12 | 13 => {
                self.store().flush()?;
                self.flushed = self.store().last();
            }
            14 => self.sync(Some(Vec::new()))?,
            15 => {
                let bodies: Vec<_> = self.model.bodies.keys().take(2).copied().collect();
                self.sync(Some(bodies))?;
            }
            16 => self.sync(None)?,
            _ => self.maintain()?,
        }
        self.stable = self.stable.max(self.store().stable());
        self.flushed = self.flushed.max(self.store().flushed());
        Ok(())
    }

    fn sync(&mut self, bodies: Option<Vec<BodyId>>) -> Result<(), StoreError> {
        let chosen = match &bodies {
            None => SyncBodies::All,
            Some(bodies) if bodies.is_empty() => SyncBodies::None,
            Some(bodies) => SyncBodies::These(bodies.clone()),
        };
        let job = self.store().begin_sync(&chosen)?;
        let through = job.through();
        // records that come while the sync runs are not covered by it
        for _ in 0..self.dice.below(3) {
            self.append()?;
        }
        let done = job.run();
        for _ in 0..self.dice.below(3) {
            self.append()?;
        }
        self.store().finish_sync(done)?;
        self.stable = self.stable.max(through);
        self.model.synced(bodies.as_deref(), through);
        self.syncs.push((bodies, through));
        Ok(())
    }

    fn maintain(&mut self) -> Result<(), StoreError> {
        self.now += Duration::from_millis(self.dice.below(10_000));
        let now = self.now;
        if let Some(job) = self.store().maintain(now)?.job {
            for _ in 0..self.dice.below(3) {
                self.append()?;
            }
            let done = job.run();
            self.store().finish_sync(done)?;
        }
        Ok(())
    }

    fn append(&mut self) -> Result<(), StoreError> {
        let mut appended = Vec::new();
        let mut changes = Vec::new();
        self.abandoned = false;
        for _ in 0..=self.dice.below(3) {
            // after a write whose change does not come, the next thing is the record
            if !self.abandoned {
                self.change(&mut changes, &mut appended)?;
            }
        }
        let seq = Seq(self.store().last().0 + 1);
        let outcome = Outcome { id: op(seq.0), opcode: 7, reply: vec![seq.0 as u8; 3].into() };
        let mut record = super::making::record(self.store(), changes);
        record.outcome = self.dice.one_in(2).then_some(outcome);
        let appending = self.store().append(&record);
        // it was taken even if the process died in it
        if appending.is_ok() {
            self.model.apply(&record, &appended);
            self.steps.push((record, appended));
        }
        appending
    }

    /// Adds one random change that fits the state (the model's, as the record's earlier changes touch other flares or other kinds of rows).
    fn change(&mut self, changes: &mut Vec<Change>, appended: &mut Vec<Vec<u8>>) -> Result<(), StoreError> {
        let number = self.dice.below(FLARES);
        let kind = if number == 0 { Kind::Directory } else { Kind::File };
        let mut row = flare(number, kind);
        let key = row.key();
        let known = self.model.flares.get(&key).cloned();
        let touched = |change: &Change| match change {
            Change::PutFlare(row) => row.key() == key,
            Change::DeleteFlare(flare) => *flare == key,
            Change::Body { flare, .. } => flare.key == key,
            _ => false,
        };
        if changes.iter().any(touched) {
            return Ok(());
        }
        let Some(known) = known else {
            row.change = self.dice.next();
            changes.push(Change::PutFlare(row));
            return Ok(());
        };
        let random = self.dice.below(4);
        let made = match self.dice.below(16) {
            0 if number != 0 => {
                if let Content::Body { body, .. } = known.content {
                    changes.push(body_change(body, &known, BodyChange::Drop));
                }
                Change::DeleteFlare(key)
            }
            1 => Change::PutInline { flare: key, data: vec![number as u8; random as usize * 100].into() },
            2 if number == 0 => {
                Change::PutEntry { dir: key, entry: entry(random, &flare(1, Kind::File), 3 + random) }
            }
            3 => Change::DeleteEntry { dir: key, name: name(random) },
            4 => {
                Change::PutReference { flare: key, reference: reference(random, &flare(0, Kind::Directory)) }
            }
            5 => {
                let made_by = reference(random, &row).made_by;
                Change::DeleteReference {
                    flare: key,
                    parent: flare(0, kind).key(),
                    name: name(random),
                    made_by,
                }
            }
            6 => Change::PutXattr { flare: key, name: name(random), value: vec![random as u8; 30].into() },
            7 => Change::DeleteXattr { flare: key, name: name(random) },
            8 => Change::PutLocks { flare: key, locks: locks(random) },
            9 => {
                let session =
                    SessionRow { id: SessionId(random), client: "client".into(), opened: time(random) };
                Change::PutSession(session)
            }
            10 => Change::EndSession(SessionId(random)),
            _ if number != 0 => return self.change_body(known, changes, appended),
            _ => Change::PutFlare(row),
        };
        changes.push(made);
        Ok(())
    }

    fn change_body(
        &mut self,
        mut row: crate::rows::FlareRow,
        changes: &mut Vec<Change>,
        appended: &mut Vec<Vec<u8>>,
    ) -> Result<(), StoreError> {
        let fill = self.dice.next() as u8 | 1;
        let Content::Body { body, high } = row.content else {
            self.next_body += 1;
            row.content = Content::Body {
                body: BodyId(self.next_body << 60 | self.next_body << 50 | self.next_body),
                high: 0,
            };
            changes.push(Change::PutFlare(row));
            return Ok(());
        };
        if high > 0 && self.dice.one_in(2) {
            let offset = self.dice.below(high);
            let length = 1 + self.dice.below((high - offset).min(5000));
            let change = match self.dice.below(5) {
                0 => BodyChange::Zero { offset, length: (length * 10).min(high - offset) },
                1 => BodyChange::Reserve { offset, length },
                _ => BodyChange::Overwrite { offset, data: vec![fill; length as usize].into() },
            };
            changes.push(body_change(body, &row, change));
            return Ok(());
        }
        if self.dice.one_in(8) {
            changes.push(body_change(body, &row, BodyChange::Drop));
            row.content = Content::Inline;
            changes.push(Change::PutFlare(row));
            return Ok(());
        }
        let offset = high + if self.dice.one_in(3) { self.dice.below(70_000) } else { 0 };
        let data = vec![fill; 1 + self.dice.below(3000) as usize];
        let length = data.len() as u64;
        self.store().write_append(body, offset, &data)?;
        if self.dice.one_in(10) {
            // the change never comes, and what was written is as never written
            self.abandoned = true;
            return Ok(());
        }
        changes.push(body_change(body, &row, BodyChange::Append { offset, length }));
        row.content = Content::Body { body, high: offset + length };
        changes.push(Change::PutFlare(row));
        appended.push(data);
        Ok(())
    }

    /// The process dies; with `power` the machine too.
    fn crash(&mut self, power: bool) {
        let what = format!("{}, boot {}, power {power}", self.what, self.boot);
        drop(self.store.take());
        self.disk.revive();
        if power {
            self.disk.cut_power(&mut self.dice);
            self.boot += 1;
        }
        let boot = self.boot.to_string();
        let opened = open_sim(&self.home(), &self.disk, small(false, &boot));
        let (store, opened) = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
        self.store = Some(store);
        let needed = if power { self.stable } else { self.flushed };
        assert!(opened.last >= needed, "{what}: {:?} was safe, the log ends at {:?}", needed, opened.last);
        assert!(!opened.clean && opened.same_boot != power, "{what}");
        self.rebuild(opened.last);
        let store = self.store.as_ref().unwrap();
        if power {
            self.model.adopt_lost_bytes(store, &what);
        }
        self.model.assert_equals(store, &what);
        self.check_outcomes(&opened, &what);
        self.base = self.model.clone();
        self.base_seq = opened.last;
        self.steps.clear();
        self.syncs.clear();
        (self.flushed, self.stable) = (opened.last, opened.last);
    }

    /// The model as it was after a record.
    fn rebuild(&mut self, last: Seq) {
        let mut model = self.base.clone();
        for (record, appended) in self.steps.iter().filter(|(record, _)| record.seq <= last) {
            model.apply(record, appended);
            for (bodies, through) in self.syncs.iter().filter(|(_, through)| *through == record.seq) {
                model.synced(bodies.as_deref(), *through);
            }
        }
        for (bodies, through) in self.syncs.iter().filter(|(_, through)| *through <= last) {
            model.synced(bodies.as_deref(), *through);
        }
        self.model = model;
    }

    /// The outcomes of the records since the last opening are all still in the log.
    fn check_outcomes(&self, opened: &Opened, what: &str) {
        let expected: Vec<_> =
            self.steps.iter().map(|(record, _)| record).filter(|r| r.seq <= opened.last).collect();
        let expected: Vec<_> = expected
            .iter()
            .filter_map(|r| r.outcome.clone().map(|outcome| (r.seq, r.time, outcome)))
            .collect();
        let found: Vec<_> = opened.outcomes.iter().map(|o| (o.seq, o.time, o.outcome.clone())).collect();
        assert!(found.ends_with(&expected), "{what}: the ledger's outcomes");
    }
}

fn locks(count: u64) -> Vec<LockRow> {
    let lock = |number| LockRow {
        family: LockFamily::Flock,
        session: SessionId(number),
        owner: LockOwner { owner: u64::MAX, pid: 7 },
        kind: LockKind::Exclusive,
        start: number,
        end: u64::MAX,
    };
    (0..count).map(lock).collect()
}

/// Some crashes in one store's life, each after some random actions or in the middle of one.
fn crashes(seed: u64, power: impl Fn(&mut Dice) -> bool) {
    let mut run = Run::new(seed);
    for _ in 0..4 {
        let actions = run.dice.below(60);
        if run.dice.one_in(2) {
            let n = 1 + run.dice.below(actions + 1);
            run.disk.kill_after(n);
        }
        for _ in 0..actions {
            if run.act().is_err() {
                break;
            }
        }
        let power = power(&mut run.dice);
        run.crash(power);
    }
}

#[test]
fn everything_flushed_survives_the_death_of_the_process() {
    (0..100).for_each(|seed| crashes(seed, |_| false));
}

#[test]
fn everything_stable_survives_a_power_cut() {
    (1000..1100).for_each(|seed| crashes(seed, |_| true));
}

#[test]
fn deaths_and_power_cuts_in_turn_lose_nothing_that_was_safe() {
    (2000..2100).for_each(|seed| crashes(seed, |dice| dice.one_in(2)));
}
