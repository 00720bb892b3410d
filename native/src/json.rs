//! OTLP/JSON to protobuf, in one pass over the text and without recursion: tables say which field is what.
//!
//! Reads what the OTLP specification allows (hexadecimal ids of any case, 64-bit integers as strings or numbers, enums
//! as names or numbers, unknown fields) and is lenient about raw control characters in strings. A field of the wrong
//! JSON type costs only the span or record it is in.

use std::borrow::Cow;
use std::fmt;

use memchr::{memchr, memchr2};

use crate::otlp::{NOT_HEX, WRONG_TYPE};

/// Open objects and arrays of one request.
const NESTING_MAX: usize = 1 << 20;
/// From here on lengths take five bytes at once, so that closing nested values never moves bytes.
const NARROW_NESTING_MAX: usize = 24;

enum Kind {
    Message(&'static Message),
    Text,
    /// Hexadecimal; what is not becomes [`NOT_HEX`].
    Id,
    /// Hexadecimal; what is not becomes empty.
    LinkId,
    Base64,
    Bool,
    Varint64,
    Varint32,
    Double,
    Fixed64,
    Fixed32,
    Enum(fn(&[u8]) -> u64),
}

struct FieldOf {
    name: &'static [u8],
    number: u8,
    repeated: bool,
    kind: Kind,
}

struct Message {
    fields: &'static [FieldOf],
    /// Bytes reserved for its length.
    length_bytes: u8,
    /// Number of its trace id, if the message is given up alone when it is wrong.
    alone: Option<u8>,
}

const fn one(name: &'static str, number: u8, kind: Kind) -> FieldOf {
    FieldOf { name: name.as_bytes(), number, repeated: false, kind }
}

const fn many(name: &'static str, number: u8, message: &'static Message) -> FieldOf {
    FieldOf { name: name.as_bytes(), number, repeated: true, kind: Kind::Message(message) }
}

const fn message(length_bytes: u8, fields: &'static [FieldOf]) -> Message {
    Message { fields, length_bytes, alone: None }
}

static ANY_VALUE: Message = message(
    1,
    &[
        one("stringValue", 1, Kind::Text),
        one("intValue", 3, Kind::Varint64),
        one("boolValue", 2, Kind::Bool),
        one("doubleValue", 4, Kind::Double),
        one("arrayValue", 5, Kind::Message(&ARRAY_VALUE)),
        one("kvlistValue", 6, Kind::Message(&KEY_VALUE_LIST)),
        one("bytesValue", 7, Kind::Base64),
    ],
);
static ARRAY_VALUE: Message = message(1, &[many("values", 1, &ANY_VALUE)]);
static KEY_VALUE_LIST: Message = message(1, &[many("values", 1, &KEY_VALUE)]);
static KEY_VALUE: Message = message(1, &[one("key", 1, Kind::Text), one("value", 2, Kind::Message(&ANY_VALUE))]);
static RESOURCE: Message =
    message(2, &[many("attributes", 1, &KEY_VALUE), one("droppedAttributesCount", 2, Kind::Varint32)]);
static SCOPE: Message = message(
    1,
    &[
        one("name", 1, Kind::Text),
        one("version", 2, Kind::Text),
        many("attributes", 3, &KEY_VALUE),
        one("droppedAttributesCount", 4, Kind::Varint32),
    ],
);
static EVENT: Message = message(
    2,
    &[
        one("timeUnixNano", 1, Kind::Fixed64),
        one("name", 2, Kind::Text),
        many("attributes", 3, &KEY_VALUE),
        one("droppedAttributesCount", 4, Kind::Varint32),
    ],
);
static LINK: Message = message(
    1,
    &[
        one("traceId", 1, Kind::LinkId),
        one("spanId", 2, Kind::LinkId),
        one("traceState", 3, Kind::Text),
        many("attributes", 4, &KEY_VALUE),
        one("droppedAttributesCount", 5, Kind::Varint32),
        one("flags", 6, Kind::Fixed32),
    ],
);
static STATUS: Message = message(1, &[one("message", 2, Kind::Text), one("code", 3, Kind::Enum(status_code))]);
static SPAN: Message = Message {
    length_bytes: 2,
    alone: Some(1),
    fields: &[
        many("attributes", 9, &KEY_VALUE),
        one("traceId", 1, Kind::Id),
        one("spanId", 2, Kind::Id),
        one("parentSpanId", 4, Kind::Id),
        one("name", 5, Kind::Text),
        one("kind", 6, Kind::Enum(span_kind)),
        one("startTimeUnixNano", 7, Kind::Fixed64),
        one("endTimeUnixNano", 8, Kind::Fixed64),
        many("events", 11, &EVENT),
        many("links", 13, &LINK),
        one("status", 15, Kind::Message(&STATUS)),
        one("flags", 16, Kind::Fixed32),
        one("traceState", 3, Kind::Text),
        one("droppedAttributesCount", 10, Kind::Varint32),
        one("droppedEventsCount", 12, Kind::Varint32),
        one("droppedLinksCount", 14, Kind::Varint32),
    ],
};
static LOG_RECORD: Message = Message {
    length_bytes: 2,
    alone: Some(9),
    fields: &[
        many("attributes", 6, &KEY_VALUE),
        one("body", 5, Kind::Message(&ANY_VALUE)),
        one("timeUnixNano", 1, Kind::Fixed64),
        one("observedTimeUnixNano", 11, Kind::Fixed64),
        one("severityNumber", 2, Kind::Enum(severity_number)),
        one("severityText", 3, Kind::Text),
        one("traceId", 9, Kind::Id),
        one("spanId", 10, Kind::Id),
        one("eventName", 12, Kind::Text),
        one("flags", 8, Kind::Fixed32),
        one("droppedAttributesCount", 7, Kind::Varint32),
    ],
};
static SCOPE_SPANS: Message =
    message(5, &[one("scope", 1, Kind::Message(&SCOPE)), many("spans", 2, &SPAN), one("schemaUrl", 3, Kind::Text)]);
static SCOPE_LOGS: Message = message(
    5,
    &[one("scope", 1, Kind::Message(&SCOPE)), many("logRecords", 2, &LOG_RECORD), one("schemaUrl", 3, Kind::Text)],
);
static RESOURCE_SPANS: Message = message(
    5,
    &[
        one("resource", 1, Kind::Message(&RESOURCE)),
        many("scopeSpans", 2, &SCOPE_SPANS),
        one("schemaUrl", 3, Kind::Text),
    ],
);
static RESOURCE_LOGS: Message = message(
    5,
    &[one("resource", 1, Kind::Message(&RESOURCE)), many("scopeLogs", 2, &SCOPE_LOGS), one("schemaUrl", 3, Kind::Text)],
);
static TRACES: Message = message(0, &[many("resourceSpans", 1, &RESOURCE_SPANS)]);
static LOGS: Message = message(0, &[many("resourceLogs", 1, &RESOURCE_LOGS)]);

/// Numbers of enum names; unknown names are "unspecified", as unknown numbers are.
fn span_kind(name: &[u8]) -> u64 {
    match name {
        b"SPAN_KIND_INTERNAL" => 1,
        b"SPAN_KIND_SERVER" => 2,
        b"SPAN_KIND_CLIENT" => 3,
        b"SPAN_KIND_PRODUCER" => 4,
        b"SPAN_KIND_CONSUMER" => 5,
        _ => 0,
    }
}

fn status_code(name: &[u8]) -> u64 {
    match name {
        b"STATUS_CODE_OK" => 1,
        b"STATUS_CODE_ERROR" => 2,
        _ => 0,
    }
}

fn severity_number(name: &[u8]) -> u64 {
    let Some(name) = name.strip_prefix(b"SEVERITY_NUMBER_") else {
        return 0;
    };
    let (level, step) = match name {
        [level @ .., step @ b'2'..=b'4'] => (level, u64::from(step - b'1')),
        level => (level, 0),
    };
    let levels: [&[u8]; 6] = [b"TRACE", b"DEBUG", b"INFO", b"WARN", b"ERROR", b"FATAL"];
    (1u64..).step_by(4).zip(levels).find(|(_, known)| *known == level).map_or(0, |(number, _)| number + step)
}

/// The text is not JSON, or not an export request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotOtlp {
    pub at: usize,
    pub what: &'static str,
    /// The JSON is fine, but a value is not what its field needs.
    wrong_type: bool,
}

impl fmt::Display for NotOtlp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "position {}: {}", self.at, self.what)
    }
}

struct Json<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Json<'a> {
    #[cold]
    fn syntax(&self, what: &'static str) -> NotOtlp {
        NotOtlp { at: self.at, what, wrong_type: false }
    }

    #[cold]
    fn wrong(&self, what: &'static str) -> NotOtlp {
        NotOtlp { at: self.at, what, wrong_type: true }
    }

    /// The next byte that is not white space, 0 at the end.
    #[inline(always)]
    fn peek(&mut self) -> u8 {
        loop {
            match self.text.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                Some(byte) => return *byte,
                None => return 0,
            }
        }
    }

    #[inline]
    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), NotOtlp> {
        if self.peek() != byte {
            return Err(self.syntax(what));
        }
        self.at += 1;
        Ok(())
    }

    /// The string that starts here as it is written, and whether it holds escapes.
    #[inline]
    fn raw_string(&mut self) -> Result<(&'a [u8], bool), NotOtlp> {
        self.expect(b'"', "a string is expected")?;
        let start = self.at;
        let mut end = start;
        let mut escaped = false;
        loop {
            let rest = self.text.get(end..).unwrap_or_default();
            match memchr2(b'"', b'\\', rest) {
                Some(found) if rest[found] == b'"' => {
                    end += found;
                    self.at = end + 1;
                    return Ok((&self.text[start..end], escaped));
                }
                Some(found) => {
                    escaped = true;
                    end += found + 2;
                }
                None => return Err(self.syntax("a string does not end")),
            }
        }
    }

    fn string(&mut self) -> Result<Cow<'a, [u8]>, NotOtlp> {
        let start = self.at;
        let (raw, escaped) = self.raw_string()?;
        if !escaped {
            return Ok(Cow::Borrowed(raw));
        }
        let mut text = Vec::with_capacity(raw.len());
        unescape(raw, &mut text).map_err(|what| NotOtlp { at: start, what, wrong_type: false })?;
        Ok(Cow::Owned(text))
    }

    /// A number or literal as it is written.
    fn token(&mut self) -> &'a [u8] {
        let start = self.at;
        while let Some(b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'+' | b'-' | b'.') = self.text.get(self.at) {
            self.at += 1;
        }
        &self.text[start..self.at]
    }

    /// Any scalar but a string.
    fn literal(&mut self) -> Result<&'a [u8], NotOtlp> {
        let start = self.at;
        let token = self.token();
        match token {
            b"true" | b"false" | b"null" => Ok(token),
            _ if is_number(token) => Ok(token),
            _ => {
                self.at = start;
                Err(self.syntax("a value is expected"))
            }
        }
    }

    /// Skips the value that starts here.
    fn skip(&mut self) -> Result<(), NotOtlp> {
        let mut open: Vec<u8> = Vec::new();
        loop {
            match self.peek() {
                b'{' => {
                    self.at += 1;
                    if self.peek() == b'}' {
                        self.at += 1;
                    } else {
                        self.raw_string()?;
                        self.expect(b':', "':' is expected")?;
                        open.push(b'}');
                        continue;
                    }
                }
                b'[' => {
                    self.at += 1;
                    if self.peek() == b']' {
                        self.at += 1;
                    } else {
                        open.push(b']');
                        continue;
                    }
                }
                b'"' => {
                    self.raw_string()?;
                }
                _ => {
                    self.literal()?;
                }
            }
            loop {
                let Some(&end) = open.last() else {
                    return Ok(());
                };
                match self.peek() {
                    b',' => {
                        self.at += 1;
                        if end == b'}' {
                            self.peek();
                            self.raw_string()?;
                            self.expect(b':', "':' is expected")?;
                        }
                        break;
                    }
                    byte if byte == end => {
                        self.at += 1;
                        open.pop();
                    }
                    _ => return Err(self.syntax("',' or the end of an object or array is expected")),
                }
            }
        }
    }
}

fn is_number(token: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut rest = token.strip_prefix(b"-").unwrap_or(token);
    let whole = digits(rest);
    if whole == 0 || (whole > 1 && rest[0] == b'0') {
        return false;
    }
    rest = &rest[whole..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let count = digits(fraction);
        if count == 0 {
            return false;
        }
        rest = &fraction[count..];
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = match exponent {
            [b'+' | b'-', exponent @ ..] => exponent,
            _ => exponent,
        };
        let count = digits(exponent);
        return count > 0 && count == exponent.len();
    }
    rest.is_empty()
}

/// Appends what the escapes of a JSON string stand for; a lone surrogate is U+FFFD.
fn unescape(raw: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    let mut rest = raw;
    while let Some(found) = memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..found]);
        let (Some(letter), after) = (rest.get(found + 1), &rest[(found + 2).min(rest.len())..]) else {
            return Err("a string ends in an escape");
        };
        rest = after;
        match letter {
            b'n' => out.push(b'\n'),
            b'"' | b'\\' | b'/' => out.push(*letter),
            b't' => out.push(b'\t'),
            b'r' => out.push(b'\r'),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'u' => {
                let unit = hex4(rest).ok_or("a \\u escape without four hexadecimal digits")?;
                rest = &rest[4..];
                let mut code = unit;
                if (0xd800..0xdc00).contains(&unit)
                    && let Some(low) = rest.strip_prefix(b"\\u").and_then(hex4)
                    && (0xdc00..0xe000).contains(&low)
                {
                    code = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                    rest = &rest[6..];
                }
                let character = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            _ => return Err("an unknown escape in a string"),
        }
    }
    out.extend_from_slice(rest);
    Ok(())
}

fn hex4(text: &[u8]) -> Option<u32> {
    text.get(..4)?.iter().try_fold(0, |code, digit| Some(code << 4 | char::from(*digit).to_digit(16)?))
}

/// Appends the bytes of hexadecimal digits, `false` (and nothing appended) if they are not.
fn unhex(text: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    for pair in text.chunks(2) {
        match pair {
            [high, low] => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                let (Some(high), Some(low)) = (digit(high), digit(low)) else {
                    out.truncate(start);
                    return false;
                };
                out.push((high << 4 | low) as u8);
            }
            _ => {
                out.truncate(start);
                return false;
            }
        }
    }
    true
}

/// Appends the bytes of base64 text of either alphabet, padded or not.
fn unbase64(text: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let text = match text {
        [text @ .., b'=', b'='] | [text @ .., b'='] => text,
        _ => text,
    };
    for chunk in text.chunks(4) {
        let mut bits = 0u32;
        for byte in chunk {
            let six = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' | b'-' => 62,
                b'/' | b'_' => 63,
                _ => {
                    out.truncate(start);
                    return false;
                }
            };
            bits = bits << 6 | u32::from(six);
        }
        match chunk.len() {
            4 => out.extend_from_slice(&bits.to_be_bytes()[1..]),
            3 => out.extend_from_slice(&(bits << 6).to_be_bytes()[1..3]),
            2 => out.push((bits >> 4) as u8),
            _ => {
                out.truncate(start);
                return false;
            }
        }
    }
    true
}

struct Frame {
    /// Of the object, or of the objects in the array.
    message: &'static Message,
    /// Where its encoded body starts.
    body: usize,
    /// Where its JSON text starts.
    text: usize,
    number: u8,
    length_bytes: u8,
    array: bool,
    first: bool,
}

struct Transcoder<'a> {
    json: Json<'a>,
    out: Vec<u8>,
    open: Vec<Frame>,
}

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn varint_bytes(number: usize) -> usize {
    match number {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        0x20_0000..0x1000_0000 => 4,
        _ => 5,
    }
}

impl Transcoder<'_> {
    #[inline]
    fn tag(&mut self, number: u8, wire_type: u8) {
        varint(u64::from(number) << 3 | u64::from(wire_type), &mut self.out);
    }

    fn open_array(&mut self, field: &'static FieldOf, message: &'static Message) {
        self.open.push(Frame {
            message,
            body: 0,
            text: self.json.at,
            number: field.number,
            length_bytes: 0,
            array: true,
            first: true,
        });
        self.json.at += 1;
    }

    fn open_message(&mut self, number: u8, message: &'static Message) {
        let text = self.json.at;
        self.json.at += 1;
        let mut length_bytes = message.length_bytes;
        if length_bytes > 0 {
            self.tag(number, 2);
            if self.open.len() > NARROW_NESTING_MAX {
                length_bytes = 5;
            }
            self.out.extend_from_slice(&[0; 5][..usize::from(length_bytes)]);
        }
        self.open.push(Frame { message, body: self.out.len(), text, number, length_bytes, array: false, first: true });
    }

    /// Writes the length in front of a finished body: in five bytes where so many were reserved, in as few as possible
    /// elsewhere.
    fn close(&mut self, body: usize, reserved: usize) {
        if reserved == 0 {
            return;
        }
        let length = self.out.len() - body;
        let needed = if reserved == 5 { 5 } else { varint_bytes(length) };
        let start = body - reserved;
        if needed > reserved {
            self.out.resize(self.out.len() + needed - reserved, 0);
        }
        if needed != reserved {
            self.out.copy_within(body..body + length, start + needed);
        }
        self.out.truncate(start + needed + length);
        let mut rest = length;
        for (index, byte) in self.out[start..start + needed].iter_mut().enumerate() {
            *byte = (rest & 0x7f) as u8 | if index + 1 < needed { 0x80 } else { 0 };
            rest >>= 7;
        }
    }

    fn bytes(&mut self, number: u8, bytes: &[u8]) {
        self.tag(number, 2);
        varint(bytes.len() as u64, &mut self.out);
        self.out.extend_from_slice(bytes);
    }

    /// A decoded string field, written by `write` unless it says that the text is not what it should be.
    fn decoded(&mut self, number: u8, write: impl Fn(&[u8], &mut Vec<u8>) -> bool) -> Result<bool, NotOtlp> {
        let text = self.json.string()?;
        let mut decoded = Vec::with_capacity(text.len());
        if !write(&text, &mut decoded) {
            return Ok(false);
        }
        self.bytes(number, &decoded);
        Ok(true)
    }

    /// A number, or the same in a string.
    fn number<T>(&mut self, parse: impl Fn(&[u8]) -> Option<T>) -> Result<T, NotOtlp> {
        let start = self.json.at;
        let text = if self.json.peek() == b'"' { self.json.string()? } else { Cow::Borrowed(self.json.literal()?) };
        parse(&text).ok_or(NotOtlp { at: start, what: "a number is expected that fits its field", wrong_type: true })
    }

    fn scalar(&mut self, field: &'static FieldOf) -> Result<(), NotOtlp> {
        let number = field.number;
        let byte = self.json.peek();
        if matches!(field.kind, Kind::Text | Kind::Id | Kind::LinkId | Kind::Base64) && byte != b'"' {
            return Err(self.json.wrong("a string is expected"));
        }
        match field.kind {
            Kind::Text => {
                let start = self.json.at;
                let (raw, escaped) = self.json.raw_string()?;
                if !escaped {
                    self.bytes(number, raw);
                    return Ok(());
                }
                self.tag(number, 2);
                let reserved = varint_bytes(raw.len()).min(4);
                self.out.extend_from_slice(&[0; 4][..reserved]);
                let body = self.out.len();
                self.out.reserve(raw.len());
                unescape(raw, &mut self.out).map_err(|what| NotOtlp { at: start, what, wrong_type: false })?;
                self.close(body, reserved);
            }
            Kind::Id => {
                if !self.decoded(number, unhex)? {
                    self.bytes(number, NOT_HEX);
                }
            }
            Kind::LinkId => {
                self.decoded(number, unhex)?;
            }
            Kind::Base64 => {
                if !self.decoded(number, unbase64)? {
                    return Err(self.json.wrong("base64 is expected"));
                }
            }
            Kind::Bool => {
                let value = match byte {
                    b't' | b'f' => self.json.literal()? == b"true",
                    _ => return Err(self.json.wrong("true or false is expected")),
                };
                self.tag(number, 0);
                self.out.push(u8::from(value));
            }
            Kind::Varint64 => {
                let value = self.number(integer::<i64>)?;
                self.tag(number, 0);
                varint(value.cast_unsigned(), &mut self.out);
            }
            Kind::Varint32 => {
                let value = self.number(integer::<u32>)?;
                self.tag(number, 0);
                varint(u64::from(value), &mut self.out);
            }
            Kind::Double => {
                let value = self.number(double)?;
                self.tag(number, 1);
                self.out.extend_from_slice(&value.to_bits().to_le_bytes());
            }
            Kind::Fixed64 => {
                let value = self.number(integer::<u64>)?;
                self.tag(number, 1);
                self.out.extend_from_slice(&value.to_le_bytes());
            }
            Kind::Fixed32 => {
                let value = self.number(integer::<u32>)?;
                self.tag(number, 5);
                self.out.extend_from_slice(&value.to_le_bytes());
            }
            Kind::Enum(named) => {
                let value = if byte == b'"' {
                    let name = self.json.string()?;
                    integer::<i32>(&name).map_or_else(|| named(&name), |number| i64::from(number).cast_unsigned())
                } else {
                    i64::from(self.number(integer::<i32>)?).cast_unsigned()
                };
                self.tag(number, 0);
                varint(value, &mut self.out);
            }
            Kind::Message(_) => {}
        }
        Ok(())
    }

    /// One step: a key with its scalar, or the start or end of an object or array.
    fn step(&mut self) -> Result<(), NotOtlp> {
        let Some(frame) = self.open.last_mut() else {
            return Ok(());
        };
        let end = if frame.array { b']' } else { b'}' };
        let byte = self.json.peek();
        if byte == end {
            self.json.at += 1;
            let (body, reserved) = (frame.body, usize::from(frame.length_bytes));
            self.open.pop();
            self.close(body, reserved);
            return Ok(());
        }
        if !std::mem::take(&mut frame.first) {
            self.json.expect(b',', "',' or the end of an object or array is expected")?;
        }
        let (message, number) = (frame.message, frame.number);
        if self.open.len() >= NESTING_MAX {
            return Err(self.json.wrong("nested too deep"));
        }
        if end == b']' {
            match self.json.peek() {
                b'{' => self.open_message(number, message),
                // an element of an array keeps its place
                b'n' if std::ptr::eq(message, &raw const ANY_VALUE) => {
                    self.json.literal()?;
                    self.bytes(number, &[]);
                }
                b'n' => {
                    self.json.literal()?;
                }
                _ => return Err(self.json.wrong("an object is expected")),
            }
            return Ok(());
        }
        self.json.peek();
        let key = self.json.string()?;
        self.json.expect(b':', "':' is expected")?;
        let byte = self.json.peek();
        let Some(field) = message.fields.iter().find(|field| *field.name == *key) else {
            return self.json.skip();
        };
        match &field.kind {
            _ if byte == b'n' => self.json.literal().map(|_| ()),
            Kind::Message(message) if field.repeated => {
                if byte != b'[' {
                    return Err(self.json.wrong("an array is expected"));
                }
                self.open_array(field, message);
                Ok(())
            }
            Kind::Message(message) => {
                if byte != b'{' {
                    return Err(self.json.wrong("an object is expected"));
                }
                self.open_message(field.number, message);
                Ok(())
            }
            _ => self.scalar(field),
        }
    }

    /// Gives up the span or record that is being read, if that is where the error is.
    fn give_up_alone(&mut self, error: NotOtlp) -> Result<(), NotOtlp> {
        let found = self
            .open
            .iter()
            .rposition(|frame| !frame.array && frame.message.alone.is_some())
            .filter(|_| error.wrong_type);
        let Some((index, trace_id)) = found.and_then(|index| Some((index, self.open[index].message.alone?))) else {
            return Err(error);
        };
        let frame = &self.open[index];
        let (body, reserved) = (frame.body, usize::from(frame.length_bytes));
        self.json.at = frame.text;
        self.open.truncate(index);
        self.json.skip()?;
        self.out.truncate(body);
        self.bytes(trace_id, WRONG_TYPE);
        self.close(body, reserved);
        Ok(())
    }
}

trait Integer: Sized + std::str::FromStr + TryFrom<i128> {}
impl Integer for i32 {}
impl Integer for u32 {}
impl Integer for i64 {}
impl Integer for u64 {}

/// An integer, also one written like `1.0` or `5e3`.
fn integer<T: Integer>(text: &[u8]) -> Option<T> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let number = is_number(text.as_bytes()).then(|| text.parse::<f64>().ok()).flatten()?;
    // beyond 2^64 nothing fits, and below the conversion is exact
    (number.fract() == 0.0 && number.abs() < 2e19).then(|| T::try_from(number as i128).ok()).flatten()
}

fn double(text: &[u8]) -> Option<f64> {
    match text {
        b"NaN" => Some(f64::NAN),
        b"Infinity" => Some(f64::INFINITY),
        b"-Infinity" => Some(f64::NEG_INFINITY),
        _ if is_number(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}

/// The protobuf form of an OTLP/JSON export request; `logs` says of which signal.
pub fn to_protobuf(logs: bool, text: &[u8]) -> Result<Vec<u8>, NotOtlp> {
    let mut transcoder =
        Transcoder { json: Json { text, at: 0 }, out: Vec::with_capacity(text.len()), open: Vec::with_capacity(16) };
    if transcoder.json.peek() != b'{' {
        return Err(transcoder.json.syntax("an export request is a JSON object"));
    }
    transcoder.open_message(0, if logs { &LOGS } else { &TRACES });
    while !transcoder.open.is_empty() {
        if let Err(error) = transcoder.step() {
            transcoder.give_up_alone(error)?;
        }
    }
    if transcoder.json.peek() != 0 || transcoder.json.at != text.len() {
        return Err(transcoder.json.syntax("text after the export request"));
    }
    Ok(transcoder.out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use crate::view::Value;
    use crate::wire;

    fn request(span: &str) -> String {
        format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{span}]}}]}}]}}"#)
    }

    fn attribute(value: &str) -> Value<'static> {
        let body = to_protobuf(
            false,
            request(&format!(
                r#"{{"traceId":"0102030405060708090a0b0c0d0e0f10","spanId":"0102030405060708","attributes":[{{"key":"k","value":{value}}}]}}"#
            ))
            .as_bytes(),
        )
        .unwrap();
        testing::spans(&body)[0].attrs[0].value
    }

    #[test]
    fn every_kind_of_value_is_read() {
        assert_eq!(attribute(r#"{"stringValue":"a\"\u00e9\ud83d\ude00\n"}"#), Value::Str("a\"é😀\n"));
        assert_eq!(attribute(r#"{"stringValue":"\ud800x\u0000"}"#), Value::Str("\u{fffd}x\0"));
        assert_eq!(attribute(r#"{"boolValue":true}"#), Value::Bool(true));
        assert_eq!(attribute(r#"{"intValue":"-9223372036854775808"}"#), Value::Int(i64::MIN));
        assert_eq!(attribute(r#"{"intValue":42}"#), Value::Int(42));
        assert_eq!(attribute(r#"{"intValue":5e3}"#), Value::Int(5000));
        assert_eq!(attribute(r#"{"doubleValue":0.5}"#), Value::Double(0.5));
        assert_eq!(attribute(r#"{"doubleValue":"-Infinity"}"#), Value::Double(f64::NEG_INFINITY));
        assert_eq!(attribute(r#"{"bytesValue":"+/8="}"#), Value::Bytes(&[0xfb, 0xff]));
        assert_eq!(attribute(r#"{"bytesValue":"-_8"}"#), Value::Bytes(&[0xfb, 0xff]));
        assert_eq!(attribute("{}"), Value::Empty);
        assert_eq!(attribute("null"), Value::Empty);
        let mut json = String::new();
        wire::to_json(
            attribute(
                r#"{"arrayValue":{"values":[{"kvlistValue":{"values":[{"value":{"intValue":1},"key":"a"}]}},null,{"doubleValue":"NaN"}]}}"#,
            ),
            &mut json,
        );
        assert_eq!(json, r#"[{"a":1},null,"NaN"]"#);
    }

    #[test]
    fn text_of_any_length_gets_the_right_length_prefix() {
        for length in [0, 1, 126, 127, 128, 129, 16_383, 16_384, 70_000, 2_100_000] {
            for escape in ["", "\\n"] {
                let text = "x".repeat(length) + escape;
                let Value::Str(read) = attribute(&format!(r#"{{"stringValue":"{text}"}}"#)) else {
                    panic!("not a string");
                };
                assert_eq!(read.len(), length + escape.len() / 2);
            }
        }
    }

    #[test]
    fn a_field_of_the_wrong_type_costs_only_its_span() {
        let good =
            r#"{"traceId":"0102030405060708090A0B0C0D0E0F10","spanId":"0102030405060708","name":"good","new":[{}]}"#;
        for bad in [
            r#"{"name":5}"#,
            r#"{"attributes":{}}"#,
            r#"{"attributes":[{"key":"k","value":{"intValue":"1.5"}}],"name":"x"}"#,
            r#"{"attributes":[{"key":"k","value":{"arrayValue":{"values":[{"bytesValue":"*"}]}}}]}"#,
            r#"{"startTimeUnixNano":-1}"#,
            r#"{"traceId":"zz"}"#,
            r#"{"traceId":"0"}"#,
            "{}",
        ] {
            let body = to_protobuf(false, request(&format!("{good},{bad},{good}")).as_bytes()).unwrap();
            assert_eq!(testing::spans(&body).len(), 2, "{bad}");
        }
    }

    #[test]
    fn what_is_not_an_export_request_is_refused_with_a_position() {
        for (text, at) in [
            ("", 0),
            ("[]", 0),
            ("{", 1),
            ("{} x", 3),
            (r#"{"resourceSpans":7}"#, 17),
            (r#"{"resourceSpans":[7]}"#, 18),
            (r#"{"a":[1,}"#, 8),
            (r#"{"a":01}"#, 5),
            (r#"{"a":"b"#, 6),
            ("{\"resourceSpans\":[]}\0", 20),
        ] {
            assert_eq!(to_protobuf(false, text.as_bytes()).unwrap_err().at, at, "{text}");
        }
    }

    #[test]
    fn hostile_nesting_is_read_without_recursion() {
        let depth = 100_000;
        let body = to_protobuf(
            false,
            request(&format!(
                r#"{{"x":{}{},"y":{}1{}}}"#,
                "[".repeat(depth),
                "]".repeat(depth),
                r#"{"a":"#.repeat(depth),
                "}".repeat(depth)
            ))
            .as_bytes(),
        );
        assert!(body.is_ok());
        let value = attribute(&format!(
            r#"{}{{"intValue":1}}{}"#,
            r#"{"arrayValue":{"values":["#.repeat(depth),
            "]}}".repeat(depth)
        ));
        let mut json = String::new();
        wire::to_json(value, &mut json);
        let inner = depth - wire::JSON_NESTING_MAX;
        assert_eq!(
            json,
            format!(
                "{}\"{}1{}\"{}",
                "[".repeat(wire::JSON_NESTING_MAX),
                "[".repeat(inner),
                "]".repeat(inner),
                "]".repeat(wire::JSON_NESTING_MAX)
            )
        );
    }

    #[test]
    fn enums_are_read_by_name_and_number() {
        assert_eq!(span_kind(b"SPAN_KIND_CONSUMER"), 5);
        assert_eq!(severity_number(b"SEVERITY_NUMBER_TRACE"), 1);
        assert_eq!(severity_number(b"SEVERITY_NUMBER_INFO3"), 11);
        assert_eq!(severity_number(b"SEVERITY_NUMBER_FATAL4"), 24);
        assert_eq!(severity_number(b"SEVERITY_NUMBER_UNSPECIFIED"), 0);
    }
}
