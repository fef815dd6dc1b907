//! Logging to stderr, with the debug channels of `-D` as `tracing` targets.
//!
//! Without options, everything that an operator should know (level `info` and above) is written.
//! A channel adds the details of one area: `-Dfc` shows those of flares and of the cache. A channel
//! is the target of the same name, so `RUST_LOG=magma::cache=trace` does the same, and the console
//! switches channels while the process runs.

use std::fmt;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt as format, reload};

/// What is written when neither `RUST_LOG` nor a channel asks for more.
///
/// A target is matched by its beginning: this covers `magma::…` and all crates `magma_…`.
const DEFAULT_DIRECTIVES: &str = "warn,magma=info";

macro_rules! channels {
    ($($(#[$doc:meta])* $channel:ident = $letter:literal $name:literal $about:literal,)*) => {
        /// One area whose details can be logged.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Channel {
            $($(#[$doc])* $channel,)*
        }

        impl Channel {
            /// Every channel, in the order in which they are shown.
            pub const ALL: &[Self] = &[$(Self::$channel,)*];

            /// Its letter for `-D`.
            pub const fn letter(self) -> char {
                match self { $(Self::$channel => $letter,)* }
            }

            /// Its name for `debug on NAME`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$channel => $name,)* }
            }

            /// Its `tracing` target. No target is the beginning of another one.
            pub const fn target(self) -> &'static str {
                match self { $(Self::$channel => concat!("magma::", $name),)* }
            }

            /// What it shows, in a few words.
            pub const fn about(self) -> &'static str {
                match self { $(Self::$channel => $about,)* }
            }
        }
    };
}

channels! {
    /// Start and end of the process, recovery of the store.
    Boot = 'b' "boot" "start, recovery and end of the process",
    /// Moving keys between volcanos.
    Balancer = 'B' "balancer" "moving keys between volcanos",
    /// Caches of attributes, entries and rows.
    Cache = 'c' "cache" "caches of attributes, entries and rows",
    /// Directory entries: create, unlink, rename, listings.
    Directory = 'd' "directory" "directory entries: create, unlink, rename, list",
    /// Flares: attributes, data, locks.
    Flare = 'f' "flare" "flares: attributes, data, locks",
    /// Frames of the flare protocol.
    FlareProtocol = 'F' "protocol" "frames of the flare protocol",
    /// What is deleted, and when.
    Garbage = 'g' "garbage" "what is deleted, and when",
    /// The NFS gateway.
    Nfs = 'N' "nfs" "the NFS gateway",
    /// Connections and handshakes.
    Network = 'n' "network" "connections and handshakes",
    /// Which volcano a request goes to.
    Routing = 'r' "routing" "which volcano a request goes to",
    /// The database.
    Sql = 's' "sql" "the database",
    /// Frames of the node protocol.
    NodeProtocol = 'V' "node" "frames of the protocol between volcanos",
    /// The volcano's own decisions.
    Volcano = 'v' "volcano" "the volcano's own decisions",
    /// The 9P gateway.
    NineP = '9' "9p" "the 9P gateway",
    /// The FUSE mount.
    Mount = 'm' "mount" "the FUSE mount",
}

impl Channel {
    /// The channel with this letter.
    pub fn from_letter(letter: char) -> Option<Self> {
        Self::ALL.iter().copied().find(|channel| channel.letter() == letter)
    }

    /// The channel that a person means: by its name, or by its letter.
    pub fn from_text(text: &str) -> Option<Self> {
        let mut chars = text.chars();
        let letter = chars.next().filter(|_| chars.as_str().is_empty());
        letter
            .and_then(Self::from_letter)
            .or_else(|| Self::ALL.iter().copied().find(|channel| channel.name().eq_ignore_ascii_case(text)))
    }

    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// A set of channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Channels(u32);

impl Channels {
    /// No channel.
    pub const NONE: Self = Self(0);

    /// Whether the channel is in the set.
    pub const fn contains(self, channel: Channel) -> bool {
        self.0 & channel.bit() != 0
    }

    /// The set with the channel put in or taken out.
    #[must_use]
    pub const fn with(self, channel: Channel, on: bool) -> Self {
        Self(if on { self.0 | channel.bit() } else { self.0 & !channel.bit() })
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The channels of the set.
    pub fn iter(self) -> impl Iterator<Item = Channel> {
        Channel::ALL.iter().copied().filter(move |&channel| self.contains(channel))
    }
}

/// The letters, as `-D` takes them.
impl fmt::Display for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().try_for_each(|channel| write!(f, "{}", channel.letter()))
    }
}

/// A letter after `-D` that names no channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`{letter}` is no debug channel; there are {}", known_letters())]
pub struct UnknownChannel {
    letter: char,
}

fn known_letters() -> String {
    let all: Vec<String> =
        Channel::ALL.iter().map(|channel| format!("{} ({})", channel.letter(), channel.name())).collect();
    all.join(", ")
}

impl std::str::FromStr for Channels {
    type Err = UnknownChannel;

    fn from_str(letters: &str) -> Result<Self, UnknownChannel> {
        letters.chars().try_fold(Self::NONE, |set, letter| {
            Channel::from_letter(letter)
                .map(|channel| set.with(channel, true))
                .ok_or(UnknownChannel { letter })
        })
    }
}

/// Why logging could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// `RUST_LOG` is not a list of directives.
    #[error("RUST_LOG is not a list like `info,magma::cache=trace`: {0}")]
    Directives(#[from] tracing_subscriber::filter::ParseError),
    /// This process logs already.
    #[error("logging is set up already: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
    /// The subscriber is gone.
    #[error("the log filter cannot be changed: {0}")]
    Gone(#[from] reload::Error),
}

/// The running log; clones change the same one.
#[derive(Clone)]
pub struct Logging {
    shared: Arc<Shared>,
}

struct Shared {
    directives: String,
    channels: Mutex<Channels>,
    filter: reload::Handle<EnvFilter, Registry>,
}

impl Logging {
    /// Starts logging to stderr, once per process. `RUST_LOG`, if set, stands for the default level; channels come on top.
    pub fn start(channels: Channels) -> Result<Self, LoggingError> {
        let directives = std::env::var("RUST_LOG").ok().filter(|text| !text.trim().is_empty());
        let directives = directives.unwrap_or_else(|| DEFAULT_DIRECTIVES.to_owned());
        let (filter, logging) = Self::prepare(directives, channels)?;
        let output = format::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
        tracing_subscriber::registry().with(output.with_filter(filter)).try_init()?;
        Ok(logging)
    }

    fn prepare(
        directives: String,
        channels: Channels,
    ) -> Result<(reload::Layer<EnvFilter, Registry>, Self), LoggingError> {
        let (layer, filter) = reload::Layer::new(filter(&directives, channels)?);
        let shared = Shared { directives, channels: Mutex::new(channels), filter };
        Ok((layer, Self { shared: Arc::new(shared) }))
    }

    /// The channels that are on. What `RUST_LOG` asked for is not counted.
    pub fn channels(&self) -> Channels {
        *self.shared.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Switches a channel on or off.
    pub fn set(&self, channel: Channel, on: bool) -> Result<(), LoggingError> {
        let mut channels = self.shared.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = channels.with(channel, on);
        self.shared.filter.reload(filter(&self.shared.directives, wanted)?)?;
        *channels = wanted;
        Ok(())
    }
}

fn filter(directives: &str, channels: Channels) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    let mut text = directives.to_owned();
    for channel in channels.iter() {
        text.push(',');
        text.push_str(channel.target());
        text.push_str("=trace");
    }
    EnvFilter::builder().parse(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::io::Write;

    #[test]
    fn the_seed_letters_all_name_a_channel() {
        let all: Channels = "bBcdfFgNnrsVv".parse().unwrap();
        assert_eq!(all.iter().count(), 13);
        assert_eq!("fs".parse::<Channels>().unwrap().to_string(), "fs");
        let error = "fx".parse::<Channels>().unwrap_err().to_string();
        assert!(error.starts_with("`x` is no debug channel; there are b (boot), B (balancer), "), "{error}");
    }

    #[test]
    fn channels_are_found_by_letter_and_by_name() {
        assert_eq!(Channel::from_text("c"), Some(Channel::Cache));
        assert_eq!(Channel::from_text("Cache"), Some(Channel::Cache));
        assert_eq!(Channel::from_text("B"), Some(Channel::Balancer));
        assert_eq!(Channel::from_text("b"), Some(Channel::Boot));
        assert_eq!(Channel::from_text(""), None);
        assert_eq!(Channel::from_text("caches"), None);
    }

    #[test]
    fn no_target_is_the_beginning_of_another() {
        for a in Channel::ALL {
            for b in Channel::ALL {
                assert!(a == b || !a.target().starts_with(b.target()), "{a:?} {b:?}");
            }
        }
    }

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_channel_can_be_switched_while_running() {
        let captured = Captured::default();
        let (filter, logging) =
            Logging::prepare(DEFAULT_DIRECTIVES.to_owned(), "c".parse().unwrap()).unwrap();
        let sink = captured.clone();
        let output = format::layer().with_ansi(false).with_writer(move || sink.clone()).with_filter(filter);
        let _guard = tracing_subscriber::registry().with(output).set_default();

        let emit = || {
            tracing::info!("told always");
            tracing::trace!(target: "magma::cache", "cache detail");
            tracing::trace!(target: "magma::sql", "sql detail");
            std::mem::take(&mut *captured.0.lock().unwrap())
        };
        let first = String::from_utf8(emit()).unwrap();
        assert!(
            first.contains("told always") && first.contains("cache detail") && !first.contains("sql detail")
        );
        logging.set(Channel::Cache, false).unwrap();
        logging.set(Channel::Sql, true).unwrap();
        let second = String::from_utf8(emit()).unwrap();
        assert!(
            second.contains("told always")
                && !second.contains("cache detail")
                && second.contains("sql detail")
        );
        assert_eq!(logging.channels().to_string(), "s");
    }
}
