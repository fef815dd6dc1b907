//! A lava network with its doors, as real processes.

use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::error::{Doing, Result, wrong};
use crate::programs::Programs;
use crate::ring::{Layout, Ring, add_hosts};
use crate::testing::process::{Process, tied};
use crate::testing::wait;

/// How long a start may take: opening a store after a crash replays its log.
const READY: Duration = Duration::from_secs(60);
/// How long an unmounted folder may stay in the mount table.
const UNMOUNTED: Duration = Duration::from_secs(15);
/// Where everything listens. Loopback only: the demo and the suites are not for the neighbours.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// The TCP and UDP ports in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ports {
    /// The volcano's first one; node protocol, console and status page follow.
    pub(crate) volcano: u16,
    /// NFS and MOUNT.
    pub(crate) nfs: u16,
    /// 9P.
    pub(crate) ninep: u16,
}

impl Ports {
    /// The console's.
    pub(crate) fn console(self) -> u16 {
        self.volcano + 2
    }
}

/// Whom the NFS gateway believes that they are root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NfsClients {
    /// Who has a port below 1024: this machine's root.
    Root,
    /// Anybody, for suites that speak the protocol themselves.
    Any,
}

impl NfsClients {
    /// The gateway's option for it.
    pub(crate) fn export(self) -> &'static str {
        match self {
            Self::Root => "/:rw,no_root_squash",
            Self::Any => "/:rw,no_root_squash,insecure",
        }
    }
}

/// The ports of the suites, each of which has a network namespace of its own.
pub(crate) const SUITE_PORTS: Ports = Ports { volcano: 12000, nfs: 12049, ninep: 12564 };

/// A folder with everything: the volcanos' data, the key, the logs; and what runs on it.
///
/// Dropping it takes down the mounts first, then the gateways, then the volcanos.
#[derive(Debug)]
pub(crate) struct Lava {
    programs: Programs,
    folder: PathBuf,
    ports: Ports,
    mounts: Vec<Mount>,
    ninep: Option<Process>,
    nfs: Option<Process>,
    ring: Ring,
}

/// A FUSE mount.
#[derive(Debug)]
struct Mount {
    process: Process,
    point: PathBuf,
}

impl Lava {
    /// Prepares a folder, new or from an earlier time, without starting anything but empty machines.
    pub(crate) fn at(programs: &Programs, folder: &Path, layout: Layout, ports: Ports) -> Result<Self> {
        let logs = folder.join("logs");
        std::fs::create_dir_all(&logs).doing(|| format!("cannot make {}", logs.display()))?;
        let ring = Ring::at(programs, folder, layout, ports.volcano)?;
        let lava = Self {
            programs: programs.clone(),
            folder: folder.to_owned(),
            ports,
            mounts: Vec::new(),
            ninep: None,
            nfs: None,
            ring,
        };
        lava.make_key()?;
        Ok(lava)
    }

    /// Starts the volcanos that do not run, with a new network if the folder holds none. If there are several, this
    /// returns when their copies are in sync.
    pub(crate) fn start_volcanos(&mut self) -> Result<()> {
        self.ring.start_all()?;
        if self.ring.len() > 1 {
            self.ring.settle(READY)?;
        }
        Ok(())
    }

    /// Starts the NFS gateway. Root stays root, and only this machine is served.
    pub(crate) fn start_nfs(&mut self, clients: NfsClients) -> Result<()> {
        let mut command = self.door("magma-nfs", self.ports.nfs)?;
        command.args(["--export", clients.export()]);
        let mut process = Process::start("magma-nfs", command, &self.log("magma-nfs"))?;
        process.ready("magma-nfs ready", READY)?;
        self.nfs = Some(process);
        Ok(())
    }

    /// Starts the 9P gateway.
    pub(crate) fn start_ninep(&mut self) -> Result<()> {
        let command = self.door("magma-9p", self.ports.ninep)?;
        let mut process = Process::start("magma-9p", command, &self.log("magma-9p"))?;
        process.ready("magma-9p ready", READY)?;
        self.ninep = Some(process);
        Ok(())
    }

    fn door(&self, name: &str, port: u16) -> Result<Command> {
        let mut command = tied(&self.programs.binary(name)?);
        add_hosts(&mut command, &self.ring.hosts());
        command.arg("--key-file").arg(self.key_file());
        command.arg("--listen").arg(format!("{ADDRESS}:{port}"));
        Ok(command)
    }

    /// Mounts through FUSE.
    pub(crate) fn mount(&mut self, point: &Path) -> Result<()> {
        self.mount_with(point, "rw").map(|_| ())
    }

    /// Mounts through FUSE with these options; gives the process id of the mount.
    pub(crate) fn mount_with(&mut self, point: &Path, options: &str) -> Result<u32> {
        std::fs::create_dir_all(point).doing(|| format!("cannot make {}", point.display()))?;
        let mut command = tied(&self.programs.binary("mount-magma")?);
        command.arg("-f");
        add_hosts(&mut command, &self.ring.hosts());
        command.arg(format!("--key-file={}", self.key_file().display())).args(["-o", options]).arg(point);
        let mut process = Process::start("mount.magma", command, &self.log("mount"))?;
        let ready = process.ready("mounted", READY);
        let id = process.id();
        // Kept before the outcome is looked at: what is half mounted is taken down as well.
        self.mounts.push(Mount { process, point: point.to_owned() });
        ready.map(|_| id)
    }

    /// Everything a suite may want: volcanos, both gateways, one FUSE mount in `folder/mnt`.
    pub(crate) fn start_all(&mut self) -> Result<PathBuf> {
        self.start_volcanos()?;
        self.start_nfs(NfsClients::Any)?;
        self.start_ninep()?;
        let point = self.folder.join("mnt");
        self.mount(&point)?;
        Ok(point)
    }

    /// The process of the volcano, or of the first of them.
    pub(crate) fn volcano(&mut self) -> Result<&mut Process> {
        self.ring.process(0)
    }

    /// The volcanos.
    pub(crate) fn ring(&mut self) -> &mut Ring {
        &mut self.ring
    }

    /// The NFS gateway's process.
    pub(crate) fn nfs(&mut self) -> Result<&mut Process> {
        self.nfs.as_mut().ok_or_else(|| crate::error::Error::Wrong("the NFS gateway does not run".to_owned()))
    }

    /// The 9P gateway's process.
    pub(crate) fn ninep(&mut self) -> Result<&mut Process> {
        self.ninep
            .as_mut()
            .ok_or_else(|| crate::error::Error::Wrong("the 9P gateway does not run".to_owned()))
    }

    /// An error if something that was started has ended by itself.
    pub(crate) fn must_run(&mut self) -> Result<()> {
        self.ring.must_run()?;
        self.doors_must_run()
    }

    /// An error if a door has ended by itself.
    pub(crate) fn doors_must_run(&mut self) -> Result<()> {
        let doors = self.nfs.iter_mut().chain(self.ninep.iter_mut());
        for process in doors.chain(self.mounts.iter_mut().map(|mount| &mut mount.process)) {
            process.must_run()?;
        }
        Ok(())
    }

    /// Takes everything down in order; each process must end by itself, with status 0, and no mount stay.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.take_down()
    }

    fn take_down(&mut self) -> Result<()> {
        let mut first_error = Ok(());
        let mut note = |outcome: Result<()>| {
            if first_error.is_ok() {
                first_error = outcome;
            }
        };
        while let Some(mut mount) = self.mounts.pop() {
            note(mount.process.stop());
            note(gone(&mount.point));
        }
        for door in [&mut self.ninep, &mut self.nfs] {
            if let Some(mut process) = door.take() {
                note(process.stop());
            }
        }
        note(self.ring.take_down());
        first_error
    }

    /// The key's file.
    pub(crate) fn key_file(&self) -> PathBuf {
        self.folder.join("key")
    }

    /// The logs' folder.
    pub(crate) fn logs(&self) -> PathBuf {
        self.folder.join("logs")
    }

    /// The ports.
    pub(crate) fn ports(&self) -> Ports {
        self.ports
    }

    fn log(&self, name: &str) -> PathBuf {
        self.logs().join(format!("{name}.log"))
    }

    /// Writes a key of 128 random bits that only the owner can read, unless there is one.
    fn make_key(&self) -> Result<()> {
        let path = self.key_file();
        if path.exists() {
            return Ok(());
        }
        let mut bits = [0_u8; 16];
        let random = std::fs::File::open("/dev/urandom")
            .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bits));
        random.doing(|| "cannot read /dev/urandom".to_owned())?;
        let text = bits.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        let mut options = std::fs::OpenOptions::new();
        let written = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| std::io::Write::write_all(&mut file, format!("{text}\n").as_bytes()));
        written.doing(|| format!("cannot write {}", path.display()))
    }
}

impl Drop for Lava {
    fn drop(&mut self) {
        if let Err(error) = self.take_down() {
            eprintln!("taking down {}: {error}", self.folder.display());
        }
    }
}

/// Checks that a mount has left the mount table; a dead one is detached so that it does not stay behind.
fn gone(point: &Path) -> Result<()> {
    if wait::quietly_until(UNMOUNTED, || !mounted(point)) {
        return Ok(());
    }
    rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH)
        .doing(|| format!("cannot unmount {}", point.display()))?;
    wrong(format!("{} stayed mounted after its process had ended", point.display()))
}

/// Whether something is mounted at this path.
pub(crate) fn mounted(point: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let point = std::path::absolute(point).unwrap_or_else(|_| point.to_owned());
    let escaped = point.display().to_string().replace('\\', "\\134").replace(' ', "\\040");
    table.lines().any(|line| line.split(' ').nth(1) == Some(escaped.as_str()))
}

/// The first of these TCP ports on which nobody listens.
pub(crate) fn free_port(candidates: &[u16]) -> Result<u16> {
    for port in candidates {
        if std::net::TcpListener::bind((ADDRESS, *port)).is_ok() {
            return Ok(*port);
        }
    }
    wrong(format!("none of the ports {candidates:?} on {ADDRESS} is free"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn mounts_are_found_in_the_table() {
        assert!(super::mounted(Path::new("/proc")));
        assert!(!super::mounted(Path::new("/proc/no such mount")));
    }
}
