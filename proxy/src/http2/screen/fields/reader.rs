//! Integers and strings of HPACK.

use super::super::huffman;

/// A block as it is read.
pub(super) struct Reader<'a> {
    block: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(block: &'a [u8]) -> Self {
        Self { block, at: 0 }
    }

    /// The next octet.
    pub(super) fn peek(&self) -> Option<u8> {
        self.block.get(self.at).copied()
    }

    /// Returns the position in the block.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// An integer behind so many bits of its first octet (RFC 7541, section 5.1).
    pub(super) fn integer(&mut self, prefix: u32) -> Option<usize> {
        let most = (1_usize << prefix) - 1;
        let mut value = usize::from(self.next()?) & most;
        if value < most {
            return Some(value);
        }
        for shift in [0, 7, 14, 21] {
            let octet = self.next()?;
            value += usize::from(octet & 0x7f) << shift;
            if octet < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// A string, in `text` if it is coded.
    pub(super) fn string<'b>(&mut self, text: &'b mut Vec<u8>) -> Option<&'b [u8]>
    where
        'a: 'b,
    {
        let coded = self.peek()? & 0x80 != 0;
        let length = self.integer(7)?;
        let string = self.block.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        if !coded {
            return Some(string);
        }
        text.clear();
        huffman::decode(string, text)?;
        Some(text)
    }

    fn next(&mut self) -> Option<u8> {
        let octet = self.peek()?;
        self.at += 1;
        Some(octet)
    }
}
