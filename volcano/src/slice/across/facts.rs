//! Facts: what slices tell each other of their flares.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use magma_common::attr::Kind;
use magma_common::key::{Ino, Key};
use magma_common::name::Name;
use magma_common::proto::OpId;
use serde::{Deserialize, Serialize};

use crate::namespace::{self, Plan, Stop};
use crate::rows::{EntryRow, FlareRow, ReferenceRow};
use crate::transaction::Seen;

/// What is wanted of a flare.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// These entries, if it is a directory.
    pub entries: BTreeSet<Name>,
}

/// What is told of a flare.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Its row.
    pub row: FlareRow,
    /// What decides about operations on it.
    pub seen: Seen,
    /// Storage that it takes, in bytes.
    pub used: u64,
    /// Of a directory: what it is called, and where.
    pub parent: Option<ReferenceRow>,
    /// The entries that were asked for.
    pub entries: BTreeMap<Name, Option<EntryRow>>,
}

impl Facts {
    /// What is to be told of the flare with this key; none if there is no such flare.
    pub fn gather(plan: &mut Plan<'_>, key: &Key, want: &Want) -> Result<Option<Self>, Stop> {
        let Some((row, seen, used)) = namespace::describe_flare(plan, key)? else { return Ok(None) };
        let parent = match row.kind {
            Kind::Directory => plan.references(key)?.into_iter().next(),
            _ => None,
        };
        let entry = |name: &Name| Ok((name.clone(), plan.entry(key, name)?));
        let entries = want.entries.iter().map(entry).collect::<Result<_, Stop>>()?;
        Ok(Some(Self { row, seen, used, parent, entries }))
    }
}

/// What is known of flares elsewhere, for one operation.
#[derive(Debug, Default)]
pub(crate) struct Known {
    flares: BTreeMap<Key, KnownFlare>,
    taken: BTreeSet<Ino>,
}

/// What was told of one flare.
#[derive(Debug, PartialEq)]
pub(crate) struct KnownFlare {
    /// None if there is no such flare.
    pub(crate) facts: Option<Facts>,
    /// The entries because of which it was asked for were made by these operations: several names may lead to it.
    because: BTreeSet<OpId>,
}

impl Known {
    /// This was told of a flare that was asked for because of entries made by these operations. Whether that was known already.
    pub(crate) fn learn(&mut self, key: Key, facts: Option<Facts>, because: BTreeSet<OpId>) -> bool {
        let known = KnownFlare { facts, because };
        let is_known = self.flares.get(&key) == Some(&known);
        self.flares.insert(key, known);
        is_known
    }

    /// Whether nothing was told.
    pub(crate) fn is_empty(&self) -> bool {
        self.flares.is_empty()
    }

    /// What was asked for so far, and because of which entries.
    pub(crate) fn wants(&self) -> impl Iterator<Item = (Key, (Want, BTreeSet<OpId>))> {
        let want = |key: &Key| Want { entries: self.asked(key) };
        self.flares.iter().map(move |(key, known)| (*key, (want(key), known.because.clone())))
    }

    /// This is what the flare is until the outcome of the operation is known; of its entries it depends on those that were told before.
    pub(crate) fn learn_held(&mut self, key: Key, facts: Facts) {
        if let Some(known) = self.flares.get_mut(&key).and_then(|known| known.facts.as_mut()) {
            let entries = std::mem::take(&mut known.entries);
            *known = Facts { entries, ..facts };
        }
    }

    /// The key is taken.
    pub(crate) fn learn_taken(&mut self, key: Key) {
        self.taken.insert(key.ino());
    }

    /// What was told of flares may have changed.
    pub(crate) fn forget_flares(&mut self) {
        self.flares.clear();
    }

    pub(crate) fn is_taken(&self, ino: Ino) -> bool {
        self.taken.contains(&ino)
    }

    /// What is known of a flare that an entry made by this operation leads to; none if nothing is.
    pub(crate) fn of(&self, key: &Key, because: Option<OpId>) -> Option<&KnownFlare> {
        self.flares.get(key).filter(|known| because.is_none_or(|op| known.because.contains(&op)))
    }

    /// Operations that made the entries because of which a flare was asked for.
    pub(crate) fn because(&self, key: &Key) -> BTreeSet<OpId> {
        self.flares.get(key).map_or(BTreeSet::new(), |known| known.because.clone())
    }

    /// Names of a flare's entries that were asked for.
    pub(crate) fn asked(&self, key: &Key) -> BTreeSet<Name> {
        let facts = self.flares.get(key).and_then(|known| known.facts.as_ref());
        facts.map_or(BTreeSet::new(), |facts| facts.entries.keys().cloned().collect())
    }

    /// What decides about operations on a flare elsewhere.
    pub(crate) fn seen(&self, key: &Key) -> Option<Seen> {
        self.of(key, None)?.facts.as_ref().map(|facts| facts.seen.clone())
    }

    /// The latest time that anything told shows.
    pub(crate) fn latest(&self) -> magma_common::time::Timestamp {
        let facts = self.flares.values().filter_map(|known| known.facts.as_ref());
        facts.map(|facts| facts.row.ctime).max().unwrap_or_default()
    }
}

/// What an operation wants to know, and cannot go on without.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// By flare: what is wanted, and because of which entries.
    pub(crate) flares: BTreeMap<Key, (Want, BTreeSet<OpId>)>,
    /// A flare here whose transaction has to end first.
    pub(crate) held: Option<Key>,
}

/// A flare's ACLs in a form that a view gives out.
pub(super) fn acl_of(facts: &Facts, wanted: &Name) -> Option<Bytes> {
    facts.seen.acls.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone())
}
