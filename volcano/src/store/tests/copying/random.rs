//! Random records while a slice is copied; at the end both stores hold the same.

use super::super::super::simulated::Dice;
use super::super::making::SLICE;
use super::source::Source;
use super::world::{Driver, Follower};

/// Copies what the follower lacks, with records in between.
fn catch_up(source: &mut Source, follower: &mut Follower, dice: &mut Dice) {
    let mut driver = Driver::with_losses(Dice::new(dice.next()));
    let mut steps = 0;
    let mut is_done = false;
    while !is_done {
        match dice.below(5) {
            0 | 1 => {
                let sent = source.act();
                follower.receive(&sent).unwrap();
            }
            2 => follower.maintain(dice).unwrap(),
            _ => {
                let budget = 1 + dice.below(200_000) as usize;
                is_done = !driver.part(source, follower, budget).unwrap();
            }
        }
        steps += 1;
        assert!(steps < 10_000, "it does not come to an end");
    }
    assert!(follower.store().missing(SLICE).is_empty());
}

fn assert_equal(source: &Source, follower: &mut Follower, what: &str) {
    follower.assert_neighbour_untouched(what);
    let equal = source.store.fingerprint(SLICE).unwrap() == follower.store().fingerprint(SLICE).unwrap();
    assert!(equal, "{what}");
}

/// Copies a slice to a store that has nothing, then to the same store after it has gone other ways.
fn copies(seed: u64) {
    let dir = tempfile::tempdir().unwrap();
    let mut dice = Dice::new(seed);
    let mut source = Source::create(&dir.path().join("source"), seed);
    let mut follower = Follower::new(&dir.path().join("copy"), seed);
    (0..60).for_each(|_| drop(source.act()));
    for round in 0..3 {
        follower.place(&source).unwrap();
        catch_up(&mut source, &mut follower, &mut dice);
        let what = format!("seed {seed}, round {round}");
        assert_equal(&source, &mut follower, &what);
        for _ in 0..10 {
            let sent = source.act();
            follower.receive(&sent).unwrap();
        }
        assert_equal(&source, &mut follower, &format!("{what}, after more records"));
        follower.settle(&mut dice);
        follower.crash(None);
        assert_equal(&source, &mut follower, &format!("{what}, opened again"));
        // both go on, but not together
        follower.go_astray(seed * 10 + round);
        (0..dice.below(30)).for_each(|_| drop(source.act()));
    }
}

#[test]
fn a_copy_that_was_filled_among_records_equals_its_source() {
    (0..25).for_each(copies);
}
