//! Rights that change while a channel is on its way to another user.

use serde_json::json;

use crate::rights::Waiting;
use crate::support::{on_hub, waits};
use crate::wire::{Socket, private};

const LOCK: i32 = 4714;

#[test]
fn who_is_dismissed_while_his_token_is_judged_does_not_stay() {
    on_hub(async |hub| {
        let admin = hub.admin().await;
        let (office, _) = hub.office().await;
        let (former, dismissed) = (hub.person().await, hub.person().await);
        let waiting = Waiting::new(&hub, LOCK).await;
        let mut socket = loop {
            let (mut socket, mut marker) = (Socket::open(&hub, true).await, Socket::open(&hub, true).await);
            socket.joined(&waiting.name, &former.token, private()).await;
            waiting.lock("pg_advisory_lock").await;
            let token = json!({"access_token": dismissed.token});
            socket.send(&waiting.name, "access_token", token).await;
            waiting.is_waited_for().await;
            waiting.decides(false, office, &dismissed).await;
            // The hub has heard of it: rights and messages are told in order.
            marker.hears_nothing(&hub).await;
            let is_judged = waits(&admin, LOCK).await == 1;
            waiting.lock("pg_advisory_unlock").await;
            if is_judged {
                break socket;
            }
            // On a machine where all this took longer than a policy may think, once more.
            waiting.decides(true, office, &dismissed).await;
        };
        // Should it have taken longer only now, the channel is its former user's still, who is dismissed as well.
        let asked = socket.send("phoenix", "heartbeat", json!({})).await;
        let mut seen = socket.next().await;
        if seen.reference == asked {
            waiting.decides(false, office, &former).await;
            seen = socket.next().await;
        }
        let words = "You no longer have permission";
        assert!(seen.reason().starts_with(words), "{seen:?}");
        loop {
            let seen = socket.next().await;
            match seen.event.as_str() {
                "phx_close" => break,
                _ => assert_eq!(seen.reference, asked, "{seen:?}"),
            }
        }
        waiting.end().await;
    });
}
