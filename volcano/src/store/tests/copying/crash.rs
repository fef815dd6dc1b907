//! Deaths of the process and power cuts while a slice is copied.

use super::super::super::StoreError;
use super::super::super::simulated::Dice;
use super::super::making::SLICE;
use super::source::Source;
use super::world::{Driver, Follower};
use crate::node::message::SentRecord;

struct Run {
    dice: Dice,
    source: Source,
    follower: Follower,
    driver: Driver,
    /// All records of the source.
    records: Vec<SentRecord>,
    dir: tempfile::TempDir,
}

impl Run {
    fn new(seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let source = Source::create(&dir.path().join("source"), seed);
        let follower = Follower::new(&dir.path().join("copy"), seed);
        let (dice, driver) = (Dice::new(seed), Driver::default());
        let mut run = Self { dice, source, follower, driver, records: Vec::new(), dir };
        (0..50).for_each(|_| run.record());
        run
    }

    fn record(&mut self) {
        let sent = self.source.act();
        self.records.push(sent);
    }

    /// One step of the copy; an error means that its process has died.
    fn act(&mut self) -> Result<(), StoreError> {
        match self.dice.below(12) {
            0 | 1 => {
                self.record();
                Ok(())
            }
            2 => self.follower.sync(),
            3 => self.follower.maintain(&mut self.dice),
            _ => self.follow(),
        }
    }

    /// The next record that the copy lacks, or a part if it lacks none.
    fn follow(&mut self) -> Result<(), StoreError> {
        let Some(position) = self.follower.store().position(SLICE) else {
            return self.follower.place(&self.source);
        };
        if let Some(sent) = self.records.get(position.seq.0 as usize) {
            return self.follower.receive(&sent.clone());
        }
        let budget = 1 + self.dice.below(100_000) as usize;
        self.driver.part(&self.source, &mut self.follower, budget)?;
        Ok(())
    }

    fn crash(&mut self, power: bool) {
        self.follower.crash(power.then_some(&mut self.dice));
        // whoever comes back is asked what it lacks
        self.driver = Driver::with_losses(self.dice.clone());
    }
}

fn crashes(seed: u64, power: impl Fn(&mut Dice) -> bool) {
    let mut run = Run::new(seed);
    for _ in 0..6 {
        let steps = run.dice.below(60);
        if run.dice.one_in(2) {
            let n = 1 + run.dice.below(steps * 3 + 1);
            run.follower.disk.kill_after(n);
        }
        for _ in 0..steps {
            if run.act().is_err() {
                break;
            }
        }
        let power = power(&mut run.dice);
        run.crash(power);
    }
    let mut steps = 0;
    while !run.follower.store().is_complete(SLICE) || run.follower.position() != run.source.standing().0 {
        run.act().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        steps += 1;
        assert!(steps < 20_000, "seed {seed}: it does not come to an end");
    }
    assert_same(&mut run, seed);
    // what is complete and synced is so after a power cut, too
    run.follower.sync().unwrap();
    run.crash(true);
    assert!(run.follower.store().is_complete(SLICE), "seed {seed}");
    assert_same(&mut run, seed);
    drop(run.dir);
}

fn assert_same(run: &mut Run, seed: u64) {
    run.follower.assert_neighbour_untouched(&format!("seed {seed}"));
    let copy = run.follower.store().fingerprint(SLICE).unwrap();
    assert!(copy == run.source.store.fingerprint(SLICE).unwrap(), "seed {seed}");
}

#[test]
fn a_copy_whose_process_dies_now_and_then_comes_to_equal_its_source() {
    (0..40).for_each(|seed| crashes(seed, |_| false));
}

#[test]
fn a_copy_whose_power_fails_now_and_then_comes_to_equal_its_source() {
    (1000..1040).for_each(|seed| crashes(seed, |_| true));
}

#[test]
fn deaths_and_power_cuts_in_turn_leave_nothing_worse_than_missing_keys() {
    (2000..2040).for_each(|seed| crashes(seed, |dice| dice.one_in(2)));
}
