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
    let mut elements = Vec::new();
    let mut form = None;
    let end = scan_array(text, 1, &mut form, |element| {
        elements.push(element);
        elements.len() <= ELEMENTS_MAX
    })?;
    (end == text.len()).then_some((form.unwrap_or(Form::Item), elements))
}

/// Walk the array at the beginning of `text` from `at`, the start of one of its elements, and hand each element to
/// `each` until that says false. Returns where the array ends; `None` as for [`split_json_array`].
fn scan_array<'t>(
    text: &'t str,
    mut at: usize,
    form: &mut Option<Form>,
    mut each: impl FnMut(&'t str) -> bool,
) -> Option<usize> {
    let bytes = text.as_bytes();
    if bytes.first() != Some(&b'[') {
        return None;
    }
    let mut start = at;
    let mut depth = 0u32;
    loop {
        match *bytes.get(at)? {
            b'"' => at = string_end(bytes, at + 1)?,
            b'[' | b'{' => depth += 1,
            b']' | b'}' if depth > 0 => depth -= 1,
            b']' => {
                return each(element(text, start, at)?).then_some(at + 1);
            }
            b'}' => return None,
            b',' if depth == 0 => {
                if !each(element(text, start, at)?) {
                    return None;
                }
                at = next_element(bytes, at, form)?;
                start = at;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
}

/// Where the element after the comma at `at` starts, if it is joined as the ones before it.
fn next_element(bytes: &[u8], at: usize, form: &mut Option<Form>) -> Option<usize> {
    let spaced = bytes.get(at + 1) == Some(&b' ');
    let found = if spaced { Form::ItemSpaced } else { Form::Item };
    (*form.get_or_insert(found) == found).then_some(at + 1 + usize::from(spaced))
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

/// An array that was split, with the hash of each element.
#[derive(Clone, Debug, Default)]
pub struct Split<'a> {
    /// From its bracket to its bracket.
    pub text: &'a str,
    /// How the elements are joined, `None` for a single one.
    pub form: Option<Form>,
    pub elements: Vec<(&'a str, u128)>,
}

/// The arrays split last. The history of a conversation begins with the history of its call before, often byte by
/// byte, and comparing bytes is many times faster than looking for brackets in them.
#[derive(Debug, Default)]
pub struct Splits<'a> {
    /// Newest last.
    recent: Vec<Split<'a>>,
}

impl<'a> Splits<'a> {
    /// Arrays that are remembered: conversations that take turns within one request.
    const RECENT_MAX: usize = 16;
    /// Arrays that begin alike and are compared with one new array; more could cost more than they save.
    const ALIKE_MAX: usize = 4;

    /// The array at the beginning of `text`, whatever follows it; `None` as for [`split_json_array`].
    pub fn array(&mut self, text: &'a str) -> Option<&Split<'a>> {
        let mut split = self.begun(text);
        let mut form = split.form;
        let elements = &mut split.elements;
        let at = elements.last().map_or(Some(1), |(last, _)| {
            // The remembered elements lie in another text: their length is what this one shares with it.
            let at = split.text.len();
            debug_assert!(text[..at].ends_with(*last));
            match text.as_bytes().get(at)? {
                b',' => next_element(text.as_bytes(), at, &mut form),
                _ => None,
            }
        });
        let end = match at {
            Some(at) => scan_array(text, at, &mut form, |element| {
                elements.push((element, hash(element)));
                elements.len() <= ELEMENTS_MAX
            })?,
            // It ends where the remembered ones do.
            None if text.as_bytes().get(split.text.len()) == Some(&b']') => split.text.len() + 1,
            None => return None,
        };
        split.text = &text[..end];
        split.form = form;
        if self.recent.len() >= Self::RECENT_MAX {
            self.recent.remove(0);
        }
        self.recent.push(split);
        self.recent.last()
    }

    /// What [`Splits::array`] found in this very text a moment ago.
    pub fn known(&self, text: &str) -> Option<&Split<'a>> {
        self.recent.iter().rev().find(|split| std::ptr::eq(split.text, text))
    }

    /// The elements that `text` begins with and that are known from another text; `text` of the result ends with the
    /// last of them.
    fn begun(&self, text: &'a str) -> Split<'a> {
        let mut best = (0, 0, 0);
        let mut alike = 0;
        for (index, split) in self.recent.iter().enumerate().rev() {
            let common = common_prefix(split.text.as_bytes(), text.as_bytes());
            // Elements end at known distances, summed up from the first.
            let gap = 1 + usize::from(split.form == Some(Form::ItemSpaced));
            let mut end = 1;
            let mut count = 0;
            for (element, _) in &split.elements {
                let stop = end + usize::from(count > 0) * gap + element.len();
                let delimited = matches!(text.as_bytes().get(stop), Some(b',' | b']'));
                if stop > common || !delimited {
                    break;
                }
                end = stop;
                count += 1;
            }
            if count > best.1 {
                best = (index, count, end);
            }
            alike += usize::from(count > 0);
            if count == split.elements.len() || alike >= Self::ALIKE_MAX {
                break;
            }
        }
        let (index, count, end) = best;
        if count == 0 {
            return Split::default();
        }
        let from = &self.recent[index];
        Split { text: &text[..end], form: from.form.filter(|_| count > 1), elements: from.elements[..count].to_vec() }
    }
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let mut at = 0;
    for step in [4096, 64, 1] {
        while at + step <= a.len().min(b.len()) && a[at..at + step] == b[at..at + step] {
            at += step;
        }
    }
    at
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
    fn a_history_that_grows_splits_like_one_that_is_new() {
        let texts = [
            r#"[{"a":1}]"#,
            r#"[{"a":1},{"b":2}]"#,
            r#"[{"a":1},{"b":2},{"c":3}]"#,
            r#"[{"a":1}, {"b":2}]"#,
            r#"[{"a":1}, {"b":2}, {"c":3}]"#,
            r#"[{"a":1},{"b":2}, {"c":3}]"#,
            r#"[{"a":1},{"x":2},{"c":3}]"#,
            r#"[{"a":1}x,1]"#,
            "[12,3]",
            "[123,3]",
            "[12,3]",
            "[12,34,5]",
            "[12 ,3]",
            "[12",
            "[]",
        ];
        let mut splits = Splits::default();
        for text in texts.iter().chain(texts.iter().rev()) {
            let new = split_json_array(text);
            let found = splits.array(text);
            assert_eq!(found.is_some(), new.is_some(), "{text}");
            if let (Some(found), Some((form, elements))) = (found, new) {
                assert_eq!(found.text, *text);
                assert_eq!(found.form.unwrap_or(Form::Item), form, "{text}");
                let hashed: Vec<(&str, u128)> = elements.iter().map(|element| (*element, hash(element))).collect();
                assert_eq!(found.elements, hashed, "{text}");
            }
        }
        let inside = r#"[{"a":1},{"b":2}],"tools":[]}"#;
        assert_eq!(splits.array(inside).map(|split| split.text), Some(r#"[{"a":1},{"b":2}]"#));
        assert!(splits.known(&inside[..17]).is_some());
        assert!(splits.known(r#"[{"a":1},{"b":2},{"c":3},{"d":4}]"#).is_none());
    }

    #[test]
    fn a_preview_is_cut_between_characters() {
        assert_eq!(preview(&"é".repeat(300)), "é".repeat(200));
        assert_eq!(preview("short"), "short");
    }
}
