//! The hub's port: plain on loopback, TLS for everybody else, HTTP/1.1 only, with an end for whoever dawdles.
//!
//! Never serves other machines without encryption, never waits for a handshake, a head or a reader longer than
//! [`DoorLimits`] says, and never holds more connections than they say, in all or of one network. What may pass is
//! decided in [`crate::http`]. Called by [`crate::Hub::start`].

mod paced;
mod places;
mod serve;
#[cfg(test)]
mod tests;
mod tls;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use serve::Ending;
pub(crate) use tls::Certificate;

use crate::error::HubError;

/// Where the hub listens and under which names it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Door {
    /// Certificate and key; plain HTTP without, which is served on loopback only.
    pub tls: Option<TlsFiles>,
    /// Host names under which clients know the hub, besides addresses and `localhost`.
    pub names: Vec<String>,
    /// Origins of web pages that may use the hub (`https://office.example`), besides those of this machine.
    pub origins: Vec<String>,
    /// How long and how many may stand in it.
    pub limits: DoorLimits,
}

/// What those who connect may take up. A connection that has become a WebSocket is counted by Realtime, no longer here;
/// only `step` holds for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoorLimits {
    /// Connections at once; further ones are closed.
    pub connections: usize,
    /// Of these from one network: one IPv4 address, or the /64 of an IPv6 address. Not where a proxy tells the callers'
    /// addresses: its own says nothing.
    pub of_one_network: usize,
    /// Of these from this machine, where a proxy may stand for everybody.
    pub of_this_machine: usize,
    /// Longest a TLS handshake may take.
    pub handshake: Duration,
    /// Longest the whole head of the first request may take to come.
    pub first_head: Duration,
    /// Longest the whole head of a further request may take to come after the answer before it.
    pub next_head: Duration,
    /// The same for a connection that came when half of the places, in all or of its network, were taken: who says
    /// nothing makes room.
    pub next_head_crowded: Duration,
    /// Time in which whoever is answered must take 16 KiB, or all that is left.
    pub step: Duration,
}

impl Default for DoorLimits {
    fn default() -> DoorLimits {
        DoorLimits {
            connections: 4096,
            of_one_network: 512,
            of_this_machine: 4096,
            handshake: Duration::from_secs(10),
            first_head: Duration::from_secs(30),
            next_head: Duration::from_secs(75),
            next_head_crowded: Duration::from_secs(10),
            step: Duration::from_secs(30),
        }
    }
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
    tls: Option<Certificate>,
    limits: DoorLimits,
}

impl Opened {
    /// Takes the port and reads the certificate.
    pub fn open(listen: SocketAddr, door: &Door) -> Result<Opened, HubError> {
        if door.tls.is_none() && !listen.ip().is_loopback() {
            return Err(HubError::Plain { address: listen });
        }
        let tls = door.tls.as_ref().map(Certificate::read).transpose()?;
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
            limits: door.limits.clone(),
        })
    }

    /// Takes everybody for one network, as where all come through one proxy.
    pub fn behind_a_proxy(mut self) -> Opened {
        self.limits.of_one_network = self.limits.connections;
        self
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
    pub fn certificate(&self) -> Option<Certificate> {
        self.tls.clone()
    }
}
