//! What must hold at rest: nothing goes wrong any more, and everybody has caught up.

use std::collections::{BTreeMap, BTreeSet};

use magma_common::attr::Kind;
use magma_common::handle::Handle;
use magma_common::key::{Key, KeyRange};
use magma_common::name::Name;
use magma_common::topology::{Replica, Slice as Config, SliceId};
use magma_volcano::rows::{FlareRow, Life, Striping};
use magma_volcano::store::Store;
use magma_volcano::view::{ReadError, View};

use super::history::{Violation, violation};
use super::volcano::Volcano;

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
    if topology.slices.is_empty() {
        return Some("there is no slice".into());
    }
    topology.slices.iter().find_map(|config| {
        let unrest = unrest_of_slice(&up, usize::from(topology.copies), config)?;
        Some(format!("slice {}: {unrest}", config.id.0))
    })
}

fn unrest_of_slice(up: &[&Volcano], copies: usize, config: &Config) -> Option<String> {
    if config.recalling {
        return Some("it has not asked the others what it lost".into());
    }
    if config.dividing.is_some() {
        return Some("it is being divided".into());
    }
    if !config.joining.is_empty() {
        return Some(format!("{} copies are joining", config.joining.len()));
    }
    let wanted = copies.min(up.len());
    let in_sync = config.in_sync().count();
    if in_sync != wanted {
        return Some(format!("{in_sync} copies are in sync, and {wanted} have to be"));
    }
    unrest_of_copies(up, config)
}

fn unrest_of_copies(up: &[&Volcano], config: &Config) -> Option<String> {
    let mut last = None;
    for copy in config.in_sync() {
        let Some(volcano) = up.iter().find(|volcano| volcano.life == Some(copy)) else {
            return Some(format!("{copy:?} is a copy and does not run"));
        };
        let Some(slice) = volcano.slice(config.id) else {
            return Some(format!("volcano {} has no copy", volcano.place));
        };
        if copy == config.primary && !slice.is_serving() {
            return Some(format!("volcano {} does not serve", volcano.place));
        }
        let position = slice.store().position(config.id);
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
            let sessions = store.sessions_of(config.id).ok()?.len();
            let orphans = store.orphans(None, PAGE).ok()?;
            let orphans = orphans.iter().filter(|key| config.range.contains(key)).count();
            let transactions = store.transactions(config.id).ok()?;
            let to_shed = store.to_shed_in(config.range, None, PAGE).ok()?.len();
            if held + waits + sessions + orphans + to_shed + transactions.len() > 0 {
                return Some(format!(
                    "{held} answers are held, {waits} wait for locks, {sessions} sessions, {orphans} flares without a name, {to_shed} striped files that have something to shed and {} transactions are left: {:?}",
                    transactions.len(),
                    transactions.first()
                ));
            }
        }
    }
    None
}

/// Checks what must hold at rest.
pub fn check(volcanos: &[Volcano]) -> Result<(), Violation> {
    let failed = |error: ReadError| Violation(format!("at rest: a store cannot be read: {error}"));
    let topology = volcanos.iter().filter_map(Volcano::topology).max_by_key(|topology| topology.version);
    let Some(topology) = topology else { return violation("at rest: there is no topology") };
    let mut whole = Whole { parts: Vec::new() };
    for config in &topology.slices {
        let copies = copies(volcanos, config);
        let Some((left, others)) = copies.split_first() else {
            return violation(format!("at rest: there is no copy of slice {}", config.id.0));
        };
        others.iter().try_for_each(|right| same(config.id, *left, *right))?;
        if let Some((place, _)) = copies.iter().find(|(_, store)| store.checksum_failures() > 0) {
            return violation(format!("checksums: blocks of volcano {place} fail them"));
        }
        whole.parts.push((config.id, config.range, left.1));
    }
    tree(&whole).map_err(failed)?
}

/// Checks that two copies of a slice that stand at the same record hold the same.
pub fn equal(slice: SliceId, left: &Volcano, right: &Volcano) -> Result<(), Violation> {
    let (Some(a), Some(b)) = (left.node.as_ref(), right.node.as_ref()) else { return Ok(()) };
    same(slice, (left.place, a.store()), (right.place, b.store()))
}

fn same(slice: SliceId, left: (usize, &Store), right: (usize, &Store)) -> Result<(), Violation> {
    let failed = |error: ReadError| Violation(format!("equal copies: a store cannot be read: {error}"));
    if left.1.fingerprint(slice).map_err(failed)? == right.1.fingerprint(slice).map_err(failed)? {
        return Ok(());
    }
    violation(format!(
        "equal copies: volcanos {} and {} hold different things of slice {}: {}",
        left.0,
        right.0,
        slice.0,
        difference(slice, left.1, right.1).unwrap_or_else(|error| error.to_string())
    ))
}

fn copies<'a>(volcanos: &'a [Volcano], config: &Config) -> Vec<(usize, &'a Store)> {
    let of_copy = |copy: Replica| {
        let volcano = volcanos.iter().find(|volcano| volcano.life == Some(copy))?;
        Some((volcano.place, volcano.node.as_ref()?.store()))
    };
    config.in_sync().filter_map(of_copy).collect()
}

/// All slices, each in the store of one of its copies.
struct Whole<'a> {
    parts: Vec<(SliceId, KeyRange, &'a Store)>,
}

impl<'a> Whole<'a> {
    /// The store with the flare of this key.
    fn of(&self, key: &Key) -> Result<&'a Store, ReadError> {
        let part = self.parts.iter().find(|(_, range, _)| range.contains(key));
        part.map(|(.., store)| *store).ok_or(ReadError::Elsewhere)
    }

    /// Whether it is the head of a striped file.
    fn is_head(&self, handle: Handle) -> Result<bool, ReadError> {
        let row = self.of(&handle.key)?.flare(&handle.key)?;
        Ok(row.is_some_and(|row| matches!(row.striping, Striping::Head(_))))
    }

    /// All flares.
    fn handles(&self) -> Result<BTreeSet<Handle>, ReadError> {
        let mut handles = BTreeSet::new();
        for (slice, _, store) in &self.parts {
            handles.extend(store.handles_of(*slice)?);
        }
        Ok(handles)
    }
}

/// Directories form a tree; entries, references and numbers of names agree.
fn tree(whole: &Whole<'_>) -> Result<Result<(), Violation>, ReadError> {
    let mut names: BTreeMap<Handle, Vec<(Handle, Name)>> = BTreeMap::new();
    let mut kinds = BTreeMap::from([(Handle::root(), Kind::Directory)]);
    let mut subdirectories: BTreeMap<Handle, u32> = BTreeMap::new();
    let mut next = vec![Handle::root()];
    let (mut seen, mut heads) = (BTreeSet::new(), BTreeSet::new());
    while let Some(dir) = next.pop() {
        if !seen.insert(dir) {
            return Ok(violation(format!("the tree: the directory {dir:?} has two names")));
        }
        for entry in whole.of(&dir.key)?.entries_after(&dir.key, 0, PAGE)? {
            match entry.kind {
                Kind::Directory => {
                    next.push(entry.child);
                    *subdirectories.entry(dir).or_default() += 1;
                }
                // Of one with two names, the stripes are its own all the same.
                Kind::File if heads.insert(entry.child) && whole.is_head(entry.child)? => {
                    next.push(entry.child);
                }
                _ => {}
            }
            kinds.insert(entry.child, entry.kind);
            names.entry(entry.child).or_default().push((dir, entry.name));
        }
    }
    let all = whole.handles()?;
    if let Some(lost) = all.iter().find(|handle| !kinds.contains_key(*handle)) {
        let row = whole.of(&lost.key)?.flare(&lost.key)?;
        let (reached, total) = (kinds.len(), all.len());
        return Ok(violation(format!(
            "the tree: {reached} of {total} flares can be reached, and not {row:?}"
        )));
    }
    for (handle, kind) in kinds {
        let store = whole.of(&handle.key)?;
        let Some(row) = store.flare(&handle.key)?.filter(|row| row.handle == handle && row.kind == kind)
        else {
            let names = names.remove(&handle).unwrap_or_default();
            return Ok(violation(format!("the tree: {names:?} lead to {handle:?}, which is not there")));
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
    let said = match &row.striping {
        Striping::Head(head) => head.count,
        Striping::Whole | Striping::Stripe { .. } => row.entries,
    };
    if said != entries {
        return Ok(Some(format!("has {entries} entries and says {said}")));
    }
    Ok(None)
}

/// What two stores differ in, for people.
fn difference(slice: SliceId, left: &Store, right: &Store) -> Result<String, ReadError> {
    let transactions = (left.transactions(slice)?, right.transactions(slice)?);
    if transactions.0 != transactions.1 {
        return Ok(format!("transactions: {transactions:?}"));
    }
    let all: BTreeSet<Handle> = left.handles_of(slice)?.into_iter().chain(right.handles_of(slice)?).collect();
    for handle in all {
        let path = format!("{handle:?}");
        let (a, b) = (left.flare(&handle.key)?, right.flare(&handle.key)?);
        if a != b {
            return Ok(format!("{path}: {a:?} and {b:?}"));
        }
        let (a, b) = (left.entries_after(&handle.key, 0, PAGE)?, right.entries_after(&handle.key, 0, PAGE)?);
        if a != b {
            return Ok(format!("entries of {path}/: {a:?} and {b:?}"));
        }
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
    Ok("nothing of flares and transactions (sessions)".into())
}
