//! String columns that are appended to from borrowed slices.

use std::sync::Arc;

use arrow_array::{ArrayRef, GenericStringArray, OffsetSizeTrait};
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};

/// `utf8` or `large_utf8` without nulls.
///
/// Invariant: `bytes` holds nothing but whole strings, one after the other, and `offsets` where they end.
pub struct Utf8<O: OffsetSizeTrait> {
    offsets: Vec<O>,
    bytes: Vec<u8>,
}

pub type Text = Utf8<i32>;
pub type LargeText = Utf8<i64>;

impl<O: OffsetSizeTrait> Utf8<O> {
    pub fn new() -> Self {
        Self::with_capacity(0, 0)
    }

    pub fn with_capacity(rows: usize, bytes: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(O::zero());
        Self { offsets, bytes: Vec::with_capacity(bytes) }
    }

    #[inline]
    fn end_row(&mut self) {
        // the caller keeps columns below their limit; this is what soundness rests on
        let end = O::from_usize(self.bytes.len()).expect("a column within the reach of its offsets");
        self.offsets.push(end);
    }

    #[inline]
    pub fn push(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
        self.end_row();
    }

    /// Appends lower-case hex digits.
    #[inline]
    pub fn push_hex(&mut self, bytes: &[u8]) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let start = self.bytes.len();
        self.bytes.resize(start + 2 * bytes.len(), 0);
        for (pair, byte) in self.bytes[start..].as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
            *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
        }
        self.end_row();
    }

    /// Appends the rows from `start` to `end` once more.
    pub fn repeat(&mut self, start: usize, end: usize) {
        let from = self.offsets[start].as_usize();
        let shift = self.bytes.len() - from;
        self.bytes.extend_from_within(from..self.offsets[end].as_usize());
        for row in start..end {
            let end = O::from_usize(self.offsets[row + 1].as_usize() + shift);
            self.offsets.push(end.expect("a column within the reach of its offsets"));
        }
    }

    #[inline]
    pub fn get(&self, row: usize) -> &[u8] {
        &self.bytes[self.offsets[row].as_usize()..self.offsets[row + 1].as_usize()]
    }

    #[inline]
    pub fn rows(&self) -> usize {
        self.offsets.len() - 1
    }

    #[inline]
    pub fn text_bytes(&self) -> usize {
        self.bytes.len()
    }

    #[allow(unsafe_code)]
    pub fn finish(self) -> ArrayRef {
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.offsets));
        // SAFETY: by the invariant, which every method of this private type keeps, each row is valid UTF-8 and the
        // offsets ascend from 0 to the length of `bytes`. Checking again would read every prompt once more.
        let array = unsafe { GenericStringArray::<O>::new_unchecked(offsets, Buffer::from_vec(self.bytes), None) };
        Arc::new(array)
    }
}

/// Text that is short and ASCII, as nearly all keys and most values are; for these the call of a validator costs more
/// than its work.
#[inline]
#[allow(unsafe_code)]
pub fn short_ascii(bytes: &[u8]) -> Option<&str> {
    const SHORT: usize = 64;
    if bytes.len() > SHORT || !is_ascii_by_words(bytes) {
        return None;
    }
    // SAFETY: every byte is below 0x80, which is all that ASCII means, and ASCII is UTF-8.
    Some(unsafe { std::str::from_utf8_unchecked(bytes) })
}

/// Eight bytes at a time, the last ones together with some before them: a loop over bytes, vectorised or not, spends
/// most of its time on what is left over.
#[inline(always)]
fn is_ascii_by_words(bytes: &[u8]) -> bool {
    const HIGH_BITS: u64 = 0x8080_8080_8080_8080;
    let (words, rest) = bytes.as_chunks::<8>();
    let mut all = 0;
    for word in words {
        all |= u64::from_le_bytes(*word);
    }
    match bytes.last_chunk::<8>() {
        Some(last) => all |= u64::from_le_bytes(*last),
        None => {
            for byte in rest {
                all |= u64::from(*byte);
            }
        }
    }
    all & HIGH_BITS == 0
}

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray;

    use super::*;

    #[test]
    fn short_text_is_ascii_or_not_whatever_its_length() {
        for length in 0..=64 {
            let text = "x".repeat(length);
            assert_eq!(short_ascii(text.as_bytes()), Some(&*text));
            for at in 0..length {
                let mut bytes = text.clone().into_bytes();
                bytes[at] = 0x80;
                assert_eq!(short_ascii(&bytes), None);
            }
        }
        assert_eq!(short_ascii(&[b'x'; 65]), None);
    }

    #[test]
    fn rows_are_what_was_pushed() {
        let mut text = Text::new();
        text.push("a");
        text.push("");
        text.push("é");
        text.push_hex(&[0, 0xaf]);
        text.repeat(2, 4);
        assert_eq!((text.rows(), text.get(4)), (6, "é".as_bytes()));
        let array = text.finish();
        array.to_data().validate_full().unwrap();
        let rows: Vec<&str> = array.as_string::<i32>().iter().flatten().collect();
        assert_eq!(rows, ["a", "", "é", "00af", "é", "00af"]);
    }
}
