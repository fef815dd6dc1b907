//! Copies of requests that come long after their answers, to volcanos that were not there then.

use magma_common::proto::operation::{KeepAlive, Lookup, Unlink};

use super::across::{Caller, create, name, served_by, settled};
use super::*;
use crate::coordinator::SliceChange;

/// Longer than it takes until a record says what a client has.
const LONG: u32 = 120;

/// A file is made and removed, and the client has both answers; a record says so.
fn made_and_removed(ring: &mut Ring) -> Caller {
    let mut caller = Caller::new(ring);
    caller.ask(ring, create(Handle::root(), "a")).unwrap();
    caller.ask(ring, Unlink { dir: Handle::root(), name: name("a") }).unwrap();
    let heard = caller.send(ring, KeepAlive { acknowledged: 2 }, 0);
    ring.until(|ring| ring.answers.contains_key(&heard));
    (0..LONG).for_each(|_| ring.step());
    caller
}

/// The request to make the file was held up, and comes now.
fn is_refused(ring: &mut Ring, caller: &mut Caller) {
    let stray = caller.send(ring, create(Handle::root(), "a"), 1);
    ring.until(|ring| ring.answers.contains_key(&stray));
    let answer = ring.answers.remove(&stray).unwrap();
    assert_eq!(answer.err().map(|failure| failure.error), Some(FlareError::BadRequest));
    let found = caller.ask(ring, Lookup { dir: Handle::root(), name: name("a") });
    assert_eq!(found.err(), Some(FlareError::NotFound), "it was removed");
}

/// It knew neither the outcomes, which the client had acknowledged before it joined, nor that: it made the file again.
#[test]
fn a_copy_that_joined_later_does_nothing_again_that_was_acknowledged() {
    let mut ring = three_with(1);
    let mut caller = made_and_removed(&mut ring);
    let slice = ring.topology().slices[0].clone();
    let newcomer =
        *ring.running.iter().find(|(_, node)| !slice.copies().any(|copy| copy == node.replica())).unwrap().0;
    let to = ring.id(newcomer);
    ring.propose(1, &Change::Slice(slice.id, slice.epoch, SliceChange::Assign(to)));
    ring.until(|ring| settled(ring) && served_by(ring, &Handle::root().key) == newcomer);
    is_refused(&mut ring, &mut caller);
}

#[test]
fn nor_do_volcanos_that_have_all_started_anew() {
    let mut ring = three_with(1);
    let mut caller = made_and_removed(&mut ring);
    ring.cut_power();
    is_refused(&mut ring, &mut caller);
}
