//! A slice is divided: what the coordinator agrees to meanwhile, and what comes of it.

use magma_common::topology::{Division, MAX_SLICES};

use super::*;

const AT: Ino = Ino(1 << 63);

/// Nobody is catching up.
fn settled() -> Topology {
    let mut topology = topology();
    topology.slices[0].joining.clear();
    topology
}

fn divide(at: u64, new: u32) -> SliceChange {
    SliceChange::Divide(Division { at: Ino(at), new: SliceId(new) })
}

fn dividing() -> Topology {
    let mut topology = settled();
    made(&mut topology, &divide(AT.0, 2));
    topology
}

#[test]
fn a_slice_that_is_being_divided_keeps_its_keys_and_its_copies() {
    let topology = dividing();
    let [slice] = &topology.slices[..] else { panic!("{:?}", topology.slices) };
    assert_eq!((slice.range, slice.epoch, slice.reign), (KeyRange::ALL, Epoch(11), Epoch(4)));
    assert_eq!((slice.primary, &slice.mirrors[..]), (life(1, 1), &[life(2, 1)][..]));
    assert_eq!(slice.dividing, Some(Division { at: AT, new: SliceId(2) }));
    assert_eq!(topology.unused_slice(), Some(SliceId(3)), "the number is taken already");
}

#[test]
fn a_divided_slice_is_two_with_the_same_copies() {
    let mut topology = dividing();
    made(&mut topology, &SliceChange::Divided);
    let (below, above) = KeyRange::ALL.cut(AT).unwrap();
    let [slice, new] = &topology.slices[..] else { panic!("{:?}", topology.slices) };
    assert_eq!((slice.id, slice.range, slice.epoch, slice.reign), (SliceId(1), below, Epoch(12), Epoch(4)));
    assert_eq!((new.id, new.range, new.epoch, new.reign), (SliceId(2), above, Epoch(12), Epoch(12)));
    for half in [slice, new] {
        assert_eq!((half.primary, &half.mirrors[..], half.dividing), (life(1, 1), &[life(2, 1)][..], None));
    }
    made(&mut topology, &divide(1, 3));
    made(&mut topology, &SliceChange::Divided);
    let starts: Vec<_> = topology.slices.iter().map(|slice| slice.range.start()).collect();
    assert_eq!(starts, [Ino(0), Ino(1), AT], "they stay in the order of their keys");
}

#[test]
fn what_cannot_be_divided_is_refused() {
    let refused = |topology: &Topology, change: SliceChange| refused(topology, &slice(change));
    assert!(refused(&topology(), divide(AT.0, 2)).contains("catching up"));
    assert!(refused(&settled(), divide(0, 2)).contains("does not lie inside"));
    assert!(refused(&settled(), divide(AT.0, 1)).contains("has been given"));
    assert!(refused(&settled(), SliceChange::Divided).contains("not being divided"));
    let mut recalling = settled();
    recalling.slices[0].recalling = true;
    assert!(refused(&recalling, divide(AT.0, 2)).contains("may have lost"));
    let mut again = dividing();
    again.slices[0].epoch = Epoch(9);
    assert!(refused(&again, divide(7, 3)).contains("already"));
    assert!(refused(&again, SliceChange::Add(life(3, 1))).contains("being divided"));
}

#[test]
fn whatever_becomes_of_its_copies_a_slice_goes_on_being_divided() {
    let division = dividing().slices[0].dividing;
    for change in [
        SliceChange::Promote(life(2, 1)),
        // of two new primaries the one with the longer log must be able to take over
        SliceChange::HandOver(life(2, 1)),
        SliceChange::Remove(life(2, 1)),
    ] {
        let mut topology = dividing();
        made(&mut topology, &change);
        assert_eq!(topology.slices[0].dividing, division, "{change:?}");
    }
    let mut topology = dividing();
    for id in [1, 2] {
        enter(member(id, 2)).apply(&mut topology).unwrap();
    }
    let cold = SliceChange::ColdStart { primary: life(2, 2), mirrors: vec![life(1, 2)], lost: true };
    made(&mut topology, &cold);
    assert_eq!((topology.slices[0].dividing, topology.slices[0].recalling), (division, false));
    // of several slices both halves have to ask what they may have lost
    topology.slices[0].recalling = true;
    made(&mut topology, &SliceChange::Divided);
    assert!(topology.slices.iter().all(|slice| slice.recalling));
}

#[test]
fn there_is_a_limit_to_the_number_of_slices() {
    let mut topology = settled();
    for number in 1..MAX_SLICES {
        made(&mut topology, &divide(u64::from(MAX_SLICES - number) << 20, number + 1));
        made(&mut topology, &SliceChange::Divided);
    }
    assert_eq!(topology.slices.len(), MAX_SLICES as usize);
    let epoch = topology.slices[0].epoch;
    let change = Change::Slice(SliceId(1), epoch, divide(5, MAX_SLICES + 1));
    assert!(refused(&topology, &change).contains("128 slices"));
}
