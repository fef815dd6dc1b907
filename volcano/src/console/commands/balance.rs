//! `lava load`, `lava balance` and `lava move`: who owns what, and what should go where.
//!
//! The plan is made from what all volcanos say of themselves, so that every console shows the same one as the coordinator's volcano.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use magma_common::topology::{Member, Slice, SliceId};

use super::network::Wish;
use crate::console::admin::Lava;
use crate::console::health::called;
use crate::console::text::{count, table};
use crate::coordinator::balance::{self, Planned, Situation, Step};
use crate::coordinator::{Change, Load};

/// Most steps of a plan that are shown.
const SHOWN: usize = 20;

/// `lava load`.
pub(super) fn load(lava: &Lava) -> String {
    let topology = &lava.topology;
    let loads = loads(lava);
    let owned = |member: &Member| -> Vec<&Slice> {
        let slices = topology.slices.iter();
        slices.filter(|slice| topology.assignee(slice) == Some(member.id)).collect()
    };
    let storing: Vec<&Member> = topology.members.iter().filter(|member| !member.witness).collect();
    let all: u64 = loads.values().map(|load| load.bytes).sum();
    let rows: Vec<Vec<String>> = storing
        .iter()
        .map(|member| {
            let owned = owned(member);
            let served = topology.slices.iter().filter(|slice| slice.primary.volcano == member.id).count();
            let known: Option<Vec<Load>> = owned.iter().map(|slice| loads.get(&slice.id).copied()).collect();
            let sum =
                |figure: fn(&Load) -> u64| known.as_ref().map(|known| known.iter().map(figure).sum::<u64>());
            let bytes = sum(|load| load.bytes);
            let number = |value: Option<u64>| value.map_or_else(|| "?".to_owned(), |value| value.to_string());
            let percent = bytes.map(|bytes| u128::from(bytes) * 100 / u128::from(all.max(1)));
            vec![
                called(member),
                owned.len().to_string(),
                served.to_string(),
                number(sum(|load| load.keys)),
                number(bytes),
                percent.map_or_else(|| "?".to_owned(), |percent| format!("{percent}%")),
            ]
        })
        .collect();
    let table = table(&["VOLCANO", "SLICES", "SERVES", "KEYS", "BYTES", "SHARE"], &rows);
    format!("{table}\nThe balancer is {}.\n", if topology.balancer { "on" } else { "off" })
}

/// `lava balance plan`.
pub(super) fn plan(lava: &Lava) -> String {
    let (hindrance, plan) = judged(lava);
    let mut text = format!("The balancer is {}.\n", if lava.topology.balancer { "on" } else { "off" });
    for planned in plan.iter().take(SHOWN) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", sentence(lava, planned));
    }
    if plan.len() > SHOWN {
        let _ = writeln!(text, "{} more.", count(plan.len() - SHOWN, "step"));
    }
    match (hindrance, plan.is_empty()) {
        (_, true) => text.push_str("The slices lie evenly enough: nothing is to be moved.\n"),
        (Some(why), false) => {
            let _ = writeln!(text, "Nothing is moved now. {why}");
        }
        (None, false) => {}
    }
    text
}

/// `lava balance on` and `lava balance off`.
pub(super) fn switch(lava: &Lava, on: bool) -> Result<Wish, String> {
    if lava.topology.balancer == on {
        return Err(format!("the balancer is {} already", if on { "on" } else { "off" }));
    }
    let done = if on {
        "The balancer is on: it moves slices one by one until all volcanos hold about the same. `lava balance plan` shows which.\n"
    } else {
        "The balancer is off. What is being moved arrives; nothing else is moved.\n"
    };
    Ok(Wish { changes: vec![Change::Balance(on)], done: done.to_owned() })
}

/// `lava balance now`.
pub(super) fn now(lava: &Lava) -> Result<Wish, String> {
    let (hindrance, plan) = judged(lava);
    if plan.is_empty() {
        return Err("the slices lie evenly enough: nothing is to be moved".to_owned());
    }
    if let Some(why) = hindrance {
        return Err(format!("not now. {why}"));
    }
    let due = balance::due(&plan);
    let mut done: String = due.iter().map(|planned| sentence(lava, planned) + "\n").collect();
    if plan.len() > due.len() {
        let left = count(plan.len() - due.len(), "step");
        let _ =
            writeln!(done, "{left} left: `lava balance now` again when this is done, or `lava balance on`.");
    }
    done.push_str("`lava health` shows how far that is.\n");
    Ok(Wish { changes: changes(lava, due), done })
}

/// `lava move NICK after OTHER`.
pub(super) fn place(lava: &Lava, who: &Member, after: &Member) -> Result<Wish, String> {
    let (name, other) = (called(who), called(after));
    for (member, name) in [(who, &name), (after, &other)] {
        if !member.stays() {
            return Err(format!("{name} is a witness or leaving, and has no place on the ring"));
        }
    }
    if who.id == after.id {
        return Err(format!("{name} cannot follow itself"));
    }
    if lava.topology.ring_from(after.id).nth(1).is_some_and(|next| next.id == who.id) {
        return Err(format!("{name} follows {other} already"));
    }
    let done = format!("{name} follows {other} now. What it owned is the next volcano's.\n");
    Ok(Wish { changes: vec![Change::Place(who.id, after.id)], done })
}

/// What a volcano that has just got its place gets from the one before it.
pub(super) fn share(lava: &Lava, who: &Member) -> Wish {
    let (_, plan) = judged(lava);
    let is_its = |planned: &&Planned| {
        let Step::Assign { slice, from, to } = planned.step else { return false };
        let owner = lava.topology.slices.iter().find(|known| known.id == slice);
        to == who.id && owner.and_then(|slice| lava.topology.assignee(slice)) == Some(from)
    };
    let steps: Vec<Planned> = plan.iter().filter(is_its).cloned().collect();
    let done = if steps.is_empty() {
        format!("{} gets no slices now; see `lava balance plan`.\n", called(who))
    } else {
        let share = count(steps.len(), "slice");
        format!("{} gets {share} as its share. `lava health` shows how far that is.\n", called(who))
    };
    Wish { changes: changes(lava, &steps), done }
}

fn changes(lava: &Lava, steps: &[Planned]) -> Vec<Change> {
    steps.iter().filter_map(|planned| planned.step.change(&lava.topology)).collect()
}

/// Why nothing should be moved now, and what should be moved.
fn judged(lava: &Lava) -> (Option<String>, Vec<Planned>) {
    let (loads, (silent, lost)) = (loads(lava), balance::quiet(&lava.silences));
    let situation = Situation { topology: &lava.topology, loads: &loads, silent: &silent, lost: &lost };
    (balance::hindrance(&situation), balance::plan(&situation))
}

fn loads(lava: &Lava) -> BTreeMap<SliceId, Load> {
    let load = |figures: &crate::console::admin::SliceFigures| {
        (figures.slice, Load { keys: figures.keys, bytes: figures.bytes })
    };
    lava.slices.iter().map(load).collect()
}

fn sentence(lava: &Lava, planned: &Planned) -> String {
    let name = |id| lava.topology.member(id).map_or_else(|| "?".to_owned(), called);
    match planned.step {
        Step::Assign { slice, from, to } => {
            format!("Slice {} goes from {} to {}: {}.", slice.0, name(from), name(to), planned.why)
        }
        Step::Divide { slice, at } => {
            format!("Slice {} is divided at {:016x}: {}.", slice.0, at.0, planned.why)
        }
    }
}
