//! East Asian character sets: `encoding_rs`, corrected where MySQL maps a code otherwise.
//!
//! The differences were found by comparing every two-byte (and, after 0x8F, three-byte) code with a server's conversion: sjis and
//! ujis keep JIS's own signs where Microsoft's variants have fullwidth ones, big5 has Japanese and Cyrillic elsewhere, and
//! ujis and eucjpms have user-defined rows.

use encoding_rs::Encoding;

use super::tables;

/// How to read one of these character sets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Multibyte {
    encoding: &'static Encoding,
    /// Codes that MySQL maps otherwise.
    differences: &'static [(u32, char)],
    /// Bytes of the character that starts with a byte of 0x80 or more.
    length: fn(u8) -> usize,
    /// Codes that a formula maps.
    special: fn(u32) -> Option<char>,
}

const PLAIN: Multibyte = Multibyte {
    encoding: encoding_rs::GBK,
    differences: &[],
    length: |_| 2,
    special: |_| None,
};

pub(super) const GBK: Multibyte = PLAIN;

pub(super) const GB18030: Multibyte = Multibyte {
    encoding: encoding_rs::GB18030,
    ..PLAIN
};

pub(super) const EUCKR: Multibyte = Multibyte {
    encoding: encoding_rs::EUC_KR,
    ..PLAIN
};

pub(super) const CP932: Multibyte = Multibyte {
    encoding: encoding_rs::SHIFT_JIS,
    length: sjis_length,
    ..PLAIN
};

pub(super) const SJIS: Multibyte = Multibyte {
    differences: &[
        (0x815f, '\\'),
        (0x8160, '〜'),
        (0x8161, '‖'),
        (0x817c, '−'),
        (0x8191, '¢'),
        (0x8192, '£'),
        (0x81ca, '¬'),
    ],
    ..CP932
};

pub(super) const GB2312: Multibyte = Multibyte {
    differences: &[(0xa1a4, '・'), (0xa1aa, '―')],
    ..PLAIN
};

pub(super) const BIG5: Multibyte = Multibyte {
    encoding: encoding_rs::BIG5,
    differences: &[
        (0xa145, '•'),
        (0xa14e, '､'),
        (0xa1c2, '‾'),
        (0xa1e3, '∼'),
        (0xa1f2, '♁'),
        (0xa1f3, '☉'),
        (0xa241, '／'),
        (0xa242, '＼'),
        (0xa244, '¥'),
        (0xa246, '¢'),
        (0xa247, '£'),
    ],
    special: |code| {
        let (lead, trail) = (code >> 8, code & 0xff);
        let cell = match trail {
            0x40..=0x7e => trail - 0x40,
            0xa1..=0xfe => trail - 0xa1 + 63,
            _ => return None,
        };
        let index = (lead.checked_sub(0xc6)? * 157 + cell).checked_sub(63)?;
        tables::BIG5_FROM_C6A1.chars().nth(index as usize)
    },
    ..PLAIN
};

pub(super) const EUCJPMS: Multibyte = Multibyte {
    encoding: encoding_rs::EUC_JP,
    differences: &[(0x8f_a2c3, '￤')],
    length: euc_length,
    special: |code| {
        user_defined(code).or_else(|| {
            let index = cell(code, 0x8f_f3a1)?.checked_sub(82)?;
            tables::EUCJPMS_FROM_8FF3F3.chars().nth(index as usize)
        })
    },
};

pub(super) const UJIS: Multibyte = Multibyte {
    encoding: encoding_rs::EUC_JP,
    differences: &[
        (0xa1c0, '\\'),
        (0xa1c1, '〜'),
        (0xa1c2, '‖'),
        (0xa1dd, '−'),
        (0xa1f1, '¢'),
        (0xa1f2, '£'),
        (0xa2cc, '¬'),
        (0x8f_a2b7, '~'),
    ],
    length: euc_length,
    special: user_defined,
};

const fn sjis_length(lead: u8) -> usize {
    // Halfwidth katakana are single bytes.
    if matches!(lead, 0xa1..=0xdf) { 1 } else { 2 }
}

const fn euc_length(lead: u8) -> usize {
    if lead == 0x8f { 3 } else { 2 }
}

/// Number of a code's cell, counted from `first` in rows of 94.
fn cell(code: u32, first: u32) -> Option<u32> {
    let row = (code >> 8).checked_sub(first >> 8)?;
    let column = (code & 0xff)
        .checked_sub(0xa1)
        .filter(|column| *column < 94)?;
    (code >> 16 == first >> 16).then_some(row * 94 + column)
}

/// Rows 0xF5 to 0xFE of both planes: the private use area.
fn user_defined(code: u32) -> Option<char> {
    const CELLS: u32 = 10 * 94;
    let index = match code >> 16 {
        0 => cell(code, 0xf5a1)?,
        _ => cell(code, 0x8f_f5a1)? + CELLS,
    };
    char::from_u32(0xe000 + index)
}

impl Multibyte {
    /// The text, or the offset of the first byte that is none.
    pub(super) fn decode(&self, bytes: &[u8]) -> Result<String, usize> {
        let corrected = !self.differences.is_empty();
        let whole = |bytes: &[u8]| {
            self.encoding
                .decode_without_bom_handling_and_without_replacement(bytes)
                .map(std::borrow::Cow::into_owned)
        };
        if !corrected && let Some(text) = whole(bytes) {
            return Ok(text);
        }
        // One by one: to look each up, or to find the one that is wrong.
        let mut text = String::with_capacity(bytes.len() * 3 / 2);
        let mut at = 0;
        while let Some(lead) = bytes.get(at) {
            if lead.is_ascii() {
                text.push(char::from(*lead));
                at += 1;
                continue;
            }
            let mut length = (self.length)(*lead);
            let four_byte_code = bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
            if self.encoding == encoding_rs::GB18030 && four_byte_code {
                length = 4;
            }
            let code = bytes.get(at..at + length).ok_or(at)?;
            let number = code
                .iter()
                .fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
            let difference = self.differences.iter().find(|(code, _)| *code == number);
            match difference {
                Some((_, c)) => text.push(*c),
                None => match (self.special)(number) {
                    Some(c) => text.push(c),
                    None => text.push_str(&whole(code).ok_or(at)?),
                },
            }
            at += length;
        }
        Ok(text)
    }
}
