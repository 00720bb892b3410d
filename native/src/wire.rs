//! The protobuf wire format, read in place: fields, attributes and values, without copies and without recursion.
//!
//! The rules follow the reference decoder where a request is legal: the last of several scalar fields wins, repeated
//! singular messages are merged, known fields of another wire type and groups are skipped.

use std::fmt::Write as _;

use bumpalo::Bump;
use memchr::memchr3;

use crate::text::short_ascii;
use crate::view::{Attr, Value};

/// Levels of arrays and objects in JSON text made from a value; what lies deeper becomes a string of its JSON text.
pub const JSON_NESTING_MAX: usize = 32;
/// Deepest value that is read at all. A level costs at least four bytes on the wire and about 40 here.
const VALUE_NESTING_MAX: usize = 1 << 20;
const GROUP_NESTING_MAX: usize = 100;
/// Bytes of one span that may be copied to join values sent in pieces, which is legal and done by nobody.
const MERGE_BYTES_MAX: usize = 64 << 10;

/// Why bytes are not a protobuf message. `at` is the address of the offending byte, see [`Malformed::offset`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    at: usize,
    pub what: &'static str,
}

impl Malformed {
    /// Where in `whole` the offending byte is, if it is in there at all.
    pub fn offset(&self, whole: &[u8]) -> usize {
        self.at.wrapping_sub(whole.as_ptr() as usize).min(whole.len())
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Field<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
    /// A group, already skipped.
    Group,
}

/// Number, value and encoded form of a field.
pub type RawField<'a> = (u32, Field<'a>, &'a [u8]);

/// Reads the fields of one message body.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    #[inline]
    pub fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    #[cold]
    fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { at: self.rest.as_ptr() as usize, what }
    }

    #[inline(always)]
    fn varint(&mut self) -> Result<u64, Malformed> {
        match self.rest {
            [a, rest @ ..] if *a < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*a))
            }
            [a, b, rest @ ..] if *b < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*a & 0x7f) | u64::from(*b) << 7)
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for (index, byte) in self.rest.iter().enumerate().take(10) {
            // bits over 64 are dropped, as every protobuf implementation does
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(self.malformed(if self.rest.len() < 10 {
            "a number is cut off"
        } else {
            "a number is longer than ten bytes"
        }))
    }

    #[inline(always)]
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        match self.rest.split_at_checked(count) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(self.malformed("a field is longer than its message")),
        }
    }

    #[inline(always)]
    fn value(&mut self, wire_type: u32) -> Result<Option<Field<'a>>, Malformed> {
        Ok(Some(match wire_type {
            0 => Field::Varint(self.varint()?),
            1 => {
                let bytes = self.take(8)?;
                Field::Fixed64(u64::from_le_bytes(bytes.try_into().unwrap_or_default()))
            }
            2 => {
                let length = self.varint()?;
                Field::Bytes(self.take(usize::try_from(length).unwrap_or(usize::MAX))?)
            }
            5 => {
                let bytes = self.take(4)?;
                Field::Fixed32(u32::from_le_bytes(bytes.try_into().unwrap_or_default()))
            }
            _ => return Ok(None),
        }))
    }

    #[inline(always)]
    fn tag(&mut self) -> Result<(u32, u32), Malformed> {
        let start = *self;
        let tag = self.varint()?;
        let Ok(tag) = u32::try_from(tag) else {
            return Err(start.malformed("a field number is over 29 bits"));
        };
        if tag >> 3 == 0 {
            return Err(start.malformed("field number 0"));
        }
        Ok((tag >> 3, tag & 7))
    }

    /// Field number and value of the next field, `None` at the end of the message.
    #[inline(always)]
    pub fn read(&mut self) -> Result<Option<(u32, Field<'a>)>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (number, wire_type) = self.tag()?;
        match self.value(wire_type)? {
            Some(field) => Ok(Some((number, field))),
            None if wire_type == 3 => {
                self.skip_group(number)?;
                Ok(Some((number, Field::Group)))
            }
            None => Err(self.malformed("an unknown wire type or an unmatched end of group")),
        }
    }

    /// The same with the encoded field.
    pub fn read_raw(&mut self) -> Result<Option<RawField<'a>>, Malformed> {
        let before = self.rest;
        Ok(self.read()?.map(|(number, field)| (number, field, &before[..before.len() - self.rest.len()])))
    }

    #[cold]
    fn skip_group(&mut self, number: u32) -> Result<(), Malformed> {
        let mut open = vec![number];
        while let Some(&innermost) = open.last() {
            let (number, wire_type) = self.tag()?;
            if self.value(wire_type)?.is_some() {
                continue;
            }
            match wire_type {
                3 if open.len() < GROUP_NESTING_MAX => open.push(number),
                4 if number == innermost => {
                    open.pop();
                }
                _ => return Err(self.malformed("a group that does not end properly")),
            }
        }
        Ok(())
    }
}

/// Where one span's values are decoded: the arena for what cannot be borrowed, and what had to be done.
#[derive(Debug)]
pub struct Scratch<'a> {
    pub arena: &'a Bump,
    /// Strings with invalid UTF-8 so far.
    pub repaired: usize,
    merged: usize,
}

impl<'a> Scratch<'a> {
    pub fn new(arena: &'a Bump) -> Self {
        Self { arena, repaired: 0, merged: 0 }
    }

    /// `bytes` as text, with U+FFFD in place of invalid UTF-8.
    #[inline]
    pub fn text(&mut self, bytes: &'a [u8]) -> &'a str {
        if let Some(text) = short_ascii(bytes) {
            return text;
        }
        match simdutf8::basic::from_utf8(bytes) {
            Ok(text) => text,
            Err(_) => self.repair(bytes),
        }
    }

    #[cold]
    fn repair(&mut self, bytes: &'a [u8]) -> &'a str {
        self.repaired += 1;
        self.arena.alloc_str(&String::from_utf8_lossy(bytes))
    }

    /// One message sent in two pieces: their fields, one after the other.
    #[cold]
    pub fn join(&mut self, first: &'a [u8], second: &'a [u8]) -> Result<&'a [u8], Malformed> {
        if first.is_empty() || second.is_empty() {
            return Ok(if first.is_empty() { second } else { first });
        }
        self.merged += first.len() + second.len();
        if self.merged > MERGE_BYTES_MAX {
            return Err(Fields::new(second).malformed("values sent in pieces add up to more than 64 KiB"));
        }
        let joined = self.arena.alloc_slice_fill_copy(first.len() + second.len(), 0u8);
        joined[..first.len()].copy_from_slice(first);
        joined[first.len()..].copy_from_slice(second);
        Ok(joined)
    }

    /// The value of an `AnyValue` body. What lies inside arrays and lists is not looked at.
    #[inline(always)]
    pub fn any_value(&mut self, body: &'a [u8]) -> Result<Value<'a>, Malformed> {
        let mut value = Value::Empty;
        let mut fields = Fields::new(body);
        while let Some((number, field)) = fields.read()? {
            value = match (number, field) {
                (1, Field::Bytes(bytes)) => Value::Str(self.text(bytes)),
                (2, Field::Varint(number)) => Value::Bool(number != 0),
                (3, Field::Varint(number)) => Value::Int(number.cast_signed()),
                (4, Field::Fixed64(bits)) => Value::Double(f64::from_bits(bits)),
                (5, Field::Bytes(items)) => match value {
                    Value::Array(before) => Value::Array(self.join(before, items)?),
                    _ => Value::Array(items),
                },
                (6, Field::Bytes(items)) => match value {
                    Value::KvList(before) => Value::KvList(self.join(before, items)?),
                    _ => Value::KvList(items),
                },
                (7, Field::Bytes(bytes)) => Value::Bytes(bytes),
                // a reference into the profiles dictionary, which no trace has
                (8, Field::Varint(_)) => Value::Empty,
                _ => value,
            };
        }
        Ok(value)
    }

    /// One `KeyValue` body.
    // left to itself the compiler makes calls of these two, which halves the speed of reading
    #[inline(always)]
    pub fn key_value(&mut self, body: &'a [u8]) -> Result<Attr<'a>, Malformed> {
        let mut key: &[u8] = &[];
        let mut value: Option<&[u8]> = None;
        let mut fields = Fields::new(body);
        while let Some((number, field)) = fields.read()? {
            match (number, field) {
                (1, Field::Bytes(bytes)) => key = bytes,
                (2, Field::Bytes(bytes)) => {
                    value = Some(match value {
                        None => bytes,
                        Some(before) => self.join(before, bytes)?,
                    });
                }
                _ => {}
            }
        }
        Ok(Attr {
            key: self.text(key),
            value: match value {
                Some(body) => self.any_value(body)?,
                None => Value::Empty,
            },
        })
    }

    /// Fails where something inside `value` is not well-formed, and counts the strings in there that need repair.
    pub fn check(&mut self, value: Value<'a>) -> Result<(), Malformed> {
        let (Value::Array(items) | Value::KvList(items)) = value else { return Ok(()) };
        // the innermost open value stays out of the stack, which most values then never need
        let mut top = (matches!(value, Value::KvList(_)), Fields::new(items));
        let mut below = Vec::new();
        loop {
            let (is_list, fields) = &mut top;
            let inner = match fields.read()? {
                Some((1, Field::Bytes(body))) if *is_list => self.key_value(body)?.value,
                Some((1, Field::Bytes(body))) => self.any_value(body)?,
                Some(_) => continue,
                None => match below.pop() {
                    Some(outer) => {
                        top = outer;
                        continue;
                    }
                    None => return Ok(()),
                },
            };
            if let Value::Array(items) | Value::KvList(items) = inner {
                if below.len() >= VALUE_NESTING_MAX {
                    return Err(Fields::new(items).malformed("values nested deeper than 1,048,576"));
                }
                below.push(std::mem::replace(&mut top, (matches!(inner, Value::KvList(_)), Fields::new(items))));
            }
        }
    }
}

/// The elements of an `ArrayValue` body. Values of a checked span are well-formed; anything else ends the iteration.
#[derive(Debug)]
pub struct Values<'a> {
    fields: Fields<'a>,
    scratch: Scratch<'a>,
}

pub fn array<'a>(body: &'a [u8], arena: &'a Bump) -> Values<'a> {
    Values { fields: Fields::new(body), scratch: Scratch::new(arena) }
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        loop {
            if let (1, Field::Bytes(body)) = self.fields.read().ok()?? {
                return self.scratch.any_value(body).ok();
            }
        }
    }
}

/// The entries of a `KeyValueList` body as sent, repeated keys included.
#[derive(Debug)]
pub struct Entries<'a> {
    fields: Fields<'a>,
    scratch: Scratch<'a>,
}

pub fn key_value_list<'a>(body: &'a [u8], arena: &'a Bump) -> Entries<'a> {
    Entries { fields: Fields::new(body), scratch: Scratch::new(arena) }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Attr<'a>;

    fn next(&mut self) -> Option<Attr<'a>> {
        loop {
            if let (1, Field::Bytes(body)) = self.fields.read().ok()?? {
                return self.scratch.key_value(body).ok();
            }
        }
    }
}

enum Open<'a> {
    Array(Values<'a>),
    List(Entries<'a>),
}

/// Appends `value` as compact JSON text: bytes as hex, NaN and infinities as strings, repeated keys kept.
///
/// Not more than [`JSON_NESTING_MAX`] levels deep: a deeper array or object becomes a string holding its JSON text.
pub fn to_json(value: Value<'_>, out: &mut String) {
    write_json(value, JSON_NESTING_MAX, out);
}

fn write_json(value: Value<'_>, nesting_max: usize, out: &mut String) {
    let arena = Bump::new();
    // as in `check`
    let mut top = None;
    let mut below: Vec<Open<'_>> = Vec::new();
    let mut current = value;
    loop {
        match current {
            Value::Array(_) | Value::KvList(_) if below.len() + usize::from(top.is_some()) >= nesting_max => {
                let mut text = String::new();
                write_json(current, usize::MAX, &mut text);
                json_string(&text, out);
            }
            Value::Array(items) => {
                out.push('[');
                below.extend(top.replace(Open::Array(array(items, &arena))));
            }
            Value::KvList(items) => {
                out.push('{');
                below.extend(top.replace(Open::List(key_value_list(items, &arena))));
            }
            Value::Empty => out.push_str("null"),
            Value::Bool(value) => out.push_str(if value { "true" } else { "false" }),
            Value::Str(text) => json_string(text, out),
            Value::Int(_) => scalar(current, out),
            Value::Double(number) if number.is_finite() => scalar(current, out),
            Value::Double(_) | Value::Bytes(_) => {
                out.push('"');
                scalar(current, out);
                out.push('"');
            }
        }
        current = loop {
            let first = out.ends_with(['[', '{']);
            match &mut top {
                None => return,
                Some(Open::Array(values)) => {
                    if let Some(value) = values.next() {
                        if !first {
                            out.push(',');
                        }
                        break value;
                    }
                    out.push(']');
                }
                Some(Open::List(entries)) => {
                    if let Some(attr) = entries.next() {
                        if !first {
                            out.push(',');
                        }
                        json_string(attr.key, out);
                        out.push(':');
                        break attr.value;
                    }
                    out.push('}');
                }
            }
            top = below.pop();
        };
    }
}

/// Appends a value as the text that is kept of it: strings as they are, bytes as hex, arrays and lists as JSON.
pub fn to_text(value: Value<'_>, out: &mut String) {
    match value {
        Value::Empty => {}
        Value::Str(text) => out.push_str(text),
        Value::Array(_) | Value::KvList(_) => to_json(value, out),
        _ => scalar(value, out),
    }
}

fn scalar(value: Value<'_>, out: &mut String) {
    match value {
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Int(number) => out.push_str(itoa::Buffer::new().format(number)),
        // the shortest text that reads back as the same double
        Value::Double(number) => {
            if number.is_nan() {
                out.push_str("NaN");
            } else if number.is_infinite() {
                out.push_str(if number > 0.0 { "Infinity" } else { "-Infinity" });
            } else {
                out.push_str(zmij::Buffer::new().format_finite(number));
            }
        }
        Value::Bytes(bytes) => hex(bytes, out),
        Value::Empty | Value::Str(_) | Value::Array(_) | Value::KvList(_) => {}
    }
}

/// Appends lower-case hex digits.
pub fn hex(bytes: &[u8], out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.reserve(bytes.len() * 2);
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

/// Appends `text` as a JSON string literal.
pub fn json_string(text: &str, out: &mut String) {
    out.push('"');
    let mut rest = text;
    while let Some(at) = next_escape(rest.as_bytes()) {
        out.push_str(&rest[..at]);
        match rest.as_bytes()[at] {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            control => {
                let _ = write!(out, "\\u{control:04x}");
            }
        }
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
    out.push('"');
}

/// Position of the next byte that a JSON string may not hold as it is.
fn next_escape(bytes: &[u8]) -> Option<usize> {
    // line feeds are the usual control characters in prompts: look for the rare ones only up to the next of these
    let end = memchr3(b'"', b'\\', b'\n', bytes).unwrap_or(bytes.len());
    match bytes[..end].iter().position(|byte| *byte < 0x20) {
        Some(at) => Some(at),
        None => (end < bytes.len()).then_some(end),
    }
}
