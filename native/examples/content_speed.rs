//! How fast chat content is canonicalised: agent traces of 70 model calls whose histories grow with every call, about
//! 4 MB of which 70 % recurs. Prints MB/s of attribute bytes by the shape of the source.
//!
//! `cargo run --release --example content_speed`

use std::time::Instant;

use _native::messages::{ContentPlan, ContentRow, Memo, Source, collect};
use _native::view::{Attr, Value};
use bumpalo::Bump;

const AGENTS: usize = 10;
const CALLS: usize = 7;
const ROUNDS: usize = 30;

fn prose(seed: usize, bytes: usize) -> String {
    let mut state = seed as u64 * 2_654_435_761 + 1;
    let mut text = String::with_capacity(bytes + 16);
    while text.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let word = state >> 40;
        text.push_str(&format!("{word:x}"));
        text.push(if word.is_multiple_of(11) { '\n' } else { ' ' });
        if word.is_multiple_of(37) {
            text.push_str("\"quoted\" ");
        }
    }
    text
}

/// (role, text, tool call) of one turn.
fn turn(agent: usize, call: usize) -> [(&'static str, String); 3] {
    let seed = agent * 100 + call;
    [("user", prose(seed, 1500)), ("assistant", prose(seed + 1000, 2500)), ("tool", prose(seed + 2000, 9500))]
}

fn message(shape: &str, id: usize, role: &str, text: &str) -> serde_json::Value {
    use serde_json::json;
    match (shape, role) {
        ("canonical", "tool") => {
            json!({"role": role, "parts": [{"type": "tool_call_response", "id": format!("c{id}"), "response": text}]})
        }
        ("canonical", "assistant") => json!({"role": role, "parts": [{"type": "text", "content": text},
            {"type": "tool_call", "id": format!("c{id}"), "name": "search", "arguments": {"query": "x"}}]}),
        ("canonical", _) => json!({"role": role, "parts": [{"type": "text", "content": text}]}),
        (_, "tool") => json!({"role": role, "tool_call_id": format!("c{id}"), "content": text}),
        (_, "assistant") => json!({"role": role, "content": text, "tool_calls": [{"id": format!("c{id}"),
            "type": "function", "function": {"name": "search", "arguments": "{\"query\": \"x\"}"}}]}),
        _ => json!({"role": role, "content": text}),
    }
}

/// Attributes of each span.
fn spans(shape: &str) -> Vec<Vec<(String, String)>> {
    let mut spans = Vec::new();
    for agent in 0..AGENTS {
        let mut history = vec![("system", prose(agent, 2000))];
        for call in 0..CALLS {
            history.extend(turn(agent, call));
            let mut attrs = Vec::new();
            if shape == "flattened" {
                for (index, (role, text)) in history.iter().enumerate() {
                    let key = format!("llm.input_messages.{index}.message");
                    attrs.push((format!("{key}.role"), (*role).to_owned()));
                    attrs.push((format!("{key}.content"), text.clone()));
                }
            } else {
                let messages: Vec<_> =
                    history.iter().enumerate().map(|(id, (role, text))| message(shape, id, role, text)).collect();
                let text = serde_json::to_string(&messages).unwrap();
                let text = if shape == "request" { format!("{{\"model\":\"m\",\"messages\":{text}}}") } else { text };
                attrs.push(("gen_ai.input.messages".to_owned(), text));
            }
            spans.push(attrs);
        }
    }
    spans
}

fn main() {
    let row = |to: &str, from: &str| ContentRow { to: to.into(), from: vec![from.into()], ..ContentRow::default() };
    let plan = ContentPlan::new(&[
        row("gen_ai.input.messages", "llm.input_messages.*"),
        row("gen_ai.input.messages", "gen_ai.input.messages"),
        row("gen_ai.output.messages", "gen_ai.output.messages"),
    ])
    .unwrap();
    for shape in ["canonical", "openai", "request", "flattened"] {
        let spans = spans(shape);
        let bytes: usize = spans.iter().flatten().map(|(key, text)| key.len() + text.len()).sum();
        let mut best = f64::MAX;
        let mut items = 0;
        for _ in 0..ROUNDS {
            let arena = Bump::new();
            let mut memo = Memo::default();
            items = 0;
            let start = Instant::now();
            for span in &spans {
                let attrs: Vec<Attr<'_>> =
                    span.iter().map(|(key, text)| Attr { key, value: Value::Str(text) }).collect();
                let source = Source { attrs: &attrs, events: &[], event_name: "", body: Value::Empty };
                items += collect(&plan, "llm", &source, &mut memo, &arena).items.len();
            }
            best = best.min(start.elapsed().as_secs_f64());
        }
        let speed = bytes as f64 / best / 1e6;
        println!("{shape:<10} {:>5.1} MB {items:>5} items {speed:>6.0} MB/s", bytes as f64 / 1e6);
    }
}
