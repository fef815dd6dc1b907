//! Striped files over several volcanos, and what becomes of them when one of these is lost.

use magma_common::proto::Operation;
use magma_common::proto::operation::{
    Layout, LayoutPurpose, LayoutReply, Read, ReadStripe, Setattr, Shed, Unlink, Write, WriteAt, WriteDone,
    WriteStripe,
};
use magma_common::stripes::StripeUnit;

use super::across::{Caller, create, is_settled, name, served_by, shared_ring};
use super::*;
use crate::rows::Life;
use crate::slice::across::message::AcrossMessage;

const UNIT: u64 = 64 << 10;
const NUMBERS: u64 = 12;
/// Random courses of events, and operations in each.
const SEEDS: u64 = 4;
const TURNS: u64 = 20;

/// Several volcanos that serve, a client, and an empty file whose first stripes are not all where the file is.
fn striped_ring() -> (Ring, Caller, Handle) {
    let (mut ring, mut caller) = shared_ring();
    let unit = StripeUnit::new(UNIT).unwrap();
    ring.propose(1, &Change::Stripes(Some(unit)));
    ring.until(|ring| ring.running.values().all(|node| node.topology().stripes == Some(unit)));
    let file = caller.ask(&mut ring, create(Handle::root(), "big")).unwrap().attr.handle;
    ring.until(is_settled);
    (ring, caller, file)
}

/// The byte with which the n-th unit is filled.
fn filling(number: u64) -> u8 {
    b'A' + u8::try_from(number).unwrap()
}

fn write_through(head: Handle, at: WriteAt) -> Write {
    Write { handle: head, at, opened: true }
}

/// Writes a little at the beginning of each unit up to this one, through the head.
fn fill(ring: &mut Ring, caller: &mut Caller, file: Handle, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        let write = write_through(file, WriteAt::Offset(number * UNIT));
        let data = Bytes::from(vec![filling(number); 100]);
        caller.ask_with(ring, write, data).unwrap();
    }
}

fn layout(ring: &mut Ring, caller: &mut Caller, file: Handle) -> LayoutReply {
    let (offset, length) = (0, 1 << 40);
    caller
        .ask(ring, Layout { handle: file, offset, length, purpose: LayoutPurpose::Commit, opened: true })
        .unwrap()
}

fn read_stripe(
    ring: &mut Ring,
    caller: &mut Caller,
    file: Handle,
    (layout, number): (&LayoutReply, u64),
) -> Option<Bytes> {
    let stripe = layout.stripes.iter().find(|stripe| stripe.number == number)?;
    let cut = layout.cut;
    let read = ReadStripe { stripe: stripe.handle, head: file, cut, offset: 0, length: UNIT as u32 };
    let ((), data) = caller.ask_with(ring, read, Bytes::new()).unwrap();
    Some(data.slice(..data.len().min(stripe.trimmed.unwrap_or(UNIT) as usize)))
}

/// Each unit holds what `fill` wrote there.
fn assert_filled(ring: &mut Ring, caller: &mut Caller, file: Handle, numbers: std::ops::RangeInclusive<u64>) {
    let layout = layout(ring, caller, file);
    let known: Vec<u64> = layout.stripes.iter().map(|stripe| stripe.number).collect();
    assert_eq!(known, numbers.clone().collect::<Vec<_>>());
    for number in numbers {
        let data = read_stripe(ring, caller, file, (&layout, number)).unwrap();
        assert_eq!(data, vec![filling(number); 100]);
    }
}

fn cut(ring: &mut Ring, caller: &mut Caller, file: Handle, size: u64) {
    let set = magma_common::attr::SetAttr { size: Some(size), ..magma_common::attr::SetAttr::default() };
    caller.ask(ring, Setattr { handle: file, set, guard: None, opened: true }).unwrap();
}

/// Whether any volcano has this flare in a copy that counts.
fn is_somewhere(ring: &Ring, handle: Handle) -> bool {
    let slice = ring.topology().slice_of(&handle.key).unwrap().clone();
    let has = |node: &&Node| {
        slice.in_sync().any(|copy| copy == node.replica())
            && node.store().flare(&handle.key).unwrap().is_some_and(|row| row.handle == handle)
    };
    ring.running.values().any(|node| has(&node))
}

fn are_gone(ring: &Ring, handles: &[Handle]) -> bool {
    handles.iter().all(|handle| !is_somewhere(ring, *handle))
}

/// Nothing is left to be done in the background anywhere.
fn is_quiet(ring: &Ring) -> bool {
    let range = magma_common::key::KeyRange::ALL;
    ring.all_served()
        && is_settled(ring)
        && ring.running.values().all(|node| node.store().to_shed_in(range, None, 9).unwrap().is_empty())
}

fn handles(layout: &LayoutReply) -> Vec<Handle> {
    layout.stripes.iter().map(|stripe| stripe.handle).collect()
}

/// Whether a message does not arrive.
type Lost = fn(&Message) -> bool;

/// Where a driver's messages end.
const POINTS: [(&str, Lost); 4] = [
    ("prepared", |message| is_across(message, |across| matches!(across, AcrossMessage::Prepared { .. }))),
    ("commit", |message| is_across(message, |across| matches!(across, AcrossMessage::Commit { .. }))),
    ("applied", |message| is_across(message, |across| matches!(across, AcrossMessage::Applied { .. }))),
    ("settled", |message| is_across(message, |across| matches!(across, AcrossMessage::Settled { .. }))),
];

fn is_across(message: &Message, is_meant: fn(&AcrossMessage) -> bool) -> bool {
    matches!(message, Message::Across(_, across) if is_meant(across))
}

fn steps(ring: &mut Ring, count: u32) {
    (0..count).for_each(|_| ring.step());
}

#[test]
fn a_file_over_several_volcanos_is_one_file() {
    let (mut ring, mut caller, file) = striped_ring();
    fill(&mut ring, &mut caller, file, 1..=NUMBERS);
    assert_filled(&mut ring, &mut caller, file, 1..=NUMBERS);
    let before = layout(&mut ring, &mut caller, file);
    let servers: BTreeSet<u8> = handles(&before).iter().map(|stripe| served_by(&ring, &stripe.key)).collect();
    assert!(servers.len() > 1, "several volcanos have its bytes");
    assert_eq!(before.attr.size, NUMBERS * UNIT + 100);

    let second = before.stripes[1].handle;
    let direct = WriteStripe { stripe: second, head: file, cut: before.cut, offset: 50 };
    caller.ask_with(&mut ring, direct, Bytes::from_static(b"direct")).unwrap();
    caller.ask(&mut ring, WriteDone { handle: file, end: 2 * UNIT + 56, cut: before.cut }).unwrap();
    let data = read_stripe(&mut ring, &mut caller, file, (&before, 2)).unwrap();
    assert_eq!(data[50..56], *b"direct");

    let append = write_through(file, WriteAt::End);
    let (reply, _) = caller.ask_with(&mut ring, append, Bytes::from(vec![b'z'; UNIT as usize])).unwrap();
    assert_eq!(reply.offset, NUMBERS * UNIT + 100);
    let after = layout(&mut ring, &mut caller, file);
    assert_eq!(after.attr.size, (NUMBERS + 1) * UNIT + 100);
    assert_eq!(read_stripe(&mut ring, &mut caller, file, (&after, NUMBERS + 1)).unwrap(), vec![b'z'; 100]);

    cut(&mut ring, &mut caller, file, 3 * UNIT + 10);
    ring.until(|ring| are_gone(ring, &handles(&after)[3..]) && is_quiet(ring));
    let left = layout(&mut ring, &mut caller, file);
    assert_eq!(handles(&left), handles(&after)[..3]);
    assert!(left.stripes.iter().all(|stripe| stripe.trimmed.is_none()));
    assert_eq!(read_stripe(&mut ring, &mut caller, file, (&left, 3)).unwrap(), vec![filling(3); 10]);
    let late = WriteStripe { stripe: left.stripes[2].handle, head: file, cut: after.cut, offset: 0 };
    let refused = caller.ask_with(&mut ring, late, Bytes::from_static(b"late"));
    assert_eq!(refused.map(drop), Err(FlareError::Stale));

    caller.ask(&mut ring, Unlink { dir: Handle::root(), name: name("big") }).unwrap();
    ring.until(|ring| are_gone(ring, &handles(&left)) && !is_somewhere(ring, file) && is_quiet(ring));
}

/// At each point of an append's course the volcano that drives it is lost. Whatever became of the append, the next one answers its retry,
/// and it is there once.
#[test]
fn an_append_whose_driver_is_lost_happens_once() {
    for (point, is_lost) in POINTS {
        let (mut ring, mut caller, file) = striped_ring();
        fill(&mut ring, &mut caller, file, 1..=NUMBERS);
        ring.until(is_settled);
        ring.is_lost = is_lost;
        caller.sequence += 1;
        let data = Bytes::from(vec![b'z'; UNIT as usize]);
        let append = write_through(file, WriteAt::End);
        caller.send_with(&mut ring, append.clone(), data.clone(), caller.sequence);
        steps(&mut ring, 20);
        let driver = served_by(&ring, &file.key);
        drop(ring.running.remove(&driver));
        ring.is_lost = |_| false;
        ring.until(Ring::all_served);
        let (reply, _) = caller.ask_again(&mut ring, append, &data).unwrap();
        assert_eq!(reply.offset, NUMBERS * UNIT + 100, "{point}");
        let after = layout(&mut ring, &mut caller, file);
        assert_eq!(after.attr.size, (NUMBERS + 1) * UNIT + 100, "{point}");
        for (number, from, length) in [(NUMBERS, 100, UNIT), (NUMBERS + 1, 0, 100)] {
            let data = read_stripe(&mut ring, &mut caller, file, (&after, number)).unwrap();
            assert_eq!(data.len() as u64, length, "{point}");
            assert!(data[from..].iter().all(|byte| *byte == b'z'), "{point}");
        }
        ring.until(is_quiet);
    }
}

#[test]
fn stripes_on_a_lost_volcano_are_waited_for() {
    let (mut ring, mut caller, file) = striped_ring();
    fill(&mut ring, &mut caller, file, 1..=NUMBERS);
    let before = layout(&mut ring, &mut caller, file);
    ring.until(is_settled);
    let home = served_by(&ring, &file.key);
    let elsewhere = |stripe: &Handle| served_by(&ring, &stripe.key) != home;
    let stripe = handles(&before).into_iter().find(elsewhere).unwrap();
    let participant = served_by(&ring, &stripe.key);
    drop(ring.running.remove(&participant));
    // The head needs nobody to be cut.
    cut(&mut ring, &mut caller, file, 10);
    caller.ask(&mut ring, Unlink { dir: Handle::root(), name: name("big") }).unwrap();
    ring.until(|ring| are_gone(ring, &handles(&before)) && !is_somewhere(ring, file) && is_quiet(ring));
}

/// A file is cut, and then removed; at each point of what goes on in the background the volcano that drives that is lost.
#[test]
fn shedding_goes_on_when_its_driver_is_lost() {
    for (point, is_lost) in POINTS {
        for removes in [false, true] {
            let (mut ring, mut caller, file) = striped_ring();
            fill(&mut ring, &mut caller, file, 1..=NUMBERS);
            let before = layout(&mut ring, &mut caller, file);
            ring.until(is_settled);
            ring.is_lost = is_lost;
            if removes {
                let unlink = Unlink { dir: Handle::root(), name: name("big") };
                caller.send(&mut ring, unlink, 1000);
            } else {
                cut(&mut ring, &mut caller, file, 2 * UNIT + 10);
            }
            steps(&mut ring, 20);
            let driver = served_by(&ring, &file.key);
            drop(ring.running.remove(&driver));
            ring.is_lost = |_| false;
            ring.until(Ring::all_served);
            if removes {
                let unlink = Unlink { dir: Handle::root(), name: name("big") };
                let done = caller.ask(&mut ring, unlink).map(drop);
                assert!(matches!(done, Ok(()) | Err(FlareError::NotFound)), "{point}");
                ring.until(|ring| are_gone(ring, &handles(&before)) && !is_somewhere(ring, file));
            } else {
                ring.until(|ring| are_gone(ring, &handles(&before)[2..]));
                ring.until(is_quiet);
                let after = layout(&mut ring, &mut caller, file);
                assert_eq!(handles(&after), handles(&before)[..2], "{point}");
                assert_eq!(
                    read_stripe(&mut ring, &mut caller, file, (&after, 2)).unwrap(),
                    vec![filling(2); 10],
                    "{point}"
                );
            }
            ring.until(is_quiet);
        }
    }
}

/// At each point of what goes on everybody loses power. What comes of it is one file: its stripes are those that its head knows.
#[test]
fn a_loss_of_power_leaves_no_stripe_without_its_file() {
    for (point, is_lost) in POINTS {
        let (mut ring, mut caller, file) = striped_ring();
        fill(&mut ring, &mut caller, file, 1..=NUMBERS);
        let before = layout(&mut ring, &mut caller, file);
        ring.until(is_settled);
        ring.is_lost = is_lost;
        cut(&mut ring, &mut caller, file, 4 * UNIT + 7);
        caller.sequence += 1;
        let data = Bytes::from(vec![b'z'; UNIT as usize]);
        let append = write_through(file, WriteAt::End);
        caller.send_with(&mut ring, append.clone(), data.clone(), caller.sequence);
        steps(&mut ring, 10);
        ring.is_lost = |_| false;
        ring.cut_power();
        let (reply, _) = caller.ask_again(&mut ring, append, &data).unwrap();
        assert_eq!(reply.offset, 4 * UNIT + 7, "{point}");
        ring.until(is_quiet);
        let after = layout(&mut ring, &mut caller, file);
        assert_eq!(after.attr.size, 5 * UNIT + 7, "{point}");
        let known: Vec<u64> = after.stripes.iter().map(|stripe| stripe.number).collect();
        assert_eq!(known, (1..=5).collect::<Vec<_>>(), "{point}");
        let boundary = read_stripe(&mut ring, &mut caller, file, (&after, 4)).unwrap();
        assert_eq!(boundary[..7], [filling(4); 7], "{point}");
        assert!(boundary[7..].iter().all(|byte| *byte == b'z'), "{point}");
        assert!(are_gone(&ring, &handles(&before)[5..]), "{point}");
        caller.ask(&mut ring, Unlink { dir: Handle::root(), name: name("big") }).unwrap();
        ring.until(|ring| are_gone(ring, &handles(&after)) && !is_somewhere(ring, file));
    }
}

/// The truncation may still be lost: then the bytes are wanted again.
#[test]
fn nothing_is_removed_before_the_truncation_is_on_disk() {
    let (mut ring, mut caller, file) = striped_ring();
    fill(&mut ring, &mut caller, file, 1..=NUMBERS);
    ring.until(is_settled);
    let before = layout(&mut ring, &mut caller, file);
    let home = served_by(&ring, &file.key);
    let elsewhere = |stripe: &&Handle| served_by(&ring, &stripe.key) != home;
    let there: Vec<Handle> = handles(&before).iter().filter(elsewhere).copied().collect();
    assert!(!there.is_empty());
    ring.stalled = Some(home);
    cut(&mut ring, &mut caller, file, 10);
    steps(&mut ring, 100);
    assert!(there.iter().all(|stripe| is_somewhere(&ring, *stripe)));
}

/// A removed file was made again while its stripes were being removed.
#[test]
fn a_file_that_is_made_again_has_stripes_of_its_own() {
    let (mut ring, mut caller, file) = striped_ring();
    fill(&mut ring, &mut caller, file, 1..=NUMBERS);
    ring.until(is_settled);
    let before = layout(&mut ring, &mut caller, file);
    // Nothing is shed for now.
    ring.is_lost = POINTS[0].1;
    let key = file.key;
    let home = served_by(&ring, &key);
    caller.send(&mut ring, Unlink { dir: Handle::root(), name: name("big") }, 1000);
    steps(&mut ring, 4);
    ring.is_lost = |_| false;
    ring.until(|ring| {
        ring.running[&home].store().flare(&key).unwrap().is_none_or(|row| row.life == Life::Dying)
    });
    let second = caller.ask(&mut ring, create(Handle::root(), "big")).unwrap().attr.handle;
    fill(&mut ring, &mut caller, second, 1..=NUMBERS);
    ring.until(|ring| are_gone(ring, &handles(&before)) && !is_somewhere(ring, file) && is_quiet(ring));
    assert_filled(&mut ring, &mut caller, second, 1..=NUMBERS);
}

/// It is of no use to a client, and must do no harm.
#[test]
fn clients_may_ask_for_shedding() {
    let (mut ring, mut caller, file) = striped_ring();
    fill(&mut ring, &mut caller, file, 1..=3);
    caller.ask(&mut ring, Shed { handle: file, numbers: vec![1, 2, 3] }).unwrap();
    cut(&mut ring, &mut caller, file, UNIT + 9);
    caller.ask(&mut ring, Shed { handle: file, numbers: vec![1, 2, 3] }).unwrap();
    let after = layout(&mut ring, &mut caller, file);
    assert_eq!((after.stripes.len(), after.stripes[0].trimmed), (1, None));
    ring.until(is_quiet);
}

impl Caller {
    /// Asks until it is answered, with bytes.
    fn ask_with<O: Operation>(
        &mut self,
        ring: &mut Ring,
        operation: O,
        data: impl Into<Bytes>,
    ) -> Result<(O::Reply, Bytes), FlareError> {
        self.sequence += 1;
        self.ask_again(ring, operation, &data.into())
    }

    /// The same, under the number of the last operation.
    fn ask_again<O: Operation>(
        &mut self,
        ring: &mut Ring,
        operation: O,
        data: &Bytes,
    ) -> Result<(O::Reply, Bytes), FlareError> {
        let request: Request = operation.into();
        loop {
            let ticket = self.send_with(ring, request.clone(), data.clone(), self.sequence);
            ring.until(|ring| ring.answers.contains_key(&ticket) || ring.forwards.contains_key(&ticket));
            match ring.answers.remove(&ticket) {
                Some(Ok((reply, data))) => return Ok((O::reply(reply).unwrap(), data)),
                Some(Err(failure)) if failure.error != FlareError::Unavailable => return Err(failure.error),
                _ => ring.step(),
            }
        }
    }
}

/// Random numbers, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn bytes(&mut self, length: u64) -> Bytes {
        let seed = self.below(255);
        (0..length).map(|at| ((at % 253) ^ seed) as u8 | 1).collect()
    }
}

/// A file and what it has to hold.
struct Course {
    ring: Ring,
    caller: Caller,
    file: Handle,
    model: Vec<u8>,
    dice: Dice,
}

impl Course {
    fn put(&mut self, offset: u64, data: &Bytes) {
        let (start, end) = (offset as usize, offset as usize + data.len());
        if self.model.len() < end {
            self.model.resize(end, 0);
        }
        self.model[start..end].copy_from_slice(data);
    }

    /// An operation, in the middle of which somebody may be lost. It happens once, whatever becomes of them.
    fn disturbed<O: Operation>(
        &mut self,
        operation: O,
        data: impl Into<Bytes>,
    ) -> Result<O::Reply, FlareError> {
        let data = data.into();
        self.caller.sequence += 1;
        if self.dice.below(3) == 0 {
            self.ring.is_lost = POINTS[self.dice.below(4) as usize].1;
        }
        let kills = self.dice.below(4) == 0;
        if kills || self.dice.below(2) == 0 {
            self.caller.send_with(&mut self.ring, operation.clone(), data.clone(), self.caller.sequence);
            let count = self.dice.below(12) as u32;
            steps(&mut self.ring, count);
        }
        if kills && self.ring.running.len() == 3 {
            if self.dice.below(4) == 0 {
                self.ring.is_lost = |_| false;
                self.ring.cut_power();
            } else {
                let victim = *self.ring.running.keys().nth(self.dice.below(3) as usize).unwrap();
                drop(self.ring.running.remove(&victim));
                self.ring.is_lost = |_| false;
                self.ring.until(Ring::all_served);
                self.ring.start(victim, Origin::Resume);
            }
            self.ring.until(|ring| ring.all_served() && ring.in_sync() == 2);
        }
        self.ring.is_lost = |_| false;
        self.caller.ask_again(&mut self.ring, operation, &data).map(|(reply, _)| reply)
    }

    fn write_through(&mut self) {
        let (offset, length) = (self.dice.below(8 * UNIT), 1 + self.dice.below(UNIT));
        let data = self.dice.bytes(length);
        self.disturbed(write_through(self.file, WriteAt::Offset(offset)), data.clone()).unwrap();
        self.put(offset, &data);
    }

    fn append(&mut self) {
        let length = 1 + self.dice.below(UNIT);
        let data = self.dice.bytes(length);
        let reply = self.disturbed(write_through(self.file, WriteAt::End), data.clone()).unwrap();
        assert_eq!(reply.offset, self.model.len() as u64);
        self.put(reply.offset, &data);
    }

    fn truncate(&mut self) {
        let size = self.dice.below(8 * UNIT);
        let set = magma_common::attr::SetAttr { size: Some(size), ..magma_common::attr::SetAttr::default() };
        let truncate = Setattr { handle: self.file, set, guard: None, opened: true };
        self.disturbed(truncate, Bytes::new()).unwrap();
        self.model.resize(size as usize, 0);
    }

    /// Writes to a stripe as a client does. Between its layout and its write the file may be cut.
    fn write_direct(&mut self) {
        let known = layout(&mut self.ring, &mut self.caller, self.file);
        let writable: Vec<_> = known.stripes.iter().filter(|stripe| stripe.trimmed.is_none()).collect();
        if writable.is_empty() {
            return;
        }
        let stripe = writable[self.dice.below(writable.len() as u64) as usize];
        let offset = self.dice.below(UNIT - 1);
        let length = 1 + self.dice.below(UNIT - offset - 1);
        let data = self.dice.bytes(length);
        let before = self.model.clone();
        if self.dice.below(2) == 0 {
            self.truncate();
        }
        if self.dice.below(2) == 0 {
            self.ring.until(is_quiet);
        }
        let write = WriteStripe { stripe: stripe.handle, head: self.file, cut: known.cut, offset };
        match self.disturbed(write, data.clone()) {
            Ok(_) => {
                let at = stripe.number * UNIT + offset;
                let done = WriteDone { handle: self.file, end: at + length, cut: known.cut };
                self.disturbed(done, Bytes::new()).unwrap();
                // It was written before the file was cut, or made larger.
                let after = self.model.len();
                let was_cut = after < before.len();
                self.put(at, &data);
                if was_cut {
                    self.model.truncate(after);
                }
            }
            // It is no part of the file any more.
            Err(error) => assert_eq!(error, FlareError::Stale),
        }
    }

    fn contents(&mut self) -> Vec<u8> {
        let known = layout(&mut self.ring, &mut self.caller, self.file);
        let size = known.attr.size as usize;
        let length = known.attr.size.min(UNIT) as u32;
        let read = Read { handle: self.file, offset: 0, length, opened: true };
        let (_, mut all) = self
            .caller
            .ask_with(&mut self.ring, read, Bytes::new())
            .map(|(reply, data)| (reply, data.to_vec()))
            .unwrap();
        all.resize(size.max(all.len()), 0);
        for stripe in &known.stripes {
            let data =
                read_stripe(&mut self.ring, &mut self.caller, self.file, (&known, stripe.number)).unwrap();
            let start = ((stripe.number * UNIT) as usize).min(size);
            let end = (start + data.len()).min(size);
            all[start..end].copy_from_slice(&data[..end - start]);
        }
        all
    }
}

/// Whatever is done to a file, and whoever is lost meanwhile: it holds what it should, and nothing of it is left in the end.
#[test]
fn a_striped_file_survives_whatever_happens() {
    for seed in 1..=SEEDS {
        let (ring, caller, file) = striped_ring();
        let mut course = Course { ring, caller, file, model: Vec::new(), dice: Dice(seed) };
        for turn in 0..TURNS {
            match course.dice.below(10) {
                0..=2 => course.write_through(),
                3 => course.append(),
                4 | 5 => course.truncate(),
                _ => course.write_direct(),
            }
            let there = course.contents();
            assert_eq!(there.len(), course.model.len(), "seed {seed}, turn {turn}");
            let differs = there.iter().zip(&course.model).position(|(there, wanted)| there != wanted);
            assert_eq!(differs, None, "seed {seed}, turn {turn}");
        }
        let unlink = Unlink { dir: Handle::root(), name: name("big") };
        let stripes = handles(&layout(&mut course.ring, &mut course.caller, file));
        course.disturbed(unlink, Bytes::new()).unwrap();
        course.ring.until(|ring| are_gone(ring, &stripes) && !is_somewhere(ring, file) && is_quiet(ring));
    }
}

/// Bytes that are written to a stripe one after the other have times in that order, also while the clock stands still or is behind. The second
/// one waited until the first one was on all disks, and others overtook it meanwhile.
#[test]
fn writes_to_one_stripe_follow_each_other_at_once() {
    let (mut ring, mut caller, file) = striped_ring();
    fill(&mut ring, &mut caller, file, 0..=NUMBERS);
    let driver = served_by(&ring, &file.key);
    let layout = layout(&mut ring, &mut caller, file);
    let mut stripes = layout.stripes.iter();
    let stripe = stripes.find(|stripe| served_by(&ring, &stripe.handle.key) != driver).unwrap();
    let (holder, offset) = (served_by(&ring, &stripe.handle.key), stripe.number * UNIT);
    ring.until(|ring| is_settled(ring) && ring.now.monotonic.subsec_millis() == 0);
    ring.stalled = Some(holder);
    let begun = ring.now.monotonic;
    for number in 0..4 {
        let write = write_through(file, WriteAt::Offset(offset + number));
        caller.ask_with(&mut ring, write, Bytes::from_static(b"x")).unwrap();
    }
    let took = ring.now.monotonic.saturating_sub(begun);
    assert!(took < Duration::from_millis(500), "{took:?}");
    assert!(!is_settled(&ring), "none of them is on all disks");
    ring.stalled = None;
    ring.until(is_settled);
}
