//! The client's side of authentication.

use std::fmt;

use mysql_common::auth::plugins::client_ed25519::ClientEd25519;
use mysql_common::auth::plugins::{ChallengeResponsePlugin, Context, Response};

use super::{AuthError, Plugin, Request, rsa};

/// A client that proves its password, packet by packet.
pub struct Client {
    plugin: Plugin,
    nonce: Vec<u8>,
    password: Vec<u8>,
    secure: bool,
    key_requested: bool,
}

/// What a client does after a packet of the server.
#[derive(Clone, PartialEq, Eq)]
pub enum ClientStep {
    /// Send this payload.
    Send(Vec<u8>),
    /// Read the next packet.
    Wait,
}

impl fmt::Debug for ClientStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Send(_) => "Send(…)",
            Self::Wait => "Wait",
        })
    }
}

impl Client {
    /// A client that answers `nonce` with `plugin`. `secure`: nobody can listen (TLS or a Unix socket), so that the password
    /// itself may be sent where the plugin wants it.
    ///
    /// # Errors
    /// [`AuthError::Plugin`] for a plugin that we do not speak.
    pub fn new(
        plugin: &str,
        nonce: &[u8],
        password: &[u8],
        secure: bool,
    ) -> Result<Self, AuthError> {
        Ok(Self {
            plugin: Plugin::named(plugin).ok_or_else(|| AuthError::Plugin(plugin.to_owned()))?,
            nonce: nonce.to_vec(),
            password: password.to_vec(),
            secure,
            key_requested: false,
        })
    }

    /// The plugin that it answers with at present.
    #[must_use]
    pub const fn plugin(&self) -> Plugin {
        self.plugin
    }

    /// The first answer: the authentication response of the handshake, or what follows a switch.
    ///
    /// # Errors
    /// [`AuthError::Nonce`].
    pub fn first(&mut self) -> Result<Vec<u8>, AuthError> {
        match self.plugin {
            Plugin::Sha256Password if self.password.is_empty() => Ok(vec![0]),
            Plugin::Sha256Password if self.secure => Ok(self.clear_password()),
            Plugin::Sha256Password => {
                self.key_requested = true;
                Ok(vec![0x01])
            }
            plugin => plugin.scramble(&self.password, &self.nonce),
        }
    }

    /// Goes on after the server's `request`. `seed` is fresh randomness, used when the password is encrypted.
    ///
    /// # Errors
    /// See [`AuthError`].
    pub fn answer(
        &mut self,
        request: Request<'_>,
        seed: [u8; 20],
    ) -> Result<ClientStep, AuthError> {
        match request {
            Request::Switch { plugin, nonce } => {
                let name = String::from_utf8_lossy(plugin);
                *self = Self::new(&name, nonce, &self.password, self.secure)?;
                self.first().map(ClientStep::Send)
            }
            Request::More(key) if self.key_requested => {
                self.key_requested = false;
                rsa::encrypt(key, &self.password, &self.nonce, seed).map(ClientStep::Send)
            }
            Request::More([0x03]) if self.plugin == Plugin::CachingSha2Password => {
                Ok(ClientStep::Wait)
            }
            Request::More([0x04]) if self.plugin == Plugin::CachingSha2Password => {
                if self.secure {
                    return Ok(ClientStep::Send(self.clear_password()));
                }
                self.key_requested = true;
                Ok(ClientStep::Send(vec![0x02]))
            }
            Request::More(_) => Err(AuthError::Unexpected),
        }
    }

    fn clear_password(&self) -> Vec<u8> {
        let mut clear = self.password.clone();
        clear.push(0);
        clear
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("plugin", &self.plugin)
            .field("secure", &self.secure)
            .finish_non_exhaustive()
    }
}

/// The signature of `nonce` with the key that MariaDB derives from `password`.
pub(super) fn sign_ed25519(password: &[u8], nonce: &[u8]) -> Result<Vec<u8>, AuthError> {
    match ClientEd25519::default().run(Password(password), nonce) {
        Ok(Response::Last {
            packet: Some(signature),
        }) => Ok(signature),
        _ => Err(AuthError::Nonce),
    }
}

/// The public key that MariaDB keeps for `password`.
pub(super) fn public_key_ed25519(password: &[u8]) -> Option<Vec<u8>> {
    ClientEd25519::default().password_hash(Password(password))
}

struct Password<'a>(&'a [u8]);

impl Context for Password<'_> {
    fn pass(&self) -> &[u8] {
        self.0
    }

    fn is_ipc_transport(&self) -> bool {
        false
    }

    fn is_tls_transport(&self) -> bool {
        false
    }

    fn scramble(&self) -> &[u8] {
        &[]
    }

    fn server_key_pem(&self) -> Option<&[u8]> {
        None
    }
}
