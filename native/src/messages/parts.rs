//! Content blocks of every provider and framework, as parts of one canonical message.

use std::borrow::Cow;

use bumpalo::Bump;

use super::json::{Node, Object, Text, parse};
use super::{PREVIEW_CHARS, python};

/// Parts of one message; more are dropped and reported as truncated.
pub const PARTS_MAX: usize = 4096;

/// The parts of one message under construction, with what previews and hints need of them.
#[derive(Debug, Default)]
pub struct Draft {
    /// The parts, joined by commas.
    pub parts: String,
    pub count: usize,
    pub text: String,
    pub call: String,
    pub result: String,
    /// The message ends with tool calls that nobody has answered in it.
    pub has_call: bool,
    pub only_results: bool,
    pub failed: Option<bool>,
    pub truncated: bool,
    ids: Vec<String>,
}

impl Draft {
    pub fn clear(&mut self) {
        self.parts.clear();
        self.count = 0;
        self.text.clear();
        self.call.clear();
        self.result.clear();
        self.has_call = false;
        self.only_results = true;
        self.failed = None;
        self.truncated = false;
        self.ids.clear();
    }

    fn open(&mut self, kind: &str) -> bool {
        if self.count >= PARTS_MAX {
            self.truncated = true;
            return false;
        }
        if self.count > 0 {
            self.parts.push(',');
        }
        self.count += 1;
        self.only_results &= kind == "tool_call_response";
        self.parts.push_str("{\"type\":\"");
        self.parts.push_str(kind);
        self.parts.push('"');
        true
    }

    fn close(&mut self) {
        self.parts.push('}');
    }

    fn field(&mut self, key: &str, value: Text<'_>) {
        self.key(key);
        value.write(&mut self.parts);
    }

    fn node(&mut self, key: &str, value: Node<'_>) {
        self.key(key);
        value.write(&mut self.parts);
    }

    fn key(&mut self, key: &str) {
        self.parts.push_str(",\"");
        self.parts.push_str(key);
        self.parts.push_str("\":");
    }

    /// A part that is canonical already.
    fn copy(&mut self, object: Object<'_>, kind: &str) {
        if self.count >= PARTS_MAX {
            self.truncated = true;
            return;
        }
        if self.count > 0 {
            self.parts.push(',');
        }
        self.count += 1;
        self.only_results &= kind == "tool_call_response";
        Node::Obj(object).write(&mut self.parts);
    }

    pub fn text(&mut self, text: Text<'_>) {
        if self.open("text") {
            self.field("content", text);
            self.close();
            self.note_text(text);
        }
    }

    pub fn reasoning(&mut self, text: Text<'_>) {
        if self.open("reasoning") {
            self.field("content", text);
            self.close();
        }
    }

    pub fn call(&mut self, id: Option<Text<'_>>, name: Option<Text<'_>>, arguments: Option<Node<'_>>, bump: &Bump) {
        if let Some(id) = id.filter(|id| !id.is_empty()) {
            let id = id.plain();
            if self.ids.iter().any(|seen| *seen == id) {
                return;
            }
            self.ids.push(id.into_owned());
        }
        if !self.open("tool_call") {
            return;
        }
        if let Some(id) = id {
            self.field("id", id);
        }
        self.field("name", name.unwrap_or(Text::Same("")));
        if let Some(arguments) = arguments {
            self.key("arguments");
            write_arguments(arguments, &mut self.parts, bump);
        }
        self.close();
        self.note_call(name, arguments, bump);
    }

    pub fn response(&mut self, id: Option<Text<'_>>, response: Node<'_>) {
        if !self.open("tool_call_response") {
            return;
        }
        if let Some(id) = id {
            self.field("id", id);
        }
        self.node("response", response);
        self.close();
        self.note_result(response);
    }

    /// Remember what previews and hints need of a part that stays as it is.
    pub fn note(&mut self, part: Node<'_>, bump: &Bump) {
        let Some(object) = part.obj() else {
            return;
        };
        self.count += 1;
        match object.text(&["type"]) {
            Some(Text::Same("text")) => object.text(&["content"]).into_iter().for_each(|t| self.note_text(t)),
            Some(Text::Same("tool_call")) => {
                self.note_call(object.text(&["name"]), object.get("arguments"), bump);
            }
            Some(Text::Same("tool_call_response")) => {
                self.note_result(object.get("response").unwrap_or(Node::Null));
            }
            _ => {}
        }
    }

    fn note_text(&mut self, text: Text<'_>) {
        note(&mut self.text, || text.head(PREVIEW_CHARS));
    }

    fn note_call(&mut self, name: Option<Text<'_>>, arguments: Option<Node<'_>>, bump: &Bump) {
        self.has_call = true;
        note(&mut self.call, || {
            let mut call = name.map_or(Cow::Borrowed(""), Text::plain).into_owned();
            call.push('(');
            if let Some(arguments) = arguments {
                write_arguments(arguments, &mut call, bump);
            }
            call.push(')');
            Cow::Owned(call)
        });
    }

    fn note_result(&mut self, response: Node<'_>) {
        // Answered in the same message: nothing is asked of the caller any more.
        self.has_call = false;
        note(&mut self.result, || text_of(response));
    }

    /// An image, sound, video or document: a data URL, a link, or base64 text.
    fn media(&mut self, modality: Option<&str>, mime: Option<Text<'_>>, source: Text<'_>) {
        let plain = match source {
            Text::Same(text) | Text::Plain(text) => text,
            // Escapes in a link or in base64 are slashes at most.
            Text::Escaped(_) => return self.media_link(modality, mime, source),
        };
        let Some((header, data)) = plain.strip_prefix("data:").and_then(|rest| rest.split_once(',')) else {
            if plain.as_bytes().iter().take(16).any(|byte| *byte == b':') {
                return self.media_link(modality, mime, source);
            }
            return self.blob(modality, mime, source);
        };
        let kind = header.split(';').next().filter(|kind| !kind.is_empty());
        let data = match source {
            Text::Same(_) => Text::Same(data),
            _ => Text::Plain(data),
        };
        self.blob(modality, kind.map(Text::Plain).or(mime), data);
    }

    fn media_link(&mut self, modality: Option<&str>, mime: Option<Text<'_>>, uri: Text<'_>) {
        let modality = modality_of(modality, mime);
        if self.open("uri") {
            self.field("modality", Text::Same(modality));
            if let Some(mime) = mime {
                self.field("mime_type", mime);
            }
            self.field("uri", uri);
            self.close();
        }
    }

    fn blob(&mut self, modality: Option<&str>, mime: Option<Text<'_>>, data: Text<'_>) {
        let modality = modality_of(modality, mime);
        if self.open("blob") {
            self.field("modality", Text::Same(modality));
            if let Some(mime) = mime {
                self.field("mime_type", mime);
            }
            self.field("content", data);
            self.close();
        }
    }

    fn file(&mut self, modality: Option<&str>, mime: Option<Text<'_>>, id: Text<'_>) {
        let modality = modality_of(modality, mime);
        if self.open("file") {
            self.field("modality", Text::Same(modality));
            if let Some(mime) = mime {
                self.field("mime_type", mime);
            }
            self.field("file_id", id);
            self.close();
        }
    }

    /// A block nobody told us about: kept whole under its own type.
    fn generic(&mut self, node: Node<'_>) {
        if let Node::Obj(object) = node
            && let Some(Text::Same(kind)) = object.text(&["type"])
            && !kind.is_empty()
        {
            return self.copy(object, "generic");
        }
        if self.open("generic") {
            self.node("content", node);
            self.close();
        }
    }

    /// One content block, or a list of them.
    pub fn block(&mut self, node: Node<'_>, bump: &Bump, depth: usize) {
        if depth > 8 {
            return self.generic(node);
        }
        match node {
            Node::Null => {}
            Node::Str(text) => self.text(text),
            Node::Arr(list) => {
                for item in list.items {
                    self.block(*item, bump, depth + 1);
                }
            }
            Node::Obj(object) => self.object(object, bump, depth),
            Node::Bool(_) | Node::Num(_) => self.generic(node),
        }
    }

    fn object(&mut self, object: Object<'_>, bump: &Bump, depth: usize) {
        let kind = object.text(&["type", "block_type"]).map(Text::plain);
        let kind = kind.as_deref().unwrap_or("");
        if is_canonical(&object, kind) {
            match kind {
                "text" => object.text(&["content"]).into_iter().for_each(|t| self.note_text(t)),
                "tool_call" => {
                    if let Some(id) = object.text(&["id"]) {
                        let id = id.plain();
                        if !id.is_empty() {
                            if self.ids.iter().any(|seen| *seen == id) {
                                return;
                            }
                            self.ids.push(id.into_owned());
                        }
                    }
                    self.note_call(object.text(&["name"]), object.get("arguments"), bump);
                }
                "tool_call_response" => self.note_result(object.get("response").unwrap_or(Node::Null)),
                _ => {}
            }
            return self.copy(object, kind);
        }
        match kind {
            "text" | "input_text" | "output_text" | "summary_text" | "reasoning_text" | "thinking" | "reasoning"
            | "refusal" => self.textual(object, kind, bump, depth),
            "tool_call" | "tool_use" | "tool-call" | "function_call" | "function" | "toolCall" | "toolUse" => {
                self.tool_call(object, bump);
            }
            "tool_call_response"
            | "tool_result"
            | "tool-result"
            | "function_call_output"
            | "tool-error"
            | "toolResult" => self.tool_result(object),
            "server_tool_use"
            | "web_search_call"
            | "file_search_call"
            | "code_interpreter_call"
            | "computer_call"
            | "image_generation_call"
            | "mcp_call"
            | "local_shell_call" => self.server_call(object, kind),
            "image" | "image_url" | "input_image" | "image_file" | "audio" | "input_audio" | "video" | "video_url"
            | "document" | "file" | "input_file" | "media" => self.attachment(object, kind),
            _ if kind.ends_with("_tool_result") => {
                if self.open("server_tool_call_response") {
                    if let Some(id) = object.text(&["tool_use_id", "id"]) {
                        self.field("id", id);
                    }
                    self.key("server_tool_call_response");
                    Node::Obj(object).write(&mut self.parts);
                    self.close();
                }
            }
            "" => self.untyped(object, bump, depth),
            _ => self.generic(Node::Obj(object)),
        }
    }

    fn textual(&mut self, object: Object<'_>, kind: &str, bump: &Bump, depth: usize) {
        let text = object.text(&["text", "content", "thinking", "reasoning", "refusal", "value"]);
        match (kind, text) {
            ("refusal", _) => self.generic(Node::Obj(object)),
            ("thinking" | "reasoning" | "reasoning_text", Some(text)) => self.reasoning(text),
            ("reasoning", None) => {
                // A Responses item: summaries and, from open models, the thoughts themselves.
                for thoughts in ["summary", "content"] {
                    for thought in object.get(thoughts).and_then(Node::arr).unwrap_or_default() {
                        if let Some(text) = thought.obj().and_then(|o| o.text(&["text"])) {
                            self.reasoning(text);
                        }
                    }
                }
                if object.has("encrypted_content") && self.count == 0 {
                    self.generic(Node::Obj(object));
                }
            }
            (_, Some(text)) => self.text(text),
            (_, None) => match object.any(&["text", "content"]) {
                Some(Node::Obj(inner)) if inner.text(&["value"]).is_some() => {
                    inner.text(&["value"]).into_iter().for_each(|t| self.text(t));
                }
                Some(Node::Arr(list)) => {
                    for item in list.items {
                        self.block(*item, bump, depth + 1);
                    }
                }
                _ => self.generic(Node::Obj(object)),
            },
        }
    }

    /// A requested call in any spelling.
    pub fn tool_call(&mut self, object: Object<'_>, bump: &Bump) {
        let inner = object.any(&["function", "tool_call"]).and_then(Node::obj);
        let spec = inner.unwrap_or(object);
        let id = object
            .text(&[
                "call_id",
                "id",
                "toolCallId",
                "toolUseId",
                "tool_call_id",
                "tool_use_id",
                "tool_id",
                "ref",
                "callId",
            ])
            .or_else(|| spec.text(&["id"]));
        let name = spec.text(&["name", "toolName", "tool_name", "function_name"]);
        let arguments = ["arguments", "input", "args", "tool_kwargs", "tool_args", "parameters"]
            .iter()
            .find_map(|key| spec.get(key))
            .or_else(|| object.get("arguments"));
        self.call(id, name, arguments, bump);
    }

    fn tool_result(&mut self, object: Object<'_>) {
        let id = object.text(&["tool_use_id", "tool_call_id", "toolCallId", "toolUseId", "call_id", "id", "ref"]);
        let response = ["response", "result", "output", "content", "error"]
            .iter()
            .find_map(|key| object.get(key))
            .unwrap_or(Node::Null);
        self.note_status(object);
        self.response(id, unwrap_result(response));
    }

    /// Whether the tool says it failed.
    pub fn note_status(&mut self, object: Object<'_>) {
        if let Some(failed) = status_of(&object) {
            self.failed = Some(self.failed.unwrap_or(false) || failed);
        }
    }

    fn server_call(&mut self, object: Object<'_>, kind: &str) {
        if !self.open("server_tool_call") {
            return;
        }
        if let Some(id) = object.text(&["id", "call_id"]) {
            self.field("id", id);
        }
        let name = object.text(&["name"]);
        self.field("name", name.unwrap_or(Text::Plain(kind.trim_end_matches("_call"))));
        self.key("server_tool_call");
        Node::Obj(object).write(&mut self.parts);
        self.close();
    }

    fn attachment(&mut self, object: Object<'_>, kind: &str) {
        let modality = ["image", "audio", "video"]
            .into_iter()
            .find(|modality| kind.contains(modality))
            .or((kind == "document").then_some("document"));
        if !self.source(object, modality, None, 0) {
            self.generic(Node::Obj(object));
        }
    }

    /// Where the bytes of an attachment are, whatever the nesting: a link, a file id or base64.
    fn source(&mut self, object: Object<'_>, modality: Option<&str>, mime: Option<Text<'_>>, depth: usize) -> bool {
        let mime = object
            .text(&["mime_type", "mimeType", "media_type", "mediaType", "contentType", "image_mimetype"])
            .or(mime);
        let mime = mime.or_else(|| {
            // "format": "wav" or "png" beside the bytes
            let format = object.text(&["format"])?.plain();
            Some(match modality {
                Some(modality) if !format.contains('/') => Text::Plain(match (modality, format.as_ref()) {
                    ("audio", "wav") => "audio/wav",
                    ("audio", "mp3") => "audio/mp3",
                    ("image", "png") => "image/png",
                    ("image", "jpeg" | "jpg") => "image/jpeg",
                    ("image", "webp") => "image/webp",
                    ("image", "gif") => "image/gif",
                    ("video", "mp4") => "video/mp4",
                    _ => return None,
                }),
                _ => return None,
            })
        });
        if let Some(id) = object.text(&["file_id", "fileId"]) {
            self.file(modality, mime, id);
            return true;
        }
        for key in [
            "url",
            "uri",
            "file_uri",
            "fileUri",
            "image_url",
            "data",
            "bytes",
            "base64",
            "file_data",
            "image",
            "audio",
            "video",
            "video_url",
            "input_audio",
            "document",
            "file",
            "source",
            "image_file",
            "media",
        ] {
            match object.get(key) {
                Some(Node::Str(text)) if !text.is_empty() => {
                    self.media(modality, mime, text);
                    return true;
                }
                Some(Node::Obj(inner)) if depth < 4 && self.source(inner, modality, mime, depth + 1) => return true,
                _ => {}
            }
        }
        false
    }

    /// Blocks that are told apart by their key: Gemini, Bedrock, Genkit, Haystack.
    fn untyped(&mut self, object: Object<'_>, bump: &Bump, depth: usize) {
        let get = |keys: &[&str]| object.any(keys).and_then(Node::obj);
        // OpenInference says only the type beside a call.
        if let Some(inner) = get(&["functionCall", "function_call", "toolUse", "toolRequest", "tool_call"]) {
            return self.tool_call(inner, bump);
        }
        if let Some(inner) = get(&["message_content"]) {
            return self.object(inner, bump, depth + 1);
        }
        if let Some(inner) = get(&["functionResponse", "function_response", "toolResult", "toolResponse"]) {
            return self.tool_result(inner);
        }
        if let Some(inner) = get(&["tool_call_result"]) {
            let id = get(&["tool_call_result"])
                .and_then(|result| result.get("origin"))
                .and_then(Node::obj)
                .and_then(|origin| origin.text(&["id"]));
            self.note_status(inner);
            return self.response(id, inner.get("result").unwrap_or(Node::Null));
        }
        if let Some(inner) = get(&["reasoningContent", "reasoning_content"]) {
            let inner = inner.get("reasoningText").and_then(Node::obj).unwrap_or(inner);
            return match inner.text(&["text", "reasoning_text"]) {
                Some(text) => self.reasoning(text),
                None => self.generic(Node::Obj(object)),
            };
        }
        if let Some(text) = object.text(&["text"]) {
            return match object.get("thought") {
                Some(Node::Bool(true)) => self.reasoning(text),
                _ => self.text(text),
            };
        }
        if let Some(inner) = get(&["executableCode", "executable_code"]) {
            if self.open("server_tool_call") {
                self.field("name", Text::Same("code_execution"));
                self.key("server_tool_call");
                self.parts.push_str("{\"type\":\"code_execution\"");
                if let Some(code) = inner.get("code") {
                    self.node("code", code);
                }
                self.parts.push('}');
                self.close();
            }
            return;
        }
        if let Some(inner) = get(&["inlineData", "inline_data", "fileData", "file_data", "media"])
            && self.source(inner, None, None, 0)
        {
            return;
        }
        for modality in ["image", "audio", "video", "document"] {
            if let Some(inner) = get(&[modality])
                && self.source(inner, Some(modality), None, 0)
            {
                return;
            }
        }
        // Haystack's result without the block around it.
        if let (Some(result), Some(Node::Obj(origin))) = (object.get("result"), object.get("origin")) {
            self.note_status(object);
            return self.response(origin.text(&["id"]), result);
        }
        if object.text(&["name", "toolName", "tool_name"]).is_some()
            && (object.has("args") || object.has("arguments") || object.has("input"))
        {
            return self.tool_call(object, bump);
        }
        if let Some(reasoning) = object.text(&["reasoning"]) {
            return self.reasoning(reasoning);
        }
        self.generic(Node::Obj(object));
    }
}

fn note<'t>(slot: &mut String, text: impl FnOnce() -> Cow<'t, str>) {
    if slot.is_empty() {
        slot.push_str(super::json::head(&text(), PREVIEW_CHARS));
    }
}

fn modality_of<'m>(modality: Option<&'m str>, mime: Option<Text<'_>>) -> &'m str {
    if let Some(modality) = modality {
        return modality;
    }
    let mime = mime.map_or(Cow::Borrowed(""), Text::plain);
    ["image", "audio", "video"].into_iter().find(|modality| mime.starts_with(modality)).unwrap_or("document")
}

/// What the tool itself says about its outcome: failed, worked, or nothing.
pub fn status_of(object: &Object<'_>) -> Option<bool> {
    for key in ["is_error", "isError"] {
        if let Some(Node::Bool(failed)) = object.get(key) {
            return Some(failed);
        }
    }
    if let Some(Node::Bool(failed)) = object.get("error")
        && object.has("result")
    {
        return Some(failed);
    }
    match object.text(&["status"])?.plain().as_ref() {
        "error" | "failed" => Some(true),
        "success" => Some(false),
        _ => None,
    }
}

/// Vercel tags results: `{"type": "json", "value": ...}`.
fn unwrap_result(node: Node<'_>) -> Node<'_> {
    if let Node::Obj(object) = node
        && object.entries.len() == 2
        && let Some(value) = object.get("value")
        && let Some(Text::Same("json" | "text" | "error-text" | "error-json" | "content")) = object.text(&["type"])
    {
        return value;
    }
    node
}

/// Readable text of a result, for previews.
pub fn text_of(node: Node<'_>) -> Cow<'_, str> {
    match node {
        Node::Str(text) => text.head(PREVIEW_CHARS),
        Node::Null => Cow::Borrowed(""),
        Node::Arr(list) => match list.items {
            [only] => match only.obj().and_then(|object| object.text(&["text"])) {
                Some(text) => text.head(PREVIEW_CHARS),
                None => written(node),
            },
            _ => written(node),
        },
        _ => written(node),
    }
}

fn written(node: Node<'_>) -> Cow<'_, str> {
    let mut out = String::new();
    node.write(&mut out);
    Cow::Owned(out)
}

/// Arguments as an object where they can be read as one: JSON in a string, JSON in that again, a Python literal.
fn write_arguments(node: Node<'_>, out: &mut String, bump: &Bump) {
    let Node::Str(text) = node else {
        return node.write(out);
    };
    let plain = text.plain();
    match structured(&plain, bump, 0) {
        Some(json) => out.push_str(&json),
        None => text.write(out),
    }
}

/// The JSON object or array that `text` spells, as JSON text.
pub fn structured(text: &str, bump: &Bump, depth: usize) -> Option<String> {
    let text = text.trim();
    match text.as_bytes().first() {
        None => Some("{}".into()),
        Some(b'{' | b'[' | b'"') => match parse(bump.alloc_str(text), bump) {
            Ok(node @ (Node::Obj(_) | Node::Arr(_))) => {
                let mut out = String::with_capacity(text.len());
                node.write(&mut out);
                Some(out)
            }
            Ok(Node::Str(inner)) if depth < 3 => structured(&inner.plain(), bump, depth + 1),
            Ok(_) => None,
            Err(_) => python::to_json(text).filter(|json| json.starts_with(['{', '['])),
        },
        Some(_) => None,
    }
}

/// Whether a block has the canonical shape of its type already, so that it can be kept byte by byte.
pub fn is_canonical(object: &Object<'_>, kind: &str) -> bool {
    if !Node::Obj(*object).is_clean() {
        return false;
    }
    let text = |key: &str| matches!(object.get(key), Some(Node::Str(_)));
    let optional = |key: &str| matches!(object.get(key), None | Some(Node::Null | Node::Str(_)));
    match kind {
        "text" | "reasoning" => text("content"),
        "tool_call" => {
            text("name")
                && optional("id")
                && !object.has("function")
                && match object.get("arguments") {
                    Some(Node::Str(arguments)) => {
                        let plain = arguments.head(1);
                        !plain.is_empty() && !plain.starts_with(['{', '[', '"', ' ', '\n'])
                    }
                    _ => !object.has("args") && !object.has("input"),
                }
        }
        "tool_call_response" => object.has("response") && optional("id"),
        "server_tool_call" => text("name") && object.has("server_tool_call"),
        "server_tool_call_response" => object.has("server_tool_call_response"),
        "blob" => text("modality") && text("content"),
        "file" => text("modality") && text("file_id"),
        "uri" => text("modality") && text("uri"),
        "compaction" => true,
        _ => false,
    }
}

/// Types of blocks that have a canonical form; any other type is kept as it is.
fn is_known(kind: &str) -> bool {
    matches!(
        kind,
        "text"
            | "input_text"
            | "output_text"
            | "summary_text"
            | "reasoning_text"
            | "thinking"
            | "reasoning"
            | "tool_call"
            | "tool_use"
            | "tool-call"
            | "function"
            | "toolCall"
            | "toolUse"
            | "tool_call_response"
            | "tool_result"
            | "tool-result"
            | "tool-error"
            | "toolResult"
            | "server_tool_use"
            | "server_tool_call"
            | "server_tool_call_response"
            | "image"
            | "image_url"
            | "input_image"
            | "image_file"
            | "audio"
            | "input_audio"
            | "video"
            | "video_url"
            | "document"
            | "file"
            | "input_file"
            | "media"
            | "blob"
            | "uri"
            | "compaction"
    ) || is_item(kind)
        || kind.ends_with("_tool_result")
}

/// Items of the OpenAI Responses API stand beside messages, not inside them.
pub fn is_item(kind: &str) -> bool {
    matches!(
        kind,
        "function_call"
            | "function_call_output"
            | "custom_tool_call"
            | "web_search_call"
            | "file_search_call"
            | "code_interpreter_call"
            | "computer_call"
            | "image_generation_call"
            | "mcp_call"
            | "local_shell_call"
    )
}

/// Whether a part of a message can stay byte by byte: canonical, or of a type nobody told us about.
pub fn may_stay(node: Node<'_>) -> bool {
    let Node::Obj(object) = node else {
        return false;
    };
    let Some(Text::Same(kind)) = object.text(&["type"]) else {
        return false;
    };
    is_canonical(&object, kind) || (!kind.is_empty() && !is_known(kind) && node.is_clean())
}

/// Whether an object without a role is a content block rather than a message.
pub fn is_block(object: &Object<'_>) -> bool {
    if let Some(kind) = object.text(&["type"]) {
        let kind = kind.plain();
        return kind == "redacted_thinking" || (is_known(&kind) && !is_item(&kind));
    }
    [
        "functionCall",
        "function_call",
        "functionResponse",
        "function_response",
        "toolUse",
        "toolResult",
        "toolRequest",
        "toolResponse",
        "reasoningContent",
        "inlineData",
        "inline_data",
        "message_content",
        "toolCallId",
        "tool_call",
        "tool_call_result",
    ]
    .iter()
    .any(|key| object.has(key))
        || (object.has("result") && object.has("origin"))
        || (object.has("tool_name") && object.has("arguments"))
        || (object.text(&["text"]).is_some()
            && !["finish_reason", "generation_info", "index", "message"].iter().any(|key| object.has(key)))
}
