//! Messages spread over indexed attribute keys (`llm.input_messages.0.message.role`), as JSON text, a message at a time.

use std::cmp::Ordering;

use xxhash_rust::xxh3::xxh3_128;

use crate::content::hash;
use crate::view::Value;
use crate::wire::{json_string, to_json};

/// Highest index that is taken for one. Nothing is allocated by index, but a list of that length is no conversation.
pub const INDEX_MAX: u32 = 4095;
const SEGMENTS_MAX: usize = 12;

/// What follows the prefix of a key, and the value under it.
pub type Leaf<'a> = (&'a str, Value<'a>);

/// Everything that was said about one element of a list, by paths below it.
pub struct Leaves<'a>(Vec<Leaf<'a>>);

impl Leaves<'_> {
    /// Identity of what [`Leaves::write`] would write.
    pub fn hash(&self, digest: &mut Vec<u8>) -> u128 {
        digest.clear();
        for (path, value) in &self.0 {
            digest.extend_from_slice(path.as_bytes());
            let (tag, hash) = match value {
                Value::Str(text) => (0, hash(text)),
                _ => {
                    let mut text = String::new();
                    leaf(*value, &mut text);
                    (1, hash(&text))
                }
            };
            digest.push(tag);
            digest.extend_from_slice(&hash.to_le_bytes());
        }
        xxh3_128(digest)
    }

    /// The element as JSON.
    pub fn write(&self, out: &mut String) {
        write(&self.0, out);
    }
}

/// Call `each` with every element of the list that `leaves` spell, by rising index. Gaps close up.
pub fn elements<'a>(leaves: &[Leaf<'a>], mut each: impl FnMut(&Leaves<'a>)) {
    let mut indexed: Vec<(u32, &str, Value<'_>)> = leaves
        .iter()
        .filter_map(|(path, value)| {
            let (index, rest) = path.split_once('.').unwrap_or((path, ""));
            if rest.split('.').count() > SEGMENTS_MAX || rest.split('.').any(is_hostile) {
                return None;
            }
            Some((index_of(index)?, rest, *value))
        })
        .collect();
    indexed.sort_by_key(|(index, ..)| *index);
    let mut members = Leaves(Vec::new());
    for group in indexed.chunk_by(|a, b| a.0 == b.0) {
        members.0.clear();
        members.0.extend(group.iter().map(|(_, rest, value)| (*rest, *value)));
        members.0.sort_by(|a, b| by_segments(a.0, b.0));
        each(&members);
    }
}

/// Names that mean something to JavaScript objects, and indices nobody counted.
fn is_hostile(segment: &str) -> bool {
    matches!(segment, "__proto__" | "constructor" | "prototype") || (is_digits(segment) && index_of(segment).is_none())
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn index_of(text: &str) -> Option<u32> {
    is_digits(text).then(|| text.parse().ok()).flatten().filter(|index| *index <= INDEX_MAX)
}

fn by_segments(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a.split('.'), b.split('.'));
    loop {
        let order = match (left.next(), right.next()) {
            (None, None) => return Ordering::Equal,
            (None, _) => Ordering::Less,
            (_, None) => Ordering::Greater,
            (Some(a), Some(b)) => match (index_of(a), index_of(b)) {
                (Some(a), Some(b)) => a.cmp(&b),
                _ => a.cmp(b),
            },
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// Members sorted by their segments, as one JSON value.
fn write(members: &[(&str, Value<'_>)], out: &mut String) {
    let Some((path, value)) = members.first() else {
        return out.push_str("null");
    };
    if path.is_empty() {
        // A value at a place where others nest deeper: the value is what was said about it.
        return leaf(*value, out);
    }
    let list = members.iter().all(|(path, _)| index_of(segment(path)).is_some());
    out.push(if list { '[' } else { '{' });
    for (position, group) in
        members.chunk_by(|a, b| by_segments(segment(a.0), segment(b.0)) == Ordering::Equal).enumerate()
    {
        if position > 0 {
            out.push(',');
        }
        let key = segment(group[0].0);
        if !list {
            json_string(key, out);
            out.push(':');
        }
        if let [(path, value)] = group
            && path.len() == key.len()
        {
            leaf(*value, out);
            continue;
        }
        let rest: Vec<(&str, Value<'_>)> =
            group.iter().map(|(path, value)| (path.split_once('.').map_or("", |(_, rest)| rest), *value)).collect();
        write(&rest, out);
    }
    out.push(if list { ']' } else { '}' });
}

fn segment(path: &str) -> &str {
    path.split('.').next().unwrap_or(path)
}

fn leaf(value: Value<'_>, out: &mut String) {
    match value {
        Value::Str(text) => json_string(text, out),
        Value::Bytes(bytes) => json_string(&String::from_utf8_lossy(bytes), out),
        _ => to_json(value, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(leaves: &[(&str, &str)]) -> Vec<String> {
        let leaves: Vec<Leaf<'_>> = leaves.iter().map(|(path, text)| (*path, Value::Str(text))).collect();
        let mut found = Vec::new();
        elements(&leaves, |element| {
            let mut json = String::new();
            element.write(&mut json);
            found.push(json);
        });
        found
    }

    #[test]
    fn elements_come_by_index_whatever_the_order_of_keys() {
        assert_eq!(
            list(&[
                ("10.content", "c"),
                ("2.role", "user"),
                ("2.calls.1.name", "b"),
                ("2.calls.0.name", "a"),
                ("2.calls.10.name", "z"),
            ]),
            [r#"{"calls":[{"name":"a"},{"name":"b"},{"name":"z"}],"role":"user"}"#, r#"{"content":"c"}"#,]
        );
    }

    #[test]
    fn hostile_indices_and_names_are_left_out() {
        assert_eq!(
            list(&[
                ("0.content", "valid"),
                ("10001.content", "unsafe"),
                ("99999999999999999999.content", "unsafe"),
                ("-1.content", "unsafe"),
                ("__proto__.content", "unsafe"),
                ("0.__proto__.polluted", "unsafe"),
                ("0.4096.x", "unsafe"),
                ("0.a.b.c.d.e.f.g.h.i.j.k.l.m.n", "unsafe"),
            ]),
            [r#"{"content":"valid"}"#]
        );
    }

    #[test]
    fn a_value_wins_over_keys_below_it() {
        assert_eq!(list(&[("0.a", "x"), ("0.a.b", "y"), ("1", "text")]), [r#"{"a":"x"}"#, r#""text""#]);
    }
}
