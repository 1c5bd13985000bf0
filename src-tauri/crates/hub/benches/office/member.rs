//! Accounts and what they call: REST as the official clients speak it, and the database beside it.

use serde_json::{Value, json};
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use crate::process::{PASSWORD, Process, email};

/// Somebody who is signed in.
#[derive(Clone)]
pub struct Member {
    http: reqwest::Client,
    url: String,
    key: String,
    pub token: String,
    pub user: Uuid,
}

impl Member {
    /// Signs an account in. `http`: one for all, since making one reads the machine's certificates.
    pub async fn sign_in(hub: &Process, http: &reqwest::Client, number: usize) -> Member {
        let answer = http
            .post(format!("{}/auth/v1/token?grant_type=password", hub.url))
            .header("apikey", &hub.key)
            .json(&json!({"email": email(number), "password": PASSWORD}))
            .send()
            .await
            .unwrap();
        let answer: Value = answer.json().await.unwrap();
        let token = answer["access_token"].as_str().expect("signed in").to_owned();
        Member {
            http: http.clone(),
            url: hub.url.clone(),
            key: hub.key.clone(),
            token,
            user: id(&answer["user"]["id"]),
        }
    }

    /// The same, at the hub's new address.
    pub fn at(mut self, hub: &Process) -> Member {
        self.url.clone_from(&hub.url);
        self
    }

    /// Calls a function.
    pub async fn call(&self, function: &str, arguments: &Value) -> Value {
        let answer = self
            .http
            .post(format!("{}/rest/v1/rpc/{function}", self.url))
            .header("apikey", &self.key)
            .header("authorization", format!("Bearer {}", self.token))
            .json(arguments)
            .send()
            .await
            .unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{function}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    pub async fn office(&self, name: &str) -> Uuid {
        id(&self.call("create_office", &json!({"p_name": name})).await["id"])
    }
}

pub fn id(value: &Value) -> Uuid {
    value.as_str().expect("an id").parse().unwrap()
}

/// A connection to the hub's database as its superuser.
pub async fn database(hub: &Process) -> Client {
    let (client, connection) = tokio_postgres::connect(&hub.database, NoTls).await.unwrap();
    tokio::task::spawn_local(connection);
    client
}
