//! JSON strings (RFC 8259, section 7), escaped as Jackson's `UTF8JsonGenerator` escapes.
//!
//! ```text
//! "        → \"        \b \f \n \r \t → short form      other bytes below 0x20 → \u00XX, upper-case hex
//! \        → \\        / and 0x7f     → as they are     beyond the BMP: values as UTF-8, keys as \uD834\uDD1E
//! ```
//! One pass of eight bytes at a time ([`is_plain`]) tells whether a text may be copied as it stands, which nearly all may.

const fn every(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// Whether any of eight bytes is a control character, `"`, `\` or not ASCII.
///
/// For bytes below 0x80 the subtractions set a byte's high bit exactly when it is below 0x20, or equal to the searched one; a borrow
/// reaches a higher byte only where a lower one already told. Bytes from 0x80 are told by themselves.
#[inline]
const fn any_special(word: u64) -> bool {
    let control = word.wrapping_sub(every(0x20));
    let quote = (word ^ every(b'"')).wrapping_sub(every(1));
    let backslash = (word ^ every(b'\\')).wrapping_sub(every(1));
    (word | control | quote | backslash) & every(0x80) != 0
}

#[inline]
const fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte >= 0x80 || byte == b'"' || byte == b'\\'
}

/// Whether `bytes` are ASCII that stands in a JSON string as it is.
#[inline]
#[must_use]
pub(super) fn is_plain(bytes: &[u8]) -> bool {
    let (words, tail) = bytes.as_chunks::<8>();
    for word in words {
        if any_special(u64::from_ne_bytes(*word)) {
            return false;
        }
    }
    match (tail.is_empty(), bytes.last_chunk::<8>()) {
        (true, _) => true,
        // Reading some bytes twice is cheaper than one at a time.
        (false, Some(last)) => !any_special(u64::from_ne_bytes(*last)),
        (false, None) => !tail.iter().any(|byte| is_special(*byte)),
    }
}

/// How a byte is escaped: 0 not at all, `u` as `\u00XX`, otherwise the letter after the backslash.
static ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    let mut control = 0;
    while control < 0x20 {
        table[control] = b'u';
        control += 1;
    }
    table[0x08] = b'b';
    table[0x09] = b't';
    table[0x0a] = b'n';
    table[0x0c] = b'f';
    table[0x0d] = b'r';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Appends `text` as a JSON string with its quotes, everything beyond ASCII as UTF-8.
#[inline]
pub(super) fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    if is_plain(text.as_bytes()) {
        out.extend_from_slice(text.as_bytes());
    } else {
        write_escaped(out, text);
    }
    out.push(b'"');
}

/// Appends `text` as a JSON string with its quotes, byte for byte as Jackson writes it.
#[inline]
pub(super) fn write_key_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    if is_plain(text.as_bytes()) {
        out.extend_from_slice(text.as_bytes());
    } else {
        write_key_escaped(out, text);
    }
    out.push(b'"');
}

/// Appends the inside of a JSON string.
pub(super) fn write_escaped(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    out.reserve(bytes.len());
    let mut done = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let escape = ESCAPES[*byte as usize];
        if escape != 0 {
            out.extend_from_slice(&bytes[done..at]);
            write_escape(out, *byte, escape);
            done = at + 1;
        }
    }
    out.extend_from_slice(&bytes[done..]);
}

fn write_key_escaped(out: &mut Vec<u8>, text: &str) {
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|byte| byte >= 0xf0) {
        write_escaped(out, &rest[..at]);
        let mut chars = rest[at..].chars();
        if let Some(beyond_bmp) = chars.next() {
            for unit in beyond_bmp.encode_utf16(&mut [0; 2]) {
                let [high, low] = unit.to_be_bytes();
                out.extend_from_slice(b"\\u");
                write_hex(out, high);
                write_hex(out, low);
            }
        }
        rest = chars.as_str();
    }
    write_escaped(out, rest);
}

#[cold]
fn write_escape(out: &mut Vec<u8>, byte: u8, escape: u8) {
    if escape == b'u' {
        out.extend_from_slice(b"\\u00");
        write_hex(out, byte);
    } else {
        out.extend_from_slice(&[b'\\', escape]);
    }
}

fn write_hex(out: &mut Vec<u8>, byte: u8) {
    out.push(HEX[usize::from(byte >> 4)]);
    out.push(HEX[usize::from(byte & 15)]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(text: &str) -> String {
        let mut out = Vec::new();
        write_string(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    fn key(text: &str) -> String {
        let mut out = Vec::new();
        write_key_string(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    /// Jackson's rules once more, character by character, sharing nothing with the code above.
    fn jackson(text: &str) -> String {
        let mut out = String::from("\"");
        for unit in text.encode_utf16() {
            match unit {
                0x22 => out += "\\\"",
                0x5c => out += "\\\\",
                8 => out += "\\b",
                9 => out += "\\t",
                10 => out += "\\n",
                12 => out += "\\f",
                13 => out += "\\r",
                0..=0x1f | 0xd800..=0xdfff => out += &format!("\\u{unit:04X}"),
                _ => out.push(char::from_u32(unit.into()).unwrap()),
            }
        }
        out + "\""
    }

    #[test]
    fn as_jackson_writes() {
        // The key of the reference's own alphabet: mysql.txt, column vc.
        assert_eq!(
            key("a\"\\\n\tu0001é𝄞/"),
            r#""a\"\\\n\tu0001é\uD834\uDD1E/""#
        );
        assert_eq!(key("\u{1}\u{1f}\u{7f}"), "\"\\u0001\\u001F\u{7f}\"");
        assert_eq!(key("\u{8}\u{c}\r"), r#""\b\f\r""#);
        assert_eq!(value("é𝄞\u{2028}"), "\"é𝄞\u{2028}\"");
        assert_eq!(value(""), "\"\"");
    }

    #[test]
    fn every_byte_at_every_place_is_seen() {
        for length in 1..40 {
            for at in 0..length {
                for byte in 0..=255u8 {
                    let mut bytes = vec![b'x'; length];
                    bytes[at] = byte;
                    assert_eq!(
                        is_plain(&bytes),
                        !is_special(byte),
                        "{byte:#x} at {at} of {length}"
                    );
                }
            }
        }
    }

    proptest! {
        #[test]
        fn values_parse_back(text in "\\PC*|[\\x00-\\xff]*") {
            prop_assert_eq!(serde_json::from_str::<String>(&value(&text)).unwrap(), text);
        }

        #[test]
        fn keys_equal_an_independent_jackson(text in "\\PC*|[\\x00-\\x{10ffff}]{0,30}") {
            prop_assert_eq!(key(&text), jackson(&text));
            prop_assert_eq!(serde_json::from_str::<String>(&key(&text)).unwrap(), text);
        }
    }
}
