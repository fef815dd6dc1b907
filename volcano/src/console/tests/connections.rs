//! Sessions in time and in number: stopping, waiting, crowding, and the key.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

use magma_common::auth::Secret;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::fake::{Tree, Volcano};
use super::{IDLE, session, small};
use crate::console::gate::Gate;
use crate::console::session::Session;
use crate::console::{ConsoleConfig, serve_files};

const LIMIT: Duration = Duration::from_secs(20);

/// Runs a test on a runtime like the volcano's.
fn run<T>(paused: bool, test: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(paused).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

/// Reads until the text ends with `end`.
async fn expect(reader: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut text = Vec::new();
    let reading = async {
        while !text.ends_with(end.as_bytes()) {
            match reader.read_u8().await {
                Ok(byte) => text.push(byte),
                Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&text)),
            }
        }
    };
    timeout(LIMIT, reading).await.expect("in time");
    String::from_utf8_lossy(&text).into_owned()
}

/// Reads until the end, for which a paused clock may go far.
async fn rest(reader: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    timeout(IDLE * 2, reader.read_to_end(&mut bytes)).await.expect("in time").unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn control_c_stops_a_command_and_what_was_typed_ahead() {
    run(false, async {
        let tree = Tree::new();
        tree.endless("/endless");
        let volcano = Rc::new(Volcano::new(tree));
        let (mut ours, _task) = session(&volcano);
        ours.write_all(b"cat endless\npwd\n").await.unwrap();
        expect(&mut ours, "xxxxxxxxxx").await;
        // As a telnet client sends it, the key itself and the question for the timing mark that ends its discarding.
        ours.write_all(&[255, 244, 255, 242, 255, 253, 6]).await.unwrap();
        let text = expect(&mut ours, "\u{6}\n-- stopped\nMAGMA [wallace]:/> ").await;
        assert!(text.len() < 1 << 20, "it stopped soon: {}", text.len());
        ours.write_all(b"cd nothing\nexit\n").await.unwrap();
        let text = rest(&mut ours).await;
        assert!(text.starts_with("cd: nothing: "), "{text:?}");
    });
}

#[test]
fn a_reader_that_stops_reading_stops_the_command() {
    run(true, async {
        let tree = Tree::new();
        tree.endless("/endless");
        let volcano = Rc::new(Volcano::new(tree));
        let (mut ours, task) = session(&volcano);
        ours.write_all(b"cat endless\n").await.unwrap();
        // The clock stands still until everybody waits: then nothing is read any more, and the patience ends.
        let gone = timeout(IDLE * 2, task).await.expect("it ends").unwrap().unwrap_err();
        assert!(gone.to_string().contains("gone"));
        assert!(
            *volcano.tree.reads.borrow() < 10,
            "no more was read from the store than the connection took"
        );
    });
}

#[test]
fn a_session_without_typing_ends() {
    run(true, async {
        let (mut ours, task) = session(&small());
        let text = timeout(IDLE * 2, rest(&mut ours)).await.expect("it ends");
        assert!(text.ends_with("\r\nclosed after 15 minutes without a command\r\n"), "{text}");
        task.await.unwrap().unwrap();
    });
}

#[test]
fn character_mode_echoes_and_line_mode_does_not() {
    run(false, async {
        let (mut ours, _task) = session(&small());
        expect(&mut ours, ":/> ").await;
        ours.write_all(&[255, 253, 1, 255, 253, 3]).await.unwrap();
        let mut granted = [0; 6];
        ours.read_exact(&mut granted).await.unwrap();
        assert_eq!(granted, [255, 251, 1, 255, 251, 3]);
        ours.write_all(b"ls\x03").await.unwrap();
        assert_eq!(expect(&mut ours, ":/> ").await, "ls^C\r\nMAGMA [wallace]:/> ");
        ours.write_all(b"pwx\x7fd\r\0").await.unwrap();
        assert_eq!(expect(&mut ours, ":/> ").await, "pwx\x08 \x08d\r\n/\r\nMAGMA [wallace]:/> ");
    });
}

/// Types keys at a gate; whether it opened, and what was said.
async fn ask(gate: &Rc<RefCell<Gate>>, typed: &'static [u8]) -> (bool, String) {
    let (mut ours, theirs) = duplex(1 << 16);
    let (reader, writer) = tokio::io::split(theirs);
    let gate = Rc::clone(gate);
    let task = tokio::task::spawn_local(async move {
        let mut session = Session::new(reader, writer, IDLE);
        let opened = session.ask_key(&gate, IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9))).await.unwrap();
        session.close().await.unwrap();
        opened
    });
    ours.write_all(typed).await.unwrap();
    let said = rest(&mut ours).await;
    (task.await.unwrap(), said)
}

#[test]
fn from_afar_the_key_comes_first_and_is_not_shown() {
    run(true, async {
        let gate = Rc::new(RefCell::new(Gate::new(&Secret::new("k3y"))));
        let (opened, said) = ask(&gate, b"\xff\xfd\x01k3y\r\n").await;
        assert!(opened && !said.contains("k3y"), "{said}");
        assert!(
            said.starts_with("\u{fffd}\u{fffd}\u{1}Key: "),
            "the client stops its echo before it is asked: {said:?}"
        );
        let (opened, said) = ask(&gate, b"wrong\r\nk3y\r\nk3y\r\nk3y\r\n").await;
        assert!(!opened, "three tries, and none within the delay after a wrong one");
        assert!(said.contains("not the key of this network") && said.contains("wait 1 s"), "{said}");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(ask(&gate, b"k3y\n").await.0);
        assert!(!ask(&gate, b"\x04").await.0);
    });
}

#[test]
fn a_connection_that_types_no_key_is_closed() {
    run(true, async {
        let gate = Rc::new(RefCell::new(Gate::new(&Secret::new("k3y"))));
        let (opened, _) = timeout(Duration::from_secs(61), ask(&gate, b"k3")).await.expect("it ends");
        assert!(!opened);
    });
}

async fn served(remote: bool, max_sessions: usize) -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config =
        ConsoleConfig { max_sessions, ..ConsoleConfig::new("wallace", "w.intranet", Secret::new("k3y")) };
    let volcano = small();
    let tree = volcano.tree.clone();
    let task = tokio::task::spawn_local(serve_files(listener, config, volcano, tree, remote));
    (address, task)
}

#[test]
fn several_sessions_at_once_up_to_the_limit() {
    run(false, async {
        let (address, task) = served(false, 2).await;
        let mut first = TcpStream::connect(address).await.unwrap();
        let banner = "MagmaFS 0.1.0 console of wallace (w.intranet)\r\n`help` lists the commands.\r\nMAGMA [wallace]:/> ";
        assert_eq!(expect(&mut first, "> ").await, banner);
        let mut second = TcpStream::connect(address).await.unwrap();
        expect(&mut second, "> ").await;
        let mut third = TcpStream::connect(address).await.unwrap();
        assert_eq!(rest(&mut third).await, "too many console sessions; try again later\r\n");
        second.write_all(b"cd docs\n").await.unwrap();
        assert!(expect(&mut second, "> ").await.ends_with(":/docs> "));
        first.write_all(b"pwd\nexit\n").await.unwrap();
        assert_eq!(rest(&mut first).await, "/\nMAGMA [wallace]:/> ");
        // The place of a session that ended is free again, at the latest when its task has ended.
        let again = async {
            loop {
                let mut again = TcpStream::connect(address).await.unwrap();
                let mut start = [0; 7];
                again.read_exact(&mut start).await.unwrap();
                if &start == b"MagmaFS" {
                    break;
                }
            }
        };
        timeout(LIMIT, again).await.expect("in time");
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(rest(&mut second).await, "", "the end of the console ends its sessions");
    });
}

#[test]
fn a_remote_console_says_nothing_before_the_key() {
    run(false, async {
        let (address, _task) = served(true, 2).await;
        let mut guest = TcpStream::connect(address).await.unwrap();
        assert_eq!(expect(&mut guest, "Key: ").await.trim_start_matches(['\u{fffd}', '\u{1}']), "Key: ");
        guest.write_all(b"k3y\n").await.unwrap();
        let text = expect(&mut guest, "> ").await;
        assert!(text.contains("MagmaFS 0.1.0 console of wallace"), "{text}");
        let mut impatient = TcpStream::connect(address).await.unwrap();
        impatient.write_all(b"shutdown\nshutdown\nshutdown\n").await.unwrap();
        assert!(!rest(&mut impatient).await.contains("MagmaFS"));
    });
}

#[test]
fn urgent_data_stays_in_the_stream() {
    run(false, async {
        let (address, _task) = served(false, 2).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        expect(&mut client, "> ").await;
        client.write_all(b"erase everything\xff\xf4\xff").await.unwrap();
        // The data mark goes as urgent data; lost, it would make the next byte a telnet command.
        let urgent = socket2::SockRef::from(&client).send_out_of_band(&[242]).unwrap();
        assert_eq!(urgent, 1);
        client.write_all(b"pwd\n").await.unwrap();
        let text = expect(&mut client, "/\nMAGMA [wallace]:/> ").await;
        assert!(!text.contains("no command"), "{text}");
    });
}
