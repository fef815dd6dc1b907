//! Whatever is asked in whatever order: names, references, counters and the shape of the tree agree, and it is
//! the tree that a simple model of paths expects.

use super::world::*;

use std::collections::BTreeMap;

use magma_common::attr::Kind;
use magma_common::error::FlareError;
use magma_common::handle::Handle;
use magma_common::proto::operation::*;
use proptest::prelude::*;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Clone, Debug)]
enum Step {
    Create(usize, usize),
    Mkdir(usize, usize),
    Link(usize, usize, usize),
    Unlink(usize, usize),
    Rmdir(usize, usize),
    Rename((usize, usize), (usize, usize), RenameHow),
    Open(usize),
    CloseAll,
}

fn step() -> impl Strategy<Value = Step> {
    let place = || (0..12usize, 0..NAMES.len());
    let how = prop_oneof![Just(RenameHow::Replace), Just(RenameHow::NoReplace), Just(RenameHow::Exchange)];
    prop_oneof![
        3 => place().prop_map(|(dir, name)| Step::Create(dir, name)),
        4 => place().prop_map(|(dir, name)| Step::Mkdir(dir, name)),
        2 => (0..12usize, place()).prop_map(|(file, (dir, name))| Step::Link(file, dir, name)),
        2 => place().prop_map(|(dir, name)| Step::Unlink(dir, name)),
        1 => place().prop_map(|(dir, name)| Step::Rmdir(dir, name)),
        8 => (place(), place(), how).prop_map(|(from, to, how)| Step::Rename(from, to, how)),
        1 => (0..12usize).prop_map(Step::Open),
        1 => Just(Step::CloseAll),
    ]
}

/// Every name in the tree, by its path.
fn paths(world: &World) -> BTreeMap<String, Handle> {
    let mut found = BTreeMap::new();
    let mut pending = vec![(String::new(), Handle::root())];
    while let Some((path, dir)) = pending.pop() {
        for entry in world.memory.entries.get(&dir.key).into_iter().flat_map(BTreeMap::values) {
            let below = format!("{path}/{}", entry.name);
            if entry.kind == Kind::Directory {
                pending.push((below.clone(), entry.child));
            }
            found.insert(below, entry.child);
        }
    }
    found
}

/// The `index`-th flare of a kind that has or had a name, the root first.
fn pick(world: &World, index: usize, directory: bool) -> Handle {
    let mut picked: Vec<_> = world
        .memory
        .flares
        .values()
        .filter(|row| (row.kind == Kind::Directory) == directory)
        .map(|row| (row.handle != Handle::root(), row.handle))
        .collect();
    picked.sort_unstable();
    picked.get(index % picked.len().max(1)).map_or(Handle::root(), |(_, handle)| *handle)
}

fn run(world: &mut World, step: &Step) -> Result<(), FlareError> {
    let admin = root();
    match *step {
        Step::Create(dir, name) => {
            let dir = pick(world, dir, true);
            world.create_as(&admin, dir, NAMES[name], 0o600).map(drop)
        }
        Step::Mkdir(dir, name) => {
            let dir = pick(world, dir, true);
            world.mkdir_as(&admin, dir, NAMES[name], 0o700).map(drop)
        }
        Step::Link(file, dir, name) => {
            let (file, dir) = (pick(world, file, false), pick(world, dir, true));
            world.link(&admin, file, dir, NAMES[name]).map(drop)
        }
        Step::Unlink(dir, name) => {
            let dir = pick(world, dir, true);
            world.unlink(&admin, dir, NAMES[name]).map(drop)
        }
        Step::Rmdir(dir, name) => {
            let dir = pick(world, dir, true);
            world.rmdir(&admin, dir, NAMES[name]).map(drop)
        }
        Step::Rename(from, to, how) => {
            let from = (pick(world, from.0, true), NAMES[from.1]);
            let to = (pick(world, to.0, true), NAMES[to.1]);
            world.rename(&admin, from, to, how).map(drop)
        }
        Step::Open(index) => {
            let handle = pick(world, index, index % 2 == 0);
            world.opens.0.insert(handle);
            Ok(())
        }
        Step::CloseAll => {
            for handle in std::mem::take(&mut world.opens.0) {
                world.plan(|plan| crate::namespace::release_last(plan, handle)).unwrap();
            }
            Ok(())
        }
    }
}

/// What a successful step does to the paths, told in terms of paths alone.
fn expect(before: &BTreeMap<String, Handle>, world: &World, step: &Step) -> Option<BTreeMap<String, Handle>> {
    let Step::Rename(from, to, how) = *step else { return None };
    let path_of = |dir: Handle| {
        if dir == Handle::root() {
            return Some(String::new());
        }
        before.iter().find(|(_, handle)| **handle == dir).map(|(path, _)| path.clone())
    };
    let from = format!("{}/{}", path_of(pick(world, from.0, true))?, NAMES[from.1]);
    let to = format!("{}/{}", path_of(pick(world, to.0, true))?, NAMES[to.1]);
    if before.get(&from) == before.get(&to) {
        return Some(before.clone());
    }
    let below = |path: &str, top: &str| path == top || path.starts_with(&format!("{top}/"));
    let mut after = BTreeMap::new();
    for (path, handle) in before {
        if below(path, &from) {
            after.insert(path.replacen(&from, &to, 1), *handle);
        } else if !below(path, &to) {
            after.insert(path.clone(), *handle);
        } else if how == RenameHow::Exchange {
            after.insert(path.replacen(&to, &from, 1), *handle);
        }
    }
    Some(after)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn names_references_and_counters_agree_after_any_sequence(
        steps in proptest::collection::vec(step(), 1..60)
    ) {
        let mut world = World::new();
        for step in steps {
            let before = paths(&world);
            let expected = expect(&before, &world, &step);
            let done = run(&mut world, &step);
            check(&world.memory);
            match (done, expected) {
                (Err(_), _) => prop_assert_eq!(paths(&world), before, "a refusal changes nothing"),
                (Ok(()), Some(expected)) => prop_assert_eq!(paths(&world), expected),
                (Ok(()), None) => {}
            }
        }
        run(&mut world, &Step::CloseAll).unwrap();
        let named = paths(&world).into_values().collect::<std::collections::BTreeSet<_>>();
        prop_assert_eq!(named.len() + 1, world.memory.flares.len(), "nothing without a name is left");
    }
}
