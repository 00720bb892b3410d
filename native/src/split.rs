//! One export request as several, each for one partition of a topic and no larger than a message may be. Encoded items
//! are copied as they are; the headers of their resource and scope are repeated.

use std::borrow::Cow;

use crate::inspect::{Cut, cut_item};
use crate::otlp::Unreadable;
use crate::wire::{Field, Fields, Malformed};

/// Tag and length of a nested message: one byte and at most five.
const FRAMING_BYTES_MAX: usize = 6;
/// The parts of a request may together be so many times as large, and this large in any case.
const UNFOLDS_MAX: usize = 8;
const UNFOLDED_BYTES_MIN: usize = 16 << 20;
const TRACE_ID_BYTES: usize = 16;

/// The partition that Kafka's default partitioner gives to a key: murmur2 as the Java client computes it.
pub fn partition_of(key: &[u8], partitions: u32) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ key.len() as u32;
    let mut words = key.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes(word.try_into().unwrap_or_default()).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let tail = words.remainder();
    if !tail.is_empty() {
        for (index, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^= hash >> 15;
    (hash & 0x7fff_ffff) % partitions.max(1)
}

/// One request of a split.
#[derive(Debug)]
pub struct SubRequest {
    pub partition: u32,
    pub items: usize,
    pub body: Vec<u8>,
}

#[derive(Debug, Default)]
pub struct Split {
    pub parts: Vec<SubRequest>,
    /// Values that were cut so that their item fits.
    pub cuts: Vec<Cut>,
    /// Items that do not fit even so, left out.
    pub too_large: Vec<usize>,
}

/// The fields of a message around its items.
type Header<'a> = Vec<&'a [u8]>;

fn bytes_of(header: &Header<'_>) -> usize {
    header.iter().map(|field| field.len()).sum()
}

struct Item<'a> {
    resource: usize,
    scope: usize,
    partition: u32,
    body: Cow<'a, [u8]>,
}

#[derive(Default)]
struct Contents<'a> {
    resources: Vec<Header<'a>>,
    scopes: Vec<Header<'a>>,
    items: Vec<Item<'a>>,
}

/// Reads a message; its length-delimited fields of one number go to `visit`, all others are its header.
fn walk<'a>(
    body: &'a [u8],
    nested: u32,
    mut visit: impl FnMut(&'a [u8]) -> Result<(), Malformed>,
) -> Result<Header<'a>, Malformed> {
    let mut header = Header::new();
    let mut fields = Fields::new(body);
    while let Some((number, field, raw)) = fields.read_raw()? {
        match field {
            Field::Bytes(body) if number == nested => visit(body)?,
            _ => header.push(raw),
        }
    }
    Ok(header)
}

/// The last trace id of a span (field 1) or log record (field 9), if there is one of the right length.
fn trace_id(item: &[u8], number: u32) -> Option<&[u8]> {
    let mut found = None;
    let mut fields = Fields::new(item);
    while let Ok(Some((at, field))) = fields.read() {
        if let Field::Bytes(id) = field
            && at == number
        {
            found = Some(id);
        }
    }
    found.filter(|id| id.len() == TRACE_ID_BYTES)
}

/// Partition of a trace, by the text of its id: the key that the OpenTelemetry Collector sends, where it sends one.
fn partition_of_trace(id: &[u8], partitions: u32) -> u32 {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut key = [0u8; 2 * TRACE_ID_BYTES];
    for (pair, byte) in key.chunks_exact_mut(2).zip(id) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    partition_of(&key, partitions)
}

fn varint(mut value: usize, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn framing(length: usize) -> usize {
    1 + (usize::BITS - (length | 1).leading_zeros()).div_ceil(7) as usize
}

/// Splits a request into sub-requests of up to `bytes_max` bytes: all items of a trace go to one partition.
///
/// Items without a trace id stay together, in a partition that depends on the first of them. A span or record that is
/// too large on its own loses the ends of its longest values, and is left out if that is not enough. Fails if the
/// request is not valid, or if its parts together would be many times as large because they repeat large resources.
pub fn split(logs: bool, request: &[u8], partitions: u32, bytes_max: usize) -> Result<Split, String> {
    let mut split = Split::default();
    let contents = read(logs, request, partitions, bytes_max, &mut split)
        .map_err(|malformed| Unreadable::at(malformed, request).to_string())?;
    let most = UNFOLDS_MAX * request.len() + UNFOLDED_BYTES_MIN;
    let mut unfolded = 0;
    let mut by_partition: Vec<Vec<&Item<'_>>> = Vec::new();
    by_partition.resize_with(partitions.max(1) as usize, Vec::new);
    for item in &contents.items {
        by_partition[item.partition as usize].push(item);
    }
    for (partition, items) in by_partition.iter().enumerate() {
        let mut rest = &items[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(fitting(rest, &contents, bytes_max));
            let body = encode(now, &contents);
            unfolded += body.len();
            if unfolded > most {
                return Err(format!("its parts would be over {UNFOLDS_MAX} times as large: each repeats its resource"));
            }
            split.parts.push(SubRequest { partition: partition as u32, items: now.len(), body });
            rest = later;
        }
    }
    Ok(split)
}

fn read<'a>(
    logs: bool,
    request: &'a [u8],
    partitions: u32,
    bytes_max: usize,
    split: &mut Split,
) -> Result<Contents<'a>, Malformed> {
    let id_field = if logs { 9 } else { 1 };
    let mut contents = Contents::default();
    let mut index = 0;
    let mut without_trace = None;
    walk(request, 1, |resource_items| {
        let (resource, first_scope, first_item) =
            (contents.resources.len(), contents.scopes.len(), contents.items.len());
        let header = walk(resource_items, 2, |scope_items| {
            let scope = contents.scopes.len();
            let items = &mut contents.items;
            let header = walk(scope_items, 2, |body| {
                let partition = match trace_id(body, id_field) {
                    Some(id) => partition_of_trace(id, partitions),
                    None => *without_trace.get_or_insert_with(|| partition_of(body, partitions)),
                };
                items.push(Item { resource, scope, partition, body: Cow::Borrowed(body) });
                Ok(())
            })?;
            contents.scopes.push(header);
            Ok(())
        })?;
        // headers may follow the items, so only here is it known what an item has to share its message with
        let resource_bytes = bytes_of(&header);
        let scopes = &contents.scopes[first_scope..];
        let items = contents.items.split_off(first_item);
        for mut item in items {
            let around = resource_bytes + bytes_of(&scopes[item.scope - first_scope]) + 3 * FRAMING_BYTES_MAX;
            let room = bytes_max.saturating_sub(around);
            if item.body.len() > room {
                let mut cuts = Vec::new();
                if let Ok(cut) = cut_item(logs, &item.body, index, room, &mut cuts) {
                    item.body = Cow::Owned(cut);
                }
                if item.body.len() <= room {
                    split.cuts.append(&mut cuts);
                } else {
                    split.too_large.push(index);
                }
            }
            if item.body.len() <= room {
                contents.items.push(item);
            }
            index += 1;
        }
        contents.resources.push(header);
        Ok(())
    })?;
    Ok(contents)
}

/// How many of the items fit into one message; at least one.
fn fitting(items: &[&Item<'_>], contents: &Contents<'_>, bytes_max: usize) -> usize {
    let mut total = 0;
    let mut before: Option<&Item<'_>> = None;
    for (count, item) in items.iter().enumerate() {
        if before.is_none_or(|before| before.resource != item.resource) {
            total += FRAMING_BYTES_MAX + bytes_of(&contents.resources[item.resource]);
        }
        if before.is_none_or(|before| before.scope != item.scope) {
            total += FRAMING_BYTES_MAX + bytes_of(&contents.scopes[item.scope]);
        }
        total += FRAMING_BYTES_MAX + item.body.len();
        if total > bytes_max && count > 0 {
            return count;
        }
        before = Some(item);
    }
    items.len()
}

fn encode(items: &[&Item<'_>], contents: &Contents<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(items.iter().map(|item| item.body.len() + FRAMING_BYTES_MAX).sum::<usize>() + 256);
    for of_resource in items.chunk_by(|a, b| a.resource == b.resource) {
        let header = &contents.resources[of_resource[0].resource];
        let scopes: Vec<(&[&Item<'_>], usize)> = of_resource
            .chunk_by(|a, b| a.scope == b.scope)
            .map(|of_scope| {
                let items: usize = of_scope.iter().map(|item| framing(item.body.len()) + item.body.len()).sum();
                (of_scope, items + bytes_of(&contents.scopes[of_scope[0].scope]))
            })
            .collect();
        let nested: usize = scopes.iter().map(|(_, length)| framing(*length) + length).sum();
        open(1, nested + bytes_of(header), &mut out);
        header.iter().for_each(|field| out.extend_from_slice(field));
        for (of_scope, length) in scopes {
            open(2, length, &mut out);
            contents.scopes[of_scope[0].scope].iter().for_each(|field| out.extend_from_slice(field));
            for item in of_scope {
                open(2, item.body.len(), &mut out);
                out.extend_from_slice(&item.body);
            }
        }
    }
    out
}

/// Tag and length of a length-delimited field.
fn open(number: u8, length: usize, out: &mut Vec<u8>) {
    out.push(number << 3 | 2);
    varint(length, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    // from the tests of Kafka's Java client (UtilsTest.testMurmur2), masked to 31 bits
    #[test]
    fn partitions_are_those_of_the_default_partitioner_of_kafka() {
        for (key, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            let positive = (hash & 0x7fff_ffff) as u32;
            assert_eq!(partition_of(key.as_bytes(), i32::MAX as u32), positive % i32::MAX as u32, "{key}");
        }
    }

    #[test]
    fn the_length_of_framing_is_what_is_written() {
        for length in [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 1 << 28] {
            let mut out = Vec::new();
            open(1, length, &mut out);
            assert_eq!(framing(length), out.len(), "{length}");
        }
    }
}
