//! What a client that speaks the protocol by itself knows of striped files, and what it asks of their stripes: what the client library
//! would, but not in its order, and with what it knew a long time ago.

use std::collections::VecDeque;

use bytes::Bytes;
use magma_common::handle::Handle;
use magma_common::proto::operation::{
    CommitPart, Layout, LayoutPurpose, LayoutReply, MakeStripes, ReadStripe, Write, WriteAt, WriteDone,
    WriteStripe,
};
use magma_common::proto::{Reply, Request};
use magma_common::stripes::StripeUnit;

use super::dice::Dice;
use super::workload;

/// Striped files that are remembered.
const FILES: usize = 4;
/// Stripes are made up to about there, in bytes.
const LARGE: u64 = 160 << 10;
/// Requests that are to follow others.
const NEXT: usize = 8;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Striped {
    files: VecDeque<(Handle, LayoutReply)>,
    next: VecDeque<Request>,
}

impl Striped {
    /// An operation was answered.
    pub fn learn(&mut self, request: &Request, payload: &Bytes, reply: &Reply) {
        match (request, reply) {
            (Request::Layout(asked), Reply::Layout(layout)) if layout.unit.is_some() => {
                self.forget(asked.handle);
                self.files.push_back((asked.handle, layout.clone()));
                if self.files.len() > FILES {
                    self.files.pop_front();
                }
            }
            (Request::Write(write), Reply::Write(written)) if written.unit.is_some() => {
                self.follow(layout(write.handle, LayoutPurpose::Write));
            }
            // What is to be cleared is cleared soon.
            (Request::Setattr(set), _) if self.files.iter().any(|(head, _)| *head == set.handle) => {
                self.next.push_front(layout(set.handle, LayoutPurpose::Write));
                self.next.truncate(NEXT);
            }
            (Request::WriteStripe(write), Reply::WriteStripe(_)) => {
                if let Some(end) = self.end_of(write, payload.len() as u64) {
                    self.follow(WriteDone { handle: write.head, end, cut: write.cut }.into());
                }
            }
            _ => {}
        }
    }

    /// A file turned out to be striped.
    pub fn is_striped(&mut self, request: &Request) {
        if let Request::Write(Write { handle, at: WriteAt::Offset(offset), .. }) = request {
            let length = 2 * StripeUnit::SMALLEST.bytes();
            self.follow(MakeStripes { handle: *handle, offset: *offset, length, opened: true }.into());
        }
        self.follow_all(request.handle().map(|handle| layout(handle, LayoutPurpose::Read)));
    }

    /// A stripe turned out to be another one.
    pub fn is_stale(&mut self, request: &Request) {
        let head = match request {
            Request::ReadStripe(read) => Some(read.head),
            Request::WriteStripe(write) => Some(write.head),
            Request::CommitPart(commit) => Some(commit.head),
            Request::Layout(layout) => {
                self.forget(layout.handle);
                None
            }
            _ => None,
        };
        self.follow_all(head.map(|head| layout(head, LayoutPurpose::Write)));
    }

    fn forget(&mut self, head: Handle) {
        self.files.retain(|(known, _)| *known != head);
    }

    fn follow(&mut self, request: Request) {
        if self.next.len() < NEXT {
            self.next.push_back(request);
        }
    }

    fn follow_all(&mut self, requests: Option<Request>) {
        requests.into_iter().for_each(|request| self.follow(request));
    }

    /// One more than the last byte of a write, counted from the file's beginning.
    fn end_of(&self, write: &WriteStripe, length: u64) -> Option<u64> {
        let (_, layout) = self.files.iter().find(|(head, _)| *head == write.head)?;
        let stripe = layout.stripes.iter().find(|stripe| stripe.handle == write.stripe)?;
        Some(stripe.number * layout.unit?.bytes() + write.offset + length)
    }

    /// Something to be asked of a striped file, with its bytes, if one is known and the dice will have it.
    pub fn wish(&mut self, number: usize, dice: &mut Dice) -> Option<(Request, Bytes)> {
        if !self.next.is_empty() && dice.one_in(2) {
            return self.next.pop_front().map(|request| (request, Bytes::new()));
        }
        if self.files.is_empty() || !dice.one_in(3) {
            return None;
        }
        let files: Vec<_> = self.files.iter().collect();
        let (head, known) = *dice.pick(&files);
        if dice.one_in(8) {
            let (offset, length) = (dice.below(LARGE), dice.below(LARGE));
            return Some((MakeStripes { handle: *head, offset, length, opened: true }.into(), Bytes::new()));
        }
        if known.stripes.is_empty() || dice.one_in(6) {
            let purposes = [LayoutPurpose::Read, LayoutPurpose::Write, LayoutPurpose::Commit];
            return Some((layout(*head, *dice.pick(&purposes)), Bytes::new()));
        }
        let (stripe, unit) = (dice.pick(&known.stripes), known.unit?.bytes());
        let (head, cut) = (*head, known.cut);
        let offset = dice.below(unit);
        let request = match dice.below(6) {
            0 => {
                let part = if dice.one_in(2) { head } else { stripe.handle };
                CommitPart { part, head }.into()
            }
            // Only the head writes to one with a trim.
            1..=3 if stripe.trimmed.is_none() => {
                let mut payload = workload::bytes_of(number, dice);
                payload.truncate((unit - offset) as usize);
                return Some((WriteStripe { stripe: stripe.handle, head, cut, offset }.into(), payload));
            }
            _ => {
                let length = dice.magnitude(1, unit) as u32;
                ReadStripe { stripe: stripe.handle, head, cut, offset, length }.into()
            }
        };
        Some((request, Bytes::new()))
    }
}

/// Asks for the layout of a whole file.
pub fn layout(handle: Handle, purpose: LayoutPurpose) -> Request {
    Layout { handle, offset: 0, length: u64::from(workload::READ_LENGTH), purpose, opened: true }.into()
}

/// What has to be read of a file with this layout: what the head has, and all stripes.
pub fn all_parts(head: Handle, layout: &LayoutReply) -> Vec<Request> {
    let unit = layout.unit.map_or(workload::READ_LENGTH, |unit: StripeUnit| unit.bytes() as u32);
    let own = workload::read_of(head, unit);
    let stripes = layout.stripes.iter().map(|stripe| {
        let (stripe, cut) = (stripe.handle, layout.cut);
        ReadStripe { stripe, head, cut, offset: 0, length: unit }.into()
    });
    std::iter::once(own).chain(stripes).collect()
}
