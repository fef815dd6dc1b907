//! Commands that change the network, against volcanos that agree, refuse, or do not answer.

use std::rc::Rc;

use magma_common::key::{Ino, KeyRange};
use magma_common::topology::{Slice, SliceId, VolcanoId};

use super::fake::{Tree, Volcano, Votes};
use super::ring::ring;
use super::{answer, transcript};
use crate::console::admin::{Lava, SliceFigures};
use crate::coordinator::{Change, Refusal, SliceChange};

fn volcano(lava: Lava, votes: Votes) -> Rc<Volcano> {
    Rc::new(Volcano { votes, lava: lava.into(), ..Volcano::new(Tree::new()) })
}

/// What a command says, and what it asked for.
fn told(lava: Lava, command: &str) -> (String, Vec<Change>) {
    let volcano = volcano(lava, Votes::Agree);
    let said = answer(&volcano, command);
    (said, volcano.proposed.take())
}

fn refused(lava: Lava, command: &str) -> String {
    let (said, proposed) = told(lava, command);
    assert_eq!(proposed, [], "nobody is bothered with it");
    said
}

#[test]
fn a_volcano_leaves_and_stays_by_its_nickname() {
    let (said, proposed) = told(ring(3, &[1, 2]), "lava leave gromit");
    assert_eq!(
        said,
        "gromit is leaving. It goes on until others have everything that it has; then the network forgets it and its magmad ends by itself.\n\
         `lava health` shows how far that is; `lava stay gromit` keeps it.\n"
    );
    assert_eq!(proposed, [Change::Leave(VolcanoId(2), true)]);
    let leaving = ring(3, &[1, 2]).change_member(2, |gromit| gromit.leaving = true);
    assert!(refused(leaving.clone(), "lava leave gromit").starts_with("gromit is leaving already"));
    let (said, proposed) = told(leaving, "lava stay gromit");
    assert!(said.starts_with("gromit stays"), "{said}");
    assert_eq!(proposed, [Change::Leave(VolcanoId(2), false)]);
    assert_eq!(refused(ring(2, &[1]), "lava stay gromit"), "gromit is not leaving\n");
}

#[test]
fn without_a_nickname_the_volcano_that_is_asked_leaves() {
    let (said, proposed) = told(ring(3, &[1, 2]).asked(3), "lava leave");
    assert!(said.starts_with("shaun is leaving. It has no copy of anything"), "{said}");
    assert_eq!(proposed, [Change::Leave(VolcanoId(3), true)]);
}

#[test]
fn nobody_leaves_whose_data_nobody_else_could_hold() {
    let only =
        "wallace cannot leave: it is the only volcano that stores, and nobody else could hold the data\n";
    assert_eq!(refused(ring(1, &[1]), "lava leave"), only);
    let witness = ring(2, &[1]).change_member(2, |gromit| gromit.witness = true);
    assert_eq!(refused(witness.clone(), "lava leave"), only);
    assert!(told(witness, "lava leave gromit").0.starts_with("gromit is leaving"));
    let (said, _) = told(ring(2, &[1, 2]), "lava leave gromit");
    assert!(said.contains("\nThen only 1 volcano stores, and 2 copies are wanted.\n"), "{said}");
    assert_eq!(
        refused(ring(2, &[1, 2]).silent(2, 3), "lava leave"),
        "wallace cannot leave now: gromit would have to hold the data and is silent\n"
    );
    assert!(
        refused(ring(2, &[1]).silent(2, 9), "lava leave gromit")
            .contains("`lava evict gromit` if it will not come back")
    );
}

#[test]
fn force_goes_on_without_the_votes_and_says_what_may_be_missing() {
    let forced = |lava: Lava, command: &str| {
        let volcano = volcano(lava, Votes::Silent);
        let said = answer(&volcano, command);
        (said, volcano.forced_out.take())
    };
    let lost = || Lava { leader: None, ..ring(2, &[1, 2]).asked(2).silent(1, 180) };
    let (said, out) = forced(lost(), "lava evict wallace --force");
    assert_eq!(out, [VolcanoId(1)]);
    assert!(said.contains("This volcano had everything that was acknowledged until then."), "{said}");
    assert!(said.contains("wallace was last heard from 3 min ago."), "{said}");
    let restarted = lost().change_member(2, |gromit| gromit.boot.0 += 1 << 32);
    assert!(
        forced(restarted, "lava evict wallace --force")
            .0
            .contains("not on its disk when it stopped may be missing")
    );
    let behind = Lava { leader: None, ..ring(2, &[1]).asked(2).silent(1, 180) };
    assert!(forced(behind, "lava evict wallace --force").0.contains("since they fell behind is missing"));

    let (said, out) = forced(ring(3, &[1, 2]).silent(3, 60), "lava evict shaun --force");
    assert_eq!(
        (said.as_str(), &out[..]),
        ("no force is needed: `lava evict shaun` does it, and nothing is lost\n", &[][..])
    );
    let (said, out) = forced(Lava { leader: None, ..ring(2, &[1, 2]) }, "lava evict gromit --force");
    assert_eq!(
        (said.as_str(), &out[..]),
        ("gromit was heard from a moment ago: nobody may go on without it by force\n", &[][..])
    );
}

#[test]
fn only_who_is_gone_and_not_needed_is_evicted() {
    let (said, proposed) = told(ring(3, &[1, 2]).silent(3, 60), "lava evict shaun");
    assert!(said.starts_with("shaun is given up: the network forgets it"), "{said}");
    assert_eq!(proposed, [Change::Leave(VolcanoId(3), true)]);
    assert!(
        refused(ring(3, &[1, 2]), "lava evict shaun")
            .starts_with("shaun was heard from a moment ago; `lava leave shaun`")
    );
    assert!(refused(ring(3, &[1, 2]), "lava evict wallace").starts_with("this is wallace itself"));
    let only = ring(2, &[2]).silent(2, 60);
    assert!(
        refused(only, "lava evict gromit")
            .starts_with("gromit cannot be evicted: it has the only copy that is sure")
    );
    let both_new = ring(2, &[1, 2]).silent(2, 60).change_member(1, |wallace| wallace.boot.0 += 1 << 32);
    assert!(refused(both_new, "lava evict gromit").contains("the only copy that is sure to have everything"));
    let primary = ring(3, &[2, 1]).silent(2, 60);
    assert!(
        refused(primary, "lava evict gromit")
            .starts_with("gromit cannot be evicted yet: a mirror has to take over first")
    );
    assert_eq!(
        refused(ring(2, &[1]), "lava evict feathers"),
        "there is no volcano feathers; there are wallace and gromit\n"
    );
}

#[test]
fn the_number_of_copies_is_changed_and_what_it_costs_is_said() {
    let (said, proposed) = told(ring(2, &[1, 2]), "lava copies 3");
    assert_eq!(
        said,
        "3 copies are wanted; they take 3 times the space of one.\n\
         Only 2 volcanos are there that could have one: join others (magmad -r).\n\
         `lava health` shows what is being done.\n"
    );
    assert_eq!(proposed, [Change::Copies(3)]);
    assert!(
        told(ring(2, &[1, 2]), "lava copies 1").0.starts_with("1 copy is wanted: whoever loses that disk")
    );
    assert!(
        refused(ring(2, &[1, 2]), "lava copies 2").starts_with("that many copies (2) are wanted already")
    );
}

#[test]
fn the_coordinators_refusal_is_shown() {
    let refusal = Refusal::Unfit("gromit cannot leave: no other volcano would keep the data".into());
    let volcano = volcano(ring(2, &[1, 2]), Votes::Refuse(refusal));
    assert_eq!(
        answer(&volcano, "lava leave gromit"),
        "refused: gromit cannot leave: no other volcano would keep the data\n"
    );
}

#[test]
fn a_change_that_nobody_agrees_on_is_asked_for_again_and_then_given_up() {
    let volcano = volcano(ring(2, &[1, 2]), Votes::Silent);
    let said = answer(&volcano, "lava copies 1");
    assert!(said.starts_with("not agreed on within 5 s; `lava health` tells"), "{said}");
    assert!(volcano.proposed.borrow().len() > 3);
}

#[test]
fn what_is_degraded_stands_at_the_top() {
    let volcano = volcano(ring(2, &[1]).change(|topology| topology.copies = 2).silent(2, 9), Votes::Agree);
    let said = answer(&volcano, "lava");
    assert!(
        said.starts_with(
            "1 of 2 copies is in sync (wallace).\ngromit (127.0.0.2) is silent for 9 s.\nOne vote: if "
        ),
        "{said}"
    );
    assert!(said.contains("`lava health` tells more.\n\nnetwork 0000000000000abc"), "{said}");
    assert!(
        said.contains("\ncopies: 2 wanted, 1 in sync; coordinator: wallace; voters: wallace\n"),
        "{said}"
    );
    assert!(said.ends_with("  900  standing by, silent for 9 s\n"), "{said}");
}

#[test]
fn one_volcano_alone_can_be_stopped() {
    let volcano = volcano(ring(2, &[1, 2]), Votes::Agree);
    assert!(transcript(&volcano, b"\nshutdown --local\npwd\n").ends_with("> shutting down this volcano\n"));
    assert_eq!(*volcano.shut_down.borrow(), Some(false));
}

#[test]
fn a_slice_is_divided_by_its_number_or_by_who_serves_it() {
    let division = |at| Change::division(&ring(2, &[1]).topology, SliceId(1), Ino(at)).unwrap();
    let (said, proposed) = told(ring(2, &[1]), "lava divide wallace");
    assert_eq!(said, "slice 1 is divided: keys from abcd000000000000 on are another slice.\n");
    assert_eq!(proposed, [division(0xabcd << 48)]);
    let (said, proposed) = told(ring(2, &[1]), "lava divide 1 4");
    assert_eq!(said, "slice 1 is divided: keys from 4000000000000000 on are another slice.\n");
    assert_eq!(proposed, [division(4 << 60)]);
    assert_eq!(refused(ring(2, &[1]), "lava divide 7"), "there is no slice 7; `lava` lists them\n");
    assert_eq!(refused(ring(2, &[1]), "lava divide gromit"), "gromit serves no slice\n");
    let elsewhere = refused(ring(2, &[1]).asked(2), "lava divide 1");
    assert_eq!(elsewhere, "this volcano has no copy of slice 1: say where to divide it, or ask wallace\n");
    let refusal = Refusal::Unfit("that slice is being divided already".into());
    let volcano = volcano(ring(2, &[1]), Votes::Refuse(refusal));
    assert_eq!(answer(&volcano, "lava divide 1 8"), "refused: that slice is being divided already\n");
}

/// Volcanos 1 to 3, of which 1 owns all of six slices, and `wallace` is asked.
fn six_slices() -> Lava {
    let mut lava = ring(3, &[1, 2]);
    lava.slices = (1..=6).map(|id| SliceFigures { slice: SliceId(id), keys: 10, bytes: 3 << 30 }).collect();
    lava.change(|topology| {
        let [slice] = &topology.slices[..] else { panic!("one slice") };
        let sixth = u64::MAX / 6;
        let part = |number: u64| Slice {
            id: SliceId(number as u32 + 1),
            range: KeyRange::new(Ino(sixth * number), Ino(sixth * (number + 1) - 1)).unwrap(),
            ..slice.clone()
        };
        topology.slices = (0..6).map(part).collect();
    })
}

#[test]
fn the_load_of_the_volcanos_is_shown() {
    let expected = "\
VOLCANO  SLICES  SERVES  KEYS        BYTES  SHARE
wallace       6       6    60  19327352832   100%
gromit        0       0     0            0     0%
shaun         0       0     0            0     0%

The balancer is off.
";
    assert_eq!(refused(six_slices(), "lava load"), expected);
    let mut unknown = six_slices();
    unknown.slices.pop();
    let said = refused(unknown, "lava load");
    assert!(said.contains("wallace       6       6  ?     ?"), "{said}");
}

#[test]
fn the_balancer_shows_its_plan_and_takes_its_next_step() {
    let said = refused(six_slices(), "lava balance plan");
    let first = "Slice 6 goes from wallace to gromit: wallace holds 300 % of an even share and gromit, which follows it, nothing.\n";
    assert!(said.starts_with(&format!("The balancer is off.\n{first}")), "{said}");
    let (said, proposed) = told(six_slices(), "lava balance now");
    assert!(said.starts_with(first) && said.contains("left: `lava balance now` again"), "{said}");
    assert!(
        matches!(proposed[..], [Change::Slice(SliceId(6), ..), .., Change::Slice(SliceId(3), ..)]),
        "{proposed:?}"
    );
    let (said, proposed) = told(six_slices(), "lava balance on");
    assert!(said.starts_with("The balancer is on"), "{said}");
    assert_eq!(proposed, [Change::Balance(true)]);
    assert_eq!(refused(six_slices(), "lava balance off"), "the balancer is off already\n");
    assert!(refused(ring(2, &[1, 2]), "lava balance now").starts_with("the slices lie evenly enough"));
    let (said, proposed) = told(ring(3, &[1, 2]), "lava balance now");
    assert!(
        said.starts_with("Slice 1 is divided at 8000000000000000: it holds 300 % of an even share"),
        "{said}"
    );
    assert!(matches!(proposed[..], [Change::Slice(SliceId(1), _, SliceChange::Divide(_))]), "{proposed:?}");
    assert!(
        refused(six_slices().silent(2, 60), "lava balance now").starts_with("not now. gromit is silent.")
    );
}

#[test]
fn a_volcano_gets_another_place_and_its_share() {
    let (said, proposed) = told(six_slices(), "lava move shaun after wallace");
    assert!(
        said.starts_with(
            "shaun follows wallace now. What it owned is the next volcano's.\nshaun gets 4 slices"
        ),
        "{said}"
    );
    assert_eq!(proposed[0], Change::Place(VolcanoId(3), VolcanoId(1)));
    assert!(
        matches!(proposed[1..], [Change::Slice(SliceId(6), ..), .., Change::Slice(SliceId(3), ..)]),
        "{proposed:?}"
    );
    assert_eq!(refused(six_slices(), "lava move gromit after wallace"), "gromit follows wallace already\n");
    assert_eq!(refused(six_slices(), "lava move gromit after gromit"), "gromit cannot follow itself\n");
    assert!(refused(six_slices(), "lava move gromit after nobody").starts_with("there is no volcano nobody"));
}

#[test]
fn a_volcano_takes_the_place_of_one_that_leaves_or_is_gone() {
    let (said, proposed) = told(six_slices(), "lava replace wallace by shaun");
    assert!(
        said.starts_with(
            "shaun takes the place of wallace on the ring. wallace is leaving. It goes on until"
        ),
        "{said}"
    );
    let [wallace, gromit, shaun] = [1, 2, 3].map(VolcanoId);
    assert_eq!(proposed, [Change::Place(shaun, wallace), Change::Leave(wallace, true)]);
    let (_, proposed) = told(six_slices(), "lava replace gromit by shaun");
    assert_eq!(proposed, [Change::Leave(gromit, true)], "it follows already");
    let (said, proposed) = told(six_slices().silent(2, 60), "lava replace gromit by shaun");
    assert!(said.starts_with("shaun takes the place of gromit on the ring. gromit is given up"), "{said}");
    assert_eq!(proposed, [Change::Leave(gromit, true)]);
}

#[test]
fn who_can_take_nothing_replaces_nobody() {
    assert_eq!(refused(six_slices(), "lava replace gromit by gromit"), "gromit cannot replace itself\n");
    assert!(
        refused(six_slices().silent(3, 60), "lava replace gromit by shaun")
            .starts_with("shaun has been silent")
    );
    let witness = six_slices().change_member(3, |shaun| shaun.witness = true);
    assert!(
        refused(witness.clone(), "lava replace gromit by shaun").starts_with("shaun is a witness or leaving")
    );
    assert!(
        refused(witness, "lava replace shaun by gromit").starts_with("shaun is a witness and keeps nothing")
    );
}
