use super::*;

use proptest::prelude::*;

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("magma-options-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn surroundings(&self) -> Surroundings {
        Surroundings {
            key_variable: None,
            key_file: self.0.join("key"),
            config_file: self.0.join("magma.toml"),
        }
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn host(host: &str, port: u16) -> HostPort {
    HostPort { host: host.to_owned(), port }
}

#[test]
fn hosts_are_names_and_addresses_with_or_without_port() {
    assert_eq!("wallace".parse(), Ok(host("wallace", 12000)));
    assert_eq!("10.0.0.1:9".parse(), Ok(host("10.0.0.1", 9)));
    assert_eq!("::1".parse(), Ok(host("::1", 12000)));
    assert_eq!("[::1]".parse(), Ok(host("::1", 12000)));
    assert_eq!("[::1]:12000".parse(), Ok(host("::1", 12000)));
    assert_eq!("[fe80::1%eth0]:7".parse(), Ok(host("fe80::1%eth0", 7)));
}

#[test]
fn what_is_no_host_is_refused() {
    use ParseHostError::{BadHost, BadPort, NoHost};
    let parse = |text: &str| text.parse::<HostPort>().unwrap_err();
    assert_eq!(parse(""), NoHost);
    assert_eq!(parse(":12000"), NoHost);
    assert_eq!(parse("a b"), BadHost);
    assert_eq!(parse("[::1"), BadHost);
    assert_eq!(parse("[wallace]:1"), BadHost);
    assert_eq!(parse("1:2:3"), BadHost);
    assert_eq!(parse("[::1]12"), BadPort);
    assert_eq!(parse("wallace:"), BadPort);
    assert_eq!(parse("wallace:0"), BadPort);
    assert_eq!(parse("wallace:+1"), BadPort);
    assert_eq!(parse("wallace:65536"), BadPort);
}

#[test]
fn several_hosts_are_named_with_commas_or_one_by_one() {
    use clap::Parser as _;
    #[derive(clap::Parser)]
    struct Program {
        #[command(flatten)]
        shared: SharedOptions,
    }
    let hosts = |arguments: &[&str]| {
        Program::try_parse_from([&["program"], arguments].concat()).map(|program| program.shared.hosts)
    };
    let three = vec![host("a", 12000), host("::1", 7), host("c", 12000)];
    assert_eq!(hosts(&["--host=a,[::1]:7", "--host", "c"]).unwrap(), three);
    assert!(hosts(&["--host=a,"]).is_err());
}

proptest! {
    #[test]
    fn a_host_that_parses_is_written_so_that_it_parses_again(text in "\\PC{0,20}|[a-z0-9.:\\[\\]%]{0,20}") {
        if let Ok(host) = text.parse::<HostPort>() {
            prop_assert_eq!(host.to_string().parse::<HostPort>(), Ok(host));
        }
    }

    #[test]
    fn any_text_as_configuration_is_understood_or_refused(text: String) {
        let _ = ConfigFile::parse(Path::new("magma.toml"), &text);
    }
}

#[test]
fn without_a_key_the_error_says_where_to_put_one() {
    let folder = Folder::new("nokey");
    let error = SharedOptions::default().resolve(&folder.surroundings()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no key: give --key-file FILE, or set MAGMA_KEY, or write it to /etc/magma/key"
    );
}

#[test]
fn key_sources_are_tried_in_their_order() {
    let folder = Folder::new("order");
    let mut around = folder.surroundings();
    let mut options = SharedOptions::default();
    let key = |options: &SharedOptions, around: &Surroundings| {
        options.resolve(around).unwrap().key.expose().to_owned()
    };

    folder.write("key", "from the default file\n", 0o600);
    assert_eq!(key(&options, &around), "from the default file");
    folder.write("magma.toml", "key = 'from the configuration'", 0o600);
    assert_eq!(key(&options, &around), "from the configuration");
    around.key_variable = Some("from the environment".to_owned());
    assert_eq!(key(&options, &around), "from the environment");
    options.key.key_file = Some(folder.write("other", "from the named file", 0o600));
    assert_eq!(key(&options, &around), "from the named file");
    options.key.key = Some(Secret::new("from the command line"));
    assert_eq!(key(&options, &around), "from the command line");
}

#[test]
fn a_key_that_others_can_read_is_used_with_a_warning() {
    let folder = Folder::new("public");
    folder.write("key", "k", 0o640);
    assert_eq!(SharedOptions::default().resolve(&folder.surroundings()).unwrap().warnings, [""; 0]);
    folder.write("key", "k", 0o644);
    let warnings = SharedOptions::default().resolve(&folder.surroundings()).unwrap().warnings;
    assert!(warnings[0].contains("every user of this machine can read it; do `chmod o-rw "), "{warnings:?}");
}

#[test]
fn an_empty_or_oversized_key_file_is_refused() {
    let folder = Folder::new("empty");
    folder.write("key", " \n", 0o600);
    let error = SharedOptions::default().resolve(&folder.surroundings()).unwrap_err();
    assert!(matches!(error, OptionsError::EmptyKey { .. }));
    folder.write("key", &"x".repeat(5000), 0o600);
    let error = SharedOptions::default().resolve(&folder.surroundings()).unwrap_err();
    assert!(error.to_string().ends_with("it has more than 4096 bytes"), "{error}");
}

#[test]
fn the_configuration_file_fills_what_the_command_line_leaves_open() {
    let folder = Folder::new("config");
    let config = "hosts = ['10.0.0.1', '[::1]:13000']\nkey = 'k'\ndebug = 'fs'\n[nfs]\nlisten = 'x'\n";
    folder.write("magma.toml", config, 0o600);
    let resolved = SharedOptions::default().resolve(&folder.surroundings()).unwrap();
    assert_eq!(resolved.hosts, [host("10.0.0.1", 12000), host("::1", 13000)]);
    assert_eq!(resolved.channels.to_string(), "fs");
    let nfs: toml::Table = resolved.config.section("nfs").unwrap().unwrap();
    assert_eq!(nfs["listen"].as_str(), Some("x"));
    assert_eq!(resolved.config.section::<toml::Table>("9p").unwrap(), None);

    let options =
        SharedOptions { hosts: vec![host("b", 1)], debug: "n".parse().ok(), ..SharedOptions::default() };
    let resolved = options.resolve(&folder.surroundings()).unwrap();
    assert_eq!((resolved.hosts, resolved.channels.to_string()), (vec![host("b", 1)], "n".to_owned()));
}

#[test]
fn misspelt_configuration_is_refused_by_name() {
    let parse = |text| ConfigFile::parse(Path::new("m.toml"), text).unwrap_err().to_string();
    assert!(parse("key_file = 'x'").contains("key_file"));
    assert!(parse("[nsf]").contains("there is no section [nsf]"));
    assert!(parse("hosts = ['a b']").contains("a host name has letters"));
    assert!(parse("debug = 'x'").contains("is no debug channel"));
    assert!(parse("key = 'a'\nkey-file = 'b'").contains("not both"));
}

#[test]
fn the_debug_output_does_not_show_the_key() {
    let folder = Folder::new("debug");
    let options = SharedOptions {
        key: KeyOptions { key: Some(Secret::new("s3cr3t")), key_file: None },
        ..SharedOptions::default()
    };
    let resolved = options.resolve(&folder.surroundings()).unwrap();
    assert!(!format!("{options:?} {resolved:?} {:?}", resolved.client_config("test")).contains("s3cr3t"));
}
