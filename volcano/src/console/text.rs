//! How names, modes, sizes and times are written on the console.

use std::time::Duration;

use magma_common::attr::{Attr, Kind};
use magma_common::key::Key;
use magma_common::time::Timestamp;

/// A name or path for one line of output: printable UTF-8 as it is, a backslash doubled, every other byte as `\xNN`.
pub(super) fn escape_name(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                c if is_printable(c) => text.push(c),
                c => escape_char(c, &mut text),
            }
        }
        chunk.invalid().iter().for_each(|&byte| escape_byte(byte, &mut text));
    }
    text
}

/// Makes a file's bytes safe for a terminal, piece by piece: printable UTF-8, tabs and line ends as they are, every
/// other byte as `\xNN`.
#[derive(Debug, Default)]
pub(super) struct Escaper {
    /// The beginning of a character whose rest is in the next piece.
    held: Vec<u8>,
}

impl Escaper {
    /// The text of a piece; `last` if nothing follows.
    pub(super) fn piece(&mut self, bytes: &[u8], last: bool) -> String {
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(bytes);
        let mut text = String::with_capacity(held.len());
        let mut chunks = held.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            for c in chunk.valid().chars() {
                if c == '\n' || c == '\t' || is_printable(c) {
                    text.push(c);
                } else {
                    escape_char(c, &mut text);
                }
            }
            let unfinished = chunks.peek().is_none() && may_go_on(chunk.invalid());
            if unfinished && !last {
                self.held = chunk.invalid().to_vec();
            } else {
                chunk.invalid().iter().for_each(|&byte| escape_byte(byte, &mut text));
            }
        }
        text
    }
}

/// Whether these bytes are the beginning of a character of UTF-8.
fn may_go_on(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

/// Neither a control character nor one that reorders or hides its neighbours.
fn is_printable(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

fn escape_char(c: char, text: &mut String) {
    c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| escape_byte(byte, text));
}

fn escape_byte(byte: u8, text: &mut String) {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('?');
    text.extend(['\\', 'x', digit(byte >> 4), digit(byte & 15)]);
}

/// Kind and permission bits as `ls -l` shows them.
pub(super) fn mode(kind: Kind, mode: u32) -> String {
    let kind = match kind {
        Kind::File => '-',
        Kind::Directory => 'd',
        Kind::Symlink => 'l',
        Kind::Fifo => 'p',
        Kind::Socket => 's',
        Kind::CharDevice => 'c',
        Kind::BlockDevice => 'b',
    };
    let triple = |shift: u32, special: bool, set: char, set_only: char| {
        let bits = mode >> shift;
        let execute = match (bits & 1 != 0, special) {
            (true, true) => set,
            (false, true) => set_only,
            (true, false) => 'x',
            (false, false) => '-',
        };
        [if bits & 4 != 0 { 'r' } else { '-' }, if bits & 2 != 0 { 'w' } else { '-' }, execute]
    };
    let mut text = String::from(kind);
    text.extend(triple(6, mode & 0o4000 != 0, 's', 'S'));
    text.extend(triple(3, mode & 0o2000 != 0, 's', 'S'));
    text.extend(triple(0, mode & 0o1000 != 0, 't', 'T'));
    text
}

/// A flare's kind as a word.
pub(super) const fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Directory => "directory",
        Kind::Symlink => "symlink",
        Kind::Fifo => "fifo",
        Kind::Socket => "socket",
        Kind::CharDevice => "character device",
        Kind::BlockDevice => "block device",
    }
}

/// Size in bytes; of a device its numbers.
pub(super) fn size(attr: &Attr) -> String {
    match attr.kind {
        Kind::CharDevice | Kind::BlockDevice => device(attr.rdev),
        _ => attr.size.to_string(),
    }
}

/// Major and minor number of a device in Linux's encoding (`makedev(3)`).
pub(super) fn device(rdev: u64) -> String {
    let major = (rdev >> 8) & 0xfff | (rdev >> 32) & 0xffff_f000;
    let minor = rdev & 0xff | (rdev >> 12) & 0xffff_ff00;
    format!("{major},{minor}")
}

/// A point in time in UTC, to the second: `2026-11-23 04:48:53`.
pub(super) fn time(time: Timestamp) -> String {
    let (days, second) = (time.seconds().div_euclid(86_400), time.seconds().rem_euclid(86_400));
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

/// The date so many days after 1970-01-01 in the Gregorian calendar.
fn civil(days: i64) -> (i64, i64, i64) {
    // Years that begin in March and eras of 400 of them, so that leap days come last.
    let days = days.saturating_add(719_468);
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// A length of time for people: `12 s`, `3 min`, `2 h 5 min`, `3 d 4 h`.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{minutes} min"),
        7200..172_800 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// A number of things.
pub(super) fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// The key's part that slice bounds are made of, as 16 hexadecimal digits.
pub(super) fn bound(key: &Key) -> String {
    format!("{:016x}", key.ino().0)
}

/// Rows under headings, each column as wide as its widest cell, numbers to the right.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    // A slice's bound has 16 digits and is no number.
    let numeric = |cell: &str| cell.len() < 16 && cell.trim_end_matches('%').parse::<f64>().is_ok();
    let column = |i: usize| rows.iter().filter_map(move |row| row.get(i));
    let widths: Vec<(usize, bool)> = headings
        .iter()
        .enumerate()
        .map(|(i, heading)| {
            let widest = column(i).map(|cell| cell.chars().count()).max().unwrap_or(0);
            (widest.max(heading.chars().count()), !rows.is_empty() && column(i).all(|cell| numeric(cell)))
        })
        .collect();
    let mut text = String::new();
    let headings: Vec<String> = headings.iter().map(|&heading| heading.to_owned()).collect();
    for row in std::iter::once(&headings).chain(rows) {
        let mut line = String::new();
        for (cell, (width, right)) in row.iter().zip(&widths) {
            let filling = " ".repeat(width.saturating_sub(cell.chars().count()));
            let (before, after) = if *right { (&*filling, "") } else { ("", &*filling) };
            line.extend([before, cell, after, "  "]);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    #[test]
    fn names_are_shown_without_harming_the_terminal() {
        assert_eq!(escape_name(b"caf\xc3\xa9 bar"), "caf\u{e9} bar");
        assert_eq!(escape_name(b"a\\b\n\x1b[2J\xff"), r"a\\b\x0a\x1b[2J\xff");
        assert_eq!(escape_name("x\u{202e}y\u{9b}".as_bytes()), r"x\xe2\x80\xaey\xc2\x9b");
    }

    #[test]
    fn modes_are_those_of_ls() {
        assert_eq!(mode(Kind::Directory, 0o1777), "drwxrwxrwt");
        assert_eq!(mode(Kind::File, 0o4755), "-rwsr-xr-x");
        assert_eq!(mode(Kind::File, 0o7644), "-rwSr-Sr-T");
        assert_eq!(mode(Kind::Symlink, 0o777), "lrwxrwxrwx");
    }

    #[test]
    fn dates_before_and_after_1970_and_on_leap_days_are_right() {
        let at = |seconds| time(Timestamp::new(seconds, 0).unwrap());
        assert_eq!(at(0), "1970-01-01 00:00:00");
        assert_eq!(at(-1), "1969-12-31 23:59:59");
        assert_eq!(at(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(at(1_709_251_199), "2024-02-29 23:59:59");
        assert_eq!(at(4_107_542_400), "2100-03-01 00:00:00");
        assert_eq!(at(1_795_409_333), "2026-11-23 04:48:53");
    }

    #[test]
    fn lengths_of_time_have_two_units_at_most() {
        let text = |seconds| duration(Duration::from_secs(seconds));
        assert_eq!([text(0), text(119), text(120)], ["0 s", "119 s", "2 min"]);
        assert_eq!([text(7199), text(7200), text(90_000)], ["119 min", "2 h 0 min", "25 h 0 min"]);
        assert_eq!(text(3 * 86_400 + 4 * 3600), "3 d 4 h");
    }

    #[test]
    fn device_numbers_are_taken_apart_as_linux_does() {
        assert_eq!(device(0x0801), "8,1");
        // Minor numbers above 255 continue at bit 20.
        assert_eq!(device((1 << 20) | (2 << 8) | 3), "2,259");
    }

    #[test]
    fn tables_align_numbers_to_the_right() {
        let rows = [vec!["a".to_owned(), "5".to_owned()], vec!["long".to_owned(), "1000".to_owned()]];
        assert_eq!(table(&["NAME", "N"], &rows), "NAME     N\na        5\nlong  1000\n");
    }

    proptest! {
        #[test]
        fn pieces_of_a_file_are_escaped_as_the_whole(
            text in "[a-z\u{e4}\u{20ac}\u{1f30b}\n\u{1b}]{0,20}",
            junk in proptest::collection::vec(any::<u8>(), 0..8),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..4),
        ) {
            let bytes = [text.as_bytes(), &junk, text.as_bytes()].concat();
            let whole = Escaper::default().piece(&bytes, true);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let (mut escaper, mut parts, mut from) = (Escaper::default(), String::new(), 0);
            for to in cuts {
                parts += &escaper.piece(&bytes[from..to], false);
                from = to;
            }
            parts += &escaper.piece(&bytes[from..], true);
            prop_assert_eq!(&parts, &whole);
            let harmful = ['\u{1b}', '\r'];
            prop_assert!(!whole.contains(harmful));
        }
    }
}
