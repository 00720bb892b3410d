//! Builders of the column shapes that `spanwise/model.py` uses.

use std::hash::BuildHasher;
use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::types::Int32Type;
use arrow_array::{
    ArrayRef, DictionaryArray, Int32Array, ListArray, MapArray, StructArray, TimestampNanosecondArray, UInt32Array,
};
use arrow_buffer::{OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field, FieldRef, Fields, TimeUnit};
use hashbrown::HashTable;

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

/// `dictionary<int32, utf8>`: values in order of first use.
pub struct Dictionary {
    keys: Vec<i32>,
    values: StringBuilder,
    known: HashTable<i32>,
    hasher: foldhash::fast::RandomState,
    last: i32,
}

impl Dictionary {
    pub fn new(rows: usize) -> Self {
        Self {
            keys: Vec::with_capacity(rows),
            values: StringBuilder::new(),
            known: HashTable::new(),
            hasher: foldhash::fast::RandomState::default(),
            last: -1,
        }
    }

    #[inline]
    pub fn push(&mut self, text: &str) {
        // rows of one batch mostly repeat the row before
        if self.last < 0 || value(&self.values, self.last) != text.as_bytes() {
            self.last = self.find(text);
        }
        self.keys.push(self.last);
    }

    fn find(&mut self, text: &str) -> i32 {
        let Self { values, known, hasher, .. } = self;
        let hash = hasher.hash_one(text.as_bytes());
        match known.find(hash, |key| value(values, *key) == text.as_bytes()) {
            Some(key) => *key,
            None => {
                let key = values.offsets_slice().len() as i32 - 1;
                values.append_value(text);
                known.insert_unique(hash, key, |key| hasher.hash_one(value(values, *key)));
                key
            }
        }
    }

    pub fn text_bytes(&self) -> usize {
        self.values.values_slice().len()
    }

    pub fn finish(mut self) -> ArrayRef {
        Arc::new(DictionaryArray::<Int32Type>::new(Int32Array::from(self.keys), Arc::new(self.values.finish())))
    }
}

#[inline]
fn value(values: &StringBuilder, index: i32) -> &[u8] {
    let offsets = values.offsets_slice();
    let index = index as usize;
    &values.values_slice()[offsets[index] as usize..offsets[index + 1] as usize]
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
    keys: StringBuilder,
    values: StringBuilder,
}

impl Map {
    pub fn new(rows: usize) -> Self {
        Self { ends: Ends::new(rows), keys: StringBuilder::new(), values: StringBuilder::new() }
    }

    #[inline]
    pub fn entry(&mut self, key: &str, value: &str) {
        self.keys.append_value(key);
        self.values.append_value(value);
    }

    pub fn end_row(&mut self) {
        self.ends.0.push(self.keys.offsets_slice().len() as i32 - 1);
    }

    pub fn text_bytes(&self) -> usize {
        self.keys.values_slice().len().max(self.values.values_slice().len())
    }

    pub fn finish(mut self) -> ArrayRef {
        let DataType::Struct(fields) = map_entries().data_type().clone() else {
            unreachable!("entries of a map are structs")
        };
        let entries =
            StructArray::new(fields, vec![Arc::new(self.keys.finish()), Arc::new(self.values.finish())], None);
        Arc::new(MapArray::new(map_entries(), offsets_of(self.ends.0), entries, None, false))
    }
}

/// `list<utf8>`.
pub struct Texts {
    ends: Ends,
    values: StringBuilder,
}

impl Texts {
    pub fn new(rows: usize) -> Self {
        Self { ends: Ends::new(rows), values: StringBuilder::new() }
    }

    pub fn row<'t>(&mut self, texts: impl Iterator<Item = &'t str>) {
        for text in texts {
            self.values.append_value(text);
        }
        self.ends.0.push(self.values.offsets_slice().len() as i32 - 1);
    }

    pub fn finish(mut self) -> ArrayRef {
        self.ends.list(Arc::new(self.values.finish()))
    }
}

/// References into the content table.
pub struct References {
    ends: Ends,
    keys: StringBuilder,
    forms: StringBuilder,
    hashes: StringBuilder,
    bytes: Vec<u32>,
}

impl References {
    pub fn new(rows: usize) -> Self {
        Self {
            ends: Ends::new(rows),
            keys: StringBuilder::new(),
            forms: StringBuilder::new(),
            hashes: StringBuilder::new(),
            bytes: Vec::new(),
        }
    }

    pub fn push(&mut self, key: &str, form: &str, hash: &str, bytes: usize) {
        self.keys.append_value(key);
        self.forms.append_value(form);
        self.hashes.append_value(hash);
        self.bytes.push(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    pub fn end_row(&mut self) {
        self.ends.0.push(self.bytes.len() as i32);
    }

    pub fn text_bytes(&self) -> usize {
        self.keys.values_slice().len().max(self.hashes.values_slice().len())
    }

    pub fn finish(mut self) -> ArrayRef {
        let values = StructArray::new(
            content_fields(),
            vec![
                Arc::new(self.keys.finish()),
                Arc::new(self.forms.finish()),
                Arc::new(self.hashes.finish()),
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
    names: StringBuilder,
    pub attributes: Map,
    pub types: StringBuilder,
}

impl Events {
    pub fn new(rows: usize) -> Self {
        Self {
            ends: Ends::new(rows),
            times: Vec::new(),
            names: StringBuilder::new(),
            attributes: Map::new(0),
            types: StringBuilder::new(),
        }
    }

    pub fn push(&mut self, time: i64, name: &str) {
        self.times.push(time);
        self.names.append_value(name);
    }

    pub fn end_row(&mut self) {
        self.ends.0.push(self.times.len() as i32);
    }

    pub fn text_bytes(&self) -> usize {
        self.attributes.text_bytes().max(self.names.values_slice().len())
    }

    pub fn finish(mut self) -> ArrayRef {
        let values = StructArray::new(
            event_fields(),
            vec![
                Arc::new(TimestampNanosecondArray::from(self.times).with_timezone("UTC")),
                Arc::new(self.names.finish()),
                self.attributes.finish(),
                Arc::new(self.types.finish()),
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
    trace_ids: StringBuilder,
    span_ids: StringBuilder,
    trace_states: StringBuilder,
    pub attributes: Map,
}

impl Links {
    pub fn new(rows: usize) -> Self {
        Self {
            ends: Ends::new(rows),
            count: 0,
            trace_ids: StringBuilder::new(),
            span_ids: StringBuilder::new(),
            trace_states: StringBuilder::new(),
            attributes: Map::new(0),
        }
    }

    pub fn push(&mut self, trace_id: &str, span_id: &str, trace_state: &str) {
        self.count += 1;
        self.trace_ids.append_value(trace_id);
        self.span_ids.append_value(span_id);
        self.trace_states.append_value(trace_state);
    }

    pub fn end_row(&mut self) {
        self.ends.0.push(self.count);
    }

    pub fn text_bytes(&self) -> usize {
        [
            self.attributes.text_bytes(),
            self.trace_ids.values_slice().len(),
            self.span_ids.values_slice().len(),
            self.trace_states.values_slice().len(),
        ]
        .into_iter()
        .max()
        .unwrap_or(0)
    }

    pub fn finish(mut self) -> ArrayRef {
        let values = StructArray::new(
            link_fields(),
            vec![
                Arc::new(self.trace_ids.finish()),
                Arc::new(self.span_ids.finish()),
                Arc::new(self.trace_states.finish()),
                self.attributes.finish(),
            ],
            None,
        );
        self.ends.list(Arc::new(values))
    }
}
