//! Sessions: who is alive, and what they hold open.
//!
//! Sessions are opened and ended by records; how long one has been silent and which
//! flares it holds open is known in memory only. After a restart every session
//! gets one full lease, and no flare without a name dies until each session that
//! was alive has said which flares it still holds.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use magma_common::handle::Handle;
use magma_common::key::KeyRange;
use magma_common::proto::SessionId;

use crate::namespace::Opens;
use crate::rows::SessionRow;

/// A session that has been silent for this long is ended.
pub const SESSION_LEASE: Duration = Duration::from_secs(60);
/// Most sessions at a time.
pub const MAX_SESSIONS: usize = 20_000;
/// Most flares that one session may hold open.
const MAX_OPENS: usize = 1 << 20;

struct Alive {
    row: SessionRow,
    heard: Duration,
    /// Said since this volcano's start what it holds open, or began after it.
    reported: bool,
    opens: HashMap<Handle, u32>,
    /// The number of the last statement of what it has open that was taken.
    stated: u64,
}

/// The sessions of a slice.
#[derive(Default)]
pub struct Sessions {
    alive: BTreeMap<SessionId, Alive>,
    /// How many sessions hold a flare open.
    holders: HashMap<Handle, u32>,
    unreported: usize,
}

impl Sessions {
    /// Takes over a session that was alive before the restart.
    pub fn recover(&mut self, row: SessionRow, now: Duration) {
        self.unreported += 1;
        self.alive
            .insert(row.id, Alive { row, heard: now, reported: false, opens: HashMap::new(), stated: 0 });
    }

    /// Begins a session.
    pub fn begin(&mut self, row: SessionRow, now: Duration) {
        self.alive
            .insert(row.id, Alive { row, heard: now, reported: true, opens: HashMap::new(), stated: 0 });
    }

    /// Notes a sign of life; false if there is no such session.
    pub fn hear(&mut self, id: SessionId, now: Duration) -> bool {
        self.alive.get_mut(&id).map(|session| session.heard = now).is_some()
    }

    /// The volcano itself was away, so nobody could be heard: every session gets one full lease anew.
    pub fn renew(&mut self, now: Duration) {
        for session in self.alive.values_mut() {
            session.heard = now;
        }
    }

    /// Forgets a session; the flares that nobody holds open any more.
    pub fn end(&mut self, id: SessionId) -> Vec<Handle> {
        let Some(session) = self.alive.remove(&id) else { return Vec::new() };
        self.unreported -= usize::from(!session.reported);
        session.opens.into_keys().filter(|handle| self.drop_holder(handle)).collect()
    }

    fn drop_holder(&mut self, handle: &Handle) -> bool {
        match self.holders.get_mut(handle) {
            Some(holders) if *holders > 1 => {
                *holders -= 1;
                false
            }
            _ => {
                self.holders.remove(handle);
                true
            }
        }
    }

    /// Notes `count` opens; false if the session is unknown or holds too many.
    pub fn open(&mut self, id: SessionId, handle: Handle, count: u32) -> bool {
        let Some(session) = self.alive.get_mut(&id) else { return false };
        if let Some(opens) = session.opens.get_mut(&handle) {
            *opens = opens.saturating_add(count);
            return true;
        }
        if session.opens.len() >= MAX_OPENS {
            return false;
        }
        session.opens.insert(handle, count);
        *self.holders.entry(handle).or_default() += 1;
        true
    }

    /// Sets how often a session has a flare open, as it says itself after a restart; false if it holds too many.
    pub fn reclaim(&mut self, id: SessionId, handle: Handle, count: u32) -> bool {
        self.release(id, handle, u32::MAX);
        count == 0 || self.open(id, handle, count)
    }

    /// Whether a statement with this number has something new to say: one that is repeated or overtaken does not.
    pub fn is_news(&self, id: SessionId, number: u64) -> bool {
        self.alive.get(&id).is_some_and(|session| session.stated < number)
    }

    /// A statement was taken.
    pub fn state(&mut self, id: SessionId, number: u64) {
        if let Some(session) = self.alive.get_mut(&id) {
            session.stated = session.stated.max(number);
        }
    }

    /// Whether the session may open one more flare.
    pub fn may_open(&self, id: SessionId) -> bool {
        self.alive.get(&id).is_some_and(|session| session.opens.len() < MAX_OPENS)
    }

    /// Whether the session has the flare open.
    pub fn holds(&self, id: SessionId, handle: &Handle) -> bool {
        self.alive.get(&id).is_some_and(|session| session.opens.contains_key(handle))
    }

    /// A record says what a session has acknowledged.
    pub fn acknowledge(&mut self, id: SessionId, upto: u64) {
        if let Some(session) = self.alive.get_mut(&id) {
            session.row.acknowledged = upto;
        }
    }

    /// What is known of a session, as a record said it last.
    pub fn row(&self, id: SessionId) -> Option<&SessionRow> {
        self.alive.get(&id).map(|session| &session.row)
    }

    /// Whether there is such a session.
    pub fn knows(&self, id: SessionId) -> bool {
        self.alive.contains_key(&id)
    }

    /// Gives opens back; true if nobody holds the flare open any more.
    pub fn release(&mut self, id: SessionId, handle: Handle, count: u32) -> bool {
        let Some(opens) = self.alive.get_mut(&id).map(|session| &mut session.opens) else { return false };
        match opens.get_mut(&handle) {
            None => return false,
            Some(open) if *open > count => {
                *open -= count;
                return false;
            }
            Some(_) => {}
        }
        opens.remove(&handle);
        self.drop_holder(&handle)
    }

    /// Whether nobody holds the flare open any more once this session has given so many opens back.
    pub fn would_close(&self, id: SessionId, handle: &Handle, count: u32) -> bool {
        let opens = self.alive.get(&id).and_then(|session| session.opens.get(handle));
        opens.is_some_and(|opens| *opens <= count) && self.opens_of(handle) == 1
    }

    /// What is open, but for this flare.
    pub fn without(&self, closed: Option<Handle>) -> Without<'_> {
        Without { sessions: self, closed }
    }

    /// Flares with other keys are not this slice's any more.
    pub fn keep_opens_in(&mut self, range: KeyRange) {
        for session in self.alive.values_mut() {
            session.opens.retain(|handle, _| range.contains(&handle.key));
        }
        self.holders.retain(|handle, _| range.contains(&handle.key));
    }

    /// The session has said all that it holds; true if it was the last one to be waited for.
    pub fn report(&mut self, id: SessionId) -> bool {
        let Some(session) = self.alive.get_mut(&id) else { return false };
        if session.reported {
            return false;
        }
        session.reported = true;
        self.unreported -= 1;
        self.unreported == 0
    }

    /// Whether every session that was alive at the start has said what it holds.
    pub fn all_reported(&self) -> bool {
        self.unreported == 0
    }

    /// Sessions that have been silent for longer than their lease.
    pub fn silent(&self, now: Duration) -> Vec<SessionId> {
        self.alive
            .iter()
            .filter(|(_, session)| now.saturating_sub(session.heard) > SESSION_LEASE)
            .map(|(id, _)| *id)
            .collect()
    }

    /// How many sessions hold this flare open.
    pub fn opens_of(&self, handle: &Handle) -> u32 {
        self.holders.get(handle).copied().unwrap_or(0)
    }

    /// Number of sessions.
    pub fn len(&self) -> usize {
        self.alive.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.alive.is_empty()
    }

    /// Number of flares that are open.
    pub fn open_flares(&self) -> usize {
        self.holders.len()
    }

    /// Each session with how long it has been silent and how many flares it holds open.
    pub fn list(&self, now: Duration) -> impl Iterator<Item = (&SessionRow, Duration, usize)> {
        self.alive.values().map(move |s| (&s.row, now.saturating_sub(s.heard), s.opens.len()))
    }
}

impl Opens for Sessions {
    fn is_open(&self, handle: &Handle) -> bool {
        self.without(None).is_open(handle)
    }
}

/// See [`Sessions::without`].
pub struct Without<'a> {
    sessions: &'a Sessions,
    closed: Option<Handle>,
}

impl Opens for Without<'_> {
    fn is_open(&self, handle: &Handle) -> bool {
        let is_held = self.closed.as_ref() != Some(handle) && self.sessions.holders.contains_key(handle);
        self.sessions.unreported > 0 || is_held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use magma_common::handle::BirthNumber;
    use magma_common::key::Key;
    use magma_common::time::Timestamp;

    fn row(id: u64) -> SessionRow {
        SessionRow { id: SessionId(id), client: "test".into(), opened: Timestamp::default(), acknowledged: 0 }
    }

    fn file() -> Handle {
        Handle { key: Key::from_bytes([7; 20]), birth: BirthNumber(9) }
    }

    #[test]
    fn a_flare_is_open_until_its_last_holder_gives_it_back() {
        let mut sessions = Sessions::default();
        sessions.begin(row(1), Duration::ZERO);
        sessions.begin(row(2), Duration::ZERO);
        assert!(sessions.open(SessionId(1), file(), 1));
        assert!(sessions.open(SessionId(1), file(), 1));
        assert!(sessions.open(SessionId(2), file(), 1));
        assert!(!sessions.release(SessionId(1), file(), 1));
        assert!(!sessions.release(SessionId(1), file(), 1));
        assert!(sessions.is_open(&file()));
        assert_eq!(sessions.end(SessionId(2)), vec![file()]);
        assert!(!sessions.is_open(&file()));
    }

    #[test]
    fn what_a_session_will_have_closed_is_known_before_it_has() {
        let mut sessions = Sessions::default();
        for id in [1, 2] {
            sessions.begin(row(id), Duration::ZERO);
            assert!(sessions.open(SessionId(id), file(), 2));
        }
        assert!(!sessions.would_close(SessionId(1), &file(), 9), "the other one has it open");
        sessions.end(SessionId(2));
        assert!(!sessions.would_close(SessionId(1), &file(), 1));
        assert!(sessions.would_close(SessionId(1), &file(), 2));
        assert!(sessions.is_open(&file()) && !sessions.without(Some(file())).is_open(&file()));
    }

    #[test]
    fn releasing_more_than_was_opened_harms_nobody() {
        let mut sessions = Sessions::default();
        sessions.begin(row(1), Duration::ZERO);
        assert!(!sessions.release(SessionId(1), file(), 1));
        sessions.open(SessionId(1), file(), 1);
        assert!(sessions.release(SessionId(1), file(), 99));
        assert!(!sessions.release(SessionId(1), file(), 1));
    }

    #[test]
    fn after_a_restart_everything_counts_as_open_until_all_have_reported() {
        let mut sessions = Sessions::default();
        sessions.recover(row(1), Duration::ZERO);
        sessions.recover(row(2), Duration::ZERO);
        assert!(sessions.is_open(&file()));
        assert!(!sessions.report(SessionId(1)));
        assert!(!sessions.report(SessionId(1)), "twice from one session counts once");
        assert!(sessions.is_open(&file()));
        sessions.end(SessionId(2));
        assert!(sessions.all_reported());
        assert!(!sessions.is_open(&file()));
    }

    #[test]
    fn silence_ends_a_session_only_after_its_lease() {
        let mut sessions = Sessions::default();
        sessions.begin(row(1), Duration::ZERO);
        assert!(sessions.silent(SESSION_LEASE).is_empty());
        sessions.hear(SessionId(1), Duration::from_secs(5));
        assert!(sessions.silent(SESSION_LEASE + Duration::from_secs(5)).is_empty());
        assert_eq!(sessions.silent(SESSION_LEASE + Duration::from_secs(6)), vec![SessionId(1)]);
    }
}
