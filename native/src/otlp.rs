//! OTLP export requests: from the bytes of a request to one view a span or log record.

use std::fmt;

use bumpalo::Bump;

use crate::view::{Attr, EventView, LinkView, LogView, ResourceView, ScopeView, SpanView, Value};
use crate::wire::{Field, Fields, Malformed, Scratch};

/// Attributes one span may have, with those of its events and links.
pub const SPAN_ATTRIBUTES_MAX: usize = 1_000_000;
/// Encoded bytes of the spans of one request, each counted with its resource and scope, which every row repeats.
pub const UNFOLDED_BYTES_MAX: usize = 512 << 20;
/// Stands where the OTLP/JSON reader found no hexadecimal id, so that only its span is rejected.
pub const NOT_HEX: &[u8] = b"\0spanwise: not hexadecimal";
/// Stands in the trace id where a field of an OTLP/JSON span has the wrong JSON type.
pub const WRONG_TYPE: &[u8] = b"\0spanwise: wrong JSON type";

/// Why one span or log record is left out. Never holds text of the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    Malformed(Malformed),
    IdLength(&'static str, usize, usize),
    IdZero(&'static str),
    IdNotHex(&'static str),
    WrongJsonType,
    TooManyAttributes,
    Unfolds,
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(malformed) => write!(f, "not valid protobuf: {}", malformed.what),
            Self::IdLength(name, length, wanted) => write!(
                f,
                "{name} is {length} bytes long, not {wanted} ({} hexadecimal digits in OTLP/JSON)",
                wanted * 2
            ),
            Self::IdZero(name) => write!(f, "{name} is all zero"),
            Self::IdNotHex(name) => write!(f, "{name} is not hexadecimal"),
            Self::WrongJsonType => write!(f, "a field has the wrong JSON type or is nested too deep"),
            Self::TooManyAttributes => write!(f, "more than {SPAN_ATTRIBUTES_MAX} attributes"),
            Self::Unfolds => write!(
                f,
                "its request unfolds to more than {} MiB because every span repeats its resource and scope",
                UNFOLDED_BYTES_MAX >> 20
            ),
        }
    }
}

impl From<Malformed> for Reject {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// What reading one span or record took, rejected ones included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub attributes: usize,
    pub repaired: usize,
}

/// Encoded resource and scope of a log record.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogSource<'a> {
    pub resource: &'a [u8],
    pub scope: &'a [u8],
}

/// Last value wins, at the first one's place.
fn resolve_repeated(attrs: &mut Vec<Attr<'_>>) {
    const PAIRWISE_MAX: usize = 24;
    if attrs.len() <= PAIRWISE_MAX {
        // one bit a kind of key: a key is compared with the others only if its bit is taken
        let mut taken = 0u64;
        let mut index = 0;
        while index < attrs.len() {
            let key = attrs[index].key.as_bytes();
            let last = key.last().copied().unwrap_or(0);
            let middle = key.get(key.len() / 2).copied().unwrap_or(0);
            let kind = (key.len() * 7) ^ usize::from(last) ^ (usize::from(middle) << 2);
            let bit = 1u64 << (kind % 64);
            if taken & bit != 0
                && let Some(first) = attrs[..index].iter().position(|attr| attr.key.as_bytes() == key)
            {
                attrs[first].value = attrs[index].value;
                attrs.remove(index);
            } else {
                taken |= bit;
                index += 1;
            }
        }
        return;
    }
    let mut first: hashbrown::HashMap<&str, usize, foldhash::fast::RandomState> =
        hashbrown::HashMap::with_capacity_and_hasher(attrs.len(), foldhash::fast::RandomState::default());
    let mut kept = 0;
    for index in 0..attrs.len() {
        let attr = attrs[index];
        let place = *first.entry(attr.key).or_insert(kept);
        if place == kept {
            attrs[kept] = attr;
            kept += 1;
        } else {
            attrs[place].value = attr.value;
        }
    }
    attrs.truncate(kept);
}

struct Reader<'a> {
    scratch: Scratch<'a>,
    attributes: usize,
}

impl<'a> Reader<'a> {
    fn new(arena: &'a Bump) -> Self {
        Self { scratch: Scratch::new(arena), attributes: 0 }
    }

    fn counts(&self) -> Counts {
        Counts { attributes: self.attributes, repaired: self.scratch.repaired }
    }

    // called from five places: one copy of it, and the fields of a span stay in registers
    #[inline(never)]
    fn attr(&mut self, body: &'a [u8], attrs: &mut Vec<Attr<'a>>) -> Result<(), Reject> {
        self.attributes += 1;
        if self.attributes > SPAN_ATTRIBUTES_MAX {
            return Err(Reject::TooManyAttributes);
        }
        let attr = self.scratch.key_value(body)?;
        if let Value::Array(_) | Value::KvList(_) = attr.value {
            self.scratch.check(attr.value)?;
        }
        attrs.push(attr);
        Ok(())
    }

    /// Attributes of a resource or scope, kept for all of its spans.
    fn keep(&self, mut attrs: Vec<Attr<'a>>) -> &'a [Attr<'a>] {
        resolve_repeated(&mut attrs);
        self.scratch.arena.alloc_slice_copy(&attrs)
    }

    fn resource(&mut self, body: &'a [u8], resource: &mut ResourceView<'a>) -> Result<(), Reject> {
        let mut attrs = resource.attrs.to_vec();
        let mut fields = Fields::new(body);
        while let Some((number, field)) = fields.read()? {
            match (number, field) {
                (1, Field::Bytes(body)) => self.attr(body, &mut attrs)?,
                (2, Field::Varint(count)) => resource.dropped_attributes_count = count as u32,
                _ => {}
            }
        }
        resource.attrs = self.keep(attrs);
        Ok(())
    }

    fn scope(&mut self, body: &'a [u8], scope: &mut ScopeView<'a>) -> Result<(), Reject> {
        let mut attrs = scope.attrs.to_vec();
        let mut fields = Fields::new(body);
        while let Some((number, field)) = fields.read()? {
            match (number, field) {
                (1, Field::Bytes(text)) => scope.name = self.scratch.text(text),
                (2, Field::Bytes(text)) => scope.version = self.scratch.text(text),
                (3, Field::Bytes(body)) => self.attr(body, &mut attrs)?,
                _ => {}
            }
        }
        scope.attrs = self.keep(attrs);
        Ok(())
    }

    fn event(&mut self, body: &'a [u8]) -> Result<EventView<'a>, Reject> {
        let mut event = EventView::default();
        let mut fields = Fields::new(body);
        while let Some((number, field)) = fields.read()? {
            match (number, field) {
                (1, Field::Fixed64(nanos)) => event.time_unix_nano = nanos,
                (2, Field::Bytes(text)) => event.name = self.scratch.text(text),
                (3, Field::Bytes(body)) => self.attr(body, &mut event.attrs)?,
                _ => {}
            }
        }
        resolve_repeated(&mut event.attrs);
        Ok(event)
    }

    fn link(&mut self, body: &'a [u8]) -> Result<LinkView<'a>, Reject> {
        let mut link = LinkView::default();
        let mut fields = Fields::new(body);
        while let Some((number, field)) = fields.read()? {
            match (number, field) {
                (1, Field::Bytes(id)) => link.trace_id = id,
                (2, Field::Bytes(id)) => link.span_id = id,
                (3, Field::Bytes(text)) => link.trace_state = self.scratch.text(text),
                (4, Field::Bytes(body)) => self.attr(body, &mut link.attrs)?,
                _ => {}
            }
        }
        resolve_repeated(&mut link.attrs);
        Ok(link)
    }

    fn span(
        &mut self,
        resource: &'a ResourceView<'a>,
        scope: &'a ScopeView<'a>,
        body: &'a [u8],
    ) -> Result<SpanView<'a>, Reject> {
        let mut trace_id: &[u8] = &[];
        let mut span_id: &[u8] = &[];
        let mut parent: &[u8] = &[];
        let mut span = SpanView {
            resource,
            scope,
            trace_id: [0; 16],
            span_id: [0; 8],
            parent_span_id: None,
            trace_state: "",
            flags: 0,
            name: "",
            kind: 0,
            start_unix_nano: 0,
            end_unix_nano: 0,
            status: 0,
            status_message: "",
            attrs: Vec::with_capacity(16),
            events: Vec::new(),
            links: Vec::new(),
            dropped_attributes_count: 0,
            dropped_events_count: 0,
            dropped_links_count: 0,
        };
        let mut fields = Fields::new(body);
        while let Some((number, field)) = fields.read()? {
            match (number, field) {
                (1, Field::Bytes(id)) => trace_id = id,
                (2, Field::Bytes(id)) => span_id = id,
                (3, Field::Bytes(text)) => span.trace_state = self.scratch.text(text),
                (4, Field::Bytes(id)) => parent = id,
                (5, Field::Bytes(text)) => span.name = self.scratch.text(text),
                (6, Field::Varint(kind)) => span.kind = enumerated(kind, 5),
                (7, Field::Fixed64(nanos)) => span.start_unix_nano = nanos,
                (8, Field::Fixed64(nanos)) => span.end_unix_nano = nanos,
                (9, Field::Bytes(body)) => self.attr(body, &mut span.attrs)?,
                (10, Field::Varint(count)) => span.dropped_attributes_count = count as u32,
                (11, Field::Bytes(body)) => span.events.push(self.event(body)?),
                (12, Field::Varint(count)) => span.dropped_events_count = count as u32,
                (13, Field::Bytes(body)) => span.links.push(self.link(body)?),
                (14, Field::Varint(count)) => span.dropped_links_count = count as u32,
                (15, Field::Bytes(body)) => {
                    let mut status = Fields::new(body);
                    while let Some((number, field)) = status.read()? {
                        match (number, field) {
                            (2, Field::Bytes(text)) => span.status_message = self.scratch.text(text),
                            (3, Field::Varint(code)) => span.status = enumerated(code, 2),
                            _ => {}
                        }
                    }
                }
                (16, Field::Fixed32(flags)) => span.flags = flags,
                _ => {}
            }
        }
        if trace_id == WRONG_TYPE {
            return Err(Reject::WrongJsonType);
        }
        span.trace_id = id("trace_id", trace_id)?.ok_or(Reject::IdZero("trace_id"))?;
        span.span_id = id("span_id", span_id)?.ok_or(Reject::IdZero("span_id"))?;
        span.parent_span_id = if parent.is_empty() { None } else { id("parent_span_id", parent)? };
        resolve_repeated(&mut span.attrs);
        Ok(span)
    }

    fn record(
        &mut self,
        resource: &'a ResourceView<'a>,
        scope: &'a ScopeView<'a>,
        body: &'a [u8],
    ) -> Result<LogView<'a>, Reject> {
        let mut trace_id: &[u8] = &[];
        let mut span_id: &[u8] = &[];
        let mut observed = 0;
        let mut value: Option<&[u8]> = None;
        let mut record = LogView {
            resource,
            scope,
            trace_id: None,
            span_id: None,
            time_unix_nano: 0,
            severity: 0,
            event_name: "",
            body: Value::Empty,
            attrs: Vec::with_capacity(8),
        };
        let mut fields = Fields::new(body);
        while let Some((number, field)) = fields.read()? {
            match (number, field) {
                (1, Field::Fixed64(nanos)) => record.time_unix_nano = nanos,
                (2, Field::Varint(severity)) => record.severity = u32::from(enumerated(severity, 24)),
                (5, Field::Bytes(body)) => {
                    value = Some(match value {
                        None => body,
                        Some(before) => self.scratch.join(before, body)?,
                    });
                }
                (6, Field::Bytes(body)) => self.attr(body, &mut record.attrs)?,
                (9, Field::Bytes(id)) => trace_id = id,
                (10, Field::Bytes(id)) => span_id = id,
                (11, Field::Fixed64(nanos)) => observed = nanos,
                (12, Field::Bytes(text)) => record.event_name = self.scratch.text(text),
                _ => {}
            }
        }
        if trace_id == WRONG_TYPE {
            return Err(Reject::WrongJsonType);
        }
        // a record outside of any span has no ids, and that is fine
        if !trace_id.is_empty() {
            record.trace_id = id("trace_id", trace_id)?;
        }
        if !span_id.is_empty() {
            record.span_id = id("span_id", span_id)?;
        }
        if let Some(body) = value {
            record.body = self.scratch.any_value(body)?;
            self.scratch.check(record.body)?;
        }
        if record.time_unix_nano == 0 {
            record.time_unix_nano = observed;
        }
        resolve_repeated(&mut record.attrs);
        if record.event_name.is_empty()
            && let Some(Attr { value: Value::Str(name), .. }) =
                record.attrs.iter().find(|attr| attr.key == "event.name")
        {
            record.event_name = name;
        }
        Ok(record)
    }
}

/// An enum number, 0 where it is not one of `0..=max`.
fn enumerated(number: u64, max: u8) -> u8 {
    match u8::try_from(number) {
        Ok(number) if number <= max => number,
        _ => 0,
    }
}

/// An id of the right length; `None` where it is all zero.
fn id<const N: usize>(name: &'static str, bytes: &[u8]) -> Result<Option<[u8; N]>, Reject> {
    match <[u8; N]>::try_from(bytes) {
        Ok(id) if id == [0; N] => Ok(None),
        Ok(id) => Ok(Some(id)),
        Err(_) if bytes == NOT_HEX => Err(Reject::IdNotHex(name)),
        Err(_) => Err(Reject::IdLength(name, bytes.len(), N)),
    }
}

/// A group of spans or log records: one `ScopeSpans` or `ScopeLogs` with the resource it belongs to.
pub struct Group<'a> {
    pub resource: &'a ResourceView<'a>,
    pub scope: &'a ScopeView<'a>,
    /// Encoded resource and scope.
    pub source: LogSource<'a>,
    items: Fields<'a>,
}

impl<'a> Group<'a> {
    /// Encoded bodies of the spans or log records, in order.
    pub fn next_item(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        while let Some((number, field)) = self.items.read()? {
            if let (2, Field::Bytes(body)) = (number, field) {
                return Ok(Some(body));
            }
        }
        Ok(None)
    }

    /// Encoded bytes that the row of an item is made of.
    pub fn unfolded_bytes(&self, body: &[u8]) -> usize {
        self.source.resource.len() + self.source.scope.len() + body.len()
    }

    /// `unfolded` sums up over the items of one request.
    pub fn span<'b>(
        &self,
        body: &'b [u8],
        arena: &'b Bump,
        unfolded: &mut usize,
    ) -> (Counts, Result<SpanView<'b>, Reject>)
    where
        'a: 'b,
    {
        let mut reader = Reader::new(arena);
        let mut span = reader.span(self.resource, self.scope, body);
        *unfolded += self.unfolded_bytes(body);
        if *unfolded > UNFOLDED_BYTES_MAX {
            span = Err(Reject::Unfolds);
        }
        (reader.counts(), span)
    }

    pub fn record<'b>(
        &self,
        body: &'b [u8],
        arena: &'b Bump,
        unfolded: &mut usize,
    ) -> (Counts, Result<LogView<'b>, Reject>)
    where
        'a: 'b,
    {
        let mut reader = Reader::new(arena);
        let mut record = reader.record(self.resource, self.scope, body);
        *unfolded += self.unfolded_bytes(body);
        if *unfolded > UNFOLDED_BYTES_MAX {
            record = Err(Reject::Unfolds);
        }
        (reader.counts(), record)
    }
}

/// The request as a whole cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable {
    pub offset: usize,
    pub reject: Reject,
}

impl Unreadable {
    pub fn at(malformed: Malformed, request: &[u8]) -> Self {
        Self { offset: malformed.offset(request), reject: malformed.into() }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}: {}", self.offset, self.reject)
    }
}

/// What [`groups`] comes across.
pub enum Part<'g, 'a> {
    /// A resource or scope was read, and took this.
    Source(Counts),
    Group(&'g mut Group<'a>),
}

/// Calls `visit` with every part of an `ExportTraceServiceRequest` or `ExportLogsServiceRequest`, which are alike down
/// to their spans and records. Resources and scopes must be well-formed; spans and records are not looked at.
pub fn groups<'a, E: From<Unreadable>>(
    request: &'a [u8],
    arena: &'a Bump,
    mut visit: impl FnMut(Part<'_, 'a>) -> Result<(), E>,
) -> Result<(), E> {
    let whole = |reject: Reject| Unreadable {
        offset: match reject {
            Reject::Malformed(malformed) => malformed.offset(request),
            _ => 0,
        },
        reject,
    };
    let malformed = |malformed: Malformed| whole(malformed.into());
    let mut request_fields = Fields::new(request);
    while let Some(field) = request_fields.read().map_err(malformed)? {
        let (1, Field::Bytes(group)) = field else { continue };
        let mut reader = Reader::new(arena);
        let mut resource = ResourceView::default();
        let mut source = LogSource::default();
        // the resource may come after its scopes
        let mut fields = Fields::new(group);
        while let Some(field) = fields.read().map_err(malformed)? {
            match field {
                (1, Field::Bytes(body)) => {
                    reader.resource(body, &mut resource).map_err(whole)?;
                    source.resource = body;
                }
                (3, Field::Bytes(text)) => resource.schema_url = reader.scratch.text(text),
                _ => {}
            }
        }
        visit(Part::Source(reader.counts()))?;
        let resource: &'a ResourceView<'a> = arena.alloc(resource);
        let mut fields = Fields::new(group);
        while let Some(field) = fields.read().map_err(malformed)? {
            let (2, Field::Bytes(body)) = field else { continue };
            let mut reader = Reader::new(arena);
            let mut scope = ScopeView::default();
            source.scope = &[];
            let mut fields = Fields::new(body);
            while let Some(field) = fields.read().map_err(malformed)? {
                match field {
                    (1, Field::Bytes(body)) => {
                        reader.scope(body, &mut scope).map_err(whole)?;
                        source.scope = body;
                    }
                    (3, Field::Bytes(text)) => scope.schema_url = reader.scratch.text(text),
                    _ => {}
                }
            }
            visit(Part::Source(reader.counts()))?;
            visit(Part::Group(&mut Group { resource, scope: arena.alloc(scope), source, items: Fields::new(body) }))?;
        }
    }
    Ok(())
}

/// Spans or records of a request, as far as it can be read. Looks at nothing but the framing.
pub fn count(request: &[u8]) -> usize {
    fn bodies(number: u32, body: &[u8]) -> impl Iterator<Item = &[u8]> {
        let mut fields = Fields::new(body);
        std::iter::from_fn(move || fields.read().ok().flatten()).filter_map(move |field| match field {
            (found, Field::Bytes(body)) if found == number => Some(body),
            _ => None,
        })
    }
    bodies(1, request).flat_map(|resource| bodies(2, resource)).map(|scope| bodies(2, scope).count()).sum()
}
