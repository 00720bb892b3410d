//! JSON text as a tree of slices: strings stay escaped and containers keep their text, so that what is already in the
//! wanted shape is copied, never rebuilt.

use std::borrow::Cow;

use bumpalo::Bump;
use bumpalo::collections::Vec as BumpVec;
use memchr::memchr2;

use crate::wire::json_string;

/// Nesting beyond this is not read: the text is kept as text.
pub const DEPTH_MAX: usize = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The text ends inside a value, as if somebody had cut it.
    Cut,
    Syntax,
    Deep,
}

/// A JSON string.
#[derive(Clone, Copy, Debug)]
pub enum Text<'t> {
    /// Neither quotes, backslashes nor control characters: text and JSON are the same.
    Same(&'t str),
    /// Between the quotes of a valid JSON string, with escapes.
    Escaped(&'t str),
    /// The text itself: to be escaped where it is written.
    Plain(&'t str),
}

impl<'t> Text<'t> {
    pub fn plain(self) -> Cow<'t, str> {
        match self {
            Self::Same(text) | Self::Plain(text) => Cow::Borrowed(text),
            Self::Escaped(body) => {
                let mut out = String::with_capacity(body.len());
                unescape(body, &mut out);
                Cow::Owned(out)
            }
        }
    }

    pub fn plain_in(self, bump: &'t Bump) -> &'t str {
        match self.plain() {
            Cow::Borrowed(text) => text,
            Cow::Owned(text) => bump.alloc_str(&text),
        }
    }

    pub fn is_empty(self) -> bool {
        match self {
            Self::Same(text) | Self::Escaped(text) | Self::Plain(text) => text.is_empty(),
        }
    }

    /// At most `chars` characters of the text, reading no more than that.
    pub fn head(self, chars: usize) -> Cow<'t, str> {
        match self {
            Self::Same(text) | Self::Plain(text) => Cow::Borrowed(head(text, chars)),
            Self::Escaped(body) => {
                // Most characters are one byte; an escape that the window splits is read in the next, wider one.
                let mut window = chars + chars / 4 + 16;
                loop {
                    let mut end = body.len().min(window);
                    while !body.is_char_boundary(end) {
                        end -= 1;
                    }
                    let mut out = String::with_capacity(end);
                    unescape(&body[..end], &mut out);
                    // What the cut made of a split escape is its last six characters at most.
                    if end == body.len() || head(&out, chars + 6).len() < out.len() {
                        let keep = head(&out, chars).len();
                        out.truncate(keep);
                        return Cow::Owned(out);
                    }
                    window *= 4;
                }
            }
        }
    }

    pub fn write(self, out: &mut String) {
        match self {
            Self::Same(body) | Self::Escaped(body) => {
                out.push('"');
                out.push_str(body);
                out.push('"');
            }
            Self::Plain(text) => json_string(text, out),
        }
    }
}

/// The first `chars` characters of `text`.
pub fn head(text: &str, chars: usize) -> &str {
    if text.len() <= chars {
        return text;
    }
    match text.char_indices().nth(chars) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

#[derive(Clone, Copy, Debug)]
pub enum Node<'t> {
    Null,
    Bool(bool),
    Num(&'t str),
    Str(Text<'t>),
    Arr(List<'t>),
    Obj(Object<'t>),
}

#[derive(Clone, Copy, Debug)]
pub struct List<'t> {
    pub items: &'t [Node<'t>],
    raw: Option<&'t str>,
}

#[derive(Clone, Copy, Debug)]
pub struct Object<'t> {
    pub entries: &'t [(&'t str, Node<'t>)],
    raw: Option<&'t str>,
}

impl<'t> Node<'t> {
    pub fn text(self) -> Option<Text<'t>> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    pub fn obj(self) -> Option<Object<'t>> {
        match self {
            Self::Obj(object) => Some(object),
            _ => None,
        }
    }

    pub fn arr(self) -> Option<&'t [Node<'t>]> {
        match self {
            Self::Arr(list) => Some(list.items),
            _ => None,
        }
    }

    pub fn is_null(self) -> bool {
        matches!(self, Self::Null)
    }

    /// The text it was read from, if that is valid JSON as it stands.
    pub fn raw(self) -> Option<&'t str> {
        match self {
            Self::Arr(list) => list.raw,
            Self::Obj(object) => object.raw,
            _ => None,
        }
    }

    /// Its text is valid JSON as it stands.
    pub fn is_clean(self) -> bool {
        match self {
            Self::Null | Self::Bool(_) | Self::Num(_) => true,
            Self::Str(text) => !matches!(text, Text::Plain(_)),
            Self::Arr(list) => list.raw.is_some(),
            Self::Obj(object) => object.raw.is_some(),
        }
    }

    pub fn write(self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(true) => out.push_str("true"),
            Self::Bool(false) => out.push_str("false"),
            Self::Num(text) => out.push_str(text),
            Self::Str(text) => text.write(out),
            Self::Arr(List { raw: Some(raw), .. }) | Self::Obj(Object { raw: Some(raw), .. }) => {
                out.push_str(raw);
            }
            Self::Arr(list) => {
                out.push('[');
                for (index, item) in list.items.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    item.write(out);
                }
                out.push(']');
            }
            Self::Obj(object) => {
                out.push('{');
                for (index, (key, value)) in object.entries.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    json_string(key, out);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }
}

impl<'t> Object<'t> {
    /// The value of `key`; of repeated keys the last one, as every JSON reader does.
    pub fn get(&self, key: &str) -> Option<Node<'t>> {
        self.entries.iter().rev().find(|(name, _)| *name == key).map(|(_, value)| *value)
    }

    /// The first of `keys` that is present and not null.
    pub fn any(&self, keys: &[&str]) -> Option<Node<'t>> {
        keys.iter().filter_map(|key| self.get(key)).find(|value| !value.is_null())
    }

    pub fn text(&self, keys: &[&str]) -> Option<Text<'t>> {
        keys.iter().filter_map(|key| self.get(key)).find_map(Node::text)
    }

    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }
}

/// Undo JSON escapes. Lone surrogates and broken escapes become U+FFFD: they have no UTF-8 form.
pub fn unescape(body: &str, out: &mut String) {
    let bytes = body.as_bytes();
    let mut at = 0;
    while let Some(step) = memchr::memchr(b'\\', &bytes[at..]) {
        out.push_str(&body[at..at + step]);
        at += step + 1;
        let Some(&kind) = bytes.get(at) else {
            return;
        };
        at += 1;
        match kind {
            b'n' => out.push('\n'),
            b't' => out.push('\t'),
            b'r' => out.push('\r'),
            b'b' => out.push('\u{8}'),
            b'f' => out.push('\u{c}'),
            b'"' | b'\\' | b'/' => out.push(kind as char),
            b'u' => {
                let Some(first) = hex4(bytes, at) else {
                    out.push('\u{fffd}');
                    continue;
                };
                at += 4;
                if (0xd800..0xdc00).contains(&first)
                    && bytes.get(at) == Some(&b'\\')
                    && bytes.get(at + 1) == Some(&b'u')
                    && let Some(second @ 0xdc00..0xe000) = hex4(bytes, at + 2)
                {
                    at += 6;
                    let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                    out.push(char::from_u32(code).unwrap_or('\u{fffd}'));
                } else {
                    out.push(char::from_u32(first).unwrap_or('\u{fffd}'));
                }
            }
            _ => {
                out.push('\u{fffd}');
                // Not an escape: the byte may start a longer character.
                at -= 1;
                let rest = body[at..].chars().next().map_or(1, char::len_utf8);
                at += rest;
            }
        }
    }
    out.push_str(&body[at..]);
}

fn hex4(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = bytes.get(at..at + 4)?;
    let mut code = 0;
    for &digit in digits {
        code = code << 4 | (digit as char).to_digit(16)?;
    }
    Some(code)
}

/// Read `text` as one JSON value. `NaN` and `Infinity`, which Python writes, become strings.
pub fn parse<'t>(text: &'t str, bump: &'t Bump) -> Result<Node<'t>, Fault> {
    let mut parser = Parser { text, at: 0, bump };
    parser.space();
    let node = parser.value(0)?;
    parser.space();
    if parser.at < text.len() {
        return Err(Fault::Syntax);
    }
    Ok(node)
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    bump: &'t Bump,
}

impl<'t> Parser<'t> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Result<Node<'t>, Fault> {
        match self.peek().ok_or(Fault::Cut)? {
            b'"' => Ok(Node::Str(self.string()?)),
            b'{' | b'[' if depth >= DEPTH_MAX => Err(Fault::Deep),
            b'{' => self.object(depth),
            b'[' => self.list(depth),
            b'-' | b'0'..=b'9' => self.number(),
            _ => self.word(),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Node<'t>, Fault> {
        let start = self.at;
        self.at += 1;
        let mut entries = BumpVec::new_in(self.bump);
        let mut clean = true;
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
        } else {
            loop {
                self.space();
                if self.peek().ok_or(Fault::Cut)? != b'"' {
                    return Err(Fault::Syntax);
                }
                let key = self.string()?;
                clean &= !matches!(key, Text::Plain(_));
                self.space();
                if self.peek().ok_or(Fault::Cut)? != b':' {
                    return Err(Fault::Syntax);
                }
                self.at += 1;
                self.space();
                let value = self.value(depth + 1)?;
                clean &= value.is_clean();
                entries.push((key.plain_in(self.bump), value));
                self.space();
                match self.peek().ok_or(Fault::Cut)? {
                    b',' => self.at += 1,
                    b'}' => {
                        self.at += 1;
                        break;
                    }
                    _ => return Err(Fault::Syntax),
                }
            }
        }
        Ok(Node::Obj(Object { entries: entries.into_bump_slice(), raw: clean.then(|| &self.text[start..self.at]) }))
    }

    fn list(&mut self, depth: usize) -> Result<Node<'t>, Fault> {
        let start = self.at;
        self.at += 1;
        let mut items = BumpVec::new_in(self.bump);
        let mut clean = true;
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
        } else {
            loop {
                self.space();
                let value = self.value(depth + 1)?;
                clean &= value.is_clean();
                items.push(value);
                self.space();
                match self.peek().ok_or(Fault::Cut)? {
                    b',' => self.at += 1,
                    b']' => {
                        self.at += 1;
                        break;
                    }
                    _ => return Err(Fault::Syntax),
                }
            }
        }
        Ok(Node::Arr(List { items: items.into_bump_slice(), raw: clean.then(|| &self.text[start..self.at]) }))
    }

    fn string(&mut self) -> Result<Text<'t>, Fault> {
        let bytes = self.text.as_bytes();
        let start = self.at + 1;
        let mut at = start;
        let mut escapes = false;
        let mut broken = false;
        loop {
            at += memchr2(b'"', b'\\', bytes.get(at..).ok_or(Fault::Cut)?).ok_or(Fault::Cut)?;
            if bytes[at] == b'"' {
                break;
            }
            escapes = true;
            match bytes.get(at + 1).ok_or(Fault::Cut)? {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => at += 2,
                b'u' => {
                    let code = match hex4(bytes, at + 2) {
                        Some(code) => code,
                        None if bytes.len() < at + 6 => return Err(Fault::Cut),
                        None => return Err(Fault::Syntax),
                    };
                    at += 6;
                    match code {
                        0xd800..0xdc00 => {
                            let pair = bytes.get(at) == Some(&b'\\')
                                && bytes.get(at + 1) == Some(&b'u')
                                && matches!(hex4(bytes, at + 2), Some(0xdc00..0xe000));
                            if pair {
                                at += 6;
                            } else {
                                broken = true;
                            }
                        }
                        0xdc00..0xe000 => broken = true,
                        _ => {}
                    }
                }
                _ => return Err(Fault::Syntax),
            }
        }
        self.at = at + 1;
        let body = &self.text[start..at];
        let control = body.bytes().fold(false, |seen, byte| seen | (byte < 0x20));
        Ok(match (escapes, control || broken) {
            (false, false) => Text::Same(body),
            (true, false) => Text::Escaped(body),
            (false, true) => Text::Plain(body),
            (true, true) => {
                let mut plain = String::with_capacity(body.len());
                unescape(body, &mut plain);
                Text::Plain(self.bump.alloc_str(&plain))
            }
        })
    }

    fn number(&mut self) -> Result<Node<'t>, Fault> {
        let start = self.at;
        while let Some(b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E') = self.peek() {
            self.at += 1;
        }
        let text = &self.text[start..self.at];
        if is_number(text.as_bytes()) {
            Ok(Node::Num(text))
        } else if text == "-" {
            self.word()
        } else {
            Err(Fault::Syntax)
        }
    }

    fn word(&mut self) -> Result<Node<'t>, Fault> {
        let start = self.at;
        while let Some(b'a'..=b'z' | b'A'..=b'Z') = self.peek() {
            self.at += 1;
        }
        match &self.text[start..self.at] {
            "null" => Ok(Node::Null),
            "true" => Ok(Node::Bool(true)),
            "false" => Ok(Node::Bool(false)),
            "NaN" => Ok(Node::Str(Text::Plain("NaN"))),
            "Infinity" => {
                let minus = start > 0 && self.text.as_bytes()[start - 1] == b'-';
                Ok(Node::Str(Text::Plain(if minus { "-Infinity" } else { "Infinity" })))
            }
            word if self.at == self.text.len()
                && ["null", "true", "false"].iter().any(|whole| whole.starts_with(word)) =>
            {
                Err(Fault::Cut)
            }
            _ => Err(Fault::Syntax),
        }
    }
}

/// The number grammar of JSON: no leading zeros, plus signs or bare points.
fn is_number(bytes: &[u8]) -> bool {
    let digits = |at: usize| bytes[at..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut at = usize::from(bytes.first() == Some(&b'-'));
    let whole = digits(at);
    if whole == 0 || (whole > 1 && bytes[at] == b'0') {
        return false;
    }
    at += whole;
    if bytes.get(at) == Some(&b'.') {
        let fraction = digits(at + 1);
        if fraction == 0 {
            return false;
        }
        at += 1 + fraction;
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        at += 1;
        if let Some(b'+' | b'-') = bytes.get(at) {
            at += 1;
        }
        let exponent = digits(at);
        if exponent == 0 {
            return false;
        }
        at += exponent;
    }
    at == bytes.len()
}

/// Key and text of each member of the JSON object `text`, found without reading the values.
pub fn members(text: &str) -> Option<Vec<(Cow<'_, str>, &str)>> {
    let mut members = Members::open(text)?;
    let mut entries = Vec::new();
    while let Some(key) = members.key()? {
        entries.push((key, members.value()?));
    }
    Some(entries)
}

/// Walks the members of a JSON object; its methods return `None` where it is not one.
pub struct Members<'t> {
    scan: Scan<'t>,
    first: bool,
}

impl<'t> Members<'t> {
    pub fn open(text: &'t str) -> Option<Self> {
        Some(Self { scan: Scan::inside(text, b'{')?, first: true })
    }

    /// The next key, `Some(None)` at the end of the object and the text.
    pub fn key(&mut self) -> Option<Option<Cow<'t, str>>> {
        let scan = &mut self.scan;
        scan.space();
        match scan.peek()? {
            b'}' => {
                scan.at += 1;
                scan.space();
                return (scan.at == scan.text.len()).then_some(None);
            }
            b',' if !self.first => {
                scan.at += 1;
                scan.space();
            }
            _ if !self.first => return None,
            _ => {}
        }
        self.first = false;
        if scan.peek()? != b'"' {
            return None;
        }
        let key = scan.skip()?;
        let key = &key[1..key.len() - 1];
        scan.space();
        if scan.peek()? != b':' {
            return None;
        }
        scan.at += 1;
        scan.space();
        Some(Some(if key.contains('\\') {
            let mut plain = String::new();
            unescape(key, &mut plain);
            Cow::Owned(plain)
        } else {
            Cow::Borrowed(key)
        }))
    }

    pub fn value(&mut self) -> Option<&'t str> {
        self.scan.skip()
    }

    /// The text from the value on.
    pub fn rest(&self) -> &'t str {
        &self.scan.text[self.scan.at..]
    }

    /// Step over a value of known length.
    pub fn pass(&mut self, bytes: usize) -> Option<()> {
        self.scan.at += bytes;
        self.scan.text.is_char_boundary(self.scan.at).then_some(())
    }
}

struct Scan<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Scan<'t> {
    fn inside(text: &'t str, open: u8) -> Option<Self> {
        let mut scan = Self { text, at: 0 };
        scan.space();
        (scan.peek()? == open).then(|| scan.at += 1)?;
        Some(scan)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn string(&mut self) -> Option<()> {
        let bytes = self.text.as_bytes();
        self.at += 1;
        loop {
            self.at += memchr2(b'"', b'\\', bytes.get(self.at..)?)?;
            if bytes[self.at] == b'"' {
                self.at += 1;
                return Some(());
            }
            self.at += 2;
        }
    }

    /// Step over one value and return its text.
    fn skip(&mut self) -> Option<&'t str> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        match self.peek()? {
            b'"' => self.string()?,
            b'{' | b'[' => {
                let mut open = 0_usize;
                loop {
                    match self.peek()? {
                        b'"' => {
                            self.string()?;
                            continue;
                        }
                        b'{' | b'[' => open += 1,
                        b'}' | b']' => open -= 1,
                        _ => {}
                    }
                    self.at += 1;
                    if open == 0 {
                        break;
                    }
                }
            }
            _ => {
                let rest = &bytes[self.at..];
                let end = rest
                    .iter()
                    .position(|b| matches!(b, b',' | b']' | b'}' | b' ' | b'\n' | b'\r' | b'\t'))
                    .unwrap_or(rest.len());
                if end == 0 {
                    return None;
                }
                self.at += end;
            }
        }
        self.text.get(start..self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(text: &str) -> Result<String, Fault> {
        let bump = Bump::new();
        let mut out = String::new();
        parse(text, &bump)?.write(&mut out);
        Ok(out)
    }

    #[test]
    fn valid_json_is_written_as_it_came() {
        for text in ["null", "-1.5e+3", r#""a\"bé\u00e9\ud83d\ude00""#, r#"{"a": [1, {"b": []}],  "a": {}}"#, "[]"] {
            assert_eq!(rewritten(text).as_deref(), Ok(text));
        }
    }

    #[test]
    fn what_python_writes_beyond_json_becomes_json() {
        assert_eq!(rewritten("[NaN, -Infinity]").unwrap(), r#"["NaN","-Infinity"]"#);
        assert_eq!(rewritten("{\"a\": \"b\nc\"}").unwrap(), r#"{"a":"b\nc"}"#);
        assert_eq!(rewritten(r#"["\ud800x"]"#).unwrap(), "[\"\u{fffd}x\"]");
    }

    #[test]
    fn text_that_ends_too_early_is_told_from_text_that_is_wrong() {
        for text in ["[", "{\"a", "{\"a\":", "[1,", "\"a\\", "[tru", "\"\\u12", "[{\"a\":1}"] {
            assert_eq!(rewritten(text), Err(Fault::Cut), "{text}");
        }
        for text in ["[1}", "{'a':1}", "01", "[1]x", "\"\\x\"", "\"\\u12zz\"", "{1:2}", "[,]"] {
            assert_eq!(rewritten(text), Err(Fault::Syntax), "{text}");
        }
        assert_eq!(rewritten(&"[".repeat(100_000)), Err(Fault::Deep));
    }

    #[test]
    fn members_are_found_without_reading_them() {
        assert_eq!(
            members(r#" {"a":{"b":"}\""}, "c\n" : [2] ,"d":nul} "#).unwrap(),
            vec![("a".into(), r#"{"b":"}\""}"#), ("c\n".into(), "[2]"), ("d".into(), "nul")]
        );
        assert_eq!(members("{}").unwrap(), vec![]);
        for text in ["{\"a\":1", "{\"a\":1,}", "{\"a\":1}x", "[]", "{\"a}", "{\"a\" 1}", ""] {
            assert_eq!(members(text), None, "{text}");
        }
    }

    #[test]
    fn a_head_never_splits_a_character() {
        assert_eq!(Text::Plain("héllo").head(2), "hé");
        assert_eq!(Text::Escaped(r"\ud83d\ude00\ud83d\ude00é").head(2), "😀😀");
        assert_eq!(Text::Escaped(&r"\n".repeat(500)).head(200).chars().count(), 200);
        for lead in 0..40 {
            let body = format!("{}{}", "x".repeat(lead), r"\ud83d\ude00".repeat(300));
            let whole = Text::Escaped(&body).plain().chars().take(200).collect::<String>();
            assert_eq!(Text::Escaped(&body).head(200), whole, "{lead}");
        }
    }
}
