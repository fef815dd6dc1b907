//! `./magma demo`: a whole lava network to play with, until Ctrl-C.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use crate::error::{Doing, Error, Result, wrong};
use crate::guest::Door;
use crate::lava::{ADDRESS, Lava, NfsClients, Ports, free_port};
use crate::programs::Programs;
use crate::ring::{Layout, Ring};
use crate::testing::process::tail;
use crate::testing::wait;

/// "For ever", for a wait that a signal or an error ends.
const UNTIL_SIGNAL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Lines of a log shown when its process has failed.
const SHOWN_LINES: usize = 20;
/// Volcanos of the demo.
const VOLCANOS: usize = 3;

/// How long a volcano that was killed stays away.
const AWAY: Duration = Duration::from_secs(20);

/// Options of the demo.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Folder for the data, the key, the logs and the mount point [default: ./demo].
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// First of the four ports that each volcano has.
    #[arg(long, default_value_t = 12000)]
    port: u16,
}

/// Runs it; returns when a signal has asked for the end and everything is down.
pub(crate) fn run(options: &Options) -> Result<()> {
    let programs = Programs::locate()?;
    let folder = options.folder.clone().unwrap_or_else(|| programs.root().join("demo"));
    let folder = std::path::absolute(&folder).doing(|| format!("cannot use {}", folder.display()))?;
    let ports = choose_ports(options.port)?;
    std::fs::create_dir_all(&folder).doing(|| format!("cannot make {}", folder.display()))?;
    let lock =
        std::fs::File::create(folder.join("lock")).doing(|| format!("cannot use {}", folder.display()))?;
    if rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
        return wrong(format!("a demo already runs in {}; give this one --folder", folder.display()));
    }

    let mut lava = Lava::at(&programs, &folder, Layout::Loopback(VOLCANOS), ports)?;
    let point = folder.join("magma");
    let outcome = start(&mut lava, &point).and_then(|()| {
        explain(&mut lava, &folder, &point)?;
        let mut killed = Vec::new();
        wait::until("the end of the demo", UNTIL_SIGNAL, || {
            lava.doors_must_run()?;
            bring_back(lava.ring(), &mut killed)?;
            Ok(None::<()>)
        })
    });
    match outcome {
        Ok(()) | Err(Error::Interrupted) => {
            println!("\nTaking everything down ...");
            lava.stop()?;
            println!("Done. The files stay in {}; the next ./magma demo finds them again.", folder.display());
            Ok(())
        }
        Err(error) => {
            show_logs(&lava.logs());
            Err(error)
        }
    }
}

fn start(lava: &mut Lava, point: &Path) -> Result<()> {
    println!("Starting three volcanos ...");
    lava.start_volcanos()?;
    println!("Starting the NFS gateway ...");
    lava.start_nfs(NfsClients::Root)?;
    println!("Starting the 9P gateway ...");
    lava.start_ninep()?;
    println!("Mounting through FUSE ...");
    lava.mount(point)
}

/// NFS and 9P at their usual ports where we may have them, else at ports that anybody may have.
fn choose_ports(volcano: u16) -> Result<Ports> {
    for address in (0..VOLCANOS).filter_map(loopback) {
        for port in volcano..=volcano.saturating_add(3) {
            if TcpListener::bind((address, port)).is_err() {
                return wrong(format!(
                    "port {port} on {address} is in use; ./magma demo --port N takes N to N+3 instead of {volcano} to {}",
                    volcano.saturating_add(3)
                ));
            }
        }
    }
    Ok(Ports {
        volcano,
        nfs: free_port(&[2049, 12049, 22049, 32049])?,
        ninep: free_port(&[564, 12564, 22564, 32564])?,
    })
}

fn explain(lava: &mut Lava, folder: &Path, point: &Path) -> Result<()> {
    let ports = lava.ports();
    let host = ADDRESS.to_string();
    let line = |door: Door, at: &str| format!("sudo mount {} {at}", door.mount(&host, ports).join(" "));
    let ring = lava.ring();
    let mut lines = Vec::new();
    for number in 0..VOLCANOS {
        let (name, id) = (ring.name(number), ring.process(number)?.id());
        let address = loopback(number).unwrap_or(ADDRESS);
        let (volcano, console) = (ports.volcano, ports.console());
        let place = format!("{name:<22} {address}:{volcano}");
        lines.push(format!("  {place}, console: telnet {address} {console}, process {id}\n"));
    }
    let volcanos = lines.concat();
    // The one that serves: its death costs most.
    let victim = ring.primary()?;
    let (name, id) = (ring.name(victim), ring.process(victim)?.id());
    println!(
        "
MagmaFS is running: three volcanos that keep two copies of everything, and three doors to the same files.

{volcanos}  mounted through FUSE   {point}
  data, key, logs        {folder}/{{wallace,gromit,shaun,key,logs}}

To mount it through the kernel's own clients as well, paste (NFS needs Debian's package nfs-common):

  sudo mkdir -p /mnt/nfs /mnt/9p
  {nfs}
  {ninep}

(\"sudo umount /mnt/nfs /mnt/9p\" before you end the demo.)

To see that nothing happens when a volcano dies, let something work in one terminal,

  while date >> '{point}/dates' && tail -n 1 '{point}/dates'; do sleep 0.2; done

and kill {name}, which serves at the moment, in another one. The dates go on after some seconds, without an error:

  kill -9 {id}

\"lava health\" at the console of another one tells what is degraded and what is done about it. The demo starts the dead
one again after {away} s; then all is well.

Ctrl-C takes everything down; the files stay.",
        point = point.display(),
        folder = folder.display(),
        nfs = line(Door::Nfs, "/mnt/nfs"),
        ninep = line(Door::NinepClient, "/mnt/9p"),
        away = AWAY.as_secs(),
    );
    Ok(())
}

/// Starts volcanos again that were killed a while ago.
fn bring_back(ring: &mut Ring, killed: &mut Vec<(usize, Instant)>) -> Result<()> {
    for number in ring.take_killed()? {
        println!("\n{} was killed; it comes back in {} s.", ring.name(number), AWAY.as_secs());
        killed.push((number, Instant::now()));
    }
    let (due, later): (Vec<_>, Vec<_>) = killed.drain(..).partition(|(_, when)| when.elapsed() >= AWAY);
    *killed = later;
    for (number, _) in due {
        ring.start(number)?;
        println!("{} is back, as process {}.", ring.name(number), ring.process(number)?.id());
    }
    Ok(())
}

/// The address of the volcano with this number.
fn loopback(number: usize) -> Option<Ipv4Addr> {
    u8::try_from(number + 1).ok().map(|number| Ipv4Addr::new(127, 0, 0, number))
}

fn show_logs(logs: &Path) {
    let Ok(entries) = std::fs::read_dir(logs) else { return };
    for entry in entries.flatten() {
        match tail(&entry.path(), SHOWN_LINES) {
            Ok(text) if text.is_empty() => {}
            Ok(text) => eprintln!("--- {}\n{text}", entry.path().display()),
            Err(error) => eprintln!("--- {}: {error}", entry.path().display()),
        }
    }
}
