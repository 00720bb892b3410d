//! Chat messages, instructions, tool definitions, arguments and results of every shape, as canonical JSON.
//!
//! Whatever the source (JSON text, encoded AnyValues, flattened keys, span events, log bodies, Python literals), it is
//! brought to JSON text first, an element at a time. An element seen before in this decode call is recognised by the
//! hash of that text and costs no more than that hash. `docs/messages.md` describes the shapes and limits.

mod flat;
pub(crate) mod json;
mod parts;
mod python;
mod rows;
mod shapes;
mod tools;

use bumpalo::Bump;
use hashbrown::HashMap;

use crate::content::{Splits, hash};
use crate::view::{Attr, ContentItem, EventView, Value};

pub use rows::{ContentPlan, ContentRow};

use json::{Members, Node, parse};
use parts::Draft;
use shapes::{Item, Reader, Reading, Side};

/// Characters of a preview.
const PREVIEW_CHARS: usize = 200;
/// Shorter texts are read faster than they are looked up.
const MEMO_BYTES_MIN: usize = 48;
/// Longer arrays and objects are taken apart before they are looked up: they are histories, which grow.
const WHOLE_BYTES_MAX: usize = 1024;

/// Content already canonicalised in this decode call, by hash.
#[derive(Default)]
pub struct Memo<'a> {
    seen: HashMap<(u128, Side), Reading<'a>, foldhash::fast::FixedState>,
    /// Arrays that were split, for whoever stores the original attributes.
    pub splits: Splits<'a>,
    scratch: Bump,
    draft: Draft,
    buffer: String,
    digest: Vec<u8>,
}

/// What a span or log record offers.
pub struct Source<'s, 'a> {
    pub attrs: &'s [Attr<'a>],
    pub events: &'s [EventView<'a>],
    /// Of a log record, '' for a span.
    pub event_name: &'a str,
    /// Of a log record, `Empty` for a span.
    pub body: Value<'a>,
}

/// What the content says about the call beside the content itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hints<'a> {
    /// As spelled in the messages or bodies, in order of choices.
    pub finish_reasons: Vec<&'a str>,
    pub output_has_tool_calls: bool,
    /// Raw JSON of a usage object found in a response body, and the model named beside it.
    pub usage: Option<&'a str>,
    pub model: &'a str,
    /// success, error or ''.
    pub tool_status: &'static str,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Content<'a> {
    pub items: Vec<ContentItem<'a>>,
    pub input_preview: &'a str,
    pub output_preview: &'a str,
    /// The texts of rows to `input` and `output`, whole.
    pub input_text: &'a str,
    pub output_text: &'a str,
    /// Sources whose text had been cut by the sender, for the derived attribute `spanwise.truncated`.
    pub truncated: Vec<&'a str>,
    pub hints: Hints<'a>,
}

/// Fill the targets of `plan` for a span or log record of class `kind`.
pub fn collect<'a>(
    plan: &'a ContentPlan,
    kind: &str,
    source: &Source<'_, 'a>,
    memo: &mut Memo<'a>,
    arena: &'a Bump,
) -> Content<'a> {
    rows::collect(plan, kind, source, memo, arena)
}

/// Messages of one source.
#[derive(Debug, Default)]
struct Found<'a> {
    items: Vec<Item<'a>>,
    usage: Option<&'a str>,
    model: &'a str,
    truncated: bool,
    recognised: bool,
}

impl<'a> Found<'a> {
    fn add(&mut self, reading: &Reading<'a>) {
        let room = shapes::MESSAGES_MAX.saturating_sub(self.items.len());
        self.items.extend(reading.items.iter().take(room));
        self.truncated |= reading.truncated || reading.items.len() > room;
        self.recognised |= reading.recognised;
        if self.usage.is_none() && reading.usage.is_some() {
            self.usage = reading.usage;
            self.model = reading.model;
        }
    }
}

impl<'a> Memo<'a> {
    /// Read the messages in `text` into `found`.
    fn read(&mut self, text: &'a str, side: Side, arena: &'a Bump, found: &mut Found<'a>) {
        if text.len() > WHOLE_BYTES_MAX {
            match text.as_bytes()[0] {
                b'[' => {
                    if let Some(elements) = self.elements(text)
                        && self.holds_messages(elements[0], side)
                    {
                        for (element, hash) in elements {
                            self.hashed(element, hash, side, arena, found);
                        }
                        return;
                    }
                }
                b'{' if side == Side::Input => {
                    if let Some(history) = self.history(text, arena, found) {
                        return self.read(history, side, arena, found);
                    }
                }
                _ => {}
            }
        }
        self.whole(text, side, arena, found);
    }

    /// Elements of an array that is all of `text`, with their hashes.
    fn elements(&mut self, text: &'a str) -> Option<Vec<(&'a str, u128)>> {
        if let Some(split) = self.splits.known(text) {
            return Some(split.elements.clone());
        }
        let split = self.splits.array(text)?;
        (split.text.len() == text.len()).then(|| split.elements.clone())
    }

    /// Read a text, or remember what was read from it before.
    fn whole(&mut self, text: &'a str, side: Side, arena: &'a Bump, found: &mut Found<'a>) {
        if text.len() < MEMO_BYTES_MIN {
            return found.add(&self.fresh(text, None, side, arena));
        }
        self.hashed(text, hash(text), side, arena, found);
    }

    fn hashed(&mut self, text: &'a str, hash: u128, side: Side, arena: &'a Bump, found: &mut Found<'a>) {
        if let Some(reading) = self.seen.get(&(hash, side)) {
            return found.add(reading);
        }
        let reading = self.fresh(text, Some(hash), side, arena);
        found.add(&reading);
        self.seen.insert((hash, side), reading);
    }

    fn fresh(&mut self, text: &'a str, hash: Option<u128>, side: Side, arena: &'a Bump) -> Reading<'a> {
        self.scratch.reset();
        let mut reader = Reader {
            arena,
            side,
            draft: &mut self.draft,
            keep: text,
            hash,
            out: Vec::new(),
            usage: None,
            model: "",
            truncated: false,
            recognised: false,
        };
        reader.text(text, &self.scratch, 0);
        Reading {
            items: arena.alloc_slice_copy(&reader.out),
            usage: reader.usage,
            model: reader.model,
            truncated: reader.truncated,
            recognised: reader.recognised,
        }
    }

    /// The same for text that does not live as long as the arena.
    fn passing(&mut self, text: &str, side: Side, arena: &'a Bump, found: &mut Found<'a>) {
        if text.len() >= MEMO_BYTES_MIN
            && let Some(reading) = self.seen.get(&(hash(text), side))
        {
            return found.add(reading);
        }
        self.whole(arena.alloc_str(text), side, arena, found);
    }

    /// A message spread over attributes; `leaves` are all of one message.
    fn spread(&mut self, leaves: &flat::Leaves<'a>, side: Side, arena: &'a Bump, found: &mut Found<'a>) {
        let key = (leaves.hash(&mut self.digest), side);
        if let Some(reading) = self.seen.get(&key) {
            return found.add(reading);
        }
        let mut text = std::mem::take(&mut self.buffer);
        text.clear();
        leaves.write(&mut text);
        let reading = self.fresh(arena.alloc_str(&text), None, side, arena);
        self.buffer = text;
        found.add(&reading);
        self.seen.insert(key, reading);
    }

    /// Whether the elements of an array that begins with `first` can be read one by one.
    fn holds_messages(&mut self, (first, hash): (&str, u128), side: Side) -> bool {
        if self.seen.contains_key(&(hash, side)) {
            return true;
        }
        self.scratch.reset();
        match parse(first, &self.scratch) {
            // The answer of a model may be several items of one message.
            Ok(Node::Obj(object)) if side == Side::Output => object.has("parts") && object.has("role"),
            Ok(Node::Obj(object)) => object.has("role") || !parts::is_block(&object),
            _ => false,
        }
    }

    /// The list of messages inside a long request, after the instructions beside it.
    fn history(&mut self, text: &'a str, arena: &'a Bump, found: &mut Found<'a>) -> Option<&'a str> {
        let mut members = Members::open(text)?;
        let mut history = None;
        let mut instructions = None;
        while let Some(key) = members.key()? {
            if ["role", "parts", "event.name", "lc", "type"].contains(&key.as_ref()) {
                return None;
            }
            if ["messages", "contents", "input"].contains(&key.as_ref())
                && let Some(split) = self.splits.array(members.rest())
            {
                history.get_or_insert(split.text);
                members.pass(split.text.len())?;
                continue;
            }
            let value = members.value()?;
            if shapes::INSTRUCTION_KEYS.contains(&key.as_ref()) && value != "null" {
                instructions.get_or_insert(value);
            }
        }
        if let (Some(system), Some(_)) = (instructions, history) {
            let mut message = std::mem::take(&mut self.buffer);
            message.clear();
            message.push_str("{\"role\":\"system\",\"content\":");
            message.push_str(system);
            message.push('}');
            self.passing(&message, Side::Input, arena, found);
            self.buffer = message;
        }
        history
    }
}

#[cfg(test)]
#[path = "messages/tests.rs"]
mod tests;
