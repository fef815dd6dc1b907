//! Attaching to the kernel: the device, `mount(2)`, `umount(2)`, and the kernel's read-ahead.
//!
//! Root mounts by itself, as type `fuse.magma`, so that the list of mounts shows what it is. Others mount through the
//! set-user-id program `fusermount3`, which the FUSE library calls.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use fuser::{Config, MountOption, Session, SessionACL};
use rustix::fs::{AtFlags, CWD, FileType, StatxFlags};
use rustix::mount::{MountFlags, UnmountFlags};

use crate::filesystem::MagmaFs;
use crate::options::MountOptions;

const DEVICE: &str = "/dev/fuse";
const TYPE: &str = "fuse.magma";

/// Why the kernel did not take the mount.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// No device.
    #[error(
        "cannot open {DEVICE}: {0}; it is there with the kernel's fuse module (modprobe fuse), and who is not root must be let (chmod 666 {DEVICE})"
    )]
    Device(#[source] io::Error),
    /// No mount.
    #[error("cannot mount on {}: {reason}", mountpoint.display())]
    Mount {
        /// Where.
        mountpoint: PathBuf,
        /// Why not.
        #[source]
        reason: io::Error,
    },
}

/// Who may use the mount.
fn access(options: &MountOptions, root: bool) -> SessionACL {
    if options.other_users.unwrap_or(root) { SessionACL::All } else { SessionACL::Owner }
}

fn library_config(options: &MountOptions, root: bool) -> Config {
    let mut config = Config::default();
    config.acl = access(options, root);
    config.n_threads = Some(options.threads);
    // A descriptor per thread keeps the threads apart in the kernel.
    config.clone_fd = options.threads > 1;
    config
}

fn open_device() -> io::Result<File> {
    File::options().read(true).write(true).open(DEVICE)
}

/// Mounts and shakes hands with the kernel.
pub(crate) fn attach(
    filesystem: MagmaFs,
    mountpoint: &Path,
    source: &str,
    options: &MountOptions,
) -> Result<Session<MagmaFs>, AttachError> {
    let refused = |reason: io::Error| AttachError::Mount { mountpoint: mountpoint.to_owned(), reason };
    let root = rustix::process::geteuid().is_root();
    let mut config = library_config(options, root);
    // The set-user-id program mounts for others, but each thread opens the device itself.
    let device = open_device().map_err(AttachError::Device)?;
    if !root {
        config.mount_options = library_options(source, options);
        return Session::new(filesystem, mountpoint, &config).map_err(refused);
    }
    let data = kernel_options(&device, config.acl);
    let data = CString::new(data).map_err(|error| refused(error.into()))?;
    let flags = kernel_flags(options);
    rustix::mount::mount(source, mountpoint, TYPE, flags, data.as_c_str())
        .map_err(|error| refused(error.into()))?;
    Session::from_fd(filesystem, OwnedFd::from(device), config.acl, config).map_err(|error| {
        if let Err(error) = unmount(mountpoint, true) {
            tracing::warn!(target: "magma::mount", %error, "the mount that failed is still attached");
        }
        refused(error)
    })
}

fn kernel_options(device: &impl AsRawFd, access: SessionACL) -> String {
    let fd = device.as_raw_fd();
    let mode = FileType::Directory.as_raw_mode();
    let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
    let (uid, gid) = (uid.as_raw(), gid.as_raw());
    let others = if access == SessionACL::All { ",allow_other" } else { "" };
    format!("fd={fd},rootmode={mode:o},user_id={uid},group_id={gid},default_permissions{others}")
}

fn kernel_flags(options: &MountOptions) -> MountFlags {
    let mut flags = MountFlags::empty();
    flags.set(MountFlags::RDONLY, options.read_only);
    flags.set(MountFlags::NOSUID, !options.set_user_id);
    flags.set(MountFlags::NODEV, !options.devices);
    flags.set(MountFlags::NOEXEC, !options.execution);
    flags.set(MountFlags::NOATIME, options.no_access_times);
    flags.set(MountFlags::SYNCHRONOUS, options.synchronous);
    flags.set(MountFlags::DIRSYNC, options.synchronous_directories);
    flags
}

/// The same for `fusermount3`, which allows neither devices nor set-user-id.
fn library_options(source: &str, options: &MountOptions) -> Vec<MountOption> {
    let either = |on, yes, no| if on { yes } else { no };
    vec![
        MountOption::FSName(source.to_owned()),
        MountOption::Subtype("magma".to_owned()),
        MountOption::DefaultPermissions,
        either(options.read_only, MountOption::RO, MountOption::RW),
        either(options.execution, MountOption::Exec, MountOption::NoExec),
        either(options.no_access_times, MountOption::NoAtime, MountOption::Atime),
        either(options.synchronous, MountOption::Sync, MountOption::Async),
    ]
}

/// Unmounts; with `detach` also while files are open, which then go on working until they are closed.
pub(crate) fn unmount(mountpoint: &Path, detach: bool) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        let flags = if detach { UnmountFlags::DETACH } else { UnmountFlags::empty() };
        return rustix::mount::unmount(mountpoint, flags).map_err(io::Error::from);
    }
    let status = Command::new("fusermount3")
        .arg(if detach { "-uz" } else { "-u" })
        .arg("--")
        .arg(mountpoint)
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("fusermount3 -u ended with {status}")))
    }
}

/// Lets the kernel read further ahead than its default of 128 KiB. Only root may; others keep the default.
pub(crate) fn raise_read_ahead(mountpoint: &Path, kib: u32) -> io::Result<()> {
    if kib == 0 || !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    // Asks for nothing that the file system would have to answer.
    let stat = rustix::fs::statx(CWD, mountpoint, AtFlags::STATX_DONT_SYNC, StatxFlags::empty())?;
    let device = format!("{}:{}", stat.stx_dev_major, stat.stx_dev_minor);
    std::fs::write(format!("/sys/class/bdi/{device}/read_ahead_kb"), kib.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_honours_neither_devices_nor_set_user_id_unless_told_to() {
        let flags = kernel_flags(&MountOptions::default());
        assert!(flags.contains(MountFlags::NOSUID | MountFlags::NODEV));
        let trusting = MountOptions { set_user_id: true, devices: true, ..MountOptions::default() };
        assert!(!kernel_flags(&trusting).intersects(MountFlags::NOSUID | MountFlags::NODEV));
    }

    #[test]
    fn the_kernel_checks_permissions_on_every_mount() {
        let device = File::open("/dev/null").unwrap();
        assert!(kernel_options(&device, SessionACL::Owner).contains(",default_permissions"));
        assert!(!kernel_options(&device, SessionACL::Owner).contains("allow_other"));
        assert!(library_options("x:/", &MountOptions::default()).contains(&MountOption::DefaultPermissions));
    }

    #[test]
    fn roots_mounts_are_for_everybody_unless_told_otherwise() {
        let closed = MountOptions { other_users: Some(false), ..MountOptions::default() };
        assert_eq!(access(&MountOptions::default(), true), SessionACL::All);
        assert_eq!(access(&MountOptions::default(), false), SessionACL::Owner);
        assert_eq!(access(&closed, true), SessionACL::Owner);
    }
}
