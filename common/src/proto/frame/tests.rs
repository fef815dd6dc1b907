use super::*;

use proptest::prelude::*;

use crate::fake;
use crate::handle::Handle;
use crate::proto::operation::{Getattr, ReadReply, Write, WriteAt};

fn join(encoded: &Encoded) -> BytesMut {
    let mut bytes = BytesMut::from(&encoded.head[..]);
    bytes.extend_from_slice(&encoded.payload);
    bytes
}

prop_compose! {
    fn any_header()(
        tag: u32, flags: (bool, bool), versions: (u64, u64), numbers: (u64, u64), call: Option<u128>,
        deadline_ms in proptest::option::of(1_u32..), ids: (u32, u32),
        groups in proptest::collection::vec(any::<u32>(), 0..64),
    ) -> RequestHeader {
        RequestHeader {
            tag: Tag(tag),
            durability: if flags.0 { Durability::Stable } else { Durability::Replicated },
            topology_version: versions.0,
            session: SessionId(versions.1),
            sequence: numbers.0,
            acknowledged: numbers.1,
            call,
            deadline_ms,
            forwarded: flags.1,
            credentials: Credentials { uid: ids.0, gid: ids.1, groups },
        }
    }
}

proptest! {
    #[test]
    fn a_request_survives_the_round_trip(
        header in any_header(), offset in 0_u64..1 << 40,
        payload in proptest::collection::vec(any::<u8>(), 0..5000),
    ) {
        let write = Request::from(Write { handle: Handle::root(), at: WriteAt::Offset(offset), opened: true });
        let body = write.encode().unwrap();
        let encoded = request(&header, write.opcode(), &body, Bytes::from(payload.clone())).unwrap();
        let mut wire = join(&encoded);
        let Some(Frame::Request(frame)) = Frame::decode(&mut wire).unwrap() else { panic!() };
        prop_assert!(wire.is_empty());
        prop_assert_eq!(&frame.header, &header);
        prop_assert_eq!(frame.request().unwrap(), write);
        prop_assert_eq!(&frame.payload[..], &payload[..]);
    }

    #[test]
    fn random_bytes_neither_panic_nor_pass_for_more_than_they_are(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut wire = BytesMut::from(&bytes[..]);
        while let Ok(Some(frame)) = Frame::decode(&mut wire) {
            prop_assert!(size_of_parts(&frame) <= bytes.len());
        }
    }

    #[test]
    fn damaged_frames_neither_panic_nor_pass_for_more_than_they_are(
        header in any_header(), at in 0_usize..100, value: u8, cut in 0_usize..100,
    ) {
        let body = Request::from(Getattr { handle: Handle::root() }).encode().unwrap();
        let mut wire = join(&request(&header, 12, &body, Bytes::new()).unwrap());
        let at = at % wire.len();
        wire[at] = value;
        wire.truncate(wire.len() - cut % wire.len());
        let length = wire.len();
        if let Ok(Some(frame)) = Frame::decode(&mut wire) {
            prop_assert!(size_of_parts(&frame) <= length);
            if let Frame::Request(frame) = frame {
                let _ = frame.request();
            }
        }
    }

    #[test]
    fn random_bodies_of_any_operation_do_not_panic(
        opcode in 0_u16..52, body in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        if let Ok(request) = Request::decode(opcode, &body) {
            let _ = request.check(0);
        }
        let _ = Reply::decode(opcode, &body);
    }
}

fn size_of_parts(frame: &Frame) -> usize {
    match frame {
        Frame::Request(frame) => {
            frame.header.credentials.groups.len() * 4 + frame.body.len() + frame.payload.len()
        }
        Frame::Reply(frame) => frame.body.len() + frame.payload.len(),
        Frame::Hello(_) | Frame::Cancel(_) => 0,
    }
}

#[test]
fn replies_and_failures_survive_the_round_trip() {
    let reply_body = Reply::EndSession(());
    let mut wire = join(&reply(Tag(7), 3, 9, Ok((&reply_body, Bytes::new()))).unwrap());
    let failure = Failure::from(FlareError::NotFound);
    wire.unsplit(join(&reply(Tag(8), 12, 10, Err(&failure)).unwrap()));
    let Some(Frame::Reply(first)) = Frame::decode(&mut wire).unwrap() else { panic!() };
    assert_eq!((first.tag, first.topology_version), (Tag(7), 9));
    assert_eq!(first.outcome(), Ok(Ok((reply_body, Bytes::new()))));
    let Some(Frame::Reply(second)) = Frame::decode(&mut wire).unwrap() else { panic!() };
    assert_eq!(second.outcome(), Ok(Err(failure)));
}

#[test]
fn a_header_announcing_two_gibibytes_is_refused_before_anything_is_allocated() {
    let mut wire = BytesMut::from(&[0x80, 0, 0, 0][..]);
    assert!(matches!(Frame::decode(&mut wire), Err(FrameError::Length(_))));
}

#[test]
fn a_group_list_of_any_claimed_length_is_held_against_the_frame() {
    let mut wire = join(&request(&crate::fake::header(1), 12, &[], Bytes::new()).unwrap());
    wire[10] = 0xff;
    wire[11] = 0xff;
    assert_eq!(Frame::decode(&mut wire), Err(FrameError::Parts));
}

#[test]
fn frames_from_another_version_and_of_unknown_type_are_refused() {
    let mut wire = join(&hello(StreamClass::Bulk));
    wire[4] = 9;
    assert_eq!(Frame::decode(&mut wire), Err(FrameError::Version(9)));
    let mut wire = join(&cancel(Tag(5)));
    wire[5] = 77;
    assert_eq!(Frame::decode(&mut wire), Err(FrameError::Type(77)));
    let mut wire = join(&cancel(Tag(5)));
    assert_eq!(Frame::decode(&mut wire), Ok(Some(Frame::Cancel(Tag(5)))));
}

#[test]
fn a_frame_that_is_not_whole_yet_is_waited_for() {
    let whole = join(&hello(StreamClass::Metadata));
    for length in 0..whole.len() {
        let mut part = BytesMut::from(&whole[..length]);
        assert_eq!(Frame::decode(&mut part), Ok(None));
        assert_eq!(part.len(), length);
    }
}

#[test]
fn the_largest_write_fits_a_frame_and_nothing_larger_does() {
    let header = RequestHeader {
        tag: Tag(1),
        durability: Durability::Stable,
        topology_version: 1,
        session: SessionId(1),
        sequence: 1,
        acknowledged: 0,
        call: Some(1),
        deadline_ms: None,
        forwarded: false,
        credentials: Credentials { uid: 1, gid: 1, groups: vec![7; MAX_GROUPS] },
    };
    let full = Bytes::from(vec![1; MAX_IO as usize]);
    let encoded = request(&header, 29, &vec![0; MAX_BODY as usize], full).unwrap();
    assert_eq!(encoded.len(), MAX_FRAME);
    assert!(Frame::decode(&mut join(&encoded)).unwrap().is_some());
    let more = Bytes::from(vec![1; MAX_IO as usize + 1]);
    assert_eq!(request(&header, 29, &[], more), Err(FlareError::TooBig));
}

#[test]
fn a_read_reply_carries_its_payload_untouched() {
    let now = crate::time::Timestamp::now();
    let attr = crate::attr::Attr {
        handle: Handle::root(),
        kind: crate::attr::Kind::File,
        mode: 0o644,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        size: 3,
        used: 512,
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
        change: 1,
    };
    let payload = Bytes::from_static(b"abc");
    let body = Reply::Read(ReadReply { eof: true, attr });
    let encoded = reply(Tag(1), 28, 1, Ok((&body, payload.clone()))).unwrap();
    assert_eq!(encoded.payload.as_ptr(), payload.as_ptr());
    let Some(Frame::Reply(frame)) = Frame::decode(&mut join(&encoded)).unwrap() else { panic!() };
    assert_eq!(frame.outcome(), Ok(Ok((body, payload))));
}

/// The frame that `docs/PROTOCOL.md` shows byte by byte.
#[test]
fn the_example_in_the_document_is_what_goes_over_the_wire() {
    let document = include_str!("../../../../docs/PROTOCOL.md");
    let shown = document.split("**Example.**").nth(1).unwrap().split("\n## ").next().unwrap();
    let is_byte = |word: &&str| word.len() == 2 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let lines = shown.lines().filter(|line| line.starts_with("    "));
    let bytes: Vec<u8> = lines
        .flat_map(|line| line.split_whitespace().take_while(is_byte))
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    let header = RequestHeader { topology_version: 1, session: SessionId(2), ..fake::header(1) };
    let getattr = Request::from(Getattr { handle: Handle::root() });
    let encoded = request(&header, getattr.opcode(), &getattr.encode().unwrap(), Bytes::new()).unwrap();
    assert_eq!(&encoded.head[..], &bytes[..]);
}
