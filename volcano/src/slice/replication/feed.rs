//! What the primary sends to the other copies: questions, records, parts, syncs and beacons.

use magma_common::topology::{Position, Replica, Seq};

use super::history::History;
use super::lease::{BEACON_INTERVAL, DEAF, NO_PROMISE};
use super::progress::{Batch, FullSync, LONGEST_PART_PATIENCE, Refreshing, Stage};
use super::recent::size;
use super::{Role, SAY_AGAIN};
use crate::coordinator::SliceChange;
use crate::missing::Missing;
use crate::node::message::{SentRecord, SliceMessage, Stand};
use crate::planted::{Bug, planted};
use crate::rows::BodyId;
use crate::slice::{Now, Slice, Trouble};

/// Bytes of records in one message, about.
const BATCH_BYTES: usize = 1 << 20;
/// Bytes of records that may be on their way to one copy.
const WINDOW_BYTES: usize = 8 << 20;
/// Bytes of one part, about. A simulated slice is small, and is to take several, too.
const PART_BYTES: usize = if cfg!(feature = "simulation") { 64 << 10 } else { 1 << 20 };
/// Bodies that a sync names before it covers all instead.
const MAX_NAMED_BODIES: usize = 4096;
/// Outcomes of operations that a copy gets when it begins anew.
const MAX_OUTCOMES: usize = 50_000;
/// A joining copy may be so many records behind when it is asked to sync everything.
const MAX_LAG: u64 = 1000;

impl Slice<'_> {
    /// Sends to every copy what it lacks and can take. What cannot be read for one of them costs the others nothing, and no
    /// copy its beacon.
    pub(in crate::slice) fn feed(&mut self, now: Now) {
        let Role::Primary(primary) = &self.replication.role else { return };
        let copies: Vec<Replica> = primary.copies.keys().copied().collect();
        for copy in copies {
            self.ask(now, copy);
            if let Err(trouble) = self.fill(now, copy) {
                self.trouble(trouble);
            }
            self.send_beacon(now, copy);
        }
        self.ask_syncs_again(now);
    }

    /// Sends a copy what it lacks.
    fn fill(&mut self, now: Now, copy: Replica) -> Result<(), Trouble> {
        self.send_records(now, copy)?;
        self.send_part(now, copy)?;
        self.ask_full_sync(now, copy);
        Ok(())
    }

    fn progress(&mut self, copy: Replica) -> Option<&mut super::progress::Progress> {
        match &mut self.replication.role {
            Role::Primary(primary) => primary.copies.get_mut(&copy),
            _ => None,
        }
    }

    /// Tells a copy something that carries a beacon.
    fn tell_with_beacon(
        &mut self,
        now: Now,
        copy: Replica,
        message: impl FnOnce(u64) -> SliceMessage,
    ) -> u64 {
        let mut is_heard = true;
        if let Some(progress) = self.progress(copy) {
            progress.told = now.monotonic;
            is_heard = !progress.is_mirror || now.monotonic.saturating_sub(progress.heard) < DEAF;
        }
        let beacon = if is_heard { self.replication.beacons.send(now.monotonic) } else { NO_PROMISE };
        self.tell(copy, message(beacon));
        beacon
    }

    /// Tells a copy something that is a sign of life and asks for no promise.
    fn tell_without_beacon(&mut self, now: Now, copy: Replica, message: SliceMessage) {
        if let Some(progress) = self.progress(copy) {
            progress.told = now.monotonic;
        }
        self.tell(copy, message);
    }

    /// Tells a copy to forget something. What it has said before it knows says nothing any more.
    fn order_to_forget(&mut self, now: Now, copy: Replica, order: impl FnOnce(u64) -> SliceMessage) {
        let beacon = self.tell_with_beacon(now, copy, order);
        if let Some(progress) = self.progress(copy) {
            progress.is_ordered_to_forget(beacon);
        }
    }

    fn ask(&mut self, now: Now, copy: Replica) {
        let Some(progress) = self.progress(copy) else { return };
        if progress.stage == Stage::Asking && now.monotonic.saturating_sub(progress.told) >= SAY_AGAIN {
            self.tell_with_beacon(now, copy, |beacon| SliceMessage::WhereAreYou { beacon });
        }
    }

    /// A copy has said where it stands: decides how it is brought here.
    pub(super) fn place_copy(&mut self, now: Now, copy: Replica, stand: Stand) -> Result<(), Trouble> {
        if self.yield_to_longer(now, copy, &stand) {
            return Ok(());
        }
        let slice = self.identity.slice;
        let (history, last) = (self.store.history(slice), self.position());
        let own = History { epochs: &history, last };
        let common = own.common(&History { epochs: &stand.history, last: stand.position });
        if self.progress(copy).is_some_and(|progress| progress.counts()) {
            return self.place_mirror(now, copy, stand, common);
        }
        let Some(common) = common.filter(|common| common.seq > Seq(0)) else {
            self.place_anew(now, copy);
            return Ok(());
        };
        if common < stand.position {
            self.order_to_forget(now, copy, |beacon| SliceMessage::Rewind { beacon, to: common });
            return Ok(());
        }
        if common.seq < last.seq && self.records_after(common.seq, 0)?.is_none() {
            self.place_anew(now, copy);
            return Ok(());
        }
        self.stream_from(now, copy, common.seq, stand.missing);
        Ok(())
    }

    /// A mirror has said where it stands: it goes on from there. If it cannot, it is taken out, and joins anew.
    fn place_mirror(
        &mut self,
        now: Now,
        copy: Replica,
        stand: Stand,
        common: Option<Position>,
    ) -> Result<(), Trouble> {
        let (at, last) = (stand.position, self.position());
        let stands_here = common == Some(at) || at.seq == Seq(0) && last.seq == Seq(0);
        if !stands_here {
            tracing::error!(target: "magma::routing", slice = self.identity.slice.0, ?copy, ?at, ?last,
                "an in-sync copy does not stand on this copy's history: it is taken out and copied anew");
            self.propose(now, SliceChange::Remove(copy));
        } else if at.seq < last.seq && self.records_after(at.seq, 0)?.is_none() {
            // This copy began with the state as it was after those records, and the primary of then has lost them.
            tracing::info!(target: "magma::routing", slice = self.identity.slice.0, ?copy, ?at, ?last,
                "a mirror lacks records that are only known by what came of them: it is taken out and copied anew");
            self.propose(now, SliceChange::Remove(copy));
        } else if let Some(progress) = self.progress(copy) {
            progress.stage = Stage::Streaming;
            progress.missing = stand.missing;
            progress.stands_at(at.seq, last.seq, now.monotonic);
        }
        Ok(())
    }

    fn stream_from(&mut self, now: Now, copy: Replica, seq: Seq, missing: Missing) {
        let last = self.position().seq;
        let Some(progress) = self.progress(copy) else { return };
        progress.stage = Stage::Streaming;
        progress.missing = missing;
        progress.refreshing = None;
        progress.inside = None;
        progress.full_sync = None;
        progress.starts_at(seq);
        progress.stands_at(seq, last, now.monotonic);
    }

    /// The copy shares nothing that could be built upon: it begins at this copy's present position, with everything missing.
    fn place_anew(&mut self, now: Now, copy: Replica) {
        let position = self.position();
        let history = self.store.history(self.identity.slice);
        let mut outcomes = self.ledger.recorded();
        // The newest are the ones that are asked about.
        outcomes.drain(..outcomes.len().saturating_sub(MAX_OUTCOMES));
        self.order_to_forget(now, copy, |beacon| SliceMessage::Place { beacon, position, history, outcomes });
    }

    /// Records after `after`, from memory or from the log, and about how many bytes they take; None if neither has them any more.
    fn records_after(
        &mut self,
        after: Seq,
        max_bytes: usize,
    ) -> Result<Option<(Vec<SentRecord>, usize)>, Trouble> {
        if let Some(found) = self.replication.recent.after(after, max_bytes) {
            return Ok(Some(found));
        }
        let read = self.store.read_log(self.identity.slice, after, max_bytes)?;
        Ok(read.map(|records| {
            let bytes = records.iter().map(|sent| size(&sent.record, &sent.appended)).sum();
            (records, bytes)
        }))
    }

    fn send_records(&mut self, now: Now, copy: Replica) -> Result<(), Trouble> {
        let last = self.position().seq;
        loop {
            let Some(progress) = self.progress(copy) else { return Ok(()) };
            if progress.stage != Stage::Streaming {
                return Ok(());
            }
            if progress.seems_lost(now.monotonic) {
                progress.send_again();
            }
            let sent = progress.sent;
            if sent >= last || progress.in_flight() >= WINDOW_BYTES {
                return Ok(());
            }
            let Some((records, bytes)) = self.records_after(sent, BATCH_BYTES)? else {
                if let Some(progress) = self.progress(copy) {
                    progress.stage = Stage::Asking;
                }
                return Ok(());
            };
            let Some(newest) = records.last().map(|sent| sent.record.seq) else { return Ok(()) };
            let Some(after) = self.name_of(sent) else { return Ok(()) };
            let message = |beacon| SliceMessage::Records { beacon, after, records };
            let beacon = self.tell_with_beacon(now, copy, message);
            if let Some(progress) = self.progress(copy) {
                progress.sends(Batch { last: newest, bytes, beacon }, now.monotonic);
            }
        }
    }

    /// The name of a record of this copy's; of the one before the first, too.
    fn name_of(&self, seq: Seq) -> Option<Position> {
        if seq == Seq(0) {
            Some(Position::default())
        } else {
            self.store.position_at(self.identity.slice, seq)
        }
    }

    fn send_part(&mut self, now: Now, copy: Replica) -> Result<(), Trouble> {
        let (slice, at) = (self.identity.slice, self.position());
        let Some(progress) = self.progress(copy) else { return Ok(()) };
        if progress.stage != Stage::Streaming || progress.sent < at.seq {
            return Ok(());
        }
        if let Some(part) = &progress.refreshing {
            if now.monotonic.saturating_sub(part.sent_at) < progress.part_patience {
                return Ok(());
            }
            progress.part_patience = (progress.part_patience * 2).min(LONGEST_PART_PATIENCE);
        }
        // A part that was not confirmed in time is made anew, from where it began.
        progress.refreshing = None;
        let Some(&range) = progress.missing.ranges().first() else { return Ok(()) };
        let inside = progress.inside.clone();
        let (part, inside) = self.store.export(slice, range, inside.as_ref(), PART_BYTES)?;
        self.replication.refreshes += 1;
        let number = self.replication.refreshes;
        let Some(progress) = self.progress(copy) else { return Ok(()) };
        progress.refreshing =
            Some(Refreshing { number, range: part.range, last: part.last, inside, sent_at: now.monotonic });
        progress.told = now.monotonic;
        self.tell(copy, SliceMessage::Refresh { number, at, part: Box::new(part) });
        Ok(())
    }

    /// A joining copy that lacks nothing is asked to take everything to its disk. Then it counts, and is asked once more, for what has
    /// been called durable meanwhile without it. Then it is proposed as in sync.
    fn ask_full_sync(&mut self, now: Now, copy: Replica) {
        let last = self.position().seq;
        let next = self.gate.next_sync();
        let may_propose = self.replication.proposal.is_none();
        let Some(progress) = self.progress(copy) else { return };
        let is_whole = progress.stage == Stage::Streaming && progress.missing.is_empty();
        if progress.is_mirror || !is_whole || last.0.saturating_sub(progress.acked.0) > MAX_LAG {
            return;
        }
        let is_done = |asked: FullSync| progress.synced >= asked.number || planted(Bug::CountBeforeSync);
        match progress.full_sync.map(is_done) {
            Some(false) => {}
            Some(true) if !may_propose => return,
            Some(true) if progress.counts() => return self.propose(now, SliceChange::InSync(copy)),
            done => {
                progress.is_proposed |= done.is_some();
                // All syncs up to this number are then done there: it covers everything that they cover.
                progress.full_sync = Some(FullSync { number: next, through: last, asked: None });
                self.gate.skip_sync();
            }
        }
        let Some(progress) = self.progress(copy) else { return };
        let acked = progress.acked;
        let Some(sync) = &mut progress.full_sync else { return };
        // A copy that is not there yet does not take the question. That it is told of records all the while says nothing.
        let is_due = sync.asked.is_none_or(|asked| now.monotonic.saturating_sub(asked) >= SAY_AGAIN);
        if acked < sync.through || !is_due {
            return;
        }
        sync.asked = Some(now.monotonic);
        let (number, through) = (sync.number, sync.through);
        self.tell(copy, SliceMessage::Sync { number, through, bodies: None });
    }

    /// A sync for replies begins here: the copies that count sync at the same time.
    pub(in crate::slice) fn sync_copies(&mut self, now: Now, number: u64, bodies: Vec<BodyId>) {
        let through = self.position().seq;
        let Role::Primary(primary) = &mut self.replication.role else { return };
        if primary.copies.values().any(super::progress::Progress::counts) {
            primary.syncs.insert(number, (through, bodies));
            self.ask_syncs(now);
        }
    }

    /// Asks every copy that counts for the syncs that it has not confirmed.
    fn ask_syncs(&mut self, now: Now) {
        let Role::Primary(primary) = &mut self.replication.role else { return };
        primary.syncs_asked = now.monotonic;
        let confirmed = primary.copies.values().filter(|copy| copy.counts()).map(|copy| copy.synced).min();
        primary.syncs.retain(|number, _| confirmed.is_some_and(|confirmed| *number > confirmed));
        let Some((&number, &(through, _))) = primary.syncs.last_key_value() else { return };
        let mut messages = Vec::new();
        for (&who, copy) in primary.copies.iter_mut().filter(|(_, copy)| copy.counts()) {
            let open =
                primary.syncs.range(copy.synced + 1..).flat_map(|(_, (_, bodies))| bodies.iter().copied());
            let bodies: std::collections::BTreeSet<BodyId> = open.collect();
            if copy.synced < number {
                copy.owes_sync(now.monotonic);
                let bodies = (bodies.len() <= MAX_NAMED_BODIES).then(|| bodies.into_iter().collect());
                messages.push((who, SliceMessage::Sync { number, through, bodies }));
            }
        }
        for (who, message) in messages {
            self.tell(who, message);
        }
    }

    /// A copy that has not done a sync for a while may not have heard of it, however much it hears of else.
    fn ask_syncs_again(&mut self, now: Now) {
        let Role::Primary(primary) = &self.replication.role else { return };
        if !primary.syncs.is_empty() && now.monotonic.saturating_sub(primary.syncs_asked) >= SAY_AGAIN {
            self.ask_syncs(now);
        }
    }

    fn send_beacon(&mut self, now: Now, copy: Replica) {
        let position = self.position();
        let Some(progress) = self.progress(copy) else { return };
        let is_due = now.monotonic.saturating_sub(progress.told) >= BEACON_INTERVAL;
        if !is_due || progress.stage != Stage::Streaming {
            return;
        }
        let is_mirror = progress.is_mirror;
        let Role::Primary(primary) = &self.replication.role else { return };
        if let Some(upto) = primary.released.filter(|_| is_mirror) {
            self.tell_without_beacon(now, copy, SliceMessage::Released { upto });
        } else {
            let after = position;
            self.tell_with_beacon(now, copy, |beacon| SliceMessage::Records {
                beacon,
                after,
                records: Vec::new(),
            });
        }
    }
}
