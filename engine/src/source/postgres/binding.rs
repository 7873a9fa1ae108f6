//! `tls-server-end-point` (RFC 5929, section 4): what ties a SCRAM proof to the server's certificate.
//!
//! ```text
//! Certificate ::= SEQUENCE { tbsCertificate SEQUENCE, signatureAlgorithm SEQUENCE { OID, … }, … }
//! ```
//! The certificate's hash, by the function that its signature uses; SHA-256 where that is MD5 or SHA-1.

use sha2::{Digest as _, Sha256, Sha384, Sha512};

/// OIDs, as DER has them, by the hash that stands in for them.
const SHA256: [&[u8]; 4] = [
    // sha256WithRSAEncryption, ecdsa-with-SHA256; sha1WithRSAEncryption, md5WithRSAEncryption
    &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11],
    &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2],
    &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5],
    &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4],
];
const SHA384: [&[u8]; 2] = [
    &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 12],
    &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3],
];
const SHA512: [&[u8]; 2] = [
    &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 13],
    &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4],
];

/// The binding of a certificate in DER; `None` where its signature's hash is not one of these (Ed25519 has none): then nothing is bound.
pub(in crate::source) fn end_point_hash(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, whole) = element(certificate, 0x30)?.0;
    let ((_, _), rest) = element(whole, 0x30)?;
    let ((_, algorithm), _) = element(rest, 0x30)?;
    let ((_, oid), _) = element(algorithm, 0x06)?;
    if SHA256.contains(&oid) {
        Some(Sha256::digest(certificate).to_vec())
    } else if SHA384.contains(&oid) {
        Some(Sha384::digest(certificate).to_vec())
    } else if SHA512.contains(&oid) {
        Some(Sha512::digest(certificate).to_vec())
    } else {
        None
    }
}

type Element<'a> = ((u8, &'a [u8]), &'a [u8]);

/// The DER element at the start of `bytes`, which must have this tag: (tag, content), and what follows it.
fn element(bytes: &[u8], expected: u8) -> Option<Element<'_>> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = digits
                .iter()
                .fold(0, |n, digit| n << 8 | usize::from(*digit));
            (length, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    (tag == expected).then_some(((tag, content), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate's outline with this signature algorithm.
    fn certificate(oid: &[u8]) -> Vec<u8> {
        let mut algorithm = vec![0x06, oid.len() as u8];
        algorithm.extend_from_slice(oid);
        algorithm.extend_from_slice(&[0x05, 0]);
        let mut body = vec![0x30, 0x82, 0x01, 0x00];
        body.extend_from_slice(&[7; 256]);
        body.extend_from_slice(&[0x30, algorithm.len() as u8]);
        body.extend_from_slice(&algorithm);
        let mut whole = vec![0x30, 0x82, (body.len() >> 8) as u8, body.len() as u8];
        whole.extend_from_slice(&body);
        whole
    }

    #[test]
    fn the_signature_chooses_the_hash() {
        for (oid, length) in [
            (SHA256[0], 32),
            (SHA256[2], 32),
            (SHA384[1], 48),
            (SHA512[0], 64),
        ] {
            let whole = certificate(oid);
            assert_eq!(end_point_hash(&whole).map(|hash| hash.len()), Some(length));
            for cut in 0..whole.len() {
                assert_eq!(end_point_hash(&whole[..cut]), None);
            }
        }
        // Ed25519.
        assert_eq!(end_point_hash(&certificate(&[0x2b, 0x65, 0x70])), None);
    }
}
