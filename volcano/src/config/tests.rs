use super::*;

use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

fn config() -> VolcanoConfig {
    VolcanoConfig {
        nickname: "wallace".parse().unwrap(),
        servername: "wallace.intranet".parse().unwrap(),
        address: "10.0.0.1".parse().unwrap(),
        port: "12000".parse().unwrap(),
        bandwidth: 0,
        witness: false,
        console_address: "127.0.0.1".parse().unwrap(),
        key: Secret::new("a key with \"quotes\" and # more"),
    }
}

#[test]
fn a_founded_network_comes_back_from_the_folder_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/magma");
    let folder = Folder::claim(&path, true).unwrap();
    assert_eq!(folder.contents().unwrap(), Contents::Empty);
    folder.begin_bootstrap(&config(), false).unwrap();
    folder.finish_bootstrap(false).unwrap();
    drop(folder);

    let folder = Folder::claim(&path, false).unwrap();
    assert_eq!(folder.contents().unwrap(), Contents::Network(Box::new(config())));
    let moved = VolcanoConfig { port: "13000".parse().unwrap(), ..config() };
    folder.save(&moved).unwrap();
    assert_eq!(folder.contents().unwrap(), Contents::Network(Box::new(moved)));
    assert_eq!(std::fs::metadata(path.join("config.toml")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn the_configuration_file_has_the_documented_form() {
    let expected = "\
# Written by magmad; options given at a start change it. It holds the network's key.
format = 1
nickname = \"wallace\"
servername = \"wallace.intranet\"
address = \"10.0.0.1\"
port = 12000
bandwidth = 0
console-address = \"127.0.0.1\"
witness = false
key = 'a key with \"quotes\" and # more'
";
    assert_eq!(*config().to_text().unwrap(), expected);
}

#[test]
fn an_unfinished_bootstrap_is_cleared_by_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::claim(dir.path(), true).unwrap();
    folder.begin_bootstrap(&config(), false).unwrap();
    std::fs::create_dir(dir.path().join("log")).unwrap();
    std::fs::write(dir.path().join("log/1"), "half").unwrap();
    std::fs::write(dir.path().join("magma.db"), "half").unwrap();
    assert_eq!(folder.contents().unwrap(), Contents::Unfinished);
    folder.begin_bootstrap(&config(), false).unwrap();
    assert!(!dir.path().join("log").exists() && !dir.path().join("magma.db").exists());
}

#[test]
fn an_unfinished_joining_is_gone_on_with_and_never_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::claim(dir.path(), true).unwrap();
    let path = dir.path().join("magma.db");
    // What a founding left behind is not the volcano's.
    folder.begin_bootstrap(&config(), false).unwrap();
    std::fs::write(&path, "founded").unwrap();
    folder.begin_bootstrap(&config(), true).unwrap();
    assert!(!path.exists());
    std::fs::write(&path, "copies").unwrap();
    assert_eq!(folder.contents().unwrap(), Contents::Joining);
    assert!(matches!(folder.begin_bootstrap(&config(), false), Err(FolderError::Joining(_))));
    assert!(matches!(folder.network(), Err(FolderError::Joining(_))));
    folder.begin_bootstrap(&config(), true).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"copies");
    folder.finish_bootstrap(true).unwrap();
    assert_eq!(folder.contents().unwrap(), Contents::Network(Box::new(config())));
}

#[test]
fn a_folder_that_has_left_its_network_can_only_join_again_and_is_cleared_then() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::claim(dir.path(), true).unwrap();
    folder.begin_bootstrap(&config(), false).unwrap();
    folder.finish_bootstrap(false).unwrap();
    std::fs::write(dir.path().join("magma.db"), "given away").unwrap();
    folder.retire().unwrap();
    assert!(matches!(folder.network(), Err(FolderError::Left(_))));
    assert!(matches!(folder.begin_bootstrap(&config(), false), Err(FolderError::Left(_))));
    assert!(dir.path().join("magma.db").exists());
    folder.begin_bootstrap(&config(), true).unwrap();
    assert!(!dir.path().join("magma.db").exists());
    assert_eq!(folder.contents().unwrap(), Contents::Joining);
    folder.finish_bootstrap(true).unwrap();
    assert_eq!(folder.contents().unwrap(), Contents::Network(Box::new(config())));
    folder.retire().unwrap();
    assert_eq!(
        folder.contents().unwrap(),
        Contents::Left,
        "the mark of the first time is gone, this is the second"
    );
}

#[test]
fn a_folder_with_a_network_is_never_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::claim(dir.path(), true).unwrap();
    folder.begin_bootstrap(&config(), false).unwrap();
    folder.finish_bootstrap(false).unwrap();
    std::fs::write(dir.path().join("magma.db"), "precious").unwrap();
    assert!(matches!(folder.begin_bootstrap(&config(), false), Err(FolderError::HoldsNetwork(_))));
    std::fs::remove_file(dir.path().join("config.toml")).unwrap();
    assert!(matches!(folder.begin_bootstrap(&config(), false), Err(FolderError::Orphaned(_))));
    assert_eq!(std::fs::read(dir.path().join("magma.db")).unwrap(), b"precious");
}

#[test]
fn other_contents_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::claim(dir.path(), false).unwrap();
    std::fs::create_dir(dir.path().join("lost+found")).unwrap();
    std::fs::write(dir.path().join("bootstrap.toml.new"), "# Writ").unwrap();
    assert_eq!(folder.contents().unwrap(), Contents::Empty);
    std::fs::write(dir.path().join("letter.txt"), "").unwrap();
    assert_eq!(folder.contents().unwrap(), Contents::Foreign("letter.txt".to_owned()));
    std::fs::write(dir.path().join("magma.db"), "").unwrap();
    assert_eq!(folder.contents().unwrap(), Contents::Orphaned);
}

#[test]
fn two_processes_do_not_share_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let first = Folder::claim(dir.path(), true).unwrap();
    assert!(matches!(Folder::claim(dir.path(), true), Err(FolderError::InUse(_))));
    drop(first);
    Folder::claim(dir.path(), true).unwrap();
}

#[test]
fn a_missing_folder_is_not_made_by_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("typo");
    assert!(matches!(Folder::claim(&path, false), Err(FolderError::Missing(_))));
    assert!(!path.exists());
}

#[test]
fn newer_and_damaged_configurations_are_refused() {
    let text = config().to_text().unwrap();
    let newer = text.replace("format = 1", "format = 2");
    assert_eq!(VolcanoConfig::parse(&newer), Err(ParseError::Newer(2)));
    for damage in ["format = 1", "port = 12000", "key = "] {
        let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with(damage)).collect();
        let damaged = kept.join("\n");
        assert!(matches!(VolcanoConfig::parse(&damaged), Err(ParseError::Damaged(_))), "{damage}");
    }
    assert!(matches!(VolcanoConfig::parse(&text.replace("12000", "65533")), Err(ParseError::Damaged(_))));
}

#[test]
fn errors_and_debug_output_do_not_show_the_key() {
    assert!(!format!("{:?}", config()).contains("quotes"));
    let broken = "format = 1\nkey = 's3cr3t' nonsense\n";
    let Err(ParseError::Damaged(reason)) = VolcanoConfig::parse(broken) else { panic!("it parsed") };
    assert!(!reason.contains("s3cr3t"), "{reason}");
}

#[test]
fn nicknames_can_serve_as_file_names() {
    for good in ["wallace", "n1", "rack-2.b_3"] {
        assert!(good.parse::<Nickname>().is_ok(), "{good}");
    }
    for bad in ["", ".", "..", ".hidden", "a/b", "a b", "a\n", "-n", "Grüße", &"x".repeat(65)] {
        assert_eq!(bad.parse::<Nickname>(), Err(ValueError::Nickname), "{bad}");
    }
}

proptest! {
    #[test]
    fn any_text_is_a_configuration_or_an_error(text in ".*|(format = 1\n([a-z-]{1,9} = ('[a-z]*'|[0-9]{1,6})\n){0,8})") {
        fuzz_config(text.as_bytes());
    }

    #[test]
    fn any_change_of_a_byte_is_a_configuration_or_an_error(at: prop::sample::Index, byte: u8) {
        let mut bytes = config().to_text().unwrap().as_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        fuzz_config(&bytes);
    }
}
