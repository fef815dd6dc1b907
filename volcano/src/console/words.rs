//! Splits a line into words, as a shell would.
//!
//! Blanks separate words. `'…'` takes everything as it stands. In `"…"` and outside quotes a backslash takes away the
//! meaning of the next character; `\xNN` is the byte with that number, and `\n`, `\r`, `\t` are the usual ones,
//! so that every name can be typed.

/// Why a line has no words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum WordsError {
    /// A quote without its partner.
    #[error("the quote {0} is not closed")]
    OpenQuote(char),
    /// A backslash at the end.
    #[error("a backslash at the end of the line has nothing to stand for")]
    OpenEscape,
    /// `\x` without two digits.
    #[error("\\x needs two hexadecimal digits")]
    BadHex,
    /// A letter or digit that means nothing.
    #[error("\\{0} is unknown; there are \\xNN, \\n, \\r, \\t, and a backslash before any other sign")]
    UnknownEscape(char),
}

/// The words of a line.
pub(super) fn split(line: &[u8]) -> Result<Vec<Vec<u8>>, WordsError> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quote: Option<u8> = None;
    let mut rest = line.iter().copied();
    while let Some(byte) = rest.next() {
        match (quote, byte) {
            (None, b' ' | b'\t') => words.extend(word.take()),
            (None, b'\'' | b'"') => {
                quote = Some(byte);
                word.get_or_insert_default();
            }
            (Some(open), _) if open == byte => quote = None,
            (None | Some(b'"'), b'\\') => word.get_or_insert_default().push(escape(&mut rest)?),
            _ => word.get_or_insert_default().push(byte),
        }
    }
    if let Some(open) = quote {
        return Err(WordsError::OpenQuote(char::from(open)));
    }
    words.extend(word);
    Ok(words)
}

fn escape(rest: &mut impl Iterator<Item = u8>) -> Result<u8, WordsError> {
    let byte = rest.next().ok_or(WordsError::OpenEscape)?;
    match byte {
        b'x' => {
            let mut digit = || {
                let digit = rest.next().and_then(|byte| char::from(byte).to_digit(16));
                digit.and_then(|digit| u8::try_from(digit).ok()).ok_or(WordsError::BadHex)
            };
            Ok(digit()? << 4 | digit()?)
        }
        b'n' => Ok(b'\n'),
        b'r' => Ok(b'\r'),
        b't' => Ok(b'\t'),
        _ if byte.is_ascii_alphanumeric() => Err(WordsError::UnknownEscape(char::from(byte))),
        _ => Ok(byte),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    use crate::console::text;

    fn words(line: &str) -> Vec<String> {
        split(line.as_bytes()).unwrap().into_iter().map(|word| String::from_utf8(word).unwrap()).collect()
    }

    #[test]
    fn blanks_separate_and_quotes_hold_together() {
        assert_eq!(words("  ls \t -l  /a "), ["ls", "-l", "/a"]);
        assert_eq!(words(r#"cat 'a b' "c d" e\ f"#), ["cat", "a b", "c d", "e f"]);
        assert_eq!(words(r#"a'b'"c"d '' """#), ["abcd", "", ""]);
        assert_eq!(words(""), [""; 0]);
    }

    #[test]
    fn a_backslash_writes_any_byte_but_not_in_single_quotes() {
        assert_eq!(split(br"\xff\x00").unwrap(), [[0xff, 0]]);
        assert_eq!(words(r#"a\nb "\"\\" '\x41' \'"#), ["a\nb", "\"\\", r"\x41", "'"]);
    }

    #[test]
    fn unfinished_lines_are_refused() {
        assert_eq!(split(b"cat 'a"), Err(WordsError::OpenQuote('\'')));
        assert_eq!(split(b"cat \"a\\\""), Err(WordsError::OpenQuote('"')));
        assert_eq!(split(b"cat \\"), Err(WordsError::OpenEscape));
        assert_eq!(split(b"cat \\x4"), Err(WordsError::BadHex));
        assert_eq!(split(b"cat \\q"), Err(WordsError::UnknownEscape('q')));
    }

    proptest! {
        #[test]
        fn a_name_as_it_is_shown_can_be_typed_in_double_quotes(name: Vec<u8>) {
            let typed = format!("\"{}\"", text::escape_name(&name).replace('"', "\\\""));
            prop_assert_eq!(split(typed.as_bytes()), Ok(vec![name]));
        }

        #[test]
        fn any_line_has_words_or_an_error(line: Vec<u8>) {
            let _ = split(&line);
        }
    }
}
