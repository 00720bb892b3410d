//! Source → canonical JSON, a table a shape.

use bumpalo::Bump;

use super::*;
use crate::view::Form;

/// Collect with rows given as (to, from, as).
fn rows(rows: &[(&str, &[&str], &str)]) -> ContentPlan {
    let rows: Vec<ContentRow> = rows
        .iter()
        .map(|(to, from, shape)| ContentRow {
            to: (*to).into(),
            from: from.iter().map(|from| (*from).into()).collect(),
            shape: (*shape).into(),
            ..ContentRow::default()
        })
        .collect();
    ContentPlan::new(&rows).unwrap()
}

struct Got {
    values: Vec<(String, String)>,
    input: String,
    output: String,
    finish: Vec<String>,
    usage: String,
    model: String,
    status: &'static str,
    calls: bool,
    truncated: Vec<String>,
}

fn got(plan: &ContentPlan, kind: &str, attrs: &[(&str, Value<'_>)], events: &[(&str, &[(&str, &str)])]) -> Got {
    let attrs: Vec<Attr<'_>> = attrs.iter().map(|(key, value)| Attr { key, value: *value }).collect();
    let events: Vec<EventView<'_>> = events
        .iter()
        .map(|(name, attrs)| EventView {
            time_unix_nano: 0,
            name,
            attrs: attrs.iter().map(|(key, text)| Attr { key, value: Value::Str(text) }).collect(),
        })
        .collect();
    let source = Source { attrs: &attrs, events: &events, event_name: "", body: Value::Empty };
    let arena = Bump::new();
    let mut memo = Memo::default();
    let first = collect(plan, kind, &source, &mut memo, &arena);
    let again = collect(plan, kind, &source, &mut memo, &arena);
    assert_eq!(first, again, "what was remembered differs from what was read");
    for item in &first.items {
        assert_eq!(item.hash, crate::content::hash(&item.value));
        if item.form == Form::Item {
            serde_json::from_str::<serde_json::Value>(&item.value).expect("an item is JSON");
        }
    }
    Got {
        values: first.items.iter().map(|item| (item.key.to_owned(), item.value.to_string())).collect(),
        input: first.input_preview.into(),
        output: first.output_preview.into(),
        finish: first.hints.finish_reasons.iter().map(|&r| r.into()).collect(),
        usage: first.hints.usage.unwrap_or("").into(),
        model: first.hints.model.into(),
        status: first.hints.tool_status,
        calls: first.hints.output_has_tool_calls,
        truncated: first.truncated.iter().map(|&t| t.into()).collect(),
    }
}

/// Messages read from the JSON or other text `source` on one side.
fn read(to: &str, source: &str) -> Got {
    got(&rows(&[(to, &["k"], "")]), "llm", &[("k", Value::Str(source))], &[])
}

fn values(got: &Got) -> Vec<&str> {
    got.values.iter().map(|(_, value)| value.as_str()).collect()
}

const IN: &str = "gen_ai.input.messages";
const OUT: &str = "gen_ai.output.messages";

const ASKED: &str = r#"{"role":"user","parts":[{"type":"text","content":"What is the weather in Paris?"}]}"#;
const CALLED: &str = r#"{"role":"assistant","parts":[{"type":"tool_call","id":"c1","name":"get_weather","arguments":{"city":"Paris"}}]}"#;
const ANSWERED: &str = r#"{"role":"tool","parts":[{"type":"tool_call_response","id":"c1","response":"18C"}]}"#;

/// The same three turns in every dialect's own shape.
#[test]
fn every_shape_of_one_conversation_gives_the_same_messages() {
    let shapes: &[(&str, &str)] = &[
        (
            "OpenAI chat",
            r#"[{"role":"user","content":"What is the weather in Paris?"},
                {"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"get_weather","arguments":"{\"city\":\"Paris\"}"}}]},
                {"role":"tool","tool_call_id":"c1","content":"18C"}]"#,
        ),
        (
            "OpenAI chat request",
            r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"What is the weather in Paris?"}]},{"role":"assistant","content":"","tool_calls":[{"id":"c1","type":"function","function":{"name":"get_weather","arguments":"{\"city\":\"Paris\"}"}}]},{"role":"tool","tool_call_id":"c1","content":"18C"}],"tools":[]}"#,
        ),
        (
            "OpenAI responses",
            r#"[{"content":"What is the weather in Paris?","role":"user"},{"arguments":"{\"city\":\"Paris\"}","call_id":"c1","name":"get_weather","type":"function_call","id":"fc_1","status":"completed"},{"call_id":"c1","output":"18C","type":"function_call_output"}]"#,
        ),
        (
            "Anthropic",
            r#"{"messages":[{"role":"user","content":"What is the weather in Paris?"},{"role":"assistant","content":[{"type":"tool_use","id":"c1","name":"get_weather","input":{"city":"Paris"}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"c1","content":"18C"}]}]}"#,
        ),
        (
            "Gemini",
            r#"{"contents":[{"role":"user","parts":[{"text":"What is the weather in Paris?"}]},{"role":"model","parts":[{"functionCall":{"id":"c1","name":"get_weather","args":{"city":"Paris"}}}]},{"role":"user","parts":[{"functionResponse":{"id":"c1","name":"get_weather","response":"18C"}}]}]}"#,
        ),
        (
            "Bedrock",
            r#"[{"role":"user","content":[{"text":"What is the weather in Paris?"}]},{"role":"assistant","content":[{"toolUse":{"toolUseId":"c1","name":"get_weather","input":{"city":"Paris"}}}]},{"role":"user","content":[{"toolResult":{"toolUseId":"c1","status":"success","content":"18C"}}]}]"#,
        ),
        (
            "AI SDK 4",
            r#"[{"role":"user","content":[{"type":"text","text":"What is the weather in Paris?"}]},{"role":"assistant","content":[{"type":"tool-call","toolCallId":"c1","toolName":"get_weather","args":{"city":"Paris"}}]},{"role":"tool","content":[{"type":"tool-result","toolCallId":"c1","toolName":"get_weather","result":"18C"}]}]"#,
        ),
        (
            "AI SDK 6",
            r#"{"messages":[{"role":"user","content":"What is the weather in Paris?"},{"role":"assistant","content":[{"type":"tool-call","toolCallId":"c1","toolName":"get_weather","input":"{\"city\":\"Paris\"}"}]},{"role":"tool","content":[{"type":"tool-result","toolCallId":"c1","toolName":"get_weather","output":{"type":"text","value":"18C"}}]}]}"#,
        ),
        (
            "LangChain constructors",
            r#"{"messages":[[{"lc":1,"type":"constructor","id":["langchain","schema","messages","HumanMessage"],"kwargs":{"content":"What is the weather in Paris?","type":"human"}},{"lc":1,"type":"constructor","id":["langchain","schema","messages","AIMessage"],"kwargs":{"content":"","tool_calls":[{"name":"get_weather","args":{"city":"Paris"},"id":"c1","type":"tool_call"}]}},{"lc":1,"type":"constructor","id":["langchain","schema","messages","ToolMessage"],"kwargs":{"content":"18C","tool_call_id":"c1","name":"get_weather","status":"success"}}]]}"#,
        ),
        (
            "LangChain dictionaries",
            r#"{"messages":[{"type":"human","data":{"content":"What is the weather in Paris?","type":"human"}},{"type":"ai","data":{"content":"","tool_calls":[{"name":"get_weather","args":{"city":"Paris"},"id":"c1"}],"type":"ai"}},{"type":"tool","data":{"content":"18C","tool_call_id":"c1","type":"tool"}}]}"#,
        ),
        (
            "LangChain flat",
            r#"[{"type":"human","content":"What is the weather in Paris?","additional_kwargs":{}},{"type":"ai","content":"","additional_kwargs":{"tool_calls":[{"id":"c1","function":{"name":"get_weather","arguments":"{\"city\": \"Paris\"}"}}]}},{"type":"tool","content":"18C","tool_call_id":"c1"}]"#,
        ),
        (
            "Haystack",
            r#"{"messages":[{"role":"user","meta":{},"name":null,"content":[{"text":"What is the weather in Paris?"}]},{"role":"assistant","content":[{"tool_call":{"tool_name":"get_weather","arguments":{"city":"Paris"},"id":"c1"}}]},{"role":"tool","content":[{"tool_call_result":{"result":"18C","origin":{"tool_name":"get_weather","arguments":{},"id":"c1"},"error":false}}]}]}"#,
        ),
        (
            "Genkit",
            r#"{"messages":[{"role":"user","content":[{"text":"What is the weather in Paris?"}]},{"role":"model","content":[{"toolRequest":{"ref":"c1","name":"get_weather","input":{"city":"Paris"}}}]},{"role":"tool","content":[{"toolResponse":{"ref":"c1","name":"get_weather","output":"18C"}}]}]}"#,
        ),
        (
            "convention, older key",
            r#"[{"role":"user","parts":[{"type":"text","content":"What is the weather in Paris?"}]},{"role":"assistant","parts":[{"type":"tool_call","id":"c1","name":"get_weather","arguments":"{\"city\":\"Paris\"}"}]},{"role":"tool","parts":[{"type":"tool_call_response","id":"c1","result":"18C"}]}]"#,
        ),
        (
            "Pydantic AI events",
            r#"[{"content":"What is the weather in Paris?","role":"user","event.name":"gen_ai.user.message"},{"role":"assistant","tool_calls":[{"id":"c1","type":"function","function":{"name":"get_weather","arguments":{"city":"Paris"}}}],"event.name":"gen_ai.assistant.message"},{"content":"18C","role":"tool","id":"c1","event.name":"gen_ai.tool.message"}]"#,
        ),
        (
            "Python literals",
            r#"[{'role': 'user', 'content': 'What is the weather in Paris?'}, {'role': 'assistant', 'content': None, 'tool_calls': [{'id': 'c1', 'type': 'function', 'function': {'name': 'get_weather', 'arguments': '{"city": "Paris"}'}}]}, {'role': 'tool', 'tool_call_id': 'c1', 'content': '18C'}]"#,
        ),
    ];
    for (name, source) in shapes {
        let got = read(IN, source);
        let same: Vec<serde_json::Value> =
            values(&got).iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        let wanted: Vec<serde_json::Value> =
            [ASKED, CALLED, ANSWERED].iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        assert_eq!(same, wanted, "{name}");
        assert_eq!(got.input, "What is the weather in Paris?", "{name}");
        assert!(got.truncated.is_empty(), "{name}");
    }
}

#[test]
fn responses_give_one_message_a_choice_with_finish_reason_usage_and_model() {
    let shapes: &[(&str, &str, &str, &str)] = &[
        (
            "OpenAI chat",
            r#"{"id":"x","model":"m-1","choices":[{"finish_reason":"tool_calls","index":0,"message":{"role":"assistant","content":null,"refusal":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"get_weather","arguments":"{\"city\":\"Paris\"}"}}]}}],"usage":{"prompt_tokens":1}}"#,
            "tool_calls",
            r#"{"prompt_tokens":1}"#,
        ),
        (
            "Anthropic",
            r#"{"id":"x","model":"m-1","role":"assistant","type":"message","content":[{"type":"tool_use","id":"c1","name":"get_weather","input":{"city":"Paris"},"caller":null}],"stop_reason":"tool_use","usage":{"input_tokens":1}}"#,
            "tool_use",
            r#"{"input_tokens":1}"#,
        ),
        (
            "Gemini",
            r#"[{"candidates":[{"content":{"role":"model","parts":[{"functionCall":{"id":"c1","name":"get_weather","args":{"city":"Paris"}}}]},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":1},"modelVersion":"m-1"}]"#,
            "STOP",
            r#"{"promptTokenCount":1}"#,
        ),
        (
            "Google ADK",
            r#"{"content":{"role":"model","parts":[{"function_call":{"id":"c1","name":"get_weather","args":{"city":"Paris"}}}]},"finish_reason":"STOP","usage_metadata":{"prompt_token_count":1},"model_version":"m-1"}"#,
            "STOP",
            r#"{"prompt_token_count":1}"#,
        ),
        (
            "Haystack",
            r#"{"replies":[{"role":"assistant","meta":{"model":"m-1","finish_reason":"tool_calls","usage":{"prompt_tokens":1}},"name":null,"content":[{"tool_call":{"tool_name":"get_weather","arguments":{"city":"Paris"},"id":"c1","extra":null}}]}]}"#,
            "tool_calls",
            r#"{"prompt_tokens":1}"#,
        ),
        (
            "LangChain",
            r#"{"generations":[[{"text":"","generation_info":{"finish_reason":"tool_calls"},"message":{"lc":1,"type":"constructor","id":["langchain","schema","messages","AIMessage"],"kwargs":{"content":"","tool_calls":[{"name":"get_weather","args":{"city":"Paris"},"id":"c1"}],"response_metadata":{"token_usage":{"prompt_tokens":1},"model_name":"m-1"}}}}]]}"#,
            "tool_calls",
            r#"{"prompt_tokens":1}"#,
        ),
        (
            "Responses API",
            r#"{"id":"x","model":"m-1","object":"response","output":[{"type":"reasoning","id":"rs","summary":[]},{"type":"function_call","call_id":"c1","name":"get_weather","arguments":"{\"city\":\"Paris\"}","id":"fc"}],"usage":{"input_tokens":1}}"#,
            "",
            r#"{"input_tokens":1}"#,
        ),
    ];
    for (name, source, finish, usage) in shapes {
        let got = read(OUT, source);
        assert_eq!(values(&got), [CALLED], "{name}");
        assert_eq!(got.finish.join(","), *finish, "{name}");
        assert_eq!((got.usage.as_str(), got.model.as_str()), (*usage, "m-1"), "{name}");
        assert!(got.calls, "{name}");
        assert_eq!(got.output, r#"get_weather({"city":"Paris"})"#, "{name}");
    }
}

#[test]
fn a_canonical_message_is_passed_through_byte_by_byte() {
    for message in [
        r#"{"role": "user",  "parts": [{"content": "a\u00e9", "type": "text"}], "name": null}"#,
        r#"{"parts":[{"type":"tool_call","name":"f","id":null,"arguments":{"b":1,"a":[ ]}}],"role":"assistant","finish_reason":"tool_call"}"#,
        r#"{"role":"developer","parts":[{"type":"my_own","x":1},{"type":"blob","modality":"image","content":"aGk="}]}"#,
    ] {
        assert_eq!(values(&read(IN, &format!("[{message}]"))), [message]);
    }
}

#[test]
fn a_long_history_is_read_like_a_short_one_and_shares_its_elements_with_the_source() {
    let long = "x".repeat(2000);
    let source = format!(
        r#"[{{"role": "user", "parts": [{{"type": "text", "content": "{long}"}}]}}, {{"role":"assistant","content":"ok"}}]"#
    );
    let got = read(IN, &source);
    assert!(source.contains(values(&got)[0]));
    assert_eq!(values(&got)[1], r#"{"role":"assistant","parts":[{"type":"text","content":"ok"}]}"#);
    let request = format!(r#"{{"system": "be brief", "messages": {source}, "tools": []}}"#);
    let got = read(IN, &request);
    assert_eq!(values(&got)[0], r#"{"role":"system","parts":[{"type":"text","content":"be brief"}]}"#);
    assert_eq!(got.values.len(), 3);
}

#[test]
fn content_blocks_become_parts() {
    for (block, part) in [
        (r#"{"type":"input_text","text":"a"}"#, r#"{"type":"text","content":"a"}"#),
        (r#"{"type":"thinking","thinking":"hm","signature":"s"}"#, r#"{"type":"reasoning","content":"hm"}"#),
        (r#"{"text":"hm","thought":true}"#, r#"{"type":"reasoning","content":"hm"}"#),
        (r#"{"reasoningContent":{"reasoningText":{"text":"hm"}}}"#, r#"{"type":"reasoning","content":"hm"}"#),
        (
            r#"{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBO"}}"#,
            r#"{"type":"blob","modality":"image","mime_type":"image/png","content":"iVBO"}"#,
        ),
        (
            r#"{"type":"image_url","image_url":{"url":"https://x/y.jpg"}}"#,
            r#"{"type":"uri","modality":"image","uri":"https://x/y.jpg"}"#,
        ),
        (
            r#"{"type":"image","source":{"type":"base64","media_type":"image/webp","data":"AAAA"}}"#,
            r#"{"type":"blob","modality":"image","mime_type":"image/webp","content":"AAAA"}"#,
        ),
        (
            r#"{"type":"input_audio","input_audio":{"data":"UklG","format":"wav"}}"#,
            r#"{"type":"blob","modality":"audio","mime_type":"audio/wav","content":"UklG"}"#,
        ),
        (
            r#"{"inlineData":{"mimeType":"application/pdf","data":"JVBE"}}"#,
            r#"{"type":"blob","modality":"document","mime_type":"application/pdf","content":"JVBE"}"#,
        ),
        (
            r#"{"fileData":{"mimeType":"video/mp4","fileUri":"gs://b/v.mp4"}}"#,
            r#"{"type":"uri","modality":"video","mime_type":"video/mp4","uri":"gs://b/v.mp4"}"#,
        ),
        (
            r#"{"type":"file","file":{"file_id":"file-1"}}"#,
            r#"{"type":"file","modality":"document","file_id":"file-1"}"#,
        ),
        (
            r#"{"image":{"format":"png","source":{"bytes":"iVBO"}}}"#,
            r#"{"type":"blob","modality":"image","mime_type":"image/png","content":"iVBO"}"#,
        ),
        (
            r#"{"type":"server_tool_use","id":"s1","name":"web_search","input":{"q":"x"}}"#,
            r#"{"type":"server_tool_call","id":"s1","name":"web_search","server_tool_call":{"type":"server_tool_use","id":"s1","name":"web_search","input":{"q":"x"}}}"#,
        ),
        (r#"{"type":"redacted_thinking","data":"x"}"#, r#"{"type":"redacted_thinking","data":"x"}"#),
        (r#"{"nobody":"knows"}"#, r#"{"type":"generic","content":{"nobody":"knows"}}"#),
    ] {
        let source = format!(r#"[{{"role":"user","content":[{block}]}}]"#);
        let wanted = format!(r#"{{"role":"user","parts":[{part}]}}"#);
        assert_eq!(values(&read(IN, &source)), [wanted], "{block}");
    }
}

#[test]
fn arguments_are_read_through_strings_and_keep_absent_null_and_empty_apart() {
    for (call, arguments) in [
        (r#""arguments":"{\"a\":1}""#, r#","arguments":{"a":1}"#),
        (r#""arguments":"\"{\\\"a\\\":1}\"""#, r#","arguments":{"a":1}"#),
        (r#""arguments":"{'a': None}""#, r#","arguments":{"a":null}"#),
        (r#""arguments":{"a":1}"#, r#","arguments":{"a":1}"#),
        (r#""arguments":"{\"a\": ""#, r#","arguments":"{\"a\": ""#),
        (r#""arguments":"Paris""#, r#","arguments":"Paris""#),
        (r#""arguments":"""#, r#","arguments":{}"#),
        (r#""arguments":null"#, r#","arguments":null"#),
        (r#""x":1"#, ""),
    ] {
        let source =
            format!(r#"[{{"role":"assistant","tool_calls":[{{"id":"1","function":{{"name":"f",{call}}}}}]}}]"#);
        let wanted =
            format!(r#"{{"role":"assistant","parts":[{{"type":"tool_call","id":"1","name":"f"{arguments}}}]}}"#);
        assert_eq!(values(&read(OUT, &source)), [wanted], "{call}");
    }
}

#[test]
fn a_call_reported_twice_in_one_message_counts_once() {
    let plan = rows(&[(OUT, &["llm.output_messages.*"], "")]);
    let attrs = [
        ("llm.output_messages.0.message.role", "assistant"),
        ("llm.output_messages.0.message.contents.0.message_content.type", "text"),
        ("llm.output_messages.0.message.contents.0.message_content.text", "Let me check."),
        ("llm.output_messages.0.message.tool_calls.0.tool_call.id", "c1"),
        ("llm.output_messages.0.message.tool_calls.0.tool_call.function.name", "get_weather"),
        ("llm.output_messages.0.message.tool_calls.0.tool_call.function.arguments", r#"{"city": "Paris"}"#),
        ("llm.output_messages.0.message.contents.1.message_content.type", "tool_use"),
        ("llm.output_messages.0.message.contents.1.tool_call.id", "c1"),
        ("llm.output_messages.0.message.contents.1.tool_call.function.name", "get_weather"),
        ("llm.output_messages.0.message.contents.1.tool_call.function.arguments", r#"{"city": "Paris"}"#),
    ]
    .map(|(key, text)| (key, Value::Str(text)));
    let got = got(&plan, "llm", &attrs, &[]);
    assert_eq!(
        values(&got),
        [
            r#"{"role":"assistant","parts":[{"type":"text","content":"Let me check."},{"type":"tool_call","id":"c1","name":"get_weather","arguments":{"city": "Paris"}}]}"#
        ]
    );
}

#[test]
fn span_events_of_the_older_conventions_become_messages() {
    let plan = rows(&[
        ("gen_ai.system_instructions", &["event:gen_ai.system.message"], ""),
        (IN, &["event:gen_ai.user.message", "event:gen_ai.assistant.message", "event:gen_ai.tool.message"], ""),
        (OUT, &["event:gen_ai.choice"], ""),
    ]);
    let strands = got(
        &plan,
        "llm",
        &[],
        &[
            ("gen_ai.system.message", &[("content", r#"[{"text": "Be brief."}]"#)]),
            ("gen_ai.user.message", &[("content", r#"[{"text": "What is the weather in Paris?"}]"#)]),
            (
                "gen_ai.assistant.message",
                &[(
                    "content",
                    r#"[{"toolUse": {"toolUseId": "c1", "name": "get_weather", "input": {"city":"Paris"}}}]"#,
                )],
            ),
            (
                "gen_ai.tool.message",
                &[("content", r#"[{"toolResult": {"toolUseId": "c1", "status": "success", "content": "18C"}}]"#)],
            ),
            ("gen_ai.choice", &[("message", r#"[{"text": "Sunny."}]"#), ("finish_reason", "end_turn")]),
        ],
    );
    let dotnet = got(
        &plan,
        "llm",
        &[],
        &[
            ("gen_ai.system.message", &[("gen_ai.event.content", r#"{"role":"system","content":"Be brief."}"#)]),
            (
                "gen_ai.user.message",
                &[("gen_ai.event.content", r#"{"role":"user","content":"What is the weather in Paris?"}"#)],
            ),
            (
                "gen_ai.assistant.message",
                &[(
                    "gen_ai.event.content",
                    r#"{"tool_calls":[{"id":"c1","function":{"name":"get_weather","arguments":"{\"city\":\"Paris\"}"}}]}"#,
                )],
            ),
            ("gen_ai.tool.message", &[("gen_ai.event.content", r#"{"content":"18C","id":"c1"}"#)]),
            (
                "gen_ai.choice",
                &[("gen_ai.event.content", r#"{"index":0,"message":{"content":"Sunny."},"finish_reason":"end_turn"}"#)],
            ),
        ],
    );
    let plain = got(
        &plan,
        "llm",
        &[],
        &[
            ("gen_ai.system.message", &[("content", "Be brief.")]),
            ("gen_ai.user.message", &[("content", "What is the weather in Paris?"), ("role", "user")]),
            (
                "gen_ai.assistant.message",
                &[(
                    "tool_calls",
                    r#"[{"id":"c1","function":{"name":"get_weather","arguments":"{\"city\":\"Paris\"}"}}]"#,
                )],
            ),
            ("gen_ai.tool.message", &[("content", "18C"), ("id", "c1")]),
            ("gen_ai.choice", &[("message", r#"{"content":"Sunny."}"#), ("finish_reason", "end_turn")]),
        ],
    );
    for got in [strands, dotnet, plain] {
        assert_eq!(
            values(&got),
            [
                r#"{"type":"text","content":"Be brief."}"#,
                ASKED,
                CALLED,
                ANSWERED,
                r#"{"role":"assistant","parts":[{"type":"text","content":"Sunny."}]}"#,
            ]
        );
        assert_eq!(got.finish, ["end_turn"]);
        assert_eq!((got.input.as_str(), got.output.as_str()), ("What is the weather in Paris?", "Sunny."));
    }
}

#[test]
fn attributes_of_one_answer_are_assembled() {
    let plan = rows(&[(OUT, &["reasoning:r", "text:t", "text:object", "tool_calls:c", "finish:f"], "assemble")]);
    let got = got(
        &plan,
        "llm",
        &[
            ("t", Value::Str("Let me check.")),
            (
                "c",
                Value::Str(
                    r#"[{"toolCallType":"function","toolCallId":"c1","toolName":"get_weather","args":"{\"city\": \"Paris\"}"}]"#,
                ),
            ),
            ("f", Value::Str("tool-calls")),
            ("r", Value::Str("hm")),
        ],
        &[],
    );
    assert_eq!(
        values(&got),
        [
            r#"{"role":"assistant","parts":[{"type":"reasoning","content":"hm"},{"type":"text","content":"Let me check."},{"type":"tool_call","id":"c1","name":"get_weather","arguments":{"city": "Paris"}}]}"#
        ]
    );
    assert_eq!(got.finish, ["tool-calls"]);
}

#[test]
fn the_first_row_that_yields_content_wins() {
    let plan = rows(&[(IN, &["a"], ""), (IN, &["b"], ""), (OUT, &["c"], ""), (OUT, &["d.*"], "")]);
    let got = got(
        &plan,
        "llm",
        &[
            ("b", Value::Str(r#"[{"role":"user","content":"poor"}]"#)),
            ("a", Value::Str(r#"[{"role":"user","content":"rich"}]"#)),
            ("c", Value::Str(r#"[{"role":"assistant","parts":[],"finish_reason":"tool_calls"}]"#)),
            ("d.0.function_call.name", Value::Str("f")),
            ("d.0.function_call.arguments", Value::Str("{}")),
        ],
        &[],
    );
    assert_eq!(
        values(&got),
        [
            r#"{"role":"user","parts":[{"type":"text","content":"rich"}]}"#,
            r#"{"role":"assistant","parts":[{"type":"tool_call","name":"f","arguments":{}}]}"#,
        ]
    );
    assert_eq!(got.finish, ["tool_calls"]);
}

#[test]
fn text_that_is_no_message_stays_text() {
    for text in ["Hello", "[system prompt]", "{not json}", r#"{"q":"x"}"#, "<tag>", "developer: a\nuser: b"] {
        let got = read(IN, text);
        let wanted = serde_json::json!({"role": "user", "parts": [{"type": "text", "content": text}]});
        assert_eq!(serde_json::from_str::<serde_json::Value>(values(&got)[0]).unwrap(), wanted);
        assert!(got.truncated.is_empty(), "{text}");
    }
    let strict = rows(&[(IN, &["k"], "strict")]);
    for text in ["Hello", r#"{"q":"x"}"#, r#"{"args":["x"]}"#] {
        assert!(got(&strict, "llm", &[("k", Value::Str(text))], &[]).values.is_empty(), "{text}");
    }
}

#[test]
fn text_that_was_cut_is_kept_and_reported() {
    for text in [
        r#"[{"role":"user","content":"abc"#,
        r#"[{"role":"user","content":"abc...[TRUNCATED: original length 22000]"#,
        r#"{"messages":[{"role":"user"#,
    ] {
        let got = read(IN, text);
        assert_eq!(got.truncated, ["k"], "{text}");
        assert!(got.input.starts_with(&text[..10]));
    }
}

#[test]
fn nothing_captured_gives_nothing() {
    for text in
        ["", "null", "[]", "{}", "<REDACTED>", "<elided>", r#"{"output":null}"#, r#"[{"role":"user","content":null}]"#]
    {
        assert!(read(IN, text).values.is_empty(), "{text}");
    }
}

#[test]
fn tool_definitions_have_one_shape() {
    let wanted = r#"{"type":"function","name":"f","description":"d","parameters":{"type":"object"}}"#;
    for source in [
        r#"[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"},"strict":true}}]"#,
        r#"[{"name":"f","description":"d","input_schema":{"type":"object"}}]"#,
        r#"[{"type":"function","name":"f","description":"d","inputSchema":{"type":"object"}}]"#,
        r#"[{"name":"f","description":"d","inputSchema":{"json":{"type":"object"}},"outputSchema":null}]"#,
        r#"[{"toolSpec":{"name":"f","description":"d","inputSchema":{"json":{"type":"object"}}}}]"#,
        r#"[{"functionDeclarations":[{"name":"f","description":"d","parametersJsonSchema":{"type":"object"}}]}]"#,
        r#"["{\"type\":\"function\",\"name\":\"f\",\"description\":\"d\",\"parameters\":{\"type\":\"object\"}}"]"#,
        r#"{"tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"}}}]}"#,
        r#"[{"name":"f","description":"d","parameters":"{\"type\":\"object\"}"}]"#,
        wanted,
    ] {
        let got = read("gen_ai.tool.definitions", source);
        assert_eq!(values(&got), [wanted], "{source}");
    }
    assert_eq!(
        values(&read("gen_ai.tool.definitions", r#"["a","b"]"#)),
        [r#"{"type":"function","name":"a"}"#, r#"{"type":"function","name":"b"}"#]
    );
    assert_eq!(
        values(&read("gen_ai.tool.definitions", r#"[{"type":"web_search_preview"}]"#)),
        [r#"{"type":"web_search_preview","name":"web_search_preview"}"#]
    );
    let flat = rows(&[("gen_ai.tool.definitions", &["llm.request.functions.*"], "")]);
    let attrs = [
        ("llm.request.functions.0.name", "f"),
        ("llm.request.functions.0.description", "d"),
        ("llm.request.functions.0.input_schema", r#"{"type":"object"}"#),
    ]
    .map(|(key, text)| (key, Value::Str(text)));
    assert_eq!(values(&got(&flat, "llm", &attrs, &[])), [wanted]);
}

#[test]
fn tool_arguments_have_three_states() {
    for (source, value) in [
        (r#"{"city": "Paris"}"#, r#"{"city": "Paris"}"#),
        (r#""{\"city\":\"Paris\"}""#, r#"{"city":"Paris"}"#),
        (r#"{"args": [], "kwargs": {"city": "Paris"}}"#, r#"{"city": "Paris"}"#),
        (r#"{"args": ["Paris"], "kwargs": {}}"#, r#"{"args": ["Paris"], "kwargs": {}}"#),
        (r#"{"input_str": "{'city': 'Paris'}", "tags": []}"#, r#"{"city":"Paris"}"#),
        (r#"{"input_str": "x", "inputs": {"city": "Paris"}}"#, r#"{"city": "Paris"}"#),
        ("{'city': 'Paris'}", r#"{"city":"Paris"}"#),
        ("Paris", "Paris"),
        ("{}", "{}"),
        ("null", "null"),
        ("", ""),
    ] {
        let got = read("gen_ai.tool.call.arguments", source);
        assert_eq!(values(&got), [value], "{source}");
    }
    for absent in ["N/A", "<not specified>", "<REDACTED>"] {
        assert!(read("gen_ai.tool.call.arguments", absent).values.is_empty(), "{absent}");
    }
    let plan = ContentPlan::new(&[ContentRow {
        to: "gen_ai.tool.call.arguments".into(),
        from: vec!["k".into()],
        absent: vec!["{}".into()],
        ..ContentRow::default()
    }])
    .unwrap();
    assert!(got(&plan, "tool", &[("k", Value::Str("{}"))], &[]).values.is_empty());
}

#[test]
fn tool_results_are_unwrapped_and_say_whether_the_tool_failed() {
    for (source, value, status) in [
        ("18C", "18C", ""),
        (r#""18C""#, "18C", ""),
        (r#"{"t": 18}"#, r#"{"t": 18}"#, ""),
        ("", "", ""),
        ("null", "null", ""),
        (r#"[{"text": "Error: down"}]"#, "Error: down", ""),
        (
            r#"{"output":{"lc":1,"type":"constructor","id":["ToolMessage"],"kwargs":{"content":"18C","type":"tool","tool_call_id":"c","status":"error"}},"kwargs":{}}"#,
            "18C",
            "error",
        ),
        (
            r#"{"type":"tool","data":{"content":"18C","type":"tool","tool_call_id":"c","status":"success"}}"#,
            "18C",
            "success",
        ),
        (r#"{"id":"c","name":"f","response":{"t":18}}"#, r#"{"t":18}"#, ""),
        (
            r#"{"content":[{"type":"text","text":"x"}],"isError":true}"#,
            r#"{"content":[{"type":"text","text":"x"}],"isError":true}"#,
            "error",
        ),
        (r#"{"error":"backend down"}"#, r#"{"error":"backend down"}"#, "error"),
        (r#"[{"toolResult":{"toolUseId":"c","status":"error","content":[{"text":"x"}]}}]"#, "x", "error"),
    ] {
        let got = read("gen_ai.tool.call.result", source);
        assert_eq!(values(&got), [value], "{source}");
        assert_eq!(got.status, status, "{source}");
    }
}

#[test]
fn retrieved_documents_have_id_score_and_content() {
    let plan = rows(&[("gen_ai.retrieval.documents", &["retrieval.documents.*"], "")]);
    let attrs = [
        ("retrieval.documents.1.document.content", Value::Str("b")),
        ("retrieval.documents.0.document.id", Value::Str("1")),
        ("retrieval.documents.0.document.score", Value::Double(0.5)),
        ("retrieval.documents.0.document.content", Value::Str("a")),
        ("retrieval.documents.0.document.metadata", Value::Str(r#"{"k":1}"#)),
    ];
    assert_eq!(
        values(&got(&plan, "retrieval", &attrs, &[])),
        [r#"{"id":"1","score":0.5,"content":"a","metadata":{"k":1}}"#, r#"{"content":"b"}"#]
    );
    assert_eq!(
        values(&read(
            "gen_ai.retrieval.documents",
            r#"{"output":[{"page_content":"x","type":"Document","metadata":{}}]}"#
        )),
        [r#"{"content":"x","metadata":{}}"#]
    );
}

#[test]
fn previews_are_two_hundred_characters_of_what_matters() {
    let long = "é".repeat(500);
    let got_long = read(IN, &format!(r#"[{{"role":"user","content":"old"}},{{"role":"user","content":"  {long}"}}]"#));
    assert_eq!(got_long.input.chars().count(), 200);
    assert!(got_long.input.starts_with("  é"));
    let result = read(IN, r#"[{"role":"tool","tool_call_id":"c","content":"18C"}]"#);
    assert_eq!(result.input, "18C");
    let system = read(IN, r#"[{"role":"system","content":"be brief"}]"#);
    assert_eq!(system.input, "be brief");
    let plan = rows(&[
        ("gen_ai.tool.call.arguments", &["a"], ""),
        ("gen_ai.tool.call.result", &["r"], ""),
        ("input", &["i"], ""),
        ("output", &["o"], ""),
    ]);
    let tool = got(&plan, "tool", &[("a", Value::Str(r#"{"x":1}"#)), ("r", Value::Str("done"))], &[]);
    assert_eq!((tool.input.as_str(), tool.output.as_str()), (r#"{"x":1}"#, "done"));
    let chain = got(&plan, "chain", &[("i", Value::Str("in")), ("o", Value::Str("out"))], &[]);
    assert_eq!((chain.input.as_str(), chain.output.as_str()), ("in", "out"));
    assert!(chain.values.is_empty());
}

#[test]
fn rows_that_make_no_sense_are_refused_by_name() {
    let row = |to: &str, from: &[&str], shape: &str| {
        ContentPlan::new(&[ContentRow {
            to: to.into(),
            from: from.iter().map(|f| (*f).into()).collect(),
            shape: shape.into(),
            ..ContentRow::default()
        }])
        .unwrap_err()
    };
    assert!(row("gen_ai.nothing", &["k"], "").contains("no such content target"));
    assert!(row(IN, &[], "").contains("`from` is empty"));
    assert!(row(IN, &["k"], "cubist").contains("unknown shape \"cubist\""));
    assert!(row(IN, &["k"], "assemble").contains("needs text:"));
    assert!(row(IN, &["k*"], "").contains("must end in \".*\""));
    assert!(row(IN, &["k"], "schema").contains("`name`"));
    assert!(row(IN, &["k"], "cubist").starts_with("content row 0 (to \"gen_ai.input.messages\")"));
}

/// A small generator, so that a failure can be repeated.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides.max(1)
    }
}

const SEEDS: [&str; 9] = [
    r#"{"model":"m","system":"s","messages":[{"role":"user","content":[{"type":"text","text":"é"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AA"}}]},{"role":"assistant","content":null,"tool_calls":[{"id":"c1","function":{"name":"f","arguments":"{\"a\":1}"}}]},{"role":"tool","tool_call_id":"c1","content":"18C"}],"tools":[{"name":"f","input_schema":{"json":{}}}]}"#,
    r#"[{"role":"user","parts":[{"type":"text","content":"a"},{"type":"tool_call_response","id":"c","result":[{"text":"x"}]}]},{"role":"model","parts":[{"functionCall":{"name":"f","args":{"x":[1,2]}}},{"thought":true,"text":"t"}]}]"#,
    r#"{"choices":[{"finish_reason":"stop","message":{"role":"assistant","content":"ok","refusal":"no"}}],"usage":{"x":1},"model":"m"}"#,
    r#"{"generations":[[{"text":"t","message":{"lc":1,"id":["AIMessage"],"kwargs":{"content":"","tool_calls":[{"name":"f","args":{},"id":"1"}]}}}]]}"#,
    r#"[{"event.name":"gen_ai.choice","message":{"content":"x"},"finish_reason":"stop"},["user","hi"],[["ai","x"]],"plain"]"#,
    r#"[{"type":"reasoning","summary":[{"text":"t"}]},{"type":"function_call","call_id":"c","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"c","output":"o"},{"type":"message","role":"assistant","content":[{"type":"output_text","text":"x"}]}]"#,
    r#"{'messages': [ChatMessage(_role=<ChatRole.USER: 'user'>, _content=[TextContent(text='a\n')], _meta={}), {'a': None}]}"#,
    r#"{"output":{"lc":1,"kwargs":{"content":"x","tool_call_id":"c","status":"error"}},"error":"e"}"#,
    r#""[{\"role\":\"user\",\"content\":\"x\"}]""#,
];

/// What senders and their bugs do to text: cut it, repeat it, mix it, nest it.
fn mutated(dice: &mut Dice) -> String {
    let mut text: Vec<u8> = SEEDS[dice.roll(SEEDS.len())].into();
    for _ in 0..=dice.roll(4) {
        let at = dice.roll(text.len());
        match dice.roll(7) {
            0 => text.truncate(at),
            1 => text[at] = b"\"\\{}[],:' <>(0x\n\x01"[dice.roll(17)],
            2 => {
                let end = (at + dice.roll(40)).min(text.len());
                text.drain(at..end);
            }
            3 => {
                let end = (at + dice.roll(60)).min(text.len());
                let piece: Vec<u8> = text[at..end].repeat(1 + dice.roll(3));
                text.splice(at..at, piece);
            }
            4 => {
                let other = SEEDS[dice.roll(SEEDS.len())].as_bytes();
                let start = dice.roll(other.len());
                text.splice(at..at, other[start..].iter().copied());
            }
            5 => {
                let depth = 1 + dice.roll(200);
                text = [b"[".repeat(depth), text, b"]".repeat(depth)].concat();
            }
            _ => text.extend_from_slice(b"...[TRUNCATED: original length 22000]"),
        }
        if text.is_empty() {
            break;
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn no_text_panics_or_unfolds_or_gives_broken_json() {
    let plans: Vec<ContentPlan> = [
        [(IN, ["k"], ""), (OUT, ["o"], "")],
        [("gen_ai.system_instructions", ["k"], ""), ("gen_ai.tool.definitions", ["o"], "")],
        [("gen_ai.tool.call.arguments", ["k"], ""), ("gen_ai.tool.call.result", ["o"], "")],
        [("gen_ai.retrieval.documents", ["k#messages"], ""), ("input", ["o"], "")],
        [(IN, ["event:gen_ai.user.message"], ""), (OUT, ["event:gen_ai.choice"], "")],
        [(IN, ["f.*"], ""), (OUT, ["k"], "choices")],
    ]
    .iter()
    .map(|pair| {
        rows(
            &pair
                .map(|(to, from, shape)| (to, from, shape))
                .each_ref()
                .map(|(to, from, shape)| (*to, &from[..], *shape)),
        )
    })
    .collect();
    let mut dice = Dice(7);
    for _ in 0..4_000 {
        let (one, two) = (mutated(&mut dice), mutated(&mut dice));
        let flat = format!(
            "f.{}.{}.{}",
            dice.roll(5000),
            ["message", "content", "__proto__", "0"][dice.roll(4)],
            dice.roll(9)
        );
        let plan = &plans[dice.roll(plans.len())];
        let found = got(
            plan,
            ["llm", "tool", "agent"][dice.roll(3)],
            &[("k", Value::Str(&one)), ("o", Value::Str(&two)), (&flat, Value::Str(&one)), ("f.0", Value::Str(&two))],
            &[
                ("gen_ai.user.message", &[("content", &one), ("tool_calls", &two)]),
                ("gen_ai.choice", &[("message", &two)]),
            ],
        );
        let given = 4 * (one.len() + two.len()) + 200;
        let kept: usize = found.values.iter().map(|(_, value)| value.len()).sum();
        assert!(kept <= 24 * given, "{given} bytes became {kept}");
        assert!(found.input.chars().count() <= 200 && found.output.chars().count() <= 200);
    }
}

#[test]
fn arrays_of_nothing_stay_within_limits() {
    let empties = format!("[{}\"\"]", "\"\",".repeat(200_000));
    let found = read(IN, &empties);
    assert!(found.values.len() <= shapes::MESSAGES_MAX);
    assert_eq!(found.truncated, ["k"]);
    let parts = format!(r#"[{{"role":"user","content":[{}""]}}]"#, "\"\",".repeat(200_000));
    let found = read(IN, &parts);
    assert!(found.values[0].1.len() < 4096 * 40);
    assert_eq!(found.truncated, ["k"]);
}

#[test]
fn media_stays_one_part_without_growing() {
    let data = "iVBORw0KGgo".repeat(100_000);
    let source = format!(
        r#"{{"messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{data}"}}}}]}}]}}"#
    );
    let found = read(IN, &source);
    assert!(found.values[0].1.len() < source.len() + 100);
    assert!(found.values[0].1.contains(r#"{"type":"blob","modality":"image","mime_type":"image/png","content":"iVBO"#));
    assert_eq!(found.input, "");
}
