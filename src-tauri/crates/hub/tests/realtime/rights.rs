//! Rights that change while a channel is open: at once where memberships change, at the next look otherwise.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::limits::{alone, set};
use crate::support::{Person, TestHub, on_hub, on_own_hub, waiting};
use crate::wire::{Seen, Socket, policies, private, room, topic};

async fn joined(hub: &TestHub, office: Uuid, who: &Person, v2: bool) -> Socket {
    let mut socket = Socket::open(hub, v2).await;
    socket.joined(&topic(office), &who.token, private()).await;
    socket
}

/// The words of a channel that has lost its rights, and nothing before them.
async fn is_shown_the_door(socket: &mut Socket, office: Uuid) {
    let system = socket.next().await;
    let expected = json!({"extension": "system", "status": "error", "channel": format!("office:{office}:commands"),
        "message": format!("You no longer have permission to read from this Channel topic: office:{office}:commands")});
    assert_eq!((system.event.as_str(), &system.payload), ("system", &expected));
    assert_eq!(socket.next().await.event, "phx_close");
}

fn ids(heard: &[Seen]) -> Vec<Value> {
    heard
        .iter()
        .map(|one| one.payload["payload"]["id"].clone())
        .collect()
}

#[test]
fn a_dismissed_member_loses_the_channel_at_once_and_hears_no_bell_that_rings_after_it() {
    on_hub(async |hub| {
        let admin = hub.admin().await;
        for sql in [
            "update public.office_members set revoked_at = now() where office_id = $1 and user_id = $2",
            "delete from public.office_members where office_id = $1 and user_id = $2",
        ] {
            let (office, owner) = hub.office().await;
            let member = hub.member(office, "operator").await;
            let mut dismissed = [
                joined(&hub, office, &member, false).await,
                joined(&hub, office, &member, true).await,
            ];
            let mut listener = joined(&hub, office, &owner, true).await;
            let before = hub.enqueue(&owner, office, "before").await;
            for socket in &mut dismissed {
                assert_eq!(socket.next().await.payload["payload"]["id"], before["id"]);
            }
            admin.execute(sql, &[&office, &member.id]).await.unwrap();
            let after = hub.enqueue(&owner, office, "after").await;
            let heard = [
                listener.until("broadcast").await,
                listener.until("broadcast").await,
            ];
            assert_eq!(ids(&heard), [before["id"].clone(), after["id"].clone()]);
            for socket in &mut dismissed {
                is_shown_the_door(socket, office).await;
                let again = socket.join(&topic(office), &member.token, private()).await;
                assert!(again.reason().starts_with("Unauthorized"), "{again:?}");
                socket.hears_nothing(&hub).await;
            }
        }
    });
}

#[test]
fn a_deleted_account_loses_its_channels_at_once() {
    on_hub(async |hub| {
        let (office, _) = hub.office().await;
        let member = hub.member(office, "viewer").await;
        let mut socket = joined(&hub, office, &member, true).await;
        let admin = hub.admin().await;
        admin
            .execute("delete from auth.users where id = $1", &[&member.id])
            .await
            .unwrap();
        is_shown_the_door(&mut socket, office).await;
    });
}

#[test]
fn who_stays_a_member_misses_nothing_while_the_policies_are_asked_again() {
    on_hub(async |hub| {
        let (office, owner) = hub.office().await;
        let (elsewhere, _) = hub.office().await;
        let member = hub.member(office, "viewer").await;
        let mut sockets = [
            joined(&hub, office, &member, false).await,
            joined(&hub, office, &member, true).await,
        ];
        let admin = hub.admin().await;
        let mut rung = Vec::new();
        for round in 0..10 {
            let role = if round % 2 == 0 { "operator" } else { "viewer" };
            let sql = "update public.office_members set role = $3 where office_id = $1 and user_id = $2";
            admin.execute(sql, &[&office, &member.id, &role]).await.unwrap();
            if round == 5 {
                let sql =
                    "insert into public.office_members (office_id, user_id, role) values ($1, $2, 'viewer')";
                admin.execute(sql, &[&elsewhere, &member.id]).await.unwrap();
            }
            rung.push(hub.enqueue(&owner, office, &format!("bell {round}")).await["id"].clone());
        }
        for socket in &mut sockets {
            let mut heard = Vec::new();
            for _ in &rung {
                heard.push(socket.until("broadcast").await);
            }
            assert_eq!(ids(&heard), rung, "all of them, in their order");
        }
    });
}

/// A private room whose policy decides, and then waits for a lock of ours before it says so.
pub struct Waiting {
    pub admin: Client,
    pub holder: Client,
    /// Of the lock; each story has its own.
    key: i32,
    pub word: String,
    pub name: String,
    table: String,
}

impl Waiting {
    pub async fn new(hub: &TestHub, key: i32) -> Waiting {
        let admin = hub.admin().await;
        let (word, name) = room();
        let table = format!("may_{}", Uuid::new_v4().simple());
        admin
            .batch_execute(&format!(
                "create table public.{table} (yes boolean); insert into public.{table} values (true);
                 create function public.f_{table}() returns boolean language plpgsql security definer as $$
                 declare answer boolean; begin
                   select yes into answer from public.{table};
                   perform pg_advisory_xact_lock_shared({key});
                   return answer;
                 end $$;
                 create policy \"{word}\" on realtime.messages for select to authenticated
                   using (realtime.topic() = '{word}' and public.f_{table}())"
            ))
            .await
            .unwrap();
        Waiting {
            admin,
            holder: hub.admin().await,
            key,
            word,
            name,
            table,
        }
    }

    /// From now on it decides otherwise; the hub is told by a membership.
    pub async fn decides(&self, yes: bool, office: Uuid, who: &Person) {
        let member = if yes {
            format!("delete from public.office_members where user_id = '{}'", who.id)
        } else {
            format!(
                "insert into public.office_members (office_id, user_id, role) values ('{office}', '{}', 'viewer')",
                who.id
            )
        };
        let sql = format!("update public.{} set yes = {yes}; {member}", self.table);
        self.admin.batch_execute(&sql).await.unwrap();
    }

    pub async fn lock(&self, how: &str) {
        let sql = format!("select {how}({})", self.key);
        self.holder.batch_execute(&sql).await.unwrap();
    }

    /// Until somebody has been decided about and waits.
    pub async fn is_waited_for(&self) {
        waiting(&self.admin, self.key, 1).await;
    }

    pub async fn end(self) {
        let (word, table) = (&self.word, &self.table);
        self.admin
            .batch_execute(&format!(
                "drop policy \"{word}\" on realtime.messages; drop function public.f_{table}(); drop table public.{table}"
            ))
            .await
            .unwrap();
    }
}

#[test]
fn who_is_dismissed_while_he_joins_does_not_stay() {
    on_hub(async |hub| {
        let (office, _) = hub.office().await;
        let person = hub.person().await;
        let waiting = Waiting::new(&hub, 4711).await;
        loop {
            let (mut socket, mut marker) = (Socket::open(&hub, true).await, Socket::open(&hub, true).await);
            waiting.lock("pg_advisory_lock").await;
            let join = json!({"config": {"private": true}, "access_token": person.token});
            socket.send(&waiting.name, "phx_join", join).await;
            let dismissed = async {
                waiting.is_waited_for().await;
                waiting.decides(false, office, &person).await;
                // The hub has heard of it: rights and messages are told in order.
                marker.hears_nothing(&hub).await;
            };
            let early = tokio::select! {
                () = dismissed => None,
                reply = socket.next() => Some(reply),
            };
            waiting.lock("pg_advisory_unlock").await;
            let reply = match early {
                None => socket.next().await,
                Some(reply) => reply,
            };
            // On a machine where all this took longer than a policy may think, once more.
            if reply.reason().starts_with("QueryCanceled") {
                waiting.decides(true, office, &person).await;
                continue;
            }
            assert_eq!(reply.status(), "ok", "{reply:?}");
            let system = socket.next().await;
            let words = "You no longer have permission";
            assert!(system.reason().starts_with(words), "{system:?}");
            assert_eq!(socket.next().await.event, "phx_close");
            break;
        }
        waiting.end().await;
    });
}

#[test]
fn what_a_member_may_say_is_asked_again_when_his_role_changes() {
    on_hub(async |hub| {
        let admin = hub.admin().await;
        let (office, _) = hub.office().await;
        let member = hub.member(office, "operator").await;
        let (word, name) = room();
        policies(&admin, &word, &[("broadcast", "select", None)]).await;
        admin
            .batch_execute(&format!(
                "create policy \"w-{word}\" on realtime.messages for insert to authenticated
                 with check (realtime.topic() = '{word}' and private.has_office_role('{office}', array['operator']))"
            ))
            .await
            .unwrap();
        let config = json!({"private": true, "broadcast": {"ack": true, "self": true}});
        let mut socket = Socket::open(&hub, true).await;
        socket.joined(&name, &member.token, config).await;
        let push = || json!({"type": "broadcast", "event": "hi", "payload": {}});
        let said = socket.send(&name, "broadcast", push()).await;
        assert_eq!(socket.until("phx_reply").await.reference, said);
        admin
            .execute(
                "update public.office_members set role = 'viewer' where user_id = $1",
                &[&member.id],
            )
            .await
            .unwrap();
        Socket::open(&hub, true).await.hears_nothing(&hub).await;
        socket.send(&name, "broadcast", push()).await;
        // The next reply is that of something else: the broadcast got none.
        let left = socket.send(&name, "phx_leave", json!({})).await;
        assert_eq!(socket.until("phx_reply").await.reference, left);
        admin
            .batch_execute(&format!("drop policy \"w-{word}\" on realtime.messages"))
            .await
            .unwrap();
    });
}

#[test]
fn policies_that_change_without_a_membership_are_asked_at_the_next_look() {
    let _alone = alone();
    on_own_hub(
        |_| {},
        async |hub| {
            set(&hub, |settings| settings.token_check = Duration::from_millis(200));
            let admin = hub.admin().await;
            let person = hub.person().await;
            let (word, name) = room();
            let rule = format!("realtime.topic() = '{word}'");
            admin
                .batch_execute(&format!(
                    "create policy p on realtime.messages for select to authenticated using ({rule})"
                ))
                .await
                .unwrap();
            let mut socket = Socket::open_as(&hub, true, &hub.publishable).await;
            socket
                .joined(&name, &person.token, json!({"private": true}))
                .await;
            admin
                .batch_execute("drop policy p on realtime.messages")
                .await
                .unwrap();
            let system = socket.next().await;
            assert_eq!(
                system.reason(),
                format!("You no longer have permission to read from this Channel topic: {word}")
            );
            assert_eq!(socket.next().await.event, "phx_close");
        },
    );
}
