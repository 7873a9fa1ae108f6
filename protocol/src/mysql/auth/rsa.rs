//! The password encrypted with the server's public key, for a connection without TLS.
//!
//! The key comes as PEM (`PUBLIC KEY` or `RSA PUBLIC KEY`):
//! ```text
//! PUBLIC KEY      SEQUENCE { SEQUENCE algorithm, BIT STRING { 00, RSA PUBLIC KEY } }
//! RSA PUBLIC KEY  SEQUENCE { INTEGER modulus, INTEGER exponent }
//! ```
//! mysql_common encrypts (RSAES-OAEP with SHA-1); its reader of keys panics on malformed ones, so the reading is ours.

use std::convert::Infallible;

use mysql_common::crypto::rsa::{Pkcs1OaepPadding, PublicKey, Rng};
use num_bigint::BigUint;

use super::AuthError;
use crate::cursor::Cursor;
use crate::error::DecodeError;

/// Bytes of randomness that one encryption takes (OAEP's seed: one SHA-1 digest).
pub(super) const SEED_LENGTH: usize = 20;

/// Moduli that we use, in bits: servers make 2048; larger than this only burns time.
const MODULUS_BITS: std::ops::RangeInclusive<u64> = 1024..=16384;

/// `password` and a NUL, xored with the nonce, encrypted with the key in `pem`.
pub(super) fn encrypt(
    pem: &[u8],
    password: &[u8],
    nonce: &[u8],
    seed: [u8; SEED_LENGTH],
) -> Result<Vec<u8>, AuthError> {
    let key = read_key(pem).ok_or(AuthError::PublicKey)?;
    let plain = xor_with_nonce(password, nonce);
    // OAEP needs 42 bytes of the block; mysql_common's subtraction would underflow.
    if plain.len() + 42 > key.num_octets() {
        return Err(AuthError::PublicKey);
    }
    let padding = Pkcs1OaepPadding::new(Seed(seed));
    key.encrypt_block(plain, padding)
        .map_err(|_| AuthError::PublicKey)
}

/// `password` and a NUL, xored with the nonce over and over: its own inverse but for the NUL.
pub(super) fn xor_with_nonce(password: &[u8], nonce: &[u8]) -> Vec<u8> {
    let text = password.iter().chain(&[0]);
    let pairs = text.zip(nonce.iter().cycle());
    pairs.map(|(byte, with)| byte ^ with).collect()
}

struct Seed([u8; SEED_LENGTH]);

impl Rng for Seed {
    type Error = Infallible;

    fn fill(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
        for (to, from) in to.iter_mut().zip(self.0) {
            *to = from;
        }
        Ok(())
    }
}

fn read_key(pem: &[u8]) -> Option<PublicKey> {
    let text = std::str::from_utf8(pem).ok()?;
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    let (body, _) = rest.split_once("-----END ")?;
    let der = decode_base64(body)?;
    let (modulus, exponent) = match label {
        "PUBLIC KEY" => read_public_key_info(&der).ok()?,
        "RSA PUBLIC KEY" => read_rsa_key(&der).ok()?,
        _ => return None,
    };
    let usable = MODULUS_BITS.contains(&modulus.bits())
        && modulus.bit(0)
        && (2..=64).contains(&exponent.bits());
    usable.then(|| PublicKey::new(modulus, exponent))
}

fn read_public_key_info(der: &[u8]) -> Result<(BigUint, BigUint), DecodeError> {
    let mut info = Cursor::new(element(&mut Cursor::new(der), 0x30)?);
    element(&mut info, 0x30)?;
    let mut bits = Cursor::new(element(&mut info, 0x03)?);
    let unused = bits.u8("public key bit string")?;
    if unused != 0 {
        return Err(bits.invalid("public key bit string", unused.into()));
    }
    read_rsa_key(bits.rest())
}

fn read_rsa_key(der: &[u8]) -> Result<(BigUint, BigUint), DecodeError> {
    let mut key = Cursor::new(element(&mut Cursor::new(der), 0x30)?);
    let modulus = BigUint::from_bytes_be(element(&mut key, 0x02)?);
    let exponent = BigUint::from_bytes_be(element(&mut key, 0x02)?);
    key.finish("public key")?;
    Ok((modulus, exponent))
}

/// The content of the DER element that follows, which must have this tag.
fn element<'a>(cursor: &mut Cursor<'a>, tag: u8) -> Result<&'a [u8], DecodeError> {
    let found = cursor.u8("public key element")?;
    if found != tag {
        return Err(cursor.invalid("public key element", found.into()));
    }
    let length = match cursor.u8("public key length")? {
        short @ 0..=0x7f => u64::from(short),
        long => cursor.uint_be(usize::from(long & 0x7f), "public key length")?,
    };
    cursor.take(
        usize::try_from(length).unwrap_or(usize::MAX),
        "public key element",
    )
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0);
    for byte in text
        .bytes()
        .filter(|b| !b.is_ascii_whitespace() && *b != b'=')
    {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            let [byte, ..] = (bits >> count).to_le_bytes();
            out.push(byte);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use mysql_common::crypto::der;
    use proptest::prelude::*;

    use super::*;

    /// From mysql_common's own tests.
    const PEM: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAxSKOcxiet8lLMn8ImyUE
bGGKob5EdRz/4wdiw12ED0GfKKTKhVnodFCfm1mdy7bKOX5QxL9skrvYodpW43eR
R5bfOzIgy1qIB8RYb6qOXRBw1oA4snBDqtUjDv/lbHLJN+IbzM4oU+e3Lt9rXyLX
VY289ewONPweXHqSCnTL91w+wkU1peIFV2QhZ+upUCdCtwOn5hnJPNgxtbklFoya
C8W3Z7Xx7He2QDJsEWAqX197efw0L6j8X8Tyd8Uwb7zUB1tfMGhHfm9EwejPAtzx
4GztQNtNMtGS2oGZLQBLV9hib4dDL92iiZeckg2LAf4GsJofLLR8mcHCRoqVbQJ1
YQIDAQAB
-----END PUBLIC KEY-----
";

    #[test]
    fn reads_the_key_as_mysql_common() {
        let ours = read_key(PEM.as_bytes()).unwrap();
        // Its own pattern wants no line ends around the body, which it strips only inside.
        let (theirs, kind) = der::pem_to_der(PEM.as_bytes()).unwrap();
        let (modulus, exponent) = der::parse_pub_key(&theirs, kind).unwrap();
        assert_eq!((ours.modulus(), ours.exponent()), (&modulus, &exponent));
    }

    #[test]
    fn encrypts_into_one_block() {
        let block = encrypt(PEM.as_bytes(), b"secret", &[3; 20], [5; SEED_LENGTH]).unwrap();
        assert_eq!(block.len(), 256);
        let long = [b'x'; 256 - 42];
        let got = encrypt(PEM.as_bytes(), &long, &[3; 20], [5; SEED_LENGTH]);
        assert_eq!(got, Err(AuthError::PublicKey));
        assert_eq!(xor_with_nonce(b"ab", b"\x01"), [b'a' ^ 1, b'b' ^ 1, 1]);
    }

    proptest! {
        #[test]
        fn broken_keys_are_errors_not_panics(at in 0..PEM.len(), byte in 0x20u8..0x7f, cut in 0..PEM.len()) {
            let mut pem = PEM.as_bytes().to_vec();
            pem[at] = byte;
            let _ = encrypt(&pem, b"secret", &[3; 20], [5; SEED_LENGTH]);
            let _ = encrypt(&pem[..cut], b"secret", &[3; 20], [5; SEED_LENGTH]);
        }
    }
}
