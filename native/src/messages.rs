//! Chat messages, instructions, tool definitions, arguments and results of every shape, as canonical JSON.
//!
//! Whatever the source (JSON text, encoded AnyValues, flattened keys, span events, log bodies, Python literals), it is
//! brought to JSON text first, an element at a time. An element seen before in this decode call is recognised by the
//! hash of that text and costs no more than that hash.

use std::marker::PhantomData;

use bumpalo::Bump;
use serde::Deserialize;

use crate::view::{Attr, ContentItem, EventView, Value};

/// Content already canonicalised in this decode call, by hash.
#[derive(Default)]
pub struct Memo<'a> {
    marker: PhantomData<&'a ()>,
}

/// One `[[content]]` row of a dialect table, see `docs/messages.md`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ContentRow {
    /// Canonical attribute that the row fills unless an earlier row did.
    pub to: String,
    /// Where to look, first hit wins within the row unless the shape assembles them.
    pub from: Vec<String>,
    /// How to read it: messages (default), parts, flat, events, text, strict ...
    #[serde(default, rename = "as")]
    pub shape: String,
    /// Kinds of span the row is for, empty for all.
    #[serde(default)]
    pub on: Vec<String>,
}

/// The content rows of one dialect and of those it falls back to, in order of precedence.
#[derive(Clone, Debug, Default)]
pub struct ContentPlan {}

impl ContentPlan {
    /// Errors name the row.
    pub fn new(_rows: &[ContentRow]) -> Result<Self, String> {
        Ok(Self {})
    }
}

/// What a span or log record offers.
pub struct Source<'s, 'a> {
    pub attrs: &'s [Attr<'a>],
    pub events: &'s [EventView<'a>],
    /// Of a log record, '' for a span.
    pub event_name: &'a str,
    /// Of a log record, `Empty` for a span.
    pub body: Value<'a>,
}

/// What the content says about the call beside the content itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hints<'a> {
    /// As spelled in the messages or bodies, in order of choices.
    pub finish_reasons: Vec<&'a str>,
    pub output_has_tool_calls: bool,
    /// Raw JSON of a usage object found in a response body, and the model named beside it.
    pub usage: Option<&'a str>,
    pub model: &'a str,
    /// success, error or ''.
    pub tool_status: &'static str,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Content<'a> {
    pub items: Vec<ContentItem<'a>>,
    pub input_preview: &'a str,
    pub output_preview: &'a str,
    /// Sources whose text had been cut by the sender, for the derived attribute `spanwise.truncated`.
    pub truncated: Vec<&'a str>,
    pub hints: Hints<'a>,
}

/// Fill the targets of `plan` for a span or log record of class `kind`.
pub fn collect<'a>(
    _plan: &'a ContentPlan,
    _kind: &str,
    _source: &Source<'_, 'a>,
    _memo: &mut Memo<'a>,
    _arena: &'a Bump,
) -> Content<'a> {
    Content::default()
}
