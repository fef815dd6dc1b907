//! The command line and the `[nfs]` and `[[export]]` sections of the configuration file.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use clap::Parser;
use magma_common::client::ClientConfig;
use magma_common::options::{OptionsError, Resolved, SharedOptions};
use serde::Deserialize;

use crate::export::{Export, ExportPath, ExportSection, ParseExportError};

/// The port of NFS.
pub const NFS_PORT: u16 = 2049;
/// The port of the portmapper.
pub const PORTMAP_PORT: u16 = 111;
/// Connections served at the same time unless told otherwise.
pub const MAX_CONNECTIONS: usize = 1024;

/// MagmaFS's NFSv3 gateway: serves the files of a lava network to every NFS client.
#[derive(Clone, Debug, Parser)]
#[command(name = "magma-nfs", version)]
pub struct Options {
    /// What all front ends share.
    #[command(flatten)]
    pub shared: SharedOptions,
    /// Where to serve NFS, MOUNT and portmap; may be repeated [default: 127.0.0.1:2049].
    #[arg(long, value_name = "ADDR[:PORT]")]
    pub listen: Vec<Listen>,
    /// A directory to export, and how; may be repeated.
    #[arg(
        long = "export",
        value_name = "PATH[:OPTION,...]",
        help = "A directory to export, and how: rw, ro, root_squash, no_root_squash, all_squash, secure, insecure, \
                anonuid=N, anongid=N, client=NETWORK (may be repeated) [default: /, for this host only]"
    )]
    pub exports: Vec<Export>,
    /// Answer changes of names and attributes before they are on disk: faster, and a power cut of all copies may undo the
    /// last ones although they were answered.
    #[arg(long = "async")]
    pub asynchronous: bool,
    /// Answer portmap on port 111 as well, for clients that do not name the port; rpcbind must not run.
    #[arg(long)]
    pub portmap: bool,
    /// Connections served at the same time [default: 1024].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub max_connections: Option<u32>,
}

/// An address to listen on; port 2049 unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen(pub SocketAddr);

/// A text that is no address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no address to listen on; write 0.0.0.0, 10.0.0.1:2049 or [::]:2049")]
pub struct ParseListenError(String);

impl FromStr for Listen {
    type Err = ParseListenError;

    fn from_str(text: &str) -> Result<Self, ParseListenError> {
        let address = text.parse::<IpAddr>().map(|address| SocketAddr::new(address, NFS_PORT));
        address.or_else(|_| text.parse()).map(Self).map_err(|_| ParseListenError(text.to_owned()))
    }
}

/// The `[nfs]` section.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct NfsSection {
    listen: Vec<String>,
    #[serde(rename = "async")]
    asynchronous: bool,
    portmap: bool,
    max_connections: Option<u32>,
}

/// Everything the gateway needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// How to reach the volcanos.
    pub client: ClientConfig,
    /// Where to serve NFS, MOUNT and portmap.
    pub listen: Vec<SocketAddr>,
    /// Where to answer portmap besides.
    pub portmap: Vec<SocketAddr>,
    /// What is exported.
    pub exports: Vec<Export>,
    /// Changes of names and attributes are answered before they are on disk.
    pub asynchronous: bool,
    /// Connections served at the same time.
    pub max_connections: usize,
}

/// Why the options make no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// What all front ends share is wrong.
    #[error(transparent)]
    Shared(#[from] OptionsError),
    /// An `[[export]]` section is wrong.
    #[error("in [[export]]: {0}")]
    Export(#[from] ParseExportError),
    /// An address in `[nfs]` is wrong.
    #[error("in [nfs]: {0}")]
    Listen(#[from] ParseListenError),
}

impl Config {
    /// Serves the root to this host only, on any free port of 127.0.0.1; what tests and embedders start from.
    pub fn new(client: ClientConfig) -> Self {
        Self {
            client,
            listen: vec![SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)],
            portmap: Vec::new(),
            exports: vec![Export::new(ExportPath::root())],
            asynchronous: false,
            max_connections: MAX_CONNECTIONS,
        }
    }

    /// What options and configuration file say together; lists on the command line replace those of the file.
    pub fn from_options(options: &Options, resolved: &Resolved) -> Result<Self, ConfigError> {
        let section: NfsSection = resolved.config.section("nfs")?.unwrap_or_default();
        let sections: Vec<ExportSection> = resolved.config.section("export")?.unwrap_or_default();
        let mut config = Self::new(resolved.client_config(format!("magma-nfs {}", std::process::id())));

        let from_file = section.listen.iter().map(|text| text.parse()).collect::<Result<Vec<Listen>, _>>()?;
        let listen = if options.listen.is_empty() { from_file } else { options.listen.clone() };
        config.listen = listen.into_iter().map(|Listen(address)| address).collect();
        if config.listen.is_empty() {
            config.listen.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), NFS_PORT));
        }
        let from_file = sections.iter().map(ExportSection::parse).collect::<Result<Vec<_>, _>>()?;
        let exports = if options.exports.is_empty() { from_file } else { options.exports.clone() };
        if !exports.is_empty() {
            config.exports = exports;
        }
        if options.portmap || section.portmap {
            config.portmap = config.listen.iter().map(|at| SocketAddr::new(at.ip(), PORTMAP_PORT)).collect();
            config.portmap.dedup();
        }
        config.asynchronous = options.asynchronous || section.asynchronous;
        if let Some(limit) = options.max_connections.or(section.max_connections) {
            config.max_connections = limit.max(1) as usize;
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::path::Path;

    use magma_common::auth::Secret;
    use magma_common::options::ConfigFile;

    fn config(arguments: &[&str], file: &str) -> Result<Config, String> {
        let options =
            Options::try_parse_from([&["magma-nfs"], arguments].concat()).map_err(|e| e.to_string())?;
        let resolved = Resolved {
            hosts: Vec::new(),
            key: Secret::new("key"),
            channels: "".parse().unwrap(),
            config: ConfigFile::parse(Path::new("magma.toml"), file).map_err(|e| e.to_string())?,
            warnings: Vec::new(),
        };
        Config::from_options(&options, &resolved).map_err(|e| e.to_string())
    }

    #[test]
    fn without_options_the_root_is_served_to_this_host_only() {
        let config = config(&[], "").unwrap();
        assert_eq!(config.listen, ["127.0.0.1:2049".parse().unwrap()]);
        assert_eq!(config.exports, [Export::new("/".parse().unwrap())]);
        assert!(config.portmap.is_empty() && !config.asynchronous);
    }

    #[test]
    fn the_command_line_goes_before_the_file() {
        let file = "[nfs]\nlisten = ['10.0.0.1', '[::1]:9']\nasync = true\nmax-connections = 7\n\
                    [[export]]\npath = '/a'\nclients = ['10.0.0.0/8']\n[[export]]\npath = '/b'\noptions = ['ro']";
        let from_file = config(&[], file).unwrap();
        assert_eq!(from_file.listen, ["10.0.0.1:2049".parse().unwrap(), "[::1]:9".parse().unwrap()]);
        assert_eq!((from_file.exports.len(), from_file.max_connections), (2, 7));
        assert!(from_file.asynchronous && from_file.exports[1].read_only);

        let both = config(&["--listen", "127.0.0.9", "--export", "/c:ro", "--portmap"], file).unwrap();
        assert_eq!(both.listen, ["127.0.0.9:2049".parse().unwrap()]);
        assert_eq!(both.portmap, ["127.0.0.9:111".parse().unwrap()]);
        assert_eq!(both.exports[0].path.to_string(), "/c");
    }

    #[test]
    fn what_is_misspelt_is_refused_by_name() {
        assert!(config(&["--listen", "here"], "").unwrap_err().contains("`here` is no address"));
        assert!(config(&["--export", "/:rx"], "").unwrap_err().contains("no export option `rx`"));
        assert!(config(&[], "[nfs]\nlistn = []").unwrap_err().contains("listn"));
        assert!(config(&[], "[[export]]\npath = 'a'").unwrap_err().contains("must begin with /"));
    }
}
