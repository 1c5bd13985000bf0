//! How many connections there are, in all and of each network.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use super::DoorLimits;
use crate::network::Network;

/// Pause between two words in the log about one network for which there was no place.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// Networks of which that is remembered; of further ones nothing is said until one of these is forgotten.
const SAID_MAX: usize = 64;

/// Of a connection. This machine is one, whatever its address: a proxy may stand for everybody there.
fn network_of(address: IpAddr) -> Network {
    let network = Network::of(address);
    match network.is_this_machine() {
        true => Network::THIS_MACHINE,
        false => network,
    }
}

/// When the log was last told of a network.
#[derive(Debug, Default)]
struct Said(HashMap<Network, Instant>);

impl Said {
    /// Whether it is to be told now.
    fn is_news(&mut self, network: Network, now: Instant) -> bool {
        if self.0.len() >= SAID_MAX || self.0.contains_key(&network) {
            self.0
                .retain(|_, said| now.saturating_duration_since(*said) < SAY_AGAIN);
        }
        let is_news = self.0.len() < SAID_MAX && !self.0.contains_key(&network);
        if is_news {
            self.0.insert(network, now);
        }
        is_news
    }
}

/// Connections.
#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Of each network that has one.
    of: HashMap<Network, usize>,
}

/// The places of one door.
#[derive(Debug)]
pub(super) struct Places {
    limits: DoorLimits,
    taken: Mutex<Taken>,
    said: Mutex<Said>,
    open: Gauge,
    refused: Counter,
}

/// One connection's, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    network: Network,
    is_crowded: bool,
    among: Arc<Places>,
}

impl Places {
    pub fn new(limits: DoorLimits, open: Gauge, refused: Counter) -> Places {
        Places {
            limits,
            taken: Mutex::default(),
            said: Mutex::default(),
            open,
            refused,
        }
    }

    /// A place for whoever comes from `address`, if there is one.
    pub fn take(self: &Arc<Places>, address: IpAddr) -> Option<Place> {
        let network = network_of(address);
        let most = match network {
            Network::THIS_MACHINE => self.limits.of_this_machine,
            _ => self.limits.of_one_network,
        };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let all = taken.all;
        let of_network = taken.of.get(&network).copied().unwrap_or_default();
        let (is_full, is_greedy) = (all >= self.limits.connections, of_network >= most);
        if is_full || is_greedy {
            drop(taken);
            self.refuse(network, is_full);
            return None;
        }
        taken.all += 1;
        taken.of.insert(network, of_network + 1);
        self.open.inc();
        Some(Place {
            network,
            is_crowded: all >= self.limits.connections / 2 || of_network >= most / 2,
            among: self.clone(),
        })
    }

    /// Those who are locked out see a closed connection only: whoever runs the hub is told why.
    fn refuse(&self, network: Network, is_full: bool) {
        self.refused.inc();
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if !said.is_news(network, Instant::now()) {
            return;
        }
        let limits = &self.limits;
        match is_full {
            true => tracing::warn!(
                %network,
                connections = limits.connections,
                "no place for a connection: all are taken; setting hub.connections_max says how many there are"
            ),
            false => tracing::warn!(
                %network,
                connections = limits.of_one_network,
                "no place for a connection: this network has as many as one may have; a team behind one router is one \
                 network: setting hub.connections_per_network_max"
            ),
        }
    }
}

impl Place {
    /// Whether half of the places were taken when this one was, in all or of its network.
    pub fn is_crowded(&self) -> bool {
        self.is_crowded
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.among.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all = taken.all.saturating_sub(1);
        if let Some(count) = taken.of.get_mut(&self.network) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                taken.of.remove(&self.network);
            }
        }
        self.among.open.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(limits: DoorLimits) -> Arc<Places> {
        Arc::new(Places::new(limits, Gauge::default(), Counter::default()))
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_network_cannot_take_the_places_of_all() {
        let places = places(DoorLimits {
            connections: 5,
            of_one_network: 2,
            of_this_machine: 5,
            ..DoorLimits::default()
        });
        let first = places.take(address("203.0.113.7")).unwrap();
        let _second = places.take(address("::ffff:203.0.113.7")).unwrap();
        assert!(places.take(address("203.0.113.7")).is_none());
        let _neighbour = places.take(address("203.0.113.8")).unwrap();
        drop(first);
        let _again = places.take(address("203.0.113.7")).unwrap();
        // One network of IPv6 has as many addresses as it likes.
        let _one = places.take(address("2001:db8:1:2::1")).unwrap();
        let _other = places.take(address("2001:db8:1:2:ffff::9")).unwrap();
        assert!(places.take(address("2001:db8:1:3::1")).is_none(), "all are taken");
        assert_eq!((places.open.get(), places.refused.get()), (5, 2));
    }

    #[test]
    fn above_half_of_the_places_it_is_crowded_for_that_network() {
        let places = places(DoorLimits {
            connections: 6,
            of_one_network: 4,
            ..DoorLimits::default()
        });
        let one = |text: &str| places.take(address(text)).unwrap();
        let team: Vec<Place> = (0..3).map(|_| one("203.0.113.7")).collect();
        let crowded: Vec<bool> = team.iter().map(Place::is_crowded).collect();
        assert_eq!(crowded, [false, false, true]);
        assert!(one("203.0.113.8").is_crowded(), "half of all are taken");
        drop(team);
        assert!(!one("203.0.113.8").is_crowded());
    }

    #[test]
    fn who_finds_no_place_is_named_once_a_minute_and_the_names_have_an_end() {
        let (mut said, now) = (Said::default(), Instant::now());
        let of = |last: u8| Network::of(IpAddr::from([203, 0, 113, last]));
        assert!(said.is_news(of(1), now));
        assert!(!said.is_news(of(1), now + SAY_AGAIN / 2));
        assert!(said.is_news(of(2), now + SAY_AGAIN / 2), "another one");
        assert!(said.is_news(of(1), now + SAY_AGAIN));
        let many = (0..=255)
            .filter(|last| said.is_news(of(*last), now + SAY_AGAIN))
            .count();
        assert_eq!((many, said.0.len()), (SAID_MAX - 2, SAID_MAX));
        assert!(
            said.is_news(of(255), now + 3 * SAY_AGAIN),
            "the others are forgotten"
        );
    }

    #[test]
    fn the_count_of_a_network_goes_with_its_last_connection() {
        let places = places(DoorLimits {
            of_one_network: 1,
            of_this_machine: 2,
            ..DoorLimits::default()
        });
        for last in 0..=255 {
            let place = places.take(IpAddr::from([198, 51, 100, last])).unwrap();
            assert!(places.take(IpAddr::from([198, 51, 100, last])).is_none());
            drop(place);
        }
        {
            let taken = places.taken.lock().unwrap();
            assert_eq!((taken.all, taken.of.len()), (0, 0));
        }
        let _one = places.take(address("127.0.0.1")).unwrap();
        let _two = places.take(address("::1")).unwrap();
        assert!(
            places.take(address("127.8.8.8")).is_none(),
            "all of this machine are one"
        );
    }
}
