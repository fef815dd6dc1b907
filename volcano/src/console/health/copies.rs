//! Findings about the copies of a slice.

use std::collections::BTreeSet;

use magma_common::topology::{Member, Replica, Slice, VolcanoId};

use super::{Finding, Lava, called, is, is_there, name, names, silence, silent_for, since};
use crate::console::text;
use crate::health::{Role, doing, role, standing};
use crate::slice::report::{Doing, OtherCopy};

const EVERYBODY_WAITS: &str = "Every request waits until then; mounts and gateways go on by themselves.";

/// Nobody serves the slice.
pub(super) fn unserved(lava: &Lava, slice: &Slice) -> Option<Finding> {
    let topology = &lava.topology;
    let primary = topology.member(slice.primary.volcano)?;
    if role(topology, &lava.volcanos, primary) == Role::Serving && is_there(lava, primary) {
        return None;
    }
    let lost = if let Some(silence) = silence(lava, primary.id) {
        Some(format!("{} has been {}", called(primary), silent_for(silence)))
    } else {
        (primary.boot != slice.primary.boot).then(|| format!("{} has started anew", called(primary)))
    };
    let heirs = standing(topology, slice);
    let heirs: Vec<&Member> =
        heirs.into_iter().filter(|heir| heir.id != primary.id && is_there(lava, heir)).collect();
    let awaited = awaited(lava, slice);
    Some(match lost {
        Some(lost) if !heirs.is_empty() => succession(lava, &lost, &heirs),
        Some(_) | None if !awaited.is_empty() => waiting(lava, slice, &awaited),
        Some(lost) => Finding::trouble(
            format!("Nothing is served: {lost}, and nobody else has everything."),
            vec![start(&[primary]), EVERYBODY_WAITS.to_owned()],
        ),
        None => Finding::trouble(
            format!(
                "{} is about to serve: it first brings the mirrors to its own position.",
                called(primary)
            ),
            vec!["Every request waits until then, usually less than a second.".to_owned()],
        ),
    })
}

/// The primary is lost and a mirror is there.
fn succession(lava: &Lava, lost: &str, heirs: &[&Member]) -> Finding {
    let mute = super::members::mute_majority(lava);
    if mute.is_empty() {
        return Finding::trouble(
            format!("Nothing is served for a moment: {lost}."),
            vec![
                format!("{} has everything and takes over within about 3 s.", names(heirs)),
                EVERYBODY_WAITS.to_owned(),
            ],
        );
    }
    Finding::trouble(
        format!("Nothing is served: {lost}."),
        vec![
            format!(
                "{} has everything but may not take over, because {} cannot vote on it.",
                names(heirs),
                names(&mute)
            ),
            start(&mute),
            EVERYBODY_WAITS.to_owned(),
        ],
    )
}

/// All have started anew and some are missing.
fn waiting(lava: &Lava, slice: &Slice, awaited: &[&Member]) -> Finding {
    let waiting = slice.in_sync().filter_map(|copy| lava.topology.member(copy.volcano));
    let waiting: Vec<&Member> =
        waiting.filter(|member| awaited.iter().all(|other| other.id != member.id)).collect();
    Finding::trouble(
        format!(
            "Nothing is served: {} waits for {}, which {} the other {} of what was acknowledged.",
            names(&waiting),
            names(awaited),
            if awaited.len() == 1 { "has" } else { "have" },
            if awaited.len() == 1 { "copy" } else { "copies" },
        ),
        vec![
            "All have started anew, so nobody knows what the others had acknowledged last.".to_owned(),
            start(awaited),
            EVERYBODY_WAITS.to_owned(),
        ],
    )
}

/// For whom the copies wait that have started anew.
fn awaited<'a>(lava: &'a Lava, slice: &Slice) -> Vec<&'a Member> {
    let mut awaited: Vec<VolcanoId> = Vec::new();
    let mut waiting = BTreeSet::new();
    for copy in slice.in_sync() {
        if let Some(Doing::Waiting(others)) = doing(&lava.volcanos, copy.volcano, slice)
            && lava.topology.member(copy.volcano).is_some_and(|member| is_there(lava, member))
        {
            waiting.insert(copy.volcano);
            awaited.extend(others);
        }
    }
    awaited.retain(|id| !waiting.contains(id));
    awaited.sort_unstable();
    awaited.dedup();
    awaited.into_iter().filter_map(|id| lava.topology.member(id)).collect()
}

fn start(members: &[&Member]) -> String {
    let places: Vec<String> =
        members.iter().map(|member| format!("{} ({})", called(member), member.address)).collect();
    format!("Start magmad on {}, or repair the network to there.", places.join(" and "))
}

/// The slice has fewer copies than it should have, or one is being made.
pub(super) fn lacking(lava: &Lava, slice: &Slice) -> Option<Finding> {
    let topology = &lava.topology;
    let wanted = usize::from(topology.copies);
    let in_sync: Vec<&Member> = slice.in_sync().filter_map(|copy| topology.member(copy.volcano)).collect();
    let serving = doing(&lava.volcanos, slice.primary.volcano, slice);
    let (degraded, others): (_, &[OtherCopy]) = match serving {
        Some(Doing::Serving { degraded, others }) => (*degraded, others),
        _ => (None, &[]),
    };
    let mut details: Vec<String> = slice.joining.iter().map(|copy| progress(lava, *copy, others)).collect();
    if in_sync.len() >= wanted {
        let [joining, ..] = &*slice.joining else { return None };
        return Some(Finding::note(
            format!("A copy is being made on {}.", name(topology, joining.volcano)),
            details,
        ));
    }
    if details.is_empty() {
        details.push(remedy(lava, slice, wanted));
    }
    if let Some(primary) = topology.member(slice.primary.volcano)
        && role(topology, &lava.volcanos, primary) == Role::Serving
        && is_there(lava, primary)
    {
        details.push(format!("Nobody waits for that: {} serves.", called(primary)));
    }
    if in_sync.len() == 1 {
        details.push("Until then there is no second copy of what is written.".to_owned());
    }
    let since = degraded.map(|start| format!(" {}", since(lava, start))).unwrap_or_default();
    let number = in_sync.len();
    Some(Finding::trouble(
        format!("{number} of {wanted} copies {} in sync ({}){since}.", is(number), names(&in_sync)),
        details,
    ))
}

/// How far a joining copy is.
fn progress(lava: &Lava, copy: Replica, others: &[OtherCopy]) -> String {
    let who = name(&lava.topology, copy.volcano);
    let Some(other) = others.iter().find(|other| other.copy == copy) else {
        return format!("{who} begins to catch up.");
    };
    if other.missing_millionths == 0 && other.behind == 0 {
        return format!("{who} has everything and writes it to its disk.");
    }
    let missing = f64::from(other.missing_millionths) / 1e4;
    let keys =
        if other.missing_millionths == 0 { String::new() } else { format!(" and {missing:.1}% of the keys") };
    let records = text::count(usize::try_from(other.behind).unwrap_or(usize::MAX), "record");
    let ready = match other.eta_seconds {
        Some(eta) => {
            format!("; ready in about {}", text::duration(std::time::Duration::from_secs(eta.max(1))))
        }
        None if other.missing_millionths == 0 => "; ready in a moment".to_owned(),
        None => "; how long that takes will be known soon".to_owned(),
    };
    let silent = if other.silent_ms >= 2000 {
        format!("; it has not answered for {} s", other.silent_ms / 1000)
    } else {
        String::new()
    };
    format!("{who} catches up: it lacks {records}{keys}{ready}{silent}.")
}

/// What happens, or has to be done, when a copy is lacking and nobody is making one.
fn remedy(lava: &Lava, slice: &Slice, wanted: usize) -> String {
    let storing: Vec<&Member> =
        lava.topology.members.iter().filter(|member| !member.witness && !member.leaving).collect();
    let free = storing.iter().filter(|member| slice.copies().all(|copy| copy != member.replica()));
    let (there, gone): (Vec<&Member>, Vec<&Member>) =
        free.copied().partition(|member| is_there(lava, member));
    if let [next, ..] = &*there {
        return format!("{} is to take a copy next.", called(next));
    }
    if !gone.is_empty() {
        return format!(
            "{} could take one but {} silent: start magmad there, or join another volcano in its place and `lava evict` it.",
            names(&gone),
            is(gone.len())
        );
    }
    let only = storing.len();
    format!(
        "Only {} {}: join another one (magmad -r), or want fewer copies (`lava copies {}`). {wanted} are wanted.",
        text::count(only, "volcano"),
        if only == 1 { "stores" } else { "store" },
        only.max(1)
    )
}
