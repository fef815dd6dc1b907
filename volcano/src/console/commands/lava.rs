//! `lava`: what is degraded, and the network as two tables, slices and volcanos.

use magma_common::topology::{Member, Replica, Topology};

use crate::console::admin::Lava;
use crate::console::health::{called, findings, name, silence, silent_for};
use crate::console::text::{bound, count, table};
use crate::health::{Role, role};

/// The report.
pub(super) fn report(lava: &Lava) -> String {
    let topology = &lava.topology;
    let slices = topology.slices.iter().map(|slice| {
        let figures = lava.slices.iter().find(|figures| figures.slice == slice.id);
        let figure = |value: Option<u64>| value.map_or_else(|| "?".to_owned(), |value| value.to_string());
        vec![
            slice.id.0.to_string(),
            bound(&slice.range.first_key()),
            bound(&slice.range.last_key()),
            format!("{:.2}%", slice.range.share() * 100.0),
            figure(figures.map(|figures| figures.keys)),
            figure(figures.map(|figures| figures.bytes)),
            slice.epoch.0.to_string(),
            name(topology, slice.primary.volcano),
            nicknames(topology, &slice.mirrors),
            nicknames(topology, &slice.joining),
            name(topology, slice.owner),
        ]
    });
    let slices: Vec<Vec<String>> = slices.collect();
    let volcanos = topology.members.iter().map(|member| {
        let figures = lava.volcanos.iter().find(|(id, _)| *id == member.id).map(|(_, figures)| figures);
        let figure = |value: Option<String>| value.unwrap_or_else(|| "?".to_owned());
        vec![
            called(member),
            member.servername.escape_default().to_string(),
            member.flare_address().to_string(),
            figure(figures.map(|figures| format!("{:.2}", figures.load))),
            figure(figures.map(|figures| figures.keys.to_string())),
            figure(figures.map(|figures| figures.bytes.to_string())),
            figure(figures.map(|figures| figures.total.to_string())),
            figure(figures.map(|figures| figures.free.to_string())),
            state(lava, member),
        ]
    });
    let volcanos: Vec<Vec<String>> = volcanos.collect();
    let mut degraded: String = findings(lava).into_iter().map(|finding| finding.headline + "\n").collect();
    if !degraded.is_empty() {
        degraded.push_str("`lava health` tells more.\n\n");
    }
    format!(
        "{degraded}network {:016x}, topology version {}, {}, {}\n{}\n\n{}\n{}",
        topology.network,
        topology.version,
        count(topology.members.len(), "volcano"),
        count(topology.slices.len(), "slice"),
        agreement(lava),
        table(
            &[
                "SLICE", "START", "STOP", "SHARE", "KEYS", "BYTES", "EPOCH", "PRIMARY", "MIRRORS", "JOINING",
                "OWNER"
            ],
            &slices
        ),
        table(
            &["VOLCANO", "SERVERNAME", "ADDRESS", "LOAD", "KEYS", "BYTES", "DISK", "FREE", "STATE"],
            &volcanos
        )
    )
}

fn nicknames(topology: &Topology, copies: &[Replica]) -> String {
    let names: Vec<String> = copies.iter().map(|copy| name(topology, copy.volcano)).collect();
    if names.is_empty() { "-".to_owned() } else { names.join(",") }
}

/// What a volcano does, whether it goes, and whether it is there.
fn state(lava: &Lava, member: &Member) -> String {
    let silence = silence(lava, member.id);
    let mut state = match role(&lava.topology, &lava.volcanos, member) {
        // It may have ceased to do so.
        Role::Serving | Role::Preparing if silence.is_some() => "primary".to_owned(),
        role => role.to_string(),
    };
    if member.leaving {
        state.push_str(", leaving");
    }
    if let Some(silence) = silence {
        state.push_str(", ");
        state.push_str(&silent_for(silence));
    }
    state
}

/// Who agrees on changes, and how many copies there are.
fn agreement(lava: &Lava) -> String {
    let topology = &lava.topology;
    let voters: Vec<String> = topology.voters.iter().map(|voter| name(topology, *voter)).collect();
    let leader = lava.leader.map_or("nobody".to_owned(), |leader| name(topology, leader));
    let in_sync = topology.slices.iter().map(|slice| slice.in_sync().count()).min().unwrap_or(0);
    let stripes = topology.stripes.map_or(String::new(), |unit| format!("; stripes of new files: {unit}"));
    format!(
        "copies: {} wanted, {in_sync} in sync; coordinator: {leader}; voters: {}{stripes}",
        topology.copies,
        if voters.is_empty() { "-".to_owned() } else { voters.join(",") }
    )
}
