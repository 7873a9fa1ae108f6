//! The server's side of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, 7677; `tls-server-end-point` of RFC 5929).
//!
//! ```text
//! client  n,,n=,r=CLIENT                              client-first; "p=tls-server-end-point,," before "n=" binds to the channel
//! server  r=CLIENT+SERVER,s=base64 salt,i=4096        server-first
//! client  c=base64(header + data),r=…,p=base64 proof  client-final
//! server  v=base64 signature
//! ```
//! The user's name comes with the start-up packet; the one in client-first is ignored, as the server does.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

const ITERATIONS: u32 = 4096;

/// The mechanism without channel binding.
pub(super) const PLAIN: &str = "SCRAM-SHA-256";
/// The mechanism with it.
pub(super) const PLUS: &str = "SCRAM-SHA-256-PLUS";

/// Why an exchange ended without success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The proof is wrong.
    Password,
    /// The messages make no sense, with the server's words.
    Protocol(&'static str),
}

/// An exchange that waits for client-final.
#[derive(Debug)]
pub(super) struct Exchange {
    /// What the client says of channel binding, and the data it must prove.
    binding: Vec<u8>,
    client_first_bare: String,
    server_first: String,
    nonce: String,
    salted: [u8; 32],
}

fn hmac(key: &[u8], data: &[&str]) -> Vec<u8> {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        return Vec::new();
    };
    data.iter().for_each(|part| mac.update(part.as_bytes()));
    mac.finalize().into_bytes().to_vec()
}

impl Exchange {
    /// Reads client-first. `end_point`: the hash of our certificate, where the client speaks TLS.
    pub(super) fn begin(
        password: &str,
        mechanism: &str,
        client_first: &[u8],
        end_point: Option<&[u8]>,
    ) -> Result<Self, Refusal> {
        const MALFORMED: Refusal = Refusal::Protocol("malformed SCRAM message");
        let text = std::str::from_utf8(client_first).map_err(|_| MALFORMED)?;
        let (flag, rest) = text.split_once(',').ok_or(MALFORMED)?;
        let (authorised, bare) = rest.split_once(',').ok_or(MALFORMED)?;
        if !authorised.is_empty() {
            return Err(Refusal::Protocol(
                "client uses authorization identity, but it is not supported",
            ));
        }
        let mut binding = format!("{flag},,").into_bytes();
        match (flag, mechanism == PLUS, end_point) {
            ("p=tls-server-end-point", true, Some(hash)) => binding.extend_from_slice(hash),
            ("n", false, _) | ("y", false, None) => {}
            ("y", false, Some(_)) => {
                // It thinks that we cannot, and we can: somebody took our offer away.
                return Err(Refusal::Protocol("SCRAM channel binding negotiation error"));
            }
            _ => return Err(MALFORMED),
        }
        let nonce = bare.split(',').find_map(|part| part.strip_prefix("r="));
        let nonce = nonce.filter(|nonce| !nonce.is_empty()).ok_or(MALFORMED)?;
        let (ours, salt): ([u8; 18], [u8; 16]) = (rand::random(), rand::random());
        let nonce = format!("{nonce}{}", STANDARD.encode(ours));
        let server_first = format!("r={nonce},s={},i={ITERATIONS}", STANDARD.encode(salt));
        let salted =
            pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password.as_bytes(), &salt, ITERATIONS);
        Ok(Self {
            binding,
            client_first_bare: bare.to_owned(),
            server_first,
            nonce,
            salted,
        })
    }

    /// The answer to client-first.
    pub(super) fn server_first(&self) -> &str {
        &self.server_first
    }

    /// Reads client-final: server-final when the proof is right.
    pub(super) fn finish(&self, client_final: &[u8]) -> Result<String, Refusal> {
        const MALFORMED: Refusal = Refusal::Protocol("malformed SCRAM message");
        let text = std::str::from_utf8(client_final).map_err(|_| MALFORMED)?;
        let (unproven, proof) = text.rsplit_once(",p=").ok_or(MALFORMED)?;
        let field = |name: &str| unproven.split(',').find_map(|part| part.strip_prefix(name));
        let bound = field("c=").and_then(|bound| STANDARD.decode(bound).ok());
        if bound.ok_or(MALFORMED)? != self.binding {
            return Err(Refusal::Protocol("SCRAM channel binding check failed"));
        }
        if field("r=") != Some(self.nonce.as_str()) {
            return Err(MALFORMED);
        }
        let signed = [
            self.client_first_bare.as_str(),
            ",",
            &self.server_first,
            ",",
            unproven,
        ];
        let client_key = hmac(&self.salted, &["Client Key"]);
        let signature = hmac(&Sha256::digest(&client_key), &signed);
        let expected: Vec<u8> = client_key
            .iter()
            .zip(signature)
            .map(|(k, s)| k ^ s)
            .collect();
        let proof = STANDARD.decode(proof).map_err(|_| MALFORMED)?;
        if proof != expected {
            return Err(Refusal::Password);
        }
        let server = hmac(&hmac(&self.salted, &["Server Key"]), &signed);
        Ok(format!("v={}", STANDARD.encode(server)))
    }
}

#[cfg(test)]
mod tests {
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

    use super::*;

    fn exchange(password: &str, plus: bool, hash: &[u8]) -> Result<(), Refusal> {
        let (mechanism, binding) = match plus {
            true => (PLUS, ChannelBinding::tls_server_end_point(b"hash".to_vec())),
            false => (PLAIN, ChannelBinding::unsupported()),
        };
        let mut client = ScramSha256::new(password.as_bytes(), binding);
        let exchange = Exchange::begin("pencil", mechanism, client.message(), Some(hash))?;
        client.update(exchange.server_first().as_bytes()).unwrap();
        let server_final = exchange.finish(client.message())?;
        client.finish(server_final.as_bytes()).unwrap();
        Ok(())
    }

    #[test]
    fn a_foreign_client_is_let_in_with_the_password_only() {
        for plus in [false, true] {
            assert_eq!(exchange("pencil", plus, b"hash"), Ok(()));
            assert_eq!(exchange("pen", plus, b"hash"), Err(Refusal::Password));
        }
        let other = exchange("pencil", true, b"another certificate");
        assert_eq!(
            other,
            Err(Refusal::Protocol("SCRAM channel binding check failed"))
        );
    }

    #[test]
    fn a_downgrade_is_noticed() {
        let begin = |first: &[u8], end_point| {
            Exchange::begin("x", PLAIN, first, end_point)
                .map(|_| ())
                .is_ok()
        };
        assert!(begin(b"y,,n=,r=abc", None));
        assert!(!begin(b"y,,n=,r=abc", Some(b"hash".as_slice())));
        for wrong in [
            b"".as_slice(),
            b"n",
            b"n,a=x,n=,r=1",
            b"n,,n=,r=",
            b"p=x,,n=,r=1",
        ] {
            assert!(!begin(wrong, None));
        }
    }
}
