//! What a copy that lacks keys makes of records.

use bytes::Bytes;
use magma_common::attr::Kind;
use magma_common::key::KeyRange;
use magma_common::proto::SessionId;

use super::super::super::{Filtered, Partial, filter};
use super::super::making::{body_change, delete_transaction, entry, flare, put_transaction, transaction};
use crate::missing::Missing;
use crate::record::{BodyChange, Change};
use crate::rows::BodyId;
use crate::transaction::Part;

const BODY: BodyId = BodyId(7);

fn only(number: u64) -> Missing {
    let ino = flare(number, Kind::File).handle.ino();
    Missing::all(KeyRange::single(ino))
}

/// Filters the changes of flare 1, which is missing, with this much of it here.
fn of_missing(partial: Option<Partial>, changes: Vec<Change>, appended: Vec<Bytes>) -> Filtered {
    let missing = only(1);
    filter(changes, appended, |ino| missing.contains(ino), partial)
}

fn bytes_upto(upto: u64) -> Partial {
    Partial::Bytes { flare: flare(1, Kind::File).handle, body: BODY, upto }
}

fn of_body(change: BodyChange) -> Change {
    body_change(BODY, &flare(1, Kind::File), change)
}

#[test]
fn of_two_flares_the_one_that_is_here_changes() {
    let (missing, here) = (flare(1, Kind::File), flare(2, Kind::File));
    let append = |row, body| body_change(BodyId(body), row, BodyChange::Append { offset: 0, length: 1 });
    let changes = vec![
        Change::PutFlare(missing.clone()),
        append(&missing, 1),
        append(&here, 2),
        Change::PutFlare(here.clone()),
    ];
    let bytes = vec![Bytes::from_static(b"m"), Bytes::from_static(b"h")];
    let filtered = of_missing(None, changes, bytes);
    assert_eq!(filtered.changes, [append(&here, 2), Change::PutFlare(here)]);
    assert_eq!(filtered.appended, [&b"h"[..]]);
}

#[test]
fn sessions_and_transactions_come_and_go_whatever_is_missing() {
    let row = transaction(1, Part::Prepared, 10);
    let changes = vec![Change::EndSession(SessionId(3)), put_transaction(&row), delete_transaction(&row)];
    let filtered = filter(changes.clone(), Vec::new(), |_| true, None);
    assert_eq!(filtered.changes, changes);
}

#[test]
fn changes_across_the_mark_are_cut_there() {
    let changes = vec![
        of_body(BodyChange::Overwrite { offset: 5, data: Bytes::from_static(b"0123456789") }),
        of_body(BodyChange::Zero { offset: 9, length: 5 }),
        of_body(BodyChange::Zero { offset: 10, length: 5 }),
        of_body(BodyChange::Append { offset: 20, length: 2 }),
        Change::PutFlare(flare(1, Kind::File)),
    ];
    let filtered = of_missing(Some(bytes_upto(10)), changes, vec![Bytes::from_static(b"xx")]);
    let expected = [
        of_body(BodyChange::Overwrite { offset: 5, data: Bytes::from_static(b"01234") }),
        of_body(BodyChange::Zero { offset: 9, length: 1 }),
    ];
    assert_eq!(filtered.changes, expected);
    assert!(filtered.appended.is_empty());
    assert_eq!(filtered.partial, Some(bytes_upto(10)));
}

#[test]
fn dropping_the_body_ends_the_partial_flare() {
    let filtered = of_missing(Some(bytes_upto(10)), vec![of_body(BodyChange::Drop)], Vec::new());
    assert_eq!(filtered.changes, [of_body(BodyChange::Drop)]);
    assert_eq!(filtered.partial, None);
}

#[test]
fn another_body_of_the_partial_flare_is_not_touched() {
    let other = body_change(BodyId(8), &flare(1, Kind::File), BodyChange::Drop);
    let filtered = of_missing(Some(bytes_upto(10)), vec![other], Vec::new());
    assert_eq!((filtered.changes.len(), filtered.partial), (0, Some(bytes_upto(10))));
}

#[test]
fn once_its_row_is_here_every_change_of_a_directory_applies() {
    let dir = flare(1, Kind::Directory);
    let partial = Some(Partial::Rows { flare: dir.handle });
    let changes = vec![
        Change::PutEntry { dir: dir.key(), entry: entry(4, &flare(2, Kind::File), 9) },
        Change::DeleteEntry { dir: dir.key(), name: entry(5, &dir, 9).name },
        Change::PutFlare(dir.clone()),
    ];
    let filtered = of_missing(partial, changes.clone(), Vec::new());
    assert_eq!((filtered.changes, filtered.partial), (changes, partial));
}

#[test]
fn nothing_of_a_flare_that_follows_a_deleted_one_applies() {
    let dir = flare(1, Kind::Directory);
    let mut next = dir.clone();
    next.handle.birth.0 += 1;
    let partial = Some(Partial::Rows { flare: dir.handle });
    let changes = vec![Change::DeleteFlare(dir.key()), Change::PutFlare(next)];
    let filtered = of_missing(partial, changes, Vec::new());
    assert_eq!(filtered.changes, [Change::DeleteFlare(dir.key())]);
    assert_eq!(filtered.partial, None);
}
