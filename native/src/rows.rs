//! One row a span or log record, and the content they refer to: how every column is filled.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow_array::builder::{Decimal128Builder, Float64Builder, UInt64Builder};
use arrow_array::{
    ArrayRef, Date32Array, Decimal128Array, RecordBatch, TimestampMillisecondArray, TimestampNanosecondArray,
    UInt32Array, UInt64Array,
};
use arrow_schema::{ArrowError, Field, Schema};
use bumpalo::Bump;
use hashbrown::{HashMap, HashSet};
use rustc_hash::FxBuildHasher;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use crate::columns::{Bytes, Dictionary, Events, Links, Map, References, Texts};
use crate::content::{self, INLINE_BYTES_MAX, Splits, preview, split_json_array};
use crate::fingerprint::Fingerprints;
use crate::otlp::Group;
use crate::plan::Plan;
use crate::text::{LargeText, Text};
use crate::view::{Attr, Canonical, Form, LogView, SpanView, Value};
use crate::wire;

/// Elements of an array are stored one by one only if they are on average so long. Objects are messages, which recur,
/// other elements are vectors and listings, for which references cost more than they ever save.
const OBJECT_BYTES_MIN: usize = 64;
const ELEMENT_BYTES_MIN: usize = 256;
/// A longer key is not repeated for every element of an array.
const ELEMENT_KEY_BYTES_MAX: usize = 256;

const DAY_NANOS: u64 = 86_400 * 1_000_000_000;
/// 2000-01-01: nothing was traced before.
const ANCIENT_BEFORE_NANOS: u64 = 946_684_800 * 1_000_000_000;

/// When the rows of a frame were received.
#[derive(Clone, Copy)]
pub struct Received {
    nanos: u64,
    millis: i64,
    day: i32,
}

impl Received {
    pub fn new(unix_nano: i64) -> Self {
        let nanos = u64::try_from(unix_nano).unwrap_or(0);
        Self { nanos, millis: (nanos / 1_000_000) as i64, day: (nanos / DAY_NANOS) as i32 }
    }

    /// Why a time is not to be trusted, and the day its row belongs to.
    pub fn flag(&self, unix_nano: u64) -> (&'static str, i32) {
        let flag = match unix_nano {
            0 => "zero",
            _ if unix_nano < ANCIENT_BEFORE_NANOS => "ancient",
            _ if unix_nano > self.nanos.saturating_add(DAY_NANOS) => "future",
            _ => return ("", (unix_nano / DAY_NANOS) as i32),
        };
        (flag, self.day)
    }
}

/// A time as a column can hold it.
fn storable(unix_nano: u64) -> i64 {
    i64::try_from(unix_nano).unwrap_or(i64::MAX)
}

/// The trace that a row and its content belong to.
pub struct Trace<'t> {
    pub slot: u32,
    pub time_flag: &'static str,
    pub tenant: &'t str,
    /// Empty for a log record outside of any trace.
    pub id: &'t [u8],
    pub day: i32,
    pub received: Received,
}

/// The content table, each (tenant, trace, hash) once.
pub struct Contents {
    slots: HashMap<(u32, [u8; 16]), u32, foldhash::fast::RandomState>,
    last: Option<((u32, [u8; 16]), u32)>,
    seen: HashSet<(u32, u128), FxBuildHasher>,
    tenants: Dictionary,
    trace_ids: Text,
    hashes: Text,
    values: LargeText,
    days: Vec<i32>,
    received: Vec<i64>,
}

impl Contents {
    pub fn new() -> Self {
        Self {
            slots: HashMap::default(),
            last: None,
            seen: HashSet::default(),
            tenants: Dictionary::new(0),
            trace_ids: Text::new(),
            hashes: Text::new(),
            values: LargeText::new(),
            days: Vec::new(),
            received: Vec::new(),
        }
    }

    /// A number for a trace of this decode call.
    pub fn slot(&mut self, tenant: u32, trace_id: [u8; 16]) -> u32 {
        let key = (tenant, trace_id);
        if let Some((last, slot)) = self.last
            && last == key
        {
            return slot;
        }
        let next = self.slots.len() as u32;
        let slot = *self.slots.entry(key).or_insert(next);
        self.last = Some((key, slot));
        slot
    }

    fn put(&mut self, trace: &Trace<'_>, hash: u128, value: &str) {
        if self.seen.insert((trace.slot, hash)) {
            self.tenants.push(trace.tenant);
            self.trace_ids.push_hex(trace.id);
            self.hashes.push_hex(&hash.to_be_bytes());
            self.values.push(value);
            self.days.push(trace.day);
            self.received.push(trace.received.millis);
        }
    }

    pub fn finish(self) -> Result<RecordBatch, ArrowError> {
        batch(vec![
            ("tenant", self.tenants.finish()),
            ("trace_id", self.trace_ids.finish()),
            ("hash", self.hashes.finish()),
            ("value", self.values.finish()),
            ("day", Arc::new(Date32Array::from(self.days)) as ArrayRef),
            ("received_at", millis(self.received)),
        ])
    }
}

/// References of the row being written, and what they refer to.
pub struct Big<'a> {
    /// Arrays that the normaliser has split already; lent by it while the row is written.
    pub splits: Splits<'a>,
    pub references: References,
    pub contents: Contents,
    key: String,
}

fn form_name(form: Form) -> &'static str {
    match form {
        Form::Text => "text",
        Form::Item => "item",
        Form::ItemSpaced => "item_sp",
    }
}

impl<'a> Big<'a> {
    pub fn new(rows: usize) -> Self {
        Self {
            splits: Splits::default(),
            references: References::new(rows),
            contents: Contents::new(),
            key: String::new(),
        }
    }

    fn refer(&mut self, trace: &Trace<'_>, key: &str, form: Form, value: &str, hash: u128) {
        self.contents.put(trace, hash, value);
        self.references.push(key, form_name(form), hash, value.len());
    }

    /// One entry of a map: whole if it is short, else its beginning, and a reference under `<place>.<key>`.
    #[inline]
    fn entry(&mut self, trace: &Trace<'_>, map: &mut Map, place: Place, key: &str, text: &str) {
        if text.len() <= INLINE_BYTES_MAX {
            map.entry(key, text);
        } else {
            map.entry(key, preview(text));
            self.cut(trace, place, key, text);
        }
    }

    fn cut(&mut self, trace: &Trace<'_>, place: Place, key: &str, text: &str) {
        let mut name = std::mem::take(&mut self.key);
        name.clear();
        let _ = write!(name, "{place}.{key}");
        let splits = std::mem::take(&mut self.splits);
        let bytes_min = if text.starts_with("[{") { OBJECT_BYTES_MIN } else { ELEMENT_BYTES_MIN };
        let whole = |elements: usize| text.len() < elements * bytes_min || name.len() > ELEMENT_KEY_BYTES_MAX;
        match splits.known(text) {
            Some(split) if !whole(split.elements.len()) => {
                for (element, hash) in &split.elements {
                    self.refer(trace, &name, split.form.unwrap_or(Form::Item), element, *hash);
                }
                self.splits = splits;
                self.key = name;
                return;
            }
            _ => self.splits = splits,
        }
        match split_json_array(text) {
            Some((form, elements)) if !whole(elements.len()) => {
                for element in elements {
                    self.refer(trace, &name, form, element, content::hash(element));
                }
            }
            _ => self.refer(trace, &name, Form::Text, text, content::hash(text)),
        }
        self.key = name;
    }
}

/// What the spans of one group have in common, as it was written for the first of them.
#[derive(Default)]
struct Common {
    /// [`Origin::number`], 0 for none.
    number: usize,
    tenant: i32,
    service: i32,
    service_version: i32,
    scope: i32,
    scope_version: i32,
    schema_url: i32,
    /// Entries of the maps, unless some are cut: each span has its own references to those.
    resource: Option<(usize, usize)>,
    scope_attributes: Option<(usize, usize)>,
}

/// Which map of a span an entry belongs to.
#[derive(Clone, Copy)]
enum Place {
    Attributes,
    Event(usize),
    Link(usize),
    Resource,
    Scope,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Attributes => write!(f, "attributes"),
            Self::Event(index) => write!(f, "events[{index}]"),
            Self::Link(index) => write!(f, "links[{index}]"),
            Self::Resource => write!(f, "resource"),
            Self::Scope => write!(f, "scope"),
        }
    }
}

fn letter(value: &Value<'_>) -> char {
    match value {
        Value::Empty => 'n',
        Value::Str(_) => 's',
        Value::Bool(_) => 'b',
        Value::Int(_) => 'i',
        Value::Double(_) => 'd',
        Value::Bytes(_) => 'y',
        Value::Array(_) => 'a',
        Value::KvList(_) => 'k',
    }
}

/// The text that is kept of a value.
#[inline]
fn text_of<'t>(value: &Value<'t>, scratch: &'t mut String) -> &'t str {
    match value {
        Value::Str(text) => text,
        _ => {
            scratch.clear();
            wire::to_text(*value, scratch);
            scratch
        }
    }
}

/// One span or log record where it was found.
pub struct Item<'s, 'a> {
    pub group: &'s Group<'a>,
    pub origin: &'s Origin<'a>,
    pub body: &'a [u8],
}

/// Resource and scope of a group as the columns want them.
pub struct Origin<'a> {
    /// Counts the groups of one decode call from 1.
    number: usize,
    service: &'a str,
    service_version: &'a str,
    resource: Vec<(&'a str, &'a str)>,
    scope: Vec<(&'a str, &'a str)>,
    schema_url: &'a str,
}

impl<'a> Origin<'a> {
    pub fn new(group: &Group<'a>, arena: &'a Bump, number: usize) -> Self {
        let texts = |attrs: &'a [Attr<'a>]| -> Vec<(&'a str, &'a str)> {
            let text = |value: &Value<'a>| match value {
                Value::Str(text) => text,
                _ => &*arena.alloc_str(text_of(value, &mut String::new())),
            };
            attrs.iter().map(|attr| (attr.key, text(&attr.value))).collect()
        };
        let resource = texts(group.resource.attrs);
        let find = |key: &str| resource.iter().find(|entry| entry.0 == key).map_or("", |entry| entry.1);
        Self {
            number,
            service: find("service.name"),
            service_version: find("service.version"),
            scope: texts(group.scope.attrs),
            schema_url: match group.scope.schema_url {
                "" => group.resource.schema_url,
                schema_url => schema_url,
            },
            resource,
        }
    }
}

fn millis(values: Vec<i64>) -> ArrayRef {
    Arc::new(TimestampMillisecondArray::from(values).with_timezone("UTC"))
}

fn nanos(values: Vec<i64>) -> ArrayRef {
    Arc::new(TimestampNanosecondArray::from(values).with_timezone("UTC"))
}

fn batch(columns: Vec<(&'static str, ArrayRef)>) -> Result<RecordBatch, ArrowError> {
    let fields: Vec<Field> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, array)| array).collect())
}

/// The columns that say what a span or log record means, but for `content`.
struct Meaning {
    dialect: Dictionary,
    operation: Dictionary,
    kind: Dictionary,
    provider: Dictionary,
    request_model: Dictionary,
    response_model: Dictionary,
    response_id: Text,
    agent_name: Dictionary,
    agent_id: Text,
    agent_version: Dictionary,
    conversation_id: Text,
    user_id: Text,
    workflow_name: Dictionary,
    tool_name: Dictionary,
    tool_call_id: Text,
    input_tokens: UInt64Builder,
    output_tokens: UInt64Builder,
    cache_read_tokens: UInt64Builder,
    cache_write_tokens: UInt64Builder,
    reasoning_tokens: UInt64Builder,
    usage_scope: Dictionary,
    usage_scope_reason: Dictionary,
    input_basis: Dictionary,
    reported_cost_usd: Decimal128Builder,
    time_to_first_chunk_s: Float64Builder,
    finish_reasons: Texts,
    finish_reasons_raw: Texts,
    error_type: Dictionary,
    tool_status: Dictionary,
    input_preview: Text,
    output_preview: Text,
}

/// Decimal(18, 9).
const MONEY_PRECISION: u8 = 18;
const MONEY_SCALE: i8 = 9;
const MONEY_MAX: i64 = 999_999_999_999_999_999;

impl Meaning {
    pub fn new(rows: usize) -> Self {
        let dictionary = || Dictionary::new(rows);
        let id = || Text::with_capacity(rows, rows * 32);
        let tokens = || UInt64Builder::with_capacity(rows);
        Self {
            dialect: dictionary(),
            operation: dictionary(),
            kind: dictionary(),
            provider: dictionary(),
            request_model: dictionary(),
            response_model: dictionary(),
            response_id: id(),
            agent_name: dictionary(),
            agent_id: Text::with_capacity(rows, 0),
            agent_version: dictionary(),
            conversation_id: id(),
            user_id: Text::with_capacity(rows, 0),
            workflow_name: dictionary(),
            tool_name: dictionary(),
            tool_call_id: id(),
            input_tokens: tokens(),
            output_tokens: tokens(),
            cache_read_tokens: tokens(),
            cache_write_tokens: tokens(),
            reasoning_tokens: tokens(),
            usage_scope: dictionary(),
            usage_scope_reason: dictionary(),
            input_basis: dictionary(),
            reported_cost_usd: Decimal128Builder::with_capacity(rows),
            time_to_first_chunk_s: Float64Builder::with_capacity(rows),
            finish_reasons: Texts::new(rows),
            finish_reasons_raw: Texts::new(rows),
            error_type: dictionary(),
            tool_status: dictionary(),
            input_preview: Text::with_capacity(rows, 0),
            output_preview: Text::with_capacity(rows, 0),
        }
    }

    pub fn push(&mut self, canonical: &Canonical<'_>) {
        self.dialect.push(&canonical.dialect);
        self.operation.push(&canonical.operation);
        self.kind.push(&canonical.kind);
        self.provider.push(&canonical.provider);
        self.request_model.push(&canonical.request_model);
        self.response_model.push(&canonical.response_model);
        self.response_id.push(&canonical.response_id);
        self.agent_name.push(&canonical.agent_name);
        self.agent_id.push(&canonical.agent_id);
        self.agent_version.push(&canonical.agent_version);
        self.conversation_id.push(&canonical.conversation_id);
        self.user_id.push(&canonical.user_id);
        self.workflow_name.push(&canonical.workflow_name);
        self.tool_name.push(&canonical.tool_name);
        self.tool_call_id.push(&canonical.tool_call_id);
        self.input_tokens.append_option(canonical.usage.input);
        self.output_tokens.append_option(canonical.usage.output);
        self.cache_read_tokens.append_option(canonical.usage.cache_read);
        self.cache_write_tokens.append_option(canonical.usage.cache_write);
        self.reasoning_tokens.append_option(canonical.usage.reasoning);
        self.usage_scope.push(match canonical.usage_scope {
            "" => "none",
            scope => scope,
        });
        self.usage_scope_reason.push(canonical.usage_scope_reason);
        self.input_basis.push(canonical.input_basis);
        let cost = canonical.reported_cost_nano_usd.filter(|cost| (-MONEY_MAX..=MONEY_MAX).contains(cost));
        self.reported_cost_usd.append_option(cost.map(i128::from));
        self.time_to_first_chunk_s.append_option(canonical.time_to_first_chunk_s);
        self.finish_reasons.row(canonical.finish_reasons.iter().map(|reason| &**reason));
        self.finish_reasons_raw.row(canonical.finish_reasons_raw.iter().map(|reason| &**reason));
        self.error_type.push(&canonical.error_type);
        self.tool_status.push(&canonical.tool_status);
        self.input_preview.push(preview(&canonical.input_preview));
        self.output_preview.push(preview(&canonical.output_preview));
    }

    pub fn finish(mut self) -> Result<Vec<(&'static str, ArrayRef)>, ArrowError> {
        Ok(vec![
            ("dialect", self.dialect.finish()),
            ("operation", self.operation.finish()),
            ("kind", self.kind.finish()),
            ("provider", self.provider.finish()),
            ("request_model", self.request_model.finish()),
            ("response_model", self.response_model.finish()),
            ("response_id", self.response_id.finish()),
            ("agent_name", self.agent_name.finish()),
            ("agent_id", self.agent_id.finish()),
            ("agent_version", self.agent_version.finish()),
            ("conversation_id", self.conversation_id.finish()),
            ("user_id", self.user_id.finish()),
            ("workflow_name", self.workflow_name.finish()),
            ("tool_name", self.tool_name.finish()),
            ("tool_call_id", self.tool_call_id.finish()),
            ("input_tokens", Arc::new(self.input_tokens.finish())),
            ("output_tokens", Arc::new(self.output_tokens.finish())),
            ("cache_read_tokens", Arc::new(self.cache_read_tokens.finish())),
            ("cache_write_tokens", Arc::new(self.cache_write_tokens.finish())),
            ("reasoning_tokens", Arc::new(self.reasoning_tokens.finish())),
            ("usage_scope", self.usage_scope.finish()),
            ("usage_scope_reason", self.usage_scope_reason.finish()),
            ("input_basis", self.input_basis.finish()),
            (
                "reported_cost_usd",
                Arc::new(self.reported_cost_usd.finish().with_precision_and_scale(MONEY_PRECISION, MONEY_SCALE)?),
            ),
            ("time_to_first_chunk_s", Arc::new(self.time_to_first_chunk_s.finish())),
            ("finish_reasons", self.finish_reasons.finish()),
            ("finish_reasons_raw", self.finish_reasons_raw.finish()),
            ("error_type", self.error_type.finish()),
            ("tool_status", self.tool_status.finish()),
            ("input_preview", self.input_preview.finish()),
            ("output_preview", self.output_preview.finish()),
        ])
    }
}

const SPAN_COLUMNS: &[&str] = &[
    "tenant",
    "trace_id",
    "span_id",
    "parent_span_id",
    "trace_state",
    "flags",
    "start_time",
    "duration_ns",
    "time_flag",
    "service",
    "service_version",
    "scope",
    "scope_version",
    "name",
    "span_kind",
    "status",
    "status_message",
    "dialect",
    "operation",
    "kind",
    "provider",
    "request_model",
    "response_model",
    "response_id",
    "agent_name",
    "agent_id",
    "agent_version",
    "conversation_id",
    "user_id",
    "workflow_name",
    "tool_name",
    "tool_call_id",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "usage_scope",
    "usage_scope_reason",
    "input_basis",
    "cost_usd",
    "cost_source",
    "reported_cost_usd",
    "time_to_first_chunk_s",
    "finish_reasons",
    "finish_reasons_raw",
    "error_type",
    "tool_status",
    "input_preview",
    "output_preview",
    "fingerprint",
    "content",
    "attributes",
    "attribute_types",
    "resource_attributes",
    "scope_attributes",
    "events",
    "links",
    "dropped_attributes_count",
    "dropped_events_count",
    "dropped_links_count",
    "schema_url",
    "day",
    "received_at",
    "version",
];

const LOG_COLUMNS: &[&str] = &[
    "tenant",
    "trace_id",
    "span_id",
    "time",
    "event_name",
    "severity",
    "service",
    "scope",
    "dialect",
    "operation",
    "kind",
    "provider",
    "request_model",
    "response_model",
    "response_id",
    "agent_name",
    "conversation_id",
    "user_id",
    "tool_name",
    "tool_call_id",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "input_basis",
    "reported_cost_usd",
    "finish_reasons",
    "finish_reasons_raw",
    "error_type",
    "tool_status",
    "input_preview",
    "output_preview",
    "content",
    "body",
    "attributes",
    "attribute_types",
    "resource_attributes",
    "record_id",
    "day",
    "received_at",
];

/// The columns called `names`, in that order.
fn ordered(names: &'static [&'static str], columns: Vec<(&'static str, ArrayRef)>) -> Result<RecordBatch, ArrowError> {
    let mut by_name: HashMap<&str, ArrayRef, FxBuildHasher> = columns.into_iter().collect();
    let column = |name: &&'static str| {
        let array = by_name.remove(name);
        array.map(|array| (*name, array)).ok_or_else(|| ArrowError::SchemaError((*name).to_owned()))
    };
    batch(names.iter().map(column).collect::<Result<_, _>>()?)
}

pub struct SpanRows {
    tenant: Dictionary,
    trace_id: Text,
    span_id: Text,
    parent_span_id: Text,
    trace_state: Text,
    flags: Vec<u32>,
    start_time: Vec<i64>,
    duration_ns: Vec<u64>,
    time_flag: Dictionary,
    service: Dictionary,
    service_version: Dictionary,
    scope: Dictionary,
    scope_version: Dictionary,
    name: Dictionary,
    span_kind: Dictionary,
    status: Dictionary,
    status_message: Text,
    meaning: Meaning,
    fingerprint: Bytes,
    attributes: Map,
    attribute_types: Text,
    resource_attributes: Map,
    scope_attributes: Map,
    events: Events,
    links: Links,
    dropped_attributes_count: Vec<u32>,
    dropped_events_count: Vec<u32>,
    dropped_links_count: Vec<u32>,
    schema_url: Dictionary,
    day: Vec<i32>,
    received_at: Vec<i64>,
    version: Vec<u64>,
    common: Common,
    fingerprints: Fingerprints,
    /// Text of the value being written.
    text: String,
    types: String,
}

const SPAN_KINDS: [&str; 6] = ["unspecified", "internal", "server", "client", "producer", "consumer"];
const STATUSES: [&str; 3] = ["unset", "ok", "error"];

/// Which of several rows of one span wins, see `version` in `spanwise/model.py`.
fn version(end_unix_nano: u64, span: &[u8]) -> u64 {
    let time = (end_unix_nano >> 20).min((1 << 41) - 1);
    time << 23 | (xxh3_64(span) & 0x7_ffff) << 4
}

impl SpanRows {
    /// For so many rows, made of so many encoded bytes.
    pub fn new(rows: usize, bytes: usize) -> Self {
        let text = |row: usize| bytes.min(rows * row);
        let dictionary = || Dictionary::new(rows);
        Self {
            tenant: dictionary(),
            trace_id: Text::with_capacity(rows, rows * 32),
            span_id: Text::with_capacity(rows, rows * 16),
            parent_span_id: Text::with_capacity(rows, rows * 16),
            trace_state: Text::with_capacity(rows, 0),
            flags: Vec::with_capacity(rows),
            start_time: Vec::with_capacity(rows),
            duration_ns: Vec::with_capacity(rows),
            time_flag: dictionary(),
            service: dictionary(),
            service_version: dictionary(),
            scope: dictionary(),
            scope_version: dictionary(),
            name: dictionary(),
            span_kind: dictionary(),
            status: dictionary(),
            status_message: Text::with_capacity(rows, 0),
            meaning: Meaning::new(rows),
            fingerprint: Bytes::new(rows),
            attributes: Map::with_capacity(rows, rows * 14, text(640)),
            attribute_types: Text::with_capacity(rows, rows * 14),
            resource_attributes: Map::with_capacity(rows, rows * 6, text(192)),
            scope_attributes: Map::new(rows),
            events: Events::new(rows),
            links: Links::new(rows),
            dropped_attributes_count: Vec::with_capacity(rows),
            dropped_events_count: Vec::with_capacity(rows),
            dropped_links_count: Vec::with_capacity(rows),
            schema_url: dictionary(),
            day: Vec::with_capacity(rows),
            received_at: Vec::with_capacity(rows),
            version: Vec::with_capacity(rows),
            common: Common::default(),
            fingerprints: Fingerprints::default(),
            text: String::new(),
            types: String::new(),
        }
    }

    /// Bytes of the fullest text column.
    pub fn text_bytes(&self) -> usize {
        [
            self.attributes.text_bytes(),
            self.resource_attributes.text_bytes(),
            self.scope_attributes.text_bytes(),
            self.events.text_bytes(),
            self.links.text_bytes(),
            self.status_message.text_bytes(),
            self.trace_state.text_bytes(),
            self.name.text_bytes(),
            self.schema_url.text_bytes(),
            self.fingerprint.bytes(),
        ]
        .into_iter()
        .max()
        .unwrap_or(0)
    }

    pub fn push(
        &mut self,
        plan: &Plan,
        item: &Item<'_, '_>,
        span: &SpanView<'_>,
        canonical: &Canonical<'_>,
        trace: &Trace<'_>,
        big: &mut Big<'_>,
    ) {
        self.push_common(item.origin, span, trace, big);
        self.trace_id.push_hex(trace.id);
        self.span_id.push_hex(&span.span_id);
        self.parent_span_id.push_hex(span.parent_span_id.as_ref().map_or(&[], |id| &id[..]));
        self.trace_state.push(span.trace_state);
        self.flags.push(span.flags);
        self.start_time.push(storable(span.start_unix_nano));
        self.duration_ns.push(span.end_unix_nano.saturating_sub(span.start_unix_nano));
        let inverted = span.end_unix_nano < span.start_unix_nano;
        self.time_flag.push(if trace.time_flag.is_empty() && inverted { "inverted" } else { trace.time_flag });
        self.name.push(span.name);
        self.span_kind.push(SPAN_KINDS[usize::from(span.kind)]);
        self.status.push(STATUSES[usize::from(span.status)]);
        self.status_message.push(span.status_message);
        self.meaning.push(canonical);
        self.fingerprint.push(|out| self.fingerprints.write(plan, span, canonical, out));
        self.push_attributes(span, canonical, inverted, trace, big);
        self.push_events(span, trace, big);
        self.push_links(span, trace, big);
        for value in &canonical.content {
            big.refer(trace, value.key, value.form, &value.value, value.hash);
        }
        big.references.end_row();
        self.dropped_attributes_count.push(span.dropped_attributes_count);
        self.dropped_events_count.push(span.dropped_events_count);
        self.dropped_links_count.push(span.dropped_links_count);
        self.day.push(trace.day);
        self.received_at.push(trace.received.millis);
        self.version.push(version(span.end_unix_nano, item.body));
    }

    fn push_common(&mut self, origin: &Origin<'_>, span: &SpanView<'_>, trace: &Trace<'_>, big: &mut Big<'_>) {
        if self.common.number != origin.number {
            self.common = Common {
                number: origin.number,
                tenant: self.tenant.key(trace.tenant),
                service: self.service.key(origin.service),
                service_version: self.service_version.key(origin.service_version),
                scope: self.scope.key(span.scope.name),
                scope_version: self.scope_version.key(span.scope.version),
                schema_url: self.schema_url.key(origin.schema_url),
                resource: None,
                scope_attributes: None,
            };
        }
        let common = &mut self.common;
        self.tenant.push_key(common.tenant);
        self.service.push_key(common.service);
        self.service_version.push_key(common.service_version);
        self.scope.push_key(common.scope);
        self.scope_version.push_key(common.scope_version);
        self.schema_url.push_key(common.schema_url);
        for (map, written, place, entries) in [
            (&mut self.resource_attributes, &mut common.resource, Place::Resource, &origin.resource),
            (&mut self.scope_attributes, &mut common.scope_attributes, Place::Scope, &origin.scope),
        ] {
            if let Some((start, end)) = *written {
                map.repeat(start, end);
            } else {
                let start = map.entries();
                for (key, text) in entries {
                    big.entry(trace, map, place, key, text);
                }
                let cut = entries.iter().any(|(_, text)| text.len() > INLINE_BYTES_MAX);
                *written = (!cut).then_some((start, map.entries()));
            }
            map.end_row();
        }
    }

    fn push_attributes(
        &mut self,
        span: &SpanView<'_>,
        canonical: &Canonical<'_>,
        inverted: bool,
        trace: &Trace<'_>,
        big: &mut Big<'_>,
    ) {
        self.types.clear();
        for attr in &span.attrs {
            let text = text_of(&attr.value, &mut self.text);
            big.entry(trace, &mut self.attributes, Place::Attributes, attr.key, text);
            self.types.push(letter(&attr.value));
        }
        let mut derive = |key: &str, text: &str, letter: u8| {
            if span.attrs.iter().all(|attr| attr.key != key) {
                big.entry(trace, &mut self.attributes, Place::Attributes, key, text);
                self.types.push(char::from(letter.to_ascii_uppercase()));
            }
        };
        for (key, text, letter) in &canonical.derived {
            derive(key, text, *letter);
        }
        if i64::try_from(span.start_unix_nano).is_err() {
            derive("spanwise.start_time_unix_nano", itoa::Buffer::new().format(span.start_unix_nano), b'I');
        }
        if inverted {
            derive("spanwise.end_time_unix_nano", itoa::Buffer::new().format(span.end_unix_nano), b'I');
        }
        self.attributes.end_row();
        self.attribute_types.push(&self.types);
    }

    fn push_events(&mut self, span: &SpanView<'_>, trace: &Trace<'_>, big: &mut Big<'_>) {
        for (index, event) in span.events.iter().enumerate() {
            self.events.push(storable(event.time_unix_nano), event.name);
            self.types.clear();
            for attr in &event.attrs {
                let text = text_of(&attr.value, &mut self.text);
                big.entry(trace, &mut self.events.attributes, Place::Event(index), attr.key, text);
                self.types.push(letter(&attr.value));
            }
            self.events.attributes.end_row();
            self.events.types.push(&self.types);
        }
        self.events.end_row();
    }

    fn push_links(&mut self, span: &SpanView<'_>, trace: &Trace<'_>, big: &mut Big<'_>) {
        for (index, link) in span.links.iter().enumerate() {
            self.links.push(link.trace_id, link.span_id, link.trace_state);
            for attr in &link.attrs {
                let text = text_of(&attr.value, &mut self.text);
                big.entry(trace, &mut self.links.attributes, Place::Link(index), attr.key, text);
            }
            self.links.attributes.end_row();
        }
        self.links.end_row();
    }

    pub fn finish(self, references: References) -> Result<RecordBatch, ArrowError> {
        let rows = self.flags.len();
        let mut cost_source = Dictionary::new(rows);
        for _ in 0..rows {
            cost_source.push("");
        }
        let unpriced = Decimal128Array::new_null(rows).with_precision_and_scale(MONEY_PRECISION, MONEY_SCALE)?;
        let mut columns = self.meaning.finish()?;
        columns.extend([
            ("tenant", self.tenant.finish()),
            ("trace_id", self.trace_id.finish()),
            ("span_id", self.span_id.finish()),
            ("parent_span_id", self.parent_span_id.finish()),
            ("trace_state", self.trace_state.finish()),
            ("flags", Arc::new(UInt32Array::from(self.flags))),
            ("start_time", nanos(self.start_time)),
            ("duration_ns", Arc::new(UInt64Array::from(self.duration_ns))),
            ("time_flag", self.time_flag.finish()),
            ("service", self.service.finish()),
            ("service_version", self.service_version.finish()),
            ("scope", self.scope.finish()),
            ("scope_version", self.scope_version.finish()),
            ("name", self.name.finish()),
            ("span_kind", self.span_kind.finish()),
            ("status", self.status.finish()),
            ("status_message", self.status_message.finish()),
            ("cost_usd", Arc::new(unpriced)),
            ("cost_source", cost_source.finish()),
            ("fingerprint", self.fingerprint.finish()),
            ("content", references.finish()),
            ("attributes", self.attributes.finish()),
            ("attribute_types", self.attribute_types.finish()),
            ("resource_attributes", self.resource_attributes.finish()),
            ("scope_attributes", self.scope_attributes.finish()),
            ("events", self.events.finish()),
            ("links", self.links.finish()),
            ("dropped_attributes_count", Arc::new(UInt32Array::from(self.dropped_attributes_count))),
            ("dropped_events_count", Arc::new(UInt32Array::from(self.dropped_events_count))),
            ("dropped_links_count", Arc::new(UInt32Array::from(self.dropped_links_count))),
            ("schema_url", self.schema_url.finish()),
            ("day", Arc::new(Date32Array::from(self.day))),
            ("received_at", millis(self.received_at)),
            ("version", Arc::new(UInt64Array::from(self.version))),
        ]);
        ordered(SPAN_COLUMNS, columns)
    }
}

pub struct LogRows {
    tenant: Dictionary,
    trace_id: Text,
    span_id: Text,
    time: Vec<i64>,
    event_name: Dictionary,
    severity: Vec<u32>,
    service: Dictionary,
    scope: Dictionary,
    meaning: Meaning,
    references: References,
    body: Text,
    attributes: Map,
    attribute_types: Text,
    resource_attributes: Map,
    record_id: Text,
    day: Vec<i32>,
    received_at: Vec<i64>,
    text: String,
    types: String,
}

/// Identity of a log record, which has none of its own.
fn record_id(group: &Group<'_>, body: &[u8]) -> [u8; 16] {
    let mut hasher = Xxh3Default::new();
    for part in [group.source.resource, group.source.scope, body] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.digest128().to_be_bytes()
}

impl LogRows {
    pub fn new() -> Self {
        let dictionary = || Dictionary::new(0);
        Self {
            tenant: dictionary(),
            trace_id: Text::new(),
            span_id: Text::new(),
            time: Vec::new(),
            event_name: dictionary(),
            severity: Vec::new(),
            service: dictionary(),
            scope: dictionary(),
            meaning: Meaning::new(0),
            references: References::new(0),
            body: Text::new(),
            attributes: Map::new(0),
            attribute_types: Text::new(),
            resource_attributes: Map::new(0),
            record_id: Text::new(),
            day: Vec::new(),
            received_at: Vec::new(),
            text: String::new(),
            types: String::new(),
        }
    }

    pub fn text_bytes(&self) -> usize {
        [
            self.attributes.text_bytes(),
            self.resource_attributes.text_bytes(),
            self.references.text_bytes(),
            self.body.text_bytes(),
            self.event_name.text_bytes(),
            self.scope.text_bytes(),
        ]
        .into_iter()
        .max()
        .unwrap_or(0)
    }

    pub fn push(
        &mut self,
        item: &Item<'_, '_>,
        record: &LogView<'_>,
        canonical: &Canonical<'_>,
        trace: &Trace<'_>,
        contents: &mut Contents,
    ) {
        let origin = item.origin;
        self.tenant.push(trace.tenant);
        self.trace_id.push_hex(trace.id);
        self.span_id.push_hex(record.span_id.as_ref().map_or(&[], |id| &id[..]));
        self.time.push(storable(record.time_unix_nano));
        self.event_name.push(record.event_name);
        self.severity.push(record.severity);
        self.service.push(origin.service);
        self.scope.push(record.scope.name);
        self.meaning.push(canonical);
        for value in &canonical.content {
            contents.put(trace, value.hash, &value.value);
            self.references.push(value.key, form_name(value.form), value.hash, value.value.len());
        }
        self.references.end_row();
        self.body.push(text_of(&record.body, &mut self.text));
        self.types.clear();
        for attr in &record.attrs {
            self.attributes.entry(attr.key, text_of(&attr.value, &mut self.text));
            self.types.push(letter(&attr.value));
        }
        for (key, text, letter) in &canonical.derived {
            if record.attrs.iter().all(|attr| attr.key != key) {
                self.attributes.entry(key, text);
                self.types.push(char::from(letter.to_ascii_uppercase()));
            }
        }
        self.attributes.end_row();
        self.attribute_types.push(&self.types);
        for (key, text) in &origin.resource {
            self.resource_attributes.entry(key, text);
        }
        self.resource_attributes.end_row();
        self.record_id.push_hex(&record_id(item.group, item.body));
        self.day.push(trace.day);
        self.received_at.push(trace.received.millis);
    }

    pub fn finish(self) -> Result<RecordBatch, ArrowError> {
        let mut columns = self.meaning.finish()?;
        columns.extend([
            ("tenant", self.tenant.finish()),
            ("trace_id", self.trace_id.finish()),
            ("span_id", self.span_id.finish()),
            ("time", nanos(self.time)),
            ("event_name", self.event_name.finish()),
            ("severity", Arc::new(UInt32Array::from(self.severity))),
            ("service", self.service.finish()),
            ("scope", self.scope.finish()),
            ("content", self.references.finish()),
            ("body", self.body.finish()),
            ("attributes", self.attributes.finish()),
            ("attribute_types", self.attribute_types.finish()),
            ("resource_attributes", self.resource_attributes.finish()),
            ("record_id", self.record_id.finish()),
            ("day", Arc::new(Date32Array::from(self.day))),
            ("received_at", millis(self.received_at)),
        ]);
        ordered(LOG_COLUMNS, columns)
    }
}
