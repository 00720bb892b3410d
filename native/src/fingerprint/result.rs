//! Results of tools: the text inside the envelope, whether it is an error, whether it says nothing.

use std::borrow::Cow;

use bumpalo::Bump;

use super::errors::Errors;
use super::{ENVELOPE_BYTES_MAX, tokens};
use crate::messages::json::{Node, Object, parse};

/// Envelopes in envelopes that are opened.
const DEPTH_MAX: usize = 4;
/// Members that may stand beside the one text of an envelope.
const BESIDE: [&str; 22] = [
    "isError",
    "is_error",
    "structuredContent",
    "structured_content",
    "_meta",
    "meta",
    "annotations",
    "type",
    "role",
    "name",
    "id",
    "tool_call_id",
    "tool_use_id",
    "toolUseId",
    "status",
    "success",
    "ok",
    "artifact",
    "additional_kwargs",
    "response_metadata",
    "error",
    "code",
];

pub struct Found<'t> {
    pub text: Cow<'t, str>,
    pub failed: bool,
    pub empty: bool,
}

/// What a result says. Only results of up to 16 kB are taken out of their envelopes.
pub fn read<'t>(errors: &Errors, given: &'t str, bump: &Bump) -> Found<'t> {
    let mut text = Cow::Borrowed(given);
    let mut failed = false;
    let mut empty = false;
    for _ in 0..DEPTH_MAX {
        let trimmed = text.trim();
        if trimmed.len() > ENVELOPE_BYTES_MAX || !trimmed.starts_with(['{', '[', '"']) {
            break;
        }
        let Ok(node) = parse(bump.alloc_str(trimmed), bump) else { break };
        failed |= says_error(node);
        if let Some(inner) = inside(node) {
            text = Cow::Owned(inner);
            continue;
        }
        empty = errors.is_void(node);
        return Found { text, failed, empty: empty && !failed };
    }
    let judged = errors.judge(&text);
    failed |= judged.failed;
    empty |= judged.empty;
    Found { text, failed, empty: empty && !failed }
}

fn says_error(node: Node<'_>) -> bool {
    let Node::Obj(object) = node else { return false };
    let is = |key: &str, wanted: bool| matches!(object.get(key), Some(Node::Bool(found)) if found == wanted);
    if is("isError", true) || is("is_error", true) || is("ok", false) || is("success", false) {
        return true;
    }
    let status = object
        .text(&["status"])
        .is_some_and(|text| matches!(text.head(16).to_ascii_lowercase().as_str(), "error" | "failed" | "failure"));
    status || ["error", "errors"].iter().any(|key| object.get(key).is_some_and(is_something))
}

/// Neither null, false, 0 nor without content.
fn is_something(node: Node<'_>) -> bool {
    match node {
        Node::Null | Node::Bool(false) => false,
        Node::Bool(true) => true,
        Node::Num(text) => text.bytes().any(|byte| matches!(byte, b'1'..=b'9')),
        Node::Str(text) => !matches!(text.head(8).trim().to_ascii_lowercase().as_str(), "" | "none" | "null" | "false"),
        Node::Arr(list) => !list.items.is_empty(),
        Node::Obj(object) => !object.entries.is_empty(),
    }
}

/// The one text that an envelope is around.
fn inside(node: Node<'_>) -> Option<String> {
    match node {
        Node::Str(text) => Some(text.plain().into_owned()),
        Node::Arr(list) => match list.items {
            [Node::Obj(block)] => text_block(block),
            _ => None,
        },
        Node::Obj(object) => {
            if let Some(text) = text_block(&object) {
                return Some(text);
            }
            let (_, value) =
                one_of(&object, &["content", "result", "output", "text", "response", "return_value", "value"])?;
            match value {
                Node::Str(text) => Some(text.plain().into_owned()),
                Node::Arr(list) => match list.items {
                    [Node::Obj(block)] => text_block(block),
                    _ => None,
                },
                _ => None,
            }
        }
        _ => None,
    }
}

/// The only member of `keys`, if all others may stand beside it.
fn one_of<'t>(object: &Object<'t>, keys: &[&str]) -> Option<(&'t str, Node<'t>)> {
    let mut found = None;
    for (key, value) in object.entries {
        if keys.contains(key) {
            if found.replace((*key, *value)).is_some() {
                return None;
            }
        } else if !BESIDE.contains(key) || (*key == "error" && is_something(*value)) {
            return None;
        }
    }
    found
}

fn text_block(object: &Object<'_>) -> Option<String> {
    let is_text = object.text(&["type"]).is_some_and(|kind| kind.head(8) == "text");
    let plain = object
        .entries
        .iter()
        .all(|(key, _)| matches!(*key, "type" | "text" | "annotations" | "_meta" | "cache_control"));
    (is_text && plain).then(|| object.text(&["text"]))?.map(|text| text.plain().into_owned())
}

/// The beginning that is looked at.
pub fn opening(text: &str) -> &str {
    tokens::head(text.trim_start(), 256)
}
