use super::*;

use std::time::Instant;

use tokio::sync::mpsc;
use tokio::task::LocalSet;

use crate::auth::Secret;
use crate::fake::keys;

#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Message(SocketAddr, Bytes),
    BatchEnd,
}

struct Listener(mpsc::UnboundedSender<Heard>);

impl NodeHandler for Listener {
    fn received(&self, from: SocketAddr, message: Bytes) {
        self.0.send(Heard::Message(from, message)).unwrap();
    }

    fn batch_end(&self) {
        self.0.send(Heard::BatchEnd).unwrap();
    }
}

struct Node {
    endpoint: NodeEndpoint,
    heard: mpsc::UnboundedReceiver<Heard>,
}

impl Node {
    fn try_at(address: SocketAddr) -> Result<Self, SetupError> {
        let (sender, heard) = mpsc::unbounded_channel();
        let keys = keys();
        let handler = Rc::new(Listener(sender));
        let endpoint = NodeEndpoint::bind(address, keys.cluster().unwrap(), VolcanoId(1), handler)?;
        Ok(Self { endpoint, heard })
    }

    /// Starts anew where another one has stopped, as soon as the socket is free.
    async fn again_at(address: SocketAddr) -> Self {
        loop {
            if let Ok(node) = Self::try_at(address) {
                return node;
            }
            tokio::task::yield_now().await;
        }
    }

    fn new() -> Self {
        Self::try_at(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap()
    }

    fn address(&self) -> SocketAddr {
        self.endpoint.local_address()
    }

    fn say(&self, to: &Self, class: Class, message: &'static [u8]) {
        self.endpoint.send(to.address(), class, Bytes::from_static(message));
    }

    async fn message(&mut self) -> (SocketAddr, Bytes) {
        loop {
            if let Heard::Message(from, message) = self.heard.recv().await.unwrap() {
                return (from, message);
            }
        }
    }
}

async fn alone<F: Future>(test: F) -> F::Output {
    let limit = Duration::from_secs(20);
    LocalSet::new().run_until(tokio::time::timeout(limit, test)).await.expect("waited in vain")
}

/// A connection as a volcano makes it.
async fn dial(to: SocketAddr, protocol: Protocol, keys: &ClusterKeys) -> Result<quinn::Connection, String> {
    let own = SocketAddr::from(([127, 0, 0, 1], 0));
    let endpoint = quinn::Endpoint::client(own).unwrap();
    let client = tls::client(&keys.node(), keys.volcano_public(), protocol).unwrap();
    let connecting = endpoint.connect_with(quinn::ClientConfig::new(client), to, tls::SERVER_NAME).unwrap();
    connecting.await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn messages_arrive_from_the_address_that_answers_go_to() {
    alone(async {
        let (mut one, mut other) = (Node::new(), Node::new());
        one.say(&other, Class::Urgent, b"question");
        let (from, message) = other.message().await;
        assert_eq!((from, &message[..]), (one.address(), &b"question"[..]));
        other.endpoint.send(from, Class::Bulk, Bytes::from_static(b"answer"));
        assert_eq!(one.message().await, (other.address(), Bytes::from_static(b"answer")));
        one.say(&other, Class::Bulk, b"");
        assert_eq!(other.message().await.1, Bytes::new());
    })
    .await;
}

#[tokio::test]
async fn messages_of_a_class_keep_their_order_and_share_a_batch() {
    alone(async {
        let (one, mut other) = (Node::new(), Node::new());
        for number in 0..100_u32 {
            one.endpoint.send(other.address(), Class::Bulk, Bytes::copy_from_slice(&number.to_be_bytes()));
        }
        let (mut numbers, mut batches) = (Vec::new(), 0);
        while numbers.len() < 100 {
            match other.heard.recv().await.unwrap() {
                Heard::Message(_, message) => {
                    numbers.push(u32::from_be_bytes(message[..].try_into().unwrap()));
                }
                Heard::BatchEnd => batches += 1,
            }
        }
        assert_eq!(numbers, (0..100).collect::<Vec<_>>());
        assert!(batches < 50, "{batches} batches");
    })
    .await;
}

#[tokio::test]
async fn an_urgent_message_overtakes_bulk() {
    alone(async {
        let (one, mut other) = (Node::new(), Node::new());
        for _ in 0..16 {
            one.endpoint.send(other.address(), Class::Bulk, Bytes::from(vec![1; 3 << 20]));
        }
        other.message().await;
        one.say(&other, Class::Urgent, b"beacon");
        let mut before = 0;
        while other.message().await.1.len() != 6 {
            before += 1;
        }
        assert!(before < 12, "{before} of 15 came first");
    })
    .await;
}

#[tokio::test]
async fn the_longest_message_arrives_and_a_longer_one_is_not_sent() {
    alone(async {
        let (one, mut other) = (Node::new(), Node::new());
        let longest = Bytes::from((0..MAX_MESSAGE).map(|place| (place % 251) as u8).collect::<Vec<_>>());
        one.endpoint.send(other.address(), Class::Bulk, Bytes::from(vec![0; MAX_MESSAGE + 1]));
        one.endpoint.send(other.address(), Class::Bulk, longest.clone());
        assert!(other.message().await.1 == longest);
        assert_eq!(one.endpoint.traffic().dropped, 1);
    })
    .await;
}

#[tokio::test]
async fn who_does_not_prove_the_node_key_gets_no_connection() {
    alone(async {
        let node = Node::new();
        let address = node.address();
        let ours = keys();
        let ours = ours.cluster().unwrap();
        assert!(dial(address, Protocol::Node, ours).await.is_ok());
        let strangers = Secret::new("not that key").stretch().unwrap();
        assert!(dial(address, Protocol::Node, strangers.cluster().unwrap()).await.is_err());
        // The client's identity is of the same network, but not a volcano's.
        let keys = keys();
        let client = tls::client(&keys.client().identity(), keys.client().volcano(), Protocol::Node).unwrap();
        let endpoint = quinn::Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let config = quinn::ClientConfig::new(client);
        let connection = endpoint.connect_with(config, address, tls::SERVER_NAME).unwrap().await;
        // With TLS 1.3 a caller believes to be through before it is refused.
        if let Ok(connection) = connection {
            connection.closed().await;
        }
        let error = dial(address, Protocol::Flare, ours).await.unwrap_err();
        assert!(error.contains("120"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_frame_above_the_limit_costs_its_sender_the_connection_and_nobody_else_anything() {
    alone(async {
        let (one, mut other) = (Node::new(), Node::new());
        let keys = keys();
        let hostile = dial(other.address(), Protocol::Node, keys.cluster().unwrap()).await.unwrap();
        let mut stream = hostile.open_uni().await.unwrap();
        let length = u32::try_from(MAX_MESSAGE).unwrap() + 1;
        stream.write_all(&length.to_be_bytes()).await.unwrap();
        let reason = hostile.closed().await;
        assert!(matches!(reason, quinn::ConnectionError::ApplicationClosed(_)), "{reason}");
        one.say(&other, Class::Urgent, b"honest");
        assert_eq!(&other.message().await.1[..], b"honest");
    })
    .await;
}

#[tokio::test]
async fn a_volcano_that_restarts_is_connected_again() {
    alone(async {
        let one = Node::new();
        let mut other = Node::new();
        one.say(&other, Class::Urgent, b"first");
        other.message().await;
        let address = other.address();
        other.endpoint.close().await;
        let mut other = Node::again_at(address).await;
        // What is sent before the loss is noticed goes with the connection.
        let heard = async { other.message().await };
        let again = async {
            loop {
                one.endpoint.send(address, Class::Urgent, Bytes::from_static(b"second"));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            (_, message) = heard => assert_eq!(&message[..], b"second"),
            () = again => {}
        }
    })
    .await;
}

#[tokio::test]
async fn what_waits_for_a_volcano_is_bounded_in_bytes_and_in_time() {
    alone(async {
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = silent.local_addr().unwrap();
        let node = Node::new();
        for _ in 0..80 {
            node.endpoint.send(to, Class::Bulk, Bytes::from(vec![0; 1 << 20]));
        }
        for _ in 0..10 {
            node.endpoint.send(to, Class::Urgent, Bytes::from(vec![0; 200 << 10]));
        }
        // 63 MiB with their lengths fit into 64, and 5 times 200 KiB into one.
        assert_eq!(node.endpoint.traffic().dropped, (80 - 63) + (10 - 5));
        let started = Instant::now();
        while node.endpoint.traffic().unreachable < 63 + 5 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(started.elapsed() < Duration::from_secs(4));
    })
    .await;
}
