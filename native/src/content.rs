//! Big text: where it is cut, how it is split into elements that repeat, and how it is addressed.

use memchr::memchr2;
use xxhash_rust::xxh3::xxh3_128;

use crate::view::Form;

/// Longer values are stored in `content` and only referred to.
pub const INLINE_BYTES_MAX: usize = 256;
/// Characters of a longer value that stay in place.
pub const PREVIEW_CHARS: usize = 200;
/// An array with more elements is stored whole.
pub const ELEMENTS_MAX: usize = 65_536;

/// Identity of a content value within its trace.
#[inline]
pub fn hash(value: &str) -> u128 {
    xxh3_128(value.as_bytes())
}

/// Likewise of a value that may not be text.
pub fn hash_bytes(value: &[u8]) -> u128 {
    xxh3_128(value)
}

/// The first [`PREVIEW_CHARS`] characters.
pub fn preview(text: &str) -> &str {
    if text.len() <= PREVIEW_CHARS {
        return text;
    }
    match text.char_indices().nth(PREVIEW_CHARS) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

/// The top-level elements of a JSON array that is written compactly: `[` elements joined by exactly `,`
/// ([`Form::Item`]) or exactly `, ` ([`Form::ItemSpaced`]) `]`, so that joining them again gives the same bytes.
///
/// `None` for anything else: no array, an empty one, other white space between elements, brackets that do not match
/// up, more than [`ELEMENTS_MAX`] elements. Elements themselves are not checked to be JSON.
pub fn split_json_array(text: &str) -> Option<(Form, Vec<&str>)> {
    let bytes = text.as_bytes();
    if bytes.len() < 3 || bytes[0] != b'[' || bytes[bytes.len() - 1] != b']' {
        return None;
    }
    let mut elements = Vec::new();
    let mut form = None;
    let mut start = 1;
    let mut depth = 0u32;
    let mut at = 1;
    loop {
        match *bytes.get(at)? {
            b'"' => at = string_end(bytes, at + 1)?,
            b'[' | b'{' => depth += 1,
            b']' | b'}' if depth > 0 => depth -= 1,
            b']' => {
                if at != bytes.len() - 1 {
                    return None;
                }
                elements.push(element(text, start, at)?);
                return Some((form.unwrap_or(Form::Item), elements));
            }
            b'}' => return None,
            b',' if depth == 0 => {
                elements.push(element(text, start, at)?);
                let found = if bytes.get(at + 1) == Some(&b' ') {
                    at += 1;
                    Form::ItemSpaced
                } else {
                    Form::Item
                };
                if *form.get_or_insert(found) != found || elements.len() >= ELEMENTS_MAX {
                    return None;
                }
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
}

/// An element without white space around it.
fn element(text: &str, start: usize, end: usize) -> Option<&str> {
    let element = &text[start..end];
    let bytes = element.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) if !first.is_ascii_whitespace() && !last.is_ascii_whitespace() => Some(element),
        _ => None,
    }
}

/// Position of the quote that ends the string whose first character is at `at`.
#[inline]
fn string_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    // most strings of JSON are short keys, most bytes of a prompt are in long ones
    let near = bytes.len().min(at + 24);
    loop {
        while at < near {
            match bytes[at] {
                b'"' => return Some(at),
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        at += memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some(at);
        }
        at += 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_splits_into_elements_that_join_to_the_same_bytes() {
        for (text, form, elements) in [
            ("[1]", Form::Item, vec!["1"]),
            ("[1,2]", Form::Item, vec!["1", "2"]),
            ("[1, 2]", Form::ItemSpaced, vec!["1", "2"]),
            (r#"[{"a": [1, 2]}, "b,\"]c", [3]]"#, Form::ItemSpaced, vec![r#"{"a": [1, 2]}"#, r#""b,\"]c""#, "[3]"]),
            (r#"["é\\",{"b":{}}]"#, Form::Item, vec![r#""é\\""#, r#"{"b":{}}"#]),
        ] {
            assert_eq!(split_json_array(text), Some((form, elements.clone())), "{text}");
            let joined = elements.join(if form == Form::Item { "," } else { ", " });
            assert_eq!(format!("[{joined}]"), text);
        }
    }

    #[test]
    fn what_would_not_join_to_the_same_bytes_is_not_split() {
        for text in [
            "",
            "[",
            "[]",
            "[ ]",
            "[ 1]",
            "[1 ]",
            "[1,]",
            "[,1]",
            "[1, 2,3]",
            "[1,2, 3]",
            "[1,  2]",
            "[1 ,2]",
            "[1}]",
            "[1]]",
            "[[1]",
            r#"["a]"#,
            r#"["a\"]"#,
            "[1],[2]",
            "[1,\n2]",
            "{1}",
            r#"["a\"#,
        ] {
            assert_eq!(split_json_array(text), None, "{text}");
        }
    }

    #[test]
    fn an_array_of_very_many_elements_is_not_split() {
        let text = |count: usize| format!("[{}]", vec!["1"; count].join(","));
        assert_eq!(split_json_array(&text(ELEMENTS_MAX)).map(|(_, e)| e.len()), Some(ELEMENTS_MAX));
        assert_eq!(split_json_array(&text(ELEMENTS_MAX + 1)), None);
    }

    #[test]
    fn a_preview_is_cut_between_characters() {
        assert_eq!(preview(&"é".repeat(300)), "é".repeat(200));
        assert_eq!(preview("short"), "short");
    }
}
