//! Fingerprints: what detectors see of a span, as `FINGERPRINT` in `processors/detect/steps.py` lays it out.
//!
//! Hashes, classes and token sketches of what went in and came out, never text. Messages are known by the hashes that
//! `content` has of them already; each distinct message and tool definition is read once a decode call. A value is
//! hashed, and as JSON parsed, in time linear to its length; its text is looked into up to a fixed length only.

mod errors;
mod message;
mod result;
mod tokens;

use std::hash::{BuildHasherDefault, Hasher};

use bumpalo::Bump;
use hashbrown::HashMap;
use xxhash_rust::xxh3::xxh3_64;

use crate::content;
use crate::messages::json::{Node, Object, parse};
use crate::plan::Plan;
use crate::values;
use crate::view::{Canonical, ContentItem, SpanView, Value};

use errors::Case;
pub use errors::{Errors, RawErrors};
use message::{Definition, Message};
use tokens::Sketch;

const VERSION: u8 = 1;
/// Text of one value that is looked into.
pub const TEXT_BYTES_MAX: usize = 4096;
/// Text of one value that goes into a sketch. Twice as much costs twice the time, and a sketch holds no more.
pub const SKETCH_BYTES_MAX: usize = 2048;
/// Longer results are hashed as they are: nothing is taken off them.
const ENVELOPE_BYTES_MAX: usize = 16 * 1024;
/// Shorter texts keep their digits: in these the number is the answer.
const MASK_CHARS_MIN: usize = 80;
const SKETCH_MAX: usize = 64;
const LONG_TOKENS_MAX: usize = 16;

mod kind {
    pub const OTHER: u8 = 0;
    pub const TOOL: u8 = 1;
    pub const MODEL: u8 = 2;
    pub const AGENT: u8 = 3;
    pub const RETRIEVAL: u8 = 4;
}

mod flag {
    pub const FAILED: u16 = 1;
    pub const ERROR_RESULT: u16 = 2;
    pub const EMPTY: u16 = 4;
    pub const HAS_INPUT: u16 = 8;
    pub const HAS_OUTPUT: u16 = 16;
    pub const TOOL_CALLS: u16 = 32;
    pub const CHANTING: u16 = 64;
    pub const COMPACTION: u16 = 128;
    pub const UNKNOWN_TOOL: u16 = 256;
    pub const BAD_ARGUMENTS: u16 = 512;
    pub const SCHEMA_MISMATCH: u16 = 1024;
    pub const ORPHAN_RESULT: u16 = 2048;
    pub const DUPLICATE_CALL_ID: u16 = 4096;
    pub const RUN_LIMIT: u16 = 8192;
}

mod finish {
    pub const COMPACTION: u8 = 32;
    pub const CONTEXT_WINDOW: u8 = 64;
    pub const MALFORMED: u8 = 128;
}

/// Value of `ErrorClass.RUN_LIMIT`.
const RUN_LIMIT: u8 = 13;

fn kind_of(name: &str) -> u8 {
    match name {
        "tool" => kind::TOOL,
        "llm" | "log" | "decision" => kind::MODEL,
        "agent" | "workflow" | "handoff" => kind::AGENT,
        "retrieval" | "embedding" | "rerank" => kind::RETRIEVAL,
        _ => kind::OTHER,
    }
}

fn finish_of(reason: &str) -> u8 {
    match reason {
        "stop" => 1,
        "length" => 2,
        "content_filter" => 4,
        "tool_call" => 8,
        "error" => 16,
        "compaction" => finish::COMPACTION,
        _ => 0,
    }
}

/// Eighths of a power of two: 9 % apart, 0 for nothing.
fn size_of(bytes: usize) -> u8 {
    if bytes == 0 { 0 } else { ((bytes as f64).log2() * 8.0).round().clamp(1.0, 255.0) as u8 }
}

/// A hash of something that is there.
fn wide(hash: u64) -> u64 {
    hash.max(1)
}

fn narrow(hash: u64) -> u32 {
    (hash as u32).max(1)
}

/// 0 for ''.
fn name_hash(text: &str) -> u32 {
    if text.is_empty() { 0 } else { narrow(xxh3_64(text.as_bytes())) }
}

/// One hash of several.
#[derive(Default)]
struct Mix(Vec<u8>);

impl Mix {
    fn add(&mut self, hash: u64) {
        self.0.extend_from_slice(&hash.to_le_bytes());
    }

    /// 0 if nothing was added. A single hash stays what it is.
    fn finish(&mut self) -> u64 {
        let hash = match self.0.len() {
            0 => 0,
            8 => wide(u64::from_le_bytes(self.0[..8].try_into().unwrap_or_default())),
            _ => wide(xxh3_64(&self.0)),
        };
        self.0.clear();
        hash
    }
}

/// The fixed part, in the order it is written.
#[derive(Default)]
struct Head {
    kind: u8,
    error: u8,
    finish: u8,
    flags: u16,
    input_items: u16,
    name: u32,
    agent: u32,
    call_id: u32,
    template: u32,
    first_input: u32,
    output_bytes: u32,
    max_tokens: u32,
    input: u64,
    output: u64,
    output_masked: u64,
    input_size: u8,
}

impl Head {
    fn write(&self, counts: [u8; 3], out: &mut Vec<u8>) {
        let mut bytes = [0; 64];
        bytes[..4].copy_from_slice(&[VERSION, self.kind, self.error, self.finish]);
        bytes[4..6].copy_from_slice(&self.flags.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.input_items.to_le_bytes());
        let narrow =
            [self.name, self.agent, self.call_id, self.template, self.first_input, self.output_bytes, self.max_tokens];
        for (slot, value) in bytes[8..36].chunks_exact_mut(4).zip(narrow) {
            slot.copy_from_slice(&value.to_le_bytes());
        }
        for (slot, value) in bytes[36..60].chunks_exact_mut(8).zip([self.input, self.output, self.output_masked]) {
            slot.copy_from_slice(&value.to_le_bytes());
        }
        bytes[60..63].copy_from_slice(&counts);
        bytes[63] = self.input_size;
        out.extend_from_slice(&bytes);
    }
}

/// Keys that are hashes already.
#[derive(Default)]
struct Identity(u64);

type Hashed = BuildHasherDefault<Identity>;

impl Hasher for Identity {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64(bytes);
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What one decode call remembers between spans.
#[derive(Default)]
pub struct Fingerprints {
    messages: Vec<Message>,
    /// Positions in `messages` by hash of the content.
    by_hash: HashMap<u128, u32, Hashed>,
    /// Of the span at hand.
    inputs: Vec<u32>,
    outputs: Vec<u32>,
    definitions: HashMap<u128, Definition, Hashed>,
    scratch: Bump,
    mix: Mix,
    text: String,
    input: Sketch,
    output: Sketch,
    long: Sketch,
    known: HashMap<u32, u64, foldhash::fast::FixedState>,
}

/// The content of a span by what it is.
#[derive(Default)]
struct Parts<'s, 'a> {
    inputs: &'s [ContentItem<'a>],
    outputs: &'s [ContentItem<'a>],
    instructions: &'s [ContentItem<'a>],
    definitions: &'s [ContentItem<'a>],
    documents: &'s [ContentItem<'a>],
    arguments: Option<&'s ContentItem<'a>>,
    result: Option<&'s ContentItem<'a>>,
}

impl<'s, 'a> Parts<'s, 'a> {
    /// Items of one key stand together.
    fn new(content: &'s [ContentItem<'a>]) -> Self {
        let mut parts = Self::default();
        for run in content.chunk_by(|one, other| std::ptr::eq(one.key, other.key)) {
            match run[0].key {
                "gen_ai.input.messages" => parts.inputs = run,
                "gen_ai.output.messages" => parts.outputs = run,
                "gen_ai.system_instructions" => parts.instructions = run,
                "gen_ai.tool.definitions" => parts.definitions = run,
                "gen_ai.retrieval.documents" => parts.documents = run,
                "gen_ai.tool.call.arguments" => parts.arguments = run.first(),
                "gen_ai.tool.call.result" => parts.result = run.first(),
                _ => {}
            }
        }
        parts
    }
}

impl Fingerprints {
    /// Appends the fingerprint of `span`; nothing if the span is no step.
    pub fn write(&mut self, plan: &Plan, span: &SpanView<'_>, canonical: &Canonical<'_>, out: &mut Vec<u8>) {
        if canonical.kind.is_empty() && span.parent_span_id.is_some() {
            return;
        }
        self.input.clear();
        self.output.clear();
        self.long.clear();
        let mut head = Head { kind: kind_of(&canonical.kind), ..Head::default() };
        head.agent = name_hash(&canonical.agent_name);
        if span.status == 2 || !canonical.error_type.is_empty() || canonical.tool_status == "error" {
            head.flags |= flag::FAILED;
        }
        for reason in &canonical.finish_reasons {
            head.finish |= finish_of(reason);
        }
        for raw in &canonical.finish_reasons_raw {
            head.finish |= plan.errors.finish(raw);
        }
        let parts = Parts::new(&canonical.content);
        let mut said = None;
        match head.kind {
            kind::TOOL => {
                let name = if canonical.tool_name.is_empty() { span.name } else { &canonical.tool_name };
                head.name = name_hash(name);
                head.call_id = name_hash(&canonical.tool_call_id);
                said = self.tool(plan, canonical, &parts, &mut head);
            }
            kind::MODEL => {
                let request = &canonical.request_model;
                head.name = name_hash(if request.is_empty() { &canonical.response_model } else { request });
                head.max_tokens = max_tokens(span, canonical);
                if !canonical.content.is_empty() {
                    let cut = canonical.derived.iter().any(|(key, _, _)| key == "spanwise.truncated");
                    self.model(plan, &parts, cut, &mut head);
                }
            }
            kind::AGENT => {
                head.name = head.agent;
                self.agent(plan, canonical, &parts, &mut head);
            }
            _ => {
                head.name = name_hash(span.name);
                self.plain(plan, canonical, &parts, &mut head);
            }
        }
        if head.flags & (flag::FAILED | flag::ERROR_RESULT) != 0 || span.events.iter().any(|e| e.name == "exception") {
            self.error(plan, span, canonical, said.unwrap_or_default(), &mut head);
        }
        let counts = [
            self.input.keep(SKETCH_MAX).len() as u8,
            self.output.keep(SKETCH_MAX).len() as u8,
            self.long.keep(LONG_TOKENS_MAX).len() as u8,
        ];
        head.write(counts, out);
        for sketch in [&self.input, &self.output, &self.long] {
            for token in sketch.kept() {
                out.extend_from_slice(&token.to_le_bytes());
            }
        }
    }

    /// A tool call. Gives back the text of the result if that is an error.
    fn tool<'c>(
        &mut self,
        plan: &Plan,
        canonical: &'c Canonical<'_>,
        parts: &Parts<'c, '_>,
        head: &mut Head,
    ) -> Option<std::borrow::Cow<'c, str>> {
        let arguments = parts.arguments.map_or(canonical.input_text, |item| &item.value);
        if parts.arguments.is_some() || !arguments.is_empty() {
            head.flags |= flag::HAS_INPUT;
            head.input = self.arguments(arguments);
        }
        let given = parts.result.map_or(canonical.output_text, |item| &item.value);
        if parts.result.is_none() && given.is_empty() {
            return None;
        }
        head.flags |= flag::HAS_OUTPUT;
        self.scratch.reset();
        let found = result::read(&plan.errors, given, &self.scratch);
        if found.failed {
            head.flags |= flag::ERROR_RESULT;
        } else if found.empty {
            head.flags |= flag::EMPTY;
        }
        let text = found.text;
        head.output_bytes = text.len().min(u32::MAX as usize) as u32;
        head.output = match parts.result {
            Some(item) if std::ptr::eq::<str>(&*text, &*item.value) => wide(item.hash as u64),
            _ => wide(content::hash(&text) as u64),
        };
        head.output_masked = match is_longer(&text, MASK_CHARS_MIN)
            && text.bytes().fold(false, |seen, byte| seen | byte.is_ascii_digit())
        {
            true => wide(tokens::masked(&text)),
            false => head.output,
        };
        let shown = tokens::head(&text, SKETCH_BYTES_MAX);
        self.output.words(shown);
        if head.flags & (flag::FAILED | flag::ERROR_RESULT) != 0 {
            self.long.long_words(shown);
        }
        found.failed.then_some(text)
    }

    /// Hash of canonical arguments; their values go into the input sketch.
    fn arguments(&mut self, text: &str) -> u64 {
        self.scratch.reset();
        let trimmed = text.trim();
        if let Ok(node @ (Node::Obj(_) | Node::Arr(_))) = parse(trimmed, &self.scratch) {
            self.text.clear();
            message::canonical(node, &mut self.text);
            let mut left = SKETCH_BYTES_MAX;
            tokens::values(node, &mut left, &mut |text| self.input.words(text));
            return wide(xxh3_64(self.text.as_bytes()));
        }
        self.input.words(tokens::head(trimmed, SKETCH_BYTES_MAX));
        wide(xxh3_64(trimmed.as_bytes()))
    }

    fn model(&mut self, plan: &Plan, parts: &Parts<'_, '_>, cut: bool, head: &mut Head) {
        self.read_messages(plan, parts, head);
        let sent = parts.inputs.iter().chain(parts.instructions).chain(parts.definitions);
        head.input_size = size_of(sent.map(|item| item.value.len()).sum());
        for item in parts.instructions {
            self.mix.add(item.hash as u64);
        }
        // a conversation is known by what stands in front of the first answer
        for message in self.inputs.iter().map(|at| &self.messages[*at as usize]) {
            self.mix.add(message.hash);
            if message.is_user {
                break;
            }
        }
        head.first_input = match self.mix.finish() {
            0 => 0,
            hash => narrow(hash),
        };
        if let (Some(newest), Some(at)) = (parts.inputs.last(), self.inputs.last()) {
            head.flags |= flag::HAS_INPUT;
            head.input = wide(self.messages[*at as usize].hash);
            self.scratch.reset();
            message::texts(&newest.value, &self.scratch, &mut |text| self.long.long_words(text));
        }
        if head.finish & finish::COMPACTION != 0 {
            head.flags |= flag::COMPACTION;
        }
        self.answer(head);
        self.invalid_calls(parts, cut, head);
        self.history(head);
    }

    /// Positions of the messages of a span; each distinct one is read when it is first seen.
    fn read_messages(&mut self, plan: &Plan, parts: &Parts<'_, '_>, head: &mut Head) {
        head.input_items = parts.inputs.len().min(usize::from(u16::MAX)) as u16;
        for (items, positions) in [(parts.inputs, &mut self.inputs), (parts.outputs, &mut self.outputs)] {
            positions.clear();
            for item in items {
                let position = *self.by_hash.entry(item.hash).or_insert_with(|| {
                    self.scratch.reset();
                    self.messages.push(Message::read(item, &plan.errors, &self.scratch, &mut self.text));
                    self.messages.len() as u32 - 1
                });
                positions.push(position);
            }
        }
    }

    /// What came out of a model or agent as messages.
    fn answer(&mut self, head: &mut Head) {
        let mut bytes = 0_usize;
        for message in self.outputs.iter().map(|at| &self.messages[*at as usize]) {
            self.mix.add(message.hash);
            bytes += message.bytes;
            if !message.calls.is_empty() && head.kind == kind::MODEL {
                head.flags |= flag::TOOL_CALLS;
            }
            if message.is_chant {
                head.flags |= flag::CHANTING;
            }
        }
        let Some(last) = self.outputs.last() else { return };
        head.flags |= flag::HAS_OUTPUT;
        if self.messages[*last as usize].is_silent {
            head.flags |= flag::EMPTY;
        }
        head.output = self.mix.finish();
        head.output_masked = head.output;
        head.output_bytes = bytes.min(u32::MAX as usize) as u32;
    }

    /// Calls in the answer beside the definitions on the same span.
    fn invalid_calls(&mut self, parts: &Parts<'_, '_>, cut: bool, head: &mut Head) {
        if head.flags & flag::TOOL_CALLS == 0 {
            return;
        }
        for item in parts.definitions {
            if !self.definitions.contains_key(&item.hash) {
                self.scratch.reset();
                self.definitions.insert(item.hash, Definition::read(&item.value, &self.scratch));
            }
        }
        let definitions = || parts.definitions.iter().map(|item| &self.definitions[&item.hash]);
        // a provider's own tools are called by names of its choosing
        let all_known = !parts.definitions.is_empty() && definitions().all(|definition| definition.is_function);
        for message in self.outputs.iter().map(|at| &self.messages[*at as usize]) {
            for call in &message.calls {
                let definition = definitions().find(|definition| definition.name == call.name);
                if definition.is_none() && all_known && call.name != 0 && !call.is_server_side {
                    head.flags |= flag::UNKNOWN_TOOL;
                }
                if cut {
                    continue;
                }
                let wants_object = definition.is_some_and(|definition| definition.has_schema);
                if call.is_broken || (call.is_text && wants_object) {
                    head.flags |= flag::BAD_ARGUMENTS;
                } else if let Some(definition) = definition
                    && definition.has_schema
                    && !call.fits(definition)
                {
                    head.flags |= flag::SCHEMA_MISMATCH;
                }
            }
        }
    }

    /// Summaries, and ids of calls and results, in the messages.
    fn history(&mut self, head: &mut Head) {
        self.known.clear();
        let mut has_results = false;
        for at in self.inputs.iter().chain(&self.outputs) {
            let message = &self.messages[*at as usize];
            if message.is_summary {
                head.flags |= flag::COMPACTION;
            }
            has_results |= !message.results.is_empty();
            for call in message.calls.iter().filter(|call| call.id != 0) {
                if *self.known.entry(call.id).or_insert(call.identity) != call.identity {
                    head.flags |= flag::DUPLICATE_CALL_ID;
                }
            }
        }
        // a history kept by the provider shows results without calls
        if self.known.is_empty() || !has_results {
            return;
        }
        let mut results = self.inputs.iter().flat_map(|at| &self.messages[*at as usize].results);
        if results.any(|id| !self.known.contains_key(id)) {
            head.flags |= flag::ORPHAN_RESULT;
        }
    }

    fn agent(&mut self, plan: &Plan, canonical: &Canonical<'_>, parts: &Parts<'_, '_>, head: &mut Head) {
        self.exchange(plan, canonical, parts, head);
        let inputs = if parts.inputs.is_empty() { None } else { Some(parts.inputs) };
        let outputs = if parts.outputs.is_empty() { None } else { Some(parts.outputs) };
        for (items, text, sketch) in
            [(inputs, &canonical.input_text, &mut self.input), (outputs, &canonical.output_text, &mut self.output)]
        {
            let mut left = SKETCH_BYTES_MAX;
            let mut take = |text: &str| {
                let text = tokens::head(text, left);
                left -= text.len();
                sketch.words(text);
                self.long.long_words(text);
            };
            match items {
                // newest first: a long history would leave no room for what this run was asked
                Some(items) => {
                    for item in items.iter().rev() {
                        self.scratch.reset();
                        message::texts(&item.value, &self.scratch, &mut take);
                    }
                }
                None => take(text),
            }
        }
    }

    fn plain(&mut self, plan: &Plan, canonical: &Canonical<'_>, parts: &Parts<'_, '_>, head: &mut Head) {
        if !parts.documents.is_empty() {
            head.flags |= flag::HAS_OUTPUT;
            for item in parts.documents {
                self.mix.add(item.hash as u64);
            }
            head.output = self.mix.finish();
            head.output_masked = head.output;
            let bytes: usize = parts.documents.iter().map(|item| item.value.len()).sum();
            head.output_bytes = bytes.min(u32::MAX as usize) as u32;
        }
        self.exchange(plan, canonical, parts, head);
    }

    /// Input and output of anything that is neither a tool nor a model.
    fn exchange(&mut self, plan: &Plan, canonical: &Canonical<'_>, parts: &Parts<'_, '_>, head: &mut Head) {
        self.read_messages(plan, parts, head);
        for at in &self.inputs {
            self.mix.add(self.messages[*at as usize].hash);
        }
        head.input = self.mix.finish();
        if head.input == 0 {
            let text = parts.arguments.map_or(canonical.input_text, |item| &item.value);
            head.input = if text.is_empty() { 0 } else { wide(xxh3_64(text.trim().as_bytes())) };
        }
        if head.input != 0 {
            head.flags |= flag::HAS_INPUT;
        }
        let mut opening = String::new();
        if !parts.outputs.is_empty() {
            self.answer(head);
            if let Some(newest) = parts.outputs.last() {
                self.scratch.reset();
                message::texts(&newest.value, &self.scratch, &mut |text| {
                    if opening.is_empty() {
                        opening.push_str(tokens::head(text, errors::HEAD_BYTES_MAX));
                    }
                });
            }
        } else if head.flags & flag::HAS_OUTPUT == 0 {
            let text = parts.result.map_or(canonical.output_text, |item| &item.value);
            if parts.result.is_some() || !text.is_empty() {
                head.flags |= flag::HAS_OUTPUT;
                head.output = wide(xxh3_64(text.as_bytes()));
                head.output_masked = head.output;
                head.output_bytes = text.len().min(u32::MAX as usize) as u32;
                self.scratch.reset();
                if result::read(&plan.errors, text, &self.scratch).empty {
                    head.flags |= flag::EMPTY;
                }
                opening.push_str(tokens::head(text, errors::HEAD_BYTES_MAX));
            }
        }
        if plan.errors.is_stop(&opening) {
            head.flags |= flag::RUN_LIMIT;
        }
    }

    /// Class and template of the error, from whatever speaks of it.
    fn error(
        &mut self,
        plan: &Plan,
        span: &SpanView<'_>,
        canonical: &Canonical<'_>,
        said: std::borrow::Cow<'_, str>,
        head: &mut Head,
    ) {
        let mut case = Case::default();
        case.status = errors::status_of(&span.attrs);
        case.add(&canonical.error_type);
        let mut kind = "";
        let mut message = "";
        for event in span.events.iter().filter(|event| event.name == "exception") {
            for attr in &event.attrs {
                match (attr.key, values::as_str(&attr.value)) {
                    ("exception.type", Some(text)) => kind = text,
                    ("exception.message", Some(text)) => message = text,
                    _ => {}
                }
            }
        }
        case.add(kind);
        case.add(message);
        case.add(span.status_message);
        case.add(&said);
        if head.kind == kind::TOOL && said.is_empty() && head.flags & flag::FAILED != 0 {
            // a call that failed often says why in its result
            case.add(&canonical.output_preview);
        }
        head.error = plan.errors.class_of(&case);
        if head.error == RUN_LIMIT {
            head.flags |= flag::RUN_LIMIT;
        }
        let text = [&*said, message, span.status_message, &canonical.output_preview]
            .into_iter()
            .find(|text| !text.is_empty() && head.flags & (flag::FAILED | flag::ERROR_RESULT) != 0)
            .unwrap_or("");
        head.template = errors::template(kind, text, &canonical.error_type);
    }
}

fn max_tokens(span: &SpanView<'_>, canonical: &Canonical<'_>) -> u32 {
    const KEY: &str = "gen_ai.request.max_tokens";
    let sent = span.attrs.iter().find(|attr| attr.key == KEY).and_then(|attr| values::count(attr.value));
    let found = sent.or_else(|| {
        let derived = canonical.derived.iter().find(|(key, _, _)| key == KEY)?;
        values::count(Value::Str(&derived.1))
    });
    found.map_or(0, |count| count.min(u64::from(u32::MAX)) as u32)
}

fn is_longer(text: &str, chars: usize) -> bool {
    text.len() > chars && text.chars().nth(chars).is_some()
}

/// The member of an object as plain text.
fn member(object: &Object<'_>, key: &str) -> Option<String> {
    object.get(key).and_then(Node::text).map(|text| text.plain().into_owned())
}
