use super::*;

use clap::{CommandFactory, Parser};

use crate::config::Contents;

struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn surroundings(&self) -> Surroundings {
        let dir = self.dir.path();
        Surroundings { key_variable: None, key_file: dir.join("key"), config_file: dir.join("magma.toml") }
    }

    /// Runs `magmad` with these options, in which `@` stands for the volcano's folder.
    fn magmad(&self, options: &str) -> Result<Launch, CliError> {
        let folder = self.dir.path().join("volcano").display().to_string();
        let arguments = options.split_whitespace().map(|word| word.replace('@', &folder));
        let cli = Cli::try_parse_from(std::iter::once("magmad".to_owned()).chain(arguments)).unwrap();
        cli.launch(&self.surroundings())
    }

    fn founded(options: &str) -> Self {
        let home = Self::new();
        let launch = home.magmad(options).unwrap();
        launch.begin().unwrap();
        launch.commit().unwrap();
        home
    }

    fn refusal(&self, options: &str) -> String {
        self.magmad(options).unwrap_err().to_string()
    }
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn the_short_options_of_old_still_work() {
    let home = Home::new();
    let launch = home
        .magmad("-n wallace -s wallace.intranet -k m4gm4s3cr3t -i 127.0.0.2 -p 13000 -w 1024 -A 127.0.0.3 -b -d @ -Dfs")
        .unwrap();
    let config = &launch.config;
    assert_eq!(config.nickname.to_string(), "wallace");
    assert_eq!(config.servername.to_string(), "wallace.intranet");
    assert_eq!(
        (config.address.to_string(), config.port.to_string()),
        ("127.0.0.2".to_owned(), "13000".to_owned())
    );
    assert_eq!((config.bandwidth, config.console_address.to_string()), (1024, "127.0.0.3".to_owned()));
    assert_eq!(config.key.expose(), "m4gm4s3cr3t");
    assert_eq!(launch.channels.to_string(), "fs");
    assert!(launch.beginning == Beginning::Found { slices: 1, stripes: None } && !launch.generated_key);
}

#[test]
fn a_key_on_the_command_line_and_a_weak_key_are_warned_of() {
    let warnings = Home::new().magmad("-n w -b -d @ -i 127.0.0.1 -k m4gm4s3cr3t").unwrap().warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings[0].contains("prefer --key-file") && warnings[1].starts_with("THE KEY IS WEAK"),
        "{warnings:?}"
    );
    let home = Home::new();
    std::fs::write(home.dir.path().join("key"), "m4gm4s3cr3t").unwrap();
    let warnings = home.magmad("-n w -b -d @ -i 127.0.0.1 --weak-key").unwrap().warnings;
    assert!(!warnings.iter().any(|warning| warning.contains("WEAK")), "{warnings:?}");
}

#[test]
fn founding_without_a_key_makes_one_and_shows_it_once() {
    let home = Home::new();
    let launch = home.magmad("-n wallace -b -d @").unwrap();
    launch.begin().unwrap();
    launch.commit().unwrap();
    let key = launch.config.key.clone();
    assert!(launch.announcement().unwrap().contains(key.expose()));
    assert!(!key.is_weak() && launch.warnings.iter().any(|w| w.contains("only this machine")));
    drop(launch);
    let again = home.magmad("-n wallace -d @").unwrap();
    assert_eq!((again.announcement(), again.beginning), (None, Beginning::Resume));
    assert_eq!(again.config.key, key);
}

#[test]
fn a_restart_needs_nothing_but_the_folder() {
    let home = Home::founded("-n wallace -s w.intranet -i 127.0.0.2 -p 13000 -b -d @");
    let launch = home.magmad("-d @").unwrap();
    assert_eq!(launch.config.address.to_string(), "127.0.0.2");
    assert_eq!(launch.config.console_address.to_string(), "127.0.0.2");
    assert!(launch.warnings.is_empty(), "{:?}", launch.warnings);
}

#[test]
fn options_of_a_successful_restart_are_kept() {
    let home = Home::founded("-n wallace -i 127.0.0.2 -b -d @");
    drop(home.magmad("-d @ -p 14000").unwrap());
    assert_eq!(home.magmad("-d @").unwrap().config.port.to_string(), "12000", "that start was not committed");
    let launch = home.magmad("-d @ -p 14000 -i 10.0.0.1 -s other").unwrap();
    launch.commit().unwrap();
    drop(launch);
    let config = home.magmad("-d @").unwrap().config;
    assert_eq!(
        (config.port.to_string(), config.servername.to_string()),
        ("14000".to_owned(), "other".to_owned())
    );
    assert_eq!(
        config.console_address.to_string(),
        "127.0.0.1",
        "the console does not follow beyond this machine"
    );
}

#[test]
fn an_interrupted_founding_is_done_again() {
    let home = Home::new();
    home.magmad("-n wallace -b -d @").unwrap().begin().unwrap();
    assert!(home.refusal("-d @").ends_with("was not founded to the end; start again with -b or -r"));
    let launch = home.magmad("-n wallace -b -d @").unwrap();
    launch.begin().unwrap();
    launch.commit().unwrap();
    assert!(matches!(launch.folder.contents(), Ok(Contents::Network(_))));
}

#[test]
fn bad_combinations_are_refused_with_a_sentence() {
    let home = Home::founded("-n wallace -b -d @");
    assert_eq!(
        home.refusal("-b -r 10.0.0.1 -d @"),
        "-b founds a new network and -r joins an existing one: give only one of them"
    );
    assert_eq!(home.refusal("-b"), "say with -d DIR where this volcano keeps its data");
    assert!(
        home.refusal("-b -d @")
            .ends_with("holds a network already; start it without -b, or choose an empty folder")
    );
    assert!(home.refusal("-d @ -n gromit").contains("is called wallace, not gromit; leave -n out"));
    assert!(home.refusal("-d @ -k other").starts_with("the key given is not the key of the network in"));
    assert!(home.refusal("-d @ -i 0.0.0.0").starts_with("-i 0.0.0.0: give one address of this machine"));
    assert!(
        home.refusal("-d @/nothing")
            .contains("does not exist; found a network there with -b, join one with -r")
    );
    let empty = tempfile::tempdir().unwrap();
    let empty = empty.path().display();
    assert!(
        home.refusal(&format!("-d {empty}"))
            .ends_with("holds no network yet; found one with -b or join one with -r")
    );
    let client = magma_common::auth::Secret::new("k").stretch().unwrap().client_key();
    assert!(
        Home::new()
            .refusal(&format!("-b -n w -d @ -k {}", client.expose()))
            .starts_with("this is a client key")
    );
}

#[test]
fn joining_needs_a_key_and_an_address_that_others_reach() {
    let home = Home::new();
    let join = "-r 10.0.0.1 -n gromit -d @";
    assert!(
        home.refusal(&format!("{join} -i 10.0.0.2"))
            .starts_with("-r 10.0.0.1:12000: the key of the network is needed")
    );
    assert!(
        home.refusal(&format!("{join} -k m4gm4"))
            .starts_with("-r 10.0.0.1:12000: say with -i ADDR under which address")
    );
    assert!(home.refusal(&format!("{join} -k m4gm4 -i 0.0.0.0")).starts_with("-i 0.0.0.0: give one address"));
    let launch = home.magmad(&format!("{join} -k m4gm4 -i 10.0.0.2")).unwrap();
    let host = "10.0.0.1:12000".parse().unwrap();
    assert_eq!((&launch.beginning, launch.announcement()), (&Beginning::Join(host), None));
    assert!(!launch.config.witness);
    drop(launch);
    let launch = home.magmad("-r localhost:13000 -n gromit -d @ -k m4gm4 -p 14000").unwrap();
    assert_eq!(launch.config.address.to_string(), "127.0.0.1");
}

#[test]
fn a_folder_that_has_joined_goes_on_whatever_r_says() {
    let join = "-r 10.0.0.1 -n gromit -d @ -k m4gm4 -i 10.0.0.2";
    let home = Home::founded(join);
    assert_eq!(home.magmad(join).unwrap().beginning, Beginning::Resume);
    assert_eq!(home.magmad("-r 10.0.0.7 -d @").unwrap().beginning, Beginning::Resume);
    assert!(home.refusal("-r 10.0.0.1 -n shaun -d @").contains("is called gromit, not shaun"));
    assert!(home.refusal("-b -d @").contains("holds a network already"));
}

#[test]
fn a_join_that_was_interrupted_is_done_again() {
    let home = Home::new();
    let join = "-r 10.0.0.1 -n gromit -d @ -k m4gm4 -i 10.0.0.2";
    home.magmad(join).unwrap().begin().unwrap();
    assert!(home.refusal("-d @").ends_with("start again with -r, or choose an empty folder"));
    assert!(home.refusal("-b -d @").ends_with("start again with -r, or choose an empty folder"));
    let launch = home.magmad(join).unwrap();
    assert!(matches!(launch.beginning, Beginning::Join(_)));
    launch.begin().unwrap();
    launch.commit().unwrap();
    assert!(matches!(launch.folder.contents(), Ok(Contents::Network(_))));
}

#[test]
fn a_volcano_becomes_a_witness_when_it_joins_and_never_else() {
    let founding = Cli::try_parse_from(["magmad", "--witness", "-b", "-d", "x"]).unwrap_err().to_string();
    assert!(founding.contains("--join"), "{founding}");
    let home = Home::founded("--witness -r 10.0.0.1 -n shaun -d @ -k m4gm4 -i 10.0.0.3");
    assert!(home.magmad("-d @").unwrap().config.witness, "the folder knows");
    assert!(home.magmad("--witness -r 10.0.0.1 -d @").unwrap().config.witness);
    let storing = Home::founded("-n wallace -b -d @");
    assert!(
        storing
            .refusal("--witness -r 10.0.0.1 -d @")
            .ends_with("stores, and cannot become a witness; join one with an empty folder")
    );
}

#[test]
fn a_folder_that_has_left_its_network_needs_r_to_start() {
    let home = Home::founded("-n gromit -r 10.0.0.1 -d @ -k m4gm4 -i 10.0.0.2");
    home.magmad("-d @").unwrap().folder.retire().unwrap();
    assert!(
        home.refusal("-d @").contains("has left its network, which has all that it had; join again with -r")
    );
    assert!(home.refusal("-b -d @").contains("has left its network"));
    let again = home.magmad("-r 10.0.0.1 -n gromit -d @ -k m4gm4 -i 10.0.0.2").unwrap();
    assert!(matches!(again.beginning, Beginning::Join(_)));
}

#[test]
fn both_key_options_at_once_are_refused() {
    assert!(Cli::try_parse_from(["magmad", "-k", "a", "--key-file", "b"]).is_err());
    assert!(Cli::try_parse_from(["magmad", "-p", "65533"]).is_err());
    assert!(Cli::try_parse_from(["magmad", "-n", "a/b"]).is_err());
    assert!(Cli::try_parse_from(["magmad", "-D", "x"]).is_err());
}

#[test]
fn the_configuration_file_stands_in_for_the_command_line() {
    let home = Home::new();
    let folder = home.dir.path().join("elsewhere");
    let text = format!(
        "debug = 'v'\nkey = 'correct horse battery staple'\n[volcano]\ndirectory = '{}'\nnickname = 'gromit'\nport = 15000\n",
        folder.display()
    );
    std::fs::write(home.dir.path().join("magma.toml"), text).unwrap();
    let launch = home.magmad("-b -p 16000").unwrap();
    assert_eq!(launch.folder.path(), folder);
    assert_eq!(launch.config.nickname.to_string(), "gromit");
    assert_eq!(launch.config.port.to_string(), "16000", "the command line goes first");
    assert_eq!(launch.channels.to_string(), "v");
    std::fs::write(home.dir.path().join("magma.toml"), "[volcano]\nnick = 'x'\n").unwrap();
    assert!(home.refusal("-b -d @").contains("unknown field `nick`"));
}
