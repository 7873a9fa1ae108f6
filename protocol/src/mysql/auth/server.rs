//! The server's side of authentication, for servers that know the password itself (tests and replays).

use ed25519_compact::{PublicKey, Signature};

use super::{Plugin, Request, client, rsa};

/// A server that asks one client for one password.
#[derive(Debug)]
pub struct Server {
    plugin: Plugin,
    nonce: Vec<u8>,
    password: Vec<u8>,
    secure: bool,
    cached: bool,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    First,
    Full,
    Encrypted,
    Over,
}

/// What a server does after a packet of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerStep {
    /// Send this payload and read the client's next packet.
    Send(Vec<u8>),
    /// Send this payload where there is one, then OK.
    Accept(Option<Vec<u8>>),
    /// Send an ERR packet (1045) and close.
    Deny,
}

impl Server {
    /// A server that sent `nonce` for `plugin`. `cached`: `caching_sha2_password` takes its fast path, as if this user had
    /// been here since the server's start.
    #[must_use]
    pub fn new(plugin: Plugin, nonce: &[u8], password: &[u8], secure: bool, cached: bool) -> Self {
        Self {
            plugin,
            nonce: nonce.to_vec(),
            password: password.to_vec(),
            secure,
            cached,
            state: State::First,
        }
    }

    /// Goes on after the client's `payload`. `public_key` is the PEM that clients without TLS are given, `decrypt` opens
    /// what they encrypt with it (RSAES-OAEP, SHA-1).
    pub fn answer(
        &mut self,
        payload: &[u8],
        public_key: &[u8],
        decrypt: impl Fn(&[u8]) -> Option<Vec<u8>>,
    ) -> ServerStep {
        match (self.state, self.plugin, payload) {
            (State::First, Plugin::Sha256Password, [0x01]) if !self.secure => {
                self.hand_out(public_key)
            }
            (State::First, Plugin::Sha256Password, clear) => self.decide(self.is_clear(clear)),
            (State::First, Plugin::CachingSha2Password, scramble) => self.start_caching(scramble),
            (State::First, Plugin::ClientEd25519, signature) => {
                self.decide(self.is_signed(signature))
            }
            (State::First, Plugin::MysqlNativePassword, scramble) => {
                self.decide(self.is_scramble(scramble))
            }
            (State::Full, _, [0x02]) if !self.secure => self.hand_out(public_key),
            (State::Full, _, clear) => self.decide(self.secure && self.is_clear(clear)),
            (State::Encrypted, _, block) => {
                let expected = rsa::xor_with_nonce(&self.password, &self.nonce);
                self.decide(decrypt(block).is_some_and(|plain| plain == expected))
            }
            (State::Over, ..) => ServerStep::Deny,
        }
    }

    fn start_caching(&mut self, scramble: &[u8]) -> ServerStep {
        if self.password.is_empty() {
            return self.decide(matches!(scramble, [] | [0]));
        }
        if self.cached && self.is_scramble(scramble) {
            self.state = State::Over;
            return ServerStep::Accept(Some(vec![0x01, 0x03]));
        }
        self.state = State::Full;
        ServerStep::Send(vec![0x01, 0x04])
    }

    fn hand_out(&mut self, public_key: &[u8]) -> ServerStep {
        self.state = State::Encrypted;
        let mut packet = Vec::new();
        Request::More(public_key).encode(&mut packet);
        ServerStep::Send(packet)
    }

    fn decide(&mut self, right: bool) -> ServerStep {
        self.state = State::Over;
        match right {
            true => ServerStep::Accept(None),
            false => ServerStep::Deny,
        }
    }

    fn is_clear(&self, payload: &[u8]) -> bool {
        payload.strip_suffix(&[0]).unwrap_or(payload) == self.password
    }

    fn is_scramble(&self, payload: &[u8]) -> bool {
        let expected = self.plugin.scramble(&self.password, &self.nonce);
        expected.is_ok_and(|expected| {
            payload == expected || (self.password.is_empty() && payload.is_empty())
        })
    }

    fn is_signed(&self, payload: &[u8]) -> bool {
        let verify = || {
            let key = PublicKey::from_slice(&client::public_key_ed25519(&self.password)?).ok()?;
            let signature = Signature::from_slice(payload).ok()?;
            key.verify(&self.nonce, &signature).ok()
        };
        verify().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AuthError, Client, ClientStep};
    use super::*;

    /// Lets both sides talk until the server decides; the messages of the client, and the decision.
    fn talk(plugin: Plugin, ours: &str, theirs: &str, secure: bool, cached: bool) -> (usize, bool) {
        let nonce: Vec<u8> = (1..=plugin.nonce_length() as u8).collect();
        let mut client = Client::new(plugin.name(), &nonce, ours.as_bytes(), secure).unwrap();
        let mut server = Server::new(plugin, &nonce, theirs.as_bytes(), secure, cached);
        let mut payload = client.first().unwrap();
        for sent in 1.. {
            match server.answer(&payload, b"no key", |_| None) {
                ServerStep::Accept(_) => return (sent, true),
                ServerStep::Deny => return (sent, false),
                ServerStep::Send(packet) => {
                    let request = Request::decode(&packet).unwrap().unwrap();
                    match client.answer(request, [0; 20]) {
                        Ok(ClientStep::Send(next)) => payload = next,
                        Ok(ClientStep::Wait) => unreachable!("server waits for the client"),
                        Err(AuthError::PublicKey) => return (sent, false),
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        }
        unreachable!()
    }

    #[test]
    fn both_sides_agree() {
        for plugin in Plugin::ALL {
            for secure in [true, false] {
                for password in [
                    "",
                    "s3cret",
                    "a longer password than one block of any hash has: 0123456789",
                ] {
                    let (_, accepted) = talk(plugin, password, password, secure, true);
                    let needs_key =
                        plugin == Plugin::Sha256Password && !secure && !password.is_empty();
                    assert_eq!(
                        accepted, !needs_key,
                        "{plugin:?} secure {secure} {password:?}"
                    );
                    let (_, accepted) = talk(plugin, "wrong", password, secure, true);
                    assert!(!accepted, "{plugin:?} secure {secure} {password:?}");
                }
            }
        }
    }

    #[test]
    fn full_caching_sha2_takes_one_message_more() {
        let plugin = Plugin::CachingSha2Password;
        assert_eq!(talk(plugin, "pw", "pw", true, true), (1, true));
        assert_eq!(talk(plugin, "pw", "pw", true, false), (2, true));
        assert_eq!(talk(plugin, "no", "pw", true, false), (2, false));
    }

    #[test]
    fn a_switch_starts_again_and_clear_text_is_refused() {
        let mut client = Client::new("mysql_native_password", &[1; 20], b"pw", false).unwrap();
        let nonce = [9; 32];
        let switch = |plugin| Request::Switch {
            plugin,
            nonce: &nonce,
        };
        let step = client.answer(switch(b"client_ed25519"), [0; 20]).unwrap();
        let ClientStep::Send(signature) = step else {
            panic!("no answer")
        };
        let mut server = Server::new(Plugin::ClientEd25519, &nonce, b"pw", false, false);
        assert_eq!(
            server.answer(&signature, b"", |_| None),
            ServerStep::Accept(None)
        );
        let refused = client.answer(switch(b"mysql_clear_password"), [0; 20]);
        assert_eq!(
            refused,
            Err(AuthError::Plugin("mysql_clear_password".into()))
        );
        assert_eq!(
            client.answer(Request::More(&[4]), [0; 20]),
            Err(AuthError::Unexpected)
        );
    }
}
