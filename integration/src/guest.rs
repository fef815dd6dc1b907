//! Running a script in the guest, whose kernel brings the NFS and 9P clients.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::error::Result;
use crate::lava::Ports;
use crate::programs::Programs;
use crate::testing::command::{self, Show};
use crate::testing::process::{Process, tied};

/// Booting and powering off, on a busy machine.
const BOOT: Duration = Duration::from_secs(60);
/// The host's loopback as the guest sees it.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// The guest itself.
pub(crate) const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// An address that moves from one machine to another.
pub(crate) const MOVING_HOST: Ipv4Addr = Ipv4Addr::new(10, 71, 0, 100);

/// What the guest mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// The kernel's NFSv3 client.
    Nfs,
    /// The same, keeping attributes and names for one second instead of up to a minute.
    NfsFresh,
    /// The same, from a gateway at [`MOVING_HOST`].
    NfsMoving,
    /// The kernel's 9P2000.L client; the users of the guest are told apart by the guest.
    NinepClient,
    /// The same, each user attaching as themselves: the volcano tells them apart.
    NinepUser,
}

impl Door {
    /// The short name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nfs | Self::NfsFresh | Self::NfsMoving => "nfs",
            Self::NinepClient | Self::NinepUser => "9p",
        }
    }

    /// The arguments of mount(8) before the mount point.
    pub(crate) fn mount(self, host: &str, ports: Ports) -> Vec<String> {
        let (kind, options, source) = match self {
            Self::Nfs => ("nfs", nfs_options(ports), format!("{host}:/")),
            Self::NfsFresh | Self::NfsMoving => {
                ("nfs", nfs_options(ports) + ",actimeo=1", format!("{host}:/"))
            }
            Self::NinepClient => ("9p", ninep_options(ports, "client"), host.to_owned()),
            Self::NinepUser => ("9p", ninep_options(ports, "user"), host.to_owned()),
        };
        vec!["-t".to_owned(), kind.to_owned(), "-o".to_owned(), options, source]
    }
}

fn nfs_options(ports: Ports) -> String {
    format!("vers=3,nolock,proto=tcp,port={0},mountport={0},mountproto=tcp", ports.nfs)
}

fn ninep_options(ports: Ports, access: &str) -> String {
    format!("trans=tcp,version=9p2000.L,port={},msize=1048576,uname=root,access={access}", ports.ninep)
}

/// A script for the guest, with what it needs.
#[derive(Debug)]
pub(crate) struct Guest<'a> {
    programs: &'a Programs,
    share: &'a Path,
    limit: Duration,
}

impl<'a> Guest<'a> {
    /// A guest that sees `share` as `/share` and may run for `limit`.
    pub(crate) fn new(programs: &'a Programs, share: &'a Path, limit: Duration) -> Self {
        Self { programs, share, limit }
    }

    /// Mounts the doors at `/mnt/NAME` in the guest, runs `script` (in `/share`, with its arguments) and
    /// unmounts. An error if the script, or a mount, fails.
    pub(crate) fn run(&self, ports: Ports, doors: &[Door], script: &str, log: &Path) -> Result<()> {
        let mut command = Command::new(self.programs.integration().join("guest/boot"));
        self.arguments(&mut command, ports, doors, script)?;
        command::succeed("the guest", &mut command, log, Show::Yes, self.limit + BOOT)
    }

    /// As [`Self::run`], but goes on beside us.
    pub(crate) fn start(&self, ports: Ports, doors: &[Door], script: &str, log: &Path) -> Result<Process> {
        let mut command = tied(&self.programs.integration().join("guest/boot"));
        self.arguments(&mut command, ports, doors, script)?;
        Process::start("the guest", command, log)
    }

    fn arguments(&self, command: &mut Command, ports: Ports, doors: &[Door], script: &str) -> Result<()> {
        use crate::error::Doing;
        let text = mounting_script(ports, doors, script);
        let path = self.share.join("in-guest");
        std::fs::write(&path, text).doing(|| format!("cannot write {}", path.display()))?;
        command.env("GUEST_DIR", self.programs.guest_image());
        command.args(["-t", &self.limit.as_secs().to_string(), "-s"]).arg(self.share).arg(&path);
        Ok(())
    }
}

/// The command that mounts a door in the guest, at its usual place.
pub(crate) fn mount_line(door: Door, ports: Ports) -> String {
    let host = if door == Door::NfsMoving { MOVING_HOST } else { HOST };
    let quoted: Vec<String> =
        door.mount(&host.to_string(), ports).iter().map(|word| format!("'{word}'")).collect();
    format!("mount {} /mnt/{}", quoted.join(" "), door.name())
}

/// The guest's script: mounts, the work, unmounts; its status is that of the first that failed.
fn mounting_script(ports: Ports, doors: &[Door], script: &str) -> String {
    let mut lines = vec!["#!/bin/bash".to_owned(), "set -e".to_owned()];
    for door in doors {
        lines.push(format!("mkdir -p /mnt/{}", door.name()));
        lines.push(mount_line(*door, ports));
    }
    lines.extend(["set +e", script, "status=$?", "cd /"].map(str::to_owned));
    lines.extend(doors.iter().map(|door| format!("umount /mnt/{} || status=${{status/#0/1}}", door.name())));
    lines.push("exit $status".to_owned());
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::{Door, mounting_script};
    use crate::lava::SUITE_PORTS;

    #[test]
    fn the_guest_mounts_with_the_documented_options() {
        let nfs = Door::Nfs.mount("h", SUITE_PORTS).join(" ");
        assert_eq!(nfs, "-t nfs -o vers=3,nolock,proto=tcp,port=12049,mountport=12049,mountproto=tcp h:/");
        let ninep = Door::NinepUser.mount("h", SUITE_PORTS).join(" ");
        let expected =
            "-t 9p -o trans=tcp,version=9p2000.L,port=12564,msize=1048576,uname=root,access=user h";
        assert_eq!(ninep, expected);
    }

    #[test]
    fn the_script_ends_with_the_status_of_the_work() {
        let script = mounting_script(SUITE_PORTS, &[], "(exit 3)");
        let status = std::process::Command::new("bash").arg("-c").arg(script).status().unwrap();
        assert_eq!(status.code(), Some(3));
    }
}
