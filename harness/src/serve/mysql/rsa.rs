//! The server's RSA key: handed to clients that authenticate without TLS, who encrypt their password with it (RSAES-OAEP, SHA-1).
//!
//! ```text
//! PUBLIC KEY = SEQUENCE { SEQUENCE { OID rsaEncryption, NULL }, BIT STRING { 00, SEQUENCE { INTEGER n, INTEGER e } } }
//! block      = 00 | seed xor MGF(db) : 20 | db xor MGF(seed)          db = SHA1("") | 00 … | 01 | message
//! ```
//! A new key for every server, made from the system's randomness: no private key lies in the repository. RFC 8017.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use num_bigint::BigUint;
use sha1::{Digest, Sha1};

const HASH_LENGTH: usize = 20;
const MODULUS_BYTES: usize = 256;
const EXPONENT: u32 = 65_537;

/// A key pair of 2048 bits.
pub(super) struct Key {
    modulus: BigUint,
    private: BigUint,
    pem: String,
}

impl Key {
    /// Makes a key; takes about a quarter of a second.
    pub(super) fn generate() -> Self {
        let exponent = BigUint::from(EXPONENT);
        let one = BigUint::from(1u32);
        loop {
            let (p, q) = (prime(), prime());
            let totient = (&p - &one) * (&q - &one);
            let Some(private) = exponent.modinv(&totient).filter(|_| p != q) else {
                continue;
            };
            let modulus = p * q;
            let pem = pem(&modulus, &exponent);
            return Self {
                modulus,
                private,
                pem,
            };
        }
    }

    /// The public half, as servers send it.
    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    /// The message in `block`; `None` when it was not encrypted with our key.
    pub(super) fn decrypt(&self, block: &[u8]) -> Option<Vec<u8>> {
        if block.len() != MODULUS_BYTES {
            return None;
        }
        let plain = BigUint::from_bytes_be(block).modpow(&self.private, &self.modulus);
        let plain = padded(&plain);
        let (seed, db) = plain.get(1..)?.split_at(HASH_LENGTH);
        let seed = masked(seed, db);
        let db = masked(db, &seed);
        let rest = db.strip_prefix(&Sha1::digest(b"")[..])?;
        let message = rest.iter().position(|byte| *byte != 0)?;
        let (mark, message) = rest.get(message..)?.split_first()?;
        (plain[0] == 0 && *mark == 1).then(|| message.to_vec())
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

fn padded(number: &BigUint) -> Vec<u8> {
    let bytes = number.to_bytes_be();
    let mut padded = vec![0; MODULUS_BYTES.saturating_sub(bytes.len())];
    padded.extend_from_slice(&bytes);
    padded
}

/// `bytes` xored with MGF1(`seed`).
fn masked(bytes: &[u8], seed: &[u8]) -> Vec<u8> {
    let mask = (0u32..).flat_map(|counter| {
        let mut digest = Sha1::new();
        digest.update(seed);
        digest.update(counter.to_be_bytes());
        digest.finalize()
    });
    bytes
        .iter()
        .zip(mask)
        .map(|(byte, mask)| byte ^ mask)
        .collect()
}

/// A prime of 1024 bits whose two highest are set, so that two of them make 2048.
fn prime() -> BigUint {
    let small: Vec<u32> = (3u32..2000)
        .step_by(2)
        .filter(|n| (3..*n).step_by(2).all(|d| n % d != 0))
        .collect();
    loop {
        let mut bytes: [u8; MODULUS_BYTES / 2] = std::array::from_fn(|_| rand::random());
        bytes[0] |= 0xc0;
        bytes[MODULUS_BYTES / 2 - 1] |= 1;
        let candidate = BigUint::from_bytes_be(&bytes);
        let divisible = small.iter().any(|n| (&candidate % *n) == BigUint::ZERO);
        if !divisible && is_probably_prime(&candidate) {
            return candidate;
        }
    }
}

/// Miller-Rabin with random bases; for random numbers of this size 8 rounds are far more than enough (FIPS 186-5, B.3).
fn is_probably_prime(n: &BigUint) -> bool {
    let one = BigUint::from(1u32);
    let less = n - &one;
    let twos = less.trailing_zeros().unwrap_or(0);
    let odd = &less >> twos;
    (0..8).all(|_| {
        let base = BigUint::from(rand::random::<u64>() | 2);
        let mut power = base.modpow(&odd, n);
        if power == one || power == less {
            return true;
        }
        (1..twos).any(|_| {
            power = power.modpow(&BigUint::from(2u32), n);
            power == less
        })
    })
}

fn pem(modulus: &BigUint, exponent: &BigUint) -> String {
    let key = element(0x30, &[integer(modulus), integer(exponent)].concat());
    // rsaEncryption, 1.2.840.113549.1.1.1, and its NULL parameters.
    let algorithm = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
    let bits = element(0x03, &[&[0], key.as_slice()].concat());
    let info = element(0x30, &[element(0x30, algorithm), bits].concat());
    let mut pem = String::from("-----BEGIN PUBLIC KEY-----\n");
    for line in STANDARD.encode(info).as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem + "-----END PUBLIC KEY-----\n"
}

/// Positive: a first byte with its highest bit set gets a zero before it.
fn integer(number: &BigUint) -> Vec<u8> {
    let mut bytes = number.to_bytes_be();
    if bytes[0] & 0x80 != 0 {
        bytes.insert(0, 0);
    }
    element(0x02, &bytes)
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        short @ 0..=0x7f => out.push(short as u8),
        long => {
            let bytes = (long as u16).to_be_bytes();
            out.extend_from_slice(&[0x82, bytes[0], bytes[1]]);
        }
    }
    out.extend_from_slice(content);
    out
}

#[cfg(test)]
mod tests {
    use protocol::mysql::auth::{Client, ClientStep, Plugin, Request, Server, ServerStep};

    use super::*;

    #[test]
    fn a_password_crosses_in_the_clear_line() {
        let key = Key::generate();
        for plugin in [Plugin::CachingSha2Password, Plugin::Sha256Password] {
            for ours in ["s3cret", "wrong"] {
                let nonce = [7; 20];
                let mut client =
                    Client::new(plugin.name(), &nonce, ours.as_bytes(), false).unwrap();
                let mut server = Server::new(plugin, &nonce, b"s3cret", false, false);
                let mut payload = client.first().unwrap();
                let accepted = loop {
                    match server.answer(&payload, key.pem().as_bytes(), |block| key.decrypt(block))
                    {
                        ServerStep::Accept(_) => break true,
                        ServerStep::Deny => break false,
                        ServerStep::Send(packet) => {
                            let request = Request::decode(&packet).unwrap().unwrap();
                            match client.answer(request, rand::random()).unwrap() {
                                ClientStep::Send(next) => payload = next,
                                ClientStep::Wait => panic!("nothing to wait for"),
                            }
                        }
                    }
                };
                assert_eq!(accepted, ours == "s3cret", "{plugin:?}");
            }
        }
        assert_eq!(key.decrypt(&[1; 256]), None);
        assert_eq!(key.decrypt(b"short"), None);
    }
}
