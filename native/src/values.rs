//! Attribute values read as what a canonical attribute wants: text, counts, money, times, parts of JSON.

use std::borrow::Cow;
use std::fmt;

use bumpalo::Bump;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::view::{Text, Value};
use crate::wire;

/// Elements of a list that become a canonical list of texts.
pub const LIST_MAX: usize = 256;

/// The value as text, `None` where it says nothing.
pub fn text<'a>(value: Value<'a>, arena: &'a Bump) -> Option<Text<'a>> {
    match value {
        Value::Empty | Value::Str("") => None,
        Value::Str(text) => Some(Cow::Borrowed(text)),
        Value::Bool(flag) => Some(Cow::Borrowed(if flag { "true" } else { "false" })),
        // some SDKs send text as bytes
        Value::Bytes(bytes) => {
            (!bytes.is_empty()).then(|| Cow::Borrowed(&*arena.alloc_str(&String::from_utf8_lossy(bytes))))
        }
        other => {
            let mut out = String::new();
            wire::to_text(other, &mut out);
            (!out.is_empty()).then(|| Cow::Borrowed(&*arena.alloc_str(&out)))
        }
    }
}

/// The text that is already there, without making one.
pub fn as_str<'a>(value: &Value<'a>) -> Option<&'a str> {
    match value {
        Value::Str(text) => Some(text),
        _ => None,
    }
}

/// A count: no negative, fractional or boolean values. Text may hold decimal digits, in JSON quotes too.
pub fn count(value: Value<'_>) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(number).ok(),
        Value::Double(number) => {
            (number >= 0.0 && number <= 2f64.powi(53) && number.fract() == 0.0).then_some(number as u64)
        }
        Value::Str(text) => {
            let text = unquoted(text.trim());
            match text.parse::<u64>() {
                Ok(number) => Some(number),
                Err(_) => text.strip_suffix(".0")?.parse().ok(),
            }
        }
        _ => None,
    }
}

pub fn float(value: Value<'_>) -> Option<f64> {
    let number = match value {
        Value::Int(number) => number as f64,
        Value::Double(number) => number,
        Value::Str(text) => unquoted(text.trim()).parse().ok()?,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

pub fn boolean(value: Value<'_>) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(flag),
        Value::Str(text) => match unquoted(text.trim()) {
            "true" | "True" | "TRUE" => Some(true),
            "false" | "False" | "FALSE" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

fn unquoted(text: &str) -> &str {
    text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text)
}

/// A list of texts: an array, the JSON text of one, a list with commas, or one value.
pub fn list<'a>(value: Value<'a>, arena: &'a Bump, mut take: impl FnMut(Text<'a>)) {
    match value {
        Value::Array(body) => {
            for item in wire::array(body, arena).take(LIST_MAX) {
                if let Some(item) = text(item, arena) {
                    take(item);
                }
            }
        }
        Value::Str(joined) if joined.trim_start().starts_with('[') => {
            match serde_json::from_str::<Vec<&RawValue>>(joined) {
                Ok(items) => {
                    for item in items.into_iter().take(LIST_MAX) {
                        if let Some(item) = text(json_value(item.get(), arena), arena) {
                            take(item);
                        }
                    }
                }
                Err(_) => {
                    // Python's str() of a list, as some producers write it
                    let inner = joined.trim().trim_start_matches('[').trim_end_matches(']');
                    for item in inner.split(',').take(LIST_MAX) {
                        let item = item.trim().trim_matches(['\'', '"']);
                        if !item.is_empty() {
                            take(Cow::Borrowed(item));
                        }
                    }
                }
            }
        }
        Value::Str(joined) => {
            for item in joined.split(',').take(LIST_MAX) {
                let item = unquoted(item.trim());
                if !item.is_empty() {
                    take(Cow::Borrowed(item));
                }
            }
        }
        other => {
            if let Some(item) = text(other, arena) {
                take(item);
            }
        }
    }
}

/// Billionths of a dollar. 0 is "no price known" everywhere it was seen, not a free call.
pub fn nano_usd(value: Value<'_>) -> Option<i64> {
    let nanos = float(value)? * 1e9;
    (nanos > 0.0 && nanos < 9e17).then(|| nanos.round() as i64)
}

/// Seconds since 1970 in billionths, of an ISO 8601 time with a zone or 'Z'; without a zone it is UTC.
pub fn iso_nanos(text: &str) -> Option<i128> {
    let text = text.trim().trim_matches('"');
    let (date, time) = text.split_once(['T', ' '])?;
    let mut parts = date.splitn(3, '-').map(str::parse::<i64>);
    let (year, month, day) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let zone_at = time.find(['Z', 'z', '+', '-']).unwrap_or(time.len());
    let (clock, zone) = time.split_at(zone_at);
    let mut parts = clock.splitn(3, ':');
    let hour: i64 = parts.next()?.parse().ok()?;
    let minute: i64 = parts.next()?.parse().ok()?;
    let seconds = parts.next().unwrap_or("0");
    let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    let second: i64 = whole.parse().ok()?;
    if !(0..=24).contains(&hour) || !(0..60).contains(&minute) || !(0..=60).contains(&second) {
        return None;
    }
    let fraction = fraction.get(..fraction.len().min(9))?;
    let nanos: i128 = if fraction.is_empty() {
        0
    } else {
        i128::from(fraction.parse::<u64>().ok()?) * 10i128.pow(9 - fraction.len() as u32)
    };
    let offset = match zone.as_bytes().first() {
        Some(sign @ (b'+' | b'-')) => {
            let digits: String = zone.chars().filter(char::is_ascii_digit).collect();
            let hours: i64 = digits.get(..2)?.parse().ok()?;
            let minutes: i64 = digits.get(2..4).unwrap_or("00").parse().ok()?;
            (hours * 3600 + minutes * 60) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => 0,
    };
    // days since 1970 of the proleptic Gregorian calendar, years counted from March
    let y = year - i64::from(month <= 2);
    let year_of_era = y % 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = y / 400 * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    let at = days * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Some(i128::from(at) * 1_000_000_000 + nanos)
}

/// The host of a URL.
pub fn url_host(url: &str) -> Option<&str> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    let host =
        if host.starts_with('[') { host.split(']').next()?.trim_start_matches('[') } else { host.split(':').next()? };
    (!host.is_empty()).then_some(host)
}

/// The name inside `<class 'a.b.C'>`, else the text.
pub fn strip_class(text: &str) -> &str {
    text.trim()
        .strip_prefix("<class ")
        .and_then(|t| t.strip_suffix('>'))
        .map_or(text.trim(), |t| t.trim_matches(['\'', '"']))
}

// --------------------------------------------------------------------------------------------------- parts of JSON

/// What a piece of JSON text is as a value: text for strings, the JSON itself for arrays and objects.
pub fn json_value<'a>(raw: &'a str, arena: &'a Bump) -> Value<'a> {
    let raw = raw.trim();
    match raw.as_bytes().first() {
        Some(b'"') => match serde_json::from_str::<Borrowed<'_>>(raw) {
            Ok(Borrowed(Cow::Borrowed(text))) => Value::Str(text),
            Ok(Borrowed(Cow::Owned(text))) => Value::Str(arena.alloc_str(&text)),
            Err(_) => Value::Str(raw),
        },
        Some(b't') if raw == "true" => Value::Bool(true),
        Some(b'f') if raw == "false" => Value::Bool(false),
        Some(b'n') if raw == "null" => Value::Empty,
        Some(b'-' | b'0'..=b'9') => {
            if let Ok(number) = raw.parse() {
                Value::Int(number)
            } else {
                raw.parse().map_or(Value::Str(raw), Value::Double)
            }
        }
        _ => Value::Str(raw),
    }
}

#[derive(Deserialize)]
struct Borrowed<'a>(#[serde(borrow)] Cow<'a, str>);

/// The part of `value` at `path`: segments are object keys or array positions, `*` takes every element and gives the
/// JSON text of an array. An empty path decodes a JSON scalar.
pub fn at_path<'a>(value: Value<'a>, path: &[Box<str>], arena: &'a Bump) -> Option<Value<'a>> {
    match value {
        Value::Str(text) if path.is_empty() => Some(json_value(text, arena)),
        Value::Str(text) => {
            if !text.trim_start().starts_with(['{', '[']) {
                return None;
            }
            let mut found = Vec::new();
            // an error is how the search stops early; what was found before broken JSON still counts
            let _ = Find { path, found: &mut found }.deserialize(&mut serde_json::Deserializer::from_str(text));
            if path.iter().any(|segment| &**segment == "*") {
                if found.is_empty() {
                    return None;
                }
                let parts: Vec<&str> = found.iter().map(|raw| raw.get()).collect();
                return Some(Value::Str(arena.alloc_str(&format!("[{}]", parts.join(",")))));
            }
            found.first().map(|raw| json_value(raw.get(), arena))
        }
        Value::KvList(body) => {
            let (first, rest) = path.split_first()?;
            let entry = wire::key_value_list(body, arena).find(|entry| *entry.key == **first)?;
            if rest.is_empty() { Some(entry.value) } else { at_path(entry.value, rest, arena) }
        }
        Value::Array(body) => {
            let (first, rest) = path.split_first()?;
            let item = wire::array(body, arena).nth(first.parse().ok()?)?;
            if rest.is_empty() { Some(item) } else { at_path(item, rest, arena) }
        }
        _ => path.is_empty().then_some(value),
    }
}

struct Find<'p, 'f, 'de> {
    path: &'p [Box<str>],
    found: &'f mut Vec<&'de RawValue>,
}

impl<'de> DeserializeSeed<'de> for Find<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.path.is_empty() {
            self.found.push(<&RawValue>::deserialize(deserializer)?);
            return Ok(());
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Find<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let segment = &*self.path[0];
        while let Some(Borrowed(key)) = map.next_key()? {
            if key == segment || segment == "*" {
                map.next_value_seed(Find { path: &self.path[1..], found: self.found })?;
                if segment != "*" {
                    return Err(A::Error::custom("found"));
                }
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let segment = &*self.path[0];
        if segment == "*" {
            // each element is looked at on its own, so that the early stop of one does not end the others
            while let Some(item) = items.next_element::<&RawValue>()? {
                let seed = Find { path: &self.path[1..], found: &mut *self.found };
                let _ = seed.deserialize(&mut serde_json::Deserializer::from_str(item.get()));
                if self.found.len() >= LIST_MAX {
                    break;
                }
            }
            return Ok(());
        }
        let Ok(wanted) = segment.parse::<usize>() else {
            return Ok(());
        };
        for _ in 0..wanted {
            if items.next_element::<IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        items.next_element_seed(Find { path: &self.path[1..], found: self.found })?;
        Err(A::Error::custom("found"))
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// The Python literal of a dict or list as JSON text: quotes, None, True and False. What is no literal stays broken
/// and is then no JSON either.
pub fn python_to_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\'' | '"' => {
                out.push('"');
                while let Some(inner) = rest.next() {
                    match inner {
                        _ if inner == c => break,
                        '"' => out.push_str("\\\""),
                        '\\' => match rest.next() {
                            Some('\'') => out.push('\''),
                            Some('x') => out.push_str("\\u00"),
                            Some(escaped) => {
                                out.push('\\');
                                out.push(escaped);
                            }
                            None => {}
                        },
                        inner => out.push(inner),
                    }
                }
                out.push('"');
            }
            '(' => out.push('['),
            ')' => out.push(']'),
            c if c.is_ascii_alphabetic() => {
                let mut word = String::from(c);
                while let Some(next) = rest.next_if(|n| n.is_ascii_alphanumeric() || *n == '_') {
                    word.push(next);
                }
                out.push_str(match &*word {
                    "None" => "null",
                    "True" => "true",
                    "False" => "false",
                    other => other,
                });
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Vec<Box<str>> {
        text.split('.').filter(|s| !s.is_empty()).map(Into::into).collect()
    }

    #[test]
    fn a_path_reads_json_text() {
        let arena = Bump::new();
        let json = r#"{"a": [{"b": 1}, {"b": "x\n"}], "c": {"d": 2.5}, "a2": null}"#;
        let get = |p: &str| at_path(Value::Str(json), &path(p), &arena);
        assert_eq!(get("a.0.b"), Some(Value::Int(1)));
        assert_eq!(get("a.1.b"), Some(Value::Str("x\n")));
        assert_eq!(get("c.d"), Some(Value::Double(2.5)));
        assert_eq!(get("a.*.b"), Some(Value::Str(r#"[1,"x\n"]"#)));
        assert_eq!(get("a2"), Some(Value::Empty));
        assert_eq!(get("a.7.b"), None);
        assert_eq!(get("c.x"), None);
        assert_eq!(at_path(Value::Str("\"TOOL\""), &[], &arena), Some(Value::Str("TOOL")));
    }

    #[test]
    fn a_path_reads_what_stands_before_the_cut() {
        let arena = Bump::new();
        let cut = r#"{"usage": {"in": 3}, "text": "...[TRUNC"#;
        assert_eq!(at_path(Value::Str(cut), &path("usage.in"), &arena), Some(Value::Int(3)));
        assert_eq!(at_path(Value::Str(cut), &path("text.x"), &arena), None);
    }

    #[test]
    fn counts_are_not_negative_fractional_or_boolean() {
        assert_eq!(count(Value::Str("\"37\"")), Some(37));
        assert_eq!(count(Value::Double(636.0)), Some(636));
        for bad in [Value::Int(-1), Value::Double(1.5), Value::Bool(true), Value::Str("1e3"), Value::Double(f64::NAN)] {
            assert_eq!(count(bad), None);
        }
    }

    #[test]
    fn python_literals_become_json() {
        let json = python_to_json(r#"{'audio': None, 'it\'s "x"': (True, 64)}"#);
        assert_eq!(json, r#"{"audio": null, "it's \"x\"": [true, 64]}"#);
    }

    #[test]
    fn iso_times_with_and_without_zone() {
        assert_eq!(iso_nanos("1970-01-02T00:00:00.5Z"), Some(86_400_500_000_000));
        assert_eq!(iso_nanos("\"2026-11-21T01:00:00+01:00\""), iso_nanos("2026-11-21 00:00:00"));
        assert_eq!(iso_nanos("2024-02-29T00:00:00Z"), Some(1_709_164_800_000_000_000));
        assert_eq!(iso_nanos("2024-02-29T9223372036854775807:00:00Z"), None);
        assert_eq!(iso_nanos("yesterday"), None);
    }

    #[test]
    fn money_of_zero_is_no_price() {
        assert_eq!(nano_usd(Value::Double(0.0016)), Some(1_600_000));
        assert_eq!(nano_usd(Value::Str("0.0")), None);
    }
}
