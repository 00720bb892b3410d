//! ClickHouse's Native format on its way to a client.
//!
//! The embedded engine writes blocks as for a client that names no protocol revision. Clients that name one expect what
//! a server would send them: an info before each block and, from revision 54454 on, a byte after each type that says
//! that the column is serialised as always. To put it there the columns have to be walked over: nothing says how long
//! they are.

use std::fmt;

use cityhash_rs::cityhash_102_128;

/// From here on a column says whether its serialisation is a special one.
const REVISION_WITH_CUSTOM_SERIALIZATION: u64 = 54454;
/// `is_overflows = false` and `bucket_num = -1`, as fields 1 and 2, then the end.
const BLOCK_INFO: [u8; 8] = [1, 0, 2, 0xff, 0xff, 0xff, 0xff, 0];
const TYPE_DEPTH_MAX: usize = 64;
const FRAME_BYTES: usize = 1 << 20;
const LZ4: u8 = 0x82;
const CHECKSUM_BYTES: usize = 16;
const HEADER_BYTES: usize = 9;

#[derive(Debug, PartialEq, Eq)]
pub enum Unwalkable {
    /// The block goes on after the bytes that are here.
    Incomplete,
    /// The column and its type, whose length is not known.
    Type(String, String),
    Damaged,
}

impl fmt::Display for Unwalkable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Incomplete => out.write_str("the last block is cut short"),
            Self::Type(column, type_) => {
                write!(out, "column {column} of type {type_} cannot be sent in Native: cast it")
            }
            Self::Damaged => out.write_str("a block is not in Native format"),
        }
    }
}

/// What has to be known of a type to walk over a column of it.
#[derive(Debug, PartialEq, Eq)]
enum Layout {
    Fixed(usize),
    String,
    Nullable(Box<Layout>),
    Array(Box<Layout>),
    Tuple(Vec<Layout>),
    LowCardinality(Box<Layout>),
}

/// Rewrites blocks for a client's revision, as they come.
pub struct Blocks {
    revision: u64,
    held: Vec<u8>,
    /// Do not look again before so much is there: each look begins at the start of the block.
    wanted: usize,
}

impl Blocks {
    pub fn new(revision: u64) -> Self {
        Self { revision, held: Vec::new(), wanted: 0 }
    }

    /// The blocks that are complete with `piece`.
    pub fn feed(&mut self, piece: &[u8]) -> Result<Vec<u8>, Unwalkable> {
        self.held.extend_from_slice(piece);
        if self.held.len() < self.wanted { Ok(Vec::new()) } else { self.rewrite() }
    }

    /// The blocks that were held back.
    pub fn finish(&mut self) -> Result<Vec<u8>, Unwalkable> {
        let rest = self.rewrite()?;
        if self.held.is_empty() { Ok(rest) } else { Err(Unwalkable::Incomplete) }
    }

    fn rewrite(&mut self) -> Result<Vec<u8>, Unwalkable> {
        let mut out = Vec::with_capacity(self.held.len() + self.held.len() / 64);
        let mut done = 0;
        while done < self.held.len() {
            let mut walk = Walk { bytes: &self.held, at: done };
            let before = out.len();
            match walk.block(self.revision, &mut out) {
                Ok(()) => done = walk.at,
                Err(Unwalkable::Incomplete) => {
                    out.truncate(before);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        self.held.drain(..done);
        self.wanted = self.held.len() * 2;
        Ok(out)
    }
}

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    fn block(&mut self, revision: u64, out: &mut Vec<u8>) -> Result<(), Unwalkable> {
        out.extend_from_slice(&BLOCK_INFO);
        let counts = self.at;
        let columns = self.varint()?;
        let rows = self.count()?;
        out.extend_from_slice(&self.bytes[counts..self.at]);
        for _ in 0..columns {
            let start = self.at;
            let name = self.text()?;
            let type_ = self.text()?;
            out.extend_from_slice(&self.bytes[start..self.at]);
            if revision >= REVISION_WITH_CUSTOM_SERIALIZATION {
                out.push(0);
            }
            let layout = std::str::from_utf8(type_).ok().and_then(Layout::of).ok_or_else(|| {
                Unwalkable::Type(String::from_utf8_lossy(name).into(), String::from_utf8_lossy(type_).into())
            })?;
            let data = self.at;
            if rows > 0 {
                self.prefix(&layout)?;
                self.column(&layout, rows)?;
            }
            out.extend_from_slice(&self.bytes[data..self.at]);
        }
        Ok(())
    }

    /// Versions of serialisation, before the data of all parts of the column.
    fn prefix(&mut self, layout: &Layout) -> Result<(), Unwalkable> {
        match layout {
            Layout::Fixed(_) | Layout::String => Ok(()),
            Layout::Nullable(inner) | Layout::Array(inner) => self.prefix(inner),
            Layout::Tuple(parts) => parts.iter().try_for_each(|part| self.prefix(part)),
            Layout::LowCardinality(_) => self.skip(8),
        }
    }

    fn column(&mut self, layout: &Layout, rows: usize) -> Result<(), Unwalkable> {
        match layout {
            Layout::Fixed(bytes) => self.skip_many(rows, *bytes),
            Layout::String => {
                for _ in 0..rows {
                    let length = self.count()?;
                    self.skip(length)?;
                }
                Ok(())
            }
            Layout::Nullable(inner) => {
                self.skip(rows)?;
                self.column(inner, rows)
            }
            Layout::Array(inner) => {
                if rows == 0 {
                    return Ok(());
                }
                self.skip_many(rows - 1, 8)?;
                let elements = self.u64()?;
                self.column(inner, usize::try_from(elements).map_err(|_| Unwalkable::Damaged)?)
            }
            Layout::Tuple(parts) => parts.iter().try_for_each(|part| self.column(part, rows)),
            Layout::LowCardinality(inner) => self.low_cardinality(inner, rows),
        }
    }

    /// Index type and flags, the dictionary of this block, the indexes. Nothing at all for no rows.
    fn low_cardinality(&mut self, inner: &Layout, rows: usize) -> Result<(), Unwalkable> {
        if rows == 0 {
            return Ok(());
        }
        let flags = self.u64()?;
        let (index_bytes, global, additional) = (1usize << (flags & 0xff).min(3), flags & 0x100, flags & 0x200);
        if global != 0 || additional == 0 || flags & 0xff > 3 {
            return Err(Unwalkable::Damaged);
        }
        let keys = self.u64()?;
        // the dictionary holds no NULL: that is the first of its values
        let keys_layout = if let Layout::Nullable(some) = inner { some } else { inner };
        self.column(keys_layout, usize::try_from(keys).map_err(|_| Unwalkable::Damaged)?)?;
        if self.u64()? != rows as u64 {
            return Err(Unwalkable::Damaged);
        }
        self.skip_many(rows, index_bytes)
    }

    fn varint(&mut self) -> Result<u64, Unwalkable> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.at).ok_or(Unwalkable::Incomplete)?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Unwalkable::Damaged)
    }

    fn count(&mut self) -> Result<usize, Unwalkable> {
        usize::try_from(self.varint()?).map_err(|_| Unwalkable::Damaged)
    }

    fn text(&mut self) -> Result<&'a [u8], Unwalkable> {
        let length = self.count()?;
        let start = self.at;
        self.skip(length)?;
        Ok(&self.bytes[start..self.at])
    }

    fn u64(&mut self) -> Result<u64, Unwalkable> {
        let start = self.at;
        self.skip(8)?;
        Ok(self.bytes[start..self.at].iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    fn skip(&mut self, bytes: usize) -> Result<(), Unwalkable> {
        self.skip_many(bytes, 1)
    }

    fn skip_many(&mut self, count: usize, bytes: usize) -> Result<(), Unwalkable> {
        let end = count.checked_mul(bytes).and_then(|length| self.at.checked_add(length)).ok_or(Unwalkable::Damaged)?;
        if end > self.bytes.len() {
            return Err(Unwalkable::Incomplete);
        }
        self.at = end;
        Ok(())
    }
}

impl Layout {
    /// None for types whose columns are not plain data: states of aggregates, Variant, Dynamic, JSON.
    fn of(type_: &str) -> Option<Self> {
        Self::nested(type_, TYPE_DEPTH_MAX)
    }

    fn nested(type_: &str, depth: usize) -> Option<Self> {
        let depth = depth.checked_sub(1)?;
        let (name, arguments) = match type_.split_once('(') {
            Some((name, rest)) => (name, arguments(rest.strip_suffix(')')?)?),
            None => (type_, Vec::new()),
        };
        let only = || match arguments.as_slice() {
            [argument] => Self::nested(argument, depth).map(Box::new),
            _ => None,
        };
        let parts = || arguments.iter().map(|part| Self::nested(unnamed(part), depth)).collect::<Option<Vec<_>>>();
        let array = |inner: &str| Self::nested(inner, depth).map(|inner| Self::Array(Box::new(inner)));
        Some(match name {
            "UInt8" | "Int8" | "Bool" | "Enum8" | "Nothing" => Self::Fixed(1),
            "UInt16" | "Int16" | "BFloat16" | "Date" | "Enum16" => Self::Fixed(2),
            "UInt32" | "Int32" | "Float32" | "Date32" | "DateTime" | "Time" | "IPv4" => Self::Fixed(4),
            "UInt64" | "Int64" | "Float64" | "DateTime64" | "Time64" => Self::Fixed(8),
            "UInt128" | "Int128" | "UUID" | "IPv6" => Self::Fixed(16),
            "UInt256" | "Int256" => Self::Fixed(32),
            "Decimal" => Self::Fixed(match arguments.first()?.parse().ok()? {
                ..=9u8 => 4,
                10..=18 => 8,
                19..=38 => 16,
                39.. => 32,
            }),
            "FixedString" => Self::Fixed(arguments.first()?.parse().ok()?),
            "String" => Self::String,
            "Nullable" => Self::Nullable(only()?),
            "LowCardinality" => Self::LowCardinality(only()?),
            "Array" => Self::Array(only()?),
            // a tuple of nothing has data of its own
            "Tuple" if !arguments.is_empty() => Self::Tuple(parts()?),
            "Map" | "Nested" if !arguments.is_empty() => Self::Array(Box::new(Self::Tuple(parts()?))),
            "SimpleAggregateFunction" => Self::nested(arguments.get(1)?, depth)?,
            "Point" => Self::Tuple(vec![Self::Fixed(8), Self::Fixed(8)]),
            "Ring" | "LineString" => array("Point")?,
            "Polygon" | "MultiLineString" => array("Ring")?,
            "MultiPolygon" => array("Polygon")?,
            interval if interval.starts_with("Interval") => Self::Fixed(8),
            _ => return None,
        })
    }
}

/// The arguments of a type, cut at the commas outside of parentheses and quotes.
fn arguments(text: &str) -> Option<Vec<&str>> {
    let (mut found, mut start, mut depth, mut quote, mut escaped) = (Vec::new(), 0, 0u32, None, false);
    for (at, character) in text.char_indices() {
        match (quote, character) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), _) => quote = quote.filter(|_| character != open),
            (None, '\'' | '`' | '"') => quote = Some(character),
            (None, '(') => depth += 1,
            (None, ')') => depth = depth.checked_sub(1)?,
            (None, ',') if depth == 0 => {
                found.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    let last = text[start..].trim();
    if !(last.is_empty() && found.is_empty()) {
        found.push(last);
    }
    (depth == 0 && quote.is_none()).then_some(found)
}

/// The type of a part of a tuple, which may have a name before it, which may be quoted.
fn unnamed(part: &str) -> &str {
    let mut escaped = false;
    let end = if part.starts_with('`') {
        part.char_indices().skip(1).find(|&(_, character)| {
            let closes = character == '`' && !escaped;
            escaped = character == '\\' && !escaped;
            closes
        })
    } else {
        part.char_indices().find(|&(_, character)| !(character.is_alphanumeric() || character == '_'))
    };
    match end {
        Some((at, '`')) => part[at + 1..].trim_start(),
        Some((at, ' ')) => part[at..].trim_start(),
        _ => part,
    }
}

/// The frames of ClickHouse's own compression: each a checksum, a method, two lengths and LZ4.
pub fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() / 2 + CHECKSUM_BYTES + HEADER_BYTES);
    for piece in bytes.chunks(FRAME_BYTES) {
        let packed = lz4_flex::block::compress(piece);
        let start = out.len();
        out.extend_from_slice(&[0; CHECKSUM_BYTES]);
        out.push(LZ4);
        // a piece is far shorter than 4 GiB, whatever it is packed to
        out.extend_from_slice(&((packed.len() + HEADER_BYTES) as u32).to_le_bytes());
        out.extend_from_slice(&(piece.len() as u32).to_le_bytes());
        out.extend_from_slice(&packed);
        let checksum = cityhash_102_128(&out[start + CHECKSUM_BYTES..]);
        // the halves are in the order that ClickHouse has them in memory
        out[start..start + 8].copy_from_slice(&((checksum >> 64) as u64).to_le_bytes());
        out[start + 8..start + CHECKSUM_BYTES].copy_from_slice(&(checksum as u64).to_le_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_column(type_: &str, rows: u8, data: &[u8]) -> Vec<u8> {
        let mut block = vec![1, rows, 1, b'c', type_.len() as u8];
        block.extend_from_slice(type_.as_bytes());
        block.extend_from_slice(data);
        block
    }

    fn framed(type_: &str, rows: u8, data: &[u8]) -> Vec<u8> {
        let mut block = BLOCK_INFO.to_vec();
        block.extend_from_slice(&[1, rows, 1, b'c', type_.len() as u8]);
        block.extend_from_slice(type_.as_bytes());
        block.push(0);
        block.extend_from_slice(data);
        block
    }

    #[test]
    fn columns_of_every_layout_are_walked_to_their_end() {
        let array = [&[1u8, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0][..], &[1, b'a', 0, 2, b'b', b'c']].concat();
        let words = [
            &[1u8, 0, 0, 0, 0, 0, 0, 0][..],       // version
            &[0, 6, 0, 0, 0, 0, 0, 0],             // one byte an index, keys here, update
            &[2, 0, 0, 0, 0, 0, 0, 0, 0, 1, b'x'], // two keys
            &[2, 0, 0, 0, 0, 0, 0, 0, 1, 0],       // two indexes
        ]
        .concat();
        for (type_, data) in [
            ("UInt32", &[0u8; 8][..]),
            ("Decimal(18, 9)", &[0; 16]),
            ("FixedString(3)", b"abcdef"),
            ("Enum8('a)' = 1, 'it\\'s, (' = 2)", &[1, 2]),
            ("String", &[1, b'a', 0]),
            ("Nullable(String)", &[0, 1, 1, b'a', 0]),
            ("Array(String)", &array),
            ("LowCardinality(String)", &words),
            ("LowCardinality(Nullable(String))", &words),
            ("Tuple(a UInt8, `b (c)` UInt8)", &[1, 2, 3, 4]),
            ("Map(UInt8, UInt8)", &[0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 8]),
            ("SimpleAggregateFunction(sum, UInt64)", &[0; 16]),
            ("Array(LowCardinality(String))", &[[1, 0, 0, 0, 0, 0, 0, 0].as_slice(), &[0; 16]].concat()),
        ] {
            let plain = [one_column(type_, 2, data), one_column("UInt8", 2, &[1, 2])].concat();
            let mut blocks = Blocks::new(54460);

            let out = blocks.feed(&plain).unwrap();

            assert_eq!(out, [framed(type_, 2, data), framed("UInt8", 2, &[1, 2])].concat(), "{type_}");
            assert_eq!(blocks.finish(), Ok(Vec::new()), "{type_}");
        }
    }

    #[test]
    fn it_does_not_matter_where_the_bytes_are_cut() {
        let plain = [one_column("String", 2, &[3, b'a', b'b', b'c', 0]), one_column("UInt16", 1, &[1, 2])].concat();
        let whole = Blocks::new(54454).feed(&plain).unwrap();
        for size in 1..plain.len() {
            let mut blocks = Blocks::new(54454);
            let mut out = Vec::new();
            for piece in plain.chunks(size) {
                out.extend(blocks.feed(piece).unwrap());
            }
            out.extend(blocks.finish().unwrap());
            assert_eq!(out, whole, "in pieces of {size}");
        }
    }

    #[test]
    fn older_clients_get_the_info_alone() {
        let out = Blocks::new(54405).feed(&one_column("UInt8", 1, &[7])).unwrap();

        assert_eq!(out, [&BLOCK_INFO[..], &one_column("UInt8", 1, &[7])].concat());
    }

    #[test]
    fn what_cannot_be_walked_is_refused() {
        for type_ in ["JSON", "Dynamic", "Variant(UInt8)", "AggregateFunction(sum, UInt8)", "Tuple()", "Array(", ""] {
            let refused = Blocks::new(54460).feed(&one_column(type_, 1, &[0]));
            assert_eq!(refused, Err(Unwalkable::Type("c".into(), type_.into())));
        }
        let deep = format!("{}UInt8{}", "Array(".repeat(100), ")".repeat(100));
        assert_eq!(Layout::of(&deep), None);
        assert_eq!(Blocks::new(1).feed(&one_column("Array(UInt8)", 1, &[0xff; 8])), Err(Unwalkable::Damaged));
        assert_eq!(Blocks::new(1).feed(&[0xff; 11]), Err(Unwalkable::Damaged));
    }

    #[test]
    fn what_ends_in_the_middle_of_a_block_is_cut_short() {
        let mut blocks = Blocks::new(54460);
        blocks.feed(&one_column("UInt64", 1, &[0; 7])).unwrap();

        assert_eq!(blocks.finish(), Err(Unwalkable::Incomplete));
    }

    #[test]
    fn frames_hold_what_was_packed() {
        let bytes: Vec<u8> = (0..FRAME_BYTES + 1000).map(|number| (number % 251) as u8).collect();
        let packed = compressed(&bytes);
        let (mut at, mut out) = (0, Vec::new());
        while at < packed.len() {
            let size = |from: usize| u32::from_le_bytes(packed[from..from + 4].try_into().unwrap()) as usize;
            let (long, plain) = (size(at + 17), size(at + 21));
            out.extend(lz4_flex::block::decompress(&packed[at + 25..at + 16 + long], plain).unwrap());
            at += 16 + long;
        }
        assert_eq!(out, bytes);
    }
}
