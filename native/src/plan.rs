//! The normalisation plan as the engine executes it: keys interned, tables resolved, tests turned into bit sets.
//!
//! `processors/normalise/plan.py` compiles and validates the tables; this module only refuses what it cannot execute.

use rustc_hash::FxHashMap;
use serde::Deserialize;

use crate::fingerprint::{Errors, RawErrors};
use crate::messages::{ContentPlan, ContentRow};

pub type KeyId = u16;
pub type PrefixId = u16;

/// One bit a dialect, lowest priority number first.
pub type DialectMask = u64;

pub type TextMap = FxHashMap<Box<str>, Box<str>>;

pub const DIALECTS_MAX: usize = 64;
pub const PREFIXES_MAX: usize = 256;

/// Which of the interned prefixes an attribute, or any attribute of a span, starts with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixSet([u64; PREFIXES_MAX / 64]);

impl PrefixSet {
    pub fn insert(&mut self, id: PrefixId) {
        self.0[usize::from(id) / 64] |= 1 << (id % 64);
    }

    pub fn contains(&self, id: PrefixId) -> bool {
        self.0[usize::from(id) / 64] >> (id % 64) & 1 == 1
    }

    pub fn extend(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine |= theirs;
        }
    }
}

/// Gives every attribute key and key prefix that a table names a small number.
#[derive(Default)]
pub struct Interner {
    keys: FxHashMap<Box<str>, KeyId>,
    prefixes: Vec<Box<str>>,
    /// Prefixes by their first three bytes.
    buckets: FxHashMap<[u8; 3], Vec<PrefixId>>,
    key_prefixes: Vec<PrefixSet>,
}

impl Interner {
    pub fn key(&mut self, key: &str) -> KeyId {
        if let Some(&id) = self.keys.get(key) {
            return id;
        }
        let id = self.keys.len() as KeyId;
        self.keys.insert(key.into(), id);
        id
    }

    /// Prefixes are at least three bytes long.
    pub fn prefix(&mut self, prefix: &str) -> Result<PrefixId, String> {
        if let Some(at) = self.prefixes.iter().position(|p| **p == *prefix) {
            return Ok(at as PrefixId);
        }
        let Some(&head) = prefix.as_bytes().first_chunk::<3>() else {
            return Err(format!("prefix {prefix:?} is shorter than 3 bytes"));
        };
        if self.prefixes.len() == PREFIXES_MAX {
            return Err(format!("more than {PREFIXES_MAX} key prefixes"));
        }
        let id = self.prefixes.len() as PrefixId;
        self.prefixes.push(prefix.into());
        self.buckets.entry(head).or_default().push(id);
        Ok(id)
    }

    fn seal(&mut self) {
        self.key_prefixes = vec![PrefixSet::default(); self.keys.len()];
        let sets: Vec<(KeyId, PrefixSet)> = self.keys.iter().map(|(key, &id)| (id, self.prefixes_of(key))).collect();
        for (id, set) in sets {
            self.key_prefixes[usize::from(id)] = set;
        }
    }

    pub fn find(&self, key: &str) -> Option<KeyId> {
        self.keys.get(key).copied()
    }

    pub fn matching_prefixes<'k>(&'k self, key: &'k str) -> impl Iterator<Item = PrefixId> + 'k {
        let bucket = key.as_bytes().first_chunk::<3>().and_then(|head| self.buckets.get(head));
        bucket.into_iter().flatten().copied().filter(move |id| key.starts_with(&*self.prefixes[usize::from(*id)]))
    }

    fn prefixes_of(&self, key: &str) -> PrefixSet {
        let mut set = PrefixSet::default();
        for id in self.matching_prefixes(key) {
            set.insert(id);
        }
        set
    }

    pub fn prefixes_of_known(&self, id: KeyId) -> &PrefixSet {
        &self.key_prefixes[usize::from(id)]
    }

    pub fn prefix_text(&self, id: PrefixId) -> &str {
        &self.prefixes[usize::from(id)]
    }

    pub fn keys_len(&self) -> usize {
        self.keys.len()
    }
}

// ------------------------------------------------------------------------------------------------- the plan as JSON

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPlan {
    format: u32,
    /// Column `kind` values in bit order of `on` masks.
    kinds: Vec<String>,
    /// Canonical operation → kind.
    operations: FxHashMap<String, String>,
    operation_names: Vec<(String, RawMeaning)>,
    targets: FxHashMap<String, RawTarget>,
    /// Lower-case raw provider → canonical, '' = not a provider.
    providers: FxHashMap<String, String>,
    finish_reasons: FxHashMap<String, String>,
    maps: FxHashMap<String, FxHashMap<String, String>>,
    dialects: Vec<RawDialect>,
    errors: RawErrors,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTarget {
    column: Option<String>,
    #[serde(rename = "type")]
    value_type: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMeaning {
    #[serde(default)]
    operation: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    usage: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDialect {
    name: String,
    priority: u32,
    detect: RawDetect,
    basis: RawBasis,
    rules: Vec<RawRule>,
    markers: Vec<RawMarker>,
    rows: Vec<RawRow>,
    /// With those of the dialects it falls back to.
    content: Vec<ContentRow>,
    logs: Vec<RawLog>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDetect {
    scope: Vec<String>,
    scope_prefix: Vec<String>,
    resource_equals: FxHashMap<String, Vec<String>>,
    resource_prefix: FxHashMap<String, Vec<String>>,
    any_attr: Vec<String>,
    any_attr_prefix: Vec<String>,
    attr_equals: FxHashMap<String, Vec<String>>,
    span_name_prefix: Vec<String>,
    span_events: Vec<String>,
    none_attr: Vec<String>,
    none_attr_prefix: Vec<String>,
    require_attr_prefix: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBasis {
    default: String,
    scopes: FxHashMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    when: RawWhen,
    meaning: RawMeaning,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWhen {
    scope: Vec<String>,
    scope_prefix: Option<String>,
    name: Option<String>,
    name_prefix: Option<String>,
    name_suffix: Option<String>,
    name_regex: Option<String>,
    attr: Vec<String>,
    any_attr: Vec<String>,
    any_attr_prefix: Vec<String>,
    no_attr: Vec<String>,
    attr_eq: FxHashMap<String, String>,
    root: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMarker {
    key: String,
    how: Vec<String>,
    anywhere: bool,
    suffix: bool,
    table: Vec<(String, RawMeaning)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRow {
    from: Vec<String>,
    to: String,
    action: String,
    how: Vec<String>,
    on: Vec<String>,
    not_on: Vec<String>,
    equals: Vec<String>,
    scope: Vec<String>,
    unless: Vec<String>,
    failed: Option<bool>,
    fallback: bool,
    aggregate: bool,
    outside: bool,
    basis: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLog {
    event: String,
    meaning: RawMeaning,
    require: Vec<String>,
}

// --------------------------------------------------------------------------------------------- the plan as executed

/// Position of a value of the column `kind` in `Plan::kinds`; 0 is ''.
pub type Kind = u8;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScopeRule {
    Own,
    /// own unless a descendant turns out to carry the usage.
    OwnTentative,
    Aggregate,
    #[default]
    None,
}

/// What a rule, marker value or operation name says a span is.
#[derive(Clone, Debug, Default)]
pub struct Meaning {
    pub operation: String,
    pub kind: Kind,
    pub scope: ScopeRule,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    Provider,
    RequestModel,
    ResponseModel,
    ResponseId,
    AgentName,
    AgentId,
    AgentVersion,
    ConversationId,
    UserId,
    WorkflowName,
    ToolName,
    ToolCallId,
    InputTokens,
    OutputTokens,
    CacheReadTokens,
    CacheWriteTokens,
    ReasoningTokens,
    TotalTokens,
    /// The provider's own input count beside the producer's, see [`Basis::VercelNative`].
    NativeInputTokens,
    ReportedCost,
    TimeToFirstChunk,
    FinishReasons,
    ErrorType,
    ToolStatus,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    Text,
    Int,
    Float,
    Bool,
    Usd,
    TextList,
    /// Whatever it is, as text.
    Any,
}

#[derive(Clone, Debug)]
pub struct Target {
    pub name: Box<str>,
    pub column: Option<Column>,
    pub value_type: ValueType,
}

#[derive(Clone, Debug)]
pub enum Step {
    /// Dotted path into a JSON document or key-value list.
    Json(Box<[Box<str>]>),
    /// Dotted path into the Python literal of a dict.
    PyRepr(Box<[Box<str>]>),
    Provider,
    Map(u16),
    Const(Box<str>),
    MsToS,
    MicrosToUsd,
    IsoSinceStart,
    UrlHost,
    Split(Box<str>),
    Join(Box<str>),
    OnlyText,
    StripClass,
    StripPrefix(Box<str>),
    StripSuffix(Box<str>),
    /// What follows the last '/' if the part before it is a provider.
    StripProvider,
    OnlyIfPrefix(Box<str>),
}

#[derive(Clone, Debug)]
pub enum Source {
    Key(KeyId),
    Prefix(PrefixId),
    /// `prefix.*.suffix`: one value an index, in the order sent.
    Indexed {
        prefix: PrefixId,
        suffix: Box<str>,
    },
    /// Attribute of a span event.
    Event {
        event: Box<str>,
        key: Box<str>,
    },
    Resource(Box<str>),
    Name,
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Copy,
    /// Copy, and hide the source from the rows that follow.
    Take,
    /// Hide the source from the rows that follow.
    Drop,
}

#[derive(Clone, Debug)]
pub struct Row {
    pub from: Box<[Source]>,
    pub target: u16,
    pub action: Action,
    pub how: Box<[Step]>,
    /// Bit set of kinds.
    pub on: u32,
    pub equals: Box<[Box<str>]>,
    pub scope: Box<[Box<str>]>,
    pub unless: Box<[KeyId]>,
    /// Only for spans with status error, or only for others.
    pub failed: Option<bool>,
    /// Follows the rows of `otel_genai`.
    pub fallback: bool,
    pub aggregate: bool,
    /// The count is not inside its total.
    pub outside: bool,
    /// Overrides the dialect's input basis when the row yields.
    pub basis: Option<Basis>,
}

/// One row of the order of work for a dialect, small enough to skip over quickly.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    /// The row cannot yield without this key; `ANY_KEY` if there is more to it.
    pub key: KeyId,
    pub dialect: u16,
    pub row: u16,
}

pub const ANY_KEY: KeyId = KeyId::MAX;

pub struct When {
    pub scope: Box<[Box<str>]>,
    pub scope_prefix: Option<Box<str>>,
    pub name: Option<Box<str>>,
    pub name_prefix: Option<Box<str>>,
    pub name_suffix: Option<Box<str>>,
    pub name_regex: Option<regex_lite::Regex>,
    pub attr: Box<[KeyId]>,
    pub any_attr: Box<[KeyId]>,
    pub any_attr_prefix: Box<[PrefixId]>,
    pub no_attr: Box<[KeyId]>,
    pub attr_eq: Box<[(KeyId, Box<str>)]>,
    pub root: Option<bool>,
}

pub struct Rule {
    pub when: When,
    pub meaning: Meaning,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkerKey {
    Attr(KeyId),
    /// First word of the span name.
    NameWord,
}

pub struct Marker {
    pub key: MarkerKey,
    pub how: Box<[Step]>,
    /// Also on spans of other dialects.
    pub anywhere: bool,
    /// Match the end of the value instead of the whole, first entry wins; '*' matches everything.
    pub suffix: bool,
    /// Lower-case values.
    pub table: Vec<(Box<str>, Meaning)>,
    pub exact: FxHashMap<Box<str>, u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    Inclusive,
    Exclusive,
    ProviderNative,
    /// AI SDK up to 6.0: provider native unless the provider metadata shows otherwise.
    VercelNative,
    Unknown,
}

#[derive(Default)]
pub struct Detect {
    pub scope: Vec<Box<str>>,
    pub scope_prefix: Vec<Box<str>>,
    pub resource_equals: Vec<(Box<str>, Vec<Box<str>>)>,
    pub resource_prefix: Vec<(Box<str>, Vec<Box<str>>)>,
    pub attr_equals: Vec<(KeyId, Vec<Box<str>>)>,
    pub span_name_prefix: Vec<Box<str>>,
    pub span_events: Vec<Box<str>>,
    pub none_attr: Vec<KeyId>,
    pub none_attr_prefix: Vec<PrefixId>,
    pub require_attr_prefix: Vec<PrefixId>,
}

pub struct LogRule {
    pub event: Box<str>,
    pub meaning: Meaning,
    /// Attributes without which the record says nothing.
    pub require: Box<[KeyId]>,
}

pub struct Dialect {
    pub name: Box<str>,
    pub detect: Detect,
    pub basis: Basis,
    pub basis_by_scope: Vec<(Box<str>, Basis)>,
    pub rules: Vec<Rule>,
    pub markers: Vec<Marker>,
    pub rows: Vec<Row>,
    /// By kind: rows of this dialect, of `otel_genai`, fallbacks of this dialect, rows of `otel_genai_legacy`.
    pub programs: Vec<Box<[Op]>>,
    pub content: ContentPlan,
    pub logs: Vec<LogRule>,
    /// Keys whose presence means that the span names a model.
    pub model_keys: Vec<KeyId>,
}

pub struct Plan {
    pub interner: Interner,
    /// Dialects that a key, or a prefix, is evidence for in the second detection pass.
    pub dialects_of_key: Vec<DialectMask>,
    pub dialects_of_prefix: Vec<DialectMask>,
    /// Dialects with an attribute-value test.
    pub dialects_by_value: DialectMask,
    pub dialects_by_name: DialectMask,
    pub dialects_by_event: DialectMask,
    pub dialects: Vec<Dialect>,
    pub otel_genai: usize,
    pub otel_genai_legacy: usize,
    pub kinds: Vec<Box<str>>,
    pub operation_kinds: FxHashMap<Box<str>, Kind>,
    pub operation_names: FxHashMap<Box<str>, Meaning>,
    pub targets: Vec<Target>,
    pub providers: TextMap,
    pub finish_reasons: TextMap,
    pub maps: Vec<TextMap>,
    pub known: Known,
    /// Keys of the markers that count anywhere.
    pub marker_keys: Vec<KeyId>,
    /// Event name → dialect and its log rule.
    pub log_events: FxHashMap<Box<str>, (u16, u16)>,
    pub errors: Errors,
}

/// Keys the engine itself looks at.
pub struct Known {
    pub operation_name: KeyId,
    pub tool_name: KeyId,
    pub tool_call_id: KeyId,
    pub request_model: KeyId,
    pub response_model: KeyId,
    pub llm_request_type: KeyId,
    pub gen_ai: PrefixId,
    pub usage: PrefixId,
    pub llm_kind: Kind,
    pub tool_kind: Kind,
}

impl Meaning {
    pub const NOTHING: Self = Self { operation: String::new(), kind: 0, scope: ScopeRule::None };
}

impl Plan {
    /// Errors name the dialect and row.
    pub fn from_json(json: &[u8]) -> Result<Self, String> {
        let raw: RawPlan = serde_json::from_slice(json).map_err(|e| format!("cannot read the plan: {e}"))?;
        if raw.format != 1 {
            return Err(format!("the plan has format {}, this build reads format 1", raw.format));
        }
        if raw.dialects.len() > DIALECTS_MAX {
            return Err(format!("the plan has {} dialects, at most {DIALECTS_MAX} work", raw.dialects.len()));
        }
        if raw.kinds.len() > 31 || raw.kinds.first().is_none_or(|k| !k.is_empty()) {
            return Err("the plan's kinds must start with '' and number at most 31".into());
        }
        Compiler::new(&raw)?.compile(raw)
    }
}

struct Compiler {
    interner: Interner,
    kinds: FxHashMap<String, Kind>,
    operation_kinds: FxHashMap<Box<str>, Kind>,
    targets: Vec<Target>,
    target_ids: FxHashMap<String, u16>,
    map_ids: FxHashMap<String, u16>,
}

fn boxed(list: Vec<String>) -> Box<[Box<str>]> {
    list.into_iter().map(String::into_boxed_str).collect()
}

fn boxed_vec(list: Vec<String>) -> Vec<Box<str>> {
    list.into_iter().map(String::into_boxed_str).collect()
}

fn boxed_map(map: FxHashMap<String, String>) -> TextMap {
    map.into_iter().map(|(k, v)| (k.into_boxed_str(), v.into_boxed_str())).collect()
}

fn column(name: &str) -> Result<Column, String> {
    use Column::*;
    Ok(match name {
        "provider" => Provider,
        "request_model" => RequestModel,
        "response_model" => ResponseModel,
        "response_id" => ResponseId,
        "agent_name" => AgentName,
        "agent_id" => AgentId,
        "agent_version" => AgentVersion,
        "conversation_id" => ConversationId,
        "user_id" => UserId,
        "workflow_name" => WorkflowName,
        "tool_name" => ToolName,
        "tool_call_id" => ToolCallId,
        "input_tokens" => InputTokens,
        "output_tokens" => OutputTokens,
        "cache_read_tokens" => CacheReadTokens,
        "cache_write_tokens" => CacheWriteTokens,
        "reasoning_tokens" => ReasoningTokens,
        "total_tokens" => TotalTokens,
        "native_input_tokens" => NativeInputTokens,
        "reported_cost_usd" => ReportedCost,
        "time_to_first_chunk_s" => TimeToFirstChunk,
        "finish_reasons" => FinishReasons,
        "error_type" => ErrorType,
        "tool_status" => ToolStatus,
        other => return Err(format!("unknown column {other:?}")),
    })
}

fn value_type(name: &str) -> Result<ValueType, String> {
    Ok(match name {
        "text" => ValueType::Text,
        "int" => ValueType::Int,
        "float" => ValueType::Float,
        "bool" => ValueType::Bool,
        "usd" => ValueType::Usd,
        "text_list" => ValueType::TextList,
        "any" => ValueType::Any,
        other => return Err(format!("unknown value type {other:?}")),
    })
}

fn basis(name: &str) -> Result<Basis, String> {
    Ok(match name {
        "inclusive" => Basis::Inclusive,
        "exclusive" => Basis::Exclusive,
        "provider_native" => Basis::ProviderNative,
        "vercel_native" => Basis::VercelNative,
        "unknown" => Basis::Unknown,
        other => return Err(format!("unknown input basis {other:?}")),
    })
}

fn program(dialects: &[Dialect], at: usize, kind: Kind, otel_genai: usize, otel_genai_legacy: usize) -> Box<[Op]> {
    let mut passes = vec![(at, false), (otel_genai, false), (at, true), (otel_genai_legacy, false)];
    if at == otel_genai {
        passes.remove(1);
    } else if at == otel_genai_legacy {
        passes.remove(3);
    }
    let mut program = Vec::new();
    for (dialect, fallback) in passes {
        let rows = dialects[dialect].rows.iter().enumerate();
        for (n, row) in rows.filter(|(_, row)| row.fallback == fallback && row.on >> kind & 1 == 1) {
            let key = match &*row.from {
                [Source::Key(key)] => *key,
                _ => ANY_KEY,
            };
            program.push(Op { key, dialect: dialect as u16, row: n as u16 });
        }
    }
    program.into()
}

impl Compiler {
    fn new(raw: &RawPlan) -> Result<Self, String> {
        let kinds: FxHashMap<String, Kind> = raw.kinds.iter().cloned().zip(0..).collect();
        let mut targets = Vec::new();
        let mut target_ids = FxHashMap::default();
        for (name, target) in &raw.targets {
            target_ids.insert(name.clone(), targets.len() as u16);
            targets.push(Target {
                name: name.as_str().into(),
                column: target.column.as_deref().map(column).transpose()?,
                value_type: value_type(&target.value_type)?,
            });
        }
        let mut operation_kinds = FxHashMap::default();
        for (operation, kind) in &raw.operations {
            let Some(&kind) = kinds.get(kind) else {
                return Err(format!("operation {operation:?} has the unknown kind {kind:?}"));
            };
            operation_kinds.insert(operation.as_str().into(), kind);
        }
        Ok(Self {
            interner: Interner::default(),
            kinds,
            operation_kinds,
            targets,
            target_ids,
            map_ids: raw.maps.keys().cloned().zip(0..).collect(),
        })
    }

    fn compile(mut self, raw: RawPlan) -> Result<Plan, String> {
        let known = Known {
            operation_name: self.interner.key("gen_ai.operation.name"),
            tool_name: self.interner.key("gen_ai.tool.name"),
            tool_call_id: self.interner.key("gen_ai.tool.call.id"),
            request_model: self.interner.key("gen_ai.request.model"),
            response_model: self.interner.key("gen_ai.response.model"),
            llm_request_type: self.interner.key("llm.request.type"),
            gen_ai: self.interner.prefix("gen_ai.")?,
            usage: self.interner.prefix("gen_ai.usage.")?,
            llm_kind: self.kind("llm")?,
            tool_kind: self.kind("tool")?,
        };
        let mut operation_names = FxHashMap::default();
        for (name, meaning) in raw.operation_names {
            operation_names.insert(name.to_lowercase().into_boxed_str(), self.meaning(meaning)?);
        }
        let mut evidence_keys: Vec<(KeyId, usize)> = Vec::new();
        let mut evidence_prefixes: Vec<(PrefixId, usize)> = Vec::new();
        let (mut by_value, mut by_name, mut by_event) = (0, 0, 0);
        let mut dialects: Vec<Dialect> = Vec::new();
        let mut last_priority = 0;
        for (at, raw) in raw.dialects.into_iter().enumerate() {
            let name = raw.name.clone();
            let here = |what: &str, e: String| format!("dialect {name}: {what}: {e}");
            if at > 0 && raw.priority <= last_priority {
                return Err(here("priority", format!("{} does not grow", raw.priority)));
            }
            last_priority = raw.priority;
            for key in &raw.detect.any_attr {
                evidence_keys.push((self.interner.key(key), at));
            }
            for prefix in &raw.detect.any_attr_prefix {
                evidence_prefixes.push((self.interner.prefix(prefix).map_err(|e| here("detect", e))?, at));
            }
            let bit = 1 << at;
            by_value |= if raw.detect.attr_equals.is_empty() { 0 } else { bit };
            by_name |= if raw.detect.span_name_prefix.is_empty() { 0 } else { bit };
            by_event |= if raw.detect.span_events.is_empty() { 0 } else { bit };
            dialects.push(self.dialect(raw)?);
        }
        self.interner.seal();
        let mut dialects_of_key = vec![0; self.interner.keys_len()];
        for (key, at) in evidence_keys {
            dialects_of_key[usize::from(key)] |= 1 << at;
        }
        let mut dialects_of_prefix = vec![0; PREFIXES_MAX];
        for (prefix, at) in evidence_prefixes {
            dialects_of_prefix[usize::from(prefix)] |= 1 << at;
        }
        for (key, id) in &self.interner.keys {
            for prefix in self.interner.matching_prefixes(key) {
                dialects_of_key[usize::from(*id)] |= dialects_of_prefix[usize::from(prefix)];
            }
        }
        let find = |name: &str| {
            dialects.iter().position(|d| *d.name == *name).ok_or_else(|| format!("the plan has no dialect {name}"))
        };
        let otel_genai = find("otel_genai")?;
        let otel_genai_legacy = find("otel_genai_legacy")?;
        let mut maps: Vec<(u16, TextMap)> =
            raw.maps.into_iter().map(|(name, map)| (self.map_ids[&name], boxed_map(map))).collect();
        maps.sort_by_key(|(id, _)| *id);
        let of_kind = |at, kind| program(&dialects, at, kind, otel_genai, otel_genai_legacy);
        let programs: Vec<Vec<Box<[Op]>>> = (0..dialects.len())
            .map(|at| (0..raw.kinds.len() as Kind).map(|kind| of_kind(at, kind)).collect())
            .collect();
        for (dialect, programs) in dialects.iter_mut().zip(programs) {
            dialect.programs = programs;
        }
        let mut marker_keys: Vec<KeyId> = Vec::new();
        let mut log_events = FxHashMap::default();
        for (at, dialect) in dialects.iter().enumerate() {
            marker_keys.extend(dialect.markers.iter().filter_map(|marker| match marker.key {
                MarkerKey::Attr(key) if marker.anywhere => Some(key),
                _ => None,
            }));
            for (n, log) in dialect.logs.iter().enumerate() {
                log_events.entry(log.event.clone()).or_insert((at as u16, n as u16));
            }
        }
        marker_keys.sort_unstable();
        marker_keys.dedup();
        Ok(Plan {
            errors: Errors::new(raw.errors)?,
            marker_keys,
            log_events,
            interner: self.interner,
            dialects_of_key,
            dialects_of_prefix,
            dialects_by_value: by_value,
            dialects_by_name: by_name,
            dialects_by_event: by_event,
            dialects,
            otel_genai,
            otel_genai_legacy,
            kinds: boxed_vec(raw.kinds),
            operation_kinds: self.operation_kinds,
            operation_names,
            targets: self.targets,
            providers: boxed_map(raw.providers),
            finish_reasons: boxed_map(raw.finish_reasons),
            maps: maps.into_iter().map(|(_, map)| map).collect(),
            known,
        })
    }

    fn kind(&self, name: &str) -> Result<Kind, String> {
        self.kinds.get(name).copied().ok_or_else(|| format!("unknown kind {name:?}"))
    }

    fn meaning(&self, raw: RawMeaning) -> Result<Meaning, String> {
        let kind = if raw.kind.is_empty() && !raw.operation.is_empty() {
            self.operation_kinds
                .get(raw.operation.as_str())
                .copied()
                .ok_or_else(|| format!("unknown operation {:?}", raw.operation))?
        } else {
            self.kind(&raw.kind)?
        };
        let scope = match raw.usage.as_str() {
            "own" => ScopeRule::Own,
            "own?" => ScopeRule::OwnTentative,
            "aggregate" => ScopeRule::Aggregate,
            "none" | "" => ScopeRule::None,
            other => return Err(format!("unknown usage scope {other:?}")),
        };
        Ok(Meaning { operation: raw.operation, kind, scope })
    }

    fn keys(&mut self, keys: Vec<String>) -> Box<[KeyId]> {
        keys.iter().map(|k| self.interner.key(k)).collect()
    }

    fn dialect(&mut self, raw: RawDialect) -> Result<Dialect, String> {
        let name = raw.name;
        let here = |what: String, e: String| format!("dialect {name}: {what}: {e}");
        let mut rules = Vec::new();
        for (n, rule) in raw.rules.into_iter().enumerate() {
            rules.push(self.rule(rule).map_err(|e| here(format!("rule {n}"), e))?);
        }
        let mut markers = Vec::new();
        for (n, marker) in raw.markers.into_iter().enumerate() {
            markers.push(self.marker(marker).map_err(|e| here(format!("marker {n}"), e))?);
        }
        let mut rows = Vec::new();
        let mut model_keys = Vec::new();
        for (n, row) in raw.rows.into_iter().enumerate() {
            let row = self.row(row).map_err(|e| here(format!("row {n}"), e))?;
            let column = self.targets.get(usize::from(row.target)).and_then(|target| target.column);
            let names_model = matches!(column, Some(Column::RequestModel | Column::ResponseModel));
            if names_model && row.action != Action::Drop && row.on == u32::MAX && row.how.is_empty() {
                model_keys.extend(row.from.iter().filter_map(|s| if let Source::Key(k) = s { Some(*k) } else { None }));
            }
            rows.push(row);
        }
        let content = ContentPlan::new(&raw.content).map_err(|e| here("content".into(), e))?;
        let mut logs = Vec::new();
        for (n, log) in raw.logs.into_iter().enumerate() {
            let meaning = self.meaning(log.meaning).map_err(|e| here(format!("log {n}"), e))?;
            logs.push(LogRule { event: log.event.into_boxed_str(), meaning, require: self.keys(log.require) });
        }
        let detect = self.detect(raw.detect).map_err(|e| here("detect".into(), e))?;
        let default = basis(&raw.basis.default).map_err(|e| here("basis".into(), e))?;
        let mut basis_by_scope = Vec::new();
        for (scope, name) in raw.basis.scopes {
            let value = basis(&name).map_err(|e| here("basis".into(), e))?;
            basis_by_scope.push((scope.into_boxed_str(), value));
        }
        Ok(Dialect {
            name: name.into_boxed_str(),
            detect,
            basis: default,
            basis_by_scope,
            rules,
            markers,
            rows,
            programs: Vec::new(),
            content,
            logs,
            model_keys,
        })
    }

    fn detect(&mut self, raw: RawDetect) -> Result<Detect, String> {
        let values = |map: FxHashMap<String, Vec<String>>| {
            map.into_iter().map(|(k, v)| (k.into_boxed_str(), boxed_vec(v))).collect()
        };
        let mut prefixes =
            |list: Vec<String>| list.iter().map(|p| self.interner.prefix(p)).collect::<Result<Vec<_>, _>>();
        Ok(Detect {
            none_attr_prefix: prefixes(raw.none_attr_prefix)?,
            require_attr_prefix: prefixes(raw.require_attr_prefix)?,
            scope: boxed_vec(raw.scope),
            scope_prefix: boxed_vec(raw.scope_prefix),
            resource_equals: values(raw.resource_equals),
            resource_prefix: values(raw.resource_prefix),
            attr_equals: raw.attr_equals.into_iter().map(|(k, v)| (self.interner.key(&k), boxed_vec(v))).collect(),
            span_name_prefix: boxed_vec(raw.span_name_prefix),
            span_events: boxed_vec(raw.span_events),
            none_attr: self.keys(raw.none_attr).into_vec(),
        })
    }

    fn rule(&mut self, raw: RawRule) -> Result<Rule, String> {
        let when = raw.when;
        let name_regex = when
            .name_regex
            .map(|r| regex_lite::Regex::new(&r).map_err(|e| format!("name_regex {r:?}: {e}")))
            .transpose()?;
        let any_attr_prefix =
            when.any_attr_prefix.iter().map(|p| self.interner.prefix(p)).collect::<Result<Box<[_]>, _>>()?;
        Ok(Rule {
            meaning: self.meaning(raw.meaning)?,
            when: When {
                scope: boxed(when.scope),
                scope_prefix: when.scope_prefix.map(String::into_boxed_str),
                name: when.name.map(String::into_boxed_str),
                name_prefix: when.name_prefix.map(String::into_boxed_str),
                name_suffix: when.name_suffix.map(String::into_boxed_str),
                name_regex,
                attr: self.keys(when.attr),
                any_attr: self.keys(when.any_attr),
                any_attr_prefix,
                no_attr: self.keys(when.no_attr),
                attr_eq: when.attr_eq.into_iter().map(|(k, v)| (self.interner.key(&k), v.into_boxed_str())).collect(),
                root: when.root,
            },
        })
    }

    fn marker(&mut self, raw: RawMarker) -> Result<Marker, String> {
        let mut table = Vec::new();
        let mut exact = FxHashMap::default();
        for (value, meaning) in raw.table {
            let value = value.to_lowercase().into_boxed_str();
            exact.insert(value.clone(), table.len() as u16);
            table.push((value, self.meaning(meaning)?));
        }
        Ok(Marker {
            key: match raw.key.as_str() {
                "span:name" => MarkerKey::NameWord,
                key => MarkerKey::Attr(self.interner.key(key)),
            },
            how: raw.how.iter().map(|h| self.step(h)).collect::<Result<_, _>>()?,
            anywhere: raw.anywhere,
            suffix: raw.suffix,
            table,
            exact,
        })
    }

    fn row(&mut self, raw: RawRow) -> Result<Row, String> {
        let mut from = Vec::new();
        for source in &raw.from {
            from.push(self.source(source)?);
        }
        let mask = |names: &[String]| -> Result<u32, String> {
            names.iter().try_fold(0, |mask, name| Ok(mask | 1 << self.kind(name)?))
        };
        let on = if raw.on.is_empty() { u32::MAX } else { mask(&raw.on)? } & !mask(&raw.not_on)?;
        let action = match raw.action.as_str() {
            "copy" => Action::Copy,
            "take" => Action::Take,
            "drop" => Action::Drop,
            other => return Err(format!("unknown action {other:?}")),
        };
        let target = match (action, self.target_ids.get(&raw.to)) {
            (_, Some(&id)) => id,
            (Action::Drop, None) => u16::MAX,
            _ => return Err(format!("unknown target {:?}", raw.to)),
        };
        Ok(Row {
            from: from.into(),
            target,
            action,
            how: raw.how.iter().map(|h| self.step(h)).collect::<Result<_, _>>()?,
            on,
            equals: boxed(raw.equals),
            scope: boxed(raw.scope),
            unless: self.keys(raw.unless),
            failed: raw.failed,
            fallback: raw.fallback,
            aggregate: raw.aggregate,
            outside: raw.outside,
            basis: raw.basis.as_deref().map(basis).transpose()?,
        })
    }

    fn source(&mut self, text: &str) -> Result<Source, String> {
        if let Some(rest) = text.strip_prefix("event:") {
            let Some((event, key)) = rest.rsplit_once('/') else {
                return Err(format!("source {text:?} is not event:<event>/<attribute>"));
            };
            return Ok(Source::Event { event: event.into(), key: key.into() });
        }
        if let Some(key) = text.strip_prefix("resource:") {
            return Ok(Source::Resource(key.into()));
        }
        if let Some((prefix, suffix)) = text.split_once('*').filter(|(_, suffix)| !suffix.is_empty()) {
            let prefix = self.interner.prefix(prefix)?;
            let suffix = suffix.into();
            return Ok(Source::Indexed { prefix, suffix });
        }
        if let Some(prefix) = text.strip_suffix('*') {
            return Ok(Source::Prefix(self.interner.prefix(prefix)?));
        }
        Ok(match text {
            "span:name" => Source::Name,
            "" => Source::Nothing,
            key => Source::Key(self.interner.key(key)),
        })
    }

    fn step(&self, text: &str) -> Result<Step, String> {
        let (name, argument) = text.split_once(':').unwrap_or((text, ""));
        let path = || argument.split('.').filter(|s| !s.is_empty()).map(Into::into).collect::<Box<[Box<str>]>>();
        Ok(match name {
            "json" => Step::Json(path()),
            "pyrepr" => Step::PyRepr(path()),
            "provider" => Step::Provider,
            "map" => match self.map_ids.get(argument) {
                Some(&id) => Step::Map(id),
                None => return Err(format!("unknown map {argument:?}")),
            },
            "const" => Step::Const(argument.into()),
            "ms_to_s" => Step::MsToS,
            "micros_to_usd" => Step::MicrosToUsd,
            "iso_since_start" => Step::IsoSinceStart,
            "url_host" => Step::UrlHost,
            "join" => Step::Join(argument.into()),
            "text" => Step::OnlyText,
            "split" => Step::Split(argument.into()),
            "strip_class" => Step::StripClass,
            "strip_prefix" => Step::StripPrefix(argument.into()),
            "strip_suffix" => Step::StripSuffix(argument.into()),
            "strip_provider" => Step::StripProvider,
            "only_if_prefix" => Step::OnlyIfPrefix(argument.into()),
            _ => return Err(format!("unknown transform {text:?}")),
        })
    }
}
