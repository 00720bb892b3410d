//! Requests to views, for tests.

use bumpalo::Bump;

use crate::otlp::{Part, Unreadable, groups};
use crate::view::SpanView;

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
