//! What is mounted, as `mount(8)` and `fstab(5)` name it: `HOST[:PORT][,HOST[:PORT]…]:/PATH`.

use std::str::FromStr;

use magma_common::client::HostPort;

/// Hosts to contact and the directory to mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Volcanos to contact.
    pub hosts: Vec<HostPort>,
    /// The directory, from the network's root; without slashes at its ends.
    pub path: String,
}

/// Why a text is no source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` does not say what to mount: HOST:/ or HOST:PORT:/ or HOST1,HOST2:/SUBDIRECTORY ({reason})")]
pub struct ParseSourceError {
    text: String,
    reason: String,
}

impl FromStr for Source {
    type Err = ParseSourceError;

    fn from_str(text: &str) -> Result<Self, ParseSourceError> {
        let wrong = |reason: &str| ParseSourceError { text: text.to_owned(), reason: reason.to_owned() };
        let (hosts, path) = text.split_once(":/").ok_or_else(|| wrong("there is no `:/` in it"))?;
        let hosts = hosts.split(',').map(|host| host.parse().map_err(|error| wrong(&format!("{error}"))));
        Ok(Self { hosts: hosts.collect::<Result<_, _>>()?, path: path.trim_matches('/').to_owned() })
    }
}

impl Source {
    /// The source as the list of mounts shows it.
    pub fn display(hosts: &[HostPort], path: &str) -> String {
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        format!("{}:/{path}", hosts.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(Vec<String>, String), ParseSourceError> {
        let source: Source = text.parse()?;
        Ok((source.hosts.iter().map(ToString::to_string).collect(), source.path))
    }

    #[test]
    fn hosts_ports_and_a_subdirectory_are_read() {
        assert_eq!(parse("wallace:/").unwrap(), (vec!["wallace:12000".into()], String::new()));
        assert_eq!(
            parse("wallace:13000,gromit:/docs/x/").unwrap(),
            (vec!["wallace:13000".into(), "gromit:12000".into()], "docs/x".into())
        );
        assert_eq!(parse("[::1]:12000:/a").unwrap(), (vec!["[::1]:12000".into()], "a".into()));
    }

    #[test]
    fn what_names_no_host_or_no_path_is_refused() {
        assert!(parse("/dev/sda1").is_err());
        assert!(parse(":/").is_err());
        assert!(parse("wallace").is_err());
    }
}
