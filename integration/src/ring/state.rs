//! What a volcano says of the network, read from the tables of the console's command `lava` and from `lava health`.

use std::collections::BTreeMap;

/// The network as one volcano knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Grows with every change.
    pub(crate) version: u64,
    /// Nicknames of all volcanos.
    pub(crate) members: Vec<String>,
    /// The slices.
    pub(crate) slices: Vec<Copies>,
    /// Who coordinates, if anybody is known to.
    pub(crate) coordinator: Option<String>,
    /// `lava health` says that all is well.
    pub(crate) well: bool,
}

/// Who keeps a slice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Copies {
    /// Who serves it.
    pub(crate) primary: String,
    /// Who has everything.
    pub(crate) mirrors: Vec<String>,
    /// Who is catching up.
    pub(crate) joining: Vec<String>,
}

impl State {
    /// Reads the answers to `lava` and `lava health`; `None` if they are none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let heading = text.lines().find(|line| line.contains("topology version "))?;
        let after = heading.split("topology version ").nth(1)?;
        let version = after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
        let names = |cell: Option<&String>| -> Vec<String> {
            let cell = cell.map_or("-", String::as_str);
            cell.split(',').filter(|name| *name != "-").map(str::to_owned).collect()
        };
        let slices = rows(text, "SLICE").into_iter().map(|row| Copies {
            primary: row.get("PRIMARY").cloned().unwrap_or_default(),
            mirrors: names(row.get("MIRRORS")),
            joining: names(row.get("JOINING")),
        });
        let members = rows(text, "VOLCANO").into_iter().filter_map(|row| row.get("VOLCANO").cloned());
        let coordinator =
            text.split("coordinator: ").nth(1).and_then(|rest| rest.split([';', '\r', '\n']).next());
        let coordinator = coordinator.filter(|name| *name != "nobody").map(str::to_owned);
        let well = text.contains("All is well");
        Some(Self { version, members: members.collect(), slices: slices.collect(), coordinator, well })
    }

    /// Every slice has this many copies, all of them in sync.
    pub(crate) fn is_in_sync(&self, copies: usize) -> bool {
        !self.slices.is_empty()
            && self.slices.iter().all(|slice| slice.joining.is_empty() && slice.mirrors.len() + 1 == copies)
    }
}

/// What every line begins with on which a command was typed; the console does not repeat the command.
const PROMPT: &str = "MAGMA";

/// The rows of the table whose heading begins with this word, by column. No cell contains a blank, but for those of the
/// last column, of which the first word is taken. The table ends at a shorter line, or at the prompt.
fn rows(text: &str, first: &str) -> Vec<BTreeMap<String, String>> {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let mut lines = text.lines().skip_while(|line| line.split_whitespace().next() != Some(first));
    let Some(heading) = lines.next() else { return Vec::new() };
    let heading = words(heading);
    lines
        .map(words)
        .take_while(|row| row.len() >= heading.len() && row.first().is_none_or(|word| word != PROMPT))
        .map(|row| heading.iter().cloned().zip(row).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Copies, State};

    const LAVA: &str = "\
MAGMA [wallace] / > lava
network 00c0ffee00c0ffee, topology version 17, 3 volcanos, 1 slice
copies: 2 wanted, 2 in sync; coordinator: shaun; voters: wallace,gromit,shaun

SLICE  START             STOP              SHARE    KEYS  BYTES  EPOCH  PRIMARY  MIRRORS  JOINING
    1  0000000000000000  ffffffffffffffff  100.00%    12   4096     16  gromit   wallace  shaun

VOLCANO  SERVERNAME  ADDRESS           LOAD  KEYS  BYTES  DISK       FREE   STATE
wallace  localhost   10.71.0.1:12000   0.50    12   4096  100000  50000  mirroring
gromit   localhost   10.71.0.2:12000      ?     ?      ?       ?      ?  serving, silent for 5 s
shaun    localhost   10.71.0.3:12000   0.50    12   4096  100000  50000  joining
MAGMA [wallace]:/> All is well: gromit serves, 2 of 2 copies are in sync (gromit and wallace), 3 volcanos are there.
MAGMA [wallace] / > quit
";

    #[test]
    fn the_tables_are_read() {
        let state = State::parse(LAVA).unwrap();
        assert_eq!(state.version, 17);
        assert_eq!(state.members, ["wallace", "gromit", "shaun"]);
        let [slice] = state.slices.as_slice() else { panic!("{state:?}") };
        let expected = Copies {
            primary: "gromit".to_owned(),
            mirrors: vec!["wallace".to_owned()],
            joining: vec!["shaun".to_owned()],
        };
        assert_eq!(*slice, expected);
        assert_eq!(state.coordinator.as_deref(), Some("shaun"));
        assert!(state.well);
    }

    #[test]
    fn a_copy_that_is_joining_is_not_in_sync() {
        let mut state = State::parse(LAVA).unwrap();
        assert!(!state.is_in_sync(2));
        state.slices.iter_mut().for_each(|slice| slice.joining.clear());
        assert!(state.is_in_sync(2));
        assert!(!state.is_in_sync(3));
    }

    #[test]
    fn anything_else_is_no_answer() {
        assert_eq!(State::parse("MAGMA [wallace] /> "), None);
        assert!(!State::default().is_in_sync(1));
    }
}
