use super::world::*;

use magma_common::attr::SetAttr;
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::proto::limits::{MAX_FILE_SIZE, MAX_IO};
use magma_common::proto::operation::*;
use proptest::prelude::*;

use crate::rows::{Content, INLINE_MAX};

fn new_file() -> (World, Handle) {
    let mut world = World::new();
    let file = world.create(&root(), Handle::root(), "f");
    (world, file)
}

fn allocate(world: &mut World, handle: Handle, offset: u64, length: u64, how: AllocateHow) {
    world.ask(&root(), Allocate { handle, offset, length, how }).unwrap();
}

fn seek(world: &mut World, handle: Handle, offset: u64, whence: SeekWhence) -> Result<u64, FlareError> {
    world.ask(&root(), Seek { handle, offset, whence }).map(|found| found.offset)
}

#[test]
fn a_file_grows_out_of_its_row_into_a_body() {
    let (mut world, file) = new_file();
    world.write(file, 0, &[1; 10_000]).unwrap();
    assert_eq!(world.row(file).content, Content::Inline);
    world.write(file, 10_000, &[2; 6_384]).unwrap();
    assert_eq!(world.row(file).content, Content::Inline, "{INLINE_MAX} bytes still fit");
    world.write(file, INLINE_MAX, b"3").unwrap();
    assert!(matches!(world.row(file).content, Content::Body { high, .. } if high == INLINE_MAX + 1));
    let (data, eof) = world.read(file, 9_999, MAX_IO);
    assert_eq!((data.len(), data[0], data[1], data[6385], eof), (6386, 1, 2, b'3', true));
}

#[test]
fn a_write_over_the_high_mark_is_split_there() {
    let (mut world, file) = new_file();
    world.write(file, 0, &vec![1; 20_000]).unwrap();
    world.write(file, 19_990, &[2; 20]).unwrap();
    assert_eq!(world.changed, 3, "an overwrite, an append and the row");
    assert_eq!(world.read(file, 19_980, 100).0, [vec![1; 10], vec![2; 20]].concat());
    world.write(file, 30_000, b"far").unwrap();
    assert_eq!(world.changed, 2, "an append and the row");
    assert_eq!(world.read(file, 20_009, 3).0, vec![2, 0, 0]);
}

#[test]
fn what_was_cut_off_reads_as_zeros_when_the_file_grows_again() {
    for length in [100u64, 50_000] {
        let (mut world, file) = new_file();
        world.write(file, 0, &vec![7; length as usize]).unwrap();
        world.truncate(file, 10).unwrap();
        world.truncate(file, length).unwrap();
        let (data, eof) = world.read(file, 0, MAX_IO);
        assert!(eof);
        assert_eq!(&data[..11], [7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 0]);
        assert!(data[10..].iter().all(|byte| *byte == 0));
        world.truncate(file, 0).unwrap();
        assert_eq!(world.row(file).content, Content::Inline);
        assert!(world.memory.bodies.is_empty() && world.memory.inline.is_empty());
    }
}

#[test]
fn appends_go_to_the_end_whatever_it_is() {
    let (mut world, file) = new_file();
    for (i, chunk) in [&[1u8; 9_000][..], &[2; 9_000], b"3"].into_iter().enumerate() {
        let offset = world.write_by(&root(), file, WriteAt::End, chunk).unwrap();
        assert_eq!(offset, 9_000 * i as u64);
    }
    world.truncate(file, 100_000).unwrap();
    assert_eq!(world.write_by(&root(), file, WriteAt::End, b"x"), Ok(100_000));
}

#[test]
fn writing_nothing_changes_nothing() {
    let (mut world, file) = new_file();
    assert_eq!(world.write(file, 500, b""), Ok(500));
    assert_eq!((world.changed, world.attr(file).size), (0, 0));
}

#[test]
fn no_file_outgrows_the_limit() {
    let (mut world, file) = new_file();
    assert_eq!(world.write(file, MAX_FILE_SIZE, b"x"), Err(FlareError::FileTooBig));
    assert_eq!(world.write(file, u64::MAX, b"x"), Err(FlareError::FileTooBig));
    assert_eq!(world.write(file, MAX_FILE_SIZE - 1, b"x"), Ok(MAX_FILE_SIZE - 1));
    assert_eq!(world.write_by(&root(), file, WriteAt::End, b"x"), Err(FlareError::FileTooBig));
    let op = Allocate { handle: file, offset: u64::MAX, length: 2, how: AllocateHow::Reserve };
    assert_eq!(world.ask(&root(), op).map(|_| ()), Err(FlareError::FileTooBig));
    assert_eq!(world.write(file, 0, &vec![0; MAX_IO as usize + 1]), Err(FlareError::BadRequest));
}

#[test]
fn only_files_have_bytes() {
    let mut world = World::new();
    let link = world.symlink(Handle::root(), "l", "x");
    assert_eq!(world.write(Handle::root(), 0, b"x"), Err(FlareError::IsDirectory));
    assert_eq!(world.write(link, 0, b"x"), Err(FlareError::Invalid));
    assert_eq!(seek(&mut world, Handle::root(), 0, SeekWhence::Data), Err(FlareError::IsDirectory));
}

#[test]
fn a_write_tells_attributes_before_and_after() {
    let (mut world, file) = new_file();
    world.pass(1);
    let before = world.attr(file);
    let op = Write { handle: file, at: WriteAt::Offset(5), opened: false };
    let (reply, _) = world.exchange(&root(), op, &bytes::Bytes::from_static(b"abc")).unwrap();
    assert_eq!(reply.wcc.before, Some((&before).into()));
    let after = reply.wcc.after.unwrap();
    assert_eq!((after.size, after.mtime, after.ctime, after.atime), (8, world.now, world.now, before.atime));
    assert_eq!(after, world.attr(file));
}

#[test]
fn reserving_extends_or_not() {
    let (mut world, file) = new_file();
    allocate(&mut world, file, 0, 100, AllocateHow::ReserveKeepSize);
    assert_eq!(world.attr(file).size, 0);
    allocate(&mut world, file, 20_000, 3_456, AllocateHow::Reserve);
    assert_eq!(world.attr(file).size, 23_456);
    world.write(file, 10, b"x").unwrap();
    assert_eq!(world.read(file, 9, 3).0, [0, b'x', 0]);
    let none = Allocate { handle: file, offset: 0, length: 0, how: AllocateHow::Reserve };
    assert_eq!(world.ask(&root(), none).map(|_| ()), Err(FlareError::Invalid));
}

#[test]
fn data_and_holes_are_found() {
    let (mut world, file) = new_file();
    let end = Err(FlareError::NoSuchOffset);
    assert_eq!(seek(&mut world, file, 0, SeekWhence::Data), end);
    assert_eq!(seek(&mut world, file, 0, SeekWhence::Hole), end);
    world.write(file, 0, &[1; 100]).unwrap();
    assert_eq!(seek(&mut world, file, 40, SeekWhence::Data), Ok(40));
    assert_eq!(seek(&mut world, file, 40, SeekWhence::Hole), Ok(100));
    world.truncate(file, 500).unwrap();
    assert_eq!(seek(&mut world, file, 100, SeekWhence::Data), end);
    assert_eq!(seek(&mut world, file, 40, SeekWhence::Hole), Ok(100));
    world.write(file, 1 << 20, &[1; 4096]).unwrap();
    world.truncate(file, 1 << 21).unwrap();
    assert_eq!(seek(&mut world, file, 4096, SeekWhence::Data), Ok(1 << 20));
    assert_eq!(seek(&mut world, file, 4096, SeekWhence::Hole), Ok(4096));
    assert_eq!(seek(&mut world, file, 1 << 20, SeekWhence::Hole), Ok((1 << 20) + 4096));
    assert_eq!(seek(&mut world, file, (1 << 20) + 4096, SeekWhence::Data), end);
    assert_eq!(seek(&mut world, file, 1 << 21, SeekWhence::Hole), end);
    allocate(&mut world, file, 1 << 20, 4096, AllocateHow::PunchHole);
    assert_eq!(seek(&mut world, file, 4096, SeekWhence::Data), end);
}

#[test]
fn used_storage_counts_what_is_stored() {
    let (mut world, file) = new_file();
    assert_eq!(world.attr(file).used, 0);
    world.write(file, 0, b"x").unwrap();
    assert_eq!(world.attr(file).used, 512);
    world.truncate(file, 1 << 30).unwrap();
    assert_eq!(world.attr(file).used, 512);
    world.write(file, 1 << 20, &[1; 4096]).unwrap();
    assert!((4096..=8192).contains(&world.attr(file).used));
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64, Vec<u8>),
    Append(Vec<u8>),
    Truncate(u64),
    Allocate(u64, u64, AllocateHow),
    Read(u64, u32),
}

const REACH: u64 = 3 * INLINE_MAX;

fn step() -> impl Strategy<Value = Step> {
    let bytes =
        || (any::<u8>(), prop_oneof![1usize..64, 1usize..20_000]).prop_map(|(byte, len)| vec![byte | 1; len]);
    let how = prop_oneof![
        Just(AllocateHow::Reserve),
        Just(AllocateHow::ReserveKeepSize),
        Just(AllocateHow::PunchHole),
        Just(AllocateHow::Zero),
        Just(AllocateHow::ZeroKeepSize),
    ];
    prop_oneof![
        4 => (0..REACH, bytes()).prop_map(|(at, data)| Step::Write(at, data)),
        2 => bytes().prop_map(Step::Append),
        3 => prop_oneof![Just(0), 0..REACH].prop_map(Step::Truncate),
        2 => (0..REACH, 1..REACH, how).prop_map(|(at, len, how)| Step::Allocate(at, len, how)),
        2 => (0..REACH, 0..40_000u32).prop_map(|(at, len)| Step::Read(at, len)),
    ]
}

fn grow(model: &mut Vec<u8>, end: u64) {
    if (model.len() as u64) < end {
        model.resize(end as usize, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_file_reads_as_the_bytes_that_were_written(steps in proptest::collection::vec(step(), 1..24)) {
        let (mut world, file) = new_file();
        let mut model: Vec<u8> = Vec::new();
        for step in steps {
            match step {
                Step::Write(at, data) => {
                    world.write(file, at, &data).unwrap();
                    grow(&mut model, at + data.len() as u64);
                    model[at as usize..at as usize + data.len()].copy_from_slice(&data);
                }
                Step::Append(data) => {
                    let at = world.write_by(&root(), file, WriteAt::End, &data).unwrap();
                    prop_assert_eq!(at, model.len() as u64);
                    model.extend(data);
                }
                Step::Truncate(size) => {
                    world.set(&root(), file, SetAttr { size: Some(size), ..SetAttr::default() }).unwrap();
                    model.resize(size as usize, 0);
                }
                Step::Allocate(at, len, how) => {
                    allocate(&mut world, file, at, len, how);
                    if matches!(how, AllocateHow::Reserve | AllocateHow::Zero) {
                        grow(&mut model, at + len);
                    }
                    if !matches!(how, AllocateHow::Reserve | AllocateHow::ReserveKeepSize) {
                        let size = model.len() as u64;
                        model[at.min(size) as usize..(at + len).min(size) as usize].fill(0);
                    }
                }
                Step::Read(at, len) => {
                    let (data, eof) = world.read(file, at, len);
                    let size = model.len() as u64;
                    let end = (at + u64::from(len)).min(size);
                    prop_assert_eq!(&data[..], &model[at.min(size) as usize..end.max(at.min(size)) as usize]);
                    prop_assert_eq!(eof, at + u64::from(len) >= size);
                }
            }
            prop_assert_eq!(world.attr(file).size, model.len() as u64);
        }
        prop_assert_eq!(world.read(file, 0, MAX_IO).0, model);
    }
}
