//! `./magma demo`: a whole lava network to play with, until Ctrl-C.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use crate::error::{Doing, Error, Result, wrong};
use crate::guest::Door;
use crate::lava::{ADDRESS, Lava, NfsClients, Ports, free_port};
use crate::programs::Programs;
use crate::ring::Layout;
use crate::testing::process::tail;
use crate::testing::wait;

/// "For ever", for a wait that a signal or an error ends.
const UNTIL_SIGNAL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Lines of a log shown when its process has failed.
const SHOWN_LINES: usize = 20;
/// Volcanos of the demo.
const VOLCANOS: usize = 3;

/// Options of the demo.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Folder for the data, the key, the logs and the mount point [default: ./demo].
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// First of the volcano's four ports.
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
        explain(&lava, &folder, &point);
        wait::until("the end of the demo", UNTIL_SIGNAL, || lava.must_run().map(|()| None::<()>))
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
    println!("Starting the volcano ...");
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
    for port in volcano..=volcano.saturating_add(3) {
        if free_port(&[port]).is_err() {
            return wrong(format!(
                "port {port} on {ADDRESS} is in use; ./magma demo --port N takes N to N+3 instead of {volcano} to {}",
                volcano.saturating_add(3)
            ));
        }
    }
    Ok(Ports {
        volcano,
        nfs: free_port(&[2049, 12049, 22049, 32049])?,
        ninep: free_port(&[564, 12564, 22564, 32564])?,
    })
}

fn explain(lava: &Lava, folder: &Path, point: &Path) {
    let ports = lava.ports();
    let host = ADDRESS.to_string();
    let line = |door: Door, at: &str| format!("sudo mount {} {at}", door.mount(&host, ports).join(" "));
    println!(
        "
MagmaFS is running: one volcano on {ADDRESS}:{volcano}, and three doors to the same files.

  mounted through FUSE   {point}
  console                telnet {ADDRESS} {console}
  data, key, logs        {folder}/{{volcano,key,logs}}

To mount it through the kernel's own clients as well, paste (NFS needs Debian's package nfs-common):

  sudo mkdir -p /mnt/nfs /mnt/9p
  {nfs}
  {ninep}

(\"sudo umount /mnt/nfs /mnt/9p\" before you end the demo.)

Ctrl-C takes everything down; the files stay.",
        volcano = ports.volcano,
        console = ports.console(),
        point = point.display(),
        folder = folder.display(),
        nfs = line(Door::Nfs, "/mnt/nfs"),
        ninep = line(Door::NinepClient, "/mnt/9p"),
    );
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
