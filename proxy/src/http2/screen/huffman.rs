//! The Huffman code of HPACK (RFC 7541, appendix B). Pure.
//!
//! It is canonical: codes of one length are consecutive, in the order of their symbols, so the lengths say all.

/// Number of bits of each octet's code.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

/// The end of a string, which must not occur in one.
const EOS: usize = 256;
const SHORTEST: usize = 5;
const LONGEST: usize = 30;

/// The codes, by length.
struct Codes {
    /// The first code of each length.
    first: [u64; LONGEST + 1],
    /// Codes one behind the last of each length.
    limit: [u64; LONGEST + 1],
    /// Offsets in `symbols` of those of each length.
    offset: [usize; LONGEST + 1],
    symbols: [u16; EOS + 1],
    /// The octet whose code is at the beginning of these eight bits, and its length; 0 where it is longer.
    short: [(u8, u8); 256],
}

static CODES: Codes = codes();

const fn codes() -> Codes {
    let mut codes = Codes {
        first: [0; LONGEST + 1],
        limit: [0; LONGEST + 1],
        offset: [0; LONGEST + 1],
        symbols: [0; EOS + 1],
        short: [(0, 0); 256],
    };
    let (mut code, mut filled, mut length) = (0, 0, 1);
    while length <= LONGEST {
        code <<= 1;
        codes.first[length] = code;
        codes.offset[length] = filled;
        let mut symbol = 0;
        while symbol <= EOS {
            let own = if symbol == EOS { LONGEST } else { LENGTHS[symbol] as usize };
            if own == length {
                codes.symbols[filled] = symbol as u16;
                let mut bits = 0;
                while length <= 8 && bits < 1 << (8 - length) {
                    codes.short[(code as usize) << (8 - length) | bits] = (symbol as u8, length as u8);
                    bits += 1;
                }
                filled += 1;
                code += 1;
            }
            symbol += 1;
        }
        codes.limit[length] = code;
        length += 1;
    }
    codes
}

/// Appends what `coded` says; `None` when it says nothing.
pub(super) fn decode(coded: &[u8], text: &mut Vec<u8>) -> Option<()> {
    let mut rest = coded.iter();
    // The next bits, from the left.
    let (mut bits, mut held) = (0_u64, 0);
    loop {
        while held <= 56
            && let Some(&byte) = rest.next()
        {
            bits |= u64::from(byte) << (56 - held);
            held += 8;
        }
        let (octet, length) = CODES.short[(bits >> 56) as usize];
        let length = usize::from(length);
        if 0 < length && length <= held {
            text.push(octet);
            bits <<= length;
            held -= length;
            continue;
        }
        let found =
            (SHORTEST..=LONGEST.min(held)).find(|&length| bits >> (64 - length) < CODES.limit[length]);
        let Some(length) = found else {
            // What is left is padding: fewer than eight bits, all of them set.
            return (held < 8 && bits.leading_ones() as usize >= held).then_some(());
        };
        let code = (bits >> (64 - length)) - CODES.first[length];
        // An octet, or the end, which is the last of all.
        text.push(u8::try_from(CODES.symbols[CODES.offset[length] + usize::try_from(code).ok()?]).ok()?);
        bits <<= length;
        held -= length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(coded: &[u8]) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        decode(coded, &mut text).map(|()| text)
    }

    #[test]
    fn strings_of_the_specification_are_decoded() {
        // RFC 7541, appendix C.4 and C.6.
        let table: [(&[u8], &str); 4] = [
            (&[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff], "www.example.com"),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], "no-cache"),
            (&[0x64, 0x02], "302"),
            (&[], ""),
        ];
        for (coded, text) in table {
            assert_eq!(decoded(coded).unwrap(), text.as_bytes());
        }
    }

    #[test]
    fn padding_must_be_short_and_set_and_the_end_must_not_occur() {
        for wrong in [&[0xff_u8, 0xff, 0xff, 0xff][..], &[0x64, 0x02, 0xff], &[0x60]] {
            assert!(decoded(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn line_ends_are_found_in_coded_text() {
        // LF has thirty bits: 3ffffffc.
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xf3]).unwrap(), b"\n");
    }
}
