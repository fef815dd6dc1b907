//! How the servers of the two protocols see the edge.

use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use magma_common::auth::Role;
use magma_common::proto::frame::Tag;
use magma_common::transport::node::NodeHandler;
use magma_common::transport::server::{Handler, IncomingRequest, PeerId, ReplyTo};

use super::Edge;
use crate::node::message::Envelope;

/// Clients, and volcanos that pass requests on.
pub(super) struct FlareDoor(pub(super) Rc<Edge>);

impl Handler for FlareDoor {
    fn connected(&self, peer: PeerId, address: SocketAddr, role: Role) {
        tracing::debug!(target: "magma::volcano", peer = peer.0, %address, ?role, "a client is connected");
    }

    fn request(&self, peer: PeerId, request: IncomingRequest, reply: ReplyTo) {
        tracing::trace!(
            target: "magma::flare", peer = peer.0, operation = request.request.name(), payload = request.payload.len(), "request"
        );
        self.0.accept(peer, request, reply);
    }

    fn cancelled(&self, peer: PeerId, tag: Tag) {
        let ticket = self.0.tickets.borrow().get(&peer).and_then(|tickets| tickets.get(&tag)).copied();
        if let Some(ticket) = ticket {
            self.0.cancel(ticket);
            self.0.carry_out();
        }
    }

    fn disconnected(&self, peer: PeerId) {
        let tickets = self.0.tickets.borrow_mut().remove(&peer).unwrap_or_default();
        for ticket in tickets.into_values() {
            self.0.cancel(ticket);
        }
        self.0.carry_out();
    }

    fn batch_end(&self) {
        self.0.act(|node, clock| node.batch_end(clock.now()));
    }
}

/// Other volcanos.
pub(super) struct NodeDoor(pub(super) Rc<Edge>);

impl NodeHandler for NodeDoor {
    fn received(&self, from: SocketAddr, message: Bytes) {
        match postcard::take_from_bytes::<Envelope>(&message) {
            Ok((envelope, [])) => {
                let now = self.0.clock.now();
                self.0.node.borrow_mut().receive(now, from, envelope);
            }
            Ok(_) | Err(_) => {
                tracing::warn!(target: "magma::node", %from, "a message of another release, or a damaged one, is dropped");
            }
        }
    }

    fn batch_end(&self) {
        self.0.act(|node, clock| node.batch_end(clock.now()));
    }
}
