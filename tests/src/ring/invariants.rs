//! What must hold at rest: nothing goes wrong any more, and everybody has caught up.

use std::collections::{BTreeMap, BTreeSet};

use magma_common::attr::Kind;
use magma_common::handle::Handle;
use magma_common::name::Name;
use magma_common::topology::{Replica, Slice as Config, Topology};
use magma_volcano::rows::{FlareRow, Life};
use magma_volcano::store::Store;
use magma_volcano::view::{ReadError, View};

use super::history::{Violation, violation};
use super::volcano::{SLICE, Volcano};

/// Entries that are looked at together.
const PAGE: usize = 1000;

/// What keeps the volcanos from being at rest, if anything does.
pub fn unrest(volcanos: &[Volcano]) -> Option<String> {
    let up: Vec<&Volcano> = volcanos.iter().filter(|volcano| volcano.is_up()).collect();
    if let Some(down) = volcanos.iter().find(|volcano| !volcano.is_up() && !volcano.is_gone) {
        return Some(format!("volcano {} is down", down.place));
    }
    let topology =
        up.iter().filter_map(|volcano| volcano.topology()).max_by_key(|topology| topology.version)?;
    if let Some(behind) =
        up.iter().find(|volcano| volcano.topology().is_none_or(|known| known.version != topology.version))
    {
        return Some(format!("volcano {} does not know the topology {}", behind.place, topology.version));
    }
    if topology.members.iter().any(|member| member.leaving) {
        return Some("somebody is leaving".into());
    }
    let Some(config) = topology.slices.first() else { return Some("there is no slice".into()) };
    if !config.joining.is_empty() {
        return Some(format!("{} copies are joining", config.joining.len()));
    }
    let wanted = usize::from(topology.copies).min(up.len());
    let in_sync = config.in_sync().count();
    if in_sync != wanted {
        return Some(format!("{in_sync} copies are in sync, and {wanted} have to be"));
    }
    unrest_of_copies(&up, config)
}

fn unrest_of_copies(up: &[&Volcano], config: &Config) -> Option<String> {
    let mut last = None;
    for copy in config.in_sync() {
        let Some(volcano) = up.iter().find(|volcano| volcano.life == Some(copy)) else {
            return Some(format!("{copy:?} is a copy and does not run"));
        };
        let Some(slice) = volcano.slice() else {
            return Some(format!("volcano {} has no copy", volcano.place));
        };
        if copy == config.primary && !slice.is_serving() {
            return Some(format!("volcano {} does not serve", volcano.place));
        }
        let position = slice.store().position(SLICE);
        if last.is_some_and(|last| last != position) {
            return Some(format!(
                "volcano {} stands at {position:?}, another copy at {last:?}",
                volcano.place
            ));
        }
        last = Some(position);
        if copy == config.primary {
            let (_, held, waits) = slice.held();
            let store = slice.store();
            let (sessions, orphans) = (store.sessions().ok()?.len(), store.orphans(None, PAGE).ok()?.len());
            if held + waits + sessions + orphans > 0 {
                return Some(format!(
                    "{held} answers are held, {waits} wait for locks, {sessions} sessions and {orphans} flares without a name are left"
                ));
            }
        }
    }
    None
}

/// Checks what must hold at rest.
pub fn check(volcanos: &[Volcano]) -> Result<(), Violation> {
    let copies = copies(volcanos);
    let failed = |error: ReadError| Violation(format!("at rest: a store cannot be read: {error}"));
    if let Some((left, others)) = copies.split_first() {
        others.iter().try_for_each(|right| same(*left, *right))?;
    }
    if let Some((place, _)) = copies.iter().find(|(_, store)| store.checksum_failures() > 0) {
        return violation(format!("checksums: blocks of volcano {place} fail them"));
    }
    let Some((_, store)) = copies.first() else { return violation("at rest: there is no copy") };
    tree(store).map_err(failed)?
}

/// Checks that two copies that stand at the same record hold the same.
pub fn equal(left: &Volcano, right: &Volcano) -> Result<(), Violation> {
    let (Some(a), Some(b)) = (left.node.as_ref(), right.node.as_ref()) else { return Ok(()) };
    same((left.place, a.store()), (right.place, b.store()))
}

fn same(left: (usize, &Store), right: (usize, &Store)) -> Result<(), Violation> {
    let failed = |error: ReadError| Violation(format!("equal copies: a store cannot be read: {error}"));
    if left.1.fingerprint(SLICE).map_err(failed)? == right.1.fingerprint(SLICE).map_err(failed)? {
        return Ok(());
    }
    violation(format!(
        "equal copies: volcanos {} and {} hold different things: {}",
        left.0,
        right.0,
        difference(left.1, right.1).unwrap_or_else(|error| error.to_string())
    ))
}

fn copies(volcanos: &[Volcano]) -> Vec<(usize, &Store)> {
    let topology = volcanos.iter().filter_map(Volcano::topology).max_by_key(|topology| topology.version);
    let Some(config) = topology.and_then(|topology: &Topology| topology.slices.first()) else {
        return Vec::new();
    };
    let of_copy = |copy: Replica| {
        let volcano = volcanos.iter().find(|volcano| volcano.life == Some(copy))?;
        Some((volcano.place, volcano.node.as_ref()?.store()))
    };
    config.in_sync().filter_map(of_copy).collect()
}

/// Directories form a tree; entries, references and numbers of names agree.
fn tree(store: &Store) -> Result<Result<(), Violation>, ReadError> {
    let mut names: BTreeMap<Handle, Vec<(Handle, Name)>> = BTreeMap::new();
    let mut kinds = BTreeMap::from([(Handle::root(), Kind::Directory)]);
    let mut subdirectories: BTreeMap<Handle, u32> = BTreeMap::new();
    let mut next = vec![Handle::root()];
    let mut seen = BTreeSet::new();
    while let Some(dir) = next.pop() {
        if !seen.insert(dir) {
            return Ok(violation(format!("the tree: the directory {dir:?} has two names")));
        }
        for entry in store.entries_after(&dir.key, 0, PAGE)? {
            if entry.kind == Kind::Directory {
                next.push(entry.child);
                *subdirectories.entry(dir).or_default() += 1;
            }
            kinds.insert(entry.child, entry.kind);
            names.entry(entry.child).or_default().push((dir, entry.name));
        }
    }
    let total = store.space().flares;
    if total != kinds.len() as u64 {
        return Ok(violation(format!("the tree: {} of {total} flares can be reached", kinds.len())));
    }
    for (handle, kind) in kinds {
        let Some(row) = store.flare(&handle.key)?.filter(|row| row.handle == handle && row.kind == kind)
        else {
            return Ok(violation(format!("the tree: an entry leads to {handle:?}, which is not there")));
        };
        let mut expected = names.remove(&handle).unwrap_or_default();
        let mut found: Vec<(Handle, Name)> = store
            .references(&handle.key)?
            .into_iter()
            .map(|reference| (reference.parent, reference.name))
            .collect();
        expected.sort();
        found.sort();
        if expected != found {
            return Ok(violation(format!(
                "the tree: {handle:?} is called {expected:?} and thinks {found:?}"
            )));
        }
        let below = subdirectories.get(&handle).copied().unwrap_or(0);
        if let Some(wrong) = wrong_numbers(store, &row, expected.len() as u32, below)? {
            return Ok(violation(format!("the tree: {handle:?} {wrong}")));
        }
    }
    Ok(Ok(()))
}

fn wrong_numbers(store: &Store, row: &FlareRow, names: u32, below: u32) -> Result<Option<String>, ReadError> {
    let nlink = if row.kind == Kind::Directory { 2 + below } else { names };
    if row.nlink != nlink || row.life != Life::Named {
        return Ok(Some(format!("has {} names and says {} ({:?})", nlink, row.nlink, row.life)));
    }
    let entries = store.entries_after(&row.key(), 0, PAGE)?.len() as u64;
    if row.kind == Kind::Directory && row.entries != entries {
        return Ok(Some(format!("has {entries} entries and says {}", row.entries)));
    }
    Ok(None)
}

/// What two stores differ in, for people.
fn difference(left: &Store, right: &Store) -> Result<String, ReadError> {
    let mut next = vec![(Handle::root(), String::new())];
    let mut seen = BTreeSet::new();
    while let Some((handle, path)) = next.pop() {
        if !seen.insert(handle) {
            continue;
        }
        let (a, b) = (left.flare(&handle.key)?, right.flare(&handle.key)?);
        if a != b {
            return Ok(format!("{path}: {a:?} and {b:?}"));
        }
        let (a, b) = (left.entries_after(&handle.key, 0, PAGE)?, right.entries_after(&handle.key, 0, PAGE)?);
        if a != b {
            return Ok(format!("entries of {path}/: {a:?} and {b:?}"));
        }
        next.extend(a.into_iter().map(|entry| (entry.child, format!("{path}/{}", entry.name))));
        let (a, b) = (left.references(&handle.key)?, right.references(&handle.key)?);
        if a != b {
            return Ok(format!("references of {path}: {a:?} and {b:?}"));
        }
        if left.inline(&handle.key)? != right.inline(&handle.key)? {
            return Ok(format!("the small body of {path}"));
        }
        if left.locks(&handle.key)? != right.locks(&handle.key)? {
            return Ok(format!("locks of {path}"));
        }
        if let Some(row) = left.flare(&handle.key)?
            && let magma_volcano::rows::Content::Body { body, high } = row.content
        {
            let (a, b) = (left.read_body(body, 0, high as usize)?, right.read_body(body, 0, high as usize)?);
            if let Some(at) = (0..a.len().max(b.len())).find(|at| a.get(*at) != b.get(*at)) {
                return Ok(format!(
                    "the body of {path} ({high} bytes) from byte {at} on: {:?} and {:?}",
                    a.get(at),
                    b.get(at)
                ));
            }
        }
    }
    Ok("nothing that a walk through the tree shows (sessions, orphans)".into())
}
