//! Token sets small enough to keep: the smallest hashes of the words of a text.

use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use super::narrow;
use crate::messages::json::Node;

/// Characters of a token that hardly occurs twice by chance: a path, an id, an address.
const LONG_CHARS_MIN: usize = 24;
/// Hashes that are gathered before the smallest are picked.
const GATHERED_MAX: usize = 256;

/// The smallest distinct hashes of what was added.
#[derive(Default)]
pub struct Sketch {
    hashes: Vec<u32>,
    word: Vec<u8>,
}

impl Sketch {
    pub fn clear(&mut self) {
        self.hashes.clear();
    }

    fn add(&mut self, hash: u32) {
        if self.hashes.len() == GATHERED_MAX {
            self.keep(super::SKETCH_MAX);
        }
        self.hashes.push(hash);
    }

    /// Keeps the `most` smallest, in order.
    pub fn keep(&mut self, most: usize) -> &[u32] {
        self.hashes.sort_unstable();
        self.hashes.dedup();
        self.hashes.truncate(most);
        &self.hashes
    }

    pub fn kept(&self) -> &[u32] {
        &self.hashes
    }

    /// Words: letters, digits and underscores in a row, in lower case. An ideograph or kana is a word of its own.
    pub fn words(&mut self, text: &str) {
        let mut word = std::mem::take(&mut self.word);
        word.clear();
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let byte = bytes[at];
            if byte.is_ascii() {
                at += 1;
                if byte.is_ascii_alphanumeric() || byte == b'_' {
                    word.push(byte.to_ascii_lowercase());
                } else {
                    self.flush(&mut word);
                }
                continue;
            }
            let Some(letter) = text[at..].chars().next() else { break };
            at += letter.len_utf8();
            if is_word_alone(letter) {
                self.flush(&mut word);
                self.add(narrow(xxh3_64(letter.encode_utf8(&mut [0; 4]).as_bytes())));
            } else if letter.is_alphanumeric() {
                for lower in letter.to_lowercase() {
                    word.extend_from_slice(lower.encode_utf8(&mut [0; 4]).as_bytes());
                }
            } else {
                self.flush(&mut word);
            }
        }
        self.flush(&mut word);
        self.word = word;
    }

    fn flush(&mut self, word: &mut Vec<u8>) {
        if !word.is_empty() {
            self.add(narrow(xxh3_64(word)));
            word.clear();
        }
    }

    /// Long tokens as they are written: what stands between white space, quotes, brackets and commas.
    pub fn long_words(&mut self, text: &str) {
        let ends = |c: char| c.is_whitespace() || "\"'`,;()[]{}<>|*\\".contains(c);
        for token in text.split(ends) {
            let token = token.trim_matches(['.', ':', '!', '?', '=', '-', '_', '#', '~']);
            if token.len() >= LONG_CHARS_MIN && super::is_longer(token, LONG_CHARS_MIN - 1) {
                self.add(narrow(xxh3_64(token.as_bytes())));
            }
        }
    }
}

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
        Node::Str(text) => {
            let text = text.head(*left);
            give(&text, left, each);
        }
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
    hasher.digest()
}
