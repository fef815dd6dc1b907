//! Operations across slices that different volcanos serve, and what becomes of them when one of these is lost.

use magma_common::attr::SetAttr;
use magma_common::name::Name;
use magma_common::proto::Operation;
use magma_common::proto::operation::{
    Create, CreateHow, Link, Lookup, Mkdir, Open, Readdir, Release, Rename, RenameHow, Rmdir, Unlink,
};

use super::ring::header;
use super::*;
use crate::coordinator::SliceChange;
use crate::slice::across::message::AcrossMessage;
use crate::transaction::Part;

const SLICES: u32 = 6;

/// A client of a ring: asks the volcano that serves the flare.
pub(super) struct Caller {
    pub(super) session: SessionId,
    pub(super) sequence: u64,
}

/// Three volcanos, each of which serves two of six slices, and a client.
pub(super) fn shared_ring() -> (Ring, Caller) {
    let mut ring = three_with(SLICES);
    for number in [1, 2, 3] {
        // A mirror takes over what it mirrors, as far as it has not got two slices already.
        let replica = ring.running[&number].replica();
        let led =
            |ring: &Ring| ring.topology().slices.iter().filter(|slice| slice.primary == replica).count();
        for slice in ring.topology().slices.clone() {
            if led(&ring) < 2 && slice.mirrors.contains(&replica) {
                assign(&mut ring, slice.id, replica);
            }
        }
    }
    let primaries: std::collections::BTreeSet<_> =
        ring.topology().slices.iter().map(|slice| slice.primary).collect();
    assert!(primaries.len() > 1, "several volcanos serve");
    let caller = Caller::new(&mut ring);
    (ring, caller)
}

/// Whether every slice has the copies that it should have, and is served by the one that should serve it.
pub(super) fn settled(ring: &Ring) -> bool {
    let topology = ring.topology();
    let is_settled = |slice: &Slice| {
        let mut copies: Vec<VolcanoId> = slice.copies().map(|copy| copy.volcano).collect();
        let mut group = topology.group(slice);
        let is_first = copies.first() == group.first();
        copies.sort_unstable();
        group.sort_unstable();
        is_first && copies == group && slice.joining.is_empty()
    };
    ring.all_served() && topology.slices.iter().all(is_settled)
}

fn assign(ring: &mut Ring, slice: SliceId, to: magma_common::topology::Replica) {
    let epoch = ring.topology().slices.iter().find(|known| known.id == slice).unwrap().epoch;
    ring.propose(1, &Change::Slice(slice, epoch, SliceChange::Assign(to.volcano)));
    ring.until(|ring| {
        settled(ring) && ring.topology().slices.iter().any(|known| known.id == slice && known.primary == to)
    });
}

pub(super) fn served_by(ring: &Ring, key: &magma_common::key::Key) -> u8 {
    let primary = ring.topology().slice_of(key).unwrap().primary;
    *ring.running.iter().find(|(_, node)| node.replica() == primary).unwrap().0
}

impl Caller {
    /// A client with a session.
    pub(super) fn new(ring: &mut Ring) -> Self {
        let home = served_by(ring, &Handle::root().key);
        let opened = ring.ask(home, OpenSession { client: "a test".into() }, false);
        ring.until(|ring| ring.answers.contains_key(&opened));
        let Ok((Reply::OpenSession(opened), _)) = &ring.answers[&opened] else { panic!("it is opened") };
        Self { session: opened.session, sequence: 0 }
    }

    /// Sends a request under this operation id, and does not wait.
    pub(super) fn send(&self, ring: &mut Ring, request: impl Into<Request>, sequence: u64) -> Ticket {
        self.send_with(ring, request, Bytes::new(), sequence)
    }

    /// The same with bytes.
    pub(super) fn send_with(
        &self,
        ring: &mut Ring,
        request: impl Into<Request>,
        payload: Bytes,
        sequence: u64,
    ) -> Ticket {
        let request = request.into();
        let number = served_by(ring, &request.key().unwrap_or(Handle::root().key));
        let ticket = Ticket(ring.seed);
        ring.seed += 1;
        let header = header(self.session, sequence);
        let call = Call { header, deadline: None, request, payload };
        let now = ring.now;
        let node = ring.running.get_mut(&number).unwrap();
        node.request(now, ticket, call);
        node.batch_end(now);
        ticket
    }

    pub(super) fn ask<O: Operation>(
        &mut self,
        ring: &mut Ring,
        operation: O,
    ) -> Result<O::Reply, FlareError> {
        self.sequence += 1;
        let request: Request = operation.into();
        loop {
            let ticket = self.send(ring, request.clone(), self.sequence);
            ring.until(|ring| ring.answers.contains_key(&ticket) || ring.forwards.contains_key(&ticket));
            match ring.answers.remove(&ticket) {
                Some(Ok((reply, _))) => return Ok(O::reply(reply).unwrap()),
                Some(Err(failure)) if failure.error != FlareError::Unavailable => return Err(failure.error),
                // It does not serve the slice any more, or not yet.
                _ => ring.step(),
            }
        }
    }

    pub(super) fn mkdir(&mut self, ring: &mut Ring, dir: Handle, child: &str) -> Handle {
        let made = Mkdir { dir, name: name(child), mode: 0o755, umask: 0, set: SetAttr::default() };
        self.ask(ring, made).unwrap().attr.handle
    }
}

pub(super) fn name(text: &str) -> Name {
    Name::new(text.to_owned()).unwrap()
}

pub(super) fn create(dir: Handle, child: &str) -> Create {
    let (how, set) = (CreateHow::Guarded, SetAttr::default());
    Create { dir, name: name(child), mode: 0o644, umask: 0, how, set, open: false }
}

/// Every copy's rows of transactions.
fn remembered(ring: &Ring, part: Part) -> usize {
    let rows = |node: &Node| {
        // What is left of a copy that was taken out is nobody's.
        let keeps = |slice: &&Slice| slice.in_sync().any(|copy| copy == node.replica());
        let slices = ring.topology().slices.iter().filter(keeps);
        let of = |slice: &Slice| node.store().transactions(slice.id).unwrap();
        slices.flat_map(of).filter(|row| row.part == part).count()
    };
    ring.running.values().map(rows).sum()
}

pub(super) fn is_settled(ring: &Ring) -> bool {
    [Part::Prepared, Part::Applied, Part::Driven].iter().all(|part| remembered(ring, *part) == 0)
}

/// A name below the root whose flare is served by another volcano than the root.
fn foreign_name(ring: &Ring) -> String {
    let home = served_by(ring, &Handle::root().key);
    let is_foreign = |text: &String| {
        served_by(ring, &magma_common::key::BirthString::root().child(text.as_bytes()).key()) != home
    };
    (0..100).map(|number| format!("file{number}")).find(is_foreign).unwrap()
}

/// What was asked of a flare elsewhere counted for one of its names only, so that a listing with two asked for ever, each time because
/// of the other one.
#[test]
fn a_listing_with_two_names_of_a_flare_elsewhere_is_answered() {
    let (mut ring, mut caller) = shared_ring();
    let first = foreign_name(&ring);
    let file = caller.ask(&mut ring, create(Handle::root(), &first)).unwrap().attr.handle;
    for second in ["a second name", "a third name"] {
        caller.ask(&mut ring, Link { handle: file, dir: Handle::root(), name: name(second) }).unwrap();
    }
    let list = Readdir { dir: Handle::root(), cookie: 0, limit: 10, attributes: true, opened: false };
    let listed = caller.ask(&mut ring, list).unwrap();
    let links: Vec<u32> = listed.entries.iter().map(|entry| entry.attr.as_ref().unwrap().nlink).collect();
    assert_eq!(links, [3, 3, 3]);
}

#[test]
fn a_tree_over_all_slices_is_one_tree() {
    let (mut ring, mut caller) = shared_ring();
    let root = Handle::root();
    let mut dirs = vec![root];
    for number in 0..8 {
        let below = dirs[number / 2];
        dirs.push(caller.mkdir(&mut ring, below, &format!("d{number}")));
    }
    for (number, dir) in dirs.iter().enumerate() {
        for file in 0..4 {
            caller.ask(&mut ring, create(*dir, &format!("f{number}.{file}"))).unwrap();
        }
    }
    let again = caller.ask(&mut ring, create(root, "f0.0"));
    assert_eq!(again.err(), Some(FlareError::Exists));
    for number in 1..dirs.len() {
        let (from_dir, to_dir) = (dirs[number], dirs[number - 1]);
        let (from_name, to_name) = (name(&format!("f{number}.0")), name(&format!("moved{number}")));
        let how = RenameHow::Replace;
        caller.ask(&mut ring, Rename { from_dir, from_name, to_dir, to_name, how }).unwrap();
        caller.ask(&mut ring, Unlink { dir: from_dir, name: name(&format!("f{number}.1")) }).unwrap();
    }
    // A directory never comes to lie below itself, wherever the ones between are.
    let how = RenameHow::Replace;
    let (from_dir, from_name, to_dir) = (root, name("d0"), *dirs.last().unwrap());
    let below_itself = Rename { from_dir, from_name, to_dir, to_name: name("loop"), how };
    let refused = caller.ask(&mut ring, below_itself).map(drop);
    let expected =
        if lies_below(&mut ring, &mut caller, to_dir, dirs[1]) { Err(FlareError::Invalid) } else { Ok(()) };
    assert_eq!(refused, expected);
    let full = caller.ask(&mut ring, Rmdir { dir: root, name: name("d1") }).map(drop);
    assert_eq!(full, Err(FlareError::NotEmpty));
    for number in 1..dirs.len() {
        let dir = dirs[number - 1];
        caller.ask(&mut ring, Lookup { dir, name: name(&format!("moved{number}")) }).unwrap();
        let gone = caller.ask(&mut ring, Lookup { dir: dirs[number], name: name(&format!("f{number}.1")) });
        assert_eq!(gone.err(), Some(FlareError::NotFound));
    }
    ring.until(is_settled);
}

/// A directory that is moved is looked for among the ancestors of its new place, one question after the other, and once more when nobody else can move
/// one: all of them at once then.
#[test]
fn the_way_up_is_gone_once_for_a_move_that_nobody_disturbs() {
    const DEPTH: u32 = 40;
    const WAY: Duration = Duration::from_millis(5);
    let (mut ring, mut caller) = shared_ring();
    let mut deep = Handle::root();
    for _ in 0..DEPTH {
        deep = caller.mkdir(&mut ring, deep, "d");
    }
    caller.mkdir(&mut ring, Handle::root(), "moved");
    ring.until(is_settled);
    ring.pace = Some(WAY);
    let (from_name, to_name, how) = (name("moved"), name("there"), RenameHow::Replace);
    let begun = ring.now.monotonic;
    caller
        .ask(&mut ring, Rename { from_dir: Handle::root(), from_name, to_dir: deep, to_name, how })
        .unwrap();
    let took = ring.now.monotonic.saturating_sub(begun);
    // A question and its answer for each ancestor, and ten for the rest.
    assert!(took < 2 * WAY * (DEPTH + 10), "{took:?}");
}

fn lies_below(ring: &mut Ring, caller: &mut Caller, mut dir: Handle, ancestor: Handle) -> bool {
    while dir != Handle::root() {
        if dir == ancestor {
            return true;
        }
        let parent = magma_common::proto::operation::LookupParent { dir };
        dir = caller.ask(ring, parent).unwrap().attr.handle;
    }
    false
}

#[test]
fn what_a_lost_driver_had_prepared_and_not_committed_has_not_happened() {
    let (mut ring, mut caller) = shared_ring();
    let file = foreign_name(&ring);
    // The session is known everywhere.
    caller.ask(&mut ring, create(Handle::root(), "before")).unwrap();
    ring.until(is_settled);
    ring.is_lost = |message| matches!(message, Message::Across(_, message) if matches!(**message, AcrossMessage::Prepared { .. }));
    caller.sequence += 1;
    let ticket = caller.send(&mut ring, create(Handle::root(), &file), caller.sequence);
    ring.until(|ring| remembered(ring, Part::Prepared) > 0);
    assert!(!ring.answers.contains_key(&ticket));
    let driver = served_by(&ring, &Handle::root().key);
    drop(ring.running.remove(&driver));
    ring.is_lost = |_| false;
    ring.until(|ring| ring.all_served() && is_settled(ring));
    let missing = caller.ask(&mut ring, Lookup { dir: Handle::root(), name: name(&file) });
    assert_eq!(missing.err(), Some(FlareError::NotFound));
    caller.ask(&mut ring, create(Handle::root(), &file)).unwrap();
}

#[test]
fn what_a_lost_driver_has_committed_happens_everywhere() {
    let (mut ring, mut caller) = shared_ring();
    let file = foreign_name(&ring);
    caller.ask(&mut ring, create(Handle::root(), "before")).unwrap();
    ring.until(is_settled);
    ring.is_lost = |message| matches!(message, Message::Across(_, message) if matches!(**message, AcrossMessage::Commit { .. }));
    let made = caller.ask(&mut ring, create(Handle::root(), &file)).unwrap().attr.handle;
    assert!(remembered(&ring, Part::Prepared) > 0, "nobody else has heard of it");
    let operation = caller.sequence;
    let driver = served_by(&ring, &Handle::root().key);
    drop(ring.running.remove(&driver));
    ring.is_lost = |_| false;
    ring.until(Ring::all_served);
    let found = caller.ask(&mut ring, Lookup { dir: Handle::root(), name: name(&file) }).unwrap();
    assert_eq!(found.attr.handle, made);
    let again = caller.send(&mut ring, create(Handle::root(), &file), operation);
    ring.until(|ring| ring.answers.contains_key(&again));
    let Ok((Reply::Create(again), _)) = &ring.answers[&again] else { panic!("it was done") };
    assert_eq!(again.attr.handle, made, "a retry gets the first answer");
    ring.until(is_settled);
}

#[test]
fn a_lost_participant_is_waited_for() {
    let (mut ring, mut caller) = shared_ring();
    let file = foreign_name(&ring);
    let key = magma_common::key::BirthString::root().child(file.as_bytes()).key();
    let participant = served_by(&ring, &key);
    drop(ring.running.remove(&participant));
    let made = caller.ask(&mut ring, create(Handle::root(), &file)).unwrap().attr.handle;
    assert_eq!(made.key, key);
    let found = caller.ask(&mut ring, Lookup { dir: Handle::root(), name: name(&file) }).unwrap();
    assert_eq!(found.attr.handle, made);
    ring.until(is_settled);
}

/// A slice that had lost power did again what another one still kept of an operation, although it had been settled and the name that it made
/// had been removed since: the name was there again, and led nowhere.
#[test]
fn what_was_settled_is_not_done_again_after_a_loss_of_power() {
    let (mut ring, mut caller) = shared_ring();
    let file = foreign_name(&ring);
    ring.is_lost = |message| matches!(message, Message::Across(_, message) if matches!(**message, AcrossMessage::Settled { .. }));
    caller.ask(&mut ring, create(Handle::root(), &file)).unwrap();
    ring.until(|ring| remembered(ring, Part::Driven) == 0 && remembered(ring, Part::Applied) > 0);
    ring.is_lost = |_| false;
    caller.ask(&mut ring, Unlink { dir: Handle::root(), name: name(&file) }).unwrap();
    let copies = 2;
    ring.until(|ring| remembered(ring, Part::Driven) == 0 && remembered(ring, Part::Applied) == copies);
    ring.cut_power();
    let found = caller.ask(&mut ring, Lookup { dir: Handle::root(), name: name(&file) });
    assert_eq!(found.err(), Some(FlareError::NotFound));
    ring.until(is_settled);
}

/// What waits for an operation is done once more when that has happened. An open was given back the first time, and the one that the operation had made
/// the second time: a file was removed under who had it open.
#[test]
fn an_open_that_is_given_back_while_another_is_under_way_is_given_back_once() {
    let (mut ring, mut caller) = shared_ring();
    let child = foreign_name(&ring);
    let handle = caller.ask(&mut ring, create(Handle::root(), &child)).unwrap().attr.handle;
    let (read, write) = (true, false);
    caller.ask(&mut ring, Open { handle, read, write, execute: false, truncate: false }).unwrap();
    ring.until(is_settled);

    ring.is_lost = |message| matches!(message, Message::Across(_, message) if matches!(**message, AcrossMessage::Commit { .. }));
    let again = Create { how: CreateHow::Unchecked, open: true, ..create(Handle::root(), &child) };
    caller.sequence += 2;
    let opened = caller.send(&mut ring, again, caller.sequence - 1);
    ring.until(|ring| remembered(ring, Part::Driven) > 0);
    let released = caller.send(&mut ring, Release { handle, count: 1 }, caller.sequence);
    (0..20).for_each(|_| ring.step());
    assert!(!ring.answers.contains_key(&released), "it waits");
    ring.is_lost = |_| false;
    ring.until(|ring| [opened, released].iter().all(|ticket| ring.answers.contains_key(ticket)));

    caller.ask(&mut ring, Unlink { dir: Handle::root(), name: name(&child) }).unwrap();
    assert_eq!(caller.ask(&mut ring, Getattr { handle }).unwrap().nlink, 0, "it is open still");
    caller.ask(&mut ring, Release { handle, count: 1 }).unwrap();
    assert_eq!(caller.ask(&mut ring, Getattr { handle }).err(), Some(FlareError::Stale));
}

/// A ring, a client, a directory below the root that another volcano serves, and that volcano: the directory was made after it had ceased to sync.
fn directory_that_is_not_on_disk() -> (Ring, Caller, Handle, u8) {
    let (mut ring, mut caller) = shared_ring();
    caller.ask(&mut ring, create(Handle::root(), "before")).unwrap();
    ring.until(is_settled);
    let then = ring.now.monotonic + Duration::from_secs(3);
    ring.until(|ring| ring.now.monotonic > then);
    let text = foreign_name(&ring);
    let key = magma_common::key::BirthString::root().child(text.as_bytes()).key();
    let stalled = served_by(&ring, &key);
    ring.stalled = Some(stalled);
    let dir = caller.mkdir(&mut ring, Handle::root(), &text);
    (ring, caller, dir, stalled)
}

/// Whether a request is answered, or retried with success by the time that its volcano has been lost and its mirror has synced.
fn waits_for_disk(ring: &mut Ring, caller: &mut Caller, request: impl Into<Request>, stalled: u8) {
    let request = request.into();
    caller.sequence += 1;
    let ticket = caller.send(ring, request.clone(), caller.sequence);
    let then = ring.now.monotonic + Duration::from_secs(2);
    ring.until(|ring| ring.now.monotonic > then);
    assert!(!ring.answers.contains_key(&ticket), "it stands on what is not on disk");
    ring.stalled = None;
    drop(ring.running.remove(&stalled));
    ring.until(Ring::all_served);
    loop {
        let again = caller.send(ring, request.clone(), caller.sequence);
        ring.until(|ring| ring.answers.contains_key(&again) || ring.forwards.contains_key(&again));
        match ring.answers.remove(&again) {
            Some(Ok(_)) => break,
            Some(Err(failure)) if failure.error != FlareError::Unavailable => panic!("{failure:?}"),
            _ => ring.step(),
        }
    }
}

/// Slices that lost power together came back with a file in a directory that all of them had lost.
#[test]
fn nothing_is_created_elsewhere_before_its_directory_is_on_disk() {
    let (mut ring, mut caller, dir, stalled) = directory_that_is_not_on_disk();
    let slice_of = |ring: &Ring, key: &magma_common::key::Key| ring.topology().slice_of(key).unwrap().id;
    let parties = [slice_of(&ring, &Handle::root().key), slice_of(&ring, &dir.key)];
    let text = foreign_name(&ring);
    let birth = magma_common::key::BirthString::root().child(text.as_bytes());
    let is_elsewhere =
        |text: &String| !parties.contains(&slice_of(&ring, &birth.child(text.as_bytes()).key()));
    let file = (0..100).map(|number| format!("f{number}")).find(is_elsewhere).unwrap();
    waits_for_disk(&mut ring, &mut caller, create(dir, &file), stalled);
    caller.ask(&mut ring, Lookup { dir, name: name(&file) }).unwrap();
}

/// Who has the removal of a directory has to have what emptied it.
#[test]
fn a_directory_is_not_removed_before_it_is_empty_on_disk() {
    let (mut ring, mut caller, dir, stalled) = directory_that_is_not_on_disk();
    let text = foreign_name(&ring);
    let birth = magma_common::key::BirthString::root().child(text.as_bytes());
    let own = ring.topology().slice_of(&dir.key).unwrap().id;
    let is_own =
        |text: &String| ring.topology().slice_of(&birth.child(text.as_bytes()).key()).unwrap().id == own;
    let file = (0..1000).map(|number| format!("f{number}")).find(is_own).unwrap();
    caller.ask(&mut ring, create(dir, &file)).unwrap();
    caller.ask(&mut ring, Unlink { dir, name: name(&file) }).unwrap();
    waits_for_disk(&mut ring, &mut caller, Rmdir { dir: Handle::root(), name: name(&text) }, stalled);
}

#[test]
fn who_took_part_in_what_an_operation_stands_on_does_not_wait_for_its_disk() {
    let (mut ring, mut caller, dir, stalled) = directory_that_is_not_on_disk();
    let text = foreign_name(&ring);
    let (from_dir, to_dir) = (Handle::root(), Handle::root());
    let how = RenameHow::Replace;
    let rename = Rename { from_dir, from_name: name(&text), to_dir, to_name: name("moved"), how };
    let moved = caller.ask(&mut ring, rename).unwrap().moved.handle;
    assert_eq!(moved, dir);
    assert_eq!(ring.stalled, Some(stalled), "and nothing was synced");
}
