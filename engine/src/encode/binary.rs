//! Bytes as base64 strings (RFC 4648, section 4).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// Appends `bytes` in base64 with quotes.
pub(super) fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    let start = out.len();
    let length = bytes.len().div_ceil(3) * 4;
    out.resize(start + length, b'=');
    // The room is exactly what base64 needs, so this cannot fail.
    let written = BASE64.encode_slice(bytes, &mut out[start..]);
    debug_assert_eq!(written, Ok(length));
    out.push(b'"');
}
