//! Random entries, with the process killed and the power cut at random moments, compared with a model.
//!
//! What must hold: after a death of the process every flushed entry is there, and every byte; after a power cut every stable
//! entry is there, and every byte of the bodies that were synced with it; the state is always exactly that after some entry.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use magma_common::attr::Kind;
use magma_common::key::KeyRange;
use magma_common::proto::SessionId;
use magma_common::proto::operation::{LockFamily, LockKind, LockOwner, Outcome};
use magma_common::topology::Seq;

use super::super::simulated::{Dice, SimDisk};
use super::super::{Lsn, Opened, Rewound, Store, StoreError, SyncBodies};
use super::making::{
    SLICE, begin, body_change, copied, entry, flare, name, op, open_sim, record, reference, small, time,
};
use super::model::Model;
use super::standing::{Standing, outcomes};
use crate::record::{BodyChange, Change, Entry};
use crate::rows::{BodyId, Content, LockRow, SessionRow};

/// Flares that the records are about; number 0 is a directory.
const FLARES: u64 = 6;

/// An entry of the log and the bytes of its appends.
type Step = (Entry, Vec<Bytes>);

struct Run {
    what: String,
    dice: Dice,
    dir: tempfile::TempDir,
    disk: SimDisk,
    store: Option<Store>,
    /// The rows and bytes after the entry `base_lsn`.
    base: Model,
    base_lsn: Lsn,
    /// Every entry of the log.
    steps: Vec<Step>,
    /// The rows and bytes now.
    model: Model,
    flushed: Lsn,
    stable: Lsn,
    /// Bodies (or all) synced with the entries up to a number, since `base_lsn`.
    syncs: Vec<(Option<Vec<BodyId>>, Lsn)>,
    boot: u64,
    next_body: u64,
    abandoned: bool,
    /// The bytes of appends come with the record.
    receiving: bool,
    /// What is to come is no record.
    copying: bool,
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
            base_lsn: Lsn(0),
            steps: Vec::new(),
            model: Model::default(),
            flushed: Lsn(0),
            stable: Lsn(0),
            syncs: Vec::new(),
            boot: 0,
            next_body: 1,
            abandoned: false,
            receiving: false,
            copying: false,
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
        match self.dice.below(24) {
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
            17 => self.rewind()?,
            18 => self.copy()?,
            19 if self.dice.one_in(4) => self.place()?,
            19 | 20 => self.read_log(),
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
        // entries that come while the sync runs are not covered by it
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
        // of a record that comes while something is missing a part is left out; other tests are about that
        self.receiving = self.dice.one_in(2) && self.store().missing(SLICE).is_empty();
        for _ in 0..=self.dice.below(3) {
            // after a write whose change does not come, the next thing is the record
            if !self.abandoned {
                self.change(&mut changes, &mut appended)?;
            }
        }
        let number = self.dice.next();
        let mut record = record(self.store(), changes);
        record.epoch.0 += u64::from(self.dice.one_in(8));
        record.outcome = self.dice.one_in(2).then(|| outcome(number));
        let taken = if self.receiving {
            self.store().receive(&record, &appended)
        } else {
            self.store().append(&record)
        };
        let lsn = taken?;
        self.took(lsn, Entry::Record(record), appended);
        Ok(())
    }

    /// The store has taken an entry, even if the process died in it.
    fn took(&mut self, lsn: Lsn, entry: Entry, appended: Vec<Bytes>) {
        self.model.apply(lsn, &entry, &appended);
        self.steps.push((entry, appended));
        assert_eq!(lsn.0, self.steps.len() as u64, "{}", self.what);
    }

    /// What should be known of the copy.
    fn standing(&self) -> Standing {
        Standing::after(&self.steps.iter().map(|(entry, _)| entry))
    }

    fn rewind(&mut self) -> Result<(), StoreError> {
        let standing = self.standing();
        let positions = standing.positions();
        let back = self.dice.below(30).min(positions.len() as u64 - 1) as usize;
        let to = positions[positions.len() - 1 - back];
        if standing.live.is_empty() {
            return Ok(());
        }
        match self.store().rewind(SLICE, to)? {
            Rewound::Done if back > 0 => {
                let missing = self.store().missing(SLICE).clone();
                let lsn = self.store().last();
                self.took(lsn, Entry::Rewind { slice: SLICE, to, missing }, Vec::new());
            }
            Rewound::Done => {}
            Rewound::NotInLog => {
                let place = standing.place_of(to.seq).unwrap();
                assert!(place < self.store().log.first(), "{}: {to:?} is in the log", self.what);
            }
        }
        self.check_standing();
        Ok(())
    }

    fn place(&mut self) -> Result<(), StoreError> {
        let standing = self.standing();
        let mut position = standing.position();
        position.seq.0 += 1 + self.dice.below(20);
        position.epoch.0 += 1;
        let mut history = standing.history();
        history.push(position);
        let outcomes = vec![(position.seq, outcome(self.dice.next()))];
        let lsn = self.store().place(SLICE, KeyRange::ALL, position, &history, &outcomes)?;
        let entry = Entry::Place { slice: SLICE, range: KeyRange::ALL, position, history, outcomes };
        self.took(lsn, entry, Vec::new());
        self.check_standing();
        Ok(())
    }

    fn copy(&mut self) -> Result<(), StoreError> {
        if self.steps.is_empty() {
            return Ok(());
        }
        let (mut changes, mut appended) = (Vec::new(), Vec::new());
        (self.receiving, self.abandoned, self.copying) = (false, false, true);
        let changed = self.change(&mut changes, &mut appended);
        self.copying = false;
        changed?;
        let one = flare(self.dice.below(FLARES), Kind::File).key().ino();
        let complete = match self.dice.below(3) {
            0 => None,
            1 => KeyRange::new(one, one),
            _ => Some(KeyRange::ALL),
        };
        let lsn = copied(self.store(), &changes, complete)?;
        self.took(lsn, Entry::Copied { slice: SLICE, changes, complete }, appended);
        self.check_standing();
        Ok(())
    }

    fn check_standing(&self) {
        self.standing().assert_equals(self.store.as_ref().unwrap(), &self.what);
    }

    /// Some copies read the log, each from somewhere to its end.
    fn read_log(&mut self) {
        let standing = self.standing();
        for _ in 0..2 {
            let back = self.dice.below(40);
            let mut after = Seq(standing.position().seq.0.saturating_sub(back));
            let max_bytes = 1 << self.dice.below(16);
            while after < standing.position().seq {
                let store = self.store.as_ref().unwrap();
                if !standing.check_log(store, after, max_bytes, &self.what) {
                    break;
                }
                after.0 += 1 + self.dice.below(8);
            }
        }
    }

    /// Adds one random change that fits the state (the model's, as the record's earlier changes touch other flares or other kinds of rows).
    fn change(&mut self, changes: &mut Vec<Change>, appended: &mut Vec<Bytes>) -> Result<(), StoreError> {
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
        appended: &mut Vec<Bytes>,
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
        let data = Bytes::from(vec![fill; 1 + self.dice.below(3000) as usize]);
        let length = data.len() as u64;
        if self.copying {
            begin(self.store(), body);
        }
        if !self.receiving {
            self.store().write_append(body, offset, &data)?;
        }
        if !self.receiving && !self.copying && self.dice.one_in(10) {
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
        self.steps.truncate(opened.last.0 as usize);
        self.rebuild(opened.last);
        let store = self.store.as_ref().unwrap();
        if power {
            self.model.adopt_lost_bytes(store, &what);
        }
        self.model.assert_equals(store, &what);
        self.standing().assert_equals(store, &what);
        self.check_outcomes(&opened, &what);
        self.read_log();
        self.base = self.model.clone();
        self.base_lsn = opened.last;
        self.syncs.clear();
        (self.flushed, self.stable) = (opened.last, opened.last);
    }

    /// The model as it was after an entry.
    fn rebuild(&mut self, last: Lsn) {
        let mut model = self.base.clone();
        for (lsn, (entry, appended)) in (1..).map(Lsn).zip(&self.steps).skip(self.base_lsn.0 as usize) {
            model.apply(lsn, entry, appended);
            for (bodies, through) in self.syncs.iter().filter(|(_, through)| *through == lsn) {
                model.synced(bodies.as_deref(), *through);
            }
        }
        for (bodies, through) in self.syncs.iter().filter(|(_, through)| *through <= last) {
            model.synced(bodies.as_deref(), *through);
        }
        self.model = model;
    }

    /// The outcomes that the retained part of the log leaves were all found.
    fn check_outcomes(&self, opened: &Opened, what: &str) {
        let first = self.store.as_ref().unwrap().log.first();
        let retained = self.steps.iter().skip(first.before().0 as usize).map(|(entry, _)| entry);
        let found: Vec<_> = opened.outcomes.iter().map(|o| (o.seq, o.outcome.clone())).collect();
        assert_eq!(found, outcomes(retained), "{what}: the ledger's outcomes");
    }
}

fn outcome(number: u64) -> Outcome {
    Outcome { id: op(number), opcode: 7, reply: vec![number as u8; 3].into() }
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
