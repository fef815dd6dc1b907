//! `lava`: the network as two tables, slices and volcanos.

use magma_common::topology::{Replica, Topology};

use crate::console::admin::Lava;
use crate::console::text::{bound, table};

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
            nickname(topology, slice.primary),
            nicknames(topology, &slice.mirrors),
            nicknames(topology, &slice.joining),
        ]
    });
    let slices: Vec<Vec<String>> = slices.collect();
    let volcanos = topology.members.iter().map(|member| {
        let figures = lava.volcanos.iter().find(|(id, _)| *id == member.id).map(|(_, figures)| figures);
        let figure = |value: Option<String>| value.unwrap_or_else(|| "?".to_owned());
        vec![
            member.nickname.escape_default().to_string(),
            member.servername.escape_default().to_string(),
            member.flare_address().to_string(),
            figure(figures.map(|figures| format!("{:.2}", figures.load))),
            figure(figures.map(|figures| figures.keys.to_string())),
            figure(figures.map(|figures| figures.bytes.to_string())),
            figure(figures.map(|figures| figures.total.to_string())),
            figure(figures.map(|figures| figures.free.to_string())),
        ]
    });
    let volcanos: Vec<Vec<String>> = volcanos.collect();
    format!(
        "network {:016x}, topology version {}, {}, {}\n\n{}\n{}",
        topology.network,
        topology.version,
        count(topology.members.len(), "volcano"),
        count(topology.slices.len(), "slice"),
        table(
            &["SLICE", "START", "STOP", "SHARE", "KEYS", "BYTES", "EPOCH", "PRIMARY", "MIRRORS", "JOINING"],
            &slices
        ),
        table(&["VOLCANO", "SERVERNAME", "ADDRESS", "LOAD", "KEYS", "BYTES", "DISK", "FREE"], &volcanos)
    )
}

/// A number of things.
pub(super) fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

fn nickname(topology: &Topology, Replica { volcano: id, .. }: Replica) -> String {
    topology
        .member(id)
        .map_or_else(|| format!("{:016x}", id.0), |member| member.nickname.escape_default().to_string())
}

fn nicknames(topology: &Topology, copies: &[Replica]) -> String {
    let names: Vec<String> = copies.iter().map(|&copy| nickname(topology, copy)).collect();
    if names.is_empty() { "-".to_owned() } else { names.join(",") }
}
