//! The simulated ring, by a few seeds. `./magma sweep` runs many.

use magma_tests::ring::sweep::{self, Seed};
use magma_tests::ring::trace::Trace;
use magma_volcano::planted::Bug;

const CORPUS: &str = include_str!("../corpus/ring-seeds.txt");

/// Runs these seeds; what those that fail say.
fn failures(seeds: &[Seed]) -> Vec<String> {
    let jobs = std::thread::available_parallelism().map_or(1, Into::into);
    let mut failures = Vec::new();
    sweep::seeds(seeds, jobs, None, |seed, outcome| {
        if let Err(why) = outcome {
            failures.push(format!("./magma sweep --seed {seed} --trace: {why}"));
        }
        true
    });
    failures
}

#[test]
fn seeds_that_once_failed_pass() {
    let corpus = sweep::corpus(CORPUS);
    assert!(corpus.len() > 10);
    assert_eq!(failures(&corpus), Vec::<String>::new());
}

#[test]
fn the_first_seeds_pass() {
    let seed = |number| Seed { slices: Some(1), libraries: number % 2 == 0, ..Seed::drawn(number) };
    let seeds: Vec<Seed> = (1..=16).map(seed).collect();
    assert_eq!(failures(&seeds), Vec::<String>::new());
}

#[test]
fn the_same_seed_does_the_same_again() {
    for (number, slices, libraries) in
        [(3, 1, false), (4, 1, false), (3, 3, false), (3, 1, true), (4, 3, true)]
    {
        let seed = Seed { slices: Some(slices), libraries, ..Seed::drawn(number) };
        let run = || sweep::seed(seed, None, Trace::default()).unwrap();
        let (first, second) = (run(), run());
        assert_eq!((first.digest, first.events), (second.digest, second.events), "seed {seed}");
    }
}

#[test]
fn a_planted_fault_is_found() {
    let found = (1..=10).any(|number| {
        let seed = Seed { slices: Some(1), ..Seed::drawn(number) };
        sweep::seed(seed, Some(Bug::AcknowledgeBeforeMirror), Trace::default()).is_err()
    });
    assert!(found);
}
