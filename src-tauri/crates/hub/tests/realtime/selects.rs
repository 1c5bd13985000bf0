//! Choices of columns: each is written down for itself, so one user has only so many of them.

use serde_json::{Value, json};

use crate::changes::Table;
use crate::support::on_hub;
use crate::wire::{Socket, room};

/// Choices one user may have.
const MOST: usize = 100;

#[test]
fn one_user_chooses_columns_in_so_many_ways_and_an_order_is_no_other_way() {
    on_hub(async |hub| {
        let columns = ["a", "b", "c", "d", "e", "f", "g"];
        let table = Table::new(
            &hub,
            "id int primary key, a int, b int, c int, d int, e int, f int, g int",
        )
        .await;
        // A number stands for the columns of its bits.
        let chosen = |way: usize| -> Vec<&str> {
            let bits = columns.iter().enumerate();
            bits.filter(|(bit, _)| way >> bit & 1 == 1)
                .map(|(_, column)| *column)
                .collect()
        };
        let binding = |columns: &[&str]| {
            let mut binding = table.binding("*", None);
            binding["select"] = json!(columns);
            binding
        };
        let greedy = hub.person().await;
        let bindings: Vec<Value> = (1..=MOST).map(|way| binding(&chosen(way))).collect();
        let (_first, _) = table.followed(&hub, true, &greedy, json!(bindings)).await;
        // The same once more, the other way round and twice: no new choice.
        let turned: Vec<Value> = (1..=MOST)
            .map(|way| {
                let mut columns = chosen(way);
                columns.reverse();
                columns.extend(chosen(way));
                binding(&columns)
            })
            .collect();
        let (mut second, ids) = table.followed(&hub, true, &greedy, json!(turned)).await;
        let refused = async |one: Vec<&str>| {
            let mut socket = Socket::open(&hub, true).await;
            let config = json!({"postgres_changes": [binding(&one)]});
            socket.joined(&room().1, &greedy.token, config).await;
            let system = socket.until("system").await;
            assert_eq!(
                (&system.payload["status"], system.reason()),
                (
                    &json!("error"),
                    "Too many different column selections on all channels of one user. Maximum 100"
                )
            );
        };
        refused(chosen(MOST + 1)).await;
        let modest = json!([binding(&chosen(MOST + 1))]);
        let (mut other, _) = table.followed(&hub, true, &hub.person().await, modest).await;
        table
            .run("insert into public.TABLE values (1, 1, 2, 3, 4, 5, 6, 7)")
            .await;
        let told = other.until("postgres_changes").await.payload;
        assert_eq!(
            told["data"]["record"],
            json!({"id": 1, "a": 1, "c": 3, "f": 6, "g": 7})
        );
        let mut heard = Vec::new();
        while heard.len() < ids.len() {
            let told = second.until("postgres_changes").await.payload;
            assert_eq!(told["data"]["record"]["id"], 1);
            heard.extend(told["ids"].as_array().unwrap().clone());
        }
        table.drop().await;
    });
}
