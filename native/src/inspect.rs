//! What the receiver asks about a request before it is made durable: how much is in it, what would be rejected, what is
//! too large.

use bumpalo::Bump;

use crate::content::{self, preview};
use crate::otlp::{Counts, Part, Unreadable, groups};
use crate::view::Value;
use crate::wire::{self, Field, Fields, Malformed, Scratch};

/// Rejects that are listed; the rest are only counted.
const REJECTS_LISTED_MAX: usize = 100;
/// Values of up to so many bytes are never cut.
const CUT_BYTES_MIN: usize = 1 << 10;

#[derive(Debug, Default)]
pub struct Inspection {
    pub items: usize,
    pub attributes: usize,
    pub rejects: Vec<(usize, String)>,
    pub rejected: usize,
    pub repaired: usize,
}

impl Inspection {
    fn add(&mut self, counts: Counts) {
        self.attributes += counts.attributes;
        self.repaired += counts.repaired;
    }
}

enum Stop {
    OverLimit,
    Unreadable(Unreadable),
}

impl From<Unreadable> for Stop {
    fn from(unreadable: Unreadable) -> Self {
        Self::Unreadable(unreadable)
    }
}

/// Counts and checks a request, in the way that decoding it would. Stops at the first count over its limit.
pub fn inspect(logs: bool, request: &[u8], items_max: usize, attributes_max: usize) -> Result<Inspection, Unreadable> {
    let arena = Bump::new();
    let mut found = Inspection::default();
    let mut unfolded = 0;
    let stopped = groups(request, &arena, |part| {
        let group = match part {
            Part::Source(counts) => {
                found.add(counts);
                return if found.attributes > attributes_max { Err(Stop::OverLimit) } else { Ok(()) };
            }
            Part::Group(group) => group,
        };
        while let Some(body) = group.next_item().map_err(|malformed| Unreadable::at(malformed, request))? {
            // what one item leaves in the arena is not needed for the next one
            let arena = Bump::new();
            let (counts, reject) = if logs {
                let (counts, record) = group.record(body, &arena, &mut unfolded);
                (counts, record.err())
            } else {
                let (counts, span) = group.span(body, &arena, &mut unfolded);
                (counts, span.err())
            };
            found.add(counts);
            if let Some(reject) = reject {
                found.rejected += 1;
                if found.rejects.len() < REJECTS_LISTED_MAX {
                    found.rejects.push((found.items, reject.to_string()));
                }
            }
            found.items += 1;
            if found.items > items_max || found.attributes > attributes_max {
                return Err(Stop::OverLimit);
            }
        }
        Ok(())
    });
    match stopped {
        Ok(()) | Err(Stop::OverLimit) => Ok(found),
        Err(Stop::Unreadable(unreadable)) => Err(unreadable),
    }
}

/// One value that was too large to keep.
#[derive(Debug, PartialEq, Eq)]
pub struct Cut {
    /// Index of the span or log record in the request.
    pub span: usize,
    /// Attribute key, with `events[i].` or `links[i].` in front where it is one of theirs.
    pub key: String,
    /// Of the value as sent; of its JSON text for arrays and lists.
    pub bytes: usize,
    /// XXH3-128, likewise.
    pub hash: u128,
}

/// Appends a length-delimited field.
fn put(number: u32, body: &[u8], out: &mut Vec<u8>) {
    let mut varint = |mut value: usize| {
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    };
    varint((number << 3 | 2) as usize);
    varint(body.len());
    out.extend_from_slice(body);
}

/// Copies a message body, but for the length-delimited fields that `replace` gives a new body.
fn rewrite(
    body: &[u8],
    mut replace: impl FnMut(u32, &[u8]) -> Result<Option<Vec<u8>>, Malformed>,
) -> Result<Vec<u8>, Malformed> {
    let mut out = Vec::with_capacity(body.len());
    let mut fields = Fields::new(body);
    while let Some((number, field, raw)) = fields.read_raw()? {
        match field {
            Field::Bytes(body) => match replace(number, body)? {
                Some(replaced) => put(number, &replaced, &mut out),
                None => out.extend_from_slice(raw),
            },
            _ => out.extend_from_slice(raw),
        }
    }
    Ok(out)
}

/// Where the text fields, attributes and body of a span, event, link or log record are; 0 for none.
struct Shape {
    texts: &'static [(u32, &'static str)],
    attributes: u32,
    body: u32,
}

const SPAN: Shape = Shape { texts: &[(5, "name"), (3, "trace_state")], attributes: 9, body: 0 };
const EVENT: Shape = Shape { texts: &[(2, "name")], attributes: 3, body: 0 };
const LINK: Shape = Shape { texts: &[(3, "trace_state")], attributes: 4, body: 0 };
const STATUS: Shape = Shape { texts: &[(2, "message")], attributes: 0, body: 0 };
const RECORD: Shape = Shape { texts: &[(3, "severity_text"), (12, "event_name")], attributes: 6, body: 5 };

/// What is done with every value of a span: `None` leaves it as it is.
type Visit<'v> = dyn FnMut(&str, Large<'_>) -> Option<Vec<u8>> + 'v;

/// A value and its size.
enum Large<'a> {
    Text(&'a [u8]),
    Value(Value<'a>),
}

impl Large<'_> {
    fn bytes(&self) -> usize {
        match self {
            Self::Text(bytes) | Self::Value(Value::Bytes(bytes) | Value::Array(bytes) | Value::KvList(bytes)) => {
                bytes.len()
            }
            Self::Value(Value::Str(text)) => text.len(),
            Self::Value(_) => 0,
        }
    }
}

fn rewrite_shape(body: &[u8], shape: &Shape, place: &str, visit: &mut Visit<'_>) -> Result<Vec<u8>, Malformed> {
    let arena = Bump::new();
    rewrite(body, |number, field| {
        if number == shape.attributes {
            let attr = Scratch::new(&arena).key_value(field)?;
            let cut = visit(&format!("{place}{}", attr.key), Large::Value(attr.value));
            return Ok(cut.map(|text| {
                let (mut value, mut attribute) = (Vec::new(), Vec::new());
                put(1, &text, &mut value);
                put(1, attr.key.as_bytes(), &mut attribute);
                put(2, &value, &mut attribute);
                attribute
            }));
        }
        if number == shape.body {
            let value = Scratch::new(&arena).any_value(field)?;
            return Ok(visit(&format!("{place}body"), Large::Value(value)).map(|text| {
                let mut value = Vec::new();
                put(1, &text, &mut value);
                value
            }));
        }
        let text = shape.texts.iter().find(|text| text.0 == number);
        Ok(text.and_then(|text| visit(&format!("{place}{}", text.1), Large::Text(field))))
    })
}

fn rewrite_span(body: &[u8], visit: &mut Visit<'_>) -> Result<Vec<u8>, Malformed> {
    let (mut events, mut links) = (0, 0);
    let nested = rewrite(body, |number, field| {
        let (shape, place) = match number {
            11 => {
                events += 1;
                (&EVENT, format!("events[{}].", events - 1))
            }
            13 => {
                links += 1;
                (&LINK, format!("links[{}].", links - 1))
            }
            15 => (&STATUS, "status.".to_owned()),
            _ => return Ok(None),
        };
        rewrite_shape(field, shape, &place, visit).map(Some)
    })?;
    rewrite_shape(&nested, &SPAN, "", visit)
}

/// The length to which the values of these lengths are cut so that `excess` bytes go.
fn cut_length(mut lengths: Vec<usize>, excess: usize) -> usize {
    lengths.sort_unstable_by(|a, b| b.cmp(a));
    let mut sum = 0;
    for (index, length) in lengths.iter().enumerate() {
        sum += length;
        let next = lengths.get(index + 1).copied().unwrap_or(0).max(CUT_BYTES_MIN);
        if sum.saturating_sub(next * (index + 1)) >= excess {
            return (sum - excess) / (index + 1);
        }
    }
    CUT_BYTES_MIN
}

/// Cuts the longest values of a span or log record, all to the same length.
pub fn cut_item(
    logs: bool,
    body: &[u8],
    index: usize,
    bytes_max: usize,
    cuts: &mut Vec<Cut>,
) -> Result<Vec<u8>, Malformed> {
    let rewrite_item = |body: &[u8], visit: &mut Visit<'_>| {
        if logs { rewrite_shape(body, &RECORD, "", visit) } else { rewrite_span(body, visit) }
    };
    let mut lengths = Vec::new();
    rewrite_item(body, &mut |_, value| {
        lengths.push(value.bytes());
        None
    })?;
    // a cut array becomes text, whose key-value wrapping takes a few bytes more than it did
    let excess =
        body.len().saturating_sub(bytes_max) + 16 * lengths.iter().filter(|length| **length > CUT_BYTES_MIN).count();
    let length_max = cut_length(lengths, excess).max(CUT_BYTES_MIN);
    rewrite_item(body, &mut |key, value| {
        if value.bytes() <= length_max {
            return None;
        }
        let mut text = String::new();
        let bytes = match &value {
            Large::Text(bytes) => bytes,
            Large::Value(Value::Str(text)) => text.as_bytes(),
            Large::Value(value) => {
                wire::to_text(*value, &mut text);
                text.as_bytes()
            }
        };
        let original_bytes = match value {
            Large::Value(Value::Bytes(bytes)) => bytes,
            _ => bytes,
        };
        let hash = content::hash_bytes(original_bytes);
        let note = format!("...[cut by spanwise: {} bytes, xxh3 {hash:032x}]", original_bytes.len());
        let mut keep = length_max.saturating_sub(note.len()).min(bytes.len());
        while keep > 0 && bytes.get(keep).is_some_and(|byte| byte & 0xc0 == 0x80) {
            keep -= 1;
        }
        cuts.push(Cut { span: index, key: preview(key).to_owned(), bytes: original_bytes.len(), hash });
        Some([&bytes[..keep], note.as_bytes()].concat())
    })
}

/// A request and what was cut from it.
pub type Rewritten = (Vec<u8>, Vec<Cut>);

/// Cuts the longest values of spans over `span_bytes_max` bytes; `None` if there was nothing to cut.
///
/// Spans that are not valid stay as they are, and so do spans that are made of many small values.
pub fn cut_oversized(request: &[u8], span_bytes_max: usize) -> Result<Option<Rewritten>, Unreadable> {
    if request.len() <= span_bytes_max {
        return Ok(None);
    }
    let mut cuts = Vec::new();
    let mut index = 0;
    let rewritten = rewrite(request, |number, resource_spans| {
        if number != 1 {
            return Ok(None);
        }
        let rewritten = rewrite(resource_spans, |number, scope_spans| {
            if number != 2 {
                return Ok(None);
            }
            let rewritten = rewrite(scope_spans, |number, span| {
                if number != 2 {
                    return Ok(None);
                }
                index += 1;
                if span.len() <= span_bytes_max {
                    return Ok(None);
                }
                let before = cuts.len();
                Ok(cut_item(false, span, index - 1, span_bytes_max, &mut cuts).ok().filter(|_| cuts.len() > before))
            });
            rewritten.map(Some)
        });
        rewritten.map(Some)
    });
    let rewritten = rewritten.map_err(|malformed| Unreadable::at(malformed, request))?;
    Ok((!cuts.is_empty()).then_some((rewritten, cuts)))
}
