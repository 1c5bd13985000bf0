//! Where a caller is on the network, as far as the hub counts: one address is as good as many for who has them all.
//!
//! Never trusts what a caller says of himself, but for the header of a proxy that the hub's owner has named. Called by
//! `door`, `auth` and `realtime`, which decide for themselves how much one network may take.

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;

use crate::http::Shared;

/// One IPv4 address, or the /64 of an IPv6 address: whoever has one address of these has them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Network {
    V4([u8; 4]),
    V6([u8; 8]),
}

impl Network {
    /// This machine, for who counts all its addresses as one.
    pub const THIS_MACHINE: Network = Network::V4([127, 0, 0, 1]);

    /// Of an address; an IPv4 one may be written as an IPv6 one.
    pub fn of(address: IpAddr) -> Network {
        match address.to_canonical() {
            IpAddr::V4(v4) => Network::V4(v4.octets()),
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, h, ..] = v6.octets();
                Network::V6([a, b, c, d, e, f, g, h])
            }
        }
    }

    /// Whether it is one of this machine's own, which no other machine can have.
    pub fn is_this_machine(self) -> bool {
        match self {
            Network::V4([first, ..]) => first == 127,
            // The /64 of `::1`; nothing else in it is ever a caller's.
            Network::V6(prefix) => prefix == [0; 8],
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            one if one.is_this_machine() => f.write_str("this machine"),
            Network::V4(v4) => Ipv4Addr::from(v4).fmt(f),
            Network::V6(prefix) => {
                let mut first = [0; 16];
                first[..prefix.len()].copy_from_slice(&prefix);
                write!(f, "{}/64", Ipv6Addr::from(first))
            }
        }
    }
}

/// The address of the caller: what a trusted proxy says, else the other end of the connection.
pub(crate) struct Caller(pub IpAddr);

impl FromRequestParts<Arc<Shared>> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Caller, Infallible> {
        let told = shared.auth.settings.client_ip_header.as_deref().and_then(|name| {
            // Of several lines and of a list, the last is what the proxy itself saw; the rest anybody can write.
            let line = parts.headers.get_all(name).iter().next_back()?.to_str().ok()?;
            let last = line.rsplit(',').next()?.trim();
            let with_port = || last.parse().map(|address: SocketAddr| address.ip());
            last.parse().or_else(|_| with_port()).ok()
        });
        let connected = || {
            parts
                .extensions
                .get::<ConnectInfo<SocketAddr>>()
                .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(peer)| peer.ip())
        };
        Ok(Caller(told.unwrap_or_else(connected)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Network {
        Network::of(text.parse().unwrap())
    }

    #[test]
    fn a_network_is_one_address_or_the_first_half_of_one() {
        assert_eq!(of("203.0.113.7"), of("::ffff:203.0.113.7"));
        assert_ne!(of("203.0.113.7"), of("203.0.113.8"));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
    }

    #[test]
    fn this_machine_is_known_by_all_its_addresses() {
        for text in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
            assert!(of(text).is_this_machine(), "{text}");
            assert_eq!(of(text).to_string(), "this machine");
        }
        for text in ["128.0.0.1", "10.0.0.1", "fe80::1", "2001:db8::1"] {
            assert!(!of(text).is_this_machine(), "{text}");
        }
        assert_eq!(of("::ffff:203.0.113.7").to_string(), "203.0.113.7");
        assert_eq!(of("2001:db8:1:2:ffff::9").to_string(), "2001:db8:1:2::/64");
    }
}
