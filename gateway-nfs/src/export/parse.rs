use std::str::FromStr;

use serde::Deserialize;

use super::{Export, ExportPath, Network, ParseNetworkError, ParsePathError, Squash};

/// Why a text or section describes no export.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseExportError {
    /// The path is no good.
    #[error("`{path}`: {reason}")]
    Path {
        /// What stood there.
        path: String,
        /// What is wrong with it.
        reason: ParsePathError,
    },
    /// A client is no network.
    #[error(transparent)]
    Client(#[from] ParseNetworkError),
    /// An option nobody knows.
    #[error(
        "there is no export option `{0}`; there are rw, ro, root_squash, no_root_squash, all_squash, no_all_squash, \
         secure, insecure, anonuid=N, anongid=N, client=NETWORK"
    )]
    UnknownOption(String),
    /// A number that is none.
    #[error("`{0}`: the id must be a number from 0 to 4294967294")]
    BadId(String),
}

/// An `[[export]]` section of the configuration file.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ExportSection {
    /// The directory to export.
    pub path: String,
    /// Networks that may mount it; this host only if there are none.
    #[serde(default)]
    pub clients: Vec<String>,
    /// Options as in `--export`.
    #[serde(default)]
    pub options: Vec<String>,
}

impl ExportSection {
    /// The export it describes.
    pub fn parse(&self) -> Result<Export, ParseExportError> {
        let mut export = Export::new(path(&self.path)?);
        let clients = self.clients.iter().map(|text| text.parse()).collect::<Result<Vec<Network>, _>>()?;
        if !clients.is_empty() {
            export.clients = clients;
        }
        // Both forms are natural to write: one string per option, or all of them as exports(5) has them.
        apply(&mut export, self.options.iter().flat_map(|options| options.split(',')))?;
        Ok(export)
    }
}

/// `PATH[:OPTION,…]`, as after `--export`. A path with a colon in it can be exported from the configuration file.
impl FromStr for Export {
    type Err = ParseExportError;

    fn from_str(text: &str) -> Result<Self, ParseExportError> {
        let (at, options) = text.split_once(':').unwrap_or((text, ""));
        let mut export = Self::new(path(at)?);
        apply(&mut export, options.split(','))?;
        Ok(export)
    }
}

fn path(text: &str) -> Result<ExportPath, ParseExportError> {
    text.parse().map_err(|reason| ParseExportError::Path { path: text.to_owned(), reason })
}

fn apply<'a>(export: &mut Export, options: impl Iterator<Item = &'a str>) -> Result<(), ParseExportError> {
    let mut clients = Vec::new();
    for option in options.map(str::trim).filter(|option| !option.is_empty()) {
        match option.split_once('=').unwrap_or((option, "")) {
            ("rw", "") => export.read_only = false,
            ("ro", "") => export.read_only = true,
            ("root_squash", "") => export.squash = Squash::Root,
            ("no_root_squash", "") => export.squash = Squash::None,
            ("all_squash", "") => export.squash = Squash::All,
            ("no_all_squash", "") if export.squash == Squash::All => export.squash = Squash::Root,
            ("no_all_squash", "") => {}
            ("secure", "") => export.secure = true,
            ("insecure", "") => export.secure = false,
            ("anonuid", id) => export.anonuid = parse_id(option, id)?,
            ("anongid", id) => export.anongid = parse_id(option, id)?,
            ("client", network) => clients.push(network.parse()?),
            _ => return Err(ParseExportError::UnknownOption(option.to_owned())),
        }
    }
    if !clients.is_empty() {
        export.clients = clients;
    }
    Ok(())
}

/// The highest number is `(uid_t)-1`, which means "leave it" elsewhere and is nobody's.
fn parse_id(option: &str, id: &str) -> Result<u32, ParseExportError> {
    id.parse().ok().filter(|&id| id != u32::MAX).ok_or_else(|| ParseExportError::BadId(option.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    #[test]
    fn an_export_without_options_is_for_this_host_with_root_squashed() {
        let export: Export = "/docs/".parse().unwrap();
        assert_eq!(export, Export::new("/docs".parse().unwrap()));
        assert!(export.lists("127.0.0.1".parse().unwrap()) && !export.lists("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn options_are_those_of_exports() {
        let text = "/:ro,no_root_squash,insecure,anonuid=7,anongid=8,client=10.0.0.0/8,client=fd00::/8";
        let export: Export = text.parse().unwrap();
        assert!(export.read_only && !export.secure && export.squash == Squash::None);
        assert_eq!((export.anonuid, export.anongid, export.clients.len()), (7, 8, 2));
        assert!(!export.lists("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        let error = |text: &str| text.parse::<Export>().unwrap_err().to_string();
        assert!(error("docs").contains("must begin with /"));
        assert!(error("/:rx").contains("no export option `rx`"));
        assert!(error("/:anonuid=-1").contains("the id must be a number"));
        assert!(error("/:anonuid=4294967295").contains("the id must be a number"));
        assert!(error("/:client=nowhere").contains("is no address"));
        assert!(error("/:ro=yes").contains("no export option `ro=yes`"));
    }

    #[test]
    fn a_section_of_the_configuration_says_the_same() {
        let section: ExportSection = toml::from_str(
            "path = '/a:b'\nclients = ['10.0.0.0/8']\noptions = ['ro', 'all_squash,anonuid=7']",
        )
        .unwrap();
        let export = section.parse().unwrap();
        assert_eq!(
            (export.path.to_string(), export.squash, export.anonuid),
            ("/a:b".to_owned(), Squash::All, 7)
        );
        assert!(toml::from_str::<ExportSection>("path = '/'\nclient = []").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_an_export_or_refused(text: String) {
            let _ = text.parse::<Export>();
        }
    }
}
