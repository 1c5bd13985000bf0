//! Certificate and key, which may be read again while the port is open. TLS 1.3; HTTP/1.1 is all that is agreed upon.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};

use openssl::error::ErrorStack;
use openssl::ssl::{self, AlpnError, Ssl, SslAcceptor, SslFiletype, SslMethod};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

use super::TlsFiles;
use crate::error::HubError;

/// The only protocol that a client is told of.
const PROTOCOL: &[u8] = b"\x08http/1.1";

/// The certificate in use.
#[derive(Clone)]
pub(crate) struct Certificate {
    files: TlsFiles,
    current: Arc<RwLock<SslAcceptor>>,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.files.fmt(f)
    }
}

fn acceptor(files: &TlsFiles) -> Result<SslAcceptor, ErrorStack> {
    let mut builder = SslAcceptor::mozilla_modern_v5(SslMethod::tls())?;
    builder.set_certificate_chain_file(&files.certificate)?;
    builder.set_private_key_file(&files.key, SslFiletype::PEM)?;
    builder.check_private_key()?;
    builder.set_alpn_select_callback(|_, offered| {
        ssl::select_next_proto(PROTOCOL, offered).ok_or(AlpnError::NOACK)
    });
    Ok(builder.build())
}

impl Certificate {
    /// Reads certificate and key.
    pub(super) fn read(files: &TlsFiles) -> Result<Certificate, HubError> {
        let current = acceptor(files).map_err(|error| files.fault(&error))?;
        Ok(Certificate {
            files: files.clone(),
            current: Arc::new(RwLock::new(current)),
        })
    }

    /// Reads them again, as after their renewal. Connections that are open keep the old one; fails with the old one
    /// still in use.
    pub fn renew(&self) -> Result<(), HubError> {
        let newer = acceptor(&self.files).map_err(|error| self.files.fault(&error))?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = newer;
        Ok(())
    }

    /// The handshake.
    pub(super) async fn greet(&self, stream: TcpStream) -> io::Result<SslStream<TcpStream>> {
        let ssl = {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            Ssl::new(current.context())?
        };
        let mut stream = SslStream::new(ssl, stream)?;
        Pin::new(&mut stream).accept().await.map_err(io::Error::other)?;
        Ok(stream)
    }
}
