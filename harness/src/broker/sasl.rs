//! The broker's side of SASL: PLAIN (RFC 4616), SCRAM-SHA-256 and SCRAM-SHA-512 (RFC 5802, 7677).
//!
//! ```text
//! client  n,,n=user,r=CLIENT                              client-first; bare from "n=" on
//! server  r=CLIENT+SERVER,s=base64 salt,i=4096            server-first
//! client  c=biws,r=CLIENT+SERVER,p=base64 proof           client-final; without ",p=…" it is signed
//! server  v=base64 signature
//! ```

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use hmac::{Hmac, Mac};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    ApiKey, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::StrBytes;
use sha2::{Digest, Sha256, Sha512};

use super::Error;
use super::connection::BEFORE_LOGIN;

const ITERATIONS: u32 = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Mechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

impl Mechanism {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Plain, "PLAIN"),
        (Self::ScramSha256, "SCRAM-SHA-256"),
        (Self::ScramSha512, "SCRAM-SHA-512"),
    ];

    fn named(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, known)| *known == name)
            .map(|(mechanism, _)| *mechanism)
    }

    fn hash(self, data: &[u8]) -> Vec<u8> {
        match self {
            Self::ScramSha512 => Sha512::digest(data).to_vec(),
            _ => Sha256::digest(data).to_vec(),
        }
    }

    fn hmac(self, key: &[u8], data: &[u8]) -> Vec<u8> {
        // HMAC takes keys of any length, so neither constructor fails.
        match self {
            Self::ScramSha512 => Hmac::<Sha512>::new_from_slice(key)
                .map(|mac| mac.chain_update(data).finalize().into_bytes().to_vec())
                .unwrap_or_default(),
            _ => Hmac::<Sha256>::new_from_slice(key)
                .map(|mac| mac.chain_update(data).finalize().into_bytes().to_vec())
                .unwrap_or_default(),
        }
    }

    fn salted(self, password: &[u8], salt: &[u8]) -> Vec<u8> {
        match self {
            Self::ScramSha512 => {
                pbkdf2::pbkdf2_hmac_array::<Sha512, 64>(password, salt, ITERATIONS).to_vec()
            }
            _ => pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password, salt, ITERATIONS).to_vec(),
        }
    }
}

#[derive(Debug, Clone)]
struct ScramKeys {
    salt: Vec<u8>,
    stored: Vec<u8>,
    server: Vec<u8>,
}

/// Who may log in.
#[derive(Debug, Default)]
pub(super) struct Credentials {
    passwords: HashMap<String, String>,
    scram: HashMap<(String, Mechanism), ScramKeys>,
    /// Told to those who have logged in.
    session_lifetime_ms: i64,
    logins: AtomicU64,
}

impl Credentials {
    /// How often somebody has logged in.
    pub(super) fn logins(&self) -> u64 {
        self.logins.load(Ordering::Relaxed)
    }

    pub(super) fn new(users: &[(String, String)], session_lifetime_ms: i64) -> Self {
        let mut credentials = Self {
            session_lifetime_ms,
            ..Self::default()
        };
        for (user, password) in users {
            for mechanism in [Mechanism::ScramSha256, Mechanism::ScramSha512] {
                let salt: [u8; 16] = rand::random();
                let salted = mechanism.salted(password.as_bytes(), &salt);
                let keys = ScramKeys {
                    salt: salt.to_vec(),
                    stored: mechanism.hash(&mechanism.hmac(&salted, b"Client Key")),
                    server: mechanism.hmac(&salted, b"Server Key"),
                };
                credentials.scram.insert((user.clone(), mechanism), keys);
            }
            credentials.passwords.insert(user.clone(), password.clone());
        }
        credentials
    }
}

#[derive(Debug)]
enum State {
    /// Nothing said yet.
    Fresh,
    Chosen(Mechanism),
    ScramChallenged {
        mechanism: Mechanism,
        keys: ScramKeys,
        client_first_bare: String,
        server_first: String,
        nonce: String,
    },
    Done,
    Refused,
}

/// The login of one connection.
#[derive(Debug)]
pub(super) struct Session {
    required: bool,
    state: State,
    /// After a handshake of version 0 tokens come without a request around them.
    raw: bool,
}

impl Session {
    pub(super) fn new(required: bool) -> Self {
        Self {
            required,
            state: State::Fresh,
            raw: false,
        }
    }

    pub(super) fn may_ask(&self, api: ApiKey) -> bool {
        !self.required || matches!(self.state, State::Done) || BEFORE_LOGIN.contains(&api)
    }

    pub(super) fn handshake(
        &mut self,
        version: i16,
        request: &SaslHandshakeRequest,
    ) -> SaslHandshakeResponse {
        let names = Mechanism::ALL
            .iter()
            .map(|(_, name)| StrBytes::from_static_str(name));
        let response = SaslHandshakeResponse::default().with_mechanisms(names.collect());
        match Mechanism::named(&request.mechanism) {
            Some(mechanism) if self.required => {
                self.state = State::Chosen(mechanism);
                self.raw = version == 0;
                response
            }
            Some(_) => response.with_error_code(ResponseError::IllegalSaslState.code()),
            None => response.with_error_code(ResponseError::UnsupportedSaslMechanism.code()),
        }
    }

    pub(super) fn authenticate(
        &mut self,
        credentials: &Credentials,
        token: &[u8],
    ) -> SaslAuthenticateResponse {
        match self.step(credentials, token) {
            Ok(answer) => SaslAuthenticateResponse::default()
                .with_auth_bytes(Bytes::from(answer))
                .with_session_lifetime_ms(credentials.session_lifetime_ms),
            Err(why) => {
                self.state = State::Refused;
                SaslAuthenticateResponse::default()
                    .with_error_code(ResponseError::SaslAuthenticationFailed.code())
                    .with_error_message(Some(StrBytes::from_static_str(why)))
            }
        }
    }

    /// The framed answer to a bare token; `None` where the frame is a request.
    pub(super) fn raw(
        &mut self,
        credentials: &Credentials,
        token: &[u8],
    ) -> Result<Option<Bytes>, Error> {
        if !self.raw || matches!(self.state, State::Done) {
            return Ok(None);
        }
        let answer = self
            .step(credentials, token)
            .map_err(|why| Error::Protocol(format!("a login that failed: {why}")))?;
        let mut framed = BytesMut::with_capacity(4 + answer.len());
        framed.put_i32(answer.len() as i32);
        framed.put_slice(&answer);
        Ok(Some(framed.freeze()))
    }

    fn step(&mut self, credentials: &Credentials, token: &[u8]) -> Result<Vec<u8>, &'static str> {
        match std::mem::replace(&mut self.state, State::Refused) {
            State::Chosen(Mechanism::Plain) => {
                plain(credentials, token)?;
                self.state = State::Done;
                credentials.logins.fetch_add(1, Ordering::Relaxed);
                Ok(Vec::new())
            }
            State::Chosen(mechanism) => {
                let (state, answer) = scram_first(credentials, mechanism, token)?;
                self.state = state;
                Ok(answer)
            }
            State::ScramChallenged {
                mechanism,
                keys,
                client_first_bare,
                server_first,
                nonce,
            } => {
                let answer = scram_final(
                    mechanism,
                    &keys,
                    &client_first_bare,
                    &server_first,
                    &nonce,
                    token,
                )?;
                self.state = State::Done;
                credentials.logins.fetch_add(1, Ordering::Relaxed);
                Ok(answer)
            }
            State::Fresh | State::Refused | State::Done => Err("no handshake came first"),
        }
    }
}

/// authorization id · 00 · user · 00 · password
fn plain(credentials: &Credentials, token: &[u8]) -> Result<(), &'static str> {
    let mut parts = token.split(|byte| *byte == 0).skip(1);
    let (user, password) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let known = std::str::from_utf8(user)
        .ok()
        .and_then(|user| credentials.passwords.get(user));
    match known {
        Some(known) if known.as_bytes() == password => Ok(()),
        _ => Err("Authentication failed: Invalid username or password"),
    }
}

const MALFORMED: &str = "malformed SCRAM message";
const INVALID: &str = "Authentication failed during authentication due to invalid credentials with SASL mechanism SCRAM";

fn scram_first(
    credentials: &Credentials,
    mechanism: Mechanism,
    token: &[u8],
) -> Result<(State, Vec<u8>), &'static str> {
    let message = std::str::from_utf8(token).map_err(|_| MALFORMED)?;
    let bare = message
        .strip_prefix("n,")
        .and_then(|m| m.split_once(','))
        .ok_or(MALFORMED)?
        .1;
    let user = attribute(bare, 'n')
        .ok_or(MALFORMED)?
        .replace("=2C", ",")
        .replace("=3D", "=");
    let client_nonce = attribute(bare, 'r').ok_or(MALFORMED)?;
    let keys = credentials
        .scram
        .get(&(user, mechanism))
        .ok_or(INVALID)?
        .clone();
    let server_nonce: [u8; 18] = rand::random();
    let nonce = format!("{client_nonce}{}", STANDARD.encode(server_nonce));
    let server_first = format!("r={nonce},s={},i={ITERATIONS}", STANDARD.encode(&keys.salt));
    let answer = server_first.clone().into_bytes();
    let client_first_bare = bare.to_owned();
    Ok((
        State::ScramChallenged {
            mechanism,
            keys,
            client_first_bare,
            server_first,
            nonce,
        },
        answer,
    ))
}

fn scram_final(
    mechanism: Mechanism,
    keys: &ScramKeys,
    client_first_bare: &str,
    server_first: &str,
    nonce: &str,
    token: &[u8],
) -> Result<Vec<u8>, &'static str> {
    let message = std::str::from_utf8(token).map_err(|_| MALFORMED)?;
    let (unsigned, proof) = message.rsplit_once(",p=").ok_or(MALFORMED)?;
    // librdkafka before 2.4 sends its own nonce twice; the Java broker, too, only looks at the end.
    let nonce_is_ours = attribute(unsigned, 'r').is_some_and(|sent| sent.ends_with(nonce));
    if !nonce_is_ours || attribute(unsigned, 'c') != Some("biws") {
        return Err(MALFORMED);
    }
    let proof = STANDARD.decode(proof).map_err(|_| MALFORMED)?;
    let signed = format!("{client_first_bare},{server_first},{unsigned}");
    let signature = mechanism.hmac(&keys.stored, signed.as_bytes());
    if proof.len() != signature.len() {
        return Err(MALFORMED);
    }
    let client_key: Vec<u8> = proof.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
    if mechanism.hash(&client_key) != keys.stored {
        return Err(INVALID);
    }
    let server_signature = mechanism.hmac(&keys.server, signed.as_bytes());
    Ok(format!("v={}", STANDARD.encode(server_signature)).into_bytes())
}

fn attribute(message: &str, name: char) -> Option<&str> {
    message
        .split(',')
        .find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exchange of RFC 7677, section 3, from the server's side.
    #[test]
    fn the_exchange_of_the_specification() {
        let mechanism = Mechanism::ScramSha256;
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let salted = mechanism.salted(b"pencil", &salt);
        let keys = ScramKeys {
            stored: mechanism.hash(&mechanism.hmac(&salted, b"Client Key")),
            server: mechanism.hmac(&salted, b"Server Key"),
            salt,
        };
        let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let server_first = format!("r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
        let client_final =
            format!("c=biws,r={nonce},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        let answer = scram_final(
            mechanism,
            &keys,
            "n=user,r=rOprNGfwEbeRWgbNEkqO",
            &server_first,
            nonce,
            client_final.as_bytes(),
        );
        assert_eq!(
            answer.unwrap(),
            b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        );
    }
}
