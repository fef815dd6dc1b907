//! Every decoder takes its corpus and mutations of it without a panic and without memory that the input does not warrant.
//!
//! The mutations are the same in each run: a finding is reproduced by running the test again. `MAGMA_FUZZ_ROUNDS` makes it run longer.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::path::Path;

use magma_tests::fuzz::{TARGETS, Target};

/// Counts the bytes that the current thread holds, and the most it has held.
struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

#[allow(unsafe_code, reason = "an allocator is the only one who sees every allocation")]
// SAFETY: everything is handed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that is ending has nothing left to count.
        let _ = HELD.try_with(|held| {
            held.set(held.get() + layout.size());
            let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
        });
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let _ = HELD.try_with(|held| held.set(held.get().saturating_sub(layout.size())));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a decoder may hold for an input of this length, with some buffers of its own.
fn warranted(target: Target, length: usize) -> usize {
    (64 << 10) + target.memory_factor * length
}

fn try_one(target: Target, input: &[u8]) {
    let before = HELD.get();
    PEAK.set(before);
    (target.run)(input);
    let held = PEAK.get().saturating_sub(before);
    assert!(
        held <= warranted(target, input.len()),
        "{} held {held} bytes for an input of {}: {}",
        target.name,
        input.len(),
        input.escape_ascii()
    );
}

/// xorshift64*: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit.max(1)
    }

    fn mutate(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        const TELLING: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, b'/', b'\n', 0x40];
        for _ in 0..=self.below(4) {
            let at = self.below(input.len());
            match self.below(6) {
                0 if !input.is_empty() => input[at] ^= 1 << self.below(8),
                1 if !input.is_empty() => input[at] = TELLING[self.below(TELLING.len())],
                2 => input.insert(at, self.below(256) as u8),
                3 => input.truncate(at),
                4 if input.len() >= 4 => {
                    // A length of four bytes, in one order or the other.
                    let at = self.below(input.len() - 3);
                    let claims = [u32::MAX, 1 << 31, 1 << 20, 0, 0xffff];
                    let claim = claims[self.below(claims.len())];
                    let bytes = if self.below(2) == 0 { claim.to_be_bytes() } else { claim.to_le_bytes() };
                    input[at..at + 4].copy_from_slice(&bytes);
                }
                _ => input.extend_from_slice(&other[self.below(other.len()).min(other.len())..]),
            }
        }
    }
}

fn corpus(target: Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target.name);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} has no corpus", target.name);
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

#[test]
fn decoders_survive_their_corpus_and_its_mutations() {
    let rounds = std::env::var("MAGMA_FUZZ_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(60_000);
    for &target in TARGETS {
        let corpus = corpus(target);
        for input in &corpus {
            try_one(target, input);
        }
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for _ in 0..rounds {
            let mut input = corpus[random.below(corpus.len())].clone();
            let other = corpus[random.below(corpus.len())].clone();
            random.mutate(&mut input, &other);
            input.truncate(64 << 10);
            try_one(target, &input);
        }
        println!("{}: {} inputs of the corpus, {rounds} mutations", target.name, corpus.len());
    }
}
