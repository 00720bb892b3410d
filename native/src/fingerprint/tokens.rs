//! Token sets small enough to keep: the smallest hashes of the words of a text.

use std::borrow::Cow;

use xxhash_rust::xxh3::Xxh3Default;

use super::{SKETCH_BYTES_MAX, narrow};
use crate::messages::json::{Node, Text};

/// Characters of a token that hardly occurs twice by chance: a path, an id, an address.
const LONG_CHARS_MIN: usize = 24;
/// Hashes that are gathered before the smallest are picked.
const GATHERED_MAX: usize = 256;
/// Words repeat: one that was added lately is not gathered again.
const RECENT: usize = 256;
/// Bytes looked at together, and how far beyond a text its buffer is read.
const BLOCK: usize = 64;
const BUFFER: usize = SKETCH_BYTES_MAX + 2 * BLOCK;

/// The smallest distinct hashes of what was added.
pub struct Sketch {
    hashes: Vec<u32>,
    /// Once there are as many as are kept: larger ones are not among the smallest.
    limit: u32,
    recent: [u32; RECENT],
    /// The text in lower case, followed by spaces.
    buffer: Vec<u8>,
    /// Where words start and end, in turn.
    edges: Vec<u16>,
    lower: String,
}

impl Default for Sketch {
    fn default() -> Self {
        Self {
            hashes: Vec::new(),
            limit: u32::MAX,
            recent: [0; RECENT],
            buffer: vec![0; BUFFER],
            edges: Vec::with_capacity(BUFFER),
            lower: String::new(),
        }
    }
}

impl Sketch {
    pub fn clear(&mut self) {
        if !self.hashes.is_empty() {
            self.hashes.clear();
            self.recent = [0; RECENT];
            self.limit = u32::MAX;
        }
    }

    #[inline]
    fn add(&mut self, hash: u32) {
        let recent = &mut self.recent[hash as usize % RECENT];
        let new = *recent != hash && hash <= self.limit;
        *recent = hash;
        if new {
            if self.hashes.len() == GATHERED_MAX && self.keep(super::SKETCH_MAX).len() == super::SKETCH_MAX {
                self.limit = self.hashes[super::SKETCH_MAX - 1];
            }
            self.hashes.push(hash);
        }
    }

    /// Keeps the `most` smallest, in order.
    pub fn keep(&mut self, most: usize) -> &[u32] {
        if self.hashes.len() > 1 {
            self.hashes.sort_unstable();
            self.hashes.dedup();
            self.hashes.truncate(most);
        }
        &self.hashes
    }

    pub fn kept(&self) -> &[u32] {
        &self.hashes
    }

    /// Words of the first 2 kB: letters and digits in a row, in lower case. An ideograph or kana is a word of its own.
    pub fn words(&mut self, text: &str) {
        let text = head(text, SKETCH_BYTES_MAX);
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut edges = std::mem::take(&mut self.edges);
        let (lower, rest) = buffer.split_at_mut(text.len());
        for (slot, byte) in lower.iter_mut().zip(text.as_bytes()) {
            // letters have the bit 0x40, digits do not; what else has it is no part of a word before and after
            *slot = byte | (byte & 0x40) >> 1;
        }
        rest[..2 * BLOCK].fill(b' ');
        edges.clear();
        let mut inside = 0;
        for (number, block) in buffer[..text.len() + BLOCK].as_chunks::<BLOCK>().0.iter().enumerate() {
            let mask = word_bytes(block);
            let mut changes = mask ^ (mask << 1 | inside);
            inside = mask >> 63;
            while changes != 0 {
                edges.push((number * BLOCK) as u16 + changes.trailing_zeros() as u16);
                changes &= changes - 1;
            }
        }
        for word in edges.as_chunks::<2>().0 {
            let (start, end) = (usize::from(word[0]), usize::from(word[1]));
            match short_hash(&buffer, start, end) {
                Some(hash) => self.add(hash),
                None => self.foreign(&text[start..end]),
            }
        }
        self.buffer = buffer;
        self.edges = edges;
    }

    /// A stretch of letters, digits and anything that is not ASCII, or a long one.
    #[cold]
    fn foreign(&mut self, text: &str) {
        let mut word = std::mem::take(&mut self.lower);
        word.clear();
        for letter in text.chars() {
            let alone = is_word_alone(letter);
            if letter.is_alphanumeric() && !alone {
                word.extend(letter.to_lowercase());
                continue;
            }
            if !word.is_empty() {
                self.add(token_hash(word.as_bytes()));
                word.clear();
            }
            if alone {
                self.add(token_hash(letter.encode_utf8(&mut [0; 4]).as_bytes()));
            }
        }
        if !word.is_empty() {
            self.add(token_hash(word.as_bytes()));
        }
        self.lower = word;
    }

    /// Long tokens as they are written: what stands between white space, quotes, brackets and commas.
    pub fn long_words(&mut self, text: &str) {
        let bytes = text.as_bytes();
        let mut start = 0;
        // whatever ends within the next few bytes is too short: look for its end from behind
        while let Some(window) = bytes.get(start..start + LONG_CHARS_MIN) {
            if let Some(end) = window.iter().rposition(|byte| ENDS_LONG[usize::from(*byte)]) {
                start += end + 1;
                continue;
            }
            let rest = &bytes[start + LONG_CHARS_MIN..];
            let more = rest.iter().position(|byte| ENDS_LONG[usize::from(*byte)]).unwrap_or(rest.len());
            let end = start + LONG_CHARS_MIN + more;
            self.long_word(&text[start..end]);
            start = end + 1;
        }
    }

    fn long_word(&mut self, token: &str) {
        let token = token.trim_matches(['.', ':', '!', '?', '=', '-', '_', '#', '~']);
        if super::is_longer(token, LONG_CHARS_MIN - 1) {
            self.add(token_hash(token.as_bytes()));
        }
    }
}

static ENDS_LONG: [bool; 256] = {
    let mut table = [false; 256];
    let ends = b" \t\n\r\x0b\x0c\"'`,;()[]{}<>|*\\";
    let mut at = 0;
    while at < ends.len() {
        table[ends[at] as usize] = true;
        at += 1;
    }
    table
};

const BYTES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = BYTES << 7;

/// One bit for each byte that is an ASCII letter or digit, or not ASCII.
#[inline]
fn word_bytes(block: &[u8; BLOCK]) -> u64 {
    let words = block.as_chunks::<8>().0.iter().enumerate();
    words.fold(0, |mask, (at, word)| mask | word_bits(u64::from_le_bytes(*word)) << (8 * at))
}

/// The same for eight bytes at once, in lower case.
#[inline(always)]
fn word_bits(word: u64) -> u64 {
    // what is above a limit carries into the high bit, which no byte has any more
    let above = |low: u64, limit: u8| low + BYTES * u64::from(0x80 - limit);
    let plain = word & !HIGH;
    let letter = above(plain, b'a') & !above(plain, b'z' + 1);
    let digit = above(plain, b'0') & !above(plain, b'9' + 1);
    let found = (letter | digit | word) & HIGH;
    ((found >> 7).wrapping_mul(0x0102_0408_1020_4080)) >> 56
}

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const MULTIPLIER: u64 = 0xd6e8_feb8_6659_fd93;

#[inline(always)]
fn fold(hash: u64, word: u64) -> u64 {
    let product = u128::from(hash ^ word) * u128::from(MULTIPLIER);
    product as u64 ^ (product >> 64) as u64
}

/// Hash of a token: XXH3 would take longer than all the rest. Never 0.
fn token_hash(token: &[u8]) -> u32 {
    let mut hash = SEED ^ token.len() as u64;
    for number in 0..token.len().div_ceil(8).max(2) {
        let piece = token.get(8 * number..).unwrap_or_default();
        let piece = &piece[..piece.len().min(8)];
        let mut word = [0; 8];
        word[..piece.len()].copy_from_slice(piece);
        hash = fold(hash, u64::from_le_bytes(word));
    }
    narrow(hash ^ hash >> 32)
}

/// The same of a word in ASCII of up to 16 bytes with as many behind it; `None` for others.
#[inline(always)]
fn short_hash(buffer: &[u8], start: usize, end: usize) -> Option<u32> {
    let length = end - start;
    let pieces = buffer.get(start..start + 16)?.as_chunks::<8>().0;
    let first = u64::from_le_bytes(pieces[0]) & LOW_BYTES[length.min(8)];
    let second = u64::from_le_bytes(pieces[1]) & LOW_BYTES[length.saturating_sub(8).min(8)];
    if (first | second) & HIGH != 0 || length > 16 {
        return None;
    }
    let hash = fold(fold(SEED ^ length as u64, first), second);
    Some(narrow(hash ^ hash >> 32))
}

const LOW_BYTES: [u64; 9] = {
    let mut masks = [u64::MAX; 9];
    let mut bytes = 0;
    while bytes < 8 {
        masks[bytes] = (1 << (8 * bytes)) - 1;
        bytes += 1;
    }
    masks
};

/// Han, kana: no spaces stand between words.
fn is_word_alone(letter: char) -> bool {
    matches!(letter, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

/// The first `bytes` of a text, cut between characters.
pub fn head(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// About as much of a JSON string.
pub fn beginning(text: Text<'_>, bytes: usize) -> Cow<'_, str> {
    match text {
        Text::Same(text) | Text::Plain(text) => Cow::Borrowed(head(text, bytes)),
        Text::Escaped(body) => Text::Escaped(head(body, bytes)).plain(),
    }
}

/// The last `bytes` of a text, cut between characters.
pub fn tail(text: &str, bytes: usize) -> &str {
    let mut start = text.len().saturating_sub(bytes);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

fn give(text: &str, left: &mut usize, each: &mut impl FnMut(&str)) {
    let text = head(text, *left);
    *left -= text.len();
    each(text);
}

/// Texts, numbers and literals inside a JSON value, `left` bytes of them.
pub fn values(node: Node<'_>, left: &mut usize, each: &mut impl FnMut(&str)) {
    match node {
        Node::Null => give("null", left, each),
        Node::Bool(true) => give("true", left, each),
        Node::Bool(false) => give("false", left, each),
        Node::Num(text) => give(text, left, each),
        Node::Str(text) => give(&beginning(text, *left), left, each),
        Node::Arr(list) => {
            for item in list.items {
                if *left == 0 {
                    return;
                }
                values(*item, left, each);
            }
        }
        Node::Obj(object) => {
            for (_, value) in object.entries {
                if *left == 0 {
                    return;
                }
                values(*value, left, each);
            }
        }
    }
}

/// Hash of a text whose digits are all 0.
pub fn masked(text: &str) -> u64 {
    let mut hasher = Xxh3Default::new();
    let mut block = [0; 1024];
    for piece in text.as_bytes().chunks(block.len()) {
        let block = &mut block[..piece.len()];
        for (slot, byte) in block.iter_mut().zip(piece) {
            *slot = if byte.is_ascii_digit() { b'0' } else { *byte };
        }
        hasher.update(block);
    }
    hasher.digest128() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sketch(text: &str) -> Vec<u32> {
        let mut sketch = Sketch::default();
        sketch.words(text);
        sketch.keep(64).to_vec()
    }

    fn hashes(words: &[&str]) -> Vec<u32> {
        let mut hashes: Vec<u32> = words.iter().map(|word| token_hash(word.as_bytes())).collect();
        hashes.sort_unstable();
        hashes.dedup();
        hashes
    }

    #[test]
    fn words_are_letters_and_digits_in_lower_case() {
        assert_eq!(sketch("Look_up order-42, LOOK up!"), hashes(&["look", "up", "order", "42"]));
        assert_eq!(sketch("naïve Übermut “quoted” x"), hashes(&["naïve", "übermut", "quoted", "x"]));
        assert_eq!(sketch("東京 tower"), hashes(&["東", "京", "tower"]));
        assert_eq!(sketch(" ,;\n"), hashes(&[]));
    }

    #[test]
    fn a_word_is_the_same_wherever_it_stands() {
        for word in
            ["a", "eightlet", "ninechars", "sixteen0sixteen0", "seventeen00000000", "Zürich", &"longer".repeat(40)]
        {
            let expected = hashes(&[&word.to_lowercase()]);
            for before in 0..130 {
                assert_eq!(sketch(&format!("{}{word}", " ".repeat(before))), expected, "{word} after {before}");
                assert_eq!(sketch(&format!("{}{word}.", "-".repeat(before))), expected, "{word} after {before}");
            }
        }
    }

    #[test]
    fn every_byte_in_lower_case_is_classed_as_its_character_is() {
        for byte in 0..=127_u8 {
            for place in [0, 7, 8, 63] {
                let mut block = [b' '; BLOCK];
                block[place] = byte;
                let is_word = byte.is_ascii_digit() || byte.is_ascii_lowercase();
                assert_eq!(word_bytes(&block), u64::from(is_word) << place, "{byte}");
            }
        }
    }

    #[test]
    fn the_smallest_hashes_are_kept_however_many_there_are() {
        let words: Vec<String> = (0..250).map(|number| format!("{number:03}")).collect();
        assert!(words.join(" ").len() <= SKETCH_BYTES_MAX);
        let mut all: Vec<u32> = words.iter().map(|word| token_hash(word.as_bytes())).collect();
        all.sort_unstable();
        assert_eq!(sketch(&words.join(" ")), all[..64]);
    }

    #[test]
    fn long_tokens_are_paths_and_ids_as_written() {
        let mut sketch = Sketch::default();
        let path = "/home/agent/project/src/main.py";
        sketch.long_words(&format!("see (\"{path}\"), not {} or pay-load: {}x.", "short".repeat(4), "é".repeat(23)));
        assert_eq!(sketch.keep(16), hashes(&[path, &format!("{}x", "é".repeat(23))]));
    }
}
