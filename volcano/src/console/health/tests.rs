use super::*;

use magma_common::topology::BootId;

use crate::console::tests::ring::ring;
use crate::slice::report::Doing;

fn lines(lava: &Lava) -> Vec<String> {
    report(lava).lines().map(str::to_owned).collect()
}

#[test]
fn a_ring_that_lacks_nothing_is_well() {
    let lava = ring(3, &[1, 2]).voters(&[1, 2, 3]);
    let well = "All is well: wallace serves, 2 of 2 copies are in sync (wallace and gromit), 3 volcanos are there, wallace coordinates (3 votes).";
    assert_eq!(lines(&lava), [well]);
    assert_eq!(lines(&lava.asked(3)), [well], "every console says the same");
    assert!(lines(&ring(1, &[1]))[0].contains("1 volcano is there, wallace coordinates (1 vote)"));
}

#[test]
fn several_slices_are_well_in_one_sentence() {
    let lava = ring(3, &[1, 2]).voters(&[1, 2, 3]).change(|topology| {
        let slice = topology.slices[0].clone();
        topology
            .slices
            .push(magma_common::topology::Slice { id: magma_common::topology::SliceId(2), ..slice });
    });
    let well = "All is well: wallace serves, 2 of 2 copies of each of 2 slices are in sync, 3 volcanos are there, wallace coordinates (3 votes).";
    assert_eq!(lines(&lava), [well]);
}

#[test]
fn two_volcanos_without_a_witness_hang_by_one_vote() {
    let lava = ring(2, &[1, 2]);
    let note = "One vote: if wallace is lost, nobody can change who serves what until it returns; add a witness (magmad --witness -r ...).";
    assert!(lines(&lava)[0].starts_with("All is well"));
    assert_eq!(lines(&lava)[1], note);
    let alone = ring(2, &[1]).change_member(2, |gromit| gromit.witness = true);
    assert_eq!(lines(&alone).len(), 1, "nobody could serve in its place");
    let with_witness = ring(3, &[1, 2]).change_member(3, |shaun| shaun.witness = true).voters(&[1, 2, 3]);
    assert_eq!(lines(&with_witness).len(), 1);
}

#[test]
fn a_joining_copy_is_shown_with_what_it_lacks_and_for_how_long() {
    let lava = ring(2, &[1]).change(|topology| topology.copies = 2).joining(2, 1200, 345_000, Some(40));
    let expected = [
        "1 of 2 copies is in sync (wallace) since 2026-11-23 04:47:38 UTC (75 s).",
        "  gromit catches up: it lacks 1200 records and 34.5% of the keys; ready in about 40 s.",
        "  Nobody waits for that: wallace serves.",
        "  Until then there is no second copy of what is written.",
    ];
    assert_eq!(lines(&lava)[..4], expected);
    assert!(lines(&lava)[4].starts_with("One vote"), "what is only to be known comes last");
    let lava = ring(2, &[1]).change(|topology| topology.copies = 2).joining(2, 0, 0, None);
    assert_eq!(lines(&lava)[1], "  gromit has everything and writes it to its disk.");
}

#[test]
fn what_to_do_about_a_missing_copy_depends_on_who_is_there() {
    let degraded = |volcanos| ring(volcanos, &[1]).change(|topology| topology.copies = 2);
    assert_eq!(
        lines(&degraded(1))[1],
        "  Only 1 volcano stores: join another one (magmad -r), or want fewer copies (`lava copies 1`). 2 are wanted."
    );
    assert_eq!(lines(&degraded(2))[1], "  gromit is to take a copy next.");
    assert_eq!(
        lines(&degraded(2).silent(2, 9))[1],
        "  gromit could take one but is silent: start magmad there, or join another volcano in its place and `lava evict` it."
    );
}

#[test]
fn a_lost_primary_is_succeeded_by_a_mirror_if_there_are_votes() {
    let lost = ring(3, &[1, 2]).asked(2).silent(1, 3);
    let lava = lost.clone().voters(&[1, 2, 3]);
    assert_eq!(
        lines(&lava)[..3],
        [
            "Nothing is served for a moment: wallace has been silent for 3 s.",
            "  gromit has everything and takes over within about 3 s.",
            "  Every request waits until then; mounts and gateways go on by themselves."
        ]
    );
    let shown = lines(&lost.voters(&[1]));
    assert_eq!(
        shown[..3],
        [
            "Nothing is served: wallace has been silent for 3 s.",
            "  gromit has everything but may not take over, because wallace cannot vote on it.",
            "  Start magmad on wallace (127.0.0.1), or repair the network to there."
        ]
    );
    assert!(
        shown.contains(&"Nobody can change who serves what: 1 of 1 votes is missing (wallace).".to_owned())
    );
    let force =
        "  If wallace will never come back: `lava evict wallace --force`, at a volcano that has a copy.";
    assert!(shown.contains(&force.to_owned()), "{shown:?}");
}

#[test]
fn after_a_start_of_everybody_those_who_are_missing_are_named() {
    let lava = ring(2, &[1, 2]).change_member(1, |wallace| wallace.boot = BootId(3 << 32)).silent(2, 60);
    let lava = lava.says(1, Doing::Waiting(vec![magma_common::topology::VolcanoId(2)]));
    let shown = lines(&lava);
    assert_eq!(
        shown[0],
        "Nothing is served: wallace waits for gromit, which has the other copy of what was acknowledged."
    );
    assert_eq!(shown[2], "  Start magmad on gromit (127.0.0.2), or repair the network to there.");
    let only = "  gromit has the only copy that is sure to have everything: it cannot be replaced.";
    assert!(shown.contains(&only.to_owned()), "{shown:?}");
}

#[test]
fn a_primary_without_heirs_is_called_back() {
    let lava = ring(2, &[1]).asked(2).silent(1, 30).change(|topology| topology.copies = 1);
    assert_eq!(
        lines(&lava)[0],
        "Nothing is served: wallace has been silent for 30 s, and nobody else has everything."
    );
}

#[test]
fn a_primary_that_prepares_is_about_to_serve() {
    let lava = ring(2, &[1, 2]).says(1, Doing::Preparing);
    assert_eq!(
        lines(&lava)[0],
        "wallace is about to serve: it first brings the mirrors to its own position."
    );
}

#[test]
fn silent_mirrors_hold_writes_up_and_silent_others_nothing() {
    let lava = ring(5, &[1, 2]).voters(&[1, 4, 5]).silent(2, 2).silent(3, 150);
    let shown = lines(&lava);
    assert_eq!(
        shown[..4],
        [
            "gromit (127.0.0.2) is silent for 2 s.",
            "  What is being written waits for gromit, or until it is taken out, about 3 s.",
            "  If gromit does not come back: `lava evict gromit`, and join another one (magmad -r).",
            "shaun (127.0.0.3) is silent for 2 min.",
        ]
    );
}

#[test]
fn lost_votes_and_elections_are_told_apart() {
    let lava = ring(3, &[1]).voters(&[1, 2, 3]).silent(2, 9).silent(3, 9);
    assert_eq!(
        lines(&lava)[0],
        "Nobody can change who serves what: 2 of 3 votes are missing (gromit and shaun)."
    );
    let lava = Lava { leader: None, ..ring(3, &[1]).voters(&[1, 2, 3]) };
    assert_eq!(lines(&lava)[0], "Nobody coordinates at the moment: a coordinator is being elected.");
}

#[test]
fn who_is_leaving_is_followed_to_the_end() {
    let leaving = |lava: Lava| lava.change_member(2, |gromit| gromit.leaving = true);
    let shown = lines(&leaving(ring(3, &[1, 2]).voters(&[1, 2, 3])));
    assert!(shown[0].starts_with("All is well"));
    assert_eq!(
        shown[1..],
        [
            "gromit is leaving.",
            "  Its copy goes when enough others have everything.",
            "  `lava stay gromit` keeps it."
        ]
    );
    let told = |lava, what: &str| lines(&leaving(lava)).iter().any(|line| line.ends_with(what));
    assert!(told(
        ring(3, &[1, 3]).voters(&[1, 2, 3]),
        "its vote goes as soon as another volcano can have it."
    ));
    assert!(told(ring(3, &[1, 3]).voters(&[1]), "is forgotten next."));
}
