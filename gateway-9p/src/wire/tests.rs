use super::*;

use codec::{Data, Qid, Text};
use proptest::prelude::*;

use crate::fuzz;

fn text() -> impl Strategy<Value = Text> {
    prop::collection::vec(any::<u8>(), 0..40).prop_map(Text::new)
}

fn data() -> impl Strategy<Value = Data> {
    prop::collection::vec(any::<u8>(), 0..400).prop_map(|bytes| Data(bytes.into()))
}

fn qid() -> impl Strategy<Value = Qid> {
    any::<(u8, u32, u64)>().prop_map(|(kind, version, path)| Qid { kind, version, path })
}

fn time() -> impl Strategy<Value = attr::Time> {
    any::<(u64, u64)>().prop_map(|(seconds, nanos)| attr::Time { seconds, nanos })
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        (any::<u32>(), text()).prop_map(|(msize, version)| Tversion { msize, version }.into()),
        (any::<(u32, u32, u32)>(), text(), text()).prop_map(|((fid, afid, n_uname), uname, aname)| {
            Tattach { fid, afid, uname, aname, n_uname }.into()
        }),
        any::<u16>().prop_map(|oldtag| Tflush { oldtag }.into()),
        (any::<(u32, u32)>(), prop::collection::vec(text(), 0..=16))
            .prop_map(|((fid, newfid), wnames)| Twalk { fid, newfid, wnames }.into()),
        (any::<(u32, u32, u32, u32)>(), text()).prop_map(|((fid, flags, mode, gid), name)| Tlcreate {
            fid,
            name,
            flags,
            mode,
            gid
        }
        .into()),
        (any::<(u32, u64)>(), data()).prop_map(|((fid, offset), data)| Twrite { fid, offset, data }.into()),
        any::<(u32, Option<u32>)>().prop_map(|(fid, datasync)| Tfsync { fid, datasync }.into()),
        (any::<(u32, u32, u32, u32, u32, u64)>(), time(), time()).prop_map(
            |((fid, valid, mode, uid, gid, size), atime, mtime)| {
                Tsetattr { fid, valid, mode, uid, gid, size, atime, mtime }.into()
            }
        ),
        (any::<(u32, u8, u32, u64, u64, u32)>(), text()).prop_map(
            |((fid, kind, flags, start, length, proc_id), client_id)| {
                Tlock { fid, kind, flags, start, length, proc_id, client_id }.into()
            }
        ),
        (any::<(u32, u32)>(), text(), text()).prop_map(|((olddirfid, newdirfid), oldname, newname)| {
            Trenameat { olddirfid, oldname, newdirfid, newname }.into()
        }),
        (any::<(u32, u64, u32)>(), text()).prop_map(|((fid, attr_size, flags), name)| Txattrcreate {
            fid,
            name,
            attr_size,
            flags
        }
        .into()),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        any::<u32>().prop_map(|ecode| Rlerror { ecode }.into()),
        prop::collection::vec(qid(), 0..=16).prop_map(|wqids| Rwalk { wqids }.into()),
        data().prop_map(|data| Rread { data }.into()),
        data().prop_map(|data| Rreaddir { data }.into()),
        (qid(), any::<u32>()).prop_map(|(qid, iounit)| Rlopen { qid, iounit }.into()),
        Just(Rclunk {}.into()),
    ]
}

proptest! {
    #[test]
    fn encoding_a_request_loses_nothing(request in request(), tag: u16) {
        let bytes = request.encode(tag);
        prop_assert_eq!(&bytes[..4], &(bytes.len() as u32).to_le_bytes());
        prop_assert_eq!(bytes[4], request.kind());
        prop_assert_eq!(&bytes[5..7], &tag.to_le_bytes());
        prop_assert_eq!(Request::decode(bytes[4], bytes.slice(HEADER..)), Ok(request));
    }

    #[test]
    fn a_reply_encoded_apart_is_the_same_bytes(reply in reply(), tag: u16) {
        let bytes = reply.encode(tag);
        let apart = reply.clone().encode_apart(tag);
        prop_assert_eq!(&[&apart.head[..], &apart.payload[..]].concat(), &bytes);
        prop_assert_eq!(Reply::decode(bytes[4], bytes.slice(HEADER..)), Ok(reply));
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(stream in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzz::requests(&stream);
        fuzz::replies(&stream);
    }

    #[test]
    fn a_message_cut_short_or_drawn_out_is_refused(request in request(), cut: prop::sample::Index, more: u8) {
        let bytes = request.encode(0);
        let body = bytes.slice(HEADER..);
        let cut = body.slice(..cut.index(body.len() + 1));
        if cut.len() < body.len() && !matches!(request, Request::Tfsync(_)) {
            prop_assert!(Request::decode(bytes[4], cut).is_err());
        }
        let longer = [&body[..], &[more]].concat();
        prop_assert!(Request::decode(bytes[4], longer.into()).is_err());
    }

    #[test]
    fn a_mutated_message_is_taken_or_refused(request in request(), at: prop::sample::Index, to: u8) {
        let mut bytes = request.encode(0).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = to;
        fuzz::requests(&bytes);
    }
}

#[test]
fn a_count_that_claims_more_than_came_allocates_nothing() {
    let mut walk = vec![1, 0, 0, 0, 2, 0, 0, 0];
    walk.extend_from_slice(&u16::MAX.to_le_bytes());
    assert_eq!(Request::decode(110, walk.into()), Err(Malformed::TooMany.into()));
    let mut write = vec![0; 12];
    write.extend_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(Request::decode(118, write.into()), Err(Malformed::Short.into()));
}

#[test]
fn messages_of_other_dialects_and_replies_are_no_requests() {
    for kind in [0, 6, 7, 101, 106, 112, 114, 117, 124, 126, 255] {
        assert_eq!(Request::decode(kind, Bytes::new()), Err(DecodeError::Unknown(kind)));
    }
}

#[test]
fn a_fsync_is_taken_with_and_without_its_second_field() {
    let without = Request::decode(50, Bytes::from_static(&[7, 0, 0, 0])).unwrap();
    assert_eq!(without, Tfsync { fid: 7, datasync: None }.into());
    let with = Request::decode(50, Bytes::from_static(&[7, 0, 0, 0, 1, 0, 0, 0])).unwrap();
    assert_eq!(with, Tfsync { fid: 7, datasync: Some(1) }.into());
}

#[test]
fn a_walk_as_linux_sends_it_is_understood() {
    // Captured layout: fid 1, newfid 2, two names "usr" and a byte that is no UTF-8.
    let body = [1, 0, 0, 0, 2, 0, 0, 0, 2, 0, 3, 0, b'u', b's', b'r', 1, 0, 0xff];
    let walk = Request::decode(110, Bytes::copy_from_slice(&body)).unwrap();
    let wnames = vec![Text::new(&b"usr"[..]), Text::new(&b"\xff"[..])];
    assert_eq!(walk, Twalk { fid: 1, newfid: 2, wnames }.into());
}
