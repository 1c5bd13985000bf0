//! Who takes up how much: sockets of the whole hub, of one network and of one user, and how fast they come.
//!
//! One client must not be able to take all places, nor all connections that ask policies or begin to follow tables. Never
//! waits but for a turn. Used by `routes` (handshakes), `socket` (users, turns) and `subscription` (turns).

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use uuid::Uuid;

use super::meter::Meter;
use super::settings::RealtimeSettings;
use crate::db::{POLICY_CONNECTIONS_MAX, SUBSCRIPTION_CONNECTIONS_MAX};
use crate::jwt::Subject;
use crate::network::Network;

/// Questions to the policies that the sockets of one network may ask at the same time: half of the connections there
/// are for it.
const TURNS_OF_ONE_NETWORK: usize = POLICY_CONNECTIONS_MAX / 2;
/// Subscriptions to row changes that one user may begin at the same time: half of the connections there are for it.
const SUBSCRIPTIONS_OF_ONE: usize = SUBSCRIPTION_CONNECTIONS_MAX / 2;
/// Users whose subscriptions are remembered without need.
const LINES_MAX: usize = 1000;
/// What a socket keeps for reading that does not count, in bytes.
const READING_FREE: usize = 16 * 1024;
/// What the sockets of one network, and all together, may keep beyond that. A socket's room for reading is as large as the
/// largest message it has read, whole or not, until it ends.
const READING_OF_ONE_NETWORK: usize = 64 * 1024 * 1024;
const READING_OF_ALL: usize = 512 * 1024 * 1024;
/// Head and mask of a control frame from a client, in bytes.
const CONTROL_BYTES: usize = 6;
/// Networks remembered; those without a socket go first.
const NETWORKS_MAX: usize = 10_000;

/// All sockets.
#[derive(Debug, Default)]
pub(crate) struct Places {
    taken: Mutex<Taken>,
    /// Whose subscriptions are begun now. Never more of them than subscriptions, but for [`LINES_MAX`].
    subscribing: Mutex<HashMap<Subject, Arc<Semaphore>>>,
}

#[derive(Debug, Default)]
struct Taken {
    sockets: usize,
    handshakes: Meter,
    /// Bytes kept for reading.
    reading: usize,
    networks: HashMap<Network, Share>,
    users: HashMap<Uuid, usize>,
}

/// What one network has.
#[derive(Debug)]
struct Share {
    sockets: usize,
    /// Bytes kept for reading.
    reading: usize,
    handshakes: Meter,
    turns: Arc<Semaphore>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crowd {
    /// There are as many sockets as there may be.
    Sockets,
    /// They come too fast.
    Handshakes,
}

/// A place among the sockets; given back when dropped. Its numbers are its socket's alone.
#[derive(Debug)]
pub(crate) struct Place {
    among: Arc<Places>,
    network: Network,
    /// Bytes that have come since the last whole message.
    unfinished: AtomicUsize,
    /// Most of them there have been, as far as they count.
    reading: AtomicUsize,
    turns: Arc<Semaphore>,
}

/// A socket that counts for a user; given back when dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    among: Arc<Places>,
    user: Uuid,
}

impl Places {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more socket from `network`. This machine is no exception: whoever puts a proxy before the hub names
    /// the header that tells who calls (`client_ip_header`), or all of its callers are one network.
    pub fn take(
        self: &Arc<Places>,
        network: Network,
        allowed: &RealtimeSettings,
        now: Instant,
    ) -> Result<Place, Crowd> {
        let mut taken = self.taken();
        if taken.sockets >= allowed.sockets_max {
            return Err(Crowd::Sockets);
        }
        if taken.networks.len() >= NETWORKS_MAX && !taken.networks.contains_key(&network) {
            taken.networks.retain(|_, network| network.sockets > 0);
        }
        let entry = taken.networks.entry(network).or_insert_with(|| Share {
            sockets: 0,
            reading: 0,
            handshakes: Meter::default(),
            turns: Arc::new(Semaphore::new(TURNS_OF_ONE_NETWORK)),
        });
        if entry.sockets >= allowed.sockets_per_network_max {
            return Err(Crowd::Sockets);
        }
        // Its own limit first: what one network sends too much does not count for the others.
        let window = allowed.rate_window;
        let (own, all) = (allowed.handshakes_per_second, allowed.joins_per_second);
        if !entry.handshakes.take(1, own, window, now) {
            return Err(Crowd::Handshakes);
        }
        let turns = entry.turns.clone();
        if !taken.handshakes.take(1, all, window, now) {
            return Err(Crowd::Handshakes);
        }
        if let Some(entry) = taken.networks.get_mut(&network) {
            entry.sockets += 1;
        }
        taken.sockets += 1;
        Ok(Place {
            among: self.clone(),
            network,
            unfinished: AtomicUsize::new(0),
            reading: AtomicUsize::new(0),
            turns,
        })
    }

    /// Counts a socket for `user`, if he has not too many.
    pub fn seat(self: &Arc<Places>, user: Uuid, allowed: &RealtimeSettings) -> Option<Seat> {
        let mut taken = self.taken();
        let sockets = taken.users.entry(user).or_default();
        if *sockets >= allowed.sockets_per_user_max {
            return None;
        }
        *sockets += 1;
        Some(Seat {
            among: self.clone(),
            user,
        })
    }

    /// Waits until `subject` may begin one more subscription.
    pub async fn subscription(&self, subject: Subject) -> Option<OwnedSemaphorePermit> {
        let line = {
            let mut lines = self.subscribing.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.len() >= LINES_MAX {
                lines.retain(|_, line| Arc::strong_count(line) > 1);
            }
            let line = lines.entry(subject);
            line.or_insert_with(|| Arc::new(Semaphore::new(SUBSCRIPTIONS_OF_ONE)))
                .clone()
        };
        // Never closed: there is always one in the end.
        line.acquire_owned().await.ok()
    }

    /// Whether more than half of the places are taken: then those who do nothing with theirs have less time.
    pub fn is_crowded(&self, allowed: &RealtimeSettings) -> bool {
        self.taken().sockets.saturating_mul(2) > allowed.sockets_max
    }
}

impl Place {
    /// Counts bytes that have come, of whatever part of a message; false when what is unfinished now is too much for its
    /// network, or for all.
    pub fn came(&self, bytes: usize) -> bool {
        let unfinished = self.unfinished.load(Ordering::Relaxed).saturating_add(bytes);
        self.unfinished.store(unfinished, Ordering::Relaxed);
        let counted = self.reading.load(Ordering::Relaxed);
        let more = unfinished.saturating_sub(READING_FREE).saturating_sub(counted);
        if more == 0 {
            return true;
        }
        let mut taken = self.among.taken();
        let of_all = taken.reading.saturating_add(more);
        let Some(network) = taken.networks.get_mut(&self.network) else {
            return false;
        };
        let of_network = network.reading.saturating_add(more);
        if of_all > READING_OF_ALL || of_network > READING_OF_ONE_NETWORK {
            return false;
        }
        network.reading = of_network;
        taken.reading = of_all;
        self.reading.store(counted + more, Ordering::Relaxed);
        true
    }

    /// A message is whole. What has come of the next one already is at most one read, and forgotten.
    pub fn is_whole(&self) {
        self.unfinished.store(0, Ordering::Relaxed);
    }

    /// A control frame with so many bytes of content has come, of which nothing is kept: it may stand within a message.
    /// True when there is none that it stands in.
    pub fn is_control(&self, content: usize) -> bool {
        let unfinished = self.unfinished.load(Ordering::Relaxed);
        let left = unfinished.saturating_sub(CONTROL_BYTES + content);
        self.unfinished.store(left, Ordering::Relaxed);
        left == 0
    }

    /// Waits until a question may be asked for this socket's network.
    pub async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // Never closed: there is always one in the end.
        self.turns.clone().acquire_owned().await.ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let reading = self.reading.load(Ordering::Relaxed);
        let mut taken = self.among.taken();
        taken.sockets = taken.sockets.saturating_sub(1);
        taken.reading = taken.reading.saturating_sub(reading);
        if let Some(network) = taken.networks.get_mut(&self.network) {
            network.sockets = network.sockets.saturating_sub(1);
            network.reading = network.reading.saturating_sub(reading);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.among.taken();
        if let Some(sockets) = taken.users.get_mut(&self.user) {
            *sockets = sockets.saturating_sub(1);
            if *sockets == 0 {
                taken.users.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn settings() -> RealtimeSettings {
        RealtimeSettings {
            sockets_max: 10,
            sockets_per_network_max: 4,
            sockets_per_user_max: 2,
            handshakes_per_second: 6,
            joins_per_second: 100,
            rate_window: Duration::from_secs(1),
            ..RealtimeSettings::default()
        }
    }

    fn network(last: u8) -> Network {
        Network::V4([10, 0, 0, last])
    }

    #[test]
    fn one_network_does_not_take_all_places_and_gives_back_what_it_took() {
        let (places, allowed, now) = (Arc::new(Places::default()), settings(), Instant::now());
        let of_one: Vec<Place> = (0..4)
            .filter_map(|_| places.take(network(1), &allowed, now).ok())
            .collect();
        assert_eq!(of_one.len(), 4);
        assert_eq!(
            places.take(network(1), &allowed, now).unwrap_err(),
            Crowd::Sockets
        );
        let other = places.take(network(2), &allowed, now).unwrap();
        assert!(!places.is_crowded(&allowed));
        let third = places.take(network(3), &allowed, now).unwrap();
        assert!(places.is_crowded(&allowed));
        drop((of_one, third));
        assert!(places.take(network(1), &allowed, now).is_ok());
        drop(other);
        assert_eq!(places.taken().sockets, 0);
    }

    #[test]
    fn what_sockets_keep_for_reading_is_bounded_of_one_network_and_of_all() {
        let (places, now) = (Arc::new(Places::default()), Instant::now());
        let allowed = RealtimeSettings {
            sockets_max: 1000,
            sockets_per_network_max: 1000,
            handshakes_per_second: 1000,
            joins_per_second: 1000,
            ..settings()
        };
        let large = READING_OF_ONE_NETWORK / 4;
        let came = |n: u8| {
            let place = places.take(network(n), &allowed, now).unwrap();
            // Nothing of it is a message yet.
            let half = (READING_FREE + large) / 2;
            (place.came(half) && place.came(half)).then_some(place)
        };
        let of_one: Vec<Place> = (0..10).filter_map(|_| came(1)).collect();
        assert_eq!(of_one.len(), 4);
        let small = places.take(network(1), &allowed, now).unwrap();
        assert!(small.came(READING_FREE) && !small.came(1));
        small.is_whole();
        assert!(small.came(READING_FREE));
        let again = came(2).unwrap();
        again.is_whole();
        assert!(again.came(large), "the largest counts, once");
        assert_eq!(places.taken().reading, 5 * large);
        let of_all: Vec<Place> = (3..100).filter_map(came).collect();
        assert_eq!(of_all.len() + 5, READING_OF_ALL / large);
        drop((of_one, again, of_all));
        assert_eq!(places.taken().reading, 0);
        assert!(small.came(large));
    }

    #[test]
    fn a_ping_counts_for_nothing_and_a_message_it_stands_in_is_seen() {
        let (places, allowed, now) = (Arc::new(Places::default()), settings(), Instant::now());
        let place = places.take(network(1), &allowed, now).unwrap();
        for _ in 0..READING_FREE {
            assert!(place.came(CONTROL_BYTES + 4) && place.is_control(4));
        }
        assert!(place.came(100) && place.came(CONTROL_BYTES) && !place.is_control(0));
        place.is_whole();
        assert!(place.came(CONTROL_BYTES) && place.is_control(0));
        assert_eq!(places.taken().reading, 0);
    }

    #[test]
    fn all_places_are_taken_and_given_back() {
        let (places, now) = (Arc::new(Places::default()), Instant::now());
        let allowed = RealtimeSettings {
            sockets_max: 2,
            ..settings()
        };
        let both: Vec<Place> = (1..=2)
            .filter_map(|n| places.take(network(n), &allowed, now).ok())
            .collect();
        assert_eq!(both.len(), 2);
        assert_eq!(
            places.take(network(3), &allowed, now).unwrap_err(),
            Crowd::Sockets
        );
        drop(both);
        assert!(places.take(network(3), &allowed, now).is_ok());
    }

    #[test]
    fn a_network_that_comes_too_fast_holds_up_itself_alone() {
        let (places, allowed, now) = (Arc::new(Places::default()), settings(), Instant::now());
        let mut let_in = 0;
        for _ in 0..1000 {
            let_in += usize::from(places.take(network(1), &allowed, now).is_ok());
        }
        assert_eq!(let_in, 6, "its places were given back, its speed was not");
        assert_eq!(
            places.take(network(1), &allowed, now).unwrap_err(),
            Crowd::Handshakes
        );
        for n in 2..50 {
            assert!(places.take(network(n), &allowed, now).is_ok(), "{n}");
        }
        let later = now + Duration::from_secs(1);
        assert!(places.take(network(1), &allowed, later).is_ok());
    }

    #[test]
    fn a_flood_of_networks_is_forgotten() {
        let (places, now) = (Arc::new(Places::default()), Instant::now());
        let allowed = RealtimeSettings {
            joins_per_second: u32::MAX,
            ..settings()
        };
        let kept = places.take(network(1), &allowed, now).unwrap();
        for n in 0..u32::try_from(NETWORKS_MAX).unwrap() + 10 {
            drop(places.take(Network::V4((0xb000_0000 + n).to_be_bytes()), &allowed, now));
        }
        assert!(places.taken().networks.len() <= NETWORKS_MAX);
        assert!(places.taken().networks.contains_key(&network(1)));
        drop(kept);
    }

    #[tokio::test]
    async fn one_user_begins_few_subscriptions_at_a_time_and_keeps_nobody_else_waiting() {
        let places = Places::default();
        let user = |n: u128| Subject::User(Uuid::from_u128(n));
        let held = [
            places.subscription(user(1)).await.unwrap(),
            places.subscription(user(1)).await.unwrap(),
        ];
        {
            let mut third = std::pin::pin!(places.subscription(user(1)));
            assert!(futures_util::poll!(&mut third).is_pending());
            assert!(places.subscription(user(2)).await.is_some());
            drop(held);
            assert!(third.await.is_some());
        }
        for n in 0..2 * LINES_MAX as u128 {
            places.subscription(user(n)).await;
        }
        assert!(places.subscribing.lock().unwrap().len() <= LINES_MAX);
    }

    #[test]
    fn a_user_has_so_many_sockets_and_no_more() {
        let (places, allowed) = (Arc::new(Places::default()), settings());
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let seats: Vec<Seat> = (0..5).filter_map(|_| places.seat(one, &allowed)).collect();
        assert_eq!(seats.len(), 2);
        assert!(places.seat(other, &allowed).is_some());
        drop(seats);
        assert!(places.taken().users.is_empty());
    }
}
