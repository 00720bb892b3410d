//! Chat messages, instructions, tool definitions, arguments and results of every shape, as canonical JSON.

use std::marker::PhantomData;

/// Content already canonicalised in this decode call, by hash.
#[derive(Default)]
pub struct Memo<'a> {
    marker: PhantomData<&'a ()>,
}
