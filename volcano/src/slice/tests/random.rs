//! Random sequences: whatever happens, every request gets one answer, and nothing is left when everybody has gone.

use std::time::Duration;

use magma_common::handle::Handle;
use magma_common::proto::operation::{Commit, EndSession, LockFamily, LockKind, Open};
use magma_common::proto::{Durability, Request, SessionId};
use proptest::prelude::*;

use super::world::{World, append, create, lock, release, unlink};
use crate::slice::{Call, Ticket};
use crate::view::View;

const FILES: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    Ask { session: usize, file: usize, what: u8, stable: bool },
    Retry(usize),
    Cancel(usize),
    BatchEnd,
    Sync,
    Pass(u64),
    Restart,
    End(usize),
}

fn a_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..3usize, 0..FILES, 0..8u8, any::<bool>())
            .prop_map(|(session, file, what, stable)| Step::Ask { session, file, what, stable }),
        3 => any::<usize>().prop_map(Step::Retry),
        2 => any::<usize>().prop_map(Step::Cancel),
        4 => Just(Step::BatchEnd),
        3 => Just(Step::Sync),
        1 => (0..30u64).prop_map(Step::Pass),
        1 => Just(Step::Restart),
        1 => (0..3usize).prop_map(Step::End),
    ]
}

struct Guests {
    world: World,
    sessions: Vec<SessionId>,
    /// The last flare that each name is known to have had.
    files: Vec<Handle>,
    calls: Vec<Call>,
    tickets: Vec<Ticket>,
}

impl Guests {
    fn new() -> Self {
        let mut world = World::new();
        let sessions: Vec<_> = (0..3).map(|_| world.session()).collect();
        let files = (0..FILES).map(|n| world.create(sessions[0], &format!("f{n}"), false)).collect();
        Self { world, sessions, files, calls: Vec::new(), tickets: Vec::new() }
    }

    fn request(&self, file: usize, what: u8) -> Request {
        let handle = self.files[file];
        let text = format!("f{file}");
        match what {
            0 => create(&text, true).into(),
            1 => unlink(&text).into(),
            2 => Open { handle, read: true, write: true, execute: false, truncate: true }.into(),
            3 => release(handle).into(),
            4 => append(handle).into(),
            5 => Commit { handle }.into(),
            6 => lock(handle, LockFamily::Flock, LockKind::Exclusive, true).into(),
            _ => lock(handle, LockFamily::Flock, LockKind::Unlock, false).into(),
        }
    }

    fn step(&mut self, step: &Step) {
        let world = &mut self.world;
        match *step {
            Step::Ask { session, file, what, stable } => {
                let request = self.request(file, what);
                let data = if what == 4 { vec![7; 20_000] } else { Vec::new() };
                let mut call = self.world.call_with(self.sessions[session], request, &data);
                call.header.durability = if stable { Durability::Stable } else { Durability::Replicated };
                call.deadline = Some(self.world.now.monotonic + Duration::from_secs(20));
                self.tickets.push(self.world.send(call.clone()));
                self.calls.push(call);
            }
            Step::Retry(which) if !self.calls.is_empty() => {
                let call = self.calls[which % self.calls.len()].clone();
                self.tickets.push(world.send(call));
            }
            Step::Cancel(which) if !self.tickets.is_empty() => {
                world.cancel(self.tickets[which % self.tickets.len()]);
            }
            Step::Retry(_) | Step::Cancel(_) => {}
            Step::BatchEnd => world.batch_end(),
            Step::Sync => drop(world.run_sync()),
            Step::Pass(seconds) => world.pass(seconds),
            Step::Restart => self.restart(),
            Step::End(session) => {
                let id = std::mem::replace(&mut self.sessions[session], SessionId::NONE);
                // it may have been silent for too long already
                let call = world.call(id, EndSession);
                drop(world.ask(call));
                self.sessions[session] = world.session();
            }
        }
        self.look_up();
    }

    fn restart(&mut self) {
        self.world.batch_end();
        self.world.restart();
        for session in self.sessions.clone() {
            let call = self.world.call(session, self.world.last(Vec::new()));
            drop(self.world.ask(call));
        }
    }

    fn look_up(&mut self) {
        let root = Handle::root().key;
        for (number, file) in self.files.iter_mut().enumerate() {
            let name = super::world::name(&format!("f{number}"));
            if let Some(entry) = self.world.look().store().entry(&root, &name).unwrap() {
                *file = entry.child;
            }
        }
    }

    /// Everybody goes.
    fn finish(mut self) {
        self.world.pass(61);
        let world = &mut self.world;
        assert_eq!(world.stopped, None);
        assert!(world.asked.is_empty(), "unanswered: {:?}", world.asked);
        let (kept, held, waiting) = world.held();
        assert_eq!((kept, held, waiting), (0, 0, 0));
        let slice = world.look();
        assert_eq!((slice.sessions().len(), slice.sessions().open_flares()), (0, 0));
        assert!(slice.store().orphans(None, 10).unwrap().is_empty());
        for file in &self.files {
            assert!(slice.store().locks(&file.key).unwrap().is_empty());
        }
    }
}

proptest! {
    #[test]
    fn every_request_gets_one_answer_and_nothing_is_left_in_the_end(
        steps in proptest::collection::vec(a_step(), 1..80)
    ) {
        let mut guests = Guests::new();
        for step in steps {
            guests.step(&step);
        }
        guests.finish();
    }
}
