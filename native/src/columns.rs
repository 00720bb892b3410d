//! Builders of the column shapes that `spanwise/model.py` uses.

use std::hash::BuildHasher;
use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{
    ArrayRef, BinaryArray, DictionaryArray, Int32Array, ListArray, MapArray, StructArray, TimestampNanosecondArray,
    UInt32Array,
};
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field, FieldRef, Fields, TimeUnit};
use hashbrown::HashTable;

use crate::text::Text;

fn utf8(name: &str) -> FieldRef {
    Arc::new(Field::new(name, DataType::Utf8, true))
}

fn nanos_type() -> DataType {
    DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))
}

fn map_entries() -> FieldRef {
    let fields =
        Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, true)]);
    Arc::new(Field::new("entries", DataType::Struct(fields), false))
}

fn map_type() -> DataType {
    DataType::Map(map_entries(), false)
}

fn content_fields() -> Fields {
    Fields::from(vec![utf8("key"), utf8("form"), utf8("hash"), Arc::new(Field::new("bytes", DataType::UInt32, true))])
}

fn event_fields() -> Fields {
    Fields::from(vec![
        Arc::new(Field::new("time", nanos_type(), true)),
        utf8("name"),
        Arc::new(Field::new("attributes", map_type(), true)),
        utf8("types"),
    ])
}

fn link_fields() -> Fields {
    Fields::from(vec![
        utf8("trace_id"),
        utf8("span_id"),
        utf8("trace_state"),
        Arc::new(Field::new("attributes", map_type(), true)),
    ])
}

/// `binary` without nulls.
pub struct Bytes {
    offsets: Vec<i32>,
    bytes: Vec<u8>,
}

impl Bytes {
    pub fn new(rows: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Self { offsets, bytes: Vec::new() }
    }

    /// One row: what `write` appends.
    pub fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        // the caller keeps columns below the reach of their offsets
        self.offsets.push(self.bytes.len() as i32);
    }

    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn finish(self) -> ArrayRef {
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.offsets));
        Arc::new(BinaryArray::new(offsets, Buffer::from_vec(self.bytes), None))
    }
}

/// `dictionary<int32, utf8>`: values in order of first use.
pub struct Dictionary {
    keys: Vec<i32>,
    values: Text,
    known: HashTable<i32>,
    hasher: foldhash::fast::RandomState,
    last: i32,
    /// Key of '', which most cells of most columns hold.
    empty: i32,
}

impl Dictionary {
    pub fn new(rows: usize) -> Self {
        Self {
            keys: Vec::with_capacity(rows),
            values: Text::new(),
            known: HashTable::new(),
            hasher: foldhash::fast::RandomState::default(),
            last: -1,
            empty: -1,
        }
    }

    #[inline]
    pub fn push(&mut self, text: &str) {
        let key = self.key(text);
        self.keys.push(key);
    }

    /// The key of a value, for [`Dictionary::push_key`].
    #[inline]
    pub fn key(&mut self, text: &str) -> i32 {
        if text.is_empty() {
            if self.empty < 0 {
                self.empty = self.find("");
            }
            return self.empty;
        }
        // rows of one batch mostly repeat the row before
        if self.last < 0 || self.values.get(self.last as usize) != text.as_bytes() {
            self.last = self.find(text);
        }
        self.last
    }

    #[inline]
    pub fn push_key(&mut self, key: i32) {
        self.keys.push(key);
    }

    fn find(&mut self, text: &str) -> i32 {
        let Self { values, known, hasher, .. } = self;
        let hash = hasher.hash_one(text.as_bytes());
        match known.find(hash, |key| values.get(*key as usize) == text.as_bytes()) {
            Some(key) => *key,
            None => {
                let key = values.rows() as i32;
                values.push(text);
                known.insert_unique(hash, key, |key| hasher.hash_one(values.get(*key as usize)));
                key
            }
        }
    }

    pub fn text_bytes(&self) -> usize {
        self.values.text_bytes()
    }

    pub fn finish(self) -> ArrayRef {
        Arc::new(DictionaryArray::<Int32Type>::new(Int32Array::from(self.keys), self.values.finish()))
    }
}

fn offsets_of(ends: Vec<i32>) -> OffsetBuffer<i32> {
    OffsetBuffer::new(ScalarBuffer::from(ends))
}

/// Offsets of lists and maps.
pub struct Ends(Vec<i32>);

impl Ends {
    fn new(rows: usize) -> Self {
        let mut ends = Vec::with_capacity(rows + 1);
        ends.push(0);
        Self(ends)
    }

    fn list(self, values: ArrayRef) -> ArrayRef {
        let item = Arc::new(Field::new("item", values.data_type().clone(), true));
        Arc::new(ListArray::new(item, offsets_of(self.0), values, None))
    }
}

/// `map<utf8, utf8>`.
pub struct Map {
    ends: Ends,
    keys: Text,
    values: Text,
}

impl Map {
    pub fn new(rows: usize) -> Self {
        Self::with_capacity(rows, 0, 0)
    }

    /// For so many rows with so many entries together, whose values are so long together.
    pub fn with_capacity(rows: usize, entries: usize, bytes: usize) -> Self {
        let keys = Text::with_capacity(entries, bytes / 2);
        Self { ends: Ends::new(rows), keys, values: Text::with_capacity(entries, bytes) }
    }

    /// Entries so far.
    pub fn entries(&self) -> usize {
        self.keys.rows()
    }

    /// Appends the entries from `start` to `end` once more.
    pub fn repeat(&mut self, start: usize, end: usize) {
        self.keys.repeat(start, end);
        self.values.repeat(start, end);
    }

    #[inline]
    pub fn entry(&mut self, key: &str, value: &str) {
        self.keys.push(key);
        self.values.push(value);
    }

    pub fn end_row(&mut self) {
        self.ends.0.push(self.keys.rows() as i32);
    }

    pub fn text_bytes(&self) -> usize {
        self.keys.text_bytes().max(self.values.text_bytes())
    }

    pub fn finish(self) -> ArrayRef {
        let DataType::Struct(fields) = map_entries().data_type().clone() else {
            unreachable!("entries of a map are structs")
        };
        let entries = StructArray::new(fields, vec![self.keys.finish(), self.values.finish()], None);
        Arc::new(MapArray::new(map_entries(), offsets_of(self.ends.0), entries, None, false))
    }
}

/// `list<utf8>`.
pub struct Texts {
    ends: Ends,
    values: Text,
}

impl Texts {
    pub fn new(rows: usize) -> Self {
        Self { ends: Ends::new(rows), values: Text::new() }
    }

    pub fn row<'t>(&mut self, texts: impl Iterator<Item = &'t str>) {
        for text in texts {
            self.values.push(text);
        }
        self.ends.0.push(self.values.rows() as i32);
    }

    pub fn finish(self) -> ArrayRef {
        self.ends.list(self.values.finish())
    }
}

/// References into the content table.
pub struct References {
    ends: Ends,
    keys: Text,
    forms: Text,
    hashes: Text,
    bytes: Vec<u32>,
}

impl References {
    pub fn new(rows: usize) -> Self {
        Self { ends: Ends::new(rows), keys: Text::new(), forms: Text::new(), hashes: Text::new(), bytes: Vec::new() }
    }

    pub fn push(&mut self, key: &str, form: &str, hash: u128, bytes: usize) {
        self.keys.push(key);
        self.forms.push(form);
        self.hashes.push_hex(&hash.to_be_bytes());
        self.bytes.push(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    pub fn end_row(&mut self) {
        self.ends.0.push(self.bytes.len() as i32);
    }

    pub fn text_bytes(&self) -> usize {
        self.keys.text_bytes().max(self.hashes.text_bytes())
    }

    pub fn finish(self) -> ArrayRef {
        let values = StructArray::new(
            content_fields(),
            vec![
                self.keys.finish(),
                self.forms.finish(),
                self.hashes.finish(),
                Arc::new(UInt32Array::from(self.bytes)),
            ],
            None,
        );
        self.ends.list(Arc::new(values))
    }
}

/// Span events; their attributes are written to `attributes` by the caller.
pub struct Events {
    ends: Ends,
    times: Vec<i64>,
    names: Text,
    pub attributes: Map,
    pub types: Text,
}

impl Events {
    pub fn new(rows: usize) -> Self {
        Self {
            ends: Ends::new(rows),
            times: Vec::new(),
            names: Text::new(),
            attributes: Map::new(0),
            types: Text::new(),
        }
    }

    pub fn push(&mut self, time: i64, name: &str) {
        self.times.push(time);
        self.names.push(name);
    }

    pub fn end_row(&mut self) {
        self.ends.0.push(self.times.len() as i32);
    }

    pub fn text_bytes(&self) -> usize {
        self.attributes.text_bytes().max(self.names.text_bytes())
    }

    pub fn finish(self) -> ArrayRef {
        let values = StructArray::new(
            event_fields(),
            vec![
                Arc::new(TimestampNanosecondArray::from(self.times).with_timezone("UTC")),
                self.names.finish(),
                self.attributes.finish(),
                self.types.finish(),
            ],
            None,
        );
        self.ends.list(Arc::new(values))
    }
}

/// Span links, likewise.
pub struct Links {
    ends: Ends,
    count: i32,
    trace_ids: Text,
    span_ids: Text,
    trace_states: Text,
    pub attributes: Map,
}

impl Links {
    pub fn new(rows: usize) -> Self {
        Self {
            ends: Ends::new(rows),
            count: 0,
            trace_ids: Text::new(),
            span_ids: Text::new(),
            trace_states: Text::new(),
            attributes: Map::new(0),
        }
    }

    pub fn push(&mut self, trace_id: &[u8], span_id: &[u8], trace_state: &str) {
        self.count += 1;
        self.trace_ids.push_hex(trace_id);
        self.span_ids.push_hex(span_id);
        self.trace_states.push(trace_state);
    }

    pub fn end_row(&mut self) {
        self.ends.0.push(self.count);
    }

    pub fn text_bytes(&self) -> usize {
        [
            self.attributes.text_bytes(),
            self.trace_ids.text_bytes(),
            self.span_ids.text_bytes(),
            self.trace_states.text_bytes(),
        ]
        .into_iter()
        .max()
        .unwrap_or(0)
    }

    pub fn finish(self) -> ArrayRef {
        let values = StructArray::new(
            link_fields(),
            vec![self.trace_ids.finish(), self.span_ids.finish(), self.trace_states.finish(), self.attributes.finish()],
            None,
        );
        self.ends.list(Arc::new(values))
    }
}
