use super::*;

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::auth::Keys;
use crate::fake::{header, keys};
use crate::handle::Handle;
use crate::proto::Request;
use crate::proto::operation::Getattr;
use crate::transport::system::System;
use crate::transport::{listener, tls, tuning};

/// Far longer than it takes to notice, and shorter than the idle time-out of the connection.
const NOTICED_WITHIN: Duration = Duration::from_secs(8);

/// A volcano that writes to its client all the time, whatever it hears.
fn talkative_volcano() -> SocketAddr {
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let keys = keys();
    let cluster = Keys::cluster(&keys).unwrap();
    let (endpoint, address) =
        listener::listen(local, cluster, 1, &cluster.accepted(), tls::Protocol::Flare, tuning::transport())
            .unwrap();
    tokio::spawn(async move {
        let connection = endpoint.accept().await.unwrap().await.unwrap();
        let (mut sender, _receiver) = connection.accept_bi().await.unwrap();
        let answer = frame::reply(Tag(9), 0, 0, Err(&FlareError::Io.into())).unwrap();
        let mut pace = tokio::time::interval(Duration::from_millis(100));
        while sender.write_all(&answer.head).await.is_ok() {
            pace.tick().await;
        }
    });
    address
}

/// Passes datagrams on, those to the volcano only until it is cut.
fn relay(volcano: SocketAddr) -> (SocketAddr, Arc<AtomicBool>) {
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let bind = || {
        let socket = UdpSocket::bind(local).unwrap();
        socket.set_nonblocking(true).unwrap();
        tokio::net::UdpSocket::from_std(socket).unwrap()
    };
    let (front, back) = (bind(), bind());
    let (address, cut) = (front.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
    let is_cut = Arc::clone(&cut);
    tokio::spawn(async move {
        let (mut forth, mut home) = (vec![0; 65_536], vec![0; 65_536]);
        let mut client = None;
        loop {
            tokio::select! {
                Ok((length, from)) = front.recv_from(&mut forth) => {
                    client = Some(from);
                    if !is_cut.load(Ordering::Relaxed) {
                        back.send_to(&forth[..length], volcano).await.unwrap();
                    }
                }
                Ok((length, _)) = back.recv_from(&mut home) => {
                    if let Some(client) = client {
                        front.send_to(&home[..length], client).await.unwrap();
                    }
                }
            }
        }
    });
    (address, cut)
}

/// Asks the volcano behind the relay something that it will not answer, and says what comes of it.
async fn ask(address: SocketAddr, cut: Option<&AtomicBool>) -> Option<Exchanged> {
    let surroundings: Arc<dyn Surroundings> = Arc::new(System::new(keys().client()).unwrap());
    let link = Link::connect(&surroundings, address, NOTICED_WITHIN).await.unwrap();
    if let Some(cut) = cut {
        cut.store(true, Ordering::Relaxed);
    }
    let request = Request::from(Getattr { handle: Handle::root() });
    let manner = Manner { class: StreamClass::Metadata, cancel: false, orphan: false };
    let body = request.encode().unwrap();
    let asked = link.exchange(header(0), request.opcode(), &body, Bytes::new(), manner);
    tokio::time::timeout(NOTICED_WITHIN, asked).await.ok().map(Result::unwrap)
}

/// A cable that was damaged in one direction left a volcano that heard nobody and went on sending what nobody seemed to acknowledge, less and less
/// often. Each of these packets was taken for a sign of life, and clients waited for it for up to seven seconds.
#[tokio::test]
async fn a_volcano_that_speaks_and_does_not_hear_is_lost() {
    let (address, cut) = relay(talkative_volcano());
    assert!(matches!(ask(address, Some(&cut)).await, Some(Exchanged::InDoubt)));
}

#[tokio::test]
async fn a_volcano_that_hears_and_does_not_answer_keeps_its_connection() {
    let (address, _cut) = relay(talkative_volcano());
    assert!(ask(address, None).await.is_none(), "the connection was lost");
}
