//! The commands: what can be typed, and what it means.

use magma_common::key::Ino;
use magma_common::logging::{Channel, Channels};
use magma_common::stripes::StripeUnit;
use magma_common::topology::MAX_COPIES;

use super::text::escape_name;
use super::words;

/// A command line, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// An empty line, or one that begins with `#`.
    Nothing,
    /// `cache load`.
    CacheLoad,
    /// `cat PATH...`.
    Cat(Vec<Vec<u8>>),
    /// `cd [PATH]`.
    Cd(Option<Vec<u8>>),
    /// `debug on X` and `debug off X`.
    Debug {
        /// On or off.
        on: bool,
        /// Which channels.
        channels: Channels,
    },
    /// `erase [-r] PATH...`.
    Erase {
        /// Directories with all that is in them.
        recursive: bool,
        /// What.
        paths: Vec<Vec<u8>>,
    },
    /// `exit` and `quit`.
    Exit,
    /// `help [COMMAND]`.
    Help(Option<&'static str>),
    /// `inspect PATH|KEY`.
    Inspect(Vec<u8>),
    /// `lava`.
    Lava,
    /// `lava health`.
    Health,
    /// `lava load`.
    Load,
    /// `lava balance plan`.
    BalancePlan,
    /// `lava leave`, `stay`, `evict`, `copies`, `balance` and `move`.
    Network(NetworkCommand),
    /// `ls [-l] [PATH...]`.
    Ls(Vec<Vec<u8>>),
    /// `print acl`.
    PrintAcl,
    /// `print cache`.
    PrintCache,
    /// `print debug`.
    PrintDebug,
    /// `pwd`.
    Pwd,
    /// `shutdown [--local]`.
    Shutdown {
        /// The whole network, not this volcano alone.
        everywhere: bool,
    },
}

/// A change of the network. Volcanos go by their nicknames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NetworkCommand {
    /// `lava leave [NICK]`: a volcano, or this one, gives its copies away and goes.
    Leave(Option<String>),
    /// `lava stay NICK`: it stays after all.
    Stay(String),
    /// `lava evict NICK [--force]`: it is gone and will not come back.
    Evict {
        /// Which one.
        nickname: String,
        /// Although the votes are missing, or it has the only copy that is sure to have everything.
        force: bool,
    },
    /// `lava copies N`.
    Copies(u8),
    /// `lava stripes UNIT|off`: how files are spread that are made from then on.
    Stripes(Option<StripeUnit>),
    /// `lava balance on` and `lava balance off`.
    Balance(bool),
    /// `lava balance now`: the next steps of the plan.
    BalanceNow,
    /// `lava move NICK after OTHER`: a volcano gets another place on the ring.
    Move {
        /// Who.
        who: String,
        /// Whom it is to follow.
        after: String,
    },
    /// `lava replace NICK by OTHER`: a volcano goes, and another one takes its place.
    Replace {
        /// Who goes.
        old: String,
        /// Who takes its place.
        new: String,
    },
    /// `lava divide SLICE|NICK [AT]`: a slice, or the largest one that a volcano serves; at this inode number, or so that both halves have
    /// about as much to store.
    Divide(String, Option<Ino>),
}

/// A command's line in the help.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// How it is typed.
    pub(super) usage: &'static str,
    /// What it does.
    pub(super) about: &'static str,
}

impl Entry {
    /// The command's name.
    pub(super) fn first_word(&self) -> &'static str {
        self.usage.split(' ').next().unwrap_or_default()
    }
}

const fn entry(usage: &'static str, about: &'static str) -> Entry {
    Entry { usage, about }
}

/// Every command, in the order of the help.
pub(super) const ENTRIES: &[Entry] = &[
    entry("cache load", "show how full the caches are"),
    entry("cat PATH...", "show files, bytes that are not text as \\xNN; ^C stops"),
    entry("cd [PATH]", "go to a directory, or to the root"),
    entry("debug off X", "stop logging the details of channel X (a name, letters, or all)"),
    entry("debug on X", "log the details of channel X (a name, letters, or all)"),
    entry("erase [-r] PATH...", "remove files and empty directories; with -r directories and all in them"),
    entry("exit", "leave the console"),
    entry("help [COMMAND]", "show this list"),
    entry("inspect PATH|KEY", "show everything known of a flare"),
    entry("lava", "show the network: volcanos, slices, what they hold"),
    entry("lava balance now", "take the next step of the balancer's plan, whether it is on or not"),
    entry("lava balance off", "move no slices any more, but for those that are being moved"),
    entry(
        "lava balance on",
        "move slices from volcano to volcano, one by one, until all hold about the same",
    ),
    entry("lava balance plan", "show what the balancer would move, and why"),
    entry("lava copies N", "keep N copies of everything (1 to 5)"),
    entry(
        "lava stripes UNIT|off",
        "spread large files that are made from now on (64K to 64G, like 256M), or not",
    ),
    entry("lava divide SLICE|NICK [AT]", "make two slices of one; keys from AT on go to the new one"),
    entry("lava evict NICK [--force]", "give up a volcano that is gone and will not come back"),
    entry("lava health", "show what is degraded, what is done about it, and who waits"),
    entry("lava leave [NICK]", "let a volcano, or this one, give its copies away and leave the network"),
    entry("lava load", "show what the volcanos own: slices, keys, bytes"),
    entry("lava move NICK after OTHER", "let a volcano follow another one on the ring"),
    entry("lava replace NICK by OTHER", "let a volcano take the place of one that leaves or is gone"),
    entry("lava stay NICK", "keep a volcano that was to leave"),
    entry("ls [-l] [PATH...]", "list a directory: mode, owner, group, size, time (UTC), name"),
    entry("print acl", "show who may mount what"),
    entry("print cache", "show the caches' figures"),
    entry("print debug", "show the debug channels"),
    entry("pwd", "show the directory we are in"),
    entry("quit", "leave the console"),
    entry("shutdown [--local]", "stop all volcanos of the network in order; with --local only this one"),
];

/// Understands a line; the error is what to tell the user.
pub(super) fn parse(line: &[u8]) -> Result<Command, String> {
    let words = words::split(line).map_err(|error| error.to_string())?;
    let Some((name, rest)) = words.split_first() else { return Ok(Command::Nothing) };
    if name.starts_with(b"#") {
        return Ok(Command::Nothing);
    }
    match &name[..] {
        b"cat" => some_paths("cat PATH...", rest).map(Command::Cat),
        b"cd" => match rest {
            [] => Ok(Command::Cd(None)),
            [path] => Ok(Command::Cd(Some(path.clone()))),
            _ => Err(usage("cd [PATH]")),
        },
        b"erase" => {
            let (options, paths) = options(rest, b"r").map_err(|option| unknown("erase", option))?;
            some_paths("erase [-r] PATH...", paths).map(|paths| Command::Erase { recursive: options, paths })
        }
        b"ls" => {
            let (_, paths) = options(rest, b"l").map_err(|option| unknown("ls", option))?;
            Ok(Command::Ls(paths.to_vec()))
        }
        b"inspect" => match rest {
            [path] => Ok(Command::Inspect(path.clone())),
            _ => Err(usage("inspect PATH|KEY")),
        },
        b"help" | b"?" => match rest {
            [] => Ok(Command::Help(None)),
            [command, ..] => help_for(command),
        },
        b"debug" => match rest {
            [switch, channels @ ..] if !channels.is_empty() => match &switch[..] {
                b"on" => debug(true, channels),
                b"off" => debug(false, channels),
                _ => Err(usage("debug on X, debug off X")),
            },
            _ => Err(usage("debug on X, debug off X")),
        },
        b"cache" => choose(rest, &[("load", Command::CacheLoad)], "cache load"),
        b"print" => choose(
            rest,
            &[("acl", Command::PrintAcl), ("cache", Command::PrintCache), ("debug", Command::PrintDebug)],
            "print acl, print cache, print debug",
        ),
        b"exit" | b"quit" => alone(rest, "exit", Command::Exit),
        b"lava" => lava(rest),
        b"pwd" => alone(rest, "pwd", Command::Pwd),
        b"shutdown" => match rest {
            [] => Ok(Command::Shutdown { everywhere: true }),
            [option] if option == b"--local" => Ok(Command::Shutdown { everywhere: false }),
            _ => Err(usage("shutdown [--local]")),
        },
        _ => Err(format!("there is no command {}; `help` lists them", escape_name(name))),
    }
}

fn usage(usage: &str) -> String {
    format!("usage: {usage}")
}

fn unknown(command: &str, option: &[u8]) -> String {
    format!("{command}: unknown option {}", escape_name(option))
}

fn some_paths(text: &str, paths: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, String> {
    if paths.is_empty() { Err(usage(text)) } else { Ok(paths.to_vec()) }
}

fn alone(rest: &[Vec<u8>], text: &str, command: Command) -> Result<Command, String> {
    if rest.is_empty() { Ok(command) } else { Err(usage(text)) }
}

fn choose(rest: &[Vec<u8>], choices: &[(&str, Command)], text: &str) -> Result<Command, String> {
    let [word] = rest else { return Err(usage(text)) };
    let chosen = choices.iter().find(|(name, _)| name.as_bytes() == &word[..]);
    chosen.map(|(_, command)| command.clone()).ok_or_else(|| usage(text))
}

/// Whether any of the options was given, and what follows them. `--` ends the options.
fn options<'a>(rest: &'a [Vec<u8>], known: &[u8]) -> Result<(bool, &'a [Vec<u8>]), &'a [u8]> {
    let mut given = false;
    let mut rest = rest;
    while let Some((word, after)) = rest.split_first() {
        match &word[..] {
            b"--" => return Ok((given, after)),
            [b'-', letters @ ..] if !letters.is_empty() => {
                if letters.iter().any(|letter| !known.contains(letter)) {
                    return Err(word);
                }
                given = true;
                rest = after;
            }
            _ => break,
        }
    }
    Ok((given, rest))
}

fn debug(on: bool, words: &[Vec<u8>]) -> Result<Command, String> {
    let mut channels = Channels::NONE;
    for word in words {
        let text = escape_name(word);
        let named = match Channel::from_text(&text) {
            Some(channel) => Channels::NONE.with(channel, true),
            None if text == "all" => {
                Channel::ALL.iter().fold(Channels::NONE, |set, &channel| set.with(channel, true))
            }
            None => text.parse::<Channels>().map_err(|error| error.to_string())?,
        };
        channels = channels.union(named);
    }
    Ok(Command::Debug { on, channels })
}

fn lava(rest: &[Vec<u8>]) -> Result<Command, String> {
    const USAGE: &str = "lava, lava health, lava load, lava leave [NICK], lava stay NICK, lava evict NICK [--force], lava copies N, lava stripes UNIT|off, lava divide SLICE|NICK [AT], lava balance on|off|now|plan, lava move NICK after OTHER, lava replace NICK by OTHER";
    let words: Vec<&[u8]> = rest.iter().map(Vec::as_slice).collect();
    let nick = |bytes: &[u8]| escape_name(bytes);
    let change = match *words {
        [] => return Ok(Command::Lava),
        [b"health"] => return Ok(Command::Health),
        [b"load"] => return Ok(Command::Load),
        [b"balance", b"plan"] => return Ok(Command::BalancePlan),
        [b"balance", b"on"] => NetworkCommand::Balance(true),
        [b"balance", b"off"] => NetworkCommand::Balance(false),
        [b"balance", b"now"] => NetworkCommand::BalanceNow,
        [b"move", who, b"after", after] => NetworkCommand::Move { who: nick(who), after: nick(after) },
        [b"replace", old, b"by", new] => NetworkCommand::Replace { old: nick(old), new: nick(new) },
        [b"leave"] => NetworkCommand::Leave(None),
        [b"leave", who] => NetworkCommand::Leave(Some(nick(who))),
        [b"stay", who] => NetworkCommand::Stay(nick(who)),
        [b"evict", who] => NetworkCommand::Evict { nickname: nick(who), force: false },
        [b"evict", who, b"--force"] => NetworkCommand::Evict { nickname: nick(who), force: true },
        [b"stripes", b"off"] => NetworkCommand::Stripes(None),
        [b"stripes", unit] => {
            let unit = std::str::from_utf8(unit).ok().and_then(|unit| unit.parse().ok());
            NetworkCommand::Stripes(Some(
                unit.ok_or("a unit is a power of two from 64K to 64G, like 256M: lava stripes UNIT|off")?,
            ))
        }
        [b"copies", number] => {
            let number = std::str::from_utf8(number).ok().and_then(|number| number.parse().ok());
            let copies = number.filter(|copies| (1..=MAX_COPIES).contains(copies));
            NetworkCommand::Copies(
                copies.ok_or_else(|| format!("there can be 1 to {MAX_COPIES} copies: lava copies N"))?,
            )
        }
        [b"divide", which] => NetworkCommand::Divide(nick(which), None),
        [b"divide", which, at] => NetworkCommand::Divide(nick(which), Some(first_ino(at)?)),
        _ => return Err(usage(USAGE)),
    };
    Ok(Command::Network(change))
}

/// The first inode number of the keys that begin with these digits.
fn first_ino(digits: &[u8]) -> Result<Ino, String> {
    let text = std::str::from_utf8(digits).ok().filter(|text| text.len() <= 16);
    let text = text.filter(|text| text.bytes().all(|digit| digit.is_ascii_hexdigit()));
    let number = text.and_then(|text| u64::from_str_radix(&format!("{text:0<16}"), 16).ok());
    number
        .map(Ino)
        .ok_or_else(|| "a slice is divided where keys begin with up to 16 hexadecimal digits".to_owned())
}

fn help_for(command: &[u8]) -> Result<Command, String> {
    let first_words = ENTRIES.iter().map(Entry::first_word);
    let known = first_words.into_iter().find(|word| word.as_bytes() == command);
    known
        .map(|word| Command::Help(Some(word)))
        .ok_or_else(|| format!("there is no command {}; `help` lists them", escape_name(command)))
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn ok(line: &str) -> Command {
        parse(line.as_bytes()).unwrap()
    }

    fn refusal(line: &str) -> String {
        parse(line.as_bytes()).unwrap_err()
    }

    fn paths(paths: &[&str]) -> Vec<Vec<u8>> {
        paths.iter().map(|path| path.as_bytes().to_vec()).collect()
    }

    #[test]
    fn every_command_of_the_help_is_understood() {
        for entry in ENTRIES {
            let line = entry.usage.replace("[-r] ", "-r ").replace("[-l] ", "-l ").replace(['[', ']'], "");
            let line = line.replace(" X", " cache").replace("PATH|KEY", "/").replace("PATH...", "a b");
            let line =
                line.replace("COMMAND", "ls").replace("copies N", "copies 2").replace("UNIT|off", "256M");
            let line = line.replace("SLICE|NICK AT", "1 8");
            assert!(parse(line.as_bytes()).is_ok(), "{line}");
        }
    }

    #[test]
    fn options_end_at_the_first_path_or_at_two_dashes() {
        assert_eq!(ok("ls -l a"), Command::Ls(paths(&["a"])));
        assert_eq!(ok("ls"), Command::Ls(vec![]));
        assert_eq!(ok("erase -r a -r"), Command::Erase { recursive: true, paths: paths(&["a", "-r"]) });
        assert_eq!(ok("erase -- -r"), Command::Erase { recursive: false, paths: paths(&["-r"]) });
        assert_eq!(refusal("ls -x"), "ls: unknown option -x");
        assert_eq!(refusal("erase -r"), "usage: erase [-r] PATH...");
    }

    #[test]
    fn the_network_is_changed_by_nicknames_and_numbers() {
        let change = |line| match ok(line) {
            Command::Network(change) => change,
            other => panic!("{other:?}"),
        };
        assert_eq!((ok("lava"), ok("lava health")), (Command::Lava, Command::Health));
        assert_eq!(change("lava leave"), NetworkCommand::Leave(None));
        assert_eq!(change("lava leave gromit"), NetworkCommand::Leave(Some("gromit".into())));
        assert_eq!(change("lava copies 5"), NetworkCommand::Copies(5));
        assert_eq!(change("lava stripes off"), NetworkCommand::Stripes(None));
        let unit = StripeUnit::new(256 << 20).unwrap();
        assert_eq!(change("lava stripes 256M"), NetworkCommand::Stripes(Some(unit)));
        for line in ["lava stripes", "lava stripes 3M", "lava stripes on"] {
            assert!(refusal(line).contains("lava stripes UNIT|off"), "{line}");
        }
        for line in ["lava copies 0", "lava copies 6", "lava copies many", "lava copies -1"] {
            assert_eq!(refusal(line), "there can be 1 to 5 copies: lava copies N");
        }
        assert!(refusal("lava evict").starts_with("usage: lava, lava health, lava load, lava leave [NICK]"));
        assert_eq!(change("lava balance on"), NetworkCommand::Balance(true));
        assert_eq!(change("lava balance now"), NetworkCommand::BalanceNow);
        assert_eq!((ok("lava balance plan"), ok("lava load")), (Command::BalancePlan, Command::Load));
        let moved = NetworkCommand::Move { who: "gromit".into(), after: "shaun".into() };
        assert_eq!(change("lava move gromit after shaun"), moved);
        assert!(refusal("lava move gromit").starts_with("usage: "));
        let replaced = NetworkCommand::Replace { old: "gromit".into(), new: "shaun".into() };
        assert_eq!(change("lava replace gromit by shaun"), replaced);
        assert!(refusal("lava replace gromit").starts_with("usage: "));
        assert_eq!(change("lava divide 2"), NetworkCommand::Divide("2".into(), None));
        assert_eq!(
            change("lava divide gromit 8a"),
            NetworkCommand::Divide("gromit".into(), Some(Ino(0x8a << 56)))
        );
        for line in ["lava divide 1 x", "lava divide 1 +1", "lava divide 1 00112233445566778"] {
            assert_eq!(refusal(line), "a slice is divided where keys begin with up to 16 hexadecimal digits");
        }
        assert_eq!(ok("shutdown"), Command::Shutdown { everywhere: true });
        assert_eq!(ok("shutdown --local"), Command::Shutdown { everywhere: false });
        assert_eq!(refusal("shutdown now"), "usage: shutdown [--local]");
    }

    #[test]
    fn channels_are_named_by_name_by_letters_or_all() {
        let letters = |line| match ok(line) {
            Command::Debug { on: true, channels } => channels.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(letters("debug on cache"), "c");
        assert_eq!(letters("debug on fs B"), "Bfs");
        assert_eq!(letters("debug on all").len(), Channel::ALL.len());
        assert!(refusal("debug on nonsense").starts_with("`o` is no debug channel"));
        assert_eq!(refusal("debug on"), "usage: debug on X, debug off X");
    }

    #[test]
    fn what_is_not_understood_is_said() {
        assert_eq!(refusal("sl"), "there is no command sl; `help` lists them");
        assert_eq!(refusal("print"), "usage: print acl, print cache, print debug");
        assert_eq!(refusal("pwd x"), "usage: pwd");
        assert_eq!(refusal("cat 'x"), "the quote ' is not closed");
        assert_eq!(ok("   "), Command::Nothing);
        assert_eq!(ok("# a note in a script"), Command::Nothing);
    }

    proptest! {
        #[test]
        fn any_line_is_a_command_or_a_message(line: Vec<u8>) {
            if let Err(message) = parse(&line) {
                prop_assert!(!message.is_empty() && !message.contains('\n'), "{}", message);
            }
        }
    }
}
