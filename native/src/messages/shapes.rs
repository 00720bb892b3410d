//! Messages of every provider and framework, as canonical messages.

use std::borrow::Cow;

use bumpalo::Bump;
use bumpalo::collections::String as BumpString;

use super::json::{Fault, List, Node, Object, Text, head, parse};
use super::parts::{Draft, is_block, is_item, may_stay};
use super::python;
use crate::content::hash;

/// Messages of one value; more are dropped and reported as truncated.
pub const MESSAGES_MAX: usize = 65_536;
/// Where requests keep the instructions, beside the list of messages.
pub const INSTRUCTION_KEYS: [&str; 4] = ["system", "instructions", "systemInstruction", "system_instruction"];
/// Wrappers inside wrappers that are followed.
const NESTING_MAX: usize = 12;

/// One canonical message, with what previews and hints need of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Item<'a> {
    pub json: &'a str,
    pub hash: u128,
    pub role: &'a str,
    pub text: &'a str,
    /// The first tool call as `name(arguments)`.
    pub call: &'a str,
    pub has_call: bool,
    /// Text of the first tool result.
    pub result: &'a str,
    /// Finish reason as spelled, '' for none.
    pub finish: &'a str,
    /// A message without parts: no content was captured.
    pub empty: bool,
}

/// Whose messages are read: what has no role of its own gets that of its side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    Input,
    Output,
    /// Of a list of events, only the choices.
    Choices,
    System,
}

impl Side {
    pub fn role(self) -> &'static str {
        match self {
            Self::Input => "user",
            Self::Output | Self::Choices => "assistant",
            Self::System => "system",
        }
    }
}

/// What one source text holds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading<'a> {
    pub items: &'a [Item<'a>],
    pub usage: Option<&'a str>,
    pub model: &'a str,
    /// The text was cut or had more than can be kept.
    pub truncated: bool,
    /// At least one message was recognised by its shape, not taken as plain text.
    pub recognised: bool,
}

/// Reads one source text into canonical messages.
pub struct Reader<'a, 's> {
    pub arena: &'a Bump,
    pub side: Side,
    pub draft: &'s mut Draft,
    /// The text whose slices live long enough to be kept, and its hash where that is known.
    pub keep: &'a str,
    pub hash: Option<u128>,
    pub out: Vec<Item<'a>>,
    pub usage: Option<&'a str>,
    pub model: &'a str,
    pub truncated: bool,
    pub recognised: bool,
}

impl<'a> Reader<'a, '_> {
    /// Read a whole text: JSON of any shape, a Python literal, or plain text.
    pub fn text(&mut self, text: &'a str, bump: &Bump, depth: usize) {
        let trimmed = text.trim();
        let structured = matches!(trimmed.as_bytes().first(), Some(b'{' | b'[' | b'"'));
        if !structured || depth > NESTING_MAX {
            return self.plain(text);
        }
        let outer = std::mem::replace(&mut self.keep, trimmed);
        if depth > 0 || trimmed.len() < text.len() {
            self.hash = None;
        }
        match parse(trimmed, bump) {
            Ok(Node::Str(inner)) if depth < 3 => {
                let inner = self.arena.alloc_str(&inner.plain());
                self.text(inner, bump, depth + 1);
            }
            Ok(node) => {
                let before = self.out.len();
                self.node(node, bump, depth);
                if self.out.len() == before && !self.recognised && !is_void(node) {
                    self.plain(text);
                }
            }
            Err(fault) => match python::to_json(trimmed) {
                Some(json) => {
                    let json = self.arena.alloc_str(&json);
                    self.text(json, bump, depth + 1);
                }
                None => {
                    self.truncated |= fault == Fault::Cut || text.ends_with(']') && text.contains("...[TRUNCATED");
                    self.plain(text);
                }
            },
        }
        self.keep = outer;
    }

    /// Text that is no message of any known shape: one text part under the role of its side.
    fn plain(&mut self, text: &'a str) {
        self.draft.clear();
        self.draft.text(Text::Plain(text));
        self.emit(Text::Same(self.side.role()), None, None);
        self.truncated |= text.contains("...[TRUNCATED: original length ");
    }

    pub fn node(&mut self, node: Node<'_>, bump: &Bump, depth: usize) {
        if depth > NESTING_MAX || self.full() {
            return;
        }
        match node {
            Node::Null | Node::Bool(_) | Node::Num(_) => {}
            Node::Str(text) => {
                self.draft.clear();
                self.draft.text(text);
                self.emit(Text::Same(self.side.role()), None, None);
            }
            Node::Arr(list) => self.list(list, bump, depth),
            Node::Obj(object) => self.object(object, bump, depth),
        }
    }

    fn full(&mut self) -> bool {
        let full = self.out.len() >= MESSAGES_MAX;
        self.truncated |= full;
        full
    }

    fn list(&mut self, list: List<'_>, bump: &Bump, depth: usize) {
        let items = list.items;
        // LangChain writes a message as a pair.
        if let [Node::Str(role), content @ Node::Str(_)] = items
            && let role = role.plain()
            && is_role(&role)
        {
            self.draft.clear();
            self.content(*content, &role, bump);
            self.recognised = true;
            return self.emit(Text::Plain(role_of(&role)), None, None);
        }
        let block = |node: &Node<'_>| node.obj().is_some_and(|object| !object.has("role") && is_block(&object));
        let output = self.side == Side::Output;
        let answer = |node: &Node<'_>| output && node.obj().is_some_and(|object| is_answer_item(&object));
        let mut at = 0;
        while at < items.len() {
            if self.full() {
                return;
            }
            if block(&items[at]) || answer(&items[at]) {
                // Blocks without a message around them, and the items of one answer of the Responses API.
                let end = at + items[at..].iter().take_while(|node| block(node) || answer(node)).count();
                self.draft.clear();
                for node in &items[at..end] {
                    match node.obj().filter(|object| object.has("role")) {
                        Some(message) => {
                            let content = message.get("content").unwrap_or(Node::Null);
                            self.draft.block(content, bump, 0);
                        }
                        None => self.draft.block(*node, bump, 0),
                    }
                }
                self.recognised = true;
                let role = if self.draft.only_results && self.draft.count > 0 { "tool" } else { self.side.role() };
                self.emit(Text::Same(role), None, None);
                at = end;
            } else {
                self.node(items[at], bump, depth + 1);
                at += 1;
            }
        }
    }

    #[allow(clippy::too_many_lines, reason = "one table of shapes, read top to bottom")]
    fn object(&mut self, object: Object<'_>, bump: &Bump, depth: usize) {
        // Semantic convention events, as attributes, log bodies or lists of them.
        if let Some(event) = object.text(&["event.name"]) {
            return self.event(object, &event.plain(), bump, depth);
        }
        self.note_usage(&object);
        // LangChain: serialised constructors and typed dictionaries.
        if let Some(kwargs) = object.get("kwargs").and_then(Node::obj)
            && object.has("lc")
        {
            let class = object
                .get("id")
                .and_then(Node::arr)
                .and_then(|id| id.last().copied())
                .and_then(Node::text)
                .map_or(Cow::Borrowed(""), Text::plain);
            if class.ends_with("Message") || class.ends_with("MessageChunk") {
                return self.message(kwargs, Some(&class), None, bump);
            }
            return self.wrapped(kwargs, bump, depth);
        }
        let kind = object.text(&["type"]).map_or(Cow::Borrowed(""), Text::plain);
        if let Some(data) = object.get("data").and_then(Node::obj)
            && is_role(&kind)
        {
            return self.message(data, Some(&kind), None, bump);
        }
        if object.text(&["role"]).is_some() {
            return self.message(object, None, None, bump);
        }
        if is_role(&kind) && object.has("content") {
            return self.message(object, Some(&kind), None, bump);
        }
        // A choice of the chat API, a candidate of Gemini, a generation of LangChain.
        let finish = finish_of(&object).or_else(|| {
            let info = object.get("generation_info").and_then(Node::obj)?;
            finish_of(&info)
        });
        if let Some(Node::Obj(message)) = object.get("message") {
            return self.inner_message(message, finish, bump, depth);
        }
        if let Some(Node::Obj(content)) = object.get("content")
            && (content.has("parts") || content.has("role"))
        {
            return self.message(content, None, finish, bump);
        }
        if let Some(text) = object.text(&["text"])
            && finish.is_some()
        {
            self.draft.clear();
            self.draft.text(text);
            self.recognised = true;
            return self.emit(Text::Same(self.side.role()), None, finish);
        }
        if is_item(&kind) || is_block(&object) {
            self.draft.clear();
            self.draft.block(Node::Obj(object), bump, 0);
            self.recognised = true;
            let role = match () {
                () if self.draft.has_call => "assistant",
                () if self.draft.only_results && self.draft.count > 0 => "tool",
                () if kind == "reasoning" || is_item(&kind) => "assistant",
                () => self.side.role(),
            };
            return self.emit(Text::Same(role), None, None);
        }
        if object.has("parts") || (object.has("content") && (object.has("tool_calls") || object.entries.len() == 1)) {
            return self.message(object, Some(self.side.role()), finish, bump);
        }
        if object.get("tool_calls").is_some_and(|calls| calls.arr().is_some()) {
            return self.message(object, Some("assistant"), finish, bump);
        }
        self.wrapped(object, bump, depth);
    }

    fn inner_message(&mut self, message: Object<'_>, finish: Option<Text<'_>>, bump: &Bump, depth: usize) {
        if message.has("lc") || message.has("data") {
            let before = self.out.len();
            self.object(message, bump, depth + 1);
            if let (Some(finish), Some(item)) = (finish, self.out.get_mut(before))
                && item.finish.is_empty()
            {
                item.finish = self.arena.alloc_str(&finish.plain());
            }
            return;
        }
        let role = message.text(&["role"]).is_none().then_some(self.side.role());
        self.message(message, role, finish, bump);
    }

    /// Requests and responses: follow the members that hold messages.
    fn wrapped(&mut self, object: Object<'_>, bump: &Bump, depth: usize) {
        if self.side != Side::Output {
            for key in INSTRUCTION_KEYS {
                if let Some(system) = object.any(&[key])
                    && (object.has("messages") || object.has("prompt") || object.has("input") || object.has("contents"))
                {
                    self.draft.clear();
                    self.content(system, "system", bump);
                    self.recognised = true;
                    self.emit(Text::Same("system"), None, None);
                    break;
                }
            }
        }
        for key in [
            "messages",
            "contents",
            "choices",
            "candidates",
            "generations",
            "replies",
            "message",
            "prompt",
            "prompts",
            "update",
            "data",
            "inputs",
            "outputs",
            "input",
            "output",
            "response",
            "result",
        ] {
            let Some(inner) = object.any(&[key]) else {
                continue;
            };
            if let Node::Str(text) = inner {
                // A request whose prompt is one string, or JSON inside JSON.
                if !matches!(key, "prompt" | "input" | "output" | "messages" | "message" | "response") {
                    continue;
                }
                self.recognised |= matches!(key, "prompt" | "input");
                let text = self.arena.alloc_str(&text.plain());
                return self.text(text, bump, depth + 1);
            }
            let before = self.out.len();
            self.node(inner, bump, depth + 1);
            if self.out.len() > before {
                return;
            }
        }
    }

    fn event(&mut self, object: Object<'_>, name: &str, bump: &Bump, depth: usize) {
        let choice = matches!(name, "gen_ai.choice" | "gen_ai.content.completion");
        match self.side {
            Side::Input if choice => return,
            Side::Choices if !choice => return,
            Side::System if name != "gen_ai.system.message" => return,
            _ => {}
        }
        let role = match name {
            "gen_ai.system.message" => "system",
            "gen_ai.assistant.message" => "assistant",
            "gen_ai.tool.message" => "tool",
            _ if choice => "assistant",
            _ => "user",
        };
        let finish = finish_of(&object);
        self.recognised = true;
        // .NET keeps the whole body as JSON text in one attribute; so do the oldest events with the prompt.
        if let Some(body) = object.text(&["gen_ai.event.content", "gen_ai.prompt", "gen_ai.completion"]) {
            let text: &'a str = self.arena.alloc_str(&body.plain());
            return match parse(text, bump) {
                Ok(Node::Obj(inner)) if !inner.has("event.name") => match inner.get("message").and_then(Node::obj) {
                    Some(message) => self.message(message, Some(role), finish_of(&inner).or(finish), bump),
                    None => {
                        let stated = inner.text(&["role"]).is_none().then_some(role);
                        self.message(inner, stated, finish_of(&inner).or(finish), bump);
                    }
                },
                Ok(node @ Node::Arr(_)) => self.node(node, bump, depth + 1),
                _ => {
                    self.draft.clear();
                    self.draft.text(Text::Plain(text));
                    self.emit(Text::Same(role), None, finish);
                }
            };
        }
        match object.get("message") {
            Some(Node::Obj(message)) => self.message(message, Some(role), finish, bump),
            Some(content @ (Node::Str(_) | Node::Arr(_))) => {
                if let Node::Str(text) = content
                    && text.head(1) == "{"
                    && let Ok(Node::Obj(message)) = parse(bump.alloc_str(&text.plain()), bump)
                    && ["content", "tool_calls", "parts"].iter().any(|key| message.has(key))
                {
                    return self.message(message, Some(role), finish, bump);
                }
                self.draft.clear();
                self.content(content, role, bump);
                self.emit(Text::Same(role), None, finish);
            }
            _ => {
                let stated = object.text(&["role"]).is_none().then_some(role);
                self.message(object, stated, finish, bump);
            }
        }
    }

    /// A message under any spelling of its members.
    fn message(&mut self, object: Object<'_>, role: Option<&str>, finish: Option<Text<'_>>, bump: &Bump) {
        self.recognised = true;
        self.note_usage(&object);
        let finish = finish.or_else(|| finish_of(&object)).or_else(|| {
            ["response_metadata", "meta"].iter().find_map(|key| {
                let meta = object.get(key).and_then(Node::obj)?;
                finish_of(&meta)
            })
        });
        let stated = object.text(&["role"]).map_or(Cow::Borrowed(""), Text::plain);
        let role = role.filter(|role| !role.is_empty()).unwrap_or(&stated);
        let canonical = match role_of(role) {
            // Gemini CLI logs the model's answers under this role.
            "system" if self.side == Side::Output => "assistant",
            role => role,
        };
        if stated == canonical
            && let Some(parts) = object.get("parts").and_then(Node::arr)
            && Node::Obj(object).is_clean()
            && matches!(object.get("name"), None | Some(Node::Null | Node::Str(_)))
            && !["content", "tool_calls"].iter().any(|key| object.any(&[key]).is_some())
            && parts.iter().all(|part| may_stay(*part))
        {
            return self.emit_as_is(object, parts, canonical, finish, bump);
        }
        self.draft.clear();
        if let Some(thoughts) = object.text(&["reasoning_content", "reasoning", "thinking"])
            && !thoughts.is_empty()
        {
            self.draft.reasoning(thoughts);
        }
        for key in ["content", "contents", "parts"] {
            if let Some(content) = object.any(&[key]) {
                let before = self.draft.count;
                self.content_of(object, content, canonical, bump);
                if self.draft.count > before && key == "content" && object.has("parts") {
                    break;
                }
            }
        }
        if let Some(refusal) = object.text(&["refusal"]).filter(|text| !text.is_empty()) {
            self.draft.parts.push_str(if self.draft.count > 0 { "," } else { "" });
            self.draft.count += 1;
            self.draft.only_results = false;
            self.draft.parts.push_str("{\"type\":\"refusal\",\"content\":");
            refusal.write(&mut self.draft.parts);
            self.draft.parts.push('}');
        }
        self.calls(object, bump);
        let role = match canonical {
            // Anthropic, Gemini and Bedrock hand results back as the user.
            "user" | "assistant" if self.draft.only_results && self.draft.count > 0 => "tool",
            _ => canonical,
        };
        let name = object.text(&["name"]).filter(|name| !name.is_empty() && role != "tool");
        self.emit(Text::Plain(role), name, finish);
    }

    /// The content of a message whose other members may matter: a tool message is a result as a whole.
    fn content_of(&mut self, object: Object<'_>, content: Node<'_>, role: &str, bump: &Bump) {
        let id = object.text(&["tool_call_id", "toolCallId", "call_id", "id", "tool_use_id"]);
        let blocks = match content {
            Node::Arr(list) => list
                .items
                .iter()
                .any(|item| item.obj().is_some_and(|object| is_result(&object) || object.has("message_content"))),
            Node::Obj(inner) => is_result(&inner),
            Node::Str(text) => {
                let head = text.head(64);
                head.starts_with("[{") && RESULT_KEYS.iter().any(|key| head.contains(key))
            }
            _ => false,
        };
        if role == "tool" && !blocks {
            self.draft.note_status(object);
            return self.draft.response(id, content);
        }
        self.content(content, role, bump);
    }

    fn content(&mut self, content: Node<'_>, role: &str, bump: &Bump) {
        match content {
            Node::Str(text) => {
                // Blocks as JSON text: flattened attributes and span events cannot hold lists.
                let start = text.head(2);
                if matches!(start.as_ref(), "[{" | "{\"")
                    && let inner = bump.alloc_str(&text.plain())
                    && let Ok(node) = parse(inner, bump)
                    && is_blocks(node)
                {
                    return self.draft.block(node, bump, 0);
                }
                self.draft.text(text);
            }
            Node::Obj(inner) if inner.has("parts") => {
                self.draft.block(inner.get("parts").unwrap_or(Node::Null), bump, 0);
            }
            Node::Arr(list) if role == "system" || list.items.iter().any(|item| item.obj().is_some()) => {
                self.draft.block(content, bump, 0);
            }
            _ => self.draft.block(content, bump, 0),
        }
    }

    fn calls(&mut self, object: Object<'_>, bump: &Bump) {
        let more = object.get("additional_kwargs").and_then(Node::obj);
        for key in ["tool_calls", "toolCalls", "tool_requests"] {
            let calls = match object.any(&[key]) {
                Some(Node::Arr(list)) if !list.items.is_empty() => list.items,
                Some(Node::Str(text)) if text.head(1) == "[" => {
                    let text = bump.alloc_str(&text.plain());
                    match parse(text, bump) {
                        Ok(Node::Arr(list)) => list.items,
                        _ => continue,
                    }
                }
                _ => match more.and_then(|more| more.get(key)).and_then(Node::arr) {
                    Some(calls) => calls,
                    None => continue,
                },
            };
            self.drop_empty_text();
            for call in calls {
                if let Some(call) = call.obj() {
                    let call = call.get("tool_call").and_then(Node::obj).unwrap_or(call);
                    self.draft.tool_call(call, bump);
                }
            }
        }
        if let Some(call) = object.get("function_call").and_then(Node::obj) {
            self.drop_empty_text();
            self.draft.tool_call(call, bump);
        }
        if let Some(name) = object.text(&["function_call_name"]) {
            self.drop_empty_text();
            let arguments = object.get("function_call_arguments_json");
            self.draft.call(None, Some(name), arguments, bump);
        }
    }

    /// Producers write empty content beside tool calls: it is no part.
    fn drop_empty_text(&mut self) {
        if self.draft.count == 1 && self.draft.parts == "{\"type\":\"text\",\"content\":\"\"}" {
            self.draft.parts.clear();
            self.draft.count = 0;
        }
    }

    fn emit_as_is(
        &mut self,
        object: Object<'_>,
        parts: &[Node<'_>],
        role: &str,
        finish: Option<Text<'_>>,
        bump: &Bump,
    ) {
        self.draft.clear();
        for part in parts {
            self.draft.note(*part, bump);
        }
        let mut json = String::new();
        let node = Node::Obj(object);
        let json = match node.raw().and_then(|raw| kept(self.keep, raw)) {
            Some(raw) => raw,
            None => {
                node.write(&mut json);
                self.arena.alloc_str(&json)
            }
        };
        let known = self.hash.filter(|_| std::ptr::eq(json, self.keep));
        self.push(json, known, role, finish);
    }

    fn emit(&mut self, role: Text<'_>, name: Option<Text<'_>>, finish: Option<Text<'_>>) {
        let mut head = String::with_capacity(64);
        role.write(&mut head);
        let mut tail = String::new();
        if let Some(name) = name {
            tail.push_str(",\"name\":");
            name.write(&mut tail);
        }
        tail.push('}');
        let pieces = ["{\"role\":", &head, ",\"parts\":[", &self.draft.parts, "]", &tail];
        let bytes = pieces.iter().map(|piece| piece.len()).sum();
        let mut json = BumpString::with_capacity_in(bytes, self.arena);
        pieces.iter().for_each(|piece| json.push_str(piece));
        let role = role.plain();
        self.push(json.into_bump_str(), None, &role, finish);
    }

    fn push(&mut self, json: &'a str, known: Option<u128>, role: &str, finish: Option<Text<'_>>) {
        let arena = self.arena;
        let copy = |text: &str| if text.is_empty() { "" } else { &*arena.alloc_str(text) };
        self.truncated |= self.draft.truncated;
        self.out.push(Item {
            json,
            hash: known.unwrap_or_else(|| hash(json)),
            role: match role {
                "user" => "user",
                "assistant" => "assistant",
                "system" => "system",
                "tool" => "tool",
                other => copy(other),
            },
            text: copy(&self.draft.text),
            call: copy(&self.draft.call),
            has_call: self.draft.has_call,
            result: copy(&self.draft.result),
            finish: finish.map_or("", |finish| copy(head(&finish.plain(), 64))),
            empty: self.draft.count == 0,
        });
    }

    /// A usage object, and the model it belongs to, wherever responses keep them.
    fn note_usage(&mut self, object: &Object<'_>) {
        if self.side == Side::Input || self.usage.is_some() {
            return;
        }
        let nested =
            ["response_metadata", "meta", "llm_output"].iter().find_map(|key| object.get(key).and_then(Node::obj));
        for place in [Some(*object), nested].into_iter().flatten() {
            let usage = place.any(&["usage", "usage_metadata", "usageMetadata", "token_usage"]);
            if let Some(usage @ Node::Obj(_)) = usage {
                let mut json = String::new();
                usage.write(&mut json);
                self.usage = Some(self.arena.alloc_str(&json));
                let model = place.text(&["model", "model_name", "modelVersion", "model_version"]);
                let model = model.or_else(|| object.text(&["model", "model_name", "modelVersion"]));
                self.model = model.map_or("", |model| self.arena.alloc_str(&model.head(256)));
                return;
            }
        }
    }
}

/// Items that together are one answer of the Responses API.
fn is_answer_item(object: &Object<'_>) -> bool {
    match object.text(&["type"]).map(Text::plain).as_deref() {
        Some("message") => {
            object.text(&["role"]).is_some_and(|role| role.plain() == "assistant") && !object.has("parts")
        }
        Some("reasoning") => !object.has("role"),
        Some("function_call_output") | None => false,
        Some(kind) => is_item(kind),
    }
}

const RESULT_KEYS: [&str; 6] =
    ["toolResult", "tool_result", "tool-result", "functionResponse", "tool_call_response", "tool_call_result"];

fn is_result(object: &Object<'_>) -> bool {
    RESULT_KEYS.iter().any(|key| object.has(key))
        || object.has("function_response")
        || object.has("toolResponse")
        || (object.has("result") && object.has("origin"))
        || object.text(&["type"]).is_some_and(|kind| {
            let kind = kind.plain();
            RESULT_KEYS.contains(&kind.as_ref()) || kind == "tool_call"
        })
}

fn is_blocks(node: Node<'_>) -> bool {
    match node {
        Node::Obj(object) => is_block(&object),
        Node::Arr(list) => {
            !list.items.is_empty() && list.items.iter().all(|item| item.obj().is_some_and(|o| is_block(&o)))
        }
        _ => false,
    }
}

/// Nothing was captured: not even worth a text part.
fn is_void(node: Node<'_>) -> bool {
    match node {
        Node::Null => true,
        Node::Arr(list) => list.items.iter().all(|item| is_void(*item)),
        Node::Obj(object) => object.entries.iter().all(|(_, value)| is_void(*value)),
        _ => false,
    }
}

fn finish_of<'t>(object: &Object<'t>) -> Option<Text<'t>> {
    object.text(&["finish_reason", "finishReason", "stop_reason", "stopReason"]).filter(|reason| !reason.is_empty())
}

fn is_role(text: &str) -> bool {
    matches!(role_of(text), "user" | "assistant" | "system" | "tool" | "developer")
}

/// The canonical role for a provider's or framework's.
pub fn role_of(role: &str) -> &str {
    match role {
        "user" | "human" | "USER" | "HumanMessage" | "HumanMessageChunk" | "User" | "MessageRole.USER"
        | "ChatRole.USER" | "AuthorRole.USER" => "user",
        "assistant"
        | "ai"
        | "model"
        | "AIMessage"
        | "AIMessageChunk"
        | "ASSISTANT"
        | "CHATBOT"
        | "chatbot"
        | "bot"
        | "Assistant"
        | "MessageRole.ASSISTANT"
        | "ChatRole.ASSISTANT"
        | "AuthorRole.ASSISTANT" => "assistant",
        "system" | "SystemMessage" | "SystemMessageChunk" | "SYSTEM" | "System" | "MessageRole.SYSTEM"
        | "ChatRole.SYSTEM" | "AuthorRole.SYSTEM" => "system",
        "tool"
        | "function"
        | "ToolMessage"
        | "ToolMessageChunk"
        | "FunctionMessage"
        | "TOOL"
        | "Tool"
        | "MessageRole.TOOL"
        | "ChatRole.TOOL"
        | "AuthorRole.TOOL"
        | "MessageRole.FUNCTION" => "tool",
        // smolagents
        "tool-call" => "assistant",
        "tool-response" => "tool",
        "DEVELOPER" => "developer",
        other => other,
    }
}

/// `raw` as a slice of `text`, if that is where it lies.
pub fn kept<'a>(text: &'a str, raw: &str) -> Option<&'a str> {
    let start = (raw.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
    text.get(start..start.checked_add(raw.len())?)
}
