use super::*;

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::key::Ino;
use crate::topology::{BootId, Replica, VolcanoId};

const SESSION: SessionId = SessionId(7);

fn flare(first: u8) -> Handle {
    Handle { key: Key::from_bytes([first; 20]), birth: BirthNumber(1) }
}

fn low() -> Handle {
    flare(0x11)
}

fn high() -> Handle {
    flare(0xee)
}

fn range(half: u64) -> KeyRange {
    let start = half << 63;
    KeyRange::new(Ino(start), Ino(start | u64::MAX >> 1)).unwrap()
}

fn slice(id: u32, range: KeyRange, reign: u64) -> Slice {
    let primary = Replica { volcano: VolcanoId(1), boot: BootId(1) };
    let (epoch, reign) = (Epoch(reign), Epoch(reign));
    let (mirrors, joining) = (Vec::new(), Vec::new());
    let (owner, assigned) = (primary.volcano, epoch);
    Slice {
        id: SliceId(id),
        range,
        epoch,
        reign,
        owner,
        assigned,
        primary,
        mirrors,
        joining,
        recalling: false,
        dividing: None,
    }
}

fn topology(slices: Vec<Slice>) -> Topology {
    Topology { version: 1, slices, ..Topology::default() }
}

/// Two slices, which have been told.
fn told() -> Arc<Opens> {
    let opens = Arc::new(Opens::default());
    opens.begin_session(SESSION);
    opens.tell(SESSION, &slice(1, range(0), 1));
    opens.tell(SESSION, &slice(2, range(1), 1));
    opens
}

fn open(opens: &Opens, handle: Handle) {
    let mut opening = opens.begin(Some(handle));
    assert!(!opening.opened(handle), "nothing was stated meanwhile");
    opening.delivered();
}

/// What the future comes to, if it need not wait.
fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    }
}

/// A statement that is heard: what it says, as a list, and its number.
fn state(opens: &Opens, range: KeyRange) -> (Vec<(Handle, u32)>, u64) {
    let mut stating = now(opens.state(range)).unwrap();
    let (counts, number) = stating.counts();
    stating.heard();
    (counts.into_iter().collect(), number)
}

fn taken(opens: &Arc<Opens>) -> Vec<(Handle, u32)> {
    opens.take_releases().iter().map(|release| (release.handle, release.count)).collect()
}

#[test]
fn a_release_waits_until_its_slice_has_been_told_and_the_statement_settles_it() {
    let opens = Arc::new(Opens::default());
    opens.begin_session(SESSION);
    opens.tell(SESSION, &slice(1, range(0), 1));
    for handle in [low(), high(), high()] {
        open(&opens, handle);
    }
    assert!(opens.release(low()));
    assert!(opens.release(high()));
    assert!(opens.release(high()));
    assert!(!opens.release(high()), "nothing is left to release");
    assert_eq!(taken(&opens), [(low(), 1)]);
    assert_eq!(state(&opens, range(1)).0, [(high(), 0)]);
    opens.tell(SESSION, &slice(2, range(1), 1));
    assert!(taken(&opens).is_empty());
}

#[test]
fn a_statement_concerns_its_range_only() {
    let opens = told();
    open(&opens, low());
    open(&opens, high());
    open(&opens, high());
    assert!(opens.release(low()));
    assert_eq!(state(&opens, range(1)).0, [(high(), 2)]);
    assert_eq!(taken(&opens), [(low(), 1)], "it is not settled");
}

#[test]
fn a_statement_waits_for_releases_under_way_and_they_for_it() {
    let opens = told();
    for handle in [high(), high(), low(), high()] {
        open(&opens, handle);
    }
    opens.release(high());
    let under_way = opens.take_releases();
    assert_eq!(under_way.len(), 1);
    opens.release(high());
    assert!(taken(&opens).is_empty(), "one at a time of each flare");
    assert!(now(opens.state(range(1))).is_none());
    let other = now(opens.state(range(0))).expect("the other slice does not wait");
    drop((under_way, other));
    let stating = now(opens.state(range(1))).unwrap();
    assert!(taken(&opens).is_empty(), "it is being stated");
    drop(stating);
    assert_eq!(taken(&opens), [(high(), 1)]);
}

#[test]
fn statements_about_one_flare_follow_each_other() {
    let opens = told();
    let of_slice = now(opens.state(range(1))).unwrap();
    let of_flare = KeyRange::single(high().key.ino());
    assert!(now(opens.state(of_flare)).is_none());
    assert!(now(opens.state(KeyRange::single(low().key.ino()))).is_some());
    drop(of_slice);
    assert!(now(opens.state(of_flare)).is_some());
}

#[test]
fn an_open_under_way_counts_as_open_and_is_stated_again_when_it_has_ended() {
    let opens = told();
    open(&opens, high());
    let mut under_way = opens.begin(Some(high()));
    assert_eq!(state(&opens, range(1)).0, [(high(), 2)]);
    assert!(under_way.opened(high()), "the primary may have counted it before and after that");
    assert_eq!(state(&opens, KeyRange::single(high().key.ino())).0, [(high(), 2)]);
    under_way.delivered();
    assert!(opens.take_doubtful().is_empty());
}

#[test]
fn an_open_is_stated_again_only_if_its_own_slice_was_told_meanwhile() {
    let opens = told();
    let mut of_low = opens.begin(Some(low()));
    let mut of_high = opens.begin(None);
    state(&opens, range(1));
    assert!(!of_low.opened(low()));
    assert!(of_high.opened(high()));
}

#[test]
fn statements_are_remembered_as_long_as_an_open_is_under_way() {
    let opens = told();
    let mut under_way = opens.begin(None);
    state(&opens, KeyRange::single(high().key.ino()));
    for first in 0..100 {
        state(&opens, KeyRange::single(flare(first).key.ino()));
    }
    assert!(under_way.opened(high()));
    under_way.delivered();
    state(&opens, range(0));
    assert_eq!(lock(&opens.state).stated.len(), 1);
}

#[test]
fn an_open_that_failed_after_it_was_stated_is_put_right() {
    let opens = told();
    let under_way = opens.begin(Some(high()));
    drop(opens.begin(Some(low())));
    assert_eq!(state(&opens, range(1)).0, [(high(), 1)]);
    drop(under_way);
    assert_eq!(opens.take_doubtful(), [high()]);
}

#[test]
fn a_success_that_nobody_heard_of_is_given_back() {
    let opens = told();
    let mut under_way = opens.begin(None);
    state(&opens, range(1));
    assert!(under_way.opened(high()));
    drop(under_way);
    assert_eq!(opens.take_doubtful(), [high()]);
    assert!(!opens.release(high()), "it does not count any more");
}

#[test]
fn an_orphan_is_stated_once_its_slice_has_been_told() {
    let opens = told();
    open(&opens, high());
    opens.orphaned(high());
    opens.begin_session(SessionId(8));
    assert!(opens.take_doubtful().is_empty());
    opens.tell(SessionId(8), &slice(2, range(1), 1));
    assert_eq!(opens.take_doubtful(), [high()]);
}

#[test]
fn what_was_stated_in_vain_is_stated_again() {
    let opens = told();
    open(&opens, high());
    opens.release(high());
    for _ in 0..2 {
        let mut stating = now(opens.state(range(1))).unwrap();
        assert_eq!(stating.counts().0, BTreeMap::from([(high(), 0)]));
    }
    assert_eq!(state(&opens, range(1)).0, [(high(), 0)]);
    assert!(state(&opens, range(1)).0.is_empty());
}

#[test]
fn a_creation_under_way_holds_up_the_end_of_a_statement() {
    let opens = told();
    let mut creating = opens.begin(None);
    let opening = opens.begin(Some(high()));
    let (_, number) = state(&opens, range(1));
    let later = opens.begin(None);
    assert!(opens.is_creating(number));
    assert!(creating.opened(high()));
    assert!(now(opens.created(number)).is_none(), "until it has been stated");
    creating.delivered();
    assert!(now(opens.created(number)).is_some());
    drop((opening, later));
}

#[test]
fn slices_of_another_reign_and_slices_that_are_new_have_to_be_told() {
    let opens = told();
    let all = topology(vec![slice(1, range(0), 1), slice(2, range(1), 1)]);
    opens.heed(&all);
    assert!(opens.untold(&all).is_empty());
    let promoted = topology(vec![slice(1, range(0), 1), slice(2, range(1), 5)]);
    opens.heed(&promoted);
    assert_eq!(opens.untold(&promoted), [SliceId(2)]);
    let quarter = |n: u64| KeyRange::new(Ino(n << 62), Ino(n << 62 | u64::MAX >> 2)).unwrap();
    let split = topology(vec![slice(1, quarter(0), 1), slice(3, quarter(1), 6), slice(2, range(1), 5)]);
    opens.heed(&split);
    assert_eq!(opens.untold(&split), [SliceId(3), SliceId(2)]);
    open(&opens, flare(0x55));
    opens.release(flare(0x55));
    assert!(taken(&opens).is_empty(), "what the slice has given away it has not been told");
    opens.heed(&promoted);
    assert_eq!(opens.untold(&promoted), [SliceId(1), SliceId(2)], "a slice that has grown, too");
}

#[test]
fn what_was_told_in_a_session_that_has_ended_does_not_count() {
    let opens = told();
    let all = topology(vec![slice(1, range(0), 1), slice(2, range(1), 1)]);
    opens.begin_session(SessionId(8));
    opens.tell(SESSION, &slice(1, range(0), 1));
    assert_eq!(opens.untold(&all), [SliceId(1), SliceId(2)]);
}

#[test]
fn many_releases_to_one_slice_leave_room_for_those_to_others() {
    let opens = told();
    let many = (0..1000).map(|birth| Handle { birth: BirthNumber(birth), ..high() });
    for handle in many.chain([low()]) {
        open(&opens, handle);
        opens.release(handle);
    }
    let under_way = opens.take_releases();
    assert_eq!(under_way.len(), WIDTH + 1);
    assert!(under_way.iter().any(|release| release.handle == low()));
    assert!(opens.take_releases().is_empty());
}

#[test]
fn an_open_that_may_overtake_a_statement_is_stated_again() {
    let opens = told();
    open(&opens, high());
    let mut stating = now(opens.state(range(1))).unwrap();
    assert_eq!(stating.counts().0, BTreeMap::from([(high(), 1)]));
    let mut overtakes = opens.begin(Some(high()));
    let mut elsewhere = opens.begin(Some(low()));
    let mut creating = opens.begin(None);
    stating.heard();
    assert!(overtakes.opened(high()), "the statement does not contain it, and may have come later");
    assert!(!elsewhere.opened(low()));
    assert!(creating.opened(high()));
    for opening in [overtakes, elsewhere, creating] {
        opening.delivered();
    }
    open(&opens, high());
}

#[test]
fn a_statement_of_which_nobody_knows_whether_it_comes_can_be_overtaken_until_a_newer_one_is_heard() {
    let opens = told();
    let all = KeyRange::new(range(0).start(), range(1).stop()).unwrap();
    let mut in_doubt = now(opens.state(all)).unwrap();
    in_doubt.counts();
    drop(in_doubt);
    state(&opens, range(1));
    open(&opens, high());
    let mut opening = opens.begin(Some(low()));
    assert!(opening.opened(low()));
    opening.delivered();
    state(&opens, range(0));
    open(&opens, low());
}
