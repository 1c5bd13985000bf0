//! Filters and policies that take too long: whose they are suffers for it, and nobody else. Where it matters that nothing
//! is followed anew meanwhile, on a hub of their own: any table that is published has that done everywhere.

use serde_json::{Value, json};

use crate::changes::Table;
use crate::limits::alone;
use crate::support::{Person, TestHub, on_hub, on_own_hub, waiting};
use crate::wire::{Seen, Socket, private, room, topic};

/// A pattern that needs longer than anybody's life on [`LONG`]: there is no half of an odd number.
const ENDLESS: &str = "word=match.^(a*)(a*)(a*)\\1\\2\\3$";
const LONG: &str = "repeat('a', 1999)";
const TOO_LONG: &str = "took too long to compare a filter";
const BEHIND: &str = "Too many database timeouts";
const FOLLOWED: &str = "Subscribed to PostgreSQL";

async fn followed(hub: &TestHub, who: &Person, bindings: Value) -> Socket {
    let mut socket = Socket::open(hub, true).await;
    let config = json!({"postgres_changes": bindings});
    socket.joined(&room().1, &who.token, config).await;
    assert_eq!(socket.until("system").await.reason(), FOLLOWED);
    socket
}

/// A table that is known to be published: who followed another before has followed anew.
async fn published(hub: &TestHub, owned: bool) -> Table {
    let binding = json!([{"event": "*", "schema": "public", "table": "agent_commands"}]);
    let mut other = followed(hub, &hub.person().await, binding).await;
    let columns = "id int primary key, word text";
    let table = if owned {
        Table::owned(hub, columns).await
    } else {
        Table::new(hub, columns).await
    };
    assert_eq!(other.until("system").await.reason(), FOLLOWED);
    table
}

async fn row(socket: &mut Socket) -> Value {
    socket.until("postgres_changes").await.payload["data"]["record"]["id"].clone()
}

/// Inserts the next row until this socket is told of it: where a machine is so slow that the hub is behind, it follows
/// anew and is told of the one after that.
async fn told(socket: &mut Socket, table: &Table, insert: &impl Fn(u32) -> String, last: &mut u32) -> Value {
    loop {
        *last += 1;
        table.run(&insert(*last)).await;
        let seen = socket.next().await;
        if seen.event == "postgres_changes" {
            assert_eq!(seen.payload["data"]["record"]["id"], *last);
            return seen.payload;
        }
        assert_eq!(seen.reason(), BEHIND, "{seen:?}");
        assert_eq!(socket.until("system").await.reason(), FOLLOWED);
    }
}

/// What it is told next of what it follows; until then only of rows that its other filter holds for.
async fn next_system(socket: &mut Socket) -> Seen {
    loop {
        let seen = socket.next().await;
        if seen.event != "postgres_changes" {
            assert_eq!(seen.event, "system", "{seen:?}");
            return seen;
        }
        assert_eq!(seen.payload["ids"].as_array().unwrap().len(), 1, "{seen:?}");
    }
}

/// Once, the lateness of its filters may be the machine's fault.
async fn is_late_once(socket: &mut Socket) {
    assert_eq!(next_system(socket).await.reason(), BEHIND);
    assert_eq!(next_system(socket).await.reason(), FOLLOWED);
}

#[test]
fn a_filter_that_never_ends_is_ended_and_costs_nobody_else_a_row() {
    let _alone = alone();
    on_own_hub(
        |_| {},
        async |hub| {
            let table = published(&hub, false).await;
            let (bad, good) = (hub.person().await, hub.person().await);
            let plain = json!([table.binding("*", None), table.binding("*", Some("word=like.a%"))]);
            let mut honest = followed(&hub, &good, plain).await;
            // One of its filters does not end, the other the hub compares itself.
            let bindings = json!([
                table.binding("*", Some(ENDLESS)),
                table.binding("*", Some("id=in.(1,2,3,4,5,6,7,8,9)"))
            ]);
            let mut hostile = followed(&hub, &bad, bindings).await;
            let insert = |id: u32| format!("insert into public.TABLE values ({id}, {LONG})");
            let mut last = 0;
            for round in ["once", "soon again"] {
                let told = told(&mut honest, &table, &insert, &mut last).await;
                assert_eq!(told["ids"].as_array().unwrap().len(), 2, "both of his filters");
                if round == "once" {
                    is_late_once(&mut hostile).await;
                }
            }
            let system = next_system(&mut hostile).await;
            assert!(system.reason().contains(TOO_LONG), "{system:?}");
            assert_eq!(
                (&system.payload["extension"], &system.payload["status"]),
                (&json!("postgres_changes"), &json!("error"))
            );
            // It is not even asked again, what the hub compares itself goes on.
            let (_, name) = room();
            let config = json!({"postgres_changes": [table.binding("*", Some(ENDLESS))]});
            hostile.joined(&name, &bad.token, config).await;
            let again = hostile.until("system").await;
            assert_eq!(again.payload["status"], "error");
            assert!(
                again
                    .reason()
                    .contains("A filter of yours took the database too long"),
                "{again:?}"
            );
            told(&mut honest, &table, &insert, &mut last).await;
            loop {
                let told = hostile.until("postgres_changes").await.payload;
                assert_eq!(told["ids"].as_array().unwrap().len(), 1);
                if told["data"]["record"]["id"] == last {
                    break;
                }
            }
            hostile.hears_nothing(&hub).await;
            table.drop().await;
        },
    );
}

#[test]
fn a_filter_is_never_compared_with_a_row_that_its_owner_may_not_read() {
    let _alone = alone();
    on_own_hub(
        |_| {},
        async |hub| {
            let table = published(&hub, true).await;
            let (bad, good) = (hub.person().await, hub.person().await);
            let mut honest = followed(&hub, &good, json!([table.binding("*", None)])).await;
            let mut hostile = followed(&hub, &bad, json!([table.binding("*", Some(ENDLESS))])).await;
            let insert = |id: u32, owner: uuid::Uuid| {
                format!("insert into public.TABLE values ({id}, {LONG}, '{owner}')")
            };
            let mut last = 0;
            for _ in 0..3 {
                told(&mut honest, &table, &|id| insert(id, good.id), &mut last).await;
            }
            hostile.hears_nothing(&hub).await;
            table.run(&insert(100, bad.id)).await;
            is_late_once(&mut hostile).await;
            table.run(&insert(101, bad.id)).await;
            let system = hostile.next().await;
            assert!(system.reason().contains(TOO_LONG), "{system:?}");
            table.drop().await;
        },
    );
}

/// A table whose policy waits for a lock of ours, and who holds it.
async fn shut(hub: &TestHub, key: u32) -> (Table, tokio_postgres::Client) {
    let table = Table::new(hub, "id int primary key").await;
    table
        .run(&format!(
            "create function public.wait_TABLE() returns boolean language plpgsql as $$
             begin perform pg_advisory_xact_lock_shared({key}); return true; end $$;
             alter table public.TABLE enable row level security;
             create policy slow on public.TABLE for select to authenticated using (public.wait_TABLE())"
        ))
        .await;
    let holder = hub.admin().await;
    holder
        .batch_execute(&format!("select pg_advisory_lock({key})"))
        .await
        .unwrap();
    (table, holder)
}

async fn end(table: Table) {
    table
        .run("drop policy slow on public.TABLE; drop function public.wait_TABLE()")
        .await;
    table.drop().await;
}

#[test]
fn a_doorbell_never_waits_behind_a_row_change() {
    on_hub(async |hub| {
        let (office, owner) = hub.office().await;
        let (table, holder) = shut(&hub, 4712).await;
        let mut socket = followed(&hub, &owner, json!([table.binding("*", None)])).await;
        socket.joined(&topic(office), &owner.token, private()).await;
        table.run("insert into public.TABLE values (1)").await;
        // The row is not told as long as its policy waits.
        waiting(&table.admin, 4712, 1).await;
        let command = hub.enqueue(&owner, office, "key").await;
        let bell = loop {
            let seen = socket.next().await;
            assert_ne!(seen.event, "postgres_changes", "it cannot have been told");
            assert!(!seen.event.starts_with("closed"), "{seen:?}");
            if seen.event == "broadcast" {
                break seen;
            }
        };
        assert_eq!(bell.payload["payload"]["id"], command["id"]);
        holder
            .batch_execute("select pg_advisory_unlock(4712)")
            .await
            .unwrap();
        end_of_the_wait(&mut socket, &table).await;
        end(table).await;
    });
}

/// The row comes, or, on a machine where all this took too long, the word that it is followed anew, and then the next.
async fn end_of_the_wait(socket: &mut Socket, table: &Table) {
    loop {
        let seen = socket.next().await;
        match seen.event.as_str() {
            "postgres_changes" => return,
            "system" if seen.reason() == FOLLOWED => {
                table.run("insert into public.TABLE values (2)").await;
            }
            "system" => assert_eq!(seen.reason(), BEHIND),
            other => panic!("{other}: {seen:?}"),
        }
    }
}

#[test]
fn a_policy_that_takes_too_long_is_said_and_its_table_followed_anew() {
    on_hub(async |hub| {
        let person = hub.person().await;
        let (table, holder) = shut(&hub, 4713).await;
        let other = Table::new(&hub, "id int primary key").await;
        let mut socket = followed(&hub, &person, json!([table.binding("*", None)])).await;
        let mut beside = followed(&hub, &person, json!([other.binding("*", None)])).await;
        table.run("insert into public.TABLE values (1)").await;
        other.run("insert into public.TABLE values (1)").await;
        let system = socket.next_said().await;
        assert_eq!((system.event.as_str(), system.reason()), ("system", BEHIND));
        assert_eq!(row(&mut beside).await, 1);
        holder
            .batch_execute("select pg_advisory_unlock(4713)")
            .await
            .unwrap();
        let system = socket.until("system").await;
        assert_eq!(system.reason(), FOLLOWED, "it is said when it works again");
        table.run("insert into public.TABLE values (2)").await;
        assert_eq!(row(&mut socket).await, 2);
        other.drop().await;
        end(table).await;
    });
}

#[test]
fn filters_that_fail_of_every_row_end_like_those_that_take_too_long() {
    let _alone = alone();
    on_own_hub(
        |_| {},
        async |hub| {
            let table = published(&hub, false).await;
            let (bad, good) = (hub.person().await, hub.person().await);
            let mut honest = followed(&hub, &good, json!([table.binding("*", None)])).await;
            // LIKE finds out that nothing follows the last backslash only when it comes to it.
            let bindings: Vec<Value> = (1..=100)
                .map(|count| {
                    let filter = format!("word=like.{}\\", "%".repeat(count));
                    table.binding("*", Some(&filter))
                })
                .collect();
            let mut hostile = followed(&hub, &bad, json!(bindings)).await;
            for round in 0..2 {
                let (first, last) = (64 * round + 1, 64 * round + 64);
                table
                    .run(&format!(
                        "insert into public.TABLE select n, 'word' from generate_series({first}, {last}) n"
                    ))
                    .await;
                for expected in first..=last {
                    assert_eq!(row(&mut honest).await, expected);
                }
                if round == 0 {
                    is_late_once(&mut hostile).await;
                }
            }
            let system = hostile.until("system").await;
            assert!(system.reason().contains(TOO_LONG), "{system:?}");
            table.run("insert into public.TABLE values (129, 'word')").await;
            assert_eq!(row(&mut honest).await, 129);
            hostile.hears_nothing(&hub).await;
            table.drop().await;
        },
    );
}
