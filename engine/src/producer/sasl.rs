//! SASL mechanisms, client side: PLAIN and SCRAM. Pure: the connection carries the messages, the caller gives the nonce.
//!
//! ```text
//! PLAIN   ► NUL user NUL password
//! SCRAM   ► n,,n=user,r=nonce
//!         ◄ r=nonce+server's,s=salt,i=iterations
//!         ► c=biws,r=nonce+server's,p=proof
//!         ◄ v=signature                                    the server knows the password, too
//! ```
//! Sources: RFC 4616 (PLAIN), RFC 5802 and 7677 (SCRAM). Like Kafka's own `ScramFormatter` the user name and password are taken as UTF-8
//! without SASLprep.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256, Sha512};

/// Iterations that a server may ask of us: what it must (RFC 7677) up to some seconds of work.
const ITERATIONS_MIN: u32 = 4096;
const ITERATIONS_MAX: u32 = 2_000_000;

/// The hash of a SCRAM mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hash {
    /// SCRAM-SHA-256
    Sha256,
    /// SCRAM-SHA-512
    Sha512,
}

/// Why an exchange ended without success; the text completes "… does not authenticate user: ".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ScramError {
    /// A message that is not SCRAM's.
    #[error("its SCRAM message has no valid {0}")]
    Malformed(&'static str),
    /// The server's nonce does not begin with ours: the answer is not to our question.
    #[error("its nonce does not continue ours: the answer belongs to another exchange")]
    Nonce,
    /// Too few or too many iterations.
    #[error(
        "it asks for {0} iterations; 4096 to 2000000 are accepted (kafka-configs.sh --add-config 'SCRAM-…=[iterations=8192,…]')"
    )]
    Iterations(u32),
    /// The server's proof is wrong.
    #[error("it does not know the password itself: its signature is wrong, it may be an impostor")]
    Signature,
    /// The server refused, with an `e=` attribute.
    #[error(
        "it refuses the user name or password; check kafka.sasl.username and kafka.sasl.password"
    )]
    Refused,
}

/// The one message of PLAIN.
pub(super) fn plain(username: &str, password: &str) -> Vec<u8> {
    let mut message = Vec::with_capacity(username.len() + password.len() + 2);
    message.push(0);
    message.extend_from_slice(username.as_bytes());
    message.push(0);
    message.extend_from_slice(password.as_bytes());
    message
}

/// An exchange that has begun.
#[derive(Debug)]
pub(super) struct Scram {
    hash: Hash,
    nonce: String,
    first_bare: String,
}

/// An exchange whose proof is sent: what the server has to answer.
#[derive(Debug)]
pub(super) struct ScramProven {
    hash: Hash,
    server_key: Vec<u8>,
    auth_message: String,
}

impl Scram {
    /// Begins with a `nonce` of at least 18 random bytes; gives the exchange and its first message.
    pub(super) fn new(hash: Hash, username: &str, nonce: &[u8]) -> (Self, Vec<u8>) {
        let nonce = BASE64.encode(nonce);
        let username = username.replace('=', "=3D").replace(',', "=2C");
        let first_bare = format!("n={username},r={nonce}");
        let message = format!("n,,{first_bare}").into_bytes();
        let scram = Self {
            hash,
            nonce,
            first_bare,
        };
        (scram, message)
    }

    /// Answers the server's first message with the proof.
    ///
    /// # Errors
    /// What is wrong with the message.
    pub(super) fn prove(
        self,
        password: &str,
        server_first: &[u8],
    ) -> Result<(ScramProven, Vec<u8>), ScramError> {
        let text = std::str::from_utf8(server_first).map_err(|_| ScramError::Malformed("text"))?;
        let nonce = attribute(text, 'r').ok_or(ScramError::Malformed("nonce"))?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(ScramError::Nonce);
        }
        let salt = attribute(text, 's')
            .and_then(|salt| BASE64.decode(salt).ok())
            .ok_or(ScramError::Malformed("salt"))?;
        let iterations: u32 = attribute(text, 'i')
            .and_then(|number| number.parse().ok())
            .ok_or(ScramError::Malformed("iteration count"))?;
        if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations) {
            return Err(ScramError::Iterations(iterations));
        }
        // "biws" is base64 of "n,,": no channel binding.
        let final_bare = format!("c=biws,r={nonce}");
        let auth_message = format!("{},{text},{final_bare}", self.first_bare);
        let salted = self.hash.salted(password.as_bytes(), &salt, iterations);
        let client_key = self.hash.hmac(&salted, b"Client Key");
        let stored_key = self.hash.digest(&client_key);
        let signature = self.hash.hmac(&stored_key, auth_message.as_bytes());
        let proof: Vec<u8> = client_key
            .iter()
            .zip(&signature)
            .map(|(key, sign)| key ^ sign)
            .collect();
        let message = format!("{final_bare},p={}", BASE64.encode(proof)).into_bytes();
        let proven = ScramProven {
            hash: self.hash,
            server_key: self.hash.hmac(&salted, b"Server Key"),
            auth_message,
        };
        Ok((proven, message))
    }
}

impl ScramProven {
    /// Checks the server's last message: only one who knows the password (or what is stored of it) can sign so.
    ///
    /// # Errors
    /// A wrong or missing signature, or the server's refusal.
    pub(super) fn verify(&self, server_final: &[u8]) -> Result<(), ScramError> {
        let text = std::str::from_utf8(server_final).map_err(|_| ScramError::Malformed("text"))?;
        if attribute(text, 'e').is_some() {
            return Err(ScramError::Refused);
        }
        let signature = attribute(text, 'v')
            .and_then(|signature| BASE64.decode(signature).ok())
            .ok_or(ScramError::Malformed("signature"))?;
        self.hash
            .verify(&self.server_key, self.auth_message.as_bytes(), &signature)
            .then_some(())
            .ok_or(ScramError::Signature)
    }
}

/// The value of an attribute such as `r=…` in a comma-separated SCRAM message.
fn attribute(message: &str, name: char) -> Option<&str> {
    message.split(',').find_map(|part| {
        part.strip_prefix(name)
            .and_then(|rest| rest.strip_prefix('='))
    })
}

impl Hash {
    fn salted(self, password: &[u8], salt: &[u8], iterations: u32) -> Vec<u8> {
        match self {
            Self::Sha256 => {
                pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password, salt, iterations).to_vec()
            }
            Self::Sha512 => {
                pbkdf2::pbkdf2_hmac_array::<Sha512, 64>(password, salt, iterations).to_vec()
            }
        }
    }

    fn digest(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => Sha256::digest(bytes).to_vec(),
            Self::Sha512 => Sha512::digest(bytes).to_vec(),
        }
    }

    fn hmac(self, key: &[u8], message: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => keyed::<Hmac<Sha256>>(key, message)
                .finalize()
                .into_bytes()
                .to_vec(),
            Self::Sha512 => keyed::<Hmac<Sha512>>(key, message)
                .finalize()
                .into_bytes()
                .to_vec(),
        }
    }

    /// Compares in constant time.
    fn verify(self, key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Sha256 => keyed::<Hmac<Sha256>>(key, message)
                .verify_slice(signature)
                .is_ok(),
            Self::Sha512 => keyed::<Hmac<Sha512>>(key, message)
                .verify_slice(signature)
                .is_ok(),
        }
    }
}

fn keyed<M: Mac + hmac::digest::KeyInit>(key: &[u8], message: &[u8]) -> M {
    let mut mac = <M as Mac>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac
}

#[cfg(test)]
mod tests {
    use super::{Hash, Scram, ScramError, attribute, plain};
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD as BASE64;

    /// RFC 7677, section 3.
    const SERVER_FIRST: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn example() -> Scram {
        // The RFC's nonce is not base64 of anything we could pass: put it in place.
        let (mut scram, _) = Scram::new(Hash::Sha256, "user", &[]);
        scram.nonce = "rOprNGfwEbeRWgbNEkqO".to_owned();
        scram.first_bare = "n=user,r=rOprNGfwEbeRWgbNEkqO".to_owned();
        scram
    }

    #[test]
    fn proves_as_in_the_rfc() {
        let (proven, message) = example().prove("pencil", SERVER_FIRST.as_bytes()).unwrap();
        assert_eq!(
            String::from_utf8(message).unwrap(),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert_eq!(proven.verify(SERVER_FINAL.as_bytes()), Ok(()));
    }

    #[test]
    fn recognises_an_impostor() {
        let (proven, _) = example().prove("pencil", SERVER_FIRST.as_bytes()).unwrap();
        let wrong = format!("v={}", BASE64.encode([7; 32]));
        assert_eq!(proven.verify(wrong.as_bytes()), Err(ScramError::Signature));
        assert_eq!(proven.verify(b"v="), Err(ScramError::Signature));
        assert_eq!(proven.verify(b"e=invalid-proof"), Err(ScramError::Refused));
        assert_eq!(
            proven.verify(b"nonsense"),
            Err(ScramError::Malformed("signature"))
        );
    }

    #[test]
    fn refuses_a_strange_first_message() {
        let refuse = |message: &str| example().prove("pencil", message.as_bytes()).unwrap_err();
        assert_eq!(refuse("r=other,s=AAAA,i=4096"), ScramError::Nonce);
        assert_eq!(
            refuse("r=rOprNGfwEbeRWgbNEkqO,s=AAAA,i=4096"),
            ScramError::Nonce
        );
        assert_eq!(
            refuse("r=rOprNGfwEbeRWgbNEkqOx,s=!,i=4096"),
            ScramError::Malformed("salt")
        );
        assert_eq!(
            refuse("r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i=4095"),
            ScramError::Iterations(4095)
        );
        assert_eq!(
            refuse("r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i=4000000000"),
            ScramError::Iterations(4_000_000_000)
        );
        assert_eq!(
            refuse("r=rOprNGfwEbeRWgbNEkqOx,s=AAAA"),
            ScramError::Malformed("iteration count")
        );
    }

    /// A server of the test's own: what RFC 5802 has it compute from the stored key.
    #[test]
    fn sha_512_agrees_with_a_server() {
        let hash = Hash::Sha512;
        let (scram, first) = Scram::new(hash, "a=b,c", &[9; 18]);
        let first = String::from_utf8(first).unwrap();
        assert!(first.starts_with("n,,n=a=3Db=2Cc,r="), "{first}");
        let nonce = attribute(&first, 'r').unwrap().to_owned();
        let salt = [1, 2, 3, 4];
        let server_first = format!("r={nonce}srv,s={},i=4096", BASE64.encode(salt));
        let (proven, last) = scram.prove("pässword", server_first.as_bytes()).unwrap();
        let last = String::from_utf8(last).unwrap();

        let salted = hash.salted("pässword".as_bytes(), &salt, 4096);
        let stored = hash.digest(&hash.hmac(&salted, b"Client Key"));
        let without_proof = last.rsplit_once(",p=").unwrap().0;
        let auth = format!("{},{server_first},{without_proof}", &first[3..]);
        let proof = BASE64.decode(attribute(&last, 'p').unwrap()).unwrap();
        let signature = hash.hmac(&stored, auth.as_bytes());
        let key: Vec<u8> = proof.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        assert_eq!(
            hash.digest(&key),
            stored,
            "the proof reveals the client key"
        );

        let answer = hash.hmac(&hash.hmac(&salted, b"Server Key"), auth.as_bytes());
        assert_eq!(
            proven.verify(format!("v={}", BASE64.encode(answer)).as_bytes()),
            Ok(())
        );
    }

    #[test]
    fn plain_has_an_empty_authorisation_identity() {
        assert_eq!(plain("me", "secret"), b"\0me\0secret");
    }
}
