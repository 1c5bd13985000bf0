//! postgres_changes at the wire: what is told of inserted, updated and deleted rows, to whom, and what never.

use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::support::{Person, TestHub, on_hub};
use crate::wire::{Socket, room};

/// A published table of its own, dropped at the end of the story. It is captured from the beginning, so that no story
/// waits for another's locks.
pub struct Table {
    pub name: String,
    pub admin: Client,
}

impl Table {
    /// `columns` as in `create table`; rows belong to `owner`, who alone may read them.
    pub async fn new(hub: &TestHub, columns: &str) -> Table {
        let name = format!("t_{}", Uuid::new_v4().simple());
        let table = Table {
            name,
            admin: hub.admin().await,
        };
        table
            .run(&format!(
                "create table public.TABLE ({columns});
                 grant select on public.TABLE to authenticated;
                 create trigger hub_capture after insert or update or delete on public.TABLE
                   for each row execute function realtime.hub_capture();
                 alter publication supabase_realtime add table public.TABLE"
            ))
            .await;
        table
    }

    /// The same, with row level security by the column `owner`.
    pub async fn owned(hub: &TestHub, columns: &str) -> Table {
        let table = Table::new(hub, &format!("{columns}, owner uuid")).await;
        table
            .run(
                "alter table public.TABLE enable row level security;
                 create policy own on public.TABLE for select to authenticated using (owner = auth.uid())",
            )
            .await;
        table
    }

    pub async fn run(&self, sql: &str) {
        let sql = sql.replace("TABLE", &self.name);
        self.admin.batch_execute(&sql).await.unwrap();
    }

    pub fn binding(&self, event: &str, filter: Option<&str>) -> Value {
        let mut binding = json!({"event": event, "schema": "public", "table": self.name});
        if let Some(filter) = filter {
            binding["filter"] = json!(filter);
        }
        binding
    }

    /// A socket that follows, and the ids of its bindings.
    pub async fn followed(
        &self,
        hub: &TestHub,
        v2: bool,
        who: &Person,
        bindings: Value,
    ) -> (Socket, Vec<Value>) {
        let mut socket = Socket::open(hub, v2).await;
        let (_, name) = room();
        let config = json!({"postgres_changes": bindings});
        let response = socket.joined(&name, &who.token, config).await;
        let system = socket.until("system").await;
        assert_eq!(system.reason(), "Subscribed to PostgreSQL");
        let echo = response["postgres_changes"].as_array().unwrap();
        (socket, echo.iter().map(|entry| entry["id"].clone()).collect())
    }

    pub async fn drop(self) {
        self.run("drop table public.TABLE").await;
    }
}

async fn data(socket: &mut Socket) -> Value {
    socket.until("postgres_changes").await.payload["data"].clone()
}

#[test]
fn inserts_updates_and_deletes_are_told_with_what_the_replica_identity_has() {
    on_hub(async |hub| {
        let table = Table::new(&hub, "id int primary key, word text, n int8, bits bytea").await;
        let person = hub.person().await;
        for v2 in [false, true] {
            let bindings = json!([table.binding("*", None), table.binding("insert", None)]);
            let (mut socket, ids) = table.followed(&hub, v2, &person, bindings).await;
            table
                .run("insert into public.TABLE values (1, 'a', 9007199254740993, '\\x0aff')")
                .await;
            let told = socket.until("postgres_changes").await.payload;
            assert_eq!(told["ids"], json!(ids), "both bindings match");
            let row = json!({"id": 1, "word": "a", "n": 9_007_199_254_740_993_i64, "bits": "0aff"});
            assert_eq!(told["data"]["record"], row);
            assert_eq!(told["data"]["errors"], Value::Null);
            assert_eq!(told["data"]["type"], "INSERT");
            assert!(told["data"].get("old_record").is_none());
            let columns = json!([{"name": "id", "type": "int4"}, {"name": "word", "type": "text"},
                                 {"name": "n", "type": "int8"}, {"name": "bits", "type": "bytea"}]);
            assert_eq!(told["data"]["columns"], columns);
            table.run("update public.TABLE set word = 'b'").await;
            let told = socket.until("postgres_changes").await.payload;
            assert_eq!(told["ids"], json!([ids[0]]));
            assert_eq!(told["data"]["record"]["word"], "b");
            assert_eq!(told["data"]["old_record"], json!({"id": 1}), "the key by default");
            table
                .run("alter table public.TABLE replica identity full; update public.TABLE set word = 'c'")
                .await;
            let told = data(&mut socket).await;
            assert_eq!(
                (&told["old_record"]["word"], &told["record"]["word"]),
                (&json!("b"), &json!("c"))
            );
            table
                .run("delete from public.TABLE; alter table public.TABLE replica identity default")
                .await;
            let told = data(&mut socket).await;
            assert_eq!(
                (&told["type"], &told["old_record"]["word"]),
                (&json!("DELETE"), &json!("c"))
            );
            assert!(told.get("record").is_none());
        }
        table.drop().await;
    });
}

#[test]
fn rows_reach_only_who_may_read_them_and_of_deleted_ones_only_the_key() {
    on_hub(async |hub| {
        let table = Table::owned(&hub, "id int primary key, word text").await;
        table.run("alter table public.TABLE replica identity full").await;
        let (mine, theirs) = (hub.person().await, hub.person().await);
        let bindings = json!([table.binding("*", None)]);
        let (mut one, _) = table.followed(&hub, false, &mine, bindings.clone()).await;
        let (mut two, _) = table.followed(&hub, true, &theirs, bindings).await;
        let insert = format!("insert into public.TABLE values (1, 'mine', '{}')", mine.id);
        table.run(&insert).await;
        table
            .run(&format!(
                "insert into public.TABLE values (2, 'theirs', '{}')",
                theirs.id
            ))
            .await;
        assert_eq!(data(&mut one).await["record"]["word"], "mine");
        assert_eq!(data(&mut two).await["record"]["word"], "theirs");
        // A row that changes hands is told to its new owner only.
        table
            .run(&format!(
                "update public.TABLE set owner = '{}' where id = 1",
                theirs.id
            ))
            .await;
        assert_eq!(data(&mut two).await["record"]["word"], "mine");
        table.run("delete from public.TABLE where id = 1").await;
        for socket in [&mut one, &mut two] {
            let told = data(socket).await;
            assert_eq!(
                (&told["type"], &told["old_record"]),
                (&json!("DELETE"), &json!({"id": 1}))
            );
        }
        table.drop().await;
    });
}

#[test]
fn columns_that_a_role_may_not_read_are_not_told_and_chosen_ones_come_with_the_key() {
    on_hub(async |hub| {
        let table = Table::new(&hub, "id int primary key, word text, secret text").await;
        table
            .run("revoke select on public.TABLE from authenticated; grant select (id, word) on public.TABLE to authenticated")
            .await;
        let person = hub.person().await;
        let mut chosen = table.binding("INSERT", None);
        chosen["select"] = json!(["word"]);
        let bindings = json!([table.binding("INSERT", None), chosen]);
        let (mut socket, ids) = table.followed(&hub, true, &person, bindings).await;
        table
            .run("insert into public.TABLE values (1, 'a', 'hidden')")
            .await;
        for id in &ids {
            let told = socket.until("postgres_changes").await.payload;
            assert_eq!(told["ids"], json!([id]));
            assert_eq!(told["data"]["record"], json!({"id": 1, "word": "a"}));
            assert_eq!(told["data"]["columns"].as_array().unwrap().len(), 2);
        }
        let mut wrong = table.binding("INSERT", None);
        wrong["select"] = json!(["secret"]);
        for (binding, words) in [
            (wrong, "invalid column for select secret"),
            (
                table.binding("INSERT", Some("secret=eq.x")),
                "invalid column for filter secret",
            ),
        ] {
            let (topic, name) = room();
            socket
                .joined(&name, &person.token, json!({"postgres_changes": [binding]}))
                .await;
            // The other channel may be told again that it follows.
            let system = loop {
                let system = socket.until("system").await;
                if system.payload["channel"] == json!(topic) {
                    break system;
                }
            };
            assert_eq!(system.payload["status"], "error");
            assert!(system.reason().contains(words), "{system:?}");
        }
        table.drop().await;
    });
}

#[test]
fn what_cannot_be_told_is_said_with_an_error() {
    on_hub(async |hub| {
        let person = hub.person().await;
        let keyless = Table::new(&hub, "word text").await;
        let shut = Table::new(&hub, "id int primary key, word text").await;
        shut.run("revoke select on public.TABLE from authenticated; grant select (word) on public.TABLE to authenticated")
            .await;
        for (table, insert, words) in [
            (
                keyless,
                "insert into public.TABLE values ('a')",
                "Error 400: Bad Request, no primary key",
            ),
            (
                shut,
                "insert into public.TABLE values (1, 'a')",
                "Error 401: Unauthorized",
            ),
        ] {
            let bindings = json!([table.binding("*", None)]);
            let (mut socket, _) = table.followed(&hub, false, &person, bindings).await;
            table.run(insert).await;
            let told = data(&mut socket).await;
            assert_eq!(told["errors"], json!([words]));
            assert_eq!((&told["columns"], &told["record"]), (&json!([]), &json!({})));
            table.drop().await;
        }
        let large = Table::new(&hub, "id int primary key, word text, short text").await;
        let bindings = json!([large.binding("*", None)]);
        let (mut socket, _) = large.followed(&hub, true, &person, bindings).await;
        large
            .run("insert into public.TABLE values (1, repeat('x', 1100000), 'short')")
            .await;
        let told = data(&mut socket).await;
        assert_eq!(told["errors"], json!(["Error 413: Payload Too Large"]));
        assert_eq!(told["record"], json!({"id": 1, "short": "short"}));
        large.drop().await;
    });
}

#[test]
fn what_is_rolled_back_is_never_told_and_what_began_before_the_subscription_is() {
    on_hub(async |hub| {
        let table = Table::new(&hub, "id int primary key").await;
        let person = hub.person().await;
        // A transaction that has written and goes on while somebody subscribes.
        let writer = hub.admin().await;
        let insert = |id: u32| format!("insert into public.{} values ({id})", table.name);
        writer.batch_execute("begin").await.unwrap();
        writer.batch_execute(&insert(1)).await.unwrap();
        let mut socket = Socket::open(&hub, true).await;
        let (_, name) = room();
        let config = json!({"postgres_changes": [table.binding("*", None)]});
        socket.joined(&name, &person.token, config).await;
        table
            .run("begin; insert into public.TABLE values (2); rollback; begin; insert into public.TABLE values (3); commit")
            .await;
        writer.batch_execute(&insert(4)).await.unwrap();
        writer.batch_execute("commit").await.unwrap();
        // Until the word comes nothing is promised: whoever reads the table then sees 1, 3 and 4.
        socket.until("system").await;
        table.run("insert into public.TABLE values (5)").await;
        loop {
            let told = data(&mut socket).await;
            assert_ne!(told["record"]["id"], 2, "it was rolled back");
            if told["record"]["id"] == 5 {
                break;
            }
        }
        table.drop().await;
    });
}

#[test]
fn the_word_that_changes_are_followed_waits_for_those_who_write_already() {
    on_hub(async |hub| {
        let table = Table::new(&hub, "id int primary key").await;
        let person = hub.person().await;
        let writer = hub.admin().await;
        let insert = format!("begin; insert into public.{} values (1)", table.name);
        writer.batch_execute(&insert).await.unwrap();
        let mut socket = Socket::open(&hub, true).await;
        let (_, name) = room();
        let config = json!({"postgres_changes": [table.binding("*", None)],
                            "postgres_changes_options": {"wait": true, "timeout": 20_000}});
        let payload = json!({"config": config, "access_token": person.token});
        let join = socket.send(&name, "phx_join", payload).await;
        // Heartbeats are answered meanwhile, the join is not.
        for _ in 0..3 {
            let beat = socket.send("phoenix", "heartbeat", json!({})).await;
            assert_eq!(socket.next().await.reference, beat);
        }
        writer.batch_execute("commit").await.unwrap();
        let reply = socket.next().await;
        assert_eq!((reply.status(), &reply.reference), ("ok", &join));
        assert_eq!(socket.next().await.reason(), "Subscribed to PostgreSQL");
        table.run("insert into public.TABLE values (2)").await;
        assert_eq!(data(&mut socket).await["record"]["id"], 2);
        // What will never work is refused; what takes too long, too.
        let other = room().1;
        let config = json!({"postgres_changes": [{"event": "*", "schema": "public", "table": "nowhere"}],
                            "postgres_changes_options": {"wait": true}});
        let refused = socket.join(&other, &person.token, config).await;
        assert!(
            refused.reason().starts_with("RealtimeDisabledForConfiguration: "),
            "{refused:?}"
        );
        table.drop().await;
    });
}

#[test]
fn tables_that_are_published_later_are_followed_by_who_follows_the_schema() {
    on_hub(async |hub| {
        let person = hub.person().await;
        let first = Table::new(&hub, "id int primary key").await;
        let bindings = json!([{"event": "INSERT", "schema": "public"}]);
        let (mut socket, ids) = first.followed(&hub, true, &person, bindings).await;
        let second = Table::new(&hub, "id int primary key").await;
        // Other stories publish tables, too: whenever the word comes again, a row is tried.
        let mut number = 0;
        loop {
            let seen = socket.next().await;
            let here = seen.payload["data"]["table"] == json!(second.name);
            if seen.event == "postgres_changes" && here {
                assert_eq!(seen.payload["ids"], json!(ids));
                break;
            }
            if seen.event == "system" {
                number += 1;
                let insert = format!("insert into public.TABLE values ({number})");
                second.run(&insert).await;
            }
        }
        first.drop().await;
        second.drop().await;
    });
}
