//! The command line and the `[9p]` section of the configuration file. The command line goes first.

use clap::Parser;
use magma_common::client::ClientConfig;
use magma_common::options::{OptionsError, Resolved, SharedOptions};
use serde::Deserialize;

use crate::allow::{Network, ParseNetworkError};
use crate::export::{Export, Groups, Squash, Tree};
use crate::limits::Limits;
use crate::listen::{Address, DEFAULT_PORT, ParseAddressError};

/// MagmaFS's 9P2000.L gateway: serves the files of a lava network to virtual machines and containers.
#[derive(Clone, Debug, Parser)]
#[command(name = "magma-9p", version)]
pub struct Options {
    /// What all front ends share.
    #[command(flatten)]
    pub shared: SharedOptions,
    /// Where to listen; may be repeated [default: 127.0.0.1:564].
    #[arg(long, value_name = "ADDR:PORT|unix:PATH|vsock:PORT")]
    pub listen: Vec<Address>,
    /// Let these addresses connect over TCP, besides this machine; may be repeated.
    #[arg(long, value_name = "ADDR[/BITS]")]
    pub allow: Vec<Network>,
    /// Let clients attach to this directory and what is below it only; may be repeated [default: everything].
    #[arg(long = "tree", value_name = "PATH")]
    pub trees: Vec<Tree>,
    /// Let nobody change anything.
    #[arg(long)]
    pub read_only: bool,
    /// Do root's requests as the anonymous user's.
    #[arg(long, conflicts_with = "squash_all")]
    pub squash_root: bool,
    /// Do everybody's requests as the anonymous user's.
    #[arg(long)]
    pub squash_all: bool,
    /// The anonymous user [default: 65534].
    #[arg(long, value_name = "UID")]
    pub anonymous_uid: Option<u32>,
    /// The anonymous user's group [default: 65534].
    #[arg(long, value_name = "GID")]
    pub anonymous_gid: Option<u32>,
    /// Whose word counts for the groups of a user [default: client].
    #[arg(long, value_enum)]
    pub groups: Option<Groups>,
    /// Answer every change when it is on disk, not only what is fsynced.
    #[arg(long)]
    pub sync: bool,
    /// Connections served at the same time [default: 1024].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub max_connections: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Section {
    listen: Vec<String>,
    allow: Vec<String>,
    trees: Vec<String>,
    read_only: bool,
    squash: SectionSquash,
    anonymous_uid: Option<u32>,
    anonymous_gid: Option<u32>,
    groups: SectionGroups,
    sync: bool,
    max_connections: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum SectionSquash {
    #[default]
    Nobody,
    Root,
    All,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum SectionGroups {
    #[default]
    Client,
    Host,
}

/// Everything the gateway needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// How to reach the volcanos.
    pub client: ClientConfig,
    /// Where to listen.
    pub listen: Vec<Address>,
    /// Who may connect over TCP, besides this machine.
    pub allow: Vec<Network>,
    /// What clients may do.
    pub export: Export,
    /// How much they may take.
    pub limits: Limits,
}

/// Why the options make no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// What all front ends share is wrong.
    #[error(transparent)]
    Shared(#[from] OptionsError),
    /// A place to listen at is wrong.
    #[error("in [9p]: {0}")]
    Address(#[from] ParseAddressError),
    /// A network is wrong.
    #[error("in [9p]: {0}")]
    Network(#[from] ParseNetworkError),
    /// A tree is wrong.
    #[error("in [9p]: {0}")]
    Tree(String),
}

impl Config {
    /// Serves everything to this machine, on any free port of 127.0.0.1; what tests and embedders start from.
    pub fn new(client: ClientConfig) -> Self {
        Self {
            client,
            listen: vec![Address::Tcp(([127, 0, 0, 1], 0).into())],
            allow: Vec::new(),
            export: Export::default(),
            limits: Limits::default(),
        }
    }

    /// What options and configuration file say together; lists on the command line replace those of the file.
    pub fn from_options(options: &Options, resolved: &Resolved) -> Result<Self, ConfigError> {
        let section: Section = resolved.config.section("9p")?.unwrap_or_default();
        let mut config = Self::new(resolved.client_config(format!("magma-9p {}", std::process::id())));
        config.listen = either(&options.listen, &section.listen)?;
        if config.listen.is_empty() {
            config.listen.push(Address::Tcp(([127, 0, 0, 1], DEFAULT_PORT).into()));
        }
        config.allow = either(&options.allow, &section.allow)?;
        let export = &mut config.export;
        export.trees = either(&options.trees, &section.trees).map_err(ConfigError::Tree)?;
        export.read_only = options.read_only || section.read_only;
        export.squash = match (options.squash_all, options.squash_root, section.squash) {
            (true, ..) | (false, false, SectionSquash::All) => Squash::All,
            (_, true, _) | (_, _, SectionSquash::Root) => Squash::Root,
            (false, false, SectionSquash::Nobody) => Squash::Nobody,
        };
        let anonymous = (
            options.anonymous_uid.or(section.anonymous_uid),
            options.anonymous_gid.or(section.anonymous_gid),
        );
        export.anonymous_uid = anonymous.0.unwrap_or(export.anonymous_uid);
        export.anonymous_gid = anonymous.1.unwrap_or(export.anonymous_gid);
        export.groups = options.groups.unwrap_or(match section.groups {
            SectionGroups::Client => Groups::Client,
            SectionGroups::Host => Groups::Host,
        });
        export.sync = options.sync || section.sync;
        if let Some(limit) = options.max_connections.or(section.max_connections) {
            config.limits.connections = limit.max(1) as usize;
        }
        Ok(config)
    }
}

fn either<T: Clone + std::str::FromStr>(options: &[T], section: &[String]) -> Result<Vec<T>, T::Err> {
    if options.is_empty() { section.iter().map(|text| text.parse()).collect() } else { Ok(options.to_vec()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::path::Path;

    use magma_common::auth::Secret;
    use magma_common::options::ConfigFile;

    fn config(arguments: &[&str], file: &str) -> Result<Config, String> {
        let options = Options::try_parse_from([&["magma-9p"], arguments].concat())
            .map_err(|error| error.to_string())?;
        let resolved = Resolved {
            hosts: Vec::new(),
            key: Secret::new("key"),
            channels: "".parse().unwrap(),
            config: ConfigFile::parse(Path::new("magma.toml"), file).map_err(|error| error.to_string())?,
            warnings: Vec::new(),
        };
        Config::from_options(&options, &resolved).map_err(|error| error.to_string())
    }

    #[test]
    fn without_options_everything_is_served_to_this_machine_only() {
        let config = config(&[], "").unwrap();
        assert_eq!(config.listen, ["127.0.0.1:564".parse().unwrap()]);
        assert!(config.allow.is_empty() && config.export.trees.is_empty() && !config.export.read_only);
        assert_eq!(config.export.squash, Squash::Nobody);
    }

    #[test]
    fn the_command_line_goes_before_the_file() {
        let file = "[9p]\nlisten = ['unix:/run/9p', 'vsock:564']\nallow = ['10.0.0.0/8']\ntrees = ['/vm']\n\
                    squash = 'root'\ngroups = 'host'\nanonymous-uid = 99\nread-only = true\nmax-connections = 7";
        let from_file = config(&[], file).unwrap();
        assert_eq!((from_file.listen.len(), from_file.allow.len(), from_file.limits.connections), (2, 1, 7));
        let export = from_file.export;
        assert_eq!((export.squash, export.groups, export.anonymous_uid), (Squash::Root, Groups::Host, 99));
        assert!(export.read_only && !export.sync);

        let both =
            config(&["--listen", ":5640", "--squash-all", "--groups", "client", "--sync"], file).unwrap();
        assert_eq!(both.listen, ["127.0.0.1:5640".parse().unwrap()]);
        assert_eq!((both.export.squash, both.export.groups), (Squash::All, Groups::Client));
        assert!(both.export.sync);
    }

    #[test]
    fn what_is_misspelt_is_refused_by_name() {
        assert!(config(&["--listen", "here"], "").unwrap_err().contains("`here` is no place to listen at"));
        assert!(config(&["--tree", "/a/../b"], "").unwrap_err().contains("is no path of a tree"));
        assert!(config(&["--allow", "x"], "").unwrap_err().contains("a network is ADDRESS"));
        assert!(config(&["--squash-all", "--squash-root"], "").is_err());
        assert!(config(&[], "[9p]\nlistn = []").unwrap_err().contains("listn"));
        assert!(config(&[], "[9p]\nlisten = ['here']").unwrap_err().contains("in [9p]: `here`"));
    }
}
