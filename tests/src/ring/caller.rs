//! Who asks in a world: a client that speaks the protocol by itself, and does with it what no library would, or a client library.

use super::client::{Client, Phase};
use super::clock::Time;
use super::library::LibraryClient;

/// See the module's documentation.
pub enum Caller {
    /// Speaks the protocol by itself.
    Protocol(Client),
    /// The client library.
    Library(LibraryClient),
}

impl Caller {
    /// What it is about.
    pub fn phase(&self) -> Phase {
        match self {
            Self::Protocol(client) => client.phase,
            Self::Library(client) => client.phase,
        }
    }

    /// It is about this from now on.
    pub fn begin(&mut self, phase: Phase) {
        match self {
            Self::Protocol(client) => client.phase = phase,
            Self::Library(client) => client.phase = phase,
        }
    }

    /// Operations without an answer: the time when the oldest of them was begun.
    pub fn oldest(&self) -> Option<Time> {
        match self {
            Self::Protocol(client) => client.oldest(),
            Self::Library(client) => client.oldest(),
        }
    }

    /// Whether it has nothing to do any more.
    pub fn is_done(&self) -> bool {
        match self {
            Self::Protocol(client) => client.is_done(),
            Self::Library(client) => client.is_done(),
        }
    }

    /// It is to read the whole tree.
    pub fn read_everything(&mut self) {
        match self {
            Self::Protocol(client) => client.read_everything(),
            Self::Library(client) => client.read_everything(),
        }
    }

    /// It vanishes.
    pub fn vanish(&mut self) {
        match self {
            Self::Protocol(client) => client.vanish(),
            Self::Library(client) => client.vanish(),
        }
    }

    /// It is to be idle until then.
    pub fn idle_until(&mut self, time: Time) {
        match self {
            Self::Protocol(client) => client.idle_until(time),
            Self::Library(client) => client.idle_until(time),
        }
    }

    /// When it has something to do next.
    pub fn due(&self, now: Time) -> Time {
        match self {
            Self::Protocol(client) => client.due(now),
            Self::Library(client) => client.due(now),
        }
    }
}
