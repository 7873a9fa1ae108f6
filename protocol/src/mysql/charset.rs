//! Character sets and collations by the ids that TABLE_MAP metadata and `information_schema` give.
//!
//! UTF-8 is borrowed after one check; everything else is converted exactly as a server converts it to utf8mb4: single-byte sets by
//! the server's own tables, multi-byte ones by `encoding_rs` with the places corrected where MySQL differs. Ids: `mysys/charset-def.cc`
//! and `strings/ctype-*.cc`; MariaDB numbers its NO PAD collations from 1024 and the UCA 14.0.0 ones from 2048.

mod multibyte;
mod tables;

use std::borrow::Cow;

use multibyte::Multibyte;
use tables::Upper;

use crate::{DecodeError, DecodeErrorKind};

/// A character set as the decoder needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Charset {
    /// Collation id (e.g. 255 for `utf8mb4_0900_ai_ci`); 63 is `binary`.
    pub collation: u16,
}

/// How the bytes of a character set become text.
#[derive(Debug, Clone, Copy)]
enum Set {
    Utf8,
    Ascii,
    Single(&'static Upper),
    Swe7,
    Multibyte(Multibyte),
    Utf16 { little_endian: bool },
    Utf32,
}

impl Charset {
    /// No character set known: the server did not say.
    pub const UNKNOWN: Self = Self { collation: 0 };
    /// Bytes.
    pub const BINARY: Self = Self { collation: 63 };
    /// `ascii_general_ci`.
    pub const ASCII: Self = Self { collation: 11 };
    /// `utf8mb4_general_ci`.
    pub const UTF8MB4: Self = Self { collation: 45 };

    /// Whether text in this character set is UTF-8 as it stands (utf8mb3, utf8mb4).
    #[must_use]
    #[inline]
    pub const fn is_utf8(self) -> bool {
        matches!(self.base(), 33 | 45 | 46 | 76 | 83 | 192..=247 | 255..=323 | 576..=578 | 608..=610 | 2048..=2559)
    }

    /// The id that MariaDB's NO PAD collations are derived from, others as they are.
    const fn base(self) -> u16 {
        match self.collation {
            id @ 1024..=2047 => id - 1024,
            id => id,
        }
    }

    /// The character set's name as the server calls it; `None` for an id that we do not know.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        if self == Self::BINARY {
            return Some("binary");
        }
        self.set().map(|(name, _)| name)
    }

    fn set(self) -> Option<(&'static str, Set)> {
        use multibyte as mb;
        use tables as t;
        let multibyte = |multibyte| Set::Multibyte(multibyte);
        Some(match self.base() {
            33 | 76 | 83 | 192..=223 | 576..=578 | 2048..=2303 => ("utf8mb3", Set::Utf8),
            45 | 46 | 224..=247 | 255..=323 | 608..=610 | 2304..=2559 => ("utf8mb4", Set::Utf8),
            5 | 8 | 15 | 31 | 47..=49 | 94 => ("latin1", Set::Single(&t::LATIN1)),
            11 | 65 => ("ascii", Set::Ascii),
            2 | 9 | 21 | 27 | 77 => ("latin2", Set::Single(&t::LATIN2)),
            30 | 78 => ("latin5", Set::Single(&t::LATIN5)),
            20 | 41 | 42 | 79 => ("latin7", Set::Single(&t::LATIN7)),
            26 | 34 | 44 | 66 | 99 => ("cp1250", Set::Single(&t::CP1250)),
            14 | 23 | 50..=52 => ("cp1251", Set::Single(&t::CP1251)),
            57 | 67 => ("cp1256", Set::Single(&t::CP1256)),
            29 | 58 | 59 => ("cp1257", Set::Single(&t::CP1257)),
            4 | 80 => ("cp850", Set::Single(&t::CP850)),
            40 | 81 => ("cp852", Set::Single(&t::CP852)),
            36 | 68 => ("cp866", Set::Single(&t::CP866)),
            3 | 69 => ("dec8", Set::Single(&t::DEC8)),
            6 | 72 => ("hp8", Set::Single(&t::HP8)),
            7 | 74 => ("koi8r", Set::Single(&t::KOI8R)),
            22 | 75 => ("koi8u", Set::Single(&t::KOI8U)),
            10 | 82 => ("swe7", Set::Swe7),
            16 | 71 => ("hebrew", Set::Single(&t::HEBREW)),
            18 | 89 => ("tis620", Set::Single(&t::TIS620)),
            25 | 70 => ("greek", Set::Single(&t::GREEK)),
            32 | 64 => ("armscii8", Set::Single(&t::ARMSCII8)),
            37 | 73 => ("keybcs2", Set::Single(&t::KEYBCS2)),
            38 | 43 => ("macce", Set::Single(&t::MACCE)),
            39 | 53 => ("macroman", Set::Single(&t::MACROMAN)),
            92 | 93 => ("geostd8", Set::Single(&t::GEOSTD8)),
            1 | 84 => ("big5", multibyte(mb::BIG5)),
            12 | 91 => ("ujis", multibyte(mb::UJIS)),
            13 | 88 => ("sjis", multibyte(mb::SJIS)),
            19 | 85 => ("euckr", multibyte(mb::EUCKR)),
            24 | 86 => ("gb2312", multibyte(mb::GB2312)),
            28 | 87 => ("gbk", multibyte(mb::GBK)),
            95 | 96 => ("cp932", multibyte(mb::CP932)),
            97 | 98 => ("eucjpms", multibyte(mb::EUCJPMS)),
            248..=250 => ("gb18030", multibyte(mb::GB18030)),
            35 | 90 | 128..=151 | 159 | 640..=642 | 2560..=2815 => (
                "ucs2",
                Set::Utf16 {
                    little_endian: false,
                },
            ),
            54 | 55 | 101..=124 | 672..=674 | 2816..=3071 => (
                "utf16",
                Set::Utf16 {
                    little_endian: false,
                },
            ),
            56 | 62 => (
                "utf16le",
                Set::Utf16 {
                    little_endian: true,
                },
            ),
            60 | 61 | 160..=183 | 736..=738 | 3072..=3327 => ("utf32", Set::Utf32),
            _ => return None,
        })
    }

    /// The text of `bytes`, borrowed where they are UTF-8 already.
    ///
    /// # Errors
    /// Bytes that are no text in this character set (`what` names the set, `at` counts from the value's start), or a character set
    /// that we do not read (`Unsupported` with the collation id). Never a replacement character.
    #[inline]
    pub fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, str>, DecodeError> {
        if self.is_utf8() {
            return match std::str::from_utf8(bytes) {
                Ok(text) => Ok(Cow::Borrowed(text)),
                Err(error) => Err(DecodeError::new(
                    "utf8 text",
                    error.valid_up_to() as u64,
                    DecodeErrorKind::Encoding,
                )),
            };
        }
        self.convert(bytes)
    }

    fn convert<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, str>, DecodeError> {
        let Some((name, set)) = self.set() else {
            return Err(DecodeError::new(
                if *self == Self::UNKNOWN {
                    "text whose character set the server did not say"
                } else {
                    "collation id of text"
                },
                0,
                DecodeErrorKind::Unsupported {
                    value: u64::from(self.collation),
                },
            ));
        };
        if matches!(set, Set::Ascii | Set::Single(_) | Set::Multibyte(_))
            && bytes.is_ascii()
            && let Ok(text) = std::str::from_utf8(bytes)
        {
            return Ok(Cow::Borrowed(text));
        }
        let converted = match set {
            Set::Utf8 | Set::Ascii => Err(bytes.iter().position(|b| !b.is_ascii()).unwrap_or(0)),
            Set::Single(upper) => single(bytes, upper),
            Set::Swe7 => swe7(bytes),
            Set::Multibyte(multibyte) => multibyte.decode(bytes),
            Set::Utf16 { little_endian } => utf16(bytes, little_endian),
            Set::Utf32 => utf32(bytes),
        };
        converted
            .map(Cow::Owned)
            .map_err(|at| DecodeError::new(name, at as u64, DecodeErrorKind::Encoding))
    }
}

// The functions below give the offset of the first byte that is no text.

fn single(bytes: &[u8], upper: &Upper) -> Result<String, usize> {
    let mut text = String::with_capacity(bytes.len() + bytes.len() / 2);
    for (at, byte) in bytes.iter().enumerate() {
        let c = match byte.checked_sub(0x80) {
            None => char::from(*byte),
            Some(index) => match upper.get(usize::from(index)) {
                Some(c) if *c != char::REPLACEMENT_CHARACTER => *c,
                _ => return Err(at),
            },
        };
        text.push(c);
    }
    Ok(text)
}

fn swe7(bytes: &[u8]) -> Result<String, usize> {
    let read = |(at, byte): (usize, &u8)| match byte {
        b'@' => Ok('É'),
        b'[' => Ok('Ä'),
        b'\\' => Ok('Ö'),
        b']' => Ok('Å'),
        b'^' => Ok('Ü'),
        b'`' => Ok('é'),
        b'{' => Ok('ä'),
        b'|' => Ok('ö'),
        b'}' => Ok('å'),
        b'~' => Ok('ü'),
        0x7f.. => Err(at),
        plain => Ok(char::from(*plain)),
    };
    bytes.iter().enumerate().map(read).collect()
}

fn utf16(bytes: &[u8], little_endian: bool) -> Result<String, usize> {
    let (units, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(bytes.len() - rest.len());
    }
    let units = units.iter().map(|unit| {
        if little_endian {
            u16::from_le_bytes(*unit)
        } else {
            u16::from_be_bytes(*unit)
        }
    });
    let mut text = String::with_capacity(bytes.len());
    let mut at = 0;
    for c in char::decode_utf16(units) {
        let c = c.map_err(|_| at)?;
        at += 2 * c.len_utf16();
        text.push(c);
    }
    Ok(text)
}

fn utf32(bytes: &[u8]) -> Result<String, usize> {
    let (units, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(bytes.len() - rest.len());
    }
    let read =
        |(at, unit): (usize, &[u8; 4])| char::from_u32(u32::from_be_bytes(*unit)).ok_or(4 * at);
    units.iter().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(collation: u16, bytes: &[u8]) -> String {
        Charset { collation }.decode(bytes).unwrap().into_owned()
    }

    #[test]
    fn as_a_server_converts_them() {
        // Each from `SELECT CONVERT(_charset X'…' USING utf8mb4)` on MariaDB 10.11.
        for (collation, bytes, text) in [
            (8, &b"\x80\xe9\x81"[..], "€é\u{81}"),
            (9, b"\xf5", "ő"),
            (7, b"\xd0\xd2", "пр"),
            (25, b"\xe1\xe2", "αβ"),
            (16, b"\xe0", "א"),
            (30, b"\xfe", "ş"),
            (41, b"\xe0", "ą"),
            (51, b"\xcf\xf0", "Пр"),
            (4, b"\x82", "é"),
            (18, b"\xa1", "ก"),
            (10, b"[\\]", "ÄÖÅ"),
            (13, b"\x81\x60\x82\xa0a", "〜あa"),
            (95, b"\x81\x60\x87\x40\xb1", "～①ｱ"),
            (12, b"\xa1\xc1\xa4\xa2\x8f\xa2\xb7", "〜あ~"),
            (97, b"\xa1\xc1\x8f\xf3\xf3\x8f\xf4\xfe", "～ⅰ黑"),
            (12, b"\xf5\xa1\x8f\xf5\xa1", "\u{e000}\u{e3ac}"),
            (24, b"\xa1\xaa\xb0\xa1", "―啊"),
            (28, b"\xa1\xaa\xb0\xa1", "—啊"),
            (1, b"\xa4\xa4\xc6\xa1\xc7\x40\xc7\xfc", "中ヾエ⑽"),
            (19, b"\xb0\xa1", "가"),
            (248, b"\x81\x30\x81\x30\xb0\xa1", "\u{80}啊"),
            (35, b"\x20\xac", "€"),
            (54, b"\xd8\x34\xdd\x1e", "𝄞"),
            (56, b"\x34\xd8\x1e\xdd", "𝄞"),
            (60, b"\0\x01\xd1\x1e", "𝄞"),
            (45, "ü€𝄞".as_bytes(), "ü€𝄞"),
            (2100, "ü".as_bytes(), "ü"),
            (1057, "ü".as_bytes(), "ü"),
        ] {
            assert_eq!(decode(collation, bytes), text, "collation {collation}");
        }
    }

    #[test]
    fn utf8_and_ascii_are_borrowed() {
        for collation in [255, 45, 8, 13, 28] {
            let text = Charset { collation }.decode(b"plain").unwrap();
            assert!(matches!(text, Cow::Borrowed("plain")), "{collation}");
        }
    }

    #[test]
    fn what_is_no_text_is_an_error() {
        for (collation, bytes, at) in [
            (255_u16, &b"ab\xff"[..], 2),
            (11, b"a\x80", 1),
            (26, b"\x81", 0),
            (13, b"a\x81", 1),
            (35, b"\x20\xac\x20", 2),
            (54, b"\x20\xac\xd8\x34", 2),
            (60, b"\0\x11\0\0", 0),
        ] {
            let error = Charset { collation }.decode(bytes).unwrap_err();
            assert_eq!(
                (error.kind, error.at),
                (DecodeErrorKind::Encoding, at),
                "{collation}"
            );
        }
        let error = Charset { collation: 5000 }.decode(b"a").unwrap_err();
        assert_eq!(error.kind, DecodeErrorKind::Unsupported { value: 5000 });
        Charset::UNKNOWN.decode(b"a").unwrap_err();
    }
}
