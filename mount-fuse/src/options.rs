//! Mount options: what follows `-o`, in the words of `mount(8)`.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use magma_common::auth::Secret;
use magma_common::client::HostPort;

use crate::core::{Caching, MAX_TTL};

/// Most threads that read requests from the kernel. Each reserves 16 MiB of address space, most of it never touched.
const MAX_THREADS: usize = 64;
/// Largest read-ahead in KiB.
const MAX_READ_AHEAD_KIB: u32 = 64 << 10;
/// What the options of cache times want.
const TTL: &str = "seconds from 0 to 1, like 0.5: what is cached for longer could be out of date at a close";
/// NFS's default for `timeo` of a soft mount, in tenths of a second.
const DEFAULT_TIMEO: u32 = 600;

/// Options of `fstab(5)` and `mount(8)` that are meant for others.
const FOR_OTHERS: &[&str] = &[
    "defaults",
    "auto",
    "noauto",
    "nofail",
    "_netdev",
    "user",
    "nouser",
    "users",
    "owner",
    "noowner",
    "group",
    "nogroup",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "diratime",
    "nodiratime",
    "lazytime",
    "nolazytime",
    "iversion",
    "noiversion",
    "mand",
    "nomand",
    "silent",
    "loud",
    "default_permissions",
    "nonempty",
    "big_writes",
];

/// How the mount behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountOptions {
    /// Nothing can be changed through it.
    pub read_only: bool,
    /// Set-user-id bits of programs are honoured.
    pub set_user_id: bool,
    /// Device nodes can be opened.
    pub devices: bool,
    /// Programs can be run.
    pub execution: bool,
    /// Reads leave the access time alone.
    pub no_access_times: bool,
    /// Each write is on disk before it is answered.
    pub synchronous: bool,
    /// Each change of a directory is on disk before it is answered.
    pub synchronous_directories: bool,
    /// Whether other users may use the mount; root's mounts let them unless told otherwise.
    pub other_users: Option<bool>,
    /// How long an operation is tried; `None` for ever.
    pub patience: Option<Duration>,
    /// What the kernel may cache.
    pub caching: Caching,
    /// Threads that read requests from the kernel.
    pub threads: usize,
    /// How far the kernel reads ahead, in KiB; raised only where we may.
    pub read_ahead_kib: u32,
    /// The source shown in the list of mounts.
    pub source_name: Option<String>,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            read_only: false,
            set_user_id: false,
            devices: false,
            execution: true,
            no_access_times: false,
            synchronous: false,
            synchronous_directories: false,
            other_users: None,
            patience: None,
            caching: Caching::default(),
            threads: 4,
            read_ahead_kib: 4 << 10,
            source_name: None,
        }
    }
}

/// What follows `-o`: how the mount behaves, and what may stand there instead of on the command line.
#[derive(Clone, Debug, Default)]
pub struct OptionList {
    /// How the mount behaves.
    pub mount: MountOptions,
    /// Further volcanos to contact.
    pub hosts: Vec<HostPort>,
    /// The port of hosts that were named without one.
    pub port: Option<u16>,
    /// The key.
    pub key: Option<Secret>,
    /// The key's file.
    pub key_file: Option<PathBuf>,
    /// The subdirectory to mount.
    pub subdirectory: Option<String>,
    /// Where a mount in the background logs.
    pub log_file: Option<PathBuf>,
    soft: bool,
    timeo: Option<u32>,
}

/// Why an option was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// Nobody knows it.
    #[error(
        "there is no mount option `{0}`; docs/guide/fuse.md lists those there are (-s ignores unknown ones)"
    )]
    Unknown(String),
    /// It wants a value, or another one.
    #[error("the mount option `{option}` wants {wants}")]
    Value {
        /// Which.
        option: String,
        /// What it wants.
        wants: &'static str,
    },
}

impl OptionList {
    /// Reads comma-separated options into the list; later ones win. With `sloppy`, unknown ones are ignored.
    pub fn read(&mut self, text: &str, sloppy: bool) -> Result<(), OptionError> {
        for option in text.split(',').map(str::trim).filter(|option| !option.is_empty()) {
            match self.read_one(option) {
                Err(OptionError::Unknown(_)) if sloppy => {}
                outcome => outcome?,
            }
        }
        let tenths = u64::from(self.timeo.unwrap_or(DEFAULT_TIMEO));
        self.mount.patience = self.soft.then(|| Duration::from_millis(100 * tenths));
        Ok(())
    }

    fn read_one(&mut self, option: &str) -> Result<(), OptionError> {
        match option.split_once('=') {
            Some((name, value)) => self.read_value(option, name, value),
            None => self.read_flag(option),
        }
    }

    fn read_flag(&mut self, option: &str) -> Result<(), OptionError> {
        let mount = &mut self.mount;
        match option {
            "rw" => mount.read_only = false,
            "ro" => mount.read_only = true,
            "suid" => mount.set_user_id = true,
            "nosuid" => mount.set_user_id = false,
            "dev" => mount.devices = true,
            "nodev" => mount.devices = false,
            "exec" => mount.execution = true,
            "noexec" => mount.execution = false,
            "atime" => mount.no_access_times = false,
            "noatime" => mount.no_access_times = true,
            "sync" => mount.synchronous = true,
            "async" => mount.synchronous = false,
            "dirsync" => mount.synchronous_directories = true,
            "allow_other" => mount.other_users = Some(true),
            "noallow_other" => mount.other_users = Some(false),
            "direct_io" => mount.caching.direct_io = true,
            "nodirect_io" => mount.caching.direct_io = false,
            "soft" => self.soft = true,
            "hard" => self.soft = false,
            _ if FOR_OTHERS.contains(&option) || option.starts_with("x-") || option.starts_with("X-") => {}
            _ => return Err(OptionError::Unknown(option.to_owned())),
        }
        Ok(())
    }

    fn read_value(&mut self, option: &str, name: &str, value: &str) -> Result<(), OptionError> {
        let wrong = |wants| OptionError::Value { option: name.to_owned(), wants };
        let time = |wants| seconds(value).ok_or(wrong(wants));
        match name {
            "host" => {
                self.hosts.push(value.parse().map_err(|_| wrong("a host, like 10.0.0.2 or wallace:12000"))?);
            }
            "port" => self.port = Some(number(value, 1, u16::MAX).ok_or(wrong("a port, 1 to 65535"))?),
            "key" => self.key = Some(Secret::new(value)),
            "keyfile" | "key_file" | "key-file" => self.key_file = Some(value.into()),
            "subdir" => self.subdirectory = Some(value.to_owned()),
            "logfile" => self.log_file = Some(value.into()),
            "timeo" => {
                self.timeo = Some(number(value, 1, 864_000).ok_or(wrong("tenths of a second, 1 to 864000"))?);
            }
            "actimeo" | "attr_timeout" => {
                self.mount.caching.attributes = time(TTL)?;
                if name == "actimeo" {
                    self.mount.caching.names = self.mount.caching.attributes;
                }
            }
            "entry_timeout" => self.mount.caching.names = time(TTL)?,
            "negative_timeout" => self.mount.caching.absent_names = time(TTL)?,
            "threads" => {
                self.mount.threads = number(value, 1, MAX_THREADS).ok_or(wrong("a number from 1 to 64"))?;
            }
            "readahead" => {
                self.mount.read_ahead_kib =
                    number(value, 0, MAX_READ_AHEAD_KIB).ok_or(wrong("KiB, 0 to 65536"))?;
            }
            "fsname" => self.mount.source_name = Some(value.to_owned()),
            "comment" => {}
            _ if name.starts_with("x-") || name.starts_with("X-") => {}
            _ => return Err(OptionError::Unknown(option.to_owned())),
        }
        Ok(())
    }
}

fn number<N: FromStr + PartialOrd + Copy>(text: &str, least: N, most: N) -> Option<N> {
    text.parse().ok().filter(|number| *number >= least && *number <= most)
}

fn seconds(text: &str) -> Option<Duration> {
    let seconds: f64 = text.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok().filter(|&time| time <= MAX_TTL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<OptionList, OptionError> {
        let mut list = OptionList::default();
        list.read(text, false).map(|()| list)
    }

    #[test]
    fn a_line_of_fstab_is_understood() {
        let list = read("rw,keyfile=/etc/magma/key,host=10.0.0.2,allow_other,soft,timeo=50,_netdev,nofail,x-systemd.automount")
            .unwrap();
        assert_eq!(list.key_file.as_deref(), Some("/etc/magma/key".as_ref()));
        assert_eq!(list.hosts, [HostPort { host: "10.0.0.2".into(), port: 12_000 }]);
        assert_eq!(list.mount.other_users, Some(true));
        assert_eq!(list.mount.patience, Some(Duration::from_secs(5)));
    }

    #[test]
    fn a_hard_mount_is_patient_for_ever() {
        assert_eq!(read("timeo=50").unwrap().mount.patience, None);
        assert_eq!(read("soft,hard").unwrap().mount.patience, None);
        assert_eq!(read("soft").unwrap().mount.patience, Some(Duration::from_mins(1)));
    }

    #[test]
    fn an_unknown_option_is_refused_with_its_name_unless_sloppy() {
        assert_eq!(read("ro,rszie=4").unwrap_err(), OptionError::Unknown("rszie=4".into()));
        let mut list = OptionList::default();
        list.read("rszie=4,ro", true).unwrap();
        assert!(list.mount.read_only);
    }

    #[test]
    fn nothing_is_cached_for_longer_than_a_second() {
        assert!(matches!(read("attr_timeout=60").unwrap_err(), OptionError::Value { .. }));
        assert_eq!(read("actimeo=0.25").unwrap().mount.caching.names, Duration::from_millis(250));
        assert!(read("entry_timeout=-1").is_err() && read("entry_timeout=nan").is_err());
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for text in ["threads=0", "threads=65", "port=0", "port=70000", "timeo=0", "host=a/b", "readahead=x"]
        {
            assert!(matches!(read(text), Err(OptionError::Value { .. })), "{text}");
        }
    }
}
