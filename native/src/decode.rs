//! Frames of export requests to the rows of three tables, deterministic to the byte.

use arrow_array::RecordBatch;
use arrow_schema::ArrowError;
use bumpalo::Bump;
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use crate::normalise::{Session, normalise, normalise_log};
use crate::otlp::{Part, Reject, Unreadable, count, groups};
use crate::plan::Plan;
use crate::rows::{Big, Item, LogRows, Origin, Received, SpanRows, Trace};

/// Rejects that are listed; the rest are only counted.
const REJECTS_LISTED_MAX: usize = 1_000;
/// Text of one column of a batch; Arrow's offsets end at 2 GiB.
const COLUMN_BYTES_MAX: usize = i32::MAX as usize;
/// Rows for which room is made beforehand; spans may be two bytes long.
const ROWS_RESERVED_MAX: usize = 1 << 17;
/// How much longer a row's text may be than its encoded form (control characters in nested values: `\u0001`).
const UNFOLDING_MAX: usize = 8;

/// One accepted request as the journal keeps it.
pub struct Frame<'a> {
    pub tenant: &'a str,
    pub received_unix_nano: i64,
    pub logs: bool,
    pub body: &'a [u8],
}

pub struct Rejected {
    pub frame: usize,
    pub item: usize,
    pub reason: String,
}

pub struct Decoded {
    pub spans: RecordBatch,
    pub content: RecordBatch,
    pub log_events: RecordBatch,
    pub rejects: Vec<Rejected>,
    pub rejected: usize,
    pub ignored_logs: usize,
}

/// The frame that is being read.
struct Sender<'a> {
    tenant: &'a str,
    tenant_index: u32,
    received: Received,
    /// Sum over the items so far, see [`Group::unfolded_bytes`].
    unfolded: usize,
}

/// One decode call.
struct Decoding<'a> {
    plan: &'a Plan,
    arena: &'a Bump,
    session: Session<'a>,
    tenants: HashMap<&'a str, u32, FxBuildHasher>,
    spans: SpanRows,
    logs: LogRows,
    big: Big<'a>,
    groups: usize,
    /// Upper bound of the text in any column.
    unfolded: usize,
    rejects: Vec<Rejected>,
    rejected: usize,
    ignored_logs: usize,
}

impl<'a> Decoding<'a> {
    fn reject(&mut self, frame: usize, item: usize, reason: &dyn std::fmt::Display) {
        self.rejected += 1;
        if self.rejects.len() < REJECTS_LISTED_MAX {
            self.rejects.push(Rejected { frame, item, reason: reason.to_string() });
        }
    }

    fn frame(&mut self, index: usize, frame: &Frame<'a>) {
        let next = self.tenants.len() as u32;
        let mut sender = Sender {
            tenant: frame.tenant,
            tenant_index: *self.tenants.entry(frame.tenant).or_insert(next),
            received: Received::new(frame.received_unix_nano),
            unfolded: 0,
        };
        let mut count = 0;
        let read = groups::<Unreadable>(frame.body, self.arena, |part| {
            let Part::Group(group) = part else { return Ok(()) };
            self.groups += 1;
            let origin = Origin::new(group, self.arena, self.groups);
            loop {
                let found = group.next_item().map_err(|malformed| Unreadable::at(malformed, frame.body))?;
                let Some(body) = found else { return Ok(()) };
                let item = Item { group, origin: &origin, body };
                let done = if frame.logs { self.record(&item, &mut sender) } else { self.span(&item, &mut sender) };
                if let Err(reject) = done {
                    self.reject(index, count, &reject);
                }
                count += 1;
            }
        });
        if let Err(unreadable) = read {
            self.reject(index, count, &format_args!("request is not readable from here on: {unreadable}"));
        }
    }

    /// Whether the text of one more row fits its columns.
    fn make_room(&mut self, item: &Item<'_, 'a>) -> Result<(), Reject> {
        let bytes = item.group.unfolded_bytes(item.body) * UNFOLDING_MAX;
        self.unfolded += bytes;
        // as long as the upper bound fits, nobody has to look at the columns
        if self.unfolded <= COLUMN_BYTES_MAX {
            return Ok(());
        }
        let filled = self.spans.text_bytes().max(self.big.references.text_bytes()).max(self.logs.text_bytes());
        if filled + bytes <= COLUMN_BYTES_MAX { Ok(()) } else { Err(Reject::Unfolds) }
    }

    fn span(&mut self, item: &Item<'_, 'a>, sender: &mut Sender<'_>) -> Result<(), Reject> {
        let span = item.group.span(item.body, self.arena, &mut sender.unfolded).1?;
        self.make_room(item)?;
        let canonical = normalise(self.plan, &span, &mut self.session, self.arena);
        let (time_flag, day) = sender.received.flag(span.start_unix_nano);
        let slot = self.big.contents.slot(sender.tenant_index, span.trace_id);
        let trace =
            Trace { slot, time_flag, tenant: sender.tenant, id: &span.trace_id, day, received: sender.received };
        std::mem::swap(&mut self.big.splits, &mut self.session.memo.splits);
        self.spans.push(self.plan, item, &span, &canonical, &trace, &mut self.big);
        std::mem::swap(&mut self.big.splits, &mut self.session.memo.splits);
        Ok(())
    }

    fn record(&mut self, item: &Item<'_, 'a>, sender: &mut Sender<'_>) -> Result<(), Reject> {
        let record = item.group.record(item.body, self.arena, &mut sender.unfolded).1?;
        self.make_room(item)?;
        let Some(canonical) = normalise_log(self.plan, &record, &mut self.session, self.arena) else {
            self.ignored_logs += 1;
            return Ok(());
        };
        let id = record.trace_id.as_ref().map_or(&[][..], |id| id);
        let (time_flag, day) = sender.received.flag(record.time_unix_nano);
        let slot = self.big.contents.slot(sender.tenant_index, record.trace_id.unwrap_or_default());
        let trace = Trace { slot, time_flag, tenant: sender.tenant, id, day, received: sender.received };
        self.logs.push(item, &record, &canonical, &trace, &mut self.big.contents);
        Ok(())
    }
}

/// The rows of all frames, in order. Errors are ours, never the payload's.
pub fn decode(plan: &Plan, frames: &[Frame<'_>]) -> Result<Decoded, ArrowError> {
    let arena = Bump::new();
    let requests = || frames.iter().filter(|frame| !frame.logs).map(|frame| frame.body);
    let rows = requests().map(count).sum::<usize>().min(ROWS_RESERVED_MAX);
    let mut decoding = Decoding {
        plan,
        arena: &arena,
        session: Session::default(),
        tenants: HashMap::default(),
        spans: SpanRows::new(rows, requests().map(<[u8]>::len).sum()),
        logs: LogRows::new(),
        big: Big::new(rows),
        groups: 0,
        unfolded: 0,
        rejects: Vec::new(),
        rejected: 0,
        ignored_logs: 0,
    };
    for (index, frame) in frames.iter().enumerate() {
        decoding.frame(index, frame);
    }
    Ok(Decoded {
        spans: decoding.spans.finish(decoding.big.references)?,
        content: decoding.big.contents.finish()?,
        log_events: decoding.logs.finish()?,
        rejects: decoding.rejects,
        rejected: decoding.rejected,
        ignored_logs: decoding.ignored_logs,
    })
}
