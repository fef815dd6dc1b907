//! Hostile clients on every port. Whatever they do, the next honest client is served as before, and the
//! servers neither grow nor end.

mod honest;
mod messages;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::time::Duration;

use super::Context;
use crate::error::{Doing, Error, Result, wrong};
use crate::lava::{ADDRESS, Lava, SUITE_PORTS};
use crate::tally::Tally;
use crate::testing::process::Process;
use crate::testing::random::{self, Random};

/// Connections of each kind of attack.
const CONNECTIONS: u32 = 200;
/// Idle connections, ten times what the gateways keep.
const IDLE: u32 = 10_000;
/// What a server may grow by under all of this: two hundred claims of 2 GiB must not be believed.
const MAX_GROWTH: u64 = 256 << 20;
/// A port that does not even take a connection within this time is not served.
const PATIENCE: Duration = Duration::from_secs(10);

/// A TCP port and what it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Port {
    Nfs,
    Ninep,
    Console,
}

impl Port {
    const ALL: [Self; 3] = [Self::Nfs, Self::Ninep, Self::Console];

    fn number(self) -> u16 {
        match self {
            Self::Nfs => SUITE_PORTS.nfs,
            Self::Ninep => SUITE_PORTS.ninep,
            Self::Console => SUITE_PORTS.console(),
        }
    }

    /// The gateways must serve honest clients while hostile ones hold all connections. The console, which is for the
    /// administrators of this machine, turns away whoever comes when its sessions are all taken: there they leave first.
    fn leave(self, held: &mut Result<Vec<TcpStream>>) {
        if let (Self::Console, Ok(held)) = (self, held) {
            held.clear();
        }
    }

    fn connect(self) -> Result<TcpStream> {
        let doing = || format!("connecting to the port of {self:?}");
        let stream = TcpStream::connect_timeout(&(ADDRESS, self.number()).into(), PATIENCE).doing(doing)?;
        stream.set_read_timeout(Some(PATIENCE)).doing(doing)?;
        stream.set_write_timeout(Some(PATIENCE)).doing(doing)?;
        Ok(stream)
    }
}

/// Runs all attacks, each followed by honest clients at every door.
pub(super) fn run(context: &Context) -> Result<Tally> {
    allow_many_files()?;
    let (scratch, mut lava) = context.lava()?;
    let mount = lava.start_all()?;
    let file = mount.join("honest");
    std::fs::write(&file, "honest").doing(|| format!("cannot write {}", file.display()))?;
    let mut random = random::announced();
    let mut tally = Tally::default();
    let before = sizes(&mut lava)?;

    let mut after = |name: &str, attack: Result<()>, lava: &mut Lava| -> Result<()> {
        tally.check(&format!("{name} can be tried"), attack.map_err(|error| error.to_string()));
        let served = honest::all(&file).and_then(|()| lava.must_run());
        tally.check(
            &format!("after {name}: honest clients are served"),
            served.map_err(|error| error.to_string()),
        );
        Ok(())
    };
    for port in Port::ALL {
        after(&format!("connections that reset ({port:?})"), resets(port), &mut lava)?;
        after(&format!("random bytes ({port:?})"), noise(port, &mut random), &mut lava)?;
        after(&format!("connections that close at once ({port:?})"), closes(port), &mut lava)?;
    }
    for (name, port, bytes) in messages::malformed() {
        let mut held = hold(port, &bytes);
        port.leave(&mut held);
        after(name, held.as_ref().map(|_| ()).map_err(|error| Error::Wrong(error.to_string())), &mut lava)?;
    }
    after("an endless line (Console)", endless_line(), &mut lava)?;
    after("datagrams of noise", datagrams(&mut random), &mut lava)?;
    for port in Port::ALL {
        let mut idle = Ok(idle(port));
        port.leave(&mut idle);
        after(&format!("{IDLE} idle connections ({port:?})"), Ok(()), &mut lava)?;
        drop(idle);
    }

    for ((name, before), (_, now)) in before.into_iter().zip(sizes(&mut lava)?) {
        let growth = now.saturating_sub(before);
        let outcome = if growth <= MAX_GROWTH { Ok(()) } else { Err(format!("by {} MiB", growth >> 20)) };
        tally.check(&format!("{name} does not grow"), outcome);
    }
    Context::finish(scratch, lava, &mut tally);
    Ok(tally)
}

/// Room for the idle connections.
fn allow_many_files() -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let wanted = u64::from(IDLE) + 1024;
    let now = getrlimit(Resource::Nofile);
    if now.current.is_some_and(|current| current < wanted) {
        let maximum = now.maximum.map(|maximum| maximum.max(wanted));
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })
            .doing(|| format!("cannot open {wanted} files"))?;
    }
    Ok(())
}

/// The largest memory each server has used so far, in bytes.
fn sizes(lava: &mut Lava) -> Result<Vec<(&'static str, u64)>> {
    let volcano = peak(lava.volcano()?)?;
    let nfs = peak(lava.nfs()?)?;
    let ninep = peak(lava.ninep()?)?;
    Ok(vec![("magmad", volcano), ("magma-nfs", nfs), ("magma-9p", ninep)])
}

fn peak(process: &Process) -> Result<u64> {
    let path = format!("/proc/{}/status", process.id());
    let text = std::fs::read_to_string(&path).doing(|| format!("cannot read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.map_or_else(|| wrong(format!("{path} names no VmHWM")), |kib| Ok(kib << 10))
}

/// Connects and resets: the way a port scanner leaves.
fn resets(port: Port) -> Result<()> {
    for _ in 0..CONNECTIONS {
        let stream = port.connect()?;
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))
            .doing(|| "cannot set SO_LINGER".to_owned())?;
    }
    Ok(())
}

/// Connects and closes one direction only, then goes.
fn closes(port: Port) -> Result<()> {
    for _ in 0..CONNECTIONS {
        let stream = port.connect()?;
        // The server may have been quicker.
        let _already_closed = stream.shutdown(Shutdown::Write);
    }
    Ok(())
}

/// Random bytes; the server may close at any time, so errors of sending are its good right.
fn noise(port: Port, random: &mut Random) -> Result<()> {
    for _ in 0..CONNECTIONS {
        let mut stream = port.connect()?;
        let length = 1 + random.below(5000);
        let bytes = random.bytes(usize::try_from(length).unwrap_or(1));
        let _refused = stream.write_all(&bytes);
    }
    Ok(())
}

/// Many connections that send the same bytes and then stay silent.
fn hold(port: Port, bytes: &[u8]) -> Result<Vec<TcpStream>> {
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = port.connect()?;
        let _refused = stream.write_all(bytes);
        held.push(stream);
    }
    Ok(held)
}

/// 16 MiB to the console without an end of line; it must stop reading, or answer, but not keep them.
fn endless_line() -> Result<()> {
    let mut stream = Port::Console.connect()?;
    let part = vec![b'x'; 64 << 10];
    for _ in 0..256 {
        if stream.write_all(&part).is_err() {
            break;
        }
    }
    let _closed = stream.read(&mut [0; 1024]);
    Ok(())
}

/// Noise, and what looks like the beginning of a QUIC handshake, to the protocol ports.
fn datagrams(random: &mut Random) -> Result<()> {
    let doing = || "sending datagrams".to_owned();
    let socket = UdpSocket::bind((ADDRESS, 0)).doing(doing)?;
    for port in [SUITE_PORTS.volcano, SUITE_PORTS.volcano + 1] {
        for _ in 0..CONNECTIONS * 5 {
            let length = usize::try_from(1 + random.below(1400)).unwrap_or(1);
            let mut bytes = random.bytes(length.max(8));
            if random.below(2) == 0 {
                // RFC 9000 §17.2.2: a long header, version 1.
                bytes.splice(0..5, [0xC0, 0, 0, 0, 1]);
            }
            // Nobody listens on the node protocol's port of a single volcano: ECONNREFUSED is an answer.
            let _refused = socket.send_to(&bytes, (ADDRESS, port));
        }
    }
    Ok(())
}

/// As many idle connections as the server takes, up to [`IDLE`].
fn idle(port: Port) -> Vec<TcpStream> {
    let address = (ADDRESS, port.number()).into();
    let limit = Duration::from_millis(500);
    (0..IDLE).map_while(|_| TcpStream::connect_timeout(&address, limit).ok()).collect()
}
