//! From a span of any dialect to its canonical meaning, by the plan.
//!
//! Order of work: dialect, operation and kind, content, attribute rows (the dialect's own, then `otel_genai`, then the
//! dialect's fallbacks, then `otel_genai_legacy`; the first that yields a target wins), usage, finish reasons, errors,
//! usage scope.

use std::borrow::Cow;

use bumpalo::Bump;

use crate::messages::{self, Memo};
use crate::plan::{
    ANY_KEY, Action, Basis, Column, Dialect, DialectMask, KeyId, MarkerKey, Meaning, Plan, PrefixId, PrefixSet, Row,
    ScopeRule, Source, Step, Target, ValueType, When,
};
use crate::usage::{self, Reported};
use crate::values;
use crate::view::{Attr, Canonical, EventView, LogView, ResourceView, ScopeView, SpanView, Text, Value};

/// Values a producer writes where it has none.
const PLACEHOLDERS: [&str; 5] = ["<not specified>", "N/A", "<REDACTED>", "<elided>", "__REDACTED__"];
/// Extra attributes one span may get.
const DERIVED_MAX: usize = 128;

/// What one decode call remembers between spans.
#[derive(Default)]
pub struct Session<'a> {
    pub memo: Memo<'a>,
    seen: Seen,
    /// Dialects that the scope and resource of the last span allow, by the addresses of the two.
    by_scope: Option<(usize, usize, DialectMask)>,
    filled: Filled,
}

/// Where the interned keys of the plan stand among the attributes of one span or log record.
#[derive(Default)]
pub struct Seen {
    /// Attribute index + 1 by key, 0 where absent.
    slots: Vec<u16>,
    touched: Vec<KeyId>,
    prefixes: PrefixSet,
    evidence: DialectMask,
}

impl Seen {
    fn look(&mut self, plan: &Plan, attrs: &[Attr<'_>]) {
        for key in self.touched.drain(..) {
            self.slots[usize::from(key)] = 0;
        }
        self.slots.resize(plan.interner.keys_len(), 0);
        self.prefixes = PrefixSet::default();
        self.evidence = 0;
        for (at, attr) in attrs.iter().enumerate().take(usize::from(u16::MAX) - 1) {
            if let Some(key) = plan.interner.find(attr.key) {
                self.slots[usize::from(key)] = at as u16 + 1;
                self.touched.push(key);
                self.prefixes.extend(plan.interner.prefixes_of_known(key));
                self.evidence |= plan.dialects_of_key[usize::from(key)];
            } else {
                for prefix in plan.interner.matching_prefixes(attr.key) {
                    self.prefixes.insert(prefix);
                    self.evidence |= plan.dialects_of_prefix[usize::from(prefix)];
                }
            }
        }
    }

    /// Whether some attribute key starts with the prefix.
    pub fn has_prefix(&self, prefix: PrefixId) -> bool {
        self.prefixes.contains(prefix)
    }

    pub fn has(&self, key: KeyId) -> bool {
        self.slots[usize::from(key)] != 0
    }

    pub fn get<'a>(&self, key: KeyId, attrs: &[Attr<'a>]) -> Option<Value<'a>> {
        attrs.get(usize::from(self.slots[usize::from(key)]).wrapping_sub(1)).map(|attr| attr.value)
    }

    /// Later rows do not find the key any more.
    fn hide(&mut self, key: KeyId) {
        self.slots[usize::from(key)] = 0;
    }
}

/// Targets that a row has filled, beyond those that show it themselves.
#[derive(Default)]
struct Filled {
    columns: u32,
    derived: Vec<u16>,
    reported: Reported,
    basis: Option<Basis>,
    aggregate: bool,
}

/// What a span and a log record have in common.
#[derive(Clone, Copy)]
struct Item<'s, 'a> {
    attrs: &'s [Attr<'a>],
    events: &'s [EventView<'a>],
    scope: &'a ScopeView<'a>,
    resource: &'a ResourceView<'a>,
    /// Of a span; a log record has none.
    name: &'a str,
    root: bool,
    start_unix_nano: u64,
    failed: bool,
}

/// What `span` means. `session` remembers what this decode call has already seen; `arena` lives as long.
pub fn normalise<'a>(plan: &'a Plan, span: &SpanView<'a>, session: &mut Session<'a>, arena: &'a Bump) -> Canonical<'a> {
    let item = Item {
        attrs: &span.attrs,
        events: &span.events,
        scope: span.scope,
        resource: span.resource,
        name: span.name,
        root: span.parent_span_id.is_none(),
        start_unix_nano: span.start_unix_nano,
        failed: span.status == 2,
    };
    session.seen.look(plan, item.attrs);
    let mut canonical = Canonical { usage_scope: "none", ..Canonical::default() };
    let Some((dialect_at, by_scope)) = detect(plan, &item, session) else {
        return canonical;
    };
    let dialect = &plan.dialects[dialect_at];
    let meaning = classify(plan, dialect, by_scope, &item, &session.seen, arena);
    let content = messages::Source { attrs: &span.attrs, events: &span.events, event_name: "", body: Value::Empty };
    fill(plan, dialect_at, &meaning, &item, &content, session, arena, &mut canonical);
    error(span, &mut canonical, arena);
    canonical
}

/// What a log record says about its span; `None` if it has no GenAI meaning and need not be kept.
pub fn normalise_log<'a>(
    plan: &'a Plan,
    record: &LogView<'a>,
    session: &mut Session<'a>,
    arena: &'a Bump,
) -> Option<Canonical<'a>> {
    // Codex puts source positions into EventName and the name into the attribute
    let named = record.attrs.iter().find(|attr| attr.key == "event.name").and_then(|attr| values::as_str(&attr.value));
    let body = values::as_str(&record.body);
    let event = [body, named, Some(record.event_name)]
        .into_iter()
        .flatten()
        .find(|name| plan.log_events.contains_key(*name))?;
    let (owner, rule) = plan.log_events.get(event).copied()?;
    let item = Item {
        attrs: &record.attrs,
        events: &[],
        scope: record.scope,
        resource: record.resource,
        name: event,
        root: false,
        start_unix_nano: record.time_unix_nano,
        failed: false,
    };
    session.seen.look(plan, item.attrs);
    // an event of the conventions may come from a dialect with rows of its own
    let detected = detect(plan, &item, session).map(|(at, _)| at);
    let owner = usize::from(owner);
    let generic = owner == plan.otel_genai || owner == plan.otel_genai_legacy;
    let dialect_at = if generic { detected.unwrap_or(owner) } else { owner };
    let rule = &plan.dialects[owner].logs[usize::from(rule)];
    if !rule.require.iter().all(|key| session.seen.has(*key)) {
        return None;
    }
    let mut meaning = Found::Borrowed(&rule.meaning);
    if generic && rule.meaning.operation == "chat" {
        let stated = classify(plan, &plan.dialects[dialect_at], false, &item, &session.seen, arena);
        if matches!(stated, Found::Borrowed(_)) {
            meaning = stated;
        }
    }
    let mut canonical = Canonical::default();
    let content = messages::Source { attrs: &record.attrs, events: &[], event_name: event, body: record.body };
    fill(plan, dialect_at, &meaning, &item, &content, session, arena, &mut canonical);
    canonical.error_type = cleaned(std::mem::take(&mut canonical.error_type));
    Some(canonical)
}

// --------------------------------------------------------------------------------------------------------- dialect

/// Position of the dialect in the plan, and whether scope or resource told it.
fn detect<'a>(plan: &Plan, item: &Item<'_, 'a>, session: &mut Session<'a>) -> Option<(usize, bool)> {
    let address = (std::ptr::from_ref(item.scope) as usize, std::ptr::from_ref(item.resource) as usize);
    let by_scope = match session.by_scope {
        Some((scope, resource, mask)) if (scope, resource) == address => mask,
        _ => {
            let mask = by_scope(plan, item);
            session.by_scope = Some((address.0, address.1, mask));
            mask
        }
    };
    let seen = &session.seen;
    if let Some(at) = first(plan, by_scope, seen) {
        return Some((at, true));
    }
    let mut mask = seen.evidence;
    for at in bits(plan.dialects_by_value & !mask) {
        let found = plan.dialects[at].detect.attr_equals.iter().any(|(key, values)| {
            seen.get(*key, item.attrs)
                .and_then(|value| values::as_str(&value))
                .is_some_and(|text| values.iter().any(|value| **value == *text))
        });
        mask |= DialectMask::from(found) << at;
    }
    for at in bits(plan.dialects_by_name & !mask) {
        let found = plan.dialects[at].detect.span_name_prefix.iter().any(|prefix| item.name.starts_with(&**prefix));
        mask |= DialectMask::from(found) << at;
    }
    if !item.events.is_empty() {
        for at in bits(plan.dialects_by_event & !mask) {
            let names = &plan.dialects[at].detect.span_events;
            let found = item.events.iter().any(|event| names.iter().any(|name| **name == *event.name));
            mask |= DialectMask::from(found) << at;
        }
    }
    if let Some(at) = first(plan, mask, seen) {
        return Some((at, false));
    }
    seen.has_prefix(plan.known.gen_ai).then_some((plan.otel_genai, false))
}

fn by_scope(plan: &Plan, item: &Item<'_, '_>) -> DialectMask {
    let mut mask = 0;
    let resource =
        |key: &str| item.resource.attrs.iter().find(|attr| attr.key == key).and_then(|a| values::as_str(&a.value));
    for (at, dialect) in plan.dialects.iter().enumerate() {
        let detect = &dialect.detect;
        let scope = item.scope.name;
        let found = detect.scope.iter().any(|name| **name == *scope)
            || detect.scope_prefix.iter().any(|prefix| scope.starts_with(&**prefix))
            || detect
                .resource_equals
                .iter()
                .any(|(key, values)| resource(key).is_some_and(|text| values.iter().any(|value| **value == *text)))
            || detect.resource_prefix.iter().any(|(key, values)| {
                resource(key).is_some_and(|text| values.iter().any(|value| text.starts_with(&**value)))
            });
        mask |= DialectMask::from(found) << at;
    }
    mask
}

/// The first dialect of `mask` that nothing speaks against.
fn first(plan: &Plan, mask: DialectMask, seen: &Seen) -> Option<usize> {
    bits(mask).find(|at| {
        let detect = &plan.dialects[*at].detect;
        !detect.none_attr.iter().any(|key| seen.has(*key))
            && !detect.none_attr_prefix.iter().any(|prefix| seen.has_prefix(*prefix))
            && (detect.require_attr_prefix.is_empty()
                || detect.require_attr_prefix.iter().any(|prefix| seen.has_prefix(*prefix)))
    })
}

fn bits(mut mask: DialectMask) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        (mask != 0).then(|| {
            let at = mask.trailing_zeros() as usize;
            mask &= mask - 1;
            at
        })
    })
}

// ----------------------------------------------------------------------------------------------- operation and kind

/// A meaning of the plan, or one made for this span.
enum Found<'p> {
    Borrowed(&'p Meaning),
    Nothing,
}

static NOTHING: Meaning = Meaning::NOTHING;

impl<'p> Found<'p> {
    fn get(&self) -> &'p Meaning {
        match self {
            Found::Borrowed(meaning) => meaning,
            Found::Nothing => &NOTHING,
        }
    }
}

fn classify<'a>(
    plan: &'a Plan,
    dialect: &'a Dialect,
    by_scope: bool,
    item: &Item<'_, 'a>,
    seen: &Seen,
    arena: &'a Bump,
) -> Found<'a> {
    for rule in &dialect.rules {
        if holds(&rule.when, item, seen) {
            return Found::Borrowed(&rule.meaning);
        }
    }
    if let Some(meaning) = marked(dialect, false, item, seen, arena) {
        return Found::Borrowed(meaning);
    }
    if plan.marker_keys.iter().any(|key| seen.has(*key)) {
        for other in &plan.dialects {
            if let Some(meaning) = marked(other, true, item, seen, arena) {
                return Found::Borrowed(meaning);
            }
        }
    }
    let known = &plan.known;
    if let Some(Value::Str(name)) = seen.get(known.operation_name, item.attrs)
        && let Some(meaning) = lower_get(&plan.operation_names, name)
    {
        return Found::Borrowed(meaning);
    }
    let operation = |name: &str| plan.operation_names.get(name).map_or(Found::Nothing, Found::Borrowed);
    let speaks = |event: &EventView<'_>| {
        event.name == "gen_ai.choice"
            || event.name.starts_with("gen_ai.content.")
            || event.name == "gen_ai.client.inference.operation.details"
    };
    if item.events.iter().any(speaks) {
        return operation("chat");
    }
    let has_model = seen.has(known.request_model)
        || seen.has(known.response_model)
        || dialect.model_keys.iter().any(|key| seen.has(*key));
    let has_tool = seen.has(known.tool_name) || seen.has(known.tool_call_id);
    if has_tool && !seen.has(known.request_model) && !seen.has_prefix(known.usage) {
        return operation("execute_tool");
    }
    if has_model {
        let embeds = item.name.to_ascii_lowercase().contains("embed")
            || seen
                .get(known.llm_request_type, item.attrs)
                .and_then(|value| values::as_str(&value))
                .is_some_and(|text| text.to_ascii_lowercase().contains("embed"));
        return operation(if embeds { "embeddings" } else { "chat" });
    }
    if by_scope
        && let Some((word, rest)) = item.name.split_once(' ')
        && !rest.is_empty()
        && plan.operation_kinds.contains_key(word)
    {
        return operation(word);
    }
    Found::Nothing
}

fn lower_get<'p, V>(map: &'p rustc_hash::FxHashMap<Box<str>, V>, name: &str) -> Option<&'p V> {
    let name = name.trim();
    map.get(name)
        .or_else(|| name.bytes().any(|b| b.is_ascii_uppercase()).then(|| map.get(&*name.to_lowercase())).flatten())
}

fn marked<'a>(
    dialect: &'a Dialect,
    anywhere: bool,
    item: &Item<'_, 'a>,
    seen: &Seen,
    arena: &'a Bump,
) -> Option<&'a Meaning> {
    for marker in dialect.markers.iter().filter(|marker| marker.anywhere || !anywhere) {
        let value = match marker.key {
            MarkerKey::Attr(key) => seen.get(key, item.attrs),
            MarkerKey::NameWord => item.name.split(' ').next().map(Value::Str),
        };
        let Some(value) = value else { continue };
        let value = if marker.how.is_empty() { Some(value) } else { apply(None, &marker.how, value, item, arena) };
        let Some(text) = value.as_ref().and_then(values::as_str) else {
            continue;
        };
        let found = if marker.suffix {
            let text = text.to_lowercase();
            marker.table.iter().find(|(end, _)| **end == *"*" || text.ends_with(&**end)).map(|(_, meaning)| meaning)
        } else {
            lower_get(&marker.exact, text).map(|at| &marker.table[usize::from(*at)].1)
        };
        if let Some(meaning) = found
            && (!meaning.operation.is_empty() || meaning.kind != 0)
        {
            return Some(meaning);
        }
    }
    None
}

fn holds(when: &When, item: &Item<'_, '_>, seen: &Seen) -> bool {
    let equals = |key: KeyId, wanted: &str| match seen.get(key, item.attrs) {
        Some(Value::Str(text)) => text.eq_ignore_ascii_case(wanted),
        Some(Value::Bool(flag)) => wanted == if flag { "true" } else { "false" },
        _ => false,
    };
    when.attr.iter().all(|key| seen.has(*key))
        && !when.no_attr.iter().any(|key| seen.has(*key))
        && when.attr_eq.iter().all(|(key, wanted)| equals(*key, wanted))
        && (when.any_attr.is_empty() || when.any_attr.iter().any(|key| seen.has(*key)))
        && (when.any_attr_prefix.is_empty() || when.any_attr_prefix.iter().any(|prefix| seen.has_prefix(*prefix)))
        && when.root.is_none_or(|root| root == item.root)
        && (when.scope.is_empty() || when.scope.iter().any(|scope| **scope == *item.scope.name))
        && when.scope_prefix.as_ref().is_none_or(|prefix| item.scope.name.starts_with(&**prefix))
        && when.name.as_ref().is_none_or(|name| **name == *item.name)
        && when.name_prefix.as_ref().is_none_or(|prefix| item.name.starts_with(&**prefix))
        && when.name_suffix.as_ref().is_none_or(|suffix| item.name.ends_with(&**suffix))
        && when.name_regex.as_ref().is_none_or(|regex| regex.is_match(item.name))
}

// ------------------------------------------------------------------------------------------------------------ rows

#[allow(clippy::too_many_arguments)]
fn fill<'a>(
    plan: &'a Plan,
    dialect_at: usize,
    meaning: &Found<'a>,
    item: &Item<'_, 'a>,
    source: &messages::Source<'_, 'a>,
    session: &mut Session<'a>,
    arena: &'a Bump,
    canonical: &mut Canonical<'a>,
) {
    let dialect = &plan.dialects[dialect_at];
    let meaning = meaning.get();
    let kind = meaning.kind;
    canonical.dialect = Cow::Borrowed(&dialect.name);
    canonical.operation = Cow::Borrowed(&meaning.operation);
    canonical.kind = Cow::Borrowed(&plan.kinds[usize::from(kind)]);
    let content = messages::collect(&dialect.content, &canonical.kind, source, &mut session.memo, arena);
    canonical.content = content.items;
    canonical.input_preview = Cow::Borrowed(content.input_preview);
    canonical.output_preview = Cow::Borrowed(content.output_preview);
    canonical.input_text = content.input_text;
    canonical.output_text = content.output_text;
    if !content.truncated.is_empty() {
        let names = content.truncated.join(",");
        derive(canonical, "spanwise.truncated", Cow::Owned(names), b'S');
    }

    session.filled = Filled::default();
    for op in &dialect.programs[usize::from(kind)] {
        if op.key == ANY_KEY || session.seen.has(op.key) {
            let row = &plan.dialects[usize::from(op.dialect)].rows[usize::from(op.row)];
            run(plan, row, item, session, arena, canonical);
        }
    }
    let hints = content.hints;
    settle_usage(plan, dialect, meaning, item, &session.filled, !canonical.output_preview.is_empty(), canonical);
    if canonical.finish_reasons_raw.is_empty() && kind != plan.known.tool_kind {
        canonical.finish_reasons_raw.extend(hints.finish_reasons.iter().map(|reason| Cow::Borrowed(*reason)));
    }
    finish(plan, hints.output_has_tool_calls, canonical);
    if canonical.tool_status.is_empty() {
        canonical.tool_status = Cow::Borrowed(hints.tool_status);
    }
}

fn run<'a>(
    plan: &'a Plan,
    row: &'a Row,
    item: &Item<'_, 'a>,
    session: &mut Session<'a>,
    arena: &'a Bump,
    canonical: &mut Canonical<'a>,
) {
    let target = (row.action != Action::Drop).then(|| &plan.targets[usize::from(row.target)]);
    if let Some(target) = target {
        let taken = match target.column {
            Some(column) => session.filled.columns >> column as u32 & 1 == 1,
            None => session.filled.derived.contains(&row.target),
        };
        if taken && row.action == Action::Copy {
            return;
        }
    }
    for source in &row.from {
        let value = match source {
            Source::Key(key) => match session.seen.get(*key, item.attrs) {
                Some(value) => value,
                None => continue,
            },
            Source::Nothing => Value::Bool(true),
            Source::Name => Value::Str(item.name),
            Source::Resource(key) => match item.resource.attrs.iter().find(|attr| *attr.key == **key) {
                Some(attr) => attr.value,
                None => continue,
            },
            Source::Event { event, key } => {
                let found = item.events.iter().filter(|e| *e.name == **event);
                match found.filter_map(|e| e.attrs.iter().find(|attr| *attr.key == **key)).next_back() {
                    Some(attr) => attr.value,
                    None => continue,
                }
            }
            Source::Indexed { prefix, suffix } => {
                if !session.seen.has_prefix(*prefix) {
                    continue;
                }
                let prefix = plan.interner.prefix_text(*prefix);
                let found: Vec<Text<'a>> = item
                    .attrs
                    .iter()
                    .filter(|attr| attr.key.strip_prefix(prefix).is_some_and(|rest| rest.ends_with(&**suffix)))
                    .take(values::LIST_MAX)
                    .filter_map(|attr| values::text(attr.value, arena))
                    .collect();
                if found.is_empty() {
                    continue;
                }
                Value::Str(arena.alloc_str(&serde_json::to_string(&found).unwrap_or_default()))
            }
            Source::Prefix(prefix) => {
                if session.seen.has_prefix(*prefix) && allowed(row, item, &session.seen) {
                    spread(plan, row, *prefix, item, arena, canonical);
                }
                continue;
            }
        };
        if !allowed(row, item, &session.seen) {
            return;
        }
        if !row.equals.is_empty() && !row.equals.iter().any(|wanted| equals(wanted, value)) {
            continue;
        }
        if row.action != Action::Copy
            && let Source::Key(key) = source
        {
            session.seen.hide(*key);
        }
        let Some(target) = target else { continue };
        let value = if row.how.is_empty() { Some(value) } else { apply(Some(plan), &row.how, value, item, arena) };
        if let Some(value) = value
            && put(target, value, row, &mut session.filled, arena, canonical)
        {
            match target.column {
                Some(column) => session.filled.columns |= 1 << column as u32,
                None => session.filled.derived.push(row.target),
            }
            session.filled.aggregate |= row.aggregate;
            if row.basis.is_some() {
                session.filled.basis = row.basis;
            }
            return;
        }
    }
}

fn allowed(row: &Row, item: &Item<'_, '_>, seen: &Seen) -> bool {
    row.failed.is_none_or(|failed| failed == item.failed)
        && !row.unless.iter().any(|key| seen.has(*key))
        && (row.scope.is_empty() || row.scope.iter().any(|scope| **scope == *item.scope.name))
}

/// `text*` compares the start.
fn equals(wanted: &str, value: Value<'_>) -> bool {
    match value {
        Value::Str(text) => match wanted.strip_suffix('*') {
            Some(start) => text.starts_with(start),
            None => text == wanted,
        },
        Value::Bool(flag) => wanted == if flag { "true" } else { "false" },
        Value::Int(number) => wanted.parse() == Ok(number),
        _ => false,
    }
}

/// One extra attribute for every attribute under a prefix: `x.*` takes its ending from `y.*`.
fn spread<'a>(
    plan: &'a Plan,
    row: &Row,
    prefix: PrefixId,
    item: &Item<'_, 'a>,
    arena: &'a Bump,
    canonical: &mut Canonical<'a>,
) {
    let Some(target) = plan.targets.get(usize::from(row.target)) else {
        return;
    };
    let Some(stem) = target.name.strip_suffix('*') else {
        return;
    };
    let prefix = plan.interner.prefix_text(prefix);
    for attr in item.attrs {
        let Some(ending) = attr.key.strip_prefix(prefix).filter(|ending| !ending.is_empty()) else {
            continue;
        };
        if let Some(text) = values::text(attr.value, arena) {
            let name: &str = arena.alloc_str(&format!("{stem}{ending}"));
            derive(canonical, name, text, letter(attr.value));
        }
    }
}

fn letter(value: Value<'_>) -> u8 {
    match value {
        Value::Empty | Value::Str(_) => b'S',
        Value::Bool(_) => b'B',
        Value::Int(_) => b'I',
        Value::Double(_) => b'D',
        Value::Bytes(_) => b'Y',
        Value::Array(_) => b'A',
        Value::KvList(_) => b'K',
    }
}

fn derive<'a>(canonical: &mut Canonical<'a>, name: impl Into<Text<'a>>, value: Text<'a>, letter: u8) {
    if canonical.derived.len() < DERIVED_MAX {
        canonical.derived.push((name.into(), value, letter));
    }
}

/// The steps in order; `None` as soon as one of them has nothing to say.
fn apply<'a>(
    plan: Option<&'a Plan>,
    steps: &'a [Step],
    mut value: Value<'a>,
    item: &Item<'_, 'a>,
    arena: &'a Bump,
) -> Option<Value<'a>> {
    for step in steps {
        let text = |value: Value<'a>| values::text(value, arena).map(|text| -> &'a str { hold(text, arena) });
        value = match step {
            Step::Json(path) => values::at_path(value, path, arena)?,
            Step::PyRepr(path) => {
                let json = values::python_to_json(values::as_str(&value)?);
                values::at_path(Value::Str(arena.alloc_str(&json)), path, arena)?
            }
            Step::Const(constant) => Value::Str(constant),
            Step::Provider => Value::Str(provider(plan?, text(value)?, arena)?),
            Step::Map(table) => {
                let text = text(value)?;
                Value::Str(lower_get(&plan?.maps[usize::from(*table)], text)?)
            }
            Step::MsToS => Value::Double(values::float(value)? / 1e3),
            Step::MicrosToUsd => Value::Double(values::float(value)? / 1e6),
            Step::IsoSinceStart => {
                let at = values::iso_nanos(values::as_str(&value)?)?;
                let since = at - i128::from(item.start_unix_nano);
                if since < 0 {
                    return None;
                }
                Value::Double(since as f64 / 1e9)
            }
            Step::UrlHost => Value::Str(values::url_host(values::as_str(&value)?)?),
            Step::Split(separator) => {
                let parts: Vec<&str> = values::as_str(&value)?.split(&**separator).filter(|p| !p.is_empty()).collect();
                Value::Str(arena.alloc_str(&serde_json::to_string(&parts).ok()?))
            }
            Step::Join(separator) => {
                let mut parts: Vec<Text<'a>> = Vec::new();
                values::list(value, arena, |part| parts.push(part));
                Value::Str(arena.alloc_str(&parts.join(separator)))
            }
            Step::OnlyText => Value::Str(values::as_str(&value)?),
            Step::StripClass => Value::Str(values::strip_class(values::as_str(&value)?)),
            Step::StripPrefix(prefix) => {
                let text = values::as_str(&value)?;
                Value::Str(text.strip_prefix(&**prefix).unwrap_or(text))
            }
            Step::StripSuffix(suffix) => {
                let text = values::as_str(&value)?;
                Value::Str(text.strip_suffix(&**suffix).unwrap_or(text))
            }
            Step::StripProvider => {
                let text = values::as_str(&value)?;
                match text.split_once('/') {
                    Some((head, tail)) if !tail.is_empty() && lower_get(&plan?.providers, head).is_some() => {
                        Value::Str(tail)
                    }
                    _ => value,
                }
            }
            Step::OnlyIfPrefix(prefix) => {
                let text = values::as_str(&value)?;
                if !text.starts_with(&**prefix) {
                    return None;
                }
                value
            }
        };
    }
    Some(value)
}

/// The text for as long as the arena lives.
fn hold<'a>(text: Text<'a>, arena: &'a Bump) -> &'a str {
    match text {
        Cow::Borrowed(text) => text,
        Cow::Owned(text) => arena.alloc_str(&text),
    }
}

/// Canonical provider; names that are in no table are kept in lower case.
fn provider<'a>(plan: &'a Plan, name: &'a str, arena: &'a Bump) -> Option<&'a str> {
    let name = name.trim();
    if let Some(known) = lower_get(&plan.providers, name) {
        return (!known.is_empty()).then_some(known);
    }
    if name.is_empty() {
        return None;
    }
    Some(if name.bytes().any(|b| b.is_ascii_uppercase()) { arena.alloc_str(&name.to_lowercase()) } else { name })
}

/// Whether the value said something.
fn put<'a>(
    target: &'a Target,
    value: Value<'a>,
    row: &Row,
    filled: &mut Filled,
    arena: &'a Bump,
    canonical: &mut Canonical<'a>,
) -> bool {
    let Some(column) = target.column else {
        return put_derived(target, value, arena, canonical);
    };
    let reported = &mut filled.reported;
    let slot = match column {
        Column::InputTokens => return set(&mut reported.usage.input, values::count(value)),
        Column::OutputTokens => return set(&mut reported.usage.output, values::count(value)),
        Column::CacheReadTokens | Column::CacheWriteTokens => {
            let count = values::count(value);
            reported.cache_outside |= row.outside && count.is_some();
            let usage = &mut reported.usage;
            let slot = if column == Column::CacheReadTokens { &mut usage.cache_read } else { &mut usage.cache_write };
            return set(slot, count);
        }
        Column::ReasoningTokens => {
            let count = values::count(value);
            reported.reasoning_outside |= row.outside && count.is_some();
            return set(&mut reported.usage.reasoning, count);
        }
        Column::NativeInputTokens => return set(&mut reported.native_input, values::count(value)),
        Column::TotalTokens => {
            let total = values::count(value);
            if let Some(number) = total
                && let Some(text) = values::text(Value::Int(number as i64), arena)
            {
                derive(canonical, &*target.name, text, b'I');
            }
            return set(&mut reported.total, total);
        }
        Column::ReportedCost => return set(&mut canonical.reported_cost_nano_usd, values::nano_usd(value)),
        Column::TimeToFirstChunk => {
            return set(&mut canonical.time_to_first_chunk_s, values::float(value).filter(|s| *s >= 0.0));
        }
        Column::FinishReasons => {
            values::list(value, arena, |reason| canonical.finish_reasons_raw.push(reason));
            return !canonical.finish_reasons_raw.is_empty();
        }
        Column::Provider => &mut canonical.provider,
        Column::RequestModel => &mut canonical.request_model,
        Column::ResponseModel => &mut canonical.response_model,
        Column::ResponseId => &mut canonical.response_id,
        Column::AgentName => &mut canonical.agent_name,
        Column::AgentId => &mut canonical.agent_id,
        Column::AgentVersion => &mut canonical.agent_version,
        Column::ConversationId => &mut canonical.conversation_id,
        Column::UserId => &mut canonical.user_id,
        Column::WorkflowName => &mut canonical.workflow_name,
        Column::ToolName => &mut canonical.tool_name,
        Column::ToolCallId => &mut canonical.tool_call_id,
        Column::ErrorType => &mut canonical.error_type,
        Column::ToolStatus => &mut canonical.tool_status,
    };
    match values::text(value, arena) {
        Some(text) if !is_placeholder(&text) => {
            *slot = text;
            true
        }
        _ => false,
    }
}

fn is_placeholder(text: &str) -> bool {
    matches!(text.as_bytes().first(), Some(b'<' | b'N' | b'_')) && PLACEHOLDERS.contains(&text)
}

fn set<T>(slot: &mut Option<T>, value: Option<T>) -> bool {
    let said = value.is_some();
    if said {
        *slot = value;
    }
    said
}

fn put_derived<'a>(target: &'a Target, value: Value<'a>, arena: &'a Bump, canonical: &mut Canonical<'a>) -> bool {
    let typed = match target.value_type {
        ValueType::Int => values::count(value).map(|number| Value::Int(number as i64)),
        ValueType::Float => values::float(value).map(Value::Double),
        ValueType::Usd => values::float(value).filter(|usd| *usd > 0.0).map(Value::Double),
        ValueType::Bool => values::boolean(value).map(Value::Bool),
        ValueType::TextList => {
            let mut items: Vec<Text<'a>> = Vec::new();
            values::list(value, arena, |item| items.push(item));
            let json = serde_json::to_string(&items).unwrap_or_default();
            if !items.is_empty() {
                derive(canonical, &*target.name, Cow::Owned(json), b'A');
            }
            return !items.is_empty();
        }
        ValueType::Text | ValueType::Any => Some(value),
    };
    let Some(typed) = typed else { return false };
    match values::text(typed, arena) {
        Some(text) => {
            derive(canonical, &*target.name, text, letter(typed));
            true
        }
        None => false,
    }
}

// ---------------------------------------------------------------------------------------------- usage, finish, errors

fn settle_usage<'a>(
    plan: &Plan,
    dialect: &Dialect,
    meaning: &Meaning,
    item: &Item<'_, 'a>,
    filled: &Filled,
    has_output: bool,
    canonical: &mut Canonical<'a>,
) {
    let reported = filled.reported;
    if reported.usage == crate::view::Usage::default() {
        return;
    }
    let by_scope = dialect.basis_by_scope.iter().find(|(scope, _)| **scope == *item.scope.name);
    let basis = filled.basis.unwrap_or(by_scope.map_or(dialect.basis, |(_, basis)| *basis));
    let model = if canonical.response_model.is_empty() { &canonical.request_model } else { &canonical.response_model };
    let context = usage::Context {
        basis,
        provider: &canonical.provider,
        model,
        must_have_usage: has_output || (meaning.kind == plan.known.llm_kind && !item.failed),
    };
    (canonical.usage, canonical.input_basis) = usage::settle(reported, &context);
    if canonical.usage == crate::view::Usage::default() {
        return;
    }
    let scope = if filled.aggregate { ScopeRule::Aggregate } else { meaning.scope };
    canonical.usage_scope = match scope {
        ScopeRule::Own => "own",
        // Agents, workflows and chains nearly always repeat their calls: only a hosted agent needs a correction then.
        ScopeRule::OwnTentative if is_call(&canonical.kind) => "own",
        ScopeRule::OwnTentative | ScopeRule::Aggregate => "aggregate",
        ScopeRule::None => "none",
    };
    if scope == ScopeRule::OwnTentative {
        canonical.usage_scope_reason = "tentative";
    }
}

/// Kinds whose usage is the provider's answer, as `CALLS` in `processors/reconcile.py`.
fn is_call(kind: &str) -> bool {
    matches!(kind, "llm" | "embedding" | "rerank" | "decision" | "log")
}

fn finish(plan: &Plan, output_has_tool_calls: bool, canonical: &mut Canonical<'_>) {
    for raw in &canonical.finish_reasons_raw {
        if let Some(known) = lower_get(&plan.finish_reasons, raw) {
            canonical.finish_reasons.push(Cow::Owned(String::from(&**known)));
        }
    }
    // Gemini says STOP and the Responses API completed when the output is a tool call
    if output_has_tool_calls
        && let [reason] = canonical.finish_reasons.as_mut_slice()
        && reason == "stop"
    {
        *reason = Cow::Borrowed("tool_call");
    }
}

/// The attribute, else the last exception event, else `_OTHER`. Only a span with status error has failed.
fn error<'a>(span: &SpanView<'a>, canonical: &mut Canonical<'a>, arena: &'a Bump) {
    canonical.error_type = cleaned(std::mem::take(&mut canonical.error_type));
    if !canonical.error_type.is_empty() || span.status != 2 || canonical.dialect.is_empty() {
        return;
    }
    let exceptions = span.events.iter().rev().filter(|event| event.name == "exception");
    let named = exceptions
        .filter_map(|event| event.attrs.iter().find(|attr| attr.key == "exception.type"))
        .find_map(|attr| values::text(attr.value, arena));
    canonical.error_type = named.map_or(Cow::Borrowed("_OTHER"), cleaned);
}

fn cleaned(name: Text<'_>) -> Text<'_> {
    match name {
        Cow::Borrowed(name) => Cow::Borrowed(values::strip_class(name)),
        Cow::Owned(name) => Cow::Owned(values::strip_class(&name).to_owned()),
    }
}
