//! What texts say about failures, by the tables of `processors/data/errors.toml`.

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, MatchKind};
use rustc_hash::FxHashMap;
use serde::Deserialize;

use super::{TEXT_BYTES_MAX, finish, name_hash, narrow, tokens};
use crate::messages::json::Node;
use crate::values;
use crate::view::Attr;
use xxhash_rust::xxh3::xxh3_64;

/// As much of a text as a head is compared with.
pub const HEAD_BYTES_MAX: usize = 256;
/// Words of an error text that tell errors apart.
const TEMPLATE_WORDS: usize = 6;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawErrors {
    class: Vec<RawClass>,
    status_before: Vec<String>,
    error_heads: Vec<String>,
    error_within: Vec<String>,
    exit_codes: Vec<String>,
    exit_labels: Vec<String>,
    empty: Vec<String>,
    empty_heads: Vec<String>,
    payloads: Vec<String>,
    stop_heads: Vec<String>,
    compaction_heads: Vec<String>,
    /// Raw finish reason → bit of `Finish`.
    finish: FxHashMap<String, u8>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawClass {
    /// Value of `ErrorClass`.
    code: u8,
    says: Vec<String>,
    veto: Vec<String>,
    status: Vec<u16>,
    only_status: Vec<u16>,
    veto_status: Vec<u16>,
}

struct Class {
    code: u8,
    says: Vec<u16>,
    veto: Vec<u16>,
    status: Vec<u16>,
    only_status: Vec<u16>,
    veto_status: Vec<u16>,
}

/// Texts that are looked for all at once. A pattern is several of them, one after the other.
struct Finder {
    literals: AhoCorasick,
    /// By literal: (pattern, place in it).
    uses: Vec<Vec<(u16, u8)>>,
    /// By pattern: how many literals.
    lengths: Vec<u8>,
}

/// The pattern that stands for what precedes an HTTP status.
const BEFORE_STATUS: u16 = 0;

#[derive(Default)]
struct Literals {
    texts: Vec<String>,
    uses: Vec<Vec<(u16, u8)>>,
    lengths: Vec<u8>,
}

impl Literals {
    fn literal(&mut self, text: &str, pattern: u16, place: u8) {
        let text = text.to_ascii_lowercase();
        let at = self.texts.iter().position(|known| *known == text).unwrap_or_else(|| {
            self.texts.push(text);
            self.uses.push(Vec::new());
            self.texts.len() - 1
        });
        self.uses[at].push((pattern, place));
    }

    fn pattern(&mut self, text: &str) -> Result<u16, String> {
        let pattern = u16::try_from(self.lengths.len()).map_err(|_| "too many patterns")?;
        let mut length = 0;
        for part in text.split(" * ") {
            if part.is_empty() {
                return Err(format!("pattern {text:?} has an empty part"));
            }
            self.literal(part, pattern, length);
            length += 1;
        }
        self.lengths.push(length);
        Ok(pattern)
    }

    fn finish(self) -> Result<Finder, String> {
        let literals = AhoCorasickBuilder::new()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .build(&self.texts)
            .map_err(|error| format!("cannot compile the error patterns: {error}"))?;
        Ok(Finder { literals, uses: self.uses, lengths: self.lengths })
    }
}

/// Texts that stand at the beginning of another, lower case, by their first byte.
struct Heads(Vec<Vec<Box<str>>>);

impl Heads {
    fn new(texts: &[String]) -> Result<Self, String> {
        let mut heads = vec![Vec::new(); 256];
        for text in texts {
            let text = text.to_ascii_lowercase();
            let first = *text.as_bytes().first().ok_or("an empty head")?;
            heads[usize::from(first)].push(text.into_boxed_str());
        }
        Ok(Self(heads))
    }

    /// The head that `text` begins with.
    fn of(&self, text: &str) -> Option<&str> {
        let bytes = text.as_bytes();
        let first = bytes.first()?.to_ascii_lowercase();
        let matches =
            |head: &&str| bytes.get(..head.len()).is_some_and(|start| start.eq_ignore_ascii_case(head.as_bytes()));
        self.0[usize::from(first)].iter().map(|head| &**head).find(matches)
    }
}

pub struct Errors {
    classes: Vec<Class>,
    other: u8,
    finder: Finder,
    error_heads: Heads,
    error_within: Vec<Box<str>>,
    exit_codes: Heads,
    exit_labels: Heads,
    empty: Vec<Box<str>>,
    empty_heads: Heads,
    payloads: Vec<Box<str>>,
    stop_heads: Heads,
    compaction_heads: Heads,
    finish: FxHashMap<Box<str>, u8>,
}

#[derive(Default)]
pub struct Judged {
    pub failed: bool,
    pub empty: bool,
}

/// What is known of one error.
#[derive(Default)]
pub struct Case {
    text: String,
    pub status: u16,
}

impl Case {
    pub fn add(&mut self, text: &str) {
        if !text.is_empty() {
            self.text.push_str(tokens::head(text, TEXT_BYTES_MAX));
            self.text.push('\n');
        }
    }
}

fn lower(texts: Vec<String>) -> Vec<Box<str>> {
    texts.into_iter().map(|text| text.to_ascii_lowercase().into_boxed_str()).collect()
}

impl Errors {
    pub fn new(raw: RawErrors) -> Result<Self, String> {
        let mut literals = Literals::default();
        literals.lengths.push(1);
        for text in &raw.status_before {
            literals.literal(text, BEFORE_STATUS, 0);
        }
        let mut classes = Vec::new();
        let mut other = 0;
        for class in raw.class {
            let mut patterns = |texts: &[String]| {
                texts.iter().map(|text| literals.pattern(text)).collect::<Result<Vec<u16>, String>>()
            };
            if class.says.is_empty() && class.status.is_empty() {
                other = class.code;
                continue;
            }
            classes.push(Class {
                code: class.code,
                says: patterns(&class.says)?,
                veto: patterns(&class.veto)?,
                status: class.status,
                only_status: class.only_status,
                veto_status: class.veto_status,
            });
        }
        Ok(Self {
            classes,
            other,
            finder: literals.finish()?,
            error_heads: Heads::new(&raw.error_heads)?,
            error_within: lower(raw.error_within),
            exit_codes: Heads::new(&raw.exit_codes)?,
            exit_labels: Heads::new(&raw.exit_labels)?,
            empty: lower(raw.empty),
            empty_heads: Heads::new(&raw.empty_heads)?,
            payloads: lower(raw.payloads),
            stop_heads: Heads::new(&raw.stop_heads)?,
            compaction_heads: Heads::new(&raw.compaction_heads)?,
            finish: raw.finish.into_iter().map(|(reason, bit)| (reason.into_boxed_str(), bit)).collect(),
        })
    }

    /// What a raw finish reason says beyond its canonical value.
    pub fn finish(&self, raw: &str) -> u8 {
        debug_assert!(self.finish.values().all(|bit| bit & !(finish::CONTEXT_WINDOW | finish::MALFORMED) == 0));
        match self.finish.get(raw) {
            Some(bit) => *bit,
            None if raw.bytes().any(|byte| byte.is_ascii_uppercase()) => {
                self.finish.get(&*raw.to_ascii_lowercase()).copied().unwrap_or(0)
            }
            None => 0,
        }
    }

    pub fn class_of(&self, case: &Case) -> u8 {
        let text = case.text.as_bytes();
        let mut progress = vec![(0_u8, 0_usize); self.finder.lengths.len()];
        let mut status = case.status;
        for found in self.finder.literals.find_overlapping_iter(text) {
            for (pattern, place) in &self.finder.uses[found.pattern().as_usize()] {
                let (done, end) = &mut progress[usize::from(*pattern)];
                if *done == *place && found.start() >= *end {
                    *done += 1;
                    *end = found.end();
                }
                if *pattern == BEFORE_STATUS && status == 0 {
                    status = status_at(&text[found.end()..]);
                }
            }
        }
        if status == 0 {
            // "429 Too Many Requests", "503"
            status = case.text.lines().map(|line| status_at(line.as_bytes())).find(|status| *status != 0).unwrap_or(0);
        }
        let said = |patterns: &[u16]| {
            patterns
                .iter()
                .any(|pattern| progress[usize::from(*pattern)].0 == self.finder.lengths[usize::from(*pattern)])
        };
        let applies = |class: &&Class| {
            let seen = |list: &[u16]| status != 0 && list.contains(&status);
            if seen(&class.veto_status) || said(&class.veto) {
                return false;
            }
            let gate = status == 0 || class.only_status.is_empty() || class.only_status.contains(&status);
            seen(&class.status) || (gate && said(&class.says))
        };
        self.classes.iter().find(applies).map_or(self.other, |class| class.code)
    }

    /// Whether the text of a result is an error, or says that there is nothing.
    pub fn judge(&self, text: &str) -> Judged {
        let head = super::result::opening(text);
        if let Some(label) = self.exit_codes.of(head) {
            let rest = head[label.len()..].trim_start();
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if digits > 0 || rest.starts_with('-') {
                let failed = rest.starts_with('-') || rest[..digits].bytes().any(|byte| byte != b'0');
                return Judged { failed, empty: !failed && self.is_blank(&text.trim_start()[label.len()..]) };
            }
        }
        if self.error_heads.of(head).is_some() || names_exception(head) {
            return Judged { failed: true, empty: false };
        }
        let lowered = head.to_ascii_lowercase();
        if self.error_within.iter().any(|within| lowered.contains(&**within)) {
            return Judged { failed: true, empty: false };
        }
        let short = lowered.trim().trim_end_matches(['.', '!']);
        let whole = text.trim().len() <= HEAD_BYTES_MAX;
        let empty = (whole && (short.is_empty() || self.empty.iter().any(|empty| **empty == *short)))
            || self.empty_heads.of(head).is_some();
        Judged { failed: false, empty }
    }

    /// Whether nothing follows an exit code but labels.
    fn is_blank(&self, text: &str) -> bool {
        let mut rest = text.trim_start().trim_start_matches(|c: char| c.is_ascii_digit());
        while let Some(label) = self.exit_labels.of(rest.trim_start()) {
            rest = &rest.trim_start()[label.len()..];
        }
        rest.trim().is_empty()
    }

    /// Whether a JSON value holds nothing where it should hold what was asked for.
    pub fn is_void(&self, node: Node<'_>) -> bool {
        let object = match node {
            Node::Arr(list) => return list.items.is_empty(),
            Node::Obj(object) => object,
            _ => return false,
        };
        let void = |node: Node<'_>| match node {
            Node::Null => true,
            Node::Str(text) => text.is_empty(),
            Node::Arr(list) => list.items.is_empty(),
            Node::Obj(object) => object.entries.is_empty(),
            _ => false,
        };
        let mut asked = object.entries.is_empty();
        for (key, value) in object.entries {
            let is_payload = self.payloads.iter().any(|payload| payload.eq_ignore_ascii_case(key));
            if is_payload && void(*value) {
                asked = true;
            } else if is_payload || (matches!(value, Node::Arr(_) | Node::Obj(_)) && !void(*value)) {
                return false;
            }
        }
        asked
    }

    /// Whether the answer of an agent says that the run was stopped.
    pub fn is_stop(&self, text: &str) -> bool {
        self.stop_heads.of(text.trim_start()).is_some()
    }

    /// Whether a message begins as summaries of history do.
    pub fn is_summary(&self, text: &str) -> bool {
        self.compaction_heads.of(text.trim_start()).is_some()
    }
}

/// The HTTP status of an error that the text begins with, 0 for none.
fn status_at(text: &[u8]) -> u16 {
    let text = text.trim_ascii_start();
    let text = text.strip_prefix(b"\"").or(text.strip_prefix(b"'")).unwrap_or(text);
    match text {
        [hundred @ (b'4' | b'5'), ten @ b'0'..=b'9', one @ b'0'..=b'9', rest @ ..]
            if !rest.first().is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'.') =>
        {
            let digit = |byte: &u8| u16::from(byte - b'0');
            digit(hundred) * 100 + digit(ten) * 10 + digit(one)
        }
        _ => 0,
    }
}

/// The HTTP status of an error among the attributes, 0 for none.
pub fn status_of(attrs: &[Attr<'_>]) -> u16 {
    let keys = ["http.response.status_code", "http.status_code", "error.status_code", "rpc.http.status_code"];
    let found = attrs.iter().find(|attr| keys.contains(&attr.key)).and_then(|attr| values::count(attr.value));
    found.filter(|status| (400..600).contains(status)).map_or(0, |status| status as u16)
}

/// `ValueError: ...`, `json.decoder.JSONDecodeError(...`: the name of an exception at the beginning of a text.
fn exception_at(text: &str) -> Option<&str> {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.')).unwrap_or(text.len());
    let name = text[..end].rsplit('.').next()?;
    let known = ["Error", "Exception", "Interrupt", "Exit", "Warning"].iter().any(|ending| name.ends_with(ending));
    let follows = text[end..].starts_with([':', '(']) || end == text.len();
    let named = name.starts_with(|c: char| c.is_ascii_uppercase()) && name.len() > "Error".len();
    (known && follows && named).then_some(name)
}

fn names_exception(head: &str) -> bool {
    exception_at(head).is_some_and(|name| !name.ends_with("Warning"))
}

/// Hash of what an error says without what differs from one occurrence to the next: the type of the last exception,
/// else the first six words without quotes, brackets and digits. 0 for no error.
pub fn template(exception: &str, text: &str, error_type: &str) -> u32 {
    if !exception.is_empty() {
        return name_hash(bare(exception));
    }
    if text.contains("Traceback (most recent call last)") {
        let end = tokens::tail(text, 1024);
        if let Some(name) = end.lines().rev().take(32).find_map(|line| exception_at(line.trim())) {
            return name_hash(name);
        }
    }
    let mut words = String::new();
    let found = tokens::head(text, 512)
        .split_whitespace()
        .map(|word| word.chars().filter(|c| !c.is_ascii_digit() && !"\"'`()[]{}<>".contains(*c)).collect::<String>());
    for word in found.filter(|word| !word.is_empty()).take(TEMPLATE_WORDS) {
        words.push_str(&word.to_lowercase());
        words.push(' ');
    }
    match words.is_empty() {
        false => narrow(xxh3_64(words.trim_end().as_bytes())),
        true => name_hash(bare(error_type)),
    }
}

/// A class without its module.
fn bare(name: &str) -> &str {
    name.rsplit(['.', ':', '/']).next().filter(|last| !last.is_empty()).unwrap_or(name)
}
