//! Going on by force without a volcano that will not come back.

use super::*;

impl Ring {
    /// The machine of this volcano is gone; its folder may come back.
    fn lose(&mut self, number: u8) {
        self.running.remove(&number).unwrap();
    }

    fn force_out(&mut self, at: u8, who: VolcanoId) -> Result<(), Refusal> {
        self.running.get_mut(&at).unwrap().force_out(self.now, who)
    }

    fn pass(&mut self, steps: u32) {
        for _ in 0..steps {
            self.step();
        }
    }

    /// The position of this copy, and a number that changes with its keys.
    fn stands(&self, number: u8) -> Option<magma_common::topology::Position> {
        self.running[&number].store().position(FIRST_SLICE)
    }
}

#[test]
fn the_second_of_two_goes_on_by_force_when_the_founder_is_lost() {
    let mut ring = Ring::founded();
    ring.join(2);
    let (founder, stood) = (ring.id(1), ring.stands(2));
    let before = ring.topology().clone();
    ring.lose(1);
    ring.pass(200);
    assert!(!serves(&ring.running[&2], FIRST_SLICE), "the founder had the only vote");

    ring.force_out(2, founder).unwrap();
    ring.until(Ring::all_served);
    let after = ring.topology();
    assert!(ring.stands(2) >= stood);
    assert_eq!(after.members.len(), 1);
    assert_eq!(after.loss_counter, before.loss_counter, "it had everything, in memory too");
    assert!(after.lineage != before.lineage && after.ancestors == [before.lineage]);
    // It changes and goes on as any network does.
    ring.start(3, Origin::Join(vec![address(2)]));
    ring.until(|ring| ring.topology().members.len() == 2 && ring.in_sync() == 2);
}

#[test]
fn who_was_forced_out_stops_when_it_comes_back_and_takes_nobody_with_it() {
    let mut ring = Ring::founded();
    ring.join(2);
    let founder = ring.id(1);
    ring.lose(1);
    ring.pass(200);
    ring.force_out(2, founder).unwrap();
    ring.until(Ring::all_served);
    let lineage = ring.topology().lineage;

    ring.start(1, Origin::Resume);
    ring.until(|ring| ring.ended.get(&1) == Some(&"forgotten"));
    assert_eq!(ring.topology().lineage, lineage);
    assert!(serves(&ring.running[&2], FIRST_SLICE));
    ring.start(1, Origin::Resume);
    ring.until(|ring| !ring.running.contains_key(&1));
}

#[test]
fn whoever_stays_follows_the_new_line_with_its_copies() {
    let mut ring = three_with(4);
    ring.join(4);
    let (primary, mirror) = (ring.topology().slices[0].primary, ring.topology().slices[0].mirrors[0]);
    let voters = ring.topology().voters.clone();
    let third = *voters.iter().find(|id| ![primary.volcano, mirror.volcano].contains(id)).unwrap();
    let number = |ring: &Ring, id| (1..=4).find(|number| ring.id(*number) == id).unwrap();
    let at = number(&ring, mirror.volcano);
    for lost in [number(&ring, primary.volcano), number(&ring, third)] {
        ring.lose(lost);
    }
    ring.pass(200);
    assert!(!ring.all_served(), "two of three votes are gone");
    ring.force_out(at, primary.volcano).unwrap();
    // The second one is taken out as usual, since the vote is here now.
    ring.propose(at, &Change::Leave(third, true));
    ring.until(|ring| ring.topology().members.len() == 2 && ring.all_served() && ring.in_sync() == 2);
    let lines: BTreeSet<u64> = ring.running.values().map(|node| node.topology().lineage).collect();
    assert_eq!(lines.len(), 1);
}

#[test]
fn one_that_starts_anew_goes_on_with_what_its_disk_has_and_says_that_bytes_may_be_lost() {
    let mut ring = Ring::founded_with(2);
    ring.join(2);
    let founder = ring.id(1);
    let before = ring.topology().clone();
    ring.lose(1);
    ring.lose(2);
    ring.start(2, Origin::Resume);
    ring.pass(100);
    assert!(!ring.all_served());
    ring.force_out(2, founder).unwrap();
    ring.until(Ring::all_served);
    assert_eq!(ring.topology().loss_counter, before.loss_counter + 1);
    assert!(ring.topology().slices.iter().all(|slice| !slice.recalling));
    // It remembers that after another start.
    let lineage = ring.topology().lineage;
    ring.lose(2);
    ring.start(2, Origin::Resume);
    ring.until(Ring::all_served);
    assert_eq!(ring.topology().lineage, lineage);
}

#[test]
fn nobody_goes_on_without_itself_or_with_nothing() {
    let mut ring = Ring::founded();
    ring.join(2);
    let (first, second) = (ring.id(1), ring.id(2));
    let version = ring.topology().version;
    assert!(ring.force_out(2, second).is_err());
    assert!(ring.force_out(2, VolcanoId(77)).is_err());
    ring.join(3);
    let outsider = (2..4).find(|number| ring.stands(*number).is_none()).unwrap();
    assert_eq!(outsider, 3, "the copies stay where they are");
    ring.propose(1, &Change::Copies(1));
    ring.until(|ring| ring.topology().copies == 1 && ring.in_sync() == 1);
    let refused = ring.force_out(3, first).unwrap_err();
    assert!(refused.to_string().contains("has the only copy of slice 1"), "{refused}");
    assert!(ring.topology().version >= version && ring.topology().ancestors.is_empty());
}
