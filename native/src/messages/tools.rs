//! Tool definitions, arguments and results, and retrieved documents.

use bumpalo::Bump;

use super::json::{Fault, Node, Object, Text, members, parse};
use super::parts::{status_of, structured, text_of};
use super::{PREVIEW_CHARS, python};
use crate::wire::json_string;

/// Definitions or documents of one value.
const ELEMENTS_MAX: usize = 4096;

/// JSON of each tool definition in `text`.
pub fn definitions(text: &str, bump: &Bump) -> Vec<String> {
    let mut out = Vec::new();
    let text = text.trim();
    match parse(text, bump) {
        Ok(node) => define(node, None, &mut out, bump, 0),
        Err(_) => {
            if let Some(json) = python::to_json(text)
                && let Ok(node) = parse(bump.alloc_str(&json), bump)
            {
                define(node, None, &mut out, bump, 0);
            } else if text.len() <= 4096 && !text.contains(['{', '[', '<', '(']) {
                // Semantic Kernel: the names alone, joined by commas.
                for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                    out.push(named(name));
                }
            }
        }
    }
    out
}

/// The definition of the tool `name` whose parameter schema is `schema`.
pub fn definition(name: &str, schema: &str, bump: &Bump) -> Option<String> {
    let node = parse(schema.trim(), bump).ok()?;
    let object = node.obj()?;
    // Some frameworks put the arguments of the call where others put the schema.
    if !object.has("properties") && !matches!(object.get("type"), Some(Node::Str(Text::Same("object")))) {
        return None;
    }
    let mut out = String::from("{\"type\":\"function\",\"name\":");
    json_string(name, &mut out);
    out.push_str(",\"parameters\":");
    node.write(&mut out);
    out.push('}');
    Some(out)
}

fn named(name: &str) -> String {
    let mut out = String::from("{\"type\":\"function\",\"name\":");
    json_string(name, &mut out);
    out.push('}');
    out
}

fn define(node: Node<'_>, name: Option<&str>, out: &mut Vec<String>, bump: &Bump, depth: usize) {
    if depth > 6 || out.len() >= ELEMENTS_MAX {
        return;
    }
    match node {
        Node::Arr(list) => {
            for item in list.items {
                define(*item, None, out, bump, depth + 1);
            }
        }
        Node::Str(text) => {
            let plain = text.plain();
            match plain.trim_start().as_bytes().first() {
                Some(b'{' | b'[') => {
                    if let Ok(node) = parse(bump.alloc_str(plain.trim()), bump) {
                        define(node, name, out, bump, depth + 1);
                    }
                }
                Some(_) => out.push(named(&plain)),
                None => {}
            }
        }
        Node::Obj(object) => define_object(object, name, out, bump, depth),
        _ => {}
    }
}

fn define_object(object: Object<'_>, key: Option<&str>, out: &mut Vec<String>, bump: &Bump, depth: usize) {
    for group in
        ["tools", "function_tools", "functionDeclarations", "function_declarations", "toolSpec", "tool", "json_schema"]
    {
        if let Some(inner) = object.any(&[group])
            && !object.has("name")
        {
            return define(inner, None, out, bump, depth + 1);
        }
    }
    let kind = object.text(&["type"]).map(Text::plain);
    let spec = object.get("function").and_then(Node::obj).unwrap_or(object);
    let Some(name) = spec.text(&["name"]).or(key.map(Text::Plain)) else {
        // A provider's own tool has a type only: web_search, code_interpreter.
        if let Some(kind) = kind.filter(|kind| !kind.is_empty() && kind != "object") {
            let mut json = String::from("{\"type\":");
            json_string(&kind, &mut json);
            json.push_str(",\"name\":");
            json_string(&kind, &mut json);
            json.push('}');
            out.push(json);
            return;
        }
        // Tools by name: {"get_weather": {...}}
        if depth < 3 {
            for (key, value) in object.entries {
                if value
                    .obj()
                    .is_some_and(|tool| tool.has("parameters") || tool.has("inputSchema") || tool.has("description"))
                {
                    define(*value, Some(key), out, bump, depth + 2);
                }
            }
        }
        return;
    };
    let schema =
        ["parameters", "input_schema", "inputSchema", "parametersJsonSchema", "parameters_json_schema", "schema"]
            .iter()
            .find_map(|key| spec.any(&[key]))
            .map(|schema| match schema {
                // Bedrock and AI SDK wrap the schema once more.
                Node::Obj(inner) if inner.entries.len() <= 2 => {
                    inner.any(&["json", "jsonSchema"]).filter(|node| node.obj().is_some()).unwrap_or(schema)
                }
                _ => schema,
            });
    // Vendor tools keep their type, functions have one name for it.
    let kind = match kind.as_deref() {
        None | Some("function" | "" | "custom" | "object" | "dynamic") => "function",
        Some(kind) => kind,
    };
    let canonical = kind == "function"
        && object.get("type").is_some()
        && object.get("function").is_none()
        && Node::Obj(object).is_clean()
        && object.entries.iter().all(|(key, value)| {
            matches!(*key, "type" | "name" | "description" | "parameters" | "strict")
                && !matches!((*key, value), ("parameters", Node::Str(_)))
        })
        && object.text(&["type"]).is_some_and(|kind| kind.plain() == "function");
    let mut json = String::new();
    if canonical {
        Node::Obj(object).write(&mut json);
        out.push(json);
        return;
    }
    json.push_str("{\"type\":");
    json_string(kind, &mut json);
    json.push_str(",\"name\":");
    name.write(&mut json);
    if let Some(description) = spec.text(&["description"]) {
        json.push_str(",\"description\":");
        description.write(&mut json);
    }
    if let Some(schema) = schema {
        json.push_str(",\"parameters\":");
        match schema {
            Node::Str(text) => match structured(&text.plain(), bump, 0) {
                Some(schema) => json.push_str(&schema),
                None => text.write(&mut json),
            },
            _ => schema.write(&mut json),
        }
    }
    json.push('}');
    out.push(json);
}

/// Arguments of a tool call, as a JSON object where they can be read as one, else the text as it came.
pub fn arguments(text: &str, bump: &Bump) -> String {
    if text.trim().is_empty() {
        return String::new();
    }
    let Some(json) = structured(text, bump, 0) else {
        return text.to_owned();
    };
    let Ok(Node::Obj(object)) = parse(bump.alloc_str(&json), bump) else {
        return json;
    };
    // Decorators record how the function was called.
    if let (Some(args), Some(kwargs)) = (object.get("args"), object.get("kwargs"))
        && object.entries.len() == 2
        && args.arr().is_some_and(<[_]>::is_empty)
        && kwargs.obj().is_some()
    {
        return written(kwargs);
    }
    // LangChain callbacks record the run: input as text, and as a dictionary where there is one.
    if let Some(input) = object.text(&["input_str"]) {
        if let Some(inputs @ Node::Obj(_)) = object.get("inputs") {
            return written(inputs);
        }
        let plain = input.plain();
        return structured(&plain, bump, 0).unwrap_or_else(|| plain.into_owned());
    }
    json
}

/// What a tool gave back.
#[derive(Debug, Default, PartialEq)]
pub struct Outcome {
    pub value: String,
    pub preview: String,
    pub failed: Option<bool>,
    pub truncated: bool,
}

pub fn result(text: &str, bump: &Bump) -> Outcome {
    let mut outcome = Outcome::default();
    let node = match text.trim_start().as_bytes().first() {
        Some(b'{' | b'[' | b'"') => match parse(bump.alloc_str(text.trim()), bump) {
            Ok(node) => Some(node),
            Err(fault) => {
                outcome.truncated = fault == Fault::Cut;
                python::to_json(text.trim()).and_then(|json| parse(bump.alloc_str(&json), bump).ok())
            }
        },
        _ => None,
    };
    outcome.truncated |= text.contains("...[TRUNCATED: original length ");
    let Some(node) = node else {
        outcome.value = text.to_owned();
        outcome.preview = super::json::head(text, PREVIEW_CHARS).to_owned();
        return outcome;
    };
    outcome.truncated = text.contains("...[TRUNCATED: original length ");
    let inner = unwrap(node, &mut outcome.failed, 0);
    outcome.preview = super::json::head(&text_of(inner), PREVIEW_CHARS).to_owned();
    outcome.value = match inner {
        Node::Str(text) => text.plain().into_owned(),
        // Kept byte by byte, white space included, where nothing was unwrapped.
        _ if inner.raw().is_some_and(|raw| raw.len() == text.trim().len()) => text.trim().to_owned(),
        _ => written(inner),
    };
    outcome
}

/// Follow the wrappers that frameworks put around results, and what they say about the outcome.
fn unwrap<'t>(node: Node<'t>, failed: &mut Option<bool>, depth: usize) -> Node<'t> {
    if depth > 6 {
        return node;
    }
    let object = match node {
        Node::Obj(object) => object,
        Node::Arr(list) => {
            if let [Node::Obj(only)] = list.items {
                if let Some(Node::Obj(inner)) = only.get("toolResult") {
                    return unwrap(Node::Obj(inner), failed, depth + 1);
                }
                if let Some(text) = only.text(&["text"])
                    && only.entries.iter().all(|(key, _)| matches!(*key, "text" | "type"))
                {
                    return Node::Str(text);
                }
                if let Some(Node::Obj(inner)) = only.any(&["functionResponse", "function_response"]) {
                    return unwrap(inner.get("response").unwrap_or(Node::Null), failed, depth + 1);
                }
            }
            return node;
        }
        _ => return node,
    };
    if let Some(state) = status_of(&object) {
        *failed = Some(state);
    }
    // LangChain's ToolMessage, serialised or typed, alone or as the output of the run.
    for key in ["kwargs", "data"] {
        if let Some(Node::Obj(inner)) = object.get(key)
            && inner.has("content")
            && (object.has("lc") || object.text(&["type"]).is_some())
        {
            return unwrap(Node::Obj(inner), failed, depth + 1);
        }
    }
    if (object.has("tool_call_id") || object.has("toolUseId"))
        && let Some(content) = object.get("content")
    {
        return unwrap(content, failed, depth + 1);
    }
    if let Some(output @ Node::Obj(inner)) = object.get("output")
        && (inner.has("lc") || object.entries.iter().all(|(key, _)| matches!(*key, "output" | "kwargs")))
    {
        return unwrap(output, failed, depth + 1);
    }
    // Google ADK's function response.
    if object.has("name")
        && object.has("id")
        && object.entries.len() == 3
        && let Some(response) = object.get("response")
    {
        return unwrap(response, failed, depth + 1);
    }
    // Gemini CLI's call record.
    if let Some(parts @ Node::Arr(_)) = object.get("responseParts") {
        return unwrap(parts, failed, depth + 1);
    }
    if let Some(error) = object.any(&["error"])
        && object.entries.len() == 1
        && !matches!(error, Node::Bool(_))
    {
        *failed = Some(true);
    }
    node
}

/// JSON of each retrieved document in `text`, with `id`, `score` and `content` under these names.
pub fn documents(text: &str, bump: &Bump) -> Vec<String> {
    let mut out = Vec::new();
    if let Ok(node) = parse(text.trim(), bump) {
        document(node, &mut out, bump, 0);
    }
    out
}

fn document(node: Node<'_>, out: &mut Vec<String>, bump: &Bump, depth: usize) {
    if depth > 6 || out.len() >= ELEMENTS_MAX {
        return;
    }
    let object = match node {
        Node::Arr(list) => {
            for item in list.items {
                document(*item, out, bump, depth + 1);
            }
            return;
        }
        Node::Str(text) => {
            let mut json = String::from("{\"content\":");
            text.write(&mut json);
            json.push('}');
            out.push(json);
            return;
        }
        Node::Obj(object) => object,
        _ => return,
    };
    for wrapper in ["documents", "document", "output", "results", "kwargs", "source_nodes", "node"] {
        if let Some(inner @ (Node::Arr(_) | Node::Obj(_))) = object.get(wrapper)
            && !["page_content", "content", "text", "score"].iter().any(|key| object.has(key))
        {
            return document(inner, out, bump, depth + 1);
        }
    }
    let mut json = String::from("{");
    for (name, keys) in [
        ("id", &["id", "id_", "doc_id", "originalIndex", "index"][..]),
        ("score", &["score", "relevance_score", "relevanceScore", "similarity"]),
        ("content", &["content", "page_content", "text", "document"]),
        ("metadata", &["metadata", "meta"]),
    ] {
        let Some(value) = object.any(keys) else {
            continue;
        };
        if json.len() > 1 {
            json.push(',');
        }
        json_string(name, &mut json);
        json.push(':');
        match value {
            Node::Str(text) if name == "metadata" => match structured(&text.plain(), bump, 0) {
                Some(metadata) => json.push_str(&metadata),
                None => text.write(&mut json),
            },
            _ => value.write(&mut json),
        }
    }
    json.push('}');
    if json.len() > 2 {
        out.push(json);
    }
}

/// Plain text of input or output that is one JSON string, or a list of them.
pub fn readable(text: &str, bump: &Bump) -> Option<String> {
    // Only as much as can be shown: embeddings come with thousands of texts.
    if text.len() > 64 << 10 {
        return None;
    }
    let node = match text.trim_start().as_bytes() {
        [b'"', ..] | [b'[', b'"', ..] => parse(text.trim(), bump).ok()?,
        _ => return None,
    };
    let texts: Vec<Text<'_>> = match node {
        Node::Str(text) => vec![text],
        Node::Arr(list) => list.items.iter().map(|item| item.text()).collect::<Option<_>>()?,
        _ => return None,
    };
    let mut out = String::new();
    for text in texts {
        if !out.is_empty() {
            out.push('\n');
        }
        let plain = text.head(PREVIEW_CHARS);
        // AI SDK writes every value as JSON once more.
        match parse(bump.alloc_str(&plain), bump) {
            Ok(Node::Str(inner)) => out.push_str(&inner.plain()),
            _ => out.push_str(&plain),
        }
        if out.len() > PREVIEW_CHARS * 4 {
            break;
        }
    }
    Some(super::json::head(&out, PREVIEW_CHARS).to_owned())
}

/// The text of the member at `path` of the JSON object `text`; strings without their quotes.
pub fn at_path<'t>(text: &'t str, path: &[String]) -> Option<std::borrow::Cow<'t, str>> {
    if text.starts_with("{'") {
        let json = python::to_json(text)?;
        return Some(at_path(&json, path)?.into_owned().into());
    }
    let mut text = text;
    for key in path {
        let entries = members(text)?;
        text = entries.into_iter().rev().find(|(name, _)| name == key)?.1;
    }
    if text == "null" {
        return None;
    }
    if text.starts_with('"') {
        let bump = Bump::new();
        let node = parse(text, &bump).ok()?;
        return Some(node.text()?.plain().into_owned().into());
    }
    Some(text.into())
}

fn written(node: Node<'_>) -> String {
    let mut out = String::new();
    node.write(&mut out);
    out
}
