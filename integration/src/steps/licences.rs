//! Checks the licence and the origin of every dependency against `deny.toml`.
//!
//! The file has cargo-deny's format; of it, `licenses.allow`, `licenses.exceptions`, `bans.deny` and
//! `sources` are looked at here (docs/decisions/0070-own-licence-check.md says why).

use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use crate::error::{Doing, Error, Result, wrong};
use crate::programs::Programs;
use crate::tally::Tally;

/// The part of `deny.toml` that is looked at.
#[derive(Debug, Deserialize)]
struct Policy {
    licenses: Licences,
    #[serde(default)]
    bans: Bans,
}

#[derive(Debug, Deserialize)]
struct Licences {
    allow: Vec<String>,
    #[serde(default)]
    exceptions: Vec<Exception>,
}

#[derive(Debug, Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Bans {
    #[serde(default)]
    deny: Vec<Banned>,
}

#[derive(Debug, Deserialize)]
struct Banned {
    #[serde(rename = "crate")]
    name: String,
}

/// The part of `cargo metadata` that is looked at.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// None for the workspace's own crates.
    source: Option<String>,
}

/// The step.
pub(super) fn check(programs: &Programs, _logs: &Path) -> Result<Tally> {
    let policy = read_policy(&programs.root().join("deny.toml"))?;
    let metadata = read_metadata(programs)?;
    let mut tally = Tally::default();
    for package in &metadata.packages {
        match policy.objection(package) {
            None => tally.passed += 1,
            Some(objection) => {
                println!("  FAILED  {} {}: {objection}", package.name, package.version);
                tally.failed += 1;
            }
        }
    }
    Ok(tally)
}

fn read_policy(path: &Path) -> Result<Policy> {
    let text = std::fs::read_to_string(path).doing(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text).map_err(|error| Error::Wrong(format!("{}: {error}", path.display())))
}

fn read_metadata(programs: &Programs) -> Result<Metadata> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(programs.root())
        .args(["metadata", "--format-version", "1", "--locked"])
        .output()
        .doing(|| "cannot run cargo metadata".to_owned())?;
    if !output.status.success() {
        return wrong(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| Error::Wrong(format!("cargo metadata: {error}")))
}

impl Policy {
    /// Why a package may not be used, if so.
    fn objection(&self, package: &Package) -> Option<String> {
        if self.bans.deny.iter().any(|banned| banned.name == package.name) {
            return Some("is banned in deny.toml".to_owned());
        }
        if package.source.as_ref().is_some_and(|source| !source.starts_with("registry+")) {
            return Some("comes from elsewhere than the registry".to_owned());
        }
        let Some(licence) = &package.license else {
            return Some("names no licence".to_owned());
        };
        let allowed = |name: &str| {
            let exception = self.licenses.exceptions.iter().find(|exception| exception.name == package.name);
            self.licenses
                .allow
                .iter()
                .chain(exception.iter().flat_map(|exception| &exception.allow))
                .any(|a| a == name)
        };
        match Expression::parse(licence) {
            Some(expression) if expression.holds(&allowed) => None,
            Some(_) => Some(format!("licence \"{licence}\" is not allowed by deny.toml")),
            None => Some(format!("licence \"{licence}\" is not an SPDX expression")),
        }
    }
}

/// An SPDX licence expression. `/`, which old packages use, means OR.
#[derive(Debug, PartialEq, Eq)]
enum Expression {
    Licence(String),
    Or(Box<Expression>, Box<Expression>),
    And(Box<Expression>, Box<Expression>),
}

/// Nesting of parentheses beyond any real licence.
const MAX_DEPTH: u32 = 16;

impl Expression {
    fn parse(text: &str) -> Option<Self> {
        let spaced = text.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let (expression, rest) = Self::any(&words, MAX_DEPTH)?;
        rest.is_empty().then_some(expression)
    }

    /// `all (OR all)*`: OR binds weaker than AND (SPDX 2.3, annex D.4.5).
    fn any<'a>(words: &'a [&'a str], depth: u32) -> Option<(Self, &'a [&'a str])> {
        let (mut left, mut rest) = Self::all(words, depth)?;
        while let Some((&"OR", after)) = rest.split_first() {
            let (right, further) = Self::all(after, depth)?;
            left = Self::Or(Box::new(left), Box::new(right));
            rest = further;
        }
        Some((left, rest))
    }

    fn all<'a>(words: &'a [&'a str], depth: u32) -> Option<(Self, &'a [&'a str])> {
        let (mut left, mut rest) = Self::one(words, depth)?;
        while let Some((&"AND", after)) = rest.split_first() {
            let (right, further) = Self::one(after, depth)?;
            left = Self::And(Box::new(left), Box::new(right));
            rest = further;
        }
        Some((left, rest))
    }

    fn one<'a>(words: &'a [&'a str], depth: u32) -> Option<(Self, &'a [&'a str])> {
        match words {
            ["(", inner @ ..] => {
                let (expression, rest) = Self::any(inner, depth.checked_sub(1)?)?;
                rest.split_first().filter(|(word, _)| **word == ")").map(|(_, rest)| (expression, rest))
            }
            ["OR" | "AND" | "WITH" | ")", ..] | [] => None,
            [licence, "WITH", exception, rest @ ..] => {
                Some((Self::Licence(format!("{licence} WITH {exception}")), rest))
            }
            [licence, rest @ ..] => Some((Self::Licence((*licence).to_owned()), rest)),
        }
    }

    fn holds(&self, allowed: &impl Fn(&str) -> bool) -> bool {
        match self {
            Self::Licence(name) => allowed(name),
            Self::Or(left, right) => left.holds(allowed) || right.holds(allowed),
            Self::And(left, right) => left.holds(allowed) && right.holds(allowed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Expression, Package, Policy};

    fn objection(licence: Option<&str>, source: Option<&str>, name: &str) -> Option<String> {
        let policy: Policy = toml::from_str(
            r#"
            [licenses]
            allow = ["MIT", "Apache-2.0 WITH LLVM-exception"]
            exceptions = [{ crate = "tables", allow = ["Unicode-3.0"] }]
            [bans]
            deny = [{ crate = "banned" }]
            "#,
        )
        .unwrap();
        policy.objection(&Package {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            license: licence.map(str::to_owned),
            source: source.map(str::to_owned),
        })
    }

    #[test]
    fn any_side_of_or_and_both_sides_of_and_must_be_allowed() {
        assert_eq!(objection(Some("GPL-3.0 OR MIT"), None, "x"), None);
        assert_eq!(objection(Some("GPL-3.0/MIT"), None, "x"), None);
        assert!(objection(Some("GPL-3.0 AND MIT"), None, "x").is_some());
        assert!(objection(Some("MIT AND (GPL-3.0 OR GPL-2.0)"), None, "x").is_some());
        assert_eq!(objection(Some("MIT AND (GPL-3.0 OR MIT)"), None, "x"), None);
    }

    #[test]
    fn exceptions_belong_to_one_crate_and_one_wording() {
        assert_eq!(objection(Some("Apache-2.0 WITH LLVM-exception"), None, "x"), None);
        assert!(objection(Some("Apache-2.0"), None, "x").is_some());
        assert_eq!(objection(Some("MIT AND Unicode-3.0"), None, "tables"), None);
        assert!(objection(Some("MIT AND Unicode-3.0"), None, "x").is_some());
    }

    #[test]
    fn no_licence_a_foreign_source_and_a_ban_are_objections() {
        assert!(objection(None, None, "x").is_some());
        assert!(objection(Some("MIT"), Some("git+ssh://somewhere"), "x").is_some());
        assert_eq!(objection(Some("MIT"), Some("registry+https://somewhere"), "x"), None);
        assert!(objection(Some("MIT"), None, "banned").is_some());
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for text in ["", "MIT OR", "(MIT", "MIT)", "OR MIT", "MIT Apache-2.0"] {
            assert_eq!(Expression::parse(text), None, "{text}");
        }
        assert_eq!(Expression::parse(&"(".repeat(1000)), None);
    }
}
