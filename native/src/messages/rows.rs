//! The `[[content]]` rows of the dialect tables: what they may say, and how they are applied to a span.

use std::borrow::Cow;

use bumpalo::Bump;
use hashbrown::HashMap;
use serde::Deserialize;

use super::flat::{self, Leaf};
use super::json::{Node, head, members, parse};
use super::shapes::{Item, Side};
use super::{Content, Found, Memo, PREVIEW_CHARS, Source, tools};
use crate::content::hash;
use crate::view::{Attr, ContentItem, Form, Value};
use crate::wire::{json_string, key_value_list, to_json, to_text};

/// Texts that say that nothing was captured.
const PLACEHOLDERS: [&str; 6] = ["<REDACTED>", "<elided>", "<not specified>", "N/A", "[REDACTED]", "<redacted>"];

/// One `[[content]]` row of a dialect table, see `docs/messages.md`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ContentRow {
    /// Canonical attribute that the row fills unless an earlier row did; `input` and `output` are previews only.
    pub to: String,
    /// Where to look: `key`, `key#member.member`, `prefix.*`, `event:name`, `event:name/key`, `body`, `body#member`.
    /// The first that yields something wins, except that the events of a row are merged in order of time.
    pub from: Vec<String>,
    /// How to read it. '' by the target; `strict` takes messages only, never unknown text; `choices` only the choices
    /// of a list of events; `assemble` makes one message of several attributes, named `text:key`, `reasoning:key`,
    /// `tool_calls:key` or `finish:key`; `object` makes an object of the attributes that are present; `schema` takes
    /// the parameter schema of the tool named in `name`; `drop` keeps later rows from taking the source for content.
    #[serde(default, rename = "as")]
    pub shape: String,
    /// Kinds of span the row is for, empty for all; `!kind` for all but these.
    #[serde(default)]
    pub on: Vec<String>,
    /// Texts that this producer writes where nothing was captured.
    #[serde(default)]
    pub absent: Vec<String>,
    /// Attribute that holds the name of the tool, for `schema`.
    #[serde(default)]
    pub name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Input,
    Output,
    System,
    Definitions,
    Arguments,
    Result,
    Documents,
    InputPreview,
    OutputPreview,
}

const TARGETS: [(&str, Target); 9] = [
    ("gen_ai.input.messages", Target::Input),
    ("gen_ai.output.messages", Target::Output),
    ("gen_ai.system_instructions", Target::System),
    ("gen_ai.tool.definitions", Target::Definitions),
    ("gen_ai.tool.call.arguments", Target::Arguments),
    ("gen_ai.tool.call.result", Target::Result),
    ("gen_ai.retrieval.documents", Target::Documents),
    ("input", Target::InputPreview),
    ("output", Target::OutputPreview),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Natural,
    Strict,
    Choices,
    Assemble,
    Object,
    Schema,
    Drop,
}

#[derive(Clone, Debug)]
enum From {
    /// Slot of the attribute, and members to follow inside its JSON.
    Attr(usize, Vec<String>),
    /// Slot of the prefix.
    Flat(usize),
    /// Name of the events, and the attribute of theirs to take, '' for the event as a message.
    Event(String, String),
    Body(Vec<String>),
}

#[derive(Clone, Debug)]
struct Row {
    target: Target,
    shape: Shape,
    from: Vec<(From, String)>,
    on: Vec<String>,
    absent: Vec<String>,
    name: Option<usize>,
}

impl Row {
    fn is_for(&self, kind: &str) -> bool {
        match self.on.first() {
            None => true,
            Some(first) if first.starts_with('!') => !self.on.iter().any(|on| &on[1..] == kind),
            Some(_) => self.on.iter().any(|on| on == kind),
        }
    }
}

/// The content rows of one dialect and of those it falls back to, in order of precedence.
#[derive(Clone, Debug, Default)]
pub struct ContentPlan {
    rows: Vec<Row>,
    /// Slot of each attribute that some row reads.
    slots: HashMap<String, usize, foldhash::fast::FixedState>,
    /// The marks of their keys: a key whose mark is not among them needs no look-up.
    marks: u128,
    /// Prefixes of flattened keys, with their dot.
    prefixes: Vec<String>,
    /// Every event that some row reads.
    events: Vec<String>,
    /// One bit a row, of the rows that read each source.
    rows_of_slot: Vec<u128>,
    rows_of_prefix: Vec<u128>,
    rows_of_events: u128,
    rows_of_body: u128,
}

/// As many as fit the bits of a mask.
const ROWS_MAX: usize = 128;

impl ContentPlan {
    /// Errors name the row.
    pub fn new(rows: &[ContentRow]) -> Result<Self, String> {
        let mut plan = Self::default();
        for (index, row) in rows.iter().enumerate() {
            let row = plan.row(row).map_err(|error| format!("content row {index} (to {:?}): {error}", row.to))?;
            plan.rows.push(row);
        }
        if plan.rows.len() > ROWS_MAX {
            return Err(format!("{} content rows, at most {ROWS_MAX} are possible", plan.rows.len()));
        }
        plan.rows_of_slot.resize(plan.slots.len(), 0);
        plan.rows_of_prefix.resize(plan.prefixes.len(), 0);
        for (index, row) in plan.rows.iter().enumerate() {
            let bit = 1 << index;
            for (from, _) in &row.from {
                match from {
                    From::Attr(slot, _) => plan.rows_of_slot[*slot] |= bit,
                    From::Flat(slot) => plan.rows_of_prefix[*slot] |= bit,
                    From::Event(..) => plan.rows_of_events |= bit,
                    From::Body(_) => plan.rows_of_body |= bit,
                }
            }
        }
        Ok(plan)
    }

    fn row(&mut self, row: &ContentRow) -> Result<Row, String> {
        let target = TARGETS
            .iter()
            .find(|(name, _)| *name == row.to)
            .map(|(_, target)| *target)
            .ok_or("no such content target")?;
        let shape = match row.shape.as_str() {
            "" => Shape::Natural,
            "strict" => Shape::Strict,
            "choices" => Shape::Choices,
            "assemble" => Shape::Assemble,
            "object" => Shape::Object,
            "schema" => Shape::Schema,
            "drop" => Shape::Drop,
            other => return Err(format!("unknown shape {other:?}")),
        };
        if row.from.is_empty() {
            return Err("`from` is empty".into());
        }
        if row.on.iter().any(|on| on.starts_with('!') != row.on[0].starts_with('!')) {
            return Err("`on` either names kinds or excludes kinds with !".into());
        }
        if (shape == Shape::Schema) == row.name.is_empty() {
            return Err("`name` belongs to shape \"schema\", and is needed there".into());
        }
        let mut from = Vec::new();
        for source in &row.from {
            let (label, place) = match source.split_once(':') {
                Some((label, place)) if shape == Shape::Assemble => (label, place),
                _ => ("", source.as_str()),
            };
            if shape == Shape::Assemble && !matches!(label, "text" | "reasoning" | "tool_calls" | "finish") {
                return Err(format!("{source:?} needs text:, reasoning:, tool_calls: or finish: before the key"));
            }
            let label = match shape {
                Shape::Object => place,
                _ => label,
            };
            from.push((self.place(place)?, label.to_owned()));
        }
        Ok(Row {
            target,
            shape,
            from,
            on: row.on.clone(),
            absent: row.absent.clone(),
            name: (!row.name.is_empty()).then(|| self.slot(&row.name)),
        })
    }

    fn place(&mut self, text: &str) -> Result<From, String> {
        if text.is_empty() {
            return Err("an empty source".into());
        }
        if let Some(event) = text.strip_prefix("event:") {
            let (name, key) = event.split_once('/').unwrap_or((event, ""));
            if !self.events.iter().any(|known| known == name) {
                self.events.push(name.into());
            }
            return Ok(From::Event(name.into(), key.into()));
        }
        if let Some(prefix) = text.strip_suffix('*') {
            if !prefix.ends_with('.') {
                return Err(format!("{text:?} must end in \".*\""));
            }
            let known = self.prefixes.iter().position(|known| known == prefix);
            return Ok(From::Flat(known.unwrap_or_else(|| {
                self.prefixes.push(prefix.into());
                self.prefixes.len() - 1
            })));
        }
        let (key, path) = text.split_once('#').unwrap_or((text, ""));
        let path: Vec<String> = path.split('.').filter(|member| !member.is_empty()).map(str::to_owned).collect();
        if key == "body" {
            return Ok(From::Body(path));
        }
        Ok(From::Attr(self.slot(key), path))
    }

    fn slot(&mut self, key: &str) -> usize {
        let next = self.slots.len();
        self.marks |= mark(key);
        *self.slots.entry(key.into()).or_insert(next)
    }
}

/// The attributes of one span that rows may read, in their slots.
struct Offer<'s, 'a> {
    /// By slot.
    values: Vec<(usize, Value<'a>)>,
    flats: Vec<Vec<Leaf<'a>>>,
    source: &'s Source<'s, 'a>,
}

impl<'a> Offer<'_, 'a> {
    fn value(&self, slot: usize) -> Option<Value<'a>> {
        self.values.iter().rev().find(|(known, _)| *known == slot).map(|(_, value)| *value)
    }
}

pub fn collect<'a>(
    plan: &'a ContentPlan,
    kind: &str,
    source: &Source<'_, 'a>,
    memo: &mut Memo<'a>,
    arena: &'a Bump,
) -> Content<'a> {
    let mut offer = Offer { values: Vec::new(), flats: Vec::new(), source };
    // One bit a row that some source may fill.
    let mut rows = 0_u128;
    for attr in source.attrs {
        if plan.marks & mark(attr.key) != 0
            && let Some(slot) = plan.slots.get(attr.key)
        {
            offer.values.push((*slot, attr.value));
            rows |= plan.rows_of_slot[*slot];
        }
        // A flattened key has an index in it; most keys have no digit at all.
        if !has_digit(attr.key.as_bytes()) {
            continue;
        }
        for (slot, prefix) in plan.prefixes.iter().enumerate() {
            if let Some(rest) = attr.key.strip_prefix(prefix.as_str()) {
                if offer.flats.is_empty() {
                    offer.flats.resize(plan.prefixes.len(), Vec::new());
                }
                offer.flats[slot].push((rest, attr.value));
                rows |= plan.rows_of_prefix[slot];
            }
        }
    }
    if source.events.iter().any(|event| plan.events.iter().any(|name| name == event.name))
        || plan.events.iter().any(|name| name == source.event_name)
    {
        rows |= plan.rows_of_events;
    }
    if source.body != Value::Empty {
        rows |= plan.rows_of_body;
    }
    let mut collector = Collector {
        content: Content::default(),
        filled: 0,
        inputs: Vec::new(),
        outputs: Vec::new(),
        arguments: "",
        result: "",
        system: "",
        memo,
        arena,
    };
    if rows == 0 {
        return collector.content;
    }
    while rows != 0 {
        let row = &plan.rows[rows.trailing_zeros() as usize];
        rows &= rows - 1;
        if row.is_for(kind) && !collector.is_filled(row.target) {
            collector.apply(plan, row, &offer);
        }
    }
    collector.finish(kind)
}

/// One bit, the same for equal keys.
fn mark(key: &str) -> u128 {
    let last = usize::from(key.as_bytes().last().copied().unwrap_or(0));
    1 << ((key.len() * 5 + last) % 128)
}

/// Whether there is an ASCII digit, eight bytes at a time.
fn has_digit(bytes: &[u8]) -> bool {
    const ALL: u64 = 0x0101_0101_0101_0101;
    let (words, rest) = bytes.as_chunks::<8>();
    words.iter().any(|word| {
        let word = u64::from_le_bytes(*word);
        let low = word & (ALL * 0x7f);
        // bit 7 of a byte: at least '0', and not above '9', and ASCII
        (low + ALL * 0x50) & !(low + ALL * 0x46) & !word & (ALL * 0x80) != 0
    }) || rest.iter().any(u8::is_ascii_digit)
}

struct Collector<'m, 'a> {
    content: Content<'a>,
    filled: u16,
    inputs: Vec<Item<'a>>,
    outputs: Vec<Item<'a>>,
    arguments: &'a str,
    result: &'a str,
    system: &'a str,
    memo: &'m mut Memo<'a>,
    arena: &'a Bump,
}

impl<'a> Collector<'_, 'a> {
    fn is_filled(&self, target: Target) -> bool {
        self.filled & (1 << target as u16) != 0
    }

    fn fill(&mut self, target: Target) {
        self.filled |= 1 << target as u16;
    }

    fn apply(&mut self, plan: &'a ContentPlan, row: &'a Row, offer: &Offer<'_, 'a>) {
        match row.shape {
            Shape::Assemble => return self.assemble(row, offer),
            Shape::Object => return self.object(row, offer),
            _ => {}
        }
        let mut merged = Found::default();
        let mut events = false;
        for (from, _) in &row.from {
            match from {
                From::Event(name, key) => {
                    if key.is_empty() {
                        // All events of the row together, in their order.
                        if !events {
                            events = true;
                            self.events(row, offer, &mut merged);
                        }
                        continue;
                    }
                    if self.event_values(row, offer, name, key, &mut merged) {
                        return;
                    }
                    events = true;
                }
                From::Flat(slot) => {
                    let Some(leaves) = offer.flats.get(*slot).filter(|leaves| !leaves.is_empty()) else {
                        continue;
                    };
                    if self.flat(row, leaves) {
                        return self.note_source(&plan.prefixes[*slot]);
                    }
                }
                From::Attr(slot, path) => {
                    let Some(value) = offer.value(*slot) else {
                        continue;
                    };
                    if self.value(row, value, path, offer) {
                        let key = plan.slots.iter().find(|(_, known)| *known == slot);
                        return self.note_source(key.map_or("", |(key, _)| key));
                    }
                }
                From::Body(path) => {
                    if offer.source.body != Value::Empty && self.value(row, offer.source.body, path, offer) {
                        return self.note_source("body");
                    }
                }
            }
        }
        if events && self.messages(row, merged) {
            self.note_source("events");
        }
    }

    /// Names the source of the last target in `truncated`, if it was cut.
    fn note_source(&mut self, source: &'a str) {
        if let Some(last) = self.content.truncated.last_mut()
            && last.is_empty()
        {
            *last = source;
        }
    }

    /// Text of `value` that lives as long as the arena.
    fn text_of(&self, value: Value<'a>, path: &[String]) -> Option<&'a str> {
        let whole: &'a str = match value {
            Value::Str(text) => text,
            Value::Bytes(bytes) => match String::from_utf8_lossy(bytes) {
                Cow::Borrowed(text) => text,
                Cow::Owned(text) => self.arena.alloc_str(&text),
            },
            Value::Empty => "null",
            _ => {
                let mut text = String::new();
                to_text(value, &mut text);
                self.arena.alloc_str(&text)
            }
        };
        if path.is_empty() {
            return Some(whole);
        }
        let whole = whole.trim();
        Some(match tools::at_path(whole, path)? {
            Cow::Borrowed(text) => text,
            Cow::Owned(text) => self.arena.alloc_str(&text),
        })
    }

    fn value(&mut self, row: &Row, value: Value<'a>, path: &[String], offer: &Offer<'_, 'a>) -> bool {
        let Some(text) = self.text_of(value, path) else {
            return false;
        };
        if PLACEHOLDERS.contains(&text) || row.absent.iter().any(|absent| absent == text) {
            return false;
        }
        if row.shape == Shape::Schema {
            let name = row.name.and_then(|slot| offer.value(slot));
            let Some(name) = name.and_then(|name| self.text_of(name, &[])) else {
                return false;
            };
            self.memo.scratch.reset();
            let definition = tools::definition(name, text, &self.memo.scratch);
            return self.texts(row.target, definition.into_iter().collect());
        }
        self.take(row, text)
    }

    /// Fill the target of `row` from one text.
    fn take(&mut self, row: &Row, text: &'a str) -> bool {
        if row.shape == Shape::Drop {
            self.fill(row.target);
            return true;
        }
        match row.target {
            Target::Input | Target::Output => {
                let mut found = Found::default();
                let side = side_of(row);
                if text == "null" || (text.is_empty() && side == Side::Input) {
                    return false;
                }
                self.memo.read(text, side, self.arena, &mut found);
                self.messages(row, found)
            }
            Target::System => self.instructions(text),
            Target::Definitions => {
                self.memo.scratch.reset();
                let definitions = tools::definitions(text, &self.memo.scratch);
                self.texts(row.target, definitions)
            }
            Target::Documents => {
                self.memo.scratch.reset();
                let documents = tools::documents(text, &self.memo.scratch);
                if documents.is_empty() && self.content.output_text.is_empty() && is_void_list(text) {
                    // nothing was found, which is an answer too
                    self.content.output_preview = text;
                    self.content.output_text = text;
                }
                self.texts(row.target, documents)
            }
            Target::Arguments => {
                self.memo.scratch.reset();
                let arguments = tools::arguments(text, &self.memo.scratch);
                let value = if arguments == text { text } else { self.arena.alloc_str(&arguments) };
                self.arguments = head(value, PREVIEW_CHARS);
                if text.contains("...[TRUNCATED: original length ") {
                    self.content.truncated.push("");
                }
                self.push(row.target, value);
                self.fill(row.target);
                true
            }
            Target::Result => {
                self.memo.scratch.reset();
                let outcome = tools::result(text, &self.memo.scratch);
                let value = if outcome.value == text { text } else { self.arena.alloc_str(&outcome.value) };
                self.result = self.arena.alloc_str(&outcome.preview);
                if outcome.truncated {
                    self.content.truncated.push("");
                }
                match outcome.failed {
                    Some(true) => self.content.hints.tool_status = "error",
                    Some(false) => self.content.hints.tool_status = "success",
                    None => {}
                }
                self.push(row.target, value);
                self.fill(row.target);
                true
            }
            Target::InputPreview | Target::OutputPreview => {
                if text.is_empty() || text == "null" {
                    return false;
                }
                self.memo.scratch.reset();
                let preview = match tools::readable(text, &self.memo.scratch) {
                    Some(text) => self.arena.alloc_str(&text),
                    None => head(text, PREVIEW_CHARS),
                };
                match row.target {
                    Target::InputPreview => {
                        self.content.input_preview = preview;
                        self.content.input_text = text;
                    }
                    _ => {
                        self.content.output_preview = preview;
                        self.content.output_text = text;
                    }
                }
                self.fill(row.target);
                true
            }
        }
    }

    /// Fill a message target, if anything was captured.
    fn messages(&mut self, row: &Row, found: Found<'a>) -> bool {
        if found.items.iter().all(|item| item.empty) || (row.shape == Shape::Strict && !found.recognised) {
            self.note_response(row.target, &found);
            return false;
        }
        self.note_response(row.target, &found);
        if row.target == Target::System {
            // Instructions are parts, not messages.
            return self.parts_of(&found.items);
        }
        let key = key_of(row.target);
        self.content.items.reserve(found.items.len());
        for item in &found.items {
            self.content.items.push(ContentItem {
                key,
                form: Form::Item,
                value: Cow::Borrowed(item.json),
                hash: item.hash,
            });
        }
        if found.truncated {
            self.content.truncated.push("");
        }
        match row.target {
            Target::Output => self.outputs = found.items,
            _ => self.inputs = found.items,
        }
        self.fill(row.target);
        true
    }

    /// Keep what a response says about itself, even where its messages are not used.
    fn note_response(&mut self, target: Target, found: &Found<'a>) {
        if target != Target::Output {
            return;
        }
        let hints = &mut self.content.hints;
        if hints.usage.is_none() {
            hints.usage = found.usage;
            hints.model = found.model;
        }
        if hints.finish_reasons.is_empty() {
            let reasons = found.items.iter().map(|item| item.finish);
            hints.finish_reasons = reasons.filter(|reason| !reason.is_empty()).collect();
        }
        // Choices all count; of a conversation only its end does.
        hints.output_has_tool_calls |= match found.items.iter().rposition(|item| item.role != "assistant") {
            Some(at) => found.items[at + 1..].iter().any(|item| item.has_call),
            None => found.items.iter().any(|item| item.has_call),
        };
    }

    fn instructions(&mut self, text: &'a str) -> bool {
        if text.trim().is_empty() || text == "null" {
            return false;
        }
        let mut found = Found::default();
        self.memo.read(text, Side::System, self.arena, &mut found);
        self.parts_of(&found.items)
    }

    /// The parts of messages, each an item of its own.
    fn parts_of(&mut self, items: &[Item<'a>]) -> bool {
        let mut values: Vec<&'a str> = Vec::new();
        for item in items {
            self.memo.scratch.reset();
            let Ok(Node::Obj(message)) = parse(item.json, &self.memo.scratch) else {
                continue;
            };
            for part in message.get("parts").and_then(Node::arr).unwrap_or_default() {
                values.extend(part.raw().and_then(|raw| super::shapes::kept(item.json, raw)));
            }
        }
        if values.is_empty() {
            return false;
        }
        self.system = items.iter().map(|item| item.text).find(|text| !text.is_empty()).unwrap_or("");
        for value in values {
            self.push(Target::System, value);
        }
        self.fill(Target::System);
        true
    }

    fn texts(&mut self, target: Target, values: Vec<String>) -> bool {
        for value in &values {
            let value = self.arena.alloc_str(value);
            self.push(target, value);
        }
        if !values.is_empty() {
            self.fill(target);
        }
        !values.is_empty()
    }

    fn push(&mut self, target: Target, value: &'a str) {
        let form = match target {
            Target::Arguments | Target::Result => Form::Text,
            _ => Form::Item,
        };
        self.content.items.push(ContentItem {
            key: key_of(target),
            form,
            value: Cow::Borrowed(value),
            hash: hash(value),
        });
    }

    fn flat(&mut self, row: &Row, leaves: &[Leaf<'a>]) -> bool {
        if matches!(row.target, Target::Input | Target::Output) {
            let mut found = Found::default();
            let side = side_of(row);
            flat::elements(leaves, |element| self.memo.spread(element, side, self.arena, &mut found));
            return self.messages(row, found);
        }
        let mut list = String::from("[");
        flat::elements(leaves, |element| {
            if list.len() > 1 {
                list.push(',');
            }
            element.write(&mut list);
        });
        list.push(']');
        list.len() > 2 && self.take(row, self.arena.alloc_str(&list))
    }

    /// The events of a row as messages: each becomes one JSON object of its attributes or its body.
    fn events(&mut self, row: &Row, offer: &Offer<'_, 'a>, found: &mut Found<'a>) {
        let wanted = |name: &str| {
            row.from.iter().any(|(from, _)| matches!(from, From::Event(event, key) if event == name && key.is_empty()))
        };
        let side = side_of(row);
        let mut buffer = String::new();
        for event in offer.source.events.iter().filter(|event| wanted(event.name)) {
            event_json(event.name, &event.attrs, Value::Empty, &mut buffer);
            self.memo.passing(&buffer, side, self.arena, found);
        }
        if wanted(offer.source.event_name) {
            event_json(offer.source.event_name, offer.source.attrs, offer.source.body, &mut buffer);
            self.memo.passing(&buffer, side, self.arena, found);
        }
    }

    /// One attribute of every event of that name. True if it filled a target that takes one value only.
    fn event_values(&mut self, row: &Row, offer: &Offer<'_, 'a>, name: &str, key: &str, found: &mut Found<'a>) -> bool {
        let spans = offer.source.events.iter().filter(|event| event.name == name);
        let spans = spans.map(|event| &event.attrs[..]);
        let record = (offer.source.event_name == name).then_some(offer.source.attrs);
        for attrs in spans.chain(record) {
            let Some(attr) = attrs.iter().find(|attr| attr.key == key) else {
                continue;
            };
            if matches!(row.target, Target::Input | Target::Output) {
                if let Some(text) = self.text_of(attr.value, &[]) {
                    self.memo.read(text, side_of(row), self.arena, found);
                }
            } else if self.value(row, attr.value, &[], offer) {
                self.note_source("events");
                return true;
            }
        }
        false
    }

    /// One message of several attributes.
    fn assemble(&mut self, row: &Row, offer: &Offer<'_, 'a>) {
        let mut json = String::from("{\"role\":");
        json_string(side_of(row).role(), &mut json);
        let mut content = String::new();
        let mut calls = String::new();
        let mut any = false;
        let mut text_seen = false;
        for (from, label) in &row.from {
            let From::Attr(slot, path) = from else {
                continue;
            };
            let Some(text) = offer.value(*slot).and_then(|value| self.text_of(value, path)) else {
                continue;
            };
            if PLACEHOLDERS.contains(&text) || text == "null" {
                continue;
            }
            match label.as_str() {
                "text" | "reasoning" => {
                    if text.is_empty() || (label == "text" && std::mem::replace(&mut text_seen, true)) {
                        continue;
                    }
                    if !content.is_empty() {
                        content.push(',');
                    }
                    content.push_str(if label == "text" {
                        "{\"type\":\"text\",\"content\":"
                    } else {
                        "{\"type\":\"reasoning\",\"content\":"
                    });
                    json_string(text, &mut content);
                    content.push('}');
                    any = true;
                }
                "tool_calls" => {
                    self.memo.scratch.reset();
                    if calls.is_empty()
                        && let Ok(node @ Node::Arr(_)) = parse(text, &self.memo.scratch)
                    {
                        node.write(&mut calls);
                        any = true;
                    }
                }
                _ => {
                    json.push_str(",\"finish_reason\":");
                    json_string(text, &mut json);
                }
            }
        }
        if !any {
            return;
        }
        json.push_str(",\"content\":[");
        json.push_str(&content);
        json.push(']');
        if !calls.is_empty() {
            json.push_str(",\"tool_calls\":");
            json.push_str(&calls);
        }
        json.push('}');
        let mut found = Found::default();
        self.memo.passing(&json, side_of(row), self.arena, &mut found);
        self.messages(row, found);
    }

    /// One object of the attributes that are present.
    fn object(&mut self, row: &Row, offer: &Offer<'_, 'a>) {
        let mut json = String::from("{");
        for (from, key) in &row.from {
            let From::Attr(slot, _) = from else {
                continue;
            };
            let Some(value) = offer.value(*slot) else {
                continue;
            };
            if matches!(value, Value::Str(text) if PLACEHOLDERS.contains(&text)) {
                continue;
            }
            if json.len() > 1 {
                json.push(',');
            }
            json_string(key, &mut json);
            json.push(':');
            to_json(value, &mut json);
        }
        json.push('}');
        if json.len() > 2 {
            self.take(row, self.arena.alloc_str(&json));
        }
    }

    fn finish(mut self, kind: &str) -> Content<'a> {
        for last in &mut self.content.truncated {
            if last.is_empty() {
                *last = "content";
            }
        }
        let newest = |role: &str, pick: fn(&Item<'a>) -> &'a str| {
            self.inputs
                .iter()
                .rev()
                .filter(|item| role.is_empty() || item.role == role)
                .map(pick)
                .find(|text| !text.is_empty())
        };
        let asked = newest("user", |item| item.text)
            .or_else(|| newest("", |item| item.result))
            .or_else(|| newest("", |item| item.text))
            .unwrap_or(self.system);
        let answered = self
            .outputs
            .iter()
            .rev()
            .map(|item| item.text)
            .find(|text| !text.is_empty())
            .or_else(|| self.outputs.iter().map(|item| item.call).find(|call| !call.is_empty()))
            .or_else(|| self.outputs.iter().map(|item| item.result).find(|result| !result.is_empty()))
            .unwrap_or("");
        let tool = kind == "tool";
        let (first, second) = if tool { (self.arguments, asked) } else { (asked, self.arguments) };
        let input = if first.is_empty() { second } else { first };
        let (first, second) = if tool { (self.result, answered) } else { (answered, self.result) };
        let output = if first.is_empty() { second } else { first };
        if !input.is_empty() || !self.inputs.is_empty() {
            self.content.input_preview = input;
        }
        if !output.is_empty() || !self.outputs.is_empty() {
            self.content.output_preview = output;
        }
        if matches!(kind, "agent" | "workflow" | "chain" | "agent_step") {
            // Calls that were made on the way, and answered in spans of their own.
            self.content.hints.output_has_tool_calls = false;
        }
        self.content
    }
}

fn side_of(row: &Row) -> Side {
    match (row.target, row.shape) {
        (Target::Output, Shape::Choices) => Side::Choices,
        (Target::Output, _) => Side::Output,
        (Target::System, _) => Side::System,
        _ => Side::Input,
    }
}

/// A list without elements, alone or as the one member of an object.
fn is_void_list(text: &str) -> bool {
    let text = text.trim();
    let list = match text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
        Some(member) => member.split_once(':').map_or("", |(_, value)| value.trim()),
        None => text,
    };
    list.strip_prefix('[').and_then(|text| text.strip_suffix(']')).is_some_and(|inside| inside.trim().is_empty())
}

fn key_of(target: Target) -> &'static str {
    TARGETS.iter().find(|(_, known)| *known == target).map_or("", |(name, _)| *name)
}

/// An event as one JSON object: its body if that is a key-value list, else its attributes.
fn event_json(name: &str, attrs: &[Attr<'_>], body: Value<'_>, out: &mut String) {
    out.clear();
    out.push_str("{\"event.name\":");
    json_string(name, out);
    let mut member = |key: &str, value: Value<'_>| {
        if key == "event.name" {
            return;
        }
        out.push(',');
        json_string(key, out);
        out.push(':');
        match value {
            // Lists and objects that a span attribute cannot hold come as JSON text.
            Value::Str(text) if key == "tool_calls" && text.starts_with('[') && parse(text, &Bump::new()).is_ok() => {
                out.push_str(text);
            }
            _ => to_json(value, out),
        }
    };
    match body {
        Value::KvList(entries) => {
            let arena = Bump::new();
            for entry in key_value_list(entries, &arena) {
                member(entry.key, entry.value);
            }
        }
        Value::Empty => attrs.iter().for_each(|attr| member(attr.key, attr.value)),
        Value::Str(text) if members(text).is_some() => member("gen_ai.event.content", body),
        _ => member("content", body),
    }
    out.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_digit_wherever_it_stands_and_nothing_else() {
        for length in 0..20 {
            for byte in 0..=u8::MAX {
                for at in 0..length {
                    let mut key = vec![b'a'; length];
                    key[at] = byte;
                    assert_eq!(has_digit(&key), byte.is_ascii_digit(), "{byte} at {at} of {length}");
                }
            }
        }
    }
}
