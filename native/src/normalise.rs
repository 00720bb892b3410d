//! From a span of any dialect to its canonical meaning, by the plan.

use bumpalo::Bump;

use crate::messages::Memo;
use crate::plan::Plan;
use crate::view::{Canonical, LogView, SpanView};

/// What `span` means. `memo` remembers content already seen in this decode call; `arena` lives as long.
pub fn normalise<'a>(_plan: &'a Plan, _span: &SpanView<'a>, _memo: &mut Memo<'a>, _arena: &'a Bump) -> Canonical<'a> {
    Canonical::default()
}

/// What a log record says about its span; `None` if it has no GenAI meaning and need not be kept.
pub fn normalise_log<'a>(
    _plan: &'a Plan,
    _record: &LogView<'a>,
    _memo: &mut Memo<'a>,
    _arena: &'a Bump,
) -> Option<Canonical<'a>> {
    None
}
