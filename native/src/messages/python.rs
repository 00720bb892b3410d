//! Python literals and dataclasses, as `repr` prints them, to JSON text. Nothing is ever evaluated: a constructor with
//! its keyword arguments is read as an object, an enum member as its value, any other `<...>` as text.

use super::json::DEPTH_MAX;
use crate::wire::json_string;

/// JSON for the Python literal `text`; `None` if it is anything but a literal.
pub fn to_json(text: &str) -> Option<String> {
    let mut reader = Reader { bytes: text.as_bytes(), text, at: 0, out: String::with_capacity(text.len() + 16) };
    reader.value(0)?;
    reader.space();
    (reader.at == text.len()).then_some(reader.out)
}

struct Reader<'t> {
    text: &'t str,
    bytes: &'t [u8],
    at: usize,
    out: String,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        self.space();
        match self.peek()? {
            b'\'' | b'"' => {
                let text = self.string()?;
                json_string(&text, &mut self.out);
                Some(())
            }
            b'[' => self.list(b']', depth),
            b'(' => self.list(b')', depth),
            b'{' => self.dict(depth),
            b'-' | b'+' | b'0'..=b'9' | b'.' => self.number(),
            b'<' => self.angle(depth),
            _ => self.word(depth),
        }
    }

    fn list(&mut self, close: u8, depth: usize) -> Option<()> {
        self.at += 1;
        self.out.push('[');
        let mut first = true;
        loop {
            self.space();
            if self.peek()? == close {
                break;
            }
            if !first {
                self.out.push(',');
            }
            first = false;
            self.value(depth + 1)?;
            self.space();
            match self.peek()? {
                b',' => self.at += 1,
                byte if byte == close => {}
                _ => return None,
            }
        }
        self.at += 1;
        self.out.push(']');
        Some(())
    }

    fn dict(&mut self, depth: usize) -> Option<()> {
        self.at += 1;
        self.out.push('{');
        let mut first = true;
        loop {
            self.space();
            if self.peek()? == b'}' {
                break;
            }
            if !first {
                self.out.push(',');
            }
            first = false;
            if let b'\'' | b'"' = self.peek()? {
                let key = self.string()?;
                json_string(&key, &mut self.out);
            } else {
                // Numbers, None and booleans are legal keys; JSON wants them as text.
                let start = self.out.len();
                self.value(depth + 1)?;
                let key = self.out.split_off(start);
                if key.starts_with(['[', '{', '"']) {
                    return None;
                }
                json_string(&key, &mut self.out);
            }
            self.space();
            if self.peek()? != b':' {
                return None;
            }
            self.at += 1;
            self.out.push(':');
            self.value(depth + 1)?;
            self.space();
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => {}
                _ => return None,
            }
        }
        self.at += 1;
        self.out.push('}');
        Some(())
    }

    fn string(&mut self) -> Option<String> {
        let quote = self.peek()?;
        self.at += 1;
        let mut text = String::new();
        loop {
            let step = memchr::memchr2(quote, b'\\', self.bytes.get(self.at..)?)?;
            text.push_str(self.text.get(self.at..self.at + step)?);
            self.at += step + 1;
            if self.bytes[self.at - 1] == quote {
                return Some(text);
            }
            let kind = self.peek()?;
            self.at += 1;
            match kind {
                b'n' => text.push('\n'),
                b't' => text.push('\t'),
                b'r' => text.push('\r'),
                b'\\' | b'\'' | b'"' => text.push(kind as char),
                b'x' => text.push(self.code(2)?),
                b'u' => text.push(self.code(4)?),
                b'U' => text.push(self.code(8)?),
                b'0' => text.push('\0'),
                _ => return None,
            }
        }
    }

    fn code(&mut self, digits: usize) -> Option<char> {
        let text = self.text.get(self.at..self.at + digits)?;
        self.at += digits;
        let code = u32::from_str_radix(text, 16).ok()?;
        Some(char::from_u32(code).unwrap_or('\u{fffd}'))
    }

    fn number(&mut self) -> Option<()> {
        let start = self.at;
        while let Some(b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E') = self.peek() {
            self.at += 1;
        }
        let text = &self.text[start..self.at];
        if let Ok(value) = text.parse::<i128>() {
            self.out.push_str(&value.to_string());
        } else {
            let value: f64 = text.parse().ok().filter(|value: &f64| value.is_finite())?;
            self.out.push_str(&format!("{value:?}"));
        }
        Some(())
    }

    /// `<ChatRole.USER: 'user'>` is its value; `<function f at 0x1>` is text.
    fn angle(&mut self, depth: usize) -> Option<()> {
        let start = self.at;
        let (out, rest) = (self.out.len(), &self.text[start + 1..]);
        let name = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_')).count();
        if name > 0 && rest[name..].starts_with(": ") {
            self.at += 1 + name + 2;
            if self.value(depth + 1).is_some() && self.peek() == Some(b'>') {
                self.at += 1;
                return Some(());
            }
            self.out.truncate(out);
            self.at = start;
        }
        let mut open = 0_usize;
        loop {
            match self.peek()? {
                b'<' => open += 1,
                b'>' => open -= 1,
                _ => {}
            }
            self.at += 1;
            if open == 0 {
                break;
            }
        }
        json_string(self.text.get(start..self.at)?, &mut self.out);
        Some(())
    }

    fn word(&mut self, depth: usize) -> Option<()> {
        let start = self.at;
        while let Some(b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.') = self.peek() {
            self.at += 1;
        }
        if self.peek() == Some(b'(') && self.at > start {
            return self.constructor(depth);
        }
        self.out.push_str(match &self.text[start..self.at] {
            "None" => "null",
            "True" => "true",
            "False" => "false",
            "nan" => "\"NaN\"",
            "inf" => "\"Infinity\"",
            // JSON words inside a repr: dict printed from mixed sources.
            "null" => "null",
            "true" => "true",
            "false" => "false",
            _ => return None,
        });
        Some(())
    }

    /// `TextContent(text='hi')`: keyword arguments only, private ones without their underscore.
    fn constructor(&mut self, depth: usize) -> Option<()> {
        self.at += 1;
        self.out.push('{');
        let mut first = true;
        loop {
            self.space();
            if self.peek()? == b')' {
                break;
            }
            if !first {
                self.out.push(',');
            }
            first = false;
            let start = self.at;
            while let Some(b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_') = self.peek() {
                self.at += 1;
            }
            let key = self.text[start..self.at].trim_start_matches('_');
            if key.is_empty() || self.peek()? != b'=' {
                return None;
            }
            json_string(key, &mut self.out);
            self.out.push(':');
            self.at += 1;
            self.value(depth + 1)?;
            self.space();
            match self.peek()? {
                b',' => self.at += 1,
                b')' => {}
                _ => return None,
            }
        }
        self.at += 1;
        self.out.push('}');
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::to_json;

    #[test]
    fn literals_become_json() {
        for (python, json) in [
            ("{'a': None, 'b': [True, False]}", r#"{"a":null,"b":[true,false]}"#),
            (r#"{'x': "it's", "y": 'a"b'}"#, r#"{"x":"it's","y":"a\"b"}"#),
            (r"('a\n\x41\u00e9\U0001f600',)", "[\"a\\nAé😀\"]"),
            ("{1: 2.5, None: -3}", r#"{"1":2.5,"null":-3}"#),
            ("[]", "[]"),
            ("()", "[]"),
            ("[1e3, 12345678901234567890]", "[1000.0,12345678901234567890]"),
        ] {
            assert_eq!(to_json(python).as_deref(), Some(json), "{python}");
        }
    }

    #[test]
    fn dataclasses_become_objects() {
        assert_eq!(
            to_json(
                "[ChatMessage(_role=<ChatRole.USER: 'user'>, _content=[TextContent(text='hi')], _name=None, \
                 tool=Tool(function=<function hs.<locals>.f at 0x7f>))]"
            )
            .as_deref(),
            Some(
                r#"[{"role":"user","content":[{"text":"hi"}],"name":null,"tool":{"function":"<function hs.<locals>.f at 0x7f>"}}]"#
            )
        );
    }

    #[test]
    fn anything_but_a_literal_is_refused() {
        for text in [
            "",
            "{'a'}",
            "<object at 0x1",
            "__import__('os')",
            "f(1)",
            "f(x)",
            "['a' 'b']",
            "{'a': 1",
            "'a",
            "[1,,2]",
            "{[1]: 2}",
            r"'\q'",
        ] {
            assert_eq!(to_json(text), None, "{text}");
        }
        assert_eq!(to_json(&"[".repeat(100_000)), None);
    }
}
