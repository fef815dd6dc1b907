//! Striped files, by whatever way their bytes come and go.

use bytes::Bytes;
use magma_common::attr::SetAttr;
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::proto::limits::{MAX_SHED, MAX_STRIPES_MADE, MAX_THROUGH_HEAD};
use magma_common::proto::operation::*;
use magma_common::stripes::StripeUnit;
use proptest::prelude::*;

use super::world::{ALICE, SESSION, World, name, root, user};
use crate::namespace::{Caller, execute, to_shed};
use crate::record::{BodyChange, Change};
use crate::rows::{Life, Striping};

const UNIT: u64 = 64 << 10;

fn striped() -> (World, Handle) {
    let mut world = World::new();
    world.stripes = Some(StripeUnit::new(UNIT).unwrap());
    let file = world.create(&root(), Handle::root(), "big");
    (world, file)
}

fn pattern(length: u64, seed: u8) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8 ^ seed | 1).collect()
}

fn layout(world: &mut World, handle: Handle) -> LayoutReply {
    let purpose = LayoutPurpose::Read;
    world.ask(&root(), Layout { handle, offset: 0, length: u64::MAX >> 2, purpose, opened: true }).unwrap()
}

/// What a client reads: the layout first, then the parts.
fn contents(world: &mut World, handle: Handle) -> Vec<u8> {
    let layout = layout(world, handle);
    let size = layout.attr.size;
    let mut bytes = vec![0; size as usize];
    let (own, _) = world.read(handle, 0, size.min(UNIT) as u32);
    bytes[..own.len()].copy_from_slice(&own);
    for stripe in &layout.stripes {
        let length = stripe.trimmed.unwrap_or(UNIT) as u32;
        let data = read_stripe(world, handle, stripe.handle, layout.cut, length).unwrap();
        let start = (stripe.number * UNIT).min(size);
        let end = (start + data.len() as u64).min(size);
        bytes[start as usize..end as usize].copy_from_slice(&data[..(end - start) as usize]);
    }
    bytes
}

fn read_stripe(
    world: &mut World,
    head: Handle,
    stripe: Handle,
    cut: u64,
    length: u32,
) -> Result<Bytes, FlareError> {
    let op = ReadStripe { stripe, head, cut, offset: 0, length };
    world.exchange(&root(), op, &Bytes::new()).map(|((), data)| data).map_err(|failure| failure.error)
}

fn write_stripe(
    world: &mut World,
    head: Handle,
    stripe: Handle,
    (cut, offset): (u64, u64),
    data: &[u8],
) -> Result<(), FlareError> {
    let op = WriteStripe { stripe, head, cut, offset };
    world.exchange(&root(), op, &Bytes::copy_from_slice(data)).map(drop).map_err(|failure| failure.error)
}

fn shed(world: &mut World, handle: Handle) {
    let Some(row) = world.memory.flares.get(&handle.key) else { return };
    let stripes = to_shed(&world.memory, row, MAX_SHED).unwrap();
    let numbers = stripes.into_iter().map(|(number, _)| number).take(MAX_SHED).collect();
    world.ask(&root(), Shed { handle, numbers }).unwrap();
}

#[test]
fn a_write_beyond_the_unit_makes_stripes() {
    let (mut world, file) = striped();
    let data = pattern(3 * UNIT - 10, 7);
    assert_eq!(world.write(file, 100, &data), Ok(100));
    let mut expected = vec![0; 100];
    expected.extend_from_slice(&data);
    assert_eq!(contents(&mut world, file), expected);
    let Striping::Head(head) = &world.row(file).striping else { panic!("it is striped") };
    assert_eq!(head.count, 3);
    assert_eq!(world.attr(file).size, 3 * UNIT + 90);
    let op = Read { handle: file, offset: 0, length: 4 * UNIT as u32, opened: true };
    assert_eq!(world.ask(&root(), op), Err(FlareError::Striped));
    assert_eq!(world.ask(&root(), Commit { handle: file }), Err(FlareError::Striped));
}

#[test]
fn a_stripe_is_nobodys_business_but_its_files() {
    let (mut world, file) = striped();
    world.write(file, UNIT, b"data").unwrap();
    let stripe = layout(&mut world, file).stripes[0].handle;
    let other = world.create(&root(), Handle::root(), "other");
    assert_eq!(world.ask(&root(), Getattr { handle: stripe }), Err(FlareError::Stale));
    let set = SetAttr { mode: Some(0o777), ..SetAttr::default() };
    assert_eq!(world.set(&root(), stripe, set), Err(FlareError::Stale));
    assert_eq!(world.write(stripe, 0, b"x"), Err(FlareError::Stale));
    assert_eq!(world.link(&root(), stripe, Handle::root(), "link"), Err(FlareError::Stale));
    assert_eq!(read_stripe(&mut world, other, stripe, 9, 4), Err(FlareError::Stale));
    assert_eq!(read_stripe(&mut world, file, other, 9, 4), Err(FlareError::Stale));
    assert_eq!(read_stripe(&mut world, file, stripe, 0, 4), Ok(Bytes::from_static(b"data")));
}

#[test]
fn a_file_made_before_striping_was_on_never_is() {
    let mut world = World::new();
    let file = world.create(&root(), Handle::root(), "old");
    world.stripes = Some(StripeUnit::new(UNIT).unwrap());
    world.write(file, 3 * UNIT, b"far").unwrap();
    assert_eq!(world.row(file).striping, Striping::Whole);
    assert_eq!(layout(&mut world, file).unit, None);
    assert_eq!(world.read(file, 3 * UNIT, 3).0, b"far");
}

/// A truncation cut a stripe in the background while a write after it was there already: its bytes were gone.
#[test]
fn what_is_written_after_a_truncation_stays() {
    let (mut world, file) = striped();
    world.write(file, 0, &pattern(3 * UNIT, 1)).unwrap();
    world.truncate(file, UNIT + 100).unwrap();
    world.write(file, UNIT + 200, &pattern(50, 2)).unwrap();
    world.write(file, 2 * UNIT, &pattern(50, 3)).unwrap();
    let expected = |bytes: &[u8]| {
        assert_eq!(bytes[..(UNIT + 100) as usize], pattern(3 * UNIT, 1)[..(UNIT + 100) as usize]);
        assert!(bytes[(UNIT + 100) as usize..(UNIT + 200) as usize].iter().all(|byte| *byte == 0));
        assert_eq!(bytes[(UNIT + 200) as usize..(UNIT + 250) as usize], pattern(50, 2));
        assert!(bytes[(UNIT + 250) as usize..(2 * UNIT) as usize].iter().all(|byte| *byte == 0));
        assert_eq!(bytes[(2 * UNIT) as usize..], pattern(50, 3));
    };
    expected(&contents(&mut world, file));
    shed(&mut world, file);
    expected(&contents(&mut world, file));
    assert!(!world.row(file).is_to_shed());
}

#[test]
fn old_bytes_are_not_shown_when_a_file_grows_again() {
    let (mut world, file) = striped();
    world.write(file, 0, &pattern(4 * UNIT, 1)).unwrap();
    world.truncate(file, 2 * UNIT + 7).unwrap();
    world.truncate(file, 4 * UNIT).unwrap();
    for _ in 0..2 {
        let bytes = contents(&mut world, file);
        assert_eq!(bytes.len() as u64, 4 * UNIT);
        assert!(bytes[(2 * UNIT + 7) as usize..].iter().all(|byte| *byte == 0));
        assert_eq!(bytes[(2 * UNIT + 6) as usize], pattern(4 * UNIT, 1)[(2 * UNIT + 6) as usize]);
        shed(&mut world, file);
    }
}

#[test]
fn a_write_under_an_old_cut_number_is_refused_where_bytes_were_cut() {
    let (mut world, file) = striped();
    world.write(file, 0, &pattern(3 * UNIT, 1)).unwrap();
    let before = layout(&mut world, file);
    let (first, second) = (before.stripes[0].handle, before.stripes[1].handle);
    world.truncate(file, UNIT + 10).unwrap();
    let after = layout(&mut world, file);
    assert_eq!((after.cut, after.stripes.len()), (before.cut + 1, 1));
    assert_eq!(after.stripes[0].trimmed, Some(10), "only the head writes there");
    // Before the stripe has heard of it, its bytes are cut when it does.
    write_stripe(&mut world, file, first, (before.cut, 5), b"written before").unwrap();
    shed(&mut world, file);
    let bytes = contents(&mut world, file);
    assert_eq!(bytes[UNIT as usize + 5..], *b"writt");
    assert_eq!(write_stripe(&mut world, file, first, (before.cut, 50), b"late"), Err(FlareError::Stale));
    assert_eq!(write_stripe(&mut world, file, second, (before.cut, 0), b"late"), Err(FlareError::Stale));
    let done = WriteDone { handle: file, end: 3 * UNIT, cut: before.cut };
    world.ask(&user(ALICE), done).unwrap();
    assert_eq!(world.attr(file).size, UNIT + 10, "it was written before it was cut");
    write_stripe(&mut world, file, first, (after.cut, 50), b"new").unwrap();
    assert_eq!(world.attr(file).size, UNIT + 10, "the head has not heard of it");
    world.ask(&root(), WriteDone { handle: file, end: UNIT + 53, cut: after.cut }).unwrap();
    assert_eq!(contents(&mut world, file)[UNIT as usize + 50..], *b"new");
}

#[test]
fn appends_find_the_end_wherever_it_is() {
    let (mut world, file) = striped();
    let mut expected = Vec::new();
    for seed in 0..20 {
        let data = pattern(13_000, seed);
        assert_eq!(world.write_by(&root(), file, WriteAt::End, &data), Ok(expected.len() as u64));
        expected.extend_from_slice(&data);
    }
    assert_eq!(contents(&mut world, file), expected);
}

/// A file was removed and made again under the same name, and found the stripes of the first one.
#[test]
fn a_removed_file_keeps_its_key_until_its_last_stripe_is_gone() {
    let (mut world, file) = striped();
    for stripe in 1..=70 {
        world.write(file, stripe * UNIT, b"data").unwrap();
    }
    let stripe = layout(&mut world, file).stripes[0].handle;
    let flares = world.memory.flares.len();
    world.unlink(&root(), Handle::root(), "big").unwrap();
    assert_eq!(world.row(file).life, Life::Dying);
    assert_eq!(world.ask(&root(), Getattr { handle: file }), Err(FlareError::Stale));
    assert_eq!(world.write(file, 0, b"x"), Err(FlareError::Stale));
    let second = world.create(&root(), Handle::root(), "big");
    assert_ne!(second.key, file.key);
    world.write(second, UNIT, b"new").unwrap();
    assert_eq!(contents(&mut world, second)[UNIT as usize..], *b"new");
    shed(&mut world, file);
    assert!(world.exists(file), "it takes more than one time");
    shed(&mut world, file);
    assert!(!world.exists(file) && !world.exists(stripe));
    assert_eq!(world.memory.flares.len(), flares - 71 + 2);
    shed(&mut world, file);
    let third = world.create(&root(), Handle::root(), "third");
    assert_eq!(contents(&mut world, second)[UNIT as usize..], *b"new");
    assert!(contents(&mut world, third).is_empty());
}

#[test]
fn an_open_file_without_a_name_keeps_its_stripes() {
    let (mut world, file) = striped();
    world.write(file, UNIT, b"data").unwrap();
    world.opens.0.insert(file);
    world.unlink(&root(), Handle::root(), "big").unwrap();
    assert_eq!(world.row(file).life, Life::Orphan);
    assert_eq!(contents(&mut world, file)[UNIT as usize..], *b"data");
    world.opens.0.clear();
    world.plan(|plan| crate::namespace::release_last(plan, file)).unwrap();
    assert_eq!(world.row(file).life, Life::Dying);
    shed(&mut world, file);
    assert_eq!(world.memory.flares.len(), 1);
}

#[test]
fn stripes_are_not_made_in_place_of_many_dying_ones() {
    let (mut world, file) = striped();
    for stripe in 1..=40 {
        world.write(file, stripe * UNIT, b"old").unwrap();
    }
    world.truncate(file, 5).unwrap();
    assert_eq!(world.write(file, 2 * UNIT, b"new"), Err(FlareError::Unavailable));
    world.write(file, 0, b"head").unwrap();
    shed(&mut world, file);
    world.write(file, 2 * UNIT, b"new").unwrap();
    let bytes = contents(&mut world, file);
    assert_eq!((&bytes[..4], &bytes[2 * UNIT as usize..]), (&b"head"[..], &b"new"[..]));
    assert!(bytes[5..2 * UNIT as usize].iter().all(|byte| *byte == 0));
}

#[test]
fn layouts_ask_for_permission_and_tell_no_more_than_was_asked() {
    let (mut world, file) = striped();
    world.write(file, 0, &pattern(5 * UNIT, 1)).unwrap();
    let op = Layout {
        handle: file,
        offset: 2 * UNIT + 1,
        length: UNIT,
        purpose: LayoutPurpose::Write,
        opened: false,
    };
    assert_eq!(world.ask(&user(ALICE), op.clone()), Err(FlareError::AccessDenied));
    let numbers = |reply: LayoutReply| reply.stripes.iter().map(|stripe| stripe.number).collect::<Vec<_>>();
    assert_eq!(
        world.ask(&user(ALICE), Layout { purpose: LayoutPurpose::Read, ..op.clone() }).map(numbers),
        Ok(vec![2, 3])
    );
    assert_eq!(world.ask(&user(ALICE), Layout { opened: true, ..op }).map(numbers), Ok(vec![2, 3]));
}

#[test]
fn the_head_takes_few_bytes_at_a_time() {
    let (mut world, file) = striped();
    let write = |at| Write { handle: file, at, opened: true };
    let mut ask = |op: Write, length: usize| {
        let done = world.exchange(&root(), op, &Bytes::from(vec![7; length]));
        done.map(|(reply, _)| reply.offset).map_err(|failure| failure.error)
    };
    assert_eq!(ask(write(WriteAt::Offset(0)), UNIT as usize), Ok(0), "they are the head's own");
    assert_eq!(ask(write(WriteAt::Offset(9)), MAX_THROUGH_HEAD), Ok(9));
    assert_eq!(ask(write(WriteAt::Offset(9)), MAX_THROUGH_HEAD + 1), Err(FlareError::Striped));
    assert_eq!(ask(write(WriteAt::End), MAX_THROUGH_HEAD + 1), Err(FlareError::Striped));
}

/// Whoever is told that a write is on disk does not commit it: nobody syncs the stripes' bodies, so the records have the bytes.
#[test]
fn what_has_to_be_on_disk_is_in_the_records() {
    let (mut world, file) = striped();
    let data = Bytes::from(vec![7; UNIT as usize]);
    let request = Write { handle: file, at: WriteAt::Offset(UNIT + UNIT / 2), opened: true }.into();
    let mut logged = |stable| -> usize {
        let caller = Caller { credentials: &root(), session: SESSION, stable };
        let changes = world.plan(|plan| {
            execute(plan, &caller, &request, &data)?;
            Ok(plan.planned().to_vec())
        });
        let bytes = |change: &Change| match change {
            Change::Body { change: BodyChange::Overwrite { data, .. }, .. } => data.len(),
            _ => 0,
        };
        changes.unwrap().iter().map(bytes).sum()
    };
    assert_eq!(logged(false), 0);
    assert_eq!(logged(true), UNIT as usize);
}

#[test]
fn stripes_are_made_where_they_are_wanted() {
    let (mut world, file) = striped();
    let make = |offset, length| MakeStripes { handle: file, offset, length, opened: false };
    assert_eq!(world.ask(&user(ALICE), make(UNIT, 1)), Err(FlareError::AccessDenied));
    let most = MAX_STRIPES_MADE as u64 * UNIT;
    assert_eq!(world.ask(&root(), make(UNIT, most + 1)), Err(FlareError::Invalid));
    world.ask(&root(), make(0, UNIT)).unwrap();
    assert_eq!(layout(&mut world, file).stripes.len(), 0);
    world.ask(&root(), make(UNIT, most)).unwrap();
    assert_eq!(layout(&mut world, file).stripes.len(), MAX_STRIPES_MADE);
    assert_eq!(world.attr(file).size, 0);
    // Those that are there stay, and one that was cut is cleared.
    world.write(file, 3 * UNIT, b"data").unwrap();
    world.truncate(file, 3 * UNIT + 2).unwrap();
    assert_eq!(layout(&mut world, file).stripes[2].trimmed, Some(2));
    world.ask(&root(), make(3 * UNIT, 2 * UNIT)).unwrap();
    let after = layout(&mut world, file);
    assert_eq!((after.stripes.len(), after.stripes[2].trimmed), (4, None));
    assert_eq!(contents(&mut world, file)[3 * UNIT as usize..], *b"da");
}

#[test]
fn a_stripe_has_no_more_than_a_unit() {
    let (mut world, file) = striped();
    world.write(file, UNIT, b"data").unwrap();
    let stripe = layout(&mut world, file).stripes[0].handle;
    assert_eq!(write_stripe(&mut world, file, stripe, (0, UNIT - 1), b"x"), Ok(()));
    assert_eq!(write_stripe(&mut world, file, stripe, (0, UNIT - 1), b"xx"), Err(FlareError::Invalid));
    assert_eq!(write_stripe(&mut world, file, stripe, (0, u64::MAX - 9), b"x"), Err(FlareError::Invalid));
}

/// Who goes away after he has written stripes, and before he says so, leaves no set-user-id program with other bytes.
#[test]
fn privileges_go_before_stripes_are_written() {
    let (mut world, file) = striped();
    world.write(file, UNIT, b"data").unwrap();
    let mode = Some(0o6777);
    world.set(&root(), file, SetAttr { mode, ..SetAttr::default() }).unwrap();
    let ask = |world: &mut World, purpose| {
        let op = Layout { handle: file, offset: UNIT, length: 4, purpose, opened: false };
        world.ask(&user(ALICE), op).unwrap().attr.mode
    };
    assert_eq!(ask(&mut world, LayoutPurpose::Read), 0o6777);
    assert_eq!(ask(&mut world, LayoutPurpose::Commit), 0o6777);
    assert_eq!(ask(&mut world, LayoutPurpose::Write), 0o777);
}

#[test]
fn what_would_have_to_be_asked_of_stripes_is_refused_or_answered_without() {
    let (mut world, file) = striped();
    world.write(file, 2 * UNIT, b"data").unwrap();
    let (offset, length, how) = (0, 10, AllocateHow::PunchHole);
    assert_eq!(
        world.ask(&root(), Allocate { handle: file, offset, length, how }),
        Err(FlareError::NotSupported)
    );
    let seek = |whence, offset| Seek { handle: file, offset, whence };
    assert_eq!(world.ask(&root(), seek(SeekWhence::Data, 9)), Ok(SeekReply { offset: 9 }));
    let hole = world.ask(&root(), seek(SeekWhence::Hole, 9));
    assert_eq!(hole, Ok(SeekReply { offset: 2 * UNIT + 4 }));
}

#[derive(Clone, Debug)]
enum Act {
    Write(u64, u64, u8),
    Append(u64, u8),
    Direct(u64, u64, u8),
    Truncate(u64),
    Shed,
    CreateOver,
}

fn acts() -> impl Strategy<Value = Act> {
    let (at, length) = (0..6 * UNIT, 1..UNIT + 100);
    prop_oneof![
        4 => (at.clone(), length.clone(), any::<u8>()).prop_map(|(at, length, seed)| Act::Write(at, length, seed)),
        2 => (length.clone(), any::<u8>()).prop_map(|(length, seed)| Act::Append(length, seed)),
        4 => (at.clone(), length, any::<u8>()).prop_map(|(at, length, seed)| Act::Direct(at, length, seed)),
        4 => at.prop_map(Act::Truncate),
        2 => Just(Act::Shed),
        1 => Just(Act::CreateOver),
    ]
}

/// What a client does with a write: the head has its own bytes, and stripes, which are made if they are not there, have theirs.
fn write_as_clients_do(world: &mut World, file: Handle, at: u64, data: &[u8]) {
    let make = MakeStripes { handle: file, offset: at, length: data.len() as u64, opened: true };
    world.ask(&root(), make).unwrap();
    let op = Layout {
        handle: file,
        offset: at,
        length: data.len() as u64,
        purpose: LayoutPurpose::Write,
        opened: true,
    };
    let layout = world.ask(&root(), op).unwrap();
    let mut end = None;
    for part in layout.unit.unwrap().parts(at, data.len() as u64) {
        let bytes = &data[part.at as usize..(part.at + part.length) as usize];
        if part.number == 0 {
            world.write(file, at, bytes).unwrap();
            continue;
        }
        let stripe = layout.stripes.iter().find(|stripe| stripe.number == part.number).unwrap();
        assert_eq!(stripe.trimmed, None);
        write_stripe(world, file, stripe.handle, (layout.cut, part.offset), bytes).unwrap();
        end = Some(at + part.at + part.length);
    }
    if let Some(end) = end {
        world.ask(&root(), WriteDone { handle: file, end, cut: layout.cut }).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
    #[test]
    fn a_striped_file_is_like_any_other(acts in proptest::collection::vec(acts(), 1..14)) {
        let (mut world, file) = striped();
        let mut model: Vec<u8> = Vec::new();
        for act in acts {
            match act {
                Act::Write(at, length, seed) => {
                    let data = pattern(length, seed);
                    world.write(file, at, &data).unwrap();
                    put(&mut model, at, &data);
                }
                Act::Append(length, seed) => {
                    let data = pattern(length, seed);
                    let at = world.write_by(&root(), file, WriteAt::End, &data).unwrap();
                    prop_assert_eq!(at, model.len() as u64);
                    put(&mut model, at, &data);
                }
                Act::Direct(at, length, seed) => {
                    let data = pattern(length, seed);
                    write_as_clients_do(&mut world, file, at, &data);
                    put(&mut model, at, &data);
                }
                Act::Truncate(size) => {
                    world.truncate(file, size).unwrap();
                    model.resize(size as usize, 0);
                }
                Act::Shed => shed(&mut world, file),
                Act::CreateOver => {
                    let set = SetAttr { size: Some(0), ..SetAttr::default() };
                    let (how, dir) = (CreateHow::Unchecked, Handle::root());
                    let op = Create { dir, name: name("big"), mode: 0o644, umask: 0, how, set, open: false };
                    world.ask(&root(), op).unwrap();
                    model.clear();
                }
            }
            prop_assert!(contents(&mut world, file) == model, "the bytes differ");
        }
        // What a removed file took elsewhere is known exactly only if its last block is whole.
        world.truncate(file, 8 * UNIT).unwrap();
        world.unlink(&root(), Handle::root(), "big").unwrap();
        shed(&mut world, file);
        prop_assert_eq!(world.memory.flares.len(), 1);
        prop_assert!(world.memory.bodies.is_empty());
    }
}

fn put(model: &mut Vec<u8>, at: u64, data: &[u8]) {
    let end = at as usize + data.len();
    if model.len() < end {
        model.resize(end, 0);
    }
    model[at as usize..end].copy_from_slice(data);
}
