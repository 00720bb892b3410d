//! Requests to views, for tests.

use bumpalo::Bump;

use crate::json::to_protobuf;
use crate::otlp::{Part, Unreadable, groups};
use crate::view::{LogView, SpanView};

/// The valid spans of an `ExportTraceServiceRequest`. What they borrow from is never freed.
pub fn spans(body: &[u8]) -> Vec<SpanView<'static>> {
    let arena: &'static Bump = Box::leak(Box::new(Bump::new()));
    let body: &'static [u8] = arena.alloc_slice_copy(body);
    let mut spans = Vec::new();
    groups(body, arena, |part| {
        if let Part::Group(group) = part {
            while let Ok(Some(item)) = group.next_item() {
                spans.extend(group.span(item, arena, &mut 0).1.ok());
            }
        }
        Ok::<(), Unreadable>(())
    })
    .expect("a readable request");
    spans
}

/// The valid records of an `ExportLogsServiceRequest`. What they borrow from is never freed.
pub fn records(body: &[u8]) -> Vec<LogView<'static>> {
    let arena: &'static Bump = Box::leak(Box::new(Bump::new()));
    let body: &'static [u8] = arena.alloc_slice_copy(body);
    let mut records = Vec::new();
    groups(body, arena, |part| {
        if let Part::Group(group) = part {
            while let Ok(Some(item)) = group.next_item() {
                records.extend(group.record(item, arena, &mut 0).1.ok());
            }
        }
        Ok::<(), Unreadable>(())
    })
    .expect("a readable request");
    records
}

/// The valid spans of OTLP/JSON lines, one export request each.
pub fn spans_of_json_lines(lines: &str) -> Vec<SpanView<'static>> {
    lines.lines().flat_map(|line| spans(&to_protobuf(false, line.as_bytes()).expect("an export request"))).collect()
}

/// The valid records of OTLP/JSON lines, one export request each.
pub fn records_of_json_lines(lines: &str) -> Vec<LogView<'static>> {
    lines.lines().flat_map(|line| records(&to_protobuf(true, line.as_bytes()).expect("an export request"))).collect()
}
