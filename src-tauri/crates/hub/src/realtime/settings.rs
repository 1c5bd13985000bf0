//! What Realtime allows, with the defaults of a self-hosted Supabase where it has them (but for more sockets, since the
//! quotas of networks and users are ours); may be changed while the hub runs.
//!
//! Never holds a secret. Read by every module here; set through [`crate::Hub::set_realtime`].

use std::time::Duration;

/// Limits and switches of Realtime. Counts are per socket unless said otherwise: one client that sends too much must
/// not shut out the others.
#[derive(Debug, Clone, PartialEq)]
pub struct RealtimeSettings {
    /// Off: handshakes are refused with 403 and joins with `RealtimeDisabledForTenant`.
    pub enabled: bool,
    /// On: only private channels may be joined ("Allow public access" is off).
    pub private_only: bool,
    /// Sockets at a time, of the whole hub.
    pub sockets_max: usize,
    /// Of these from one address on the network (IPv6: from one /64).
    pub sockets_per_network_max: usize,
    /// Of these with a channel of one user.
    pub sockets_per_user_max: usize,
    /// Channels on one socket.
    pub channels_max: usize,
    /// Messages a second that one socket may send, and the whole hub may take by HTTP, as a mean over
    /// [`RealtimeSettings::rate_window`].
    pub messages_per_second: u32,
    /// Joins a second on one socket, and handshakes a second of the whole hub, as the same mean.
    pub joins_per_second: u32,
    /// Handshakes a second from one address on the network, as the same mean.
    pub handshakes_per_second: u32,
    /// Presence messages a second on one socket, as the same mean.
    pub presence_per_second: u32,
    /// Time over which the means are taken.
    pub rate_window: Duration,
    /// Presence calls of one channel within [`RealtimeSettings::presence_window`].
    pub presence_calls_max: u32,
    /// Window of the presence calls.
    pub presence_window: Duration,
    /// Largest payload of a broadcast, in bytes.
    pub payload_bytes_max: usize,
    /// Largest payload that may be tracked, in bytes.
    pub presence_bytes_max: usize,
    /// Silence from the client after which its socket is closed.
    pub idle_max: Duration,
    /// How long a socket may live without a channel.
    pub channelless_max: Duration,
    /// The same while more than half of all places are taken.
    pub channelless_crowded_max: Duration,
    /// How long a refused handshake or join waits for its answer, so that eager clients do not hammer.
    pub refusal_delay: Duration,
    /// A channel's token is looked at again this often, and always when it expires; so are the policies of a private
    /// channel, which are also asked whenever a membership changes.
    pub token_check: Duration,
    /// How long a join with `replication_ready` waits for the database's feed.
    pub feed_wait: Duration,
}

impl Default for RealtimeSettings {
    fn default() -> RealtimeSettings {
        RealtimeSettings {
            enabled: true,
            private_only: false,
            sockets_max: 4000,
            sockets_per_network_max: 1000,
            sockets_per_user_max: 100,
            channels_max: 100,
            messages_per_second: 100,
            joins_per_second: 100,
            handshakes_per_second: 20,
            presence_per_second: 100,
            rate_window: Duration::from_secs(60),
            presence_calls_max: 5,
            presence_window: Duration::from_secs(30),
            payload_bytes_max: 3_000_000,
            presence_bytes_max: 64 * 1024,
            idle_max: Duration::from_secs(60),
            channelless_max: Duration::from_secs(600),
            channelless_crowded_max: Duration::from_secs(30),
            refusal_delay: Duration::from_secs(2),
            token_check: Duration::from_secs(300),
            feed_wait: Duration::from_secs(60),
        }
    }
}

impl RealtimeSettings {
    /// Whether channels that are joined now could not be joined under `other`, or the other way round.
    pub(crate) fn differs_for_the_joined(&self, other: &RealtimeSettings) -> bool {
        self.enabled != other.enabled || self.private_only != other.private_only
    }
}

impl crate::Hub {
    /// Changes Realtime's limits and switches. New limits hold at once; when a switch changes, every socket is told
    /// `Server requested disconnect` and closed with 1012.
    pub fn set_realtime(&self, settings: RealtimeSettings) {
        self.shared.realtime.set_settings(settings);
    }
}
