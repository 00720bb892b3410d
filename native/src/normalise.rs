//! From a span of any dialect to its canonical meaning, by the plan.
//!
//! Order of work: dialect, operation and kind, content, attribute rows (the dialect's own, then `otel_genai`, then
//! `otel_genai_legacy`; the first that yields a target wins), usage, finish reasons, errors, usage scope.

use bumpalo::Bump;

use crate::messages::{self, Memo};
use crate::plan::{DialectMask, KeyId, Plan, PrefixId, PrefixSet};
use crate::view::{Attr, Canonical, LogView, SpanView, Value};

/// What one decode call remembers between spans.
#[derive(Default)]
pub struct Session<'a> {
    pub memo: Memo<'a>,
    seen: Seen,
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
    fn look<'a>(&mut self, plan: &Plan, attrs: &[Attr<'a>]) {
        for key in self.touched.drain(..) {
            self.slots[usize::from(key)] = 0;
        }
        self.slots.resize(plan.interner.keys_len(), 0);
        self.prefixes = PrefixSet::default();
        self.evidence = 0;
        for (at, attr) in attrs.iter().enumerate().take(usize::from(u16::MAX) - 1) {
            match plan.interner.find(attr.key) {
                Some(key) => {
                    self.slots[usize::from(key)] = at as u16 + 1;
                    self.touched.push(key);
                    self.prefixes.extend(plan.interner.prefixes_of_known(key));
                    self.evidence |= plan.dialects_of_key[usize::from(key)];
                }
                None => self.prefixes.extend(&plan.interner.prefixes_of(attr.key)),
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

    pub fn get<'s, 'a>(&self, key: KeyId, attrs: &'s [Attr<'a>]) -> Option<&'s Value<'a>> {
        attrs
            .get(usize::from(self.slots[usize::from(key)]).wrapping_sub(1))
            .map(|attr| &attr.value)
    }
}

/// What `span` means. `session` remembers content already seen in this decode call; `arena` lives as long.
pub fn normalise<'a>(plan: &'a Plan, span: &SpanView<'a>, session: &mut Session<'a>, arena: &'a Bump) -> Canonical<'a> {
    session.seen.look(plan, &span.attrs);
    let dialect = &plan.dialects[plan.otel_genai];
    let source = messages::Source {
        attrs: &span.attrs,
        events: &span.events,
        event_name: "",
        body: Value::Empty,
    };
    let content = messages::collect(&dialect.content, "", &source, &mut session.memo, arena);
    let mut canonical = Canonical {
        content: content.items,
        ..Canonical::default()
    };
    canonical.usage_scope = "none";
    canonical
}

/// What a log record says about its span; `None` if it has no GenAI meaning and need not be kept.
pub fn normalise_log<'a>(
    _plan: &'a Plan,
    _record: &LogView<'a>,
    _session: &mut Session<'a>,
    _arena: &'a Bump,
) -> Option<Canonical<'a>> {
    None
}
