//! What the wire walk hands to the normaliser, and what the normaliser hands back.
//!
//! Everything borrows from the request bytes or from the arena of one decode call (`'a`): no copy is made before the
//! Arrow builders.

use std::borrow::Cow;

pub type Text<'a> = Cow<'a, str>;

/// An OTLP `AnyValue`. Arrays and key-value lists stay encoded until somebody asks for them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    Empty,
    Str(&'a str),
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(&'a [u8]),
    /// Body of an `ArrayValue` message.
    Array(&'a [u8]),
    /// Body of a `KeyValueList` message.
    KvList(&'a [u8]),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attr<'a> {
    pub key: &'a str,
    pub value: Value<'a>,
}

#[derive(Debug, Default)]
pub struct ResourceView<'a> {
    pub attrs: &'a [Attr<'a>],
    pub schema_url: &'a str,
    pub dropped_attributes_count: u32,
}

#[derive(Debug, Default)]
pub struct ScopeView<'a> {
    pub name: &'a str,
    pub version: &'a str,
    pub attrs: &'a [Attr<'a>],
    pub schema_url: &'a str,
}

#[derive(Debug, Default)]
pub struct EventView<'a> {
    pub time_unix_nano: u64,
    pub name: &'a str,
    pub attrs: Vec<Attr<'a>>,
}

#[derive(Debug, Default)]
pub struct LinkView<'a> {
    pub trace_id: &'a [u8],
    pub span_id: &'a [u8],
    pub trace_state: &'a str,
    pub attrs: Vec<Attr<'a>>,
}

/// One valid span. A repeated attribute key is already resolved: the last value wins, at the first one's place.
#[derive(Debug)]
pub struct SpanView<'a> {
    pub resource: &'a ResourceView<'a>,
    pub scope: &'a ScopeView<'a>,
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    pub parent_span_id: Option<[u8; 8]>,
    pub trace_state: &'a str,
    pub flags: u32,
    pub name: &'a str,
    /// OTLP SpanKind, 0..=5.
    pub kind: u8,
    pub start_unix_nano: u64,
    pub end_unix_nano: u64,
    /// OTLP StatusCode: 0 unset, 1 ok, 2 error.
    pub status: u8,
    pub status_message: &'a str,
    pub attrs: Vec<Attr<'a>>,
    pub events: Vec<EventView<'a>>,
    pub links: Vec<LinkView<'a>>,
    pub dropped_attributes_count: u32,
    pub dropped_events_count: u32,
    pub dropped_links_count: u32,
}

/// One log record.
#[derive(Debug)]
pub struct LogView<'a> {
    pub resource: &'a ResourceView<'a>,
    pub scope: &'a ScopeView<'a>,
    pub trace_id: Option<[u8; 16]>,
    pub span_id: Option<[u8; 8]>,
    /// Falls back to the observed time.
    pub time_unix_nano: u64,
    pub severity: u32,
    /// `EventName`, or else the attribute `event.name`.
    pub event_name: &'a str,
    pub body: Value<'a>,
    pub attrs: Vec<Attr<'a>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub input: Option<u64>,
    pub output: Option<u64>,
    pub cache_read: Option<u64>,
    pub cache_write: Option<u64>,
    pub reasoning: Option<u64>,
}

/// How a content value is stored, see the column `content` in `spanwise/model.py`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The value itself.
    Text,
    /// One element of a JSON array, elements joined by `,`.
    Item,
    /// One element of a JSON array, elements joined by `, `.
    ItemSpaced,
}

/// A canonical value that is stored by reference whatever its size.
#[derive(Clone, Debug, PartialEq)]
pub struct ContentItem<'a> {
    /// Canonical attribute name, for instance `gen_ai.input.messages`.
    pub key: &'static str,
    pub form: Form,
    pub value: Text<'a>,
    /// XXH3-128 of `value`: known already, because repeated messages are recognised by it.
    pub hash: u128,
}

/// The meaning of one span. Empty text is "none"; columns of `spanwise/model.py` carry the same names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Canonical<'a> {
    pub dialect: Text<'a>,
    pub operation: Text<'a>,
    pub kind: Text<'a>,
    pub provider: Text<'a>,
    pub request_model: Text<'a>,
    pub response_model: Text<'a>,
    pub response_id: Text<'a>,
    pub agent_name: Text<'a>,
    pub agent_id: Text<'a>,
    pub agent_version: Text<'a>,
    pub conversation_id: Text<'a>,
    pub user_id: Text<'a>,
    pub workflow_name: Text<'a>,
    pub tool_name: Text<'a>,
    pub tool_call_id: Text<'a>,
    pub usage: Usage,
    /// own, aggregate or none.
    pub usage_scope: &'static str,
    /// '' or `tentative`: the table says "own unless a descendant carries usage" (agents, workflows, chains, wrappers
    /// of a model call), which only the whole trace can tell.
    pub usage_scope_reason: &'static str,
    /// inclusive, exclusive_fixed, exclusive_unknown, unknown, or '' without usage.
    pub input_basis: &'static str,
    /// Reported cost in 10⁻⁹ USD.
    pub reported_cost_nano_usd: Option<i64>,
    pub time_to_first_chunk_s: Option<f64>,
    pub finish_reasons: Vec<Text<'a>>,
    pub finish_reasons_raw: Vec<Text<'a>>,
    pub error_type: Text<'a>,
    /// success, error or ''.
    pub tool_status: Text<'a>,
    pub input_preview: Text<'a>,
    pub output_preview: Text<'a>,
    /// What went in and came out, whole, where it is no content of its own: only the previews are stored.
    pub input_text: &'a str,
    pub output_text: &'a str,
    /// Canonical attributes without a column of their own: (canonical key, value as text, upper-case type letter).
    /// Written after the original attributes unless the span has the key already.
    pub derived: Vec<(Text<'a>, Text<'a>, u8)>,
    /// Messages, instructions, tool definitions, tool arguments and results.
    pub content: Vec<ContentItem<'a>>,
}
