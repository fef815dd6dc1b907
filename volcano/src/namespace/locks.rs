//! The algebra of advisory locks: what conflicts, and what a request makes of the locks there are.
//!
//! Nothing here has state or waits: the slice queues requests and looks for deadlocks with the help of
//! [`conflicts`]. Ranges are inclusive; `u64::MAX` as their end means "to the end of the file, wherever that is".

use magma_common::proto::SessionId;
use magma_common::proto::operation::{LockFamily, LockKind, LockOwner};

use crate::rows::LockRow;

/// A lock that somebody asks for, or a range to be given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// In which family.
    pub family: LockFamily,
    /// For whose session.
    pub session: SessionId,
    /// For whom there.
    pub owner: LockOwner,
    /// Shared, exclusive, or an unlock.
    pub kind: LockKind,
    /// First byte.
    pub start: u64,
    /// Last byte, inclusive.
    pub end: u64,
}

impl Wanted {
    fn overlaps(&self, lock: &LockRow) -> bool {
        lock.start <= self.end && self.start <= lock.end
    }

    /// Same family, session and owner; the process id is for people only.
    fn owns(&self, lock: &LockRow) -> bool {
        lock.family == self.family && lock.session == self.session && lock.owner.owner == self.owner.owner
    }

    fn row(&self, kind: LockKind, start: u64, end: u64) -> LockRow {
        LockRow { family: self.family, session: self.session, owner: self.owner, kind, start, end }
    }
}

/// The first lock that is in the way, if any. An unlock is never in anybody's way.
pub fn conflicts<'a>(locks: &'a [LockRow], wanted: &Wanted) -> Option<&'a LockRow> {
    locks.iter().find(|lock| {
        let exclusive = wanted.kind == LockKind::Exclusive || lock.kind == LockKind::Exclusive;
        let other = lock.family == wanted.family && !wanted.owns(lock);
        wanted.kind != LockKind::Unlock && exclusive && other && wanted.overlaps(lock)
    })
}

/// The locks after the request has been granted: what the owner held in the range is replaced, and neighbours
/// of one kind become one. The caller has made sure that nothing [`conflicts`].
///
/// A change of kind is one step: nobody else can come in between, and who cannot have the new kind keeps the old one.
pub fn apply(locks: &[LockRow], wanted: &Wanted) -> Vec<LockRow> {
    let (own, mut after): (Vec<_>, Vec<_>) = locks.iter().cloned().partition(|lock| wanted.owns(lock));
    let mut mine = Vec::with_capacity(own.len() + 2);
    for lock in own {
        if !wanted.overlaps(&lock) {
            mine.push(lock);
            continue;
        }
        if let Some(last) = wanted.start.checked_sub(1).filter(|last| lock.start <= *last) {
            mine.push(LockRow { end: last, ..lock.clone() });
        }
        if let Some(first) = wanted.end.checked_add(1).filter(|first| *first <= lock.end) {
            mine.push(LockRow { start: first, ..lock });
        }
    }
    if wanted.kind != LockKind::Unlock {
        mine.push(wanted.row(wanted.kind, wanted.start, wanted.end));
    }
    after.extend(merge(mine));
    after
}

/// Joins neighbours of one kind. All locks belong to one owner and do not overlap.
fn merge(mut locks: Vec<LockRow>) -> Vec<LockRow> {
    locks.sort_unstable_by_key(|lock| lock.start);
    let mut merged: Vec<LockRow> = Vec::with_capacity(locks.len());
    for lock in locks {
        match merged.last_mut() {
            Some(last) if last.kind == lock.kind && last.end.checked_add(1) == Some(lock.start) => {
                last.end = lock.end;
            }
            _ => merged.push(lock),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    const BYTES: u64 = 24;
    const OWNERS: u64 = 3;

    fn wanted(owner: u64, kind: LockKind, start: u64, end: u64) -> Wanted {
        Wanted {
            family: LockFamily::Posix,
            session: SessionId(owner % 2),
            owner: LockOwner { owner, pid: 1 },
            kind,
            start,
            end,
        }
    }

    #[test]
    fn unlocking_the_middle_leaves_both_ends() {
        let locks = apply(&[], &wanted(1, LockKind::Exclusive, 0, u64::MAX));
        let locks = apply(&locks, &wanted(1, LockKind::Unlock, 10, 19));
        let ranges: Vec<_> = locks.iter().map(|lock| (lock.start, lock.end)).collect();
        assert_eq!(ranges, vec![(0, 9), (20, u64::MAX)]);
    }

    #[test]
    fn families_and_sessions_are_apart() {
        let locks = apply(&[], &wanted(1, LockKind::Exclusive, 0, 9));
        let whole = Wanted { family: LockFamily::Flock, ..wanted(2, LockKind::Exclusive, 0, u64::MAX) };
        assert_eq!(conflicts(&locks, &whole), None);
        let namesake = Wanted { session: SessionId(77), ..wanted(1, LockKind::Shared, 9, 9) };
        assert_eq!(conflicts(&locks, &namesake), locks.first());
    }

    #[test]
    fn an_upgrade_waits_for_other_readers_only() {
        let locks = apply(&[], &wanted(1, LockKind::Shared, 0, 9));
        let upgrade = wanted(1, LockKind::Exclusive, 0, 9);
        assert_eq!(conflicts(&locks, &upgrade), None);
        let both = apply(&locks, &wanted(2, LockKind::Shared, 5, 5));
        assert_eq!(conflicts(&both, &upgrade).map(|lock| lock.owner.owner), Some(2));
    }

    #[test]
    fn the_process_id_does_not_make_another_owner() {
        let locks = apply(&[], &wanted(1, LockKind::Exclusive, 0, 9));
        let child = Wanted { owner: LockOwner { owner: 1, pid: 2 }, ..wanted(1, LockKind::Unlock, 0, 9) };
        assert_eq!(conflicts(&locks, &Wanted { kind: LockKind::Exclusive, ..child }), None);
        assert!(apply(&locks, &child).is_empty());
    }

    /// Who holds what on each byte: the simplest thing that can be right.
    #[derive(Default)]
    struct Model(Vec<Vec<(u64, LockKind)>>);

    impl Model {
        fn byte(&mut self, at: u64) -> &mut Vec<(u64, LockKind)> {
            self.0.resize(BYTES as usize, Vec::new());
            &mut self.0[at as usize]
        }

        fn conflicts(&mut self, owner: u64, kind: LockKind, start: u64, end: u64) -> bool {
            kind != LockKind::Unlock
                && (start..=end).any(|at| {
                    self.byte(at).iter().any(|(other, held)| {
                        *other != owner && (kind == LockKind::Exclusive || *held == LockKind::Exclusive)
                    })
                })
        }

        fn apply(&mut self, owner: u64, kind: LockKind, start: u64, end: u64) {
            for at in start..=end {
                let byte = self.byte(at);
                byte.retain(|(other, _)| *other != owner);
                if kind != LockKind::Unlock {
                    byte.push((owner, kind));
                    byte.sort_unstable_by_key(|(owner, _)| *owner);
                }
            }
        }
    }

    fn a_kind() -> impl Strategy<Value = LockKind> {
        prop_oneof![Just(LockKind::Shared), Just(LockKind::Exclusive), Just(LockKind::Unlock)]
    }

    proptest! {
        #[test]
        fn ranges_hold_what_their_bytes_hold(
            requests in proptest::collection::vec((0..OWNERS, a_kind(), 0..BYTES, 0..BYTES), 1..60)
        ) {
            let (mut locks, mut model) = (Vec::new(), Model::default());
            for (owner, kind, a, b) in requests {
                let (start, end) = (a.min(b), a.max(b));
                let request = wanted(owner, kind, start, end);
                let conflict = conflicts(&locks, &request).is_some();
                prop_assert_eq!(conflict, model.conflicts(owner, kind, start, end));
                if !conflict {
                    locks = apply(&locks, &request);
                    model.apply(owner, kind, start, end);
                }
                for at in 0..BYTES {
                    let mut holders: Vec<_> = locks
                        .iter()
                        .filter(|lock| (lock.start..=lock.end).contains(&at))
                        .map(|lock| (lock.owner.owner, lock.kind))
                        .collect();
                    holders.sort_unstable_by_key(|(owner, _)| *owner);
                    prop_assert_eq!(&holders, model.byte(at));
                }
                let split = locks.iter().any(|a| locks.iter().any(|b| {
                    a.owner == b.owner && a.kind == b.kind && a.end + 1 == b.start
                }));
                prop_assert!(!split, "neighbours of one kind are one lock");
            }
        }
    }
}
