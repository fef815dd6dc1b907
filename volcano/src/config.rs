//! What a volcano is told once and remembers: its names, where it listens, and the key.
//!
//! It is kept beside the data, in `config.toml` of the volcano's folder, so that a restart needs
//! nothing but the folder. Founding a network writes `bootstrap.toml` first and renames it when
//! everything else is on disk: a folder with only that file has never served anybody, and the
//! attempt can be made again. Joining writes `joining.toml`: the network may have taken the volcano
//! in before the volcano heard of it, so the next attempt goes on as the same volcano.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use magma_common::auth::Secret;
use magma_common::topology::STATUS_PORT_OFFSET;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::store::FILES;

/// The configuration of a founded network.
const CONFIG: &str = "config.toml";
/// The configuration of a network that is being founded.
const BOOTSTRAP: &str = "bootstrap.toml";
/// The configuration of a volcano that asks to be taken in.
const JOINING: &str = "joining.toml";
/// The configuration of a volcano that the network has forgotten.
const LEFT: &str = "left.toml";
/// What a folder may contain and still count as empty: a file system's own, and an attempt that ended as it began.
const IGNORED: &[&str] = &["lost+found", "bootstrap.toml.new", "joining.toml.new"];
/// The version of the file's format that is written and understood.
const FORMAT: u32 = 1;
/// Largest configuration in bytes.
const MAX_CONFIG: u64 = 64 << 10;

/// A volcano's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct VolcanoConfig {
    /// Its short name: what the console's prompt and `/.dht` show.
    pub nickname: Nickname,
    /// Its host name.
    pub servername: ServerName,
    /// Where it listens, and where others reach it.
    pub address: IpAddr,
    /// The flare protocol's port; the others follow from it.
    pub port: Port,
    /// What its link carries, in KiB/s; 0 if nobody said.
    pub bandwidth: u64,
    /// Where the console listens.
    pub console_address: IpAddr,
    /// It votes and stores nothing.
    #[serde(default)]
    pub witness: bool,
    /// The cluster key.
    #[serde(with = "secret")]
    pub key: Secret,
}

/// 1 to 64 letters, digits, `-`, `_` and `.`, the first a letter or digit: it serves as a file name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Nickname(String);

/// A host name or address: 1 to 253 letters, digits, `-`, `_`, `.` and `:`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServerName(String);

/// The first of four ports in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Port(u16);

/// A value that a volcano cannot be configured with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not a nickname.
    #[error("a nickname has 1 to 64 letters, digits, `-`, `_` and `.`, and starts with a letter or digit")]
    Nickname,
    /// Not a server name.
    #[error("a server name has 1 to 253 letters, digits, `-`, `_`, `.` and `:`")]
    ServerName,
    /// The four ports do not fit.
    #[error("the port is 1 to 65532, because three more follow it (node protocol, console, status page)")]
    Port,
}

/// Why a volcano's folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It does not exist.
    #[error("{} does not exist; found a network there with -b, join one with -r, or say with -d where the volcano's data is", .0.display())]
    Missing(PathBuf),
    /// A second process on the same folder.
    #[error("another magmad uses {} already", .0.display())]
    InUse(PathBuf),
    /// It holds a network.
    #[error("{} holds a network already; start it without -b, or choose an empty folder", .0.display())]
    HoldsNetwork(PathBuf),
    /// It holds a store, but not the configuration that belongs to it.
    #[error("{} holds a volcano's data but no {CONFIG}; put that file back (every start needs it), or choose an empty folder", .0.display())]
    Orphaned(PathBuf),
    /// It holds something else.
    #[error("{} is not empty (it has {name:?}); a volcano needs a folder of its own", path.display())]
    Foreign {
        /// Which folder.
        path: PathBuf,
        /// What is in it.
        name: String,
    },
    /// It holds nothing to start.
    #[error("{} holds no network yet; found one with -b or join one with -r", .0.display())]
    NoNetwork(PathBuf),
    /// An attempt to found a network did not end.
    #[error("the network in {} was not founded to the end; start again with -b or -r", .0.display())]
    Unfinished(PathBuf),
    /// An attempt to join a network did not end.
    #[error("the volcano in {} does not know yet that a network has taken it in; start again with -r, or choose an empty folder", .0.display())]
    Joining(PathBuf),
    /// The volcano is no member of its network any more.
    #[error("the volcano in {} has left its network, which has all that it had; join again with -r (that empties the folder first), or remove it", .0.display())]
    Left(PathBuf),
    /// The system refuses.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// What it says.
        error: std::io::Error,
    },
    /// The configuration does not parse.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Written by a later release.
    #[error("{} has format {format}, this magmad knows formats up to {FORMAT}; use the newer release that wrote it", path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
}

/// What is in a volcano's folder.
#[derive(Debug, PartialEq, Eq)]
pub enum Contents {
    /// Nothing.
    Empty,
    /// A network, with this configuration.
    Network(Box<VolcanoConfig>),
    /// A network that was being founded when the process ended. It never served anybody.
    Unfinished,
    /// A volcano that has asked to be taken in when the process ended.
    Joining,
    /// A store without its configuration.
    Orphaned,
    /// What is left of a volcano that the network has forgotten.
    Left,
    /// Something else, of this name.
    Foreign(String),
}

/// A volcano's folder, claimed for this process as long as this value lives.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    directory: File,
}

impl Folder {
    /// Claims the folder; with `create` it is made, readable by its owner alone, if it does not exist.
    pub fn claim(path: &Path, create: bool) -> Result<Self, FolderError> {
        if create {
            make(path)?;
        }
        let directory = File::open(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => FolderError::Missing(path.to_owned()),
            _ => FolderError::Io { path: path.to_owned(), error },
        })?;
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), directory }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(FolderError::InUse(path.to_owned())),
            Err(error) => Err(FolderError::Io { path: path.to_owned(), error: error.into() }),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is in it.
    pub fn contents(&self) -> Result<Contents, FolderError> {
        let config = self.path.join(CONFIG);
        match File::open(&config) {
            Ok(file) => return self.read(file).map(|config| Contents::Network(Box::new(config))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(FolderError::Io { path: config, error }),
        }
        let marks = [(BOOTSTRAP, Contents::Unfinished), (JOINING, Contents::Joining), (LEFT, Contents::Left)];
        for (name, found) in marks {
            if self.path.join(name).try_exists().map_err(|error| self.io(error))? {
                return Ok(found);
            }
        }
        let mut found = Contents::Empty;
        for entry in std::fs::read_dir(&self.path).map_err(|error| self.io(error))? {
            let name = entry.map_err(|error| self.io(error))?.file_name().to_string_lossy().into_owned();
            if FILES.contains(&name.as_str()) {
                found = Contents::Orphaned;
            } else if found == Contents::Empty && !IGNORED.contains(&name.as_str()) {
                found = Contents::Foreign(name);
            }
        }
        Ok(found)
    }

    fn read(&self, file: File) -> Result<VolcanoConfig, FolderError> {
        let path = self.path.join(CONFIG);
        let mut text = zeroize::Zeroizing::new(String::new());
        file.take(MAX_CONFIG)
            .read_to_string(&mut text)
            .map_err(|error| FolderError::Io { path: path.clone(), error })?;
        VolcanoConfig::parse(&text).map_err(|error| match error {
            ParseError::Newer(format) => FolderError::Newer { path, format },
            ParseError::Damaged(reason) => FolderError::Damaged { path, reason },
        })
    }

    /// The configuration of the network that the folder holds.
    pub fn network(&self) -> Result<VolcanoConfig, FolderError> {
        let path = self.path.clone();
        match self.contents()? {
            Contents::Network(config) => Ok(*config),
            Contents::Unfinished => Err(FolderError::Unfinished(path)),
            Contents::Joining => Err(FolderError::Joining(path)),
            Contents::Orphaned => Err(FolderError::Orphaned(path)),
            Contents::Left => Err(FolderError::Left(path)),
            Contents::Empty | Contents::Foreign(_) => Err(FolderError::NoNetwork(path)),
        }
    }

    /// Whether a network can be founded here or, with `join`, joined; `true` if the folder has to be cleared first.
    pub fn check_free(&self, join: bool) -> Result<bool, FolderError> {
        let path = self.path.clone();
        match self.contents()? {
            Contents::Empty => Ok(false),
            Contents::Unfinished => Ok(true),
            Contents::Joining if join => Ok(false),
            Contents::Joining => Err(FolderError::Joining(path)),
            // The network has all that is here, and who says -r was told that the folder is emptied.
            Contents::Left if join => Ok(true),
            Contents::Left => Err(FolderError::Left(path)),
            Contents::Network(_) => Err(FolderError::HoldsNetwork(path)),
            Contents::Orphaned => Err(FolderError::Orphaned(path)),
            Contents::Foreign(name) => Err(FolderError::Foreign { path, name }),
        }
    }

    /// Before the store is made: removes what an unfinished founding, or with `join` a volcano that has left, left behind, and
    /// notes that this is an attempt. A joining that was not finished is gone on with.
    pub fn begin_bootstrap(&self, config: &VolcanoConfig, join: bool) -> Result<(), FolderError> {
        // Only a folder that says of itself that nobody depends on it is cleared.
        if self.check_free(join)? {
            for name in FILES {
                let path = self.path.join(name);
                let gone = match std::fs::symlink_metadata(&path) {
                    Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(&path),
                    Ok(_) => std::fs::remove_file(&path),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                    Err(error) => Err(error),
                };
                gone.map_err(|error| FolderError::Io { path, error })?;
            }
        }
        if !join {
            return self.write(BOOTSTRAP, config);
        }
        self.write(JOINING, config)?;
        self.remove(BOOTSTRAP)?;
        self.directory.sync_all().map_err(|error| self.io(error))
    }

    /// After the store is on disk, or with `join` once it says that the network has taken the volcano in: from now on the
    /// folder holds a network.
    pub fn finish_bootstrap(&self, join: bool) -> Result<(), FolderError> {
        let attempt = if join { JOINING } else { BOOTSTRAP };
        std::fs::rename(self.path.join(attempt), self.path.join(CONFIG)).map_err(|error| self.io(error))?;
        self.remove(LEFT)?;
        self.directory.sync_all().map_err(|error| self.io(error))
    }

    /// The network has forgotten this volcano: the folder cannot be started any more as what it was.
    pub fn retire(&self) -> Result<(), FolderError> {
        std::fs::rename(self.path.join(CONFIG), self.path.join(LEFT)).map_err(|error| self.io(error))?;
        self.directory.sync_all().map_err(|error| self.io(error))
    }

    /// Replaces the configuration of the network, durably and at once.
    pub fn save(&self, config: &VolcanoConfig) -> Result<(), FolderError> {
        self.write(CONFIG, config)
    }

    fn write(&self, name: &str, config: &VolcanoConfig) -> Result<(), FolderError> {
        let path = self.path.join(format!("{name}.new"));
        let at = |error| FolderError::Io { path: path.clone(), error };
        let text = config.to_text().map_err(|reason| FolderError::Damaged { path: path.clone(), reason })?;
        self.remove(&format!("{name}.new"))?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(at)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(at)?;
        std::fs::rename(&path, self.path.join(name)).map_err(at)?;
        self.directory.sync_all().map_err(at)
    }

    /// Removes a file of that name, if there is one.
    fn remove(&self, name: &str) -> Result<(), FolderError> {
        let path = self.path.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(FolderError::Io { path, error })
            }
            _ => Ok(()),
        }
    }

    fn io(&self, error: std::io::Error) -> FolderError {
        FolderError::Io { path: self.path.clone(), error }
    }
}

/// Makes the folder and those above it, each durably in its parent.
fn make(path: &Path) -> Result<(), FolderError> {
    let missing: Vec<&Path> =
        path.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    for path in missing.into_iter().rev() {
        let at = |error| FolderError::Io { path: path.to_owned(), error };
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(at(error)),
            _ => {}
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(at)?;
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum ParseError {
    Newer(u32),
    Damaged(String),
}

impl VolcanoConfig {
    fn parse(text: &str) -> Result<Self, ParseError> {
        let damaged = |error: toml::de::Error| ParseError::Damaged(error.message().to_owned());
        let mut table: toml::Table = toml::from_str(text).map_err(damaged)?;
        let format = table.remove("format").and_then(|format| format.as_integer());
        let format = format.and_then(|format| u32::try_from(format).ok());
        match format {
            Some(FORMAT) => table.try_into().map_err(damaged),
            Some(newer) if newer > FORMAT => Err(ParseError::Newer(newer)),
            _ => Err(ParseError::Damaged("it has no valid `format`".to_owned())),
        }
    }

    fn to_text(&self) -> Result<zeroize::Zeroizing<String>, String> {
        let body = zeroize::Zeroizing::new(toml::to_string(self).map_err(|error| error.to_string())?);
        Ok(zeroize::Zeroizing::new(format!(
            "# Written by magmad; options given at a start change it. It holds the network's key.\nformat = {FORMAT}\n{}",
            *body
        )))
    }
}

/// Entry point for fuzzing: any bytes as the configuration of a volcano.
///
/// # Panics
///
/// If a configuration that was understood is not read back as it was written.
pub fn fuzz_config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(config) = VolcanoConfig::parse(&text) {
        let written = config.to_text().map(|text| VolcanoConfig::parse(&text));
        assert!(written == Ok(Ok(config)), "what is written reads back as it was");
    }
}

mod secret {
    use magma_common::auth::Secret;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(key: &Secret, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(key.expose())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
        let key = Secret::new(&zeroize::Zeroizing::new(String::deserialize(from)?));
        if key.expose().is_empty() { Err(serde::de::Error::custom("the key is empty")) } else { Ok(key) }
    }
}

fn host_bytes(text: &str, longest: usize, also: &[u8]) -> bool {
    (1..=longest).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b) || also.contains(&b))
}

impl FromStr for Nickname {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let starts_well = text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
        if starts_well && host_bytes(text, 64, b"") {
            Ok(Self(text.to_owned()))
        } else {
            Err(ValueError::Nickname)
        }
    }
}

impl FromStr for ServerName {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if host_bytes(text, 253, b":") { Ok(Self(text.to_owned())) } else { Err(ValueError::ServerName) }
    }
}

impl FromStr for Port {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        text.parse::<u16>().map_err(|_| ValueError::Port)?.try_into()
    }
}

impl TryFrom<String> for Nickname {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        text.parse()
    }
}

impl TryFrom<String> for ServerName {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        text.parse()
    }
}

impl TryFrom<u16> for Port {
    type Error = ValueError;

    fn try_from(port: u16) -> Result<Self, ValueError> {
        if (1..=u16::MAX - STATUS_PORT_OFFSET).contains(&port) {
            Ok(Self(port))
        } else {
            Err(ValueError::Port)
        }
    }
}

impl From<Nickname> for String {
    fn from(name: Nickname) -> Self {
        name.0
    }
}

impl From<ServerName> for String {
    fn from(name: ServerName) -> Self {
        name.0
    }
}

impl From<Port> for u16 {
    fn from(port: Port) -> Self {
        port.0
    }
}

impl fmt::Display for Nickname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests;
