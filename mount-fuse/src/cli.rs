//! The command line of `mount.magma`: the program's own form, and the one that `mount(8)` calls.

use std::path::PathBuf;

use clap::Parser;
use magma_common::client::HostPort;
use magma_common::options::{OptionsError, Resolved, SharedOptions, Surroundings};
use magma_common::topology::DEFAULT_PORT;
use serde::Deserialize;

use crate::mount::MountConfig;
use crate::options::{OptionError, OptionList};
use crate::source::{ParseSourceError, Source};

/// Mounts a MagmaFS network.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "mount.magma",
    version,
    override_usage = "mount.magma [--host HOST[:PORT]]… [--key-file FILE] [-o OPTIONS] MOUNTPOINT\n       \
                      mount.magma HOST[:PORT][,HOST…]:/[PATH] MOUNTPOINT [-o OPTIONS]",
    after_help = "As root, `mount -t magma HOST:/ MOUNTPOINT -o OPTIONS` and fstab work too. `umount MOUNTPOINT` unmounts.\n\
                  Options after -o: ro, suid, dev, noexec, noatime, sync, allow_other, soft, timeo=TENTHS, keyfile=FILE,\n\
                  host=HOST, port=PORT, subdir=PATH, actimeo=SECONDS, negative_timeout=SECONDS, direct_io, threads=N,\n\
                  readahead=KIB, logfile=FILE, fsname=NAME. docs/guide/fuse.md explains them."
)]
pub struct Arguments {
    /// Hosts, key, configuration file, debug channels.
    #[command(flatten)]
    pub shared: SharedOptions,
    /// Port of the hosts that were named without one [default: 12000].
    #[arg(long)]
    pub port: Option<u16>,
    /// Mount options, separated by commas.
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub options: Vec<String>,
    /// Stay in the foreground. Called by mount(8), with a source: check everything and mount nothing.
    #[arg(short = 'f')]
    pub foreground_or_fake: bool,
    /// Stay in the foreground.
    #[arg(long)]
    pub foreground: bool,
    /// Ignore mount options that nobody knows.
    #[arg(short = 's')]
    pub sloppy: bool,
    /// Given by mount(8); there is no mtab to leave alone.
    #[arg(short = 'n', hide = true)]
    pub no_mtab: bool,
    /// Given by mount(8).
    #[arg(short = 'v', hide = true)]
    pub verbose: bool,
    /// Given by mount(8): the file system's type.
    #[arg(short = 't', hide = true, value_name = "TYPE")]
    pub file_system_type: Option<String>,
    /// What to mount, if --host does not say it, and where.
    #[arg(value_name = "[SOURCE] MOUNTPOINT", required = true, num_args = 1..=2)]
    pub places: Vec<String>,
}

/// The part of the configuration file that is ours.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
struct Section {
    /// Mount options, as after `-o`, which override them.
    options: String,
}

/// What the command line comes to.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What to mount.
    pub config: MountConfig,
    /// Where a mount in the background logs.
    pub log_file: Option<PathBuf>,
    /// What else the options said.
    pub resolved: Resolved,
    /// Do not leave the terminal.
    pub foreground: bool,
    /// Mount nothing.
    pub fake: bool,
    /// All mount options, but for the key.
    pub option_text: String,
}

/// Why a command line means nothing.
#[derive(Debug, thiserror::Error)]
pub enum ArgumentError {
    /// The shared options.
    #[error(transparent)]
    Shared(#[from] OptionsError),
    /// Those after `-o`.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// What to mount.
    #[error(transparent)]
    Source(#[from] ParseSourceError),
    /// Two answers to one question.
    #[error("the subdirectory is given twice: as `{source_path}` in the source and as subdir={option}")]
    TwoPaths {
        /// In the source.
        source_path: String,
        /// In the options.
        option: String,
    },
}

impl Arguments {
    /// Reads the files that are named and puts everything together.
    pub fn plan(mut self, surroundings: &Surroundings) -> Result<Plan, ArgumentError> {
        let (source, mountpoint) = match self.places.as_slice() {
            [source, mountpoint] => (Some(source.parse::<Source>()?), mountpoint.clone()),
            places => (None, places.first().cloned().unwrap_or_default()),
        };
        let from_mount = source.is_some();
        let mut given = OptionList::default();
        given.read(&self.options.join(","), self.sloppy)?;
        let hosts = source.iter().flat_map(|source| source.hosts.clone()).chain(given.hosts);
        self.shared.hosts.extend(hosts);
        self.shared.key.key = self.shared.key.key.or(given.key);
        self.shared.key.key_file = self.shared.key.key_file.or(given.key_file);
        let mut resolved = self.shared.resolve(surroundings)?;

        let configured = resolved.config.section::<Section>("mount")?.unwrap_or_default().options;
        let option_text = without_key(&[configured, self.options.join(",")].join(","));
        let mut list = OptionList::default();
        list.read(&option_text, self.sloppy)?;
        if let Some(port) = self.port.or(list.port) {
            resolved.hosts.iter_mut().for_each(|host| set_port(host, port));
        }
        let path = match (source.map(|source| source.path).filter(|path| !path.is_empty()), list.subdirectory)
        {
            (Some(source_path), Some(option)) => {
                return Err(ArgumentError::TwoPaths { source_path, option });
            }
            (one, other) => one.or(other).unwrap_or_default().trim_matches('/').to_owned(),
        };
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let mut client = resolved.client_config(format!("mount.magma {host}:{mountpoint}"));
        client.patience = list.mount.patience;
        Ok(Plan {
            config: MountConfig { client, path, mountpoint: mountpoint.into(), options: list.mount },
            log_file: list.log_file,
            resolved,
            foreground: self.foreground || (self.foreground_or_fake && !from_mount),
            fake: self.foreground_or_fake && from_mount && !self.foreground,
            option_text,
        })
    }
}

/// A host named without a port has the default one.
fn set_port(host: &mut HostPort, port: u16) {
    if host.port == DEFAULT_PORT {
        host.port = port;
    }
}

fn without_key(options: &str) -> String {
    let kept: Vec<&str> = options
        .split(',')
        .filter(|option| !option.is_empty() && !option.trim().starts_with("key="))
        .collect();
    kept.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(arguments: &[&str]) -> Result<Plan, ArgumentError> {
        let nowhere = PathBuf::from("/nonexistent/magma");
        let surroundings =
            Surroundings { key_variable: Some("k".into()), key_file: nowhere.clone(), config_file: nowhere };
        let arguments = [&["mount.magma"], arguments].concat();
        Arguments::try_parse_from(arguments).unwrap().plan(&surroundings)
    }

    #[test]
    fn the_programs_own_form_is_understood() {
        let plan =
            plan(&["--host=10.0.0.1", "--host", "gromit:13000", "--key=s3cr3t", "-f", "/mnt"]).unwrap();
        let hosts: Vec<String> = plan.config.client.hosts.iter().map(ToString::to_string).collect();
        assert_eq!(hosts, ["10.0.0.1:12000", "gromit:13000"]);
        assert_eq!(plan.config.client.key.expose(), "s3cr3t");
        assert!(plan.foreground && !plan.fake);
        assert_eq!(plan.config.path, "");
    }

    #[test]
    fn the_form_that_mount_calls_is_understood() {
        let plan = plan(&[
            "wallace:/docs",
            "/mnt",
            "-s",
            "-v",
            "-o",
            "rw,host=gromit,key=abc,soft,timeo=30,_netdev",
        ])
        .unwrap();
        let hosts: Vec<String> = plan.config.client.hosts.iter().map(ToString::to_string).collect();
        assert_eq!(hosts, ["wallace:12000", "gromit:12000"]);
        assert_eq!(plan.config.client.key.expose(), "abc");
        assert_eq!(plan.config.client.patience, Some(std::time::Duration::from_secs(3)));
        assert_eq!(plan.config.path, "docs");
        assert!(!plan.foreground);
        assert!(!plan.option_text.contains("abc"), "the key does not reach the background's command line");
    }

    #[test]
    fn mounts_dry_run_mounts_nothing() {
        assert!(plan(&["wallace:/", "/mnt", "-f"]).unwrap().fake);
        assert!(plan(&["wallace:/", "/mnt", "--foreground"]).unwrap().foreground);
    }

    #[test]
    fn the_port_applies_to_hosts_without_one() {
        let plan = plan(&["--host=a", "--host=b:13000", "--port=14000", "/mnt"]).unwrap();
        let ports: Vec<u16> = plan.config.client.hosts.iter().map(|host| host.port).collect();
        assert_eq!(ports, [14_000, 13_000]);
    }

    #[test]
    fn contradictions_are_refused() {
        assert!(matches!(plan(&["a:/x", "/mnt", "-o", "subdir=y"]), Err(ArgumentError::TwoPaths { .. })));
        assert!(matches!(plan(&["a:/x", "/mnt", "-o", "bogus"]), Err(ArgumentError::Option(_))));
        assert!(matches!(plan(&["nonsense", "/mnt"]), Err(ArgumentError::Source(_))));
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }
}
