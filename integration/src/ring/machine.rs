//! A network namespace that stands for a machine: an address of its own, and a cable that can be pulled.
//!
//! A process that only waits holds the namespace. It ends with the harness, whatever happens to that, and the
//! kernel then removes the namespace with its devices as soon as nobody else is in it.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::{Doing, Error, Result, wrong};
use crate::testing::process::{Process, tied};
use crate::testing::wait;

/// The bridge that connects all machines, in the suite's namespace.
const BRIDGE: &str = "magma0";
/// The suite's own address on it.
pub(crate) const SWITCH_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 71, 0, 254);
/// How long the holder may take to be in its namespace.
const UP: Duration = Duration::from_secs(10);

/// The machine's own end of the cable.
const OWN_END: &str = "eth0";

/// The bridge. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Switch(());

impl Switch {
    /// Puts the bridge up in the suite's namespace.
    pub(crate) fn up() -> Result<Self> {
        // `guest/network` sets this when it makes the namespace: nothing here may touch the network of the host.
        if std::env::var_os("GUEST_TAP").is_none() {
            return wrong(
                "machines of their own need a network namespace: run this under integration/guest/network",
            );
        }
        run(Command::new("ip").args(["link", "add", BRIDGE, "type", "bridge", "forward_delay", "0"]))?;
        let switch = Self(());
        run(Command::new("ip").args(["addr", "add", &format!("{SWITCH_ADDRESS}/24"), "dev", BRIDGE]))?;
        run(Command::new("ip").args(["link", "set", BRIDGE, "up"]))?;
        Ok(switch)
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("ip").args(["link", "del", BRIDGE])) {
            eprintln!("{error}");
        }
    }
}

/// What a machine on a damaged cable can no longer do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// It is not heard.
    Speaking,
    /// It does not hear.
    Hearing,
    /// Neither.
    Both,
}

impl Cut {
    fn speaking(self) -> bool {
        self != Self::Hearing
    }

    fn hearing(self) -> bool {
        self != Self::Speaking
    }
}

/// One machine. Dropping it ends its namespace.
#[derive(Debug)]
pub(crate) struct Machine {
    holder: Process,
    address: Ipv4Addr,
}

impl Machine {
    /// A machine with this address, plugged in.
    pub(crate) fn new(_switch: &Switch, address: Ipv4Addr, log: &Path) -> Result<Self> {
        let mut command = tied("unshare".as_ref());
        command.args(["--net", "--", "sleep", "infinity"]);
        let holder = Process::start("a machine", command, log)?;
        let machine = Self { holder, address };
        let own = namespace_of("self");
        wait::until("a namespace of its own", UP, || {
            let there = namespace_of(&machine.holder.id().to_string());
            Ok((there.is_some() && there != own && machine.sleeps()).then_some(()))
        })?;
        let (id, cable) = (machine.holder.id().to_string(), machine.cable());
        // One that a machine of this address left behind goes with its namespace, which takes the kernel a moment.
        wait::until("the cable's name to be free", UP, || {
            Ok((!Path::new("/sys/class/net").join(&cable).exists()).then_some(()))
        })?;
        run(Command::new("ip")
            .args(["link", "add", &cable, "type", "veth", "peer", "name", OWN_END, "netns", &id]))?;
        run(Command::new("ip").args(["link", "set", &cable, "master", BRIDGE, "up"]))?;
        machine.inside(&["ip", "link", "set", "lo", "up"])?;
        machine.inside(&["ip", "addr", "add", &format!("{address}/24"), "dev", OWN_END])?;
        machine.inside(&["ip", "link", "set", OWN_END, "up"])?;
        machine.inside(&["ip", "route", "add", "default", "via", &SWITCH_ADDRESS.to_string()])?;
        Ok(machine)
    }

    /// A command that runs on this machine and ends with the harness.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = tied("nsenter".as_ref());
        command.arg(format!("--net={}", self.namespace().display())).arg("--").arg(program);
        command
    }

    /// Connects from this machine, whatever has become of its cable.
    pub(crate) fn connect(&self, to: SocketAddr, limit: Duration) -> Result<TcpStream> {
        let namespace = self.namespace();
        // A socket stays in the namespace in which it was made, whoever uses it.
        let connecting = std::thread::spawn(move || -> std::io::Result<TcpStream> {
            let namespace = std::fs::File::open(namespace)?;
            move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&namespace),
                Some(LinkNameSpaceType::Network),
            )?;
            TcpStream::connect_timeout(&to, limit)
        });
        let connected = connecting.join().map_err(|_| Error::Wrong("a thread panicked".to_owned()))?;
        connected.doing(|| format!("connecting to {to} on {}", self.address))
    }

    /// Pulls the cable: the machine is alone, and knows nothing of it.
    pub(crate) fn unplug(&self) -> Result<()> {
        run(Command::new("ip").args(["link", "set", &self.cable(), "down"]))
    }

    /// Plugs it in again.
    pub(crate) fn plug_in(&self) -> Result<()> {
        run(Command::new("ip").args(["link", "set", &self.cable(), "up"]))
    }

    /// Drops what this machine sends, or what it is sent, silently. With `whom`, only what these machines have to do with;
    /// else everything.
    pub(crate) fn cut(&self, cut: Cut, whom: &[Ipv4Addr]) -> Result<()> {
        let list = || whom.iter().map(Ipv4Addr::to_string).collect::<Vec<_>>().join(", ");
        let matching =
            |word: &str| if whom.is_empty() { String::new() } else { format!("ip {word} {{ {} }} ", list()) };
        self.heal()?;
        if cut.speaking() {
            // At the other end of the cable: a rule in the machine would have its sendmsg fail, which no cable does.
            let cable = self.cable();
            let rules = format!(
                "table netdev {cable} {{\nchain speaking {{ type filter hook ingress device \"{cable}\" priority 0; {}drop; }}\n}}\n",
                matching("daddr")
            );
            run_with(Command::new("nft").args(["-f", "-"]), &rules)?;
        }
        if cut.hearing() {
            let rules = format!(
                "table inet cut {{\nchain hearing {{ type filter hook input priority 0; iifname \"{OWN_END}\" {}drop; }}\n}}\n",
                matching("saddr")
            );
            run_with(&mut self.plain("nft", &["-f", "-"]), &rules)?;
        }
        Ok(())
    }

    /// Loses this many percent of what it is sent.
    pub(crate) fn lose(&self, percent: u8) -> Result<()> {
        self.heal()?;
        let rules = format!(
            "table inet cut {{\nchain losing {{ type filter hook input priority 0; \
             iifname \"{OWN_END}\" numgen random mod 100 < {percent} drop; }}\n}}\n"
        );
        run_with(&mut self.plain("nft", &["-f", "-"]), &rules)
    }

    /// Delays what it sends by so much; `false` if this kernel has no `netem`.
    pub(crate) fn delay(&self, time: Duration) -> Result<bool> {
        let millis = format!("{}ms", time.as_millis());
        let mut command =
            self.plain("tc", &["qdisc", "replace", "dev", OWN_END, "root", "netem", "delay", &millis]);
        let output = command.output().doing(|| "cannot run tc".to_owned())?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() && said.contains("Specified qdisc kind is unknown") {
            return Ok(false);
        }
        if output.status.success() { Ok(true) } else { wrong(format!("tc says {said}")) }
    }

    /// Undoes [`Self::cut`], [`Self::lose`] and [`Self::delay`].
    pub(crate) fn heal(&self) -> Result<()> {
        let cable = self.cable();
        // "add" makes the deletion succeed where there is nothing to delete.
        run_with(
            Command::new("nft").args(["-f", "-"]),
            &format!("add table netdev {cable}\ndelete table netdev {cable}\n"),
        )?;
        run_with(&mut self.plain("nft", &["-f", "-"]), "add table inet cut\ndelete table inet cut\n")?;
        // Without a queue of ours this fails, and is of no consequence.
        let _nothing_to_delete = self
            .plain("tc", &["qdisc", "del", "dev", OWN_END, "root"])
            .output()
            .doing(|| "cannot run tc".to_owned())?;
        Ok(())
    }

    /// Takes one more address, so that whoever has just spoken to its former owner speaks to this machine.
    pub(crate) fn take(&self, address: Ipv4Addr) -> Result<()> {
        self.inside(&["ip", "addr", "add", &format!("{address}/24"), "dev", OWN_END])?;
        // What a gratuitous ARP brings about.
        run(Command::new("ip").args(["neigh", "flush", "dev", BRIDGE]))
    }

    /// Gives such an address up.
    pub(crate) fn give_up(&self, address: Ipv4Addr) -> Result<()> {
        self.inside(&["ip", "addr", "del", &format!("{address}/24"), "dev", OWN_END])
    }

    /// Runs a command on it to its end.
    fn inside(&self, words: &[&str]) -> Result<()> {
        let Some((program, arguments)) = words.split_first() else { return Ok(()) };
        run(&mut self.plain(program, arguments))
    }

    fn plain(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace().display())).args(["--", program]).args(arguments);
        command
    }

    fn namespace(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.holder.id()))
    }

    /// The suite's end of the cable.
    fn cable(&self) -> String {
        format!("v{}", self.address.octets()[3])
    }

    /// `setpriv` and `unshare` are done.
    fn sleeps(&self) -> bool {
        let name = std::fs::read_to_string(format!("/proc/{}/comm", self.holder.id()));
        name.is_ok_and(|name| name.trim() == "sleep")
    }
}

fn namespace_of(process: &str) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{process}/ns/net")).ok()
}

fn run(command: &mut Command) -> Result<()> {
    run_with(command, "")
}

/// Runs a command that ends by itself at once; what it says is part of the error.
fn run_with(command: &mut Command, input: &str) -> Result<()> {
    let shown = format!("{command:?}");
    let doing = || format!("cannot run {shown}");
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().doing(doing)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).doing(doing)?;
    }
    let output = child.wait_with_output().doing(doing)?;
    if output.status.success() {
        return Ok(());
    }
    wrong(format!("{shown} ends with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}
