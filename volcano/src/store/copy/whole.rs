//! What belongs to a slice as a whole: its sessions and transactions. It travels with the slice's first inode number.

use std::collections::BTreeSet;

use magma_common::key::KeyRange;
use magma_common::proto::SessionId;
use magma_common::topology::SliceId;

use super::super::Store;
use super::super::db::TransactionId;
use super::export::Parcel;
use crate::node::message::Part;
use crate::record::Change;
use crate::view::ReadError;

/// Sessions that are fetched at a time.
const PAGE: usize = 64;

/// How far it has been given out. In this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The sessions up to this one.
    Sessions(Option<SessionId>),
    /// All sessions, and the transactions up to this one.
    Transactions(Option<TransactionId>),
}

impl Place {
    pub(super) const FIRST: Self = Self::Sessions(None);
}

impl Store {
    /// Whether a part of this range brings what belongs to the slice as a whole.
    pub(super) fn brings_whole(&self, slice: SliceId, range: KeyRange) -> bool {
        self.range(slice).is_some_and(|all| range.contains_ino(all.start()))
    }

    /// Puts as much of it into the parcel as has room there, from `place` on. Where to go on; none if all is in it.
    pub(super) fn fill_whole(
        &self,
        parcel: &mut Parcel,
        slice: SliceId,
        mut place: Place,
    ) -> Result<Option<Place>, ReadError> {
        loop {
            place = match place {
                Place::Sessions(after) => self.fill_sessions(parcel, slice, after)?,
                Place::Transactions(after) => {
                    let Some(row) = self.db.transaction_after(slice, after.as_ref())? else {
                        return Ok(None);
                    };
                    let id = row.id();
                    parcel.push(Change::PutTransaction(Box::new(row)));
                    Place::Transactions(Some(id))
                }
            };
            if parcel.room() == 0 {
                return Ok(Some(place));
            }
        }
    }

    fn fill_sessions(
        &self,
        parcel: &mut Parcel,
        slice: SliceId,
        after: Option<SessionId>,
    ) -> Result<Place, ReadError> {
        let page = self.db.sessions_after(slice, after, PAGE)?;
        let Some(last) = page.last().map(|session| session.id) else { return Ok(Place::Transactions(None)) };
        for session in page {
            parcel.push(Change::PutSession(session));
        }
        Ok(Place::Sessions(Some(last)))
    }

    /// The removal of up to `limit` sessions and transactions that a part does not have. What it does not have because it is
    /// only the first of several comes with the others.
    pub(super) fn not_among(
        &self,
        slice: SliceId,
        part: &Part,
        limit: usize,
    ) -> Result<Vec<Change>, ReadError> {
        let (mut sessions, mut transactions) = (BTreeSet::new(), BTreeSet::new());
        for change in &part.changes {
            match change {
                Change::PutSession(row) => drop(sessions.insert(row.id)),
                Change::PutTransaction(row) => drop(transactions.insert(row.id())),
                _ => {}
            }
        }
        let here = self.db.sessions(slice)?.into_iter().map(|row| row.id);
        let ended = here.filter(|id| !sessions.contains(id)).map(Change::EndSession);
        let here = self.db.transactions(slice)?.into_iter().map(|row| row.id());
        let gone = here.filter(|id| !transactions.contains(id));
        let gone = gone.map(|(key, attempt, driven)| Change::DeleteTransaction { key, attempt, driven });
        Ok(ended.chain(gone).take(limit).collect())
    }
}
