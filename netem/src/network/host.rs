//! A host: a network namespace, or with the proxy this machine.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command};
use std::sync::Arc;

use crate::namespace::Namespace;

/// A host; cheap to clone. Its namespace is removed with the last of them.
#[derive(Debug, Clone)]
pub struct Host {
    pub(super) inner: Arc<HostInner>,
}

#[derive(Debug)]
pub(super) struct HostInner {
    pub(super) name: String,
    pub(super) address: Ipv4Addr,
    /// None with the proxy: all hosts are this machine's loopback.
    pub(super) namespace: Option<Namespace>,
}

impl Host {
    /// Its name in the plan.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Where it is reached by the others; loopback with the proxy.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.inner.address
    }

    /// The name of its network namespace (`ip netns exec NAME …`), if it has one.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.inner.namespace.as_ref().map(Namespace::name)
    }

    /// Calls `what` as on this host: sockets that it opens stay there.
    ///
    /// # Errors
    /// The thread for it cannot be started or moved.
    pub fn within<T: Send>(&self, what: impl FnOnce() -> T + Send) -> io::Result<T> {
        match &self.inner.namespace {
            None => Ok(what()),
            Some(namespace) => namespace.within(what),
        }
    }

    /// Starts a process on this host, a child of this one as any other.
    ///
    /// # Errors
    /// As [`Command::spawn`].
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        self.within(|| command.spawn())?
    }

    /// Listens on this host.
    ///
    /// # Errors
    /// As [`TcpListener::bind`].
    pub fn listen(&self, address: SocketAddr) -> io::Result<TcpListener> {
        self.within(|| TcpListener::bind(address))?
    }

    /// Connects from this host.
    ///
    /// # Errors
    /// As [`TcpStream::connect`].
    pub fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        self.within(|| TcpStream::connect(address))?
    }
}
