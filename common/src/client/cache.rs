//! A short-lived cache of attributes and names, for callers that ask for it.
//!
//! What it answers was true at most [`LIFETIME`] ago, and never predates a mutation that this client has
//! finished, or a lock that it has got. It is bounded in bytes. Names are kept per caller, since whether a lookup is allowed depends on who asks;
//! attributes may be read by everybody who has the handle.
//!
//! Every mutation bumps the *stamps* of the flares it names, when it begins and when it ends. An answer is
//! kept under the stamp from before it was asked for, and holds only while that is still the stamp: so an
//! answer that a mutation has overtaken is never used.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quick_cache::Weighter;
use quick_cache::sync::Cache as Lru;

use crate::attr::Attr;
use crate::handle::Handle;
use crate::name::Name;
use crate::proto::operation::LockKind;
use crate::proto::{Credentials, Request};

/// Longest time for which an answer is reused.
pub const LIFETIME: Duration = Duration::from_secs(1);
/// Memory for attributes and for names, in bytes each.
const BYTES: u64 = 16 << 20;
const TYPICAL_ENTRY: u64 = 256;
const STAMPS: usize = 4096;

#[derive(Clone, PartialEq, Eq, Hash)]
struct NameKey {
    dir: Handle,
    name: Name,
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

#[derive(Clone)]
struct Kept {
    attr: Attr,
    /// Of the flare asked for: the directory for a name.
    stamp: u64,
    since: Instant,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Handle, Kept> for ByBytes {
    fn weight(&self, _: &Handle, _: &Kept) -> u64 {
        (size_of::<Handle>() + size_of::<Kept>()) as u64
    }
}

impl Weighter<NameKey, Kept> for ByBytes {
    fn weight(&self, key: &NameKey, _: &Kept) -> u64 {
        (size_of::<NameKey>() + size_of::<Kept>() + key.name.as_bytes().len() + 4 * key.groups.len()) as u64
    }
}

/// See the module's documentation.
pub(super) struct Cache {
    attributes: Lru<Handle, Kept, ByBytes>,
    names: Lru<NameKey, Kept, ByBytes>,
    stamps: Vec<AtomicU64>,
    /// Counts all bumps.
    bumps: AtomicU64,
    /// The same in every run: who shares a stamp only loses what is kept a little more often.
    hasher: BuildHasherDefault<DefaultHasher>,
}

/// When a question was asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    stamp: u64,
    bumps: u64,
    at: Instant,
}

impl Cache {
    pub(super) fn new() -> Self {
        let entries = (BYTES / TYPICAL_ENTRY) as usize;
        Self {
            attributes: Lru::with_weighter(entries, BYTES, ByBytes),
            names: Lru::with_weighter(entries, BYTES, ByBytes),
            stamps: (0..STAMPS).map(|_| AtomicU64::new(0)).collect(),
            bumps: AtomicU64::new(0),
            hasher: BuildHasherDefault::new(),
        }
    }

    fn stamp(&self, handle: &Handle) -> Option<&AtomicU64> {
        let slot = self.hasher.hash_one(handle) % STAMPS as u64;
        self.stamps.get(slot as usize)
    }

    fn stamp_of(&self, handle: &Handle) -> u64 {
        self.stamp(handle).map_or(0, |stamp| stamp.load(Ordering::Acquire))
    }

    /// To be called before the volcano is asked about this flare.
    pub(super) fn ask(&self, now: Instant, handle: &Handle) -> Asked {
        Asked { stamp: self.stamp_of(handle), bumps: self.bumps.load(Ordering::Acquire), at: now }
    }

    fn holds(&self, handle: &Handle, kept: &Kept, now: Instant) -> bool {
        kept.stamp == self.stamp_of(handle) && now.saturating_duration_since(kept.since) < LIFETIME
    }

    pub(super) fn attributes(&self, now: Instant, handle: &Handle) -> Option<Attr> {
        let kept = self.attributes.get(handle)?;
        self.holds(handle, &kept, now).then_some(kept.attr)
    }

    pub(super) fn keep_attributes(&self, asked: Asked, attr: &Attr) {
        let kept = Kept { attr: attr.clone(), stamp: asked.stamp, since: asked.at };
        self.attributes.insert(attr.handle, kept);
    }

    /// The flare of that name, with attributes if they are still known.
    pub(super) fn name(&self, now: Instant, dir: &Handle, name: &Name, by: &Credentials) -> Option<Attr> {
        let key = NameKey::new(dir, name, by);
        let kept = self.names.get(&key)?;
        if !self.holds(dir, &kept, now) {
            return None;
        }
        // The attributes beside the name are guarded by the directory's stamp only.
        self.attributes(now, &kept.attr.handle)
    }

    pub(super) fn keep_name(&self, asked: Asked, dir: &Handle, name: &Name, by: &Credentials, attr: &Attr) {
        let stamp = self.stamp_of(&attr.handle);
        // The flare's own stamp from before the question is not known, unless no stamp has changed at all.
        if self.bumps.load(Ordering::Acquire) == asked.bumps {
            self.keep_attributes(Asked { stamp, ..asked }, attr);
        }
        let kept = Kept { attr: attr.clone(), stamp: asked.stamp, since: asked.at };
        self.names.insert(NameKey::new(dir, name, by), kept);
    }

    /// To be held while a mutation is under way. Its end is when it is dropped.
    pub(super) fn mutation(&self, request: &Request) -> Mutation<'_> {
        let touched = touched(request);
        self.bump(&touched);
        Mutation { cache: self, touched }
    }

    fn bump(&self, touched: &Touched) {
        if !matches!(touched, Touched::Nothing) {
            self.bumps.fetch_add(1, Ordering::AcqRel);
        }
        match touched {
            Touched::Nothing => {}
            Touched::These(handles) => {
                for stamp in handles.iter().flatten().filter_map(|handle| self.stamp(handle)) {
                    stamp.fetch_add(1, Ordering::AcqRel);
                }
            }
            Touched::Unnamed => {
                for stamp in &self.stamps {
                    stamp.fetch_add(1, Ordering::AcqRel);
                }
            }
        }
    }
}

impl NameKey {
    fn new(dir: &Handle, name: &Name, by: &Credentials) -> Self {
        Self { dir: *dir, name: name.clone(), uid: by.uid, gid: by.gid, groups: by.groups.clone() }
    }
}

/// Which flares a request changes.
enum Touched {
    Nothing,
    These([Option<Handle>; 2]),
    /// Also one that it names by its directory entry only, whose handle is not known here.
    Unnamed,
}

fn touched(request: &Request) -> Touched {
    match request {
        Request::Unlink(_) | Request::Rmdir(_) | Request::Rename(_) => Touched::Unnamed,
        // An unchecked create may cut a file that exists.
        Request::Create(create) if create.set.size.is_some() => Touched::Unnamed,
        Request::Link(link) => Touched::These([Some(link.handle), Some(link.dir)]),
        // It changes nothing, but who holds a lock must see what its last holder has written.
        Request::Lock(lock) if lock.kind != LockKind::Unlock => Touched::These([Some(lock.handle), None]),
        Request::Release(_) | Request::Lock(_) => Touched::Nothing,
        other if other.mutates() => Touched::These([other.handle(), None]),
        _ => Touched::Nothing,
    }
}

/// A mutation under way.
pub(super) struct Mutation<'a> {
    cache: &'a Cache,
    touched: Touched,
}

impl Drop for Mutation<'_> {
    fn drop(&mut self) {
        self.cache.bump(&self.touched);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use bytes::Bytes;

    use crate::fake::attr;
    use crate::proto::operation::{Lock, LockFamily, LockOwner, Write, WriteAt};

    fn write() -> Request {
        Write { handle: Handle::root(), at: WriteAt::End, opened: true }.into()
    }

    #[test]
    fn an_answer_overtaken_by_a_mutation_is_not_used() {
        let (cache, now) = (Cache::new(), Instant::now());
        let root = Handle::root();
        let before = cache.ask(now, &root);
        drop(cache.mutation(&write()));
        cache.keep_attributes(before, &attr(root));
        assert_eq!(cache.attributes(now, &root), None);
        cache.keep_attributes(cache.ask(now, &root), &attr(root));
        assert!(cache.attributes(now, &root).is_some());
    }

    #[test]
    fn an_answer_from_within_a_mutation_ends_with_it() {
        let (cache, now) = (Cache::new(), Instant::now());
        let root = Handle::root();
        let mutation = cache.mutation(&write());
        cache.keep_attributes(cache.ask(now, &root), &attr(root));
        assert!(cache.attributes(now, &root).is_some());
        drop(mutation);
        assert_eq!(cache.attributes(now, &root), None);
    }

    #[test]
    fn a_lock_that_was_got_ends_what_was_known() {
        let (cache, now) = (Cache::new(), Instant::now());
        let root = Handle::root();
        let lock = |kind| {
            let (family, owner) = (LockFamily::Posix, LockOwner { owner: 1, pid: 1 });
            Request::from(Lock { handle: root, family, owner, kind, start: 0, end: u64::MAX, wait: false })
        };
        for (kind, is_known) in [(LockKind::Unlock, true), (LockKind::Shared, false)] {
            cache.keep_attributes(cache.ask(now, &root), &attr(root));
            drop(cache.mutation(&lock(kind)));
            assert_eq!(cache.attributes(now, &root).is_some(), is_known, "{kind:?}");
        }
    }

    #[test]
    fn old_answers_are_not_used() {
        let (cache, now) = (Cache::new(), Instant::now());
        let root = Handle::root();
        let asked = cache.ask(now, &root);
        let Some(long_ago) = asked.at.checked_sub(LIFETIME) else { return };
        cache.keep_attributes(Asked { at: long_ago, ..asked }, &attr(root));
        assert_eq!(cache.attributes(now, &root), None);
    }

    #[test]
    fn the_memory_has_a_bound() {
        let (cache, now) = (Cache::new(), Instant::now());
        for n in 0..200_000_u64 {
            let handle = Handle { birth: crate::handle::BirthNumber(n), ..Handle::root() };
            cache.keep_attributes(cache.ask(now, &handle), &attr(handle));
            let name = Name::new(Bytes::from(n.to_string())).unwrap();
            cache.keep_name(cache.ask(now, &handle), &handle, &name, &Credentials::ROOT, &attr(handle));
        }
        assert!(cache.attributes.weight() <= BYTES && cache.names.weight() <= BYTES);
    }
}
