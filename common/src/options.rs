//! What all programs are told in the same way: which volcanos to contact, with which key, which
//! configuration file, and what to log.
//!
//! A value on the command line goes before the environment, the environment before the
//! configuration file, and that before the built-in places.

use std::fmt;
use std::io::Read;
use std::net::Ipv6Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::auth::Secret;
use crate::client::{ClientConfig, HostPort};
use crate::logging::{Channels, Logging, LoggingError};
use crate::topology::DEFAULT_PORT;

/// Where a key is looked for when nothing names one.
pub const DEFAULT_KEY_FILE: &str = "/etc/magma/key";
/// The configuration file that is read if it exists and no other is named.
pub const DEFAULT_CONFIG_FILE: &str = "/etc/magma/magma.toml";
/// The environment variable that may hold the key.
pub const KEY_VARIABLE: &str = "MAGMA_KEY";
/// Largest key file in bytes.
const MAX_KEY_FILE: u64 = 4096;
/// Largest configuration file in bytes.
const MAX_CONFIG_FILE: u64 = 1 << 20;
/// Tables of the configuration file that belong to one program each. Others are taken for misspellings.
const SECTIONS: &[&str] = &["volcano", "nfs", "export", "9p", "mount"];

/// Where the cluster key, or the client key, comes from.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct KeyOptions {
    /// The cluster key or a client key. Others on this machine can read it in the list of processes: prefer --key-file.
    #[arg(short = 'k', long, value_name = "KEY", value_parser = parse_key, conflicts_with = "key_file")]
    pub key: Option<Secret>,
    /// File with the key; without it, `MAGMA_KEY`, the configuration file and /etc/magma/key are tried.
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
}

/// The options that the gateways and the mount share; flatten it into theirs.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct SharedOptions {
    /// A volcano to contact; several stand with commas between them, or the option is repeated [default: 127.0.0.1:12000].
    #[arg(long = "host", value_name = "ADDR[:PORT]", value_delimiter = ',')]
    pub hosts: Vec<HostPort>,
    /// The key.
    #[command(flatten)]
    pub key: KeyOptions,
    /// Configuration file (TOML) [default: /etc/magma/magma.toml, if it exists].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Debug channels, by letter: b boot, B balancer, c cache, d directory, f flare, F flare protocol, g garbage, N NFS,
    /// n network, r routing, s SQL, V node protocol, v volcano, 9 9P, m mount.
    #[arg(short = 'D', long = "debug", value_name = "LETTERS")]
    pub debug: Option<Channels>,
}

/// What the options, the environment and the files say together.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// Volcanos to contact; at least one.
    pub hosts: Vec<HostPort>,
    /// The key.
    pub key: Secret,
    /// Debug channels.
    pub channels: Channels,
    /// The configuration file, for the program's own section.
    pub config: ConfigFile,
    /// What the operator should be told once logging runs.
    pub warnings: Vec<String>,
}

/// Why the options do not suffice.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// No key anywhere.
    #[error("no key: give --key-file FILE, or set MAGMA_KEY, or write it to {DEFAULT_KEY_FILE}")]
    NoKey,
    /// A key source holds nothing.
    #[error("the key in {source_name} is empty")]
    EmptyKey {
        /// Which source.
        source_name: String,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {reason}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The configuration file says something we do not understand.
    #[error("{}: {reason}", path.display())]
    Config {
        /// Which file.
        path: PathBuf,
        /// What, and where.
        reason: String,
    },
    /// Logging cannot be set up.
    #[error(transparent)]
    Logging(#[from] LoggingError),
}

impl SharedOptions {
    /// Resolves the options, starts logging, and logs what the operator should be warned of.
    pub fn start(&self) -> Result<(Resolved, Logging), OptionsError> {
        let resolved = self.resolve(&Surroundings::of_this_process())?;
        let logging = Logging::start(resolved.channels)?;
        for warning in &resolved.warnings {
            tracing::warn!("{warning}");
        }
        Ok((resolved, logging))
    }

    /// Resolves the options without touching anything.
    pub fn resolve(&self, surroundings: &Surroundings) -> Result<Resolved, OptionsError> {
        let config = ConfigFile::load(self.config.as_deref(), &surroundings.config_file)?;
        let mut warnings = Vec::new();
        let key = self.key.resolve(&config, surroundings, &mut warnings)?.ok_or(OptionsError::NoKey)?;
        let mut hosts = if self.hosts.is_empty() { config.shared.hosts.clone() } else { self.hosts.clone() };
        if hosts.is_empty() {
            hosts.push(HostPort { host: "127.0.0.1".to_owned(), port: DEFAULT_PORT });
        }
        let channels = self.debug.unwrap_or(config.shared.debug);
        Ok(Resolved { hosts, key, channels, config, warnings })
    }
}

impl Resolved {
    /// What the client library starts with. `name` says who we are, for people.
    pub fn client_config(&self, name: impl Into<String>) -> ClientConfig {
        ClientConfig { hosts: self.hosts.clone(), key: self.key.clone(), name: name.into(), patience: None }
    }
}

impl KeyOptions {
    /// The key, from the first of: `--key`, `--key-file`, `MAGMA_KEY`, the configuration file, /etc/magma/key.
    pub fn resolve(
        &self,
        config: &ConfigFile,
        surroundings: &Surroundings,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Secret>, OptionsError> {
        if let Some(key) = &self.key {
            warnings.push("the key stands on the command line, where every user of this machine can read it; prefer --key-file".to_owned());
            return Ok(Some(key.clone()));
        }
        if let Some(path) = &self.key_file {
            return read_key_file(path, warnings).map(Some);
        }
        if let Some(text) = &surroundings.key_variable {
            return checked_key(text, KEY_VARIABLE).map(Some);
        }
        if let Some(key) = &config.shared.key {
            let path = config.path.clone().unwrap_or_default();
            warn_if_public(&path, warnings);
            return checked_key(key.expose(), &path.display().to_string()).map(Some);
        }
        if let Some(path) = &config.shared.key_file {
            return read_key_file(path, warnings).map(Some);
        }
        match surroundings.key_file.try_exists() {
            Ok(false) => Ok(None),
            Ok(true) | Err(_) => read_key_file(&surroundings.key_file, warnings).map(Some),
        }
    }
}

/// What options are resolved against besides the command line.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The value of `MAGMA_KEY`, if it is set.
    pub key_variable: Option<String>,
    /// Stands for /etc/magma/key.
    pub key_file: PathBuf,
    /// Stands for /etc/magma/magma.toml.
    pub config_file: PathBuf,
}

impl Surroundings {
    /// The real ones.
    pub fn of_this_process() -> Self {
        Self {
            key_variable: std::env::var(KEY_VARIABLE).ok(),
            key_file: DEFAULT_KEY_FILE.into(),
            config_file: DEFAULT_CONFIG_FILE.into(),
        }
    }
}

/// A configuration file, or none.
#[derive(Clone, Debug, Default)]
pub struct ConfigFile {
    path: Option<PathBuf>,
    shared: SharedConfig,
    table: toml::Table,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
struct SharedConfig {
    #[serde(deserialize_with = "from_strings")]
    hosts: Vec<HostPort>,
    #[serde(deserialize_with = "secret")]
    key: Option<Secret>,
    key_file: Option<PathBuf>,
    #[serde(deserialize_with = "from_string")]
    debug: Channels,
}

impl ConfigFile {
    /// Reads the file that was named, or else the default one if it exists.
    pub fn load(named: Option<&Path>, default: &Path) -> Result<Self, OptionsError> {
        let path = match named {
            Some(path) => path,
            None if !default.try_exists().unwrap_or(true) => return Ok(Self::default()),
            None => default,
        };
        Self::parse(path, &read_limited(path, MAX_CONFIG_FILE)?)
    }

    /// Takes the text of the file at `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Self, OptionsError> {
        let wrong = |reason: String| OptionsError::Config { path: path.to_owned(), reason };
        let table: toml::Table = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        let (sections, shared): (toml::Table, toml::Table) =
            table.into_iter().partition(|(name, _)| SECTIONS.contains(&name.as_str()));
        if let Some((name, _)) = shared.iter().find(|(_, value)| value.is_table()) {
            return Err(wrong(format!(
                "there is no section [{name}]; the sections are {}",
                SECTIONS.join(", ")
            )));
        }
        let shared: SharedConfig = shared.try_into().map_err(|error| wrong(error.to_string()))?;
        if shared.key.is_some() && shared.key_file.is_some() {
            return Err(wrong("give key or key-file, not both".to_owned()));
        }
        Ok(Self { path: Some(path.to_owned()), shared, table: sections })
    }

    /// A program's own section, its keys checked against `T`; `None` if the file has no such section.
    ///
    /// `T` should deny unknown fields, so that a misspelt key is an error that names it.
    pub fn section<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, OptionsError> {
        debug_assert!(SECTIONS.contains(&name), "a section nobody can write: {name}");
        let Some(value) = self.table.get(name) else { return Ok(None) };
        value.clone().try_into().map(Some).map_err(|error| OptionsError::Config {
            path: self.path.clone().unwrap_or_default(),
            reason: format!("in [{name}]: {error}"),
        })
    }

    /// Where it was read from.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The debug channels it names.
    pub fn channels(&self) -> Channels {
        self.shared.debug
    }
}

fn from_string<'de, T: FromStr<Err: fmt::Display>, D: serde::Deserializer<'de>>(
    from: D,
) -> Result<T, D::Error> {
    String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
}

fn from_strings<'de, T: FromStr<Err: fmt::Display>, D: serde::Deserializer<'de>>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    texts.iter().map(|text| text.parse().map_err(serde::de::Error::custom)).collect()
}

fn secret<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Secret>, D::Error> {
    String::deserialize(from).map(|text| Some(Secret::new(&text)))
}

fn read_limited(path: &Path, limit: u64) -> Result<String, OptionsError> {
    let unreadable = |reason: String| OptionsError::Unreadable { path: path.to_owned(), reason };
    let file = std::fs::File::open(path).map_err(|error| unreadable(error.to_string()))?;
    let mut text = String::new();
    file.take(limit + 1).read_to_string(&mut text).map_err(|error| unreadable(error.to_string()))?;
    if text.len() as u64 > limit {
        return Err(unreadable(format!("it has more than {limit} bytes")));
    }
    Ok(text)
}

/// Reads a key from a file, and warns if others can read it too.
pub fn read_key_file(path: &Path, warnings: &mut Vec<String>) -> Result<Secret, OptionsError> {
    let text = zeroize::Zeroizing::new(read_limited(path, MAX_KEY_FILE)?);
    warn_if_public(path, warnings);
    checked_key(&text, &path.display().to_string())
}

fn warn_if_public(path: &Path, warnings: &mut Vec<String>) {
    let public = std::fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o006 != 0);
    if public {
        let path = path.display();
        warnings.push(format!(
            "{path} holds a key and every user of this machine can read it; do `chmod o-rw {path}`"
        ));
    }
}

fn checked_key(text: &str, source_name: &str) -> Result<Secret, OptionsError> {
    if text.trim().is_empty() {
        return Err(OptionsError::EmptyKey { source_name: source_name.to_owned() });
    }
    Ok(Secret::new(text))
}

fn parse_key(text: &str) -> Result<Secret, String> {
    checked_key(text, "--key").map_err(|error| error.to_string())
}

/// Why a text names no host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseHostError {
    /// Nothing before the port.
    #[error("a host is a name or an address, with `:PORT` after it if it is not {DEFAULT_PORT}")]
    NoHost,
    /// Bytes that no name or address has.
    #[error(
        "a host name has letters, digits, `-`, `_` and `.`; an IPv6 address with a port stands in brackets: [::1]:{DEFAULT_PORT}"
    )]
    BadHost,
    /// Not a port.
    #[error("a port is a number from 1 to 65535")]
    BadPort,
}

impl FromStr for HostPort {
    type Err = ParseHostError;

    fn from_str(text: &str) -> Result<Self, ParseHostError> {
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, after) = rest.split_once(']').ok_or(ParseHostError::BadHost)?;
            let address = host.split_once('%').map_or(host, |(address, _scope)| address);
            address.parse::<Ipv6Addr>().map_err(|_| ParseHostError::BadHost)?;
            match after {
                "" => (host, None),
                _ => (host, Some(after.strip_prefix(':').ok_or(ParseHostError::BadPort)?)),
            }
        } else if text.parse::<Ipv6Addr>().is_ok() {
            (text, None)
        } else {
            let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
            let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
            if !host.bytes().all(fits) || host.len() > 253 || port.is_some_and(|port| port.contains(':')) {
                return Err(ParseHostError::BadHost);
            }
            (host, port)
        };
        if host.is_empty() {
            return Err(ParseHostError::NoHost);
        }
        let port = match port {
            None => DEFAULT_PORT,
            // `u16::from_str` takes a plus sign; a port has none.
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().ok().filter(|&port| port != 0).ok_or(ParseHostError::BadPort)?
            }
            Some(_) => return Err(ParseHostError::BadPort),
        };
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests;
