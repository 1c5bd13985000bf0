//! The hub's port: plain on loopback, TLS for everybody else, with an end for whoever dawdles.
//!
//! Never serves other machines without encryption, never waits for a head that does not come, and never holds more
//! connections than it says. What may pass is decided in [`crate::http`]. Called by [`crate::Hub::start`].

use std::future::{Ready, ready};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use axum_server::Handle;
use axum_server::accept::Accept;
use axum_server::tls_openssl::{OpenSSLAcceptor, OpenSSLConfig};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpStream;

use crate::error::HubError;

/// Most connections at once, WebSockets not counted (they have a limit of their own); further ones are closed.
const CONNECTIONS_MAX: usize = 4096;
/// Longest the head of a request may take, also between two requests of one connection.
const HEAD_MAX: Duration = Duration::from_secs(75);
/// Longest a TLS handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Where the hub listens and under which names it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Door {
    /// Certificate and key; plain HTTP without, which is served on loopback only.
    pub tls: Option<TlsFiles>,
    /// Host names under which clients know the hub, besides addresses and `localhost`.
    pub names: Vec<String>,
    /// Origins of web pages that may use the hub (`https://office.example`), besides those of this machine.
    pub origins: Vec<String>,
}

/// Two PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by its chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl TlsFiles {
    fn fault(&self, reason: &dyn std::fmt::Display) -> HubError {
        HubError::Certificate {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            reason: reason.to_string(),
        }
    }
}

/// A door that is ready to be opened.
pub(crate) struct Opened {
    listener: TcpListener,
    pub address: SocketAddr,
    tls: Option<(TlsFiles, OpenSSLConfig)>,
    pub handle: Handle<SocketAddr>,
}

impl Opened {
    /// Takes the port and reads the certificate.
    pub fn open(listen: SocketAddr, door: &Door) -> Result<Opened, HubError> {
        if door.tls.is_none() && !listen.ip().is_loopback() {
            return Err(HubError::Plain { address: listen });
        }
        let tls = match &door.tls {
            Some(files) => {
                let config = OpenSSLConfig::from_pem_chain_file(&files.certificate, &files.key)
                    .map_err(|error| files.fault(&error))?;
                Some((files.clone(), config))
            }
            None => None,
        };
        let fault = |source| HubError::Listen {
            address: listen,
            source,
        };
        let listener = TcpListener::bind(listen).map_err(fault)?;
        listener.set_nonblocking(true).map_err(fault)?;
        let address = listener.local_addr().map_err(fault)?;
        Ok(Opened {
            listener,
            address,
            tls,
            handle: Handle::new(),
        })
    }

    /// The address clients use: the first name, else the address itself.
    pub fn url(&self, door: &Door) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        match door.names.first() {
            Some(name) => format!("{scheme}://{name}:{}", self.address.port()),
            None => format!("{scheme}://{}", self.address),
        }
    }

    /// What reads the certificate again later.
    pub fn renewal(&self) -> Option<Renewal> {
        self.tls.as_ref().map(|(files, config)| Renewal {
            files: files.clone(),
            config: config.clone(),
        })
    }

    /// Serves until the handle says otherwise.
    pub async fn serve(self, router: Router) -> io::Result<()> {
        let mut builder = Builder::new(TokioExecutor::new()).http1_only();
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_MAX);
        let mut server = axum_server::from_tcp(self.listener)?.handle(self.handle.clone());
        *server.http_builder() = builder;
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let gate = Gate(self.handle);
        match self.tls {
            None => server.acceptor(gate).serve(service).await,
            Some((_, config)) => {
                let tls = OpenSSLAcceptor::new(config)
                    .handshake_timeout(HANDSHAKE_MAX)
                    .acceptor(gate);
                server.acceptor(tls).serve(service).await
            }
        }
    }
}

/// Reads certificate and key again, as after their renewal. Connections that are open keep the old one.
#[derive(Clone)]
pub(crate) struct Renewal {
    files: TlsFiles,
    config: OpenSSLConfig,
}

impl std::fmt::Debug for Renewal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.files.fmt(f)
    }
}

impl Renewal {
    /// Fails with the old certificate still in use.
    pub fn renew(&self) -> Result<(), HubError> {
        self.config
            .reload_from_pem_chain_file(&self.files.certificate, &self.files.key)
            .map_err(|error| self.files.fault(&error))
    }
}

/// Lets no more connections in than [`CONNECTIONS_MAX`]; small frames of those it lets in leave at once.
#[derive(Debug, Clone)]
struct Gate(Handle<SocketAddr>);

impl<S> Accept<TcpStream, S> for Gate {
    type Stream = TcpStream;
    type Service = S;
    type Future = Ready<io::Result<(TcpStream, S)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        if self.0.connection_count() > CONNECTIONS_MAX {
            return ready(Err(io::Error::other("too many connections")));
        }
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps its delay");
        }
        ready(Ok((stream, service)))
    }
}
