//! What the copies of a volcano share: the store, the topology, what is known of the other volcanos.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use magma_common::error::FlareError;
use magma_common::key::KeyRange;
use magma_common::topology::{Replica, SliceId, Topology, VolcanoId};

use super::ledger::Ledger;
use super::presence::Presence;
use super::{Effect, Now, Trouble, report};
use crate::dht::Figures;
use crate::store::{Doubts, Opened, RetainedOutcome, Store};

/// What goes on failing is told this often.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// See the module's documentation.
pub(super) struct Host {
    /// This volcano in this life.
    pub(super) own: Replica,
    pub(super) store: Store,
    pub(super) topology: Topology,
    pub(super) random: Box<dyn FnMut() -> u64>,
    pub(super) effects: Vec<Effect>,
    pub(super) present: Presence,
    pub(super) figures: AllFigures,
    pub(super) warnings: Warnings,
    /// How soon the store's upkeep wants to go on.
    pub(super) again: Duration,
    /// Requests served since the start.
    pub(super) served: u64,
    /// Nothing is served any more.
    pub(super) stopped: bool,
    /// Why, as long as nobody has been told.
    pub(super) failure: Option<String>,
    pub(super) recovered: Recovered,
}

impl Host {
    pub(super) fn new(
        own: Replica,
        store: Store,
        opened: Opened,
        random: Box<dyn FnMut() -> u64>,
        now: Now,
    ) -> Self {
        let figures =
            AllFigures { own: report::figures(&store, now.wall), taken: now, others: BTreeMap::new() };
        Self {
            own,
            store,
            topology: Topology::default(),
            random,
            effects: Vec::new(),
            present: Presence::default(),
            figures,
            warnings: Warnings { ticked: now.monotonic, again: now.monotonic },
            again: Duration::ZERO,
            served: 0,
            stopped: false,
            failure: None,
            recovered: Recovered::new(opened),
        }
    }

    /// Something that the volcano did by itself came to nothing.
    pub(super) fn trouble(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Refused(error) => self.warnings.put_off(error),
            Trouble::Fatal(reason) => self.fail(&reason),
        }
    }

    /// Something that the volcano depends on has failed: it stops serving.
    pub(super) fn fail(&mut self, reason: &str) {
        if !std::mem::replace(&mut self.stopped, true) {
            self.failure = Some(reason.to_owned());
        }
    }

    /// The figures of the volcanos that were heard from, this one's among them.
    pub(super) fn all_figures(&self) -> Vec<(VolcanoId, Figures)> {
        self.figures.of_members(&self.topology, self.own.volcano)
    }
}

/// Figures of this volcano, and what others have told of themselves.
pub(super) struct AllFigures {
    pub(super) own: Figures,
    pub(super) taken: Now,
    pub(super) others: BTreeMap<VolcanoId, Figures>,
}

impl AllFigures {
    /// Of the members that were heard from; `own` is this volcano.
    pub(super) fn of_members(&self, topology: &Topology, own: VolcanoId) -> Vec<(VolcanoId, Figures)> {
        let members = topology.members.iter().map(|member| member.id);
        let figures = |id: VolcanoId| {
            let known = if id == own { Some(&self.own) } else { self.others.get(&id) };
            known.map(|figures| (id, figures.clone()))
        };
        members.filter_map(figures).collect()
    }
}

/// When the operator is told that something is put off: not each time.
pub(super) struct Warnings {
    /// When time was told last, on the monotonic clock.
    pub(super) ticked: Duration,
    /// When the next warning may come.
    again: Duration,
}

impl Warnings {
    /// Something was refused, and will be tried again.
    pub(super) fn put_off(&mut self, error: FlareError) {
        if self.ticked >= self.again {
            self.again = self.ticked.saturating_add(WARNING_INTERVAL);
            tracing::warn!(target: "magma::volcano", %error, "housekeeping is put off");
        }
    }
}

/// What was found when the store was opened, or is inherited from another slice, for the copies that it concerns.
pub(super) struct Recovered {
    /// A stop may have cost what was not on disk, the last one or one before it that nobody was told of.
    pub(super) may_have_lost: bool,
    doubtful: Doubts,
    outcomes: HashMap<SliceId, Vec<RetainedOutcome>>,
    /// Of slices that were divided off others: what they begin with.
    heirs: BTreeMap<SliceId, Ledger>,
}

impl Recovered {
    fn new(opened: Opened) -> Self {
        let may_have_lost = opened.has_lost;
        let mut outcomes: HashMap<SliceId, Vec<RetainedOutcome>> = HashMap::new();
        for retained in opened.outcomes {
            outcomes.entry(retained.slice).or_default().push(retained);
        }
        Self { may_have_lost, doubtful: opened.doubtful, outcomes, heirs: BTreeMap::new() }
    }

    /// What a slice's copy knows of operations: what it has inherited, or what is still in the log. It is taken.
    pub(super) fn take_ledger(&mut self, slice: SliceId, now: Duration) -> Ledger {
        let outcomes = self.outcomes.remove(&slice).unwrap_or_default();
        self.heirs.remove(&slice).unwrap_or_else(|| {
            let mut ledger = Ledger::default();
            for retained in outcomes {
                ledger.recover(now, retained.seq, retained.outcome);
            }
            ledger
        })
    }

    /// A slice that has been divided off another one begins with this.
    pub(super) fn inherit(&mut self, slice: SliceId, ledger: Ledger) {
        self.heirs.insert(slice, ledger);
    }

    /// What a slice has inherited, if it did. It is taken.
    pub(super) fn take_inherited(&mut self, known: impl Fn(&SliceId) -> bool) -> Option<(SliceId, Ledger)> {
        let slice = *self.heirs.keys().find(|slice| known(slice))?;
        self.heirs.remove_entry(&slice)
    }

    /// Doubts of one slice that turn out to concern another.
    pub(super) fn add_doubts(&mut self, doubts: Doubts) {
        self.doubtful.merge(doubts);
    }

    /// The doubts about bytes of these keys. They are taken.
    pub(super) fn take_doubts(&mut self, range: KeyRange) -> Doubts {
        self.doubtful.take_within(range)
    }
}
