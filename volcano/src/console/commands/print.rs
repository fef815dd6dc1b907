//! `print cache`, `cache load`, `print acl` and `print debug`: tables about this volcano.

use magma_common::logging::{Channel, Channels};

use crate::console::admin::{AclRule, CacheFigures};
use crate::console::text::table;

/// `cache load`: how full the caches are.
pub(super) fn cache_load(caches: &[CacheFigures]) -> String {
    if caches.is_empty() {
        return "no caches\n".to_owned();
    }
    let rows: Vec<Vec<String>> = caches.iter().map(|cache| vec![cache.name.clone(), load(cache)]).collect();
    table(&["CACHE", "LOAD"], &rows)
}

/// `print cache`: all figures of the caches.
pub(super) fn caches(caches: &[CacheFigures]) -> String {
    if caches.is_empty() {
        return "no caches\n".to_owned();
    }
    let rows = caches.iter().map(|cache| {
        vec![
            cache.name.clone(),
            cache.entries.to_string(),
            cache.capacity.to_string(),
            load(cache),
            cache.hits.to_string(),
            cache.misses.to_string(),
            percent(cache.hits, cache.hits.saturating_add(cache.misses)),
        ]
    });
    let rows: Vec<Vec<String>> = rows.collect();
    table(&["CACHE", "ENTRIES", "CAPACITY", "LOAD", "HITS", "MISSES", "HIT RATE"], &rows)
}

fn load(cache: &CacheFigures) -> String {
    percent(cache.entries, cache.capacity)
}

/// To a tenth; of nothing there is no part.
fn percent(part: u64, whole: u64) -> String {
    match (u128::from(part) * 1000).checked_div(u128::from(whole)) {
        Some(tenths) => format!("{}.{}%", tenths / 10, tenths % 10),
        None => "-".to_owned(),
    }
}

/// `print acl`: who may mount what.
pub(super) fn acl(rules: &[AclRule]) -> String {
    if rules.is_empty() {
        return "no rules: whoever has the key may mount everything\n".to_owned();
    }
    let rows = rules.iter().map(|rule| vec![rule.network.clone(), rule.path.clone(), rule.access.clone()]);
    table(&["NETWORK", "PATH", "ACCESS"], &rows.collect::<Vec<_>>())
}

/// `print debug`: the channels and whether they are on.
pub(super) fn channels(on: Channels) -> String {
    let rows = Channel::ALL.iter().map(|&channel| {
        let state = if on.contains(channel) { "on" } else { "off" };
        vec![
            channel.name().to_owned(),
            channel.letter().to_string(),
            state.to_owned(),
            channel.about().to_owned(),
        ]
    });
    table(&["CHANNEL", "LETTER", "STATE", "SHOWS"], &rows.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_that_is_limited_elsewhere_shows_no_load() {
        let cache = CacheFigures { name: "x".to_owned(), entries: 5, capacity: 0, hits: 0, misses: 0 };
        assert_eq!(cache_load(&[cache]), "CACHE  LOAD\nx      -\n");
    }
}
