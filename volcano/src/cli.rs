//! `magmad`'s command line: what it is told, and what that means for the folder it is told it about.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use magma_common::auth::{KeyError, Secret};
use magma_common::client::HostPort;
use magma_common::logging::Channels;
use magma_common::options::{ConfigFile, KeyOptions, OptionsError, Surroundings};
use magma_common::stripes::StripeUnit;
use magma_common::topology::{DEFAULT_PORT, MAX_SLICES};
use serde::Deserialize;

use crate::config::{Contents, Folder, FolderError, Nickname, Port, ServerName, ValueError, VolcanoConfig};

/// A volcano of a lava network: it stores flares and serves them to gateways and mounts.
///
/// Found a network:    magmad -b -n wallace -i 10.0.0.1 -d /srv/magma
/// Join it:            magmad -r 10.0.0.1 -n gromit -i 10.0.0.2 -d /srv/magma --key-file key
/// Join as a witness:  magmad --witness -r 10.0.0.1 -n shaun -i 10.0.0.3 -d /srv/magma --key-file key
/// Start again:        magmad -d /srv/magma
#[derive(Clone, Debug, Default, clap::Parser)]
#[command(name = "magmad", version, verbatim_doc_comment)]
pub struct Cli {
    /// Short name of this volcano [default when new: the host's name].
    #[arg(short, long, value_name = "NAME")]
    pub nickname: Option<Nickname>,
    /// Host name of this volcano [default when new: the host's name].
    #[arg(short, long, value_name = "NAME")]
    pub servername: Option<ServerName>,
    /// The cluster key.
    #[command(flatten)]
    pub key: KeyOptions,
    /// Address to listen on, as others reach it [default when new: 127.0.0.1].
    #[arg(short = 'i', long, value_name = "ADDR")]
    pub address: Option<IpAddr>,
    /// UDP port of the flare protocol; the node protocol, the console and the status page follow at +1, +2 and +3
    /// [default when new: 12000].
    #[arg(short, long, value_name = "PORT")]
    pub port: Option<Port>,
    /// Folder for the volcano's data and configuration.
    #[arg(short, long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
    /// Found a new network in an empty folder. Without --key, a key is made and shown.
    #[arg(short, long)]
    pub bootstrap: bool,
    /// Cut the keyspace of a new network into so many slices, which can be served by different volcanos.
    #[arg(long, value_name = "COUNT", default_value_t = 1, requires = "bootstrap",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_SLICES)))]
    pub slices: u32,
    /// Spread files of a new network over the ring beyond their first UNIT bytes (64K to 64G, a power of two); `lava stripes` changes
    /// it later.
    #[arg(long, value_name = "UNIT", requires = "bootstrap")]
    pub stripes: Option<StripeUnit>,
    /// Join the network of the volcano there, with an empty folder. (A folder that has joined finds its network by itself.)
    #[arg(short = 'r', long, value_name = "HOST[:PORT]")]
    pub join: Option<HostPort>,
    /// Only vote on who serves what, and store nothing. To be given when joining.
    #[arg(long, requires = "join")]
    pub witness: bool,
    /// What this volcano's link carries, in KiB/s; 0 if unknown.
    #[arg(short = 'w', long, value_name = "KIB/S")]
    pub bandwidth: Option<u64>,
    /// Address of the console [default when new: --address if that is a loopback address, else 127.0.0.1].
    /// On any other address the console asks for the key.
    #[arg(short = 'A', long, value_name = "ADDR")]
    pub console_address: Option<IpAddr>,
    /// Debug channels, by letter: b boot, B balancer, c cache, d directory, f flare, F flare protocol, g garbage, N NFS,
    /// n network, r routing, s SQL, V node protocol, v volcano.
    #[arg(short = 'D', long = "debug", value_name = "LETTERS")]
    pub debug: Option<Channels>,
    /// Configuration file (TOML), with a section [volcano] [default: /etc/magma/magma.toml, if it exists].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Accept a key that can be guessed, without a warning.
    #[arg(long)]
    pub weak_key: bool,
}

/// The section `[volcano]` of the configuration file. The command line goes before it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
struct Section {
    nickname: Option<Nickname>,
    servername: Option<ServerName>,
    address: Option<IpAddr>,
    port: Option<Port>,
    directory: Option<PathBuf>,
    bandwidth: Option<u64>,
    console_address: Option<IpAddr>,
}

/// Why `magmad` does not start.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// `-b` and `-r`.
    #[error("-b founds a new network and -r joins an existing one: give only one of them")]
    BootstrapAndJoin,
    /// `-r` without the network's key.
    #[error(
        "-r {0}: the key of the network is needed to join it; give it with --key-file FILE, MAGMA_KEY or /etc/magma/key"
    )]
    NoKey(HostPort),
    /// Nobody could reach the new volcano.
    #[error("-r {0}: say with -i ADDR under which address of this machine the other volcanos reach it")]
    NoAddress(HostPort),
    /// What stores cannot turn into a witness.
    #[error("the volcano in {directory} stores, and cannot become a witness; join one with an empty folder")]
    Stores {
        /// The folder.
        directory: String,
    },
    /// Nothing names a folder.
    #[error("say with -d DIR where this volcano keeps its data")]
    NoDirectory,
    /// An address that nobody could connect to.
    #[error(
        "-i {0}: give one address of this machine, not all of them, because clients and other volcanos are told it"
    )]
    Unspecified(IpAddr),
    /// The folder belongs to a volcano of another name.
    #[error(
        "the volcano in {directory} is called {found}, not {given}; leave -n out, or choose its folder with -d"
    )]
    OtherNickname {
        /// The folder.
        directory: String,
        /// Who lives there.
        found: Nickname,
        /// Who was meant.
        given: Nickname,
    },
    /// The network has another key.
    #[error("the key given is not the key of the network in {directory}; leave it out: the folder has it")]
    OtherKey {
        /// The folder.
        directory: String,
    },
    /// A client key where the cluster key is needed.
    #[error(
        "this is a client key; a volcano needs the cluster key that it was derived from (or none: -b makes one)"
    )]
    ClientKey,
    /// No key could be made.
    #[error("no key could be made: {0}")]
    Key(#[from] KeyError),
    /// The host's name is no nickname.
    #[error("the host's name {host:?} does not serve as a name: {error}; choose one with {option}")]
    HostName {
        /// The host's name.
        host: String,
        /// What is wrong with it.
        error: ValueError,
        /// What would choose another.
        option: &'static str,
    },
    /// Key or configuration file.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The volcano's folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

/// What a volcano does with its folder when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// It founds a network of so many slices.
    Found {
        /// At least one.
        slices: u32,
        /// How its files are striped.
        stripes: Option<StripeUnit>,
    },
    /// It joins the network of the volcano there.
    Join(HostPort),
    /// It goes on as part of the network that the folder knows.
    Resume,
}

/// How `magmad` starts: what [`Cli::launch`] makes of the command line.
///
/// Call [`begin`](Self::begin) before the store is opened, and [`commit`](Self::commit) when it is on disk and all
/// sockets are bound. A start that fails in between leaves the folder as it was, or to be founded again.
#[derive(Debug)]
pub struct Launch {
    /// The folder, claimed while this lives.
    pub folder: Folder,
    /// The configuration, options given now included.
    pub config: VolcanoConfig,
    /// What the volcano does with its folder.
    pub beginning: Beginning,
    /// The key was made here, and the operator has to be shown it.
    pub generated_key: bool,
    /// Debug channels.
    pub channels: Channels,
    /// What the operator should be told once logging runs.
    pub warnings: Vec<String>,
    stored: Option<VolcanoConfig>,
}

impl Launch {
    /// Notes in the folder that a network is being founded, if one is.
    pub fn begin(&self) -> Result<(), FolderError> {
        match self.beginning {
            Beginning::Found { .. } => self.folder.begin_bootstrap(&self.config, false),
            Beginning::Join(_) => self.folder.begin_bootstrap(&self.config, true),
            Beginning::Resume => Ok(()),
        }
    }

    /// Whether the folder holds nothing yet.
    pub fn is_new(&self) -> bool {
        self.beginning != Beginning::Resume
    }

    /// The start succeeded: makes the configuration that of every later start.
    pub fn commit(&self) -> Result<(), FolderError> {
        match &self.stored {
            None => self.folder.finish_bootstrap(matches!(self.beginning, Beginning::Join(_))),
            Some(stored) if *stored == self.config => Ok(()),
            Some(_) => self.folder.save(&self.config),
        }
    }

    /// What to print, once, about a key that was made here.
    pub fn announcement(&self) -> Option<String> {
        self.generated_key.then(|| {
            format!(
                "The key of the new network is\n\n    {}\n\n\
                 Gateways and mounts need it: put it into /etc/magma/key on their machines. It is shown only now;\n\
                 this volcano keeps it in {}.",
                self.config.key.expose(),
                self.folder.path().join("config.toml").display()
            )
        })
    }
}

impl Cli {
    /// Makes sense of the command line, the environment, the configuration file and the folder together.
    pub fn launch(&self, surroundings: &Surroundings) -> Result<Launch, CliError> {
        if self.join.is_some() && self.bootstrap {
            return Err(CliError::BootstrapAndJoin);
        }
        let file = ConfigFile::load(self.config.as_deref(), &surroundings.config_file)?;
        let given = self.over(file.section("volcano")?.unwrap_or_default());
        // The console tells nobody its address, so it may listen on all of them; the volcano may not.
        if let Some(address) = given.address.filter(IpAddr::is_unspecified) {
            return Err(CliError::Unspecified(address));
        }
        let directory = given.directory.clone().ok_or(CliError::NoDirectory)?;
        let folder = Folder::claim(&directory, self.bootstrap || self.join.is_some())?;
        let mut warnings = Vec::new();
        let beginning = self.beginning(&folder)?;
        let (config, stored, generated_key) = match &beginning {
            Beginning::Resume => {
                let stored = folder.network()?;
                let config =
                    self.changed(&stored, &given, &directory.display().to_string(), &mut warnings)?;
                (config, Some(stored), false)
            }
            Beginning::Found { .. } | Beginning::Join(_) => {
                folder.check_free(self.join.is_some())?;
                let key = self.key.resolve(&file, surroundings, &mut warnings)?;
                let generated = key.is_none();
                if let Beginning::Join(host) = &beginning {
                    check_join(host, &given, generated)?;
                }
                (new_volcano(&given, key, self.witness)?, None, generated)
            }
        };
        if config.key.is_weak() && !self.weak_key {
            warnings.push(format!(
                "THE KEY IS WEAK (about {} bits): whoever reaches this port can guess it and read and change every file. \
                 Found networks with -b alone and a strong key is made; --weak-key silences this warning",
                config.key.strength_bits()
            ));
        }
        if beginning != Beginning::Resume && config.address.is_loopback() && given.address.is_none() {
            warnings.push(format!(
                "only this machine can reach the volcano at {}; give -i ADDR to serve others",
                config.address
            ));
        }
        let channels = self.debug.unwrap_or(file.channels());
        Ok(Launch { folder, config, beginning, generated_key, channels, warnings, stored })
    }

    /// What is to be done with this folder. One that has joined already goes on as what it is, so that a service may be started
    /// with the same options again and again.
    fn beginning(&self, folder: &Folder) -> Result<Beginning, FolderError> {
        Ok(match &self.join {
            _ if self.bootstrap => Beginning::Found { slices: self.slices, stripes: self.stripes },
            Some(host) if !matches!(folder.contents()?, Contents::Network(_)) => {
                Beginning::Join(host.clone())
            }
            _ => Beginning::Resume,
        })
    }

    /// The command line over the configuration file.
    fn over(&self, file: Section) -> Section {
        Section {
            nickname: self.nickname.clone().or(file.nickname),
            servername: self.servername.clone().or(file.servername),
            address: self.address.or(file.address),
            port: self.port.or(file.port),
            directory: self.directory.clone().or(file.directory),
            bandwidth: self.bandwidth.or(file.bandwidth),
            console_address: self.console_address.or(file.console_address),
        }
    }

    /// The configuration of the folder's network, changed by what was given.
    fn changed(
        &self,
        stored: &VolcanoConfig,
        given: &Section,
        directory: &str,
        warnings: &mut Vec<String>,
    ) -> Result<VolcanoConfig, CliError> {
        if self.witness && !stored.witness {
            return Err(CliError::Stores { directory: directory.to_owned() });
        }
        if let Some(name) = given.nickname.as_ref().filter(|&name| *name != stored.nickname) {
            let (directory, found, given) = (directory.to_owned(), stored.nickname.clone(), name.clone());
            return Err(CliError::OtherNickname { directory, found, given });
        }
        // Only a key that was given for this start is compared: MAGMA_KEY and /etc/magma/key may be a client's.
        if self.key.key.is_some() || self.key.key_file.is_some() {
            let none =
                Surroundings { key_variable: None, key_file: PathBuf::new(), config_file: PathBuf::new() };
            let key = self.key.resolve(&ConfigFile::default(), &none, warnings)?;
            if key.as_ref() != Some(&stored.key) {
                return Err(CliError::OtherKey { directory: directory.to_owned() });
            }
        }
        let address = given.address.unwrap_or(stored.address);
        // A console that followed the address goes on following it.
        let console = match given.address {
            Some(address) if stored.console_address == stored.address => console_address(address),
            _ => stored.console_address,
        };
        Ok(VolcanoConfig {
            nickname: stored.nickname.clone(),
            servername: given.servername.clone().unwrap_or_else(|| stored.servername.clone()),
            address,
            port: given.port.unwrap_or(stored.port),
            bandwidth: given.bandwidth.unwrap_or(stored.bandwidth),
            console_address: given.console_address.unwrap_or(console),
            witness: stored.witness,
            key: stored.key.clone(),
        })
    }
}

/// The configuration of a new volcano. Without a key, one is made.
fn new_volcano(given: &Section, key: Option<Secret>, witness: bool) -> Result<VolcanoConfig, CliError> {
    let key = match key {
        Some(key) if key.is_client_key() => return Err(CliError::ClientKey),
        Some(key) => key,
        None => Secret::generate()?,
    };
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let short = host.split('.').next().unwrap_or_default();
    let named = |error, option| CliError::HostName { host: host.clone(), error, option };
    let address = given.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    Ok(VolcanoConfig {
        nickname: match &given.nickname {
            Some(name) => name.clone(),
            None => short.parse().map_err(|error| named(error, "-n"))?,
        },
        servername: match &given.servername {
            Some(name) => name.clone(),
            None => host.parse().map_err(|error| named(error, "-s"))?,
        },
        address,
        port: match given.port {
            Some(port) => port,
            None => DEFAULT_PORT.try_into().map_err(|error| named(error, "-p"))?,
        },
        bandwidth: given.bandwidth.unwrap_or(0),
        console_address: given.console_address.unwrap_or_else(|| console_address(address)),
        witness,
        key,
    })
}

/// What a volcano that joins cannot make up itself: the network's key, and where the others reach it.
fn check_join(host: &HostPort, given: &Section, lacks_key: bool) -> Result<(), CliError> {
    if lacks_key {
        return Err(CliError::NoKey(host.clone()));
    }
    if given.address.is_none() && !is_loopback(host) {
        return Err(CliError::NoAddress(host.clone()));
    }
    Ok(())
}

/// Whether a host that was named is this machine, and reached by nobody else.
fn is_loopback(host: &HostPort) -> bool {
    host.host == "localhost" || host.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Where the console listens if nobody says: where the volcano does, but never beyond this machine.
fn console_address(address: IpAddr) -> IpAddr {
    if address.is_loopback() { address } else { IpAddr::V4(Ipv4Addr::LOCALHOST) }
}

#[cfg(test)]
mod tests;
