//! What is degraded in the network, since when, what is being done about it, and who waits: in sentences.
//!
//! Everything comes from the topology and from what volcanos say of themselves twice a second, so the consoles of all volcanos say
//! the same.

mod copies;
mod members;

use std::time::Duration;

use magma_common::time::Timestamp;
use magma_common::topology::{Member, Topology, VolcanoId};

pub(super) use self::members::has_substitutes;
use super::admin::Lava;
use super::text;
use crate::health::{Role, role};

/// Who has not been heard from for so long is called silent.
const SILENCE: Duration = Duration::from_secs(2);

/// Something that is not as it should be, or that should be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// One sentence.
    pub(super) headline: String,
    /// What is done about it, how far that is, what can be done, and who waits.
    pub(super) details: Vec<String>,
    /// Nothing is lacking; it should be known all the same.
    pub(super) is_note: bool,
}

impl Finding {
    fn trouble(headline: String, details: Vec<String>) -> Self {
        Self { headline, details, is_note: false }
    }

    fn note(headline: String, details: Vec<String>) -> Self {
        Self { headline, details, is_note: true }
    }
}

/// All findings, the worst first.
pub(super) fn findings(lava: &Lava) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for slice in &lava.topology.slices {
        findings.extend(copies::unserved(lava, slice));
        findings.extend(copies::lacking(lava, slice));
    }
    findings.extend(members::votes(lava));
    findings.extend(members::silent(lava));
    findings.extend(members::leaving(lava));
    findings.sort_by_key(|finding| finding.is_note);
    findings
}

/// `lava health`.
pub(super) fn report(lava: &Lava) -> String {
    let findings = findings(lava);
    let mut text = String::new();
    if findings.iter().all(|finding| finding.is_note) {
        text.push_str(&well(lava));
        text.push('\n');
    }
    for finding in &findings {
        text.push_str(&finding.headline);
        text.push('\n');
        for detail in &finding.details {
            text.push_str("  ");
            text.push_str(detail);
            text.push('\n');
        }
    }
    text
}

/// The sentence for when nothing is degraded.
fn well(lava: &Lava) -> String {
    let topology = &lava.topology;
    let serving =
        topology.members.iter().filter(|member| role(topology, &lava.volcanos, member) == Role::Serving);
    let serving: Vec<&Member> = serving.collect();
    let serve = if serving.len() == 1 { "serves" } else { "serve" };
    let copies = match &*topology.slices {
        [slice] => {
            let in_sync: Vec<&Member> =
                slice.in_sync().filter_map(|copy| topology.member(copy.volcano)).collect();
            format!("{} of {} copies are in sync ({})", in_sync.len(), topology.copies, names(&in_sync))
        }
        slices => {
            let fewest = slices.iter().map(|slice| slice.in_sync().count()).min().unwrap_or(0);
            format!("{fewest} of {} copies of each of {} slices are in sync", topology.copies, slices.len())
        }
    };
    let volcanos = text::count(topology.members.len(), "volcano");
    let coordinator = lava.leader.map_or("nobody".to_owned(), |leader| name(topology, leader));
    let votes = text::count(topology.voters.len(), "vote");
    let there = if topology.members.len() == 1 { "is there" } else { "are there" };
    format!(
        "All is well: {} {serve}, {copies}, {volcanos} {there}, {coordinator} coordinates ({votes}).",
        names(&serving)
    )
}

/// How long this volcano has not been heard from, if that is long.
pub(super) fn silence(lava: &Lava, who: VolcanoId) -> Option<Duration> {
    let (_, silence) = lava.silences.iter().find(|(id, _)| *id == who)?;
    (*silence >= SILENCE).then_some(*silence)
}

fn is_there(lava: &Lava, member: &Member) -> bool {
    silence(lava, member.id).is_none()
}

/// `silent for 5 s`.
pub(super) fn silent_for(silence: Duration) -> String {
    format!("silent for {}", text::duration(silence))
}

/// How messages name a volcano.
pub(super) fn name(topology: &Topology, who: VolcanoId) -> String {
    topology.member(who).map_or_else(|| format!("{:016x}", who.0), called)
}

pub(super) fn called(member: &Member) -> String {
    member.nickname.escape_default().to_string()
}

/// `wallace`, `wallace and gromit`, `wallace, gromit and shaun`.
pub(super) fn names(members: &[&Member]) -> String {
    let names: Vec<String> = members.iter().map(|member| called(member)).collect();
    match names.split_last() {
        None => "nobody".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
    }
}

/// A verb's form for so many.
fn is(number: usize) -> &'static str {
    if number == 1 { "is" } else { "are" }
}

/// `since 2026-11-25 03:04:55 UTC (12 s)`.
fn since(lava: &Lava, start: Timestamp) -> String {
    let seconds = u64::try_from(lava.now.seconds().saturating_sub(start.seconds())).unwrap_or(0);
    format!("since {} UTC ({})", text::time(start), text::duration(Duration::from_secs(seconds)))
}

#[cfg(test)]
mod tests;
