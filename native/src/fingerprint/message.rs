//! Messages and tool definitions, each read once a decode call.

use bumpalo::Bump;
use memchr::memmem;
use xxhash_rust::xxh3::xxh3_64;

use super::errors::{Errors, HEAD_BYTES_MAX};
use super::{Mix, SKETCH_BYTES_MAX, member, name_hash, tokens, wide};
use crate::messages::json::{Node, Object, Text, parse};
use crate::view::ContentItem;
use crate::wire::json_string;

/// Answers up to here are not searched for repetitions.
const CHANT_BYTES_MIN: usize = 5_000;
/// A passage, how often it must come again, and within how many bytes.
const CHANT_CHUNK: usize = 50;
const CHANT_TIMES: usize = 10;
const CHANT_WINDOW: usize = CHANT_TIMES * 250;
/// Places of a text at which passages are taken.
const CHANT_PROBES: usize = 16;

/// What there is to know of one message.
#[derive(Default)]
pub struct Message {
    /// Without the ids of calls: the same call asked for twice is equal.
    pub hash: u64,
    /// Bytes of text and arguments.
    pub bytes: usize,
    pub is_user: bool,
    /// Neither text, call nor reasoning.
    pub is_silent: bool,
    /// History that was summarised.
    pub is_summary: bool,
    pub is_chant: bool,
    pub calls: Vec<Call>,
    /// Ids of the calls that its results answer.
    pub results: Vec<u32>,
}

/// A tool call in a message.
#[derive(Default)]
pub struct Call {
    pub id: u32,
    pub name: u32,
    /// Of name and arguments.
    pub identity: u64,
    /// Run by the provider.
    pub is_server_side: bool,
    /// Arguments that begin like JSON and are none.
    pub is_broken: bool,
    /// Arguments that are text.
    pub is_text: bool,
    /// Top-level arguments and their JSON types.
    members: Vec<(u32, u8)>,
    is_object: bool,
}

impl Message {
    pub fn read(item: &ContentItem<'_>, errors: &Errors, bump: &Bump, scratch: &mut String) -> Self {
        let mut message = Self { hash: wide(item.hash as u64), ..Self::default() };
        let Ok(Node::Obj(object)) = parse(&item.value, bump) else {
            message.bytes = item.value.len();
            return message;
        };
        message.is_user = object.text(&["role"]).is_some_and(|role| role.head(8) == "user");
        message.is_silent = true;
        let parts = object.get("parts").and_then(Node::arr).unwrap_or_default();
        let mut first = true;
        for part in parts {
            let Node::Obj(part) = part else { continue };
            match kind_of(part) {
                kind @ (Kind::Text | Kind::Reasoning) => {
                    let Some(text) = part.text(&["content"]) else { continue };
                    let raw = raw(text);
                    message.bytes += raw.len();
                    message.is_silent &= raw.len() <= HEAD_BYTES_MAX && text.plain().trim().is_empty();
                    if std::mem::take(&mut first) {
                        message.is_summary = errors.is_summary(&tokens::beginning(text, HEAD_BYTES_MAX));
                    }
                    message.is_chant |= kind == Kind::Text && raw.len() > CHANT_BYTES_MIN && chants(raw);
                }
                kind @ (Kind::Call | Kind::ServerCall) => {
                    let call = Call::read(part, kind == Kind::ServerCall, scratch);
                    message.bytes += scratch.len();
                    message.is_silent = false;
                    message.calls.push(call);
                }
                Kind::Result => {
                    message.is_silent = false;
                    message.results.extend(member(part, "id").filter(|id| !id.is_empty()).map(|id| name_hash(&id)));
                }
                Kind::Other => message.is_silent = false,
            }
        }
        if !message.results.is_empty() || message.calls.iter().any(|call| call.id != 0) {
            message.hash = without_ids(parts, &message.calls, scratch);
        }
        message
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Text,
    Reasoning,
    Call,
    ServerCall,
    Result,
    Other,
}

fn kind_of(part: &Object<'_>) -> Kind {
    match part.text(&["type"]).map(raw) {
        Some("text") => Kind::Text,
        Some("reasoning") => Kind::Reasoning,
        Some("tool_call") => Kind::Call,
        Some("server_tool_call") => Kind::ServerCall,
        Some("tool_call_response") => Kind::Result,
        _ => Kind::Other,
    }
}

/// Hash of what the parts say but for the ids of calls.
fn without_ids(parts: &[Node<'_>], calls: &[Call], scratch: &mut String) -> u64 {
    let mut mix = Mix::default();
    let mut calls = calls.iter();
    for part in parts {
        let Node::Obj(object) = part else { continue };
        mix.add(match kind_of(object) {
            Kind::Text | Kind::Reasoning => object.get("content").map_or(0, |content| hash_of(content, scratch)),
            Kind::Call | Kind::ServerCall => calls.next().map_or(0, |call| call.identity),
            Kind::Result => object.get("response").map_or(0, |response| hash_of(response, scratch)),
            Kind::Other => hash_of(*part, scratch),
        });
    }
    mix.finish()
}

impl Call {
    fn read(part: &Object<'_>, is_server_side: bool, scratch: &mut String) -> Self {
        let name = member(part, "name").unwrap_or_default();
        let mut call = Self {
            id: member(part, "id").map_or(0, |id| name_hash(&id)),
            name: name_hash(&name),
            is_server_side,
            ..Self::default()
        };
        scratch.clear();
        match part.get("arguments") {
            None | Some(Node::Null) => {}
            Some(Node::Str(text)) => {
                let plain = text.plain();
                let trimmed = plain.trim();
                scratch.push_str(trimmed);
                call.is_text = !trimmed.is_empty();
                call.is_broken = trimmed.starts_with(['{', '[']);
            }
            Some(node) => {
                canonical(node, scratch);
                if let Node::Obj(object) = node {
                    call.is_object = true;
                    call.members =
                        object.entries.iter().map(|(key, value)| (name_hash(key), type_of(*value))).collect();
                }
            }
        }
        let mut mix = Mix::default();
        mix.add(u64::from(call.name));
        mix.add(xxh3_64(scratch.as_bytes()));
        call.identity = mix.finish();
        call
    }

    /// Whether the arguments are an object with everything required, of the types declared.
    pub fn fits(&self, definition: &Definition) -> bool {
        if !self.is_object {
            // no arguments captured, or none needed
            return self.members.is_empty() && (self.is_text || definition.required.is_empty());
        }
        let given = |key: u32| self.members.iter().rev().find(|(name, _)| *name == key).map(|(_, kind)| *kind);
        definition.required.iter().all(|key| given(*key).is_some())
            && definition.properties.iter().all(|(key, types)| {
                given(*key).is_none_or(|kind| {
                    kind & types != 0 || (kind == json_type::NULL && !definition.required.contains(key))
                })
            })
    }
}

mod json_type {
    pub const NULL: u8 = 1;
    pub const BOOLEAN: u8 = 2;
    pub const INTEGER: u8 = 4;
    pub const FRACTION: u8 = 8;
    pub const STRING: u8 = 16;
    pub const ARRAY: u8 = 32;
    pub const OBJECT: u8 = 64;
}

fn type_of(node: Node<'_>) -> u8 {
    match node {
        Node::Null => json_type::NULL,
        Node::Bool(_) => json_type::BOOLEAN,
        // 1.0 is an integer to JSON schema, and 1e3 too
        Node::Num(text) => match text.parse::<f64>() {
            Ok(number) if number.fract() == 0.0 => json_type::INTEGER,
            _ => json_type::FRACTION,
        },
        Node::Str(_) => json_type::STRING,
        Node::Arr(_) => json_type::ARRAY,
        Node::Obj(_) => json_type::OBJECT,
    }
}

/// 0 for what is no type.
fn types_of(name: &str) -> u8 {
    match name.to_ascii_lowercase().as_str() {
        "null" => json_type::NULL,
        "boolean" => json_type::BOOLEAN,
        "integer" => json_type::INTEGER,
        "number" => json_type::INTEGER | json_type::FRACTION,
        "string" => json_type::STRING,
        "array" => json_type::ARRAY,
        "object" => json_type::OBJECT,
        _ => 0,
    }
}

/// A tool that a model may call.
#[derive(Default)]
pub struct Definition {
    pub name: u32,
    pub is_function: bool,
    pub has_schema: bool,
    required: Vec<u32>,
    /// Properties that declare a type.
    properties: Vec<(u32, u8)>,
}

impl Definition {
    pub fn read(text: &str, bump: &Bump) -> Self {
        let Ok(Node::Obj(object)) = parse(text, bump) else { return Self::default() };
        let mut definition = Self {
            name: member(&object, "name").map_or(0, |name| name_hash(&name)),
            is_function: object.text(&["type"]).is_some_and(|kind| kind.head(16) == "function"),
            ..Self::default()
        };
        let Some(schema) = object.get("parameters").and_then(Node::obj) else { return definition };
        definition.has_schema = schema.text(&["type"]).is_some_and(|kind| kind.head(8).eq_ignore_ascii_case("object"));
        for key in schema.get("required").and_then(Node::arr).unwrap_or_default() {
            definition.required.extend(key.text().map(|key| name_hash(&key.plain())));
        }
        let properties = schema.get("properties").and_then(Node::obj);
        for (key, property) in properties.map_or(&[][..], |properties| properties.entries) {
            let Node::Obj(property) = property else { continue };
            let mut types = match property.get("type") {
                Some(Node::Str(name)) => types_of(&name.head(16)),
                Some(Node::Arr(list)) => {
                    let each = list.items.iter().map(|item| item.text().map_or(0, |name| types_of(&name.head(16))));
                    each.reduce(|all, one| if one == 0 { 0 } else { all | one }).unwrap_or(0)
                }
                _ => 0,
            };
            if matches!(property.get("nullable"), Some(Node::Bool(true))) {
                types |= json_type::NULL;
            }
            if types != 0 && types != json_type::NULL {
                definition.properties.push((name_hash(key), types));
            }
        }
        definition
    }
}

/// Texts of a message, at most 2 kB of each: its text, its results, the arguments of its calls.
pub fn texts(json: &str, bump: &Bump, each: &mut impl FnMut(&str)) {
    let Ok(Node::Obj(object)) = parse(json, bump) else {
        return each(tokens::head(json, SKETCH_BYTES_MAX));
    };
    let mut give = |node: Node<'_>| match node {
        Node::Str(text) => each(&tokens::beginning(text, SKETCH_BYTES_MAX)),
        node => {
            let mut left = SKETCH_BYTES_MAX;
            tokens::values(node, &mut left, each);
        }
    };
    for part in object.get("parts").and_then(Node::arr).unwrap_or_default() {
        let Node::Obj(part) = part else { continue };
        if let Some(node) = part.any(&["content", "response", "arguments"]) {
            give(node);
        }
    }
}

fn hash_of(node: Node<'_>, scratch: &mut String) -> u64 {
    match (node, node.raw()) {
        (Node::Str(text), _) => xxh3_64(raw(text).as_bytes()),
        (_, Some(raw)) => xxh3_64(raw.as_bytes()),
        _ => {
            scratch.clear();
            node.write(scratch);
            xxh3_64(scratch.as_bytes())
        }
    }
}

/// A text as it is written in JSON.
fn raw(text: Text<'_>) -> &str {
    match text {
        Text::Same(text) | Text::Escaped(text) | Text::Plain(text) => text,
    }
}

/// JSON with its keys in order and nothing between its tokens; of repeated keys the last one.
pub fn canonical(node: Node<'_>, out: &mut String) {
    match node {
        Node::Arr(list) => {
            out.push('[');
            for (index, item) in list.items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                canonical(*item, out);
            }
            out.push(']');
        }
        Node::Obj(object) => {
            let mut entries: Vec<&(&str, Node<'_>)> = object.entries.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            out.push('{');
            let mut any = false;
            for (index, (key, value)) in entries.iter().enumerate() {
                if entries.get(index + 1).is_some_and(|(next, _)| next == key) {
                    continue;
                }
                if std::mem::replace(&mut any, true) {
                    out.push(',');
                }
                json_string(key, out);
                out.push(':');
                canonical(*value, out);
            }
            out.push('}');
        }
        // escapes are a matter of taste
        Node::Str(text) => json_string(&text.plain(), out),
        other => other.write(out),
    }
}

/// Whether one passage of prose comes again and again close together. Code, tables and data repeat for good reasons.
fn chants(text: &str) -> bool {
    if text.starts_with(['{', '[', '<']) {
        return false;
    }
    let bytes = text.as_bytes();
    let last = bytes.len() - CHANT_WINDOW;
    let mut fences = 0;
    let mut counted = 0;
    for probe in 0..=CHANT_PROBES {
        let at = last * probe / CHANT_PROBES;
        fences += memmem::find_iter(&bytes[counted..at], b"```").count();
        counted = at;
        let chunk = &bytes[at..at + CHANT_CHUNK];
        let letters = chunk.iter().filter(|byte| byte.is_ascii_alphabetic() || !byte.is_ascii()).count();
        if fences % 2 == 1 || letters < CHANT_CHUNK / 5 || chunk.iter().any(|byte| b"|<>{}=;".contains(byte)) {
            continue;
        }
        if memmem::find_iter(&bytes[at..at + CHANT_WINDOW], chunk).take(CHANT_TIMES).count() == CHANT_TIMES {
            return true;
        }
    }
    false
}
