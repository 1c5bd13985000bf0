//! A hub for tests: one is shared by all tests that run at the same time and ends with the last of them.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use hub::{Hub, HubConfig};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

/// How long a test waits for something that must come.
pub const DEADLINE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct SystemClock;

impl domain::Clock for SystemClock {
    fn now(&self) -> domain::Timestamp {
        let nanos = time::OffsetDateTime::now_utc().unix_timestamp_nanos();
        domain::Timestamp(i64::try_from(nanos / 1_000_000).unwrap())
    }
}

pub fn config(data_dir: PathBuf) -> HubConfig {
    HubConfig::new(data_dir, "127.0.0.1:0".parse().unwrap(), Arc::new(SystemClock))
}

pub struct TestHub {
    runtime: Runtime,
    hub: Option<Hub>,
    /// One for all: making a client reads the machine's certificates, which takes long.
    pub http: reqwest::Client,
    pub url: String,
    pub publishable: String,
    pub secret: String,
    pub jwt_secret: String,
    pub database_url: String,
    /// What it was started with.
    pub config: HubConfig,
    folder: tempfile::TempDir,
}

static CURRENT: Mutex<Weak<TestHub>> = Mutex::new(Weak::new());
static OPEN: Mutex<Weak<TestHub>> = Mutex::new(Weak::new());

impl TestHub {
    fn shared(among: &Mutex<Weak<TestHub>>, change: impl FnOnce(&mut HubConfig)) -> Arc<TestHub> {
        let mut current = among.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(hub) = current.upgrade() {
            return hub;
        }
        let hub = Arc::new(TestHub::start(change));
        *current = Arc::downgrade(&hub);
        hub
    }

    fn start(change: impl FnOnce(&mut HubConfig)) -> TestHub {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path().join("hub"));
        change(&mut config);
        let hub = runtime.block_on(Hub::start(config.clone())).unwrap();
        let file = std::fs::read_to_string(config.data_dir.join(hub::KEY_FILE)).unwrap();
        let file: Value = serde_json::from_str(&file).unwrap();
        TestHub {
            url: hub.url().to_owned(),
            publishable: hub.keys().publishable.clone(),
            secret: hub.keys().secret.clone(),
            jwt_secret: file["jwt_secret"].as_str().unwrap().to_owned(),
            database_url: hub.database_url(),
            hub: Some(hub),
            http: reqwest::Client::new(),
            runtime,
            config,
            folder,
        }
    }

    pub fn hub(&self) -> &Hub {
        self.hub.as_ref().unwrap()
    }
}

impl Drop for TestHub {
    fn drop(&mut self) {
        if let Some(hub) = self.hub.take() {
            self.runtime.block_on(hub.stop()).unwrap();
        }
    }
}

/// All tests ask from one address on the network.
const NO_LIMITS: hub::AuthLimits = hub::AuthLimits {
    sign_ins: u32::MAX,
    refreshes: u32::MAX,
    sign_ups: u32::MAX,
};

/// Runs a test against the shared hub.
pub fn on_hub<F: Future<Output = ()>>(test: impl FnOnce(Arc<TestHub>) -> F) {
    let hub = TestHub::shared(&CURRENT, |config| config.auth.limits = NO_LIMITS);
    hub.runtime.block_on(test(hub.clone()));
}

/// Runs a test against a shared hub where everybody may sign up, also anonymously.
pub fn on_open_hub<F: Future<Output = ()>>(test: impl FnOnce(Arc<TestHub>) -> F) {
    let hub = TestHub::shared(&OPEN, |config| {
        config.auth.sign_up = true;
        config.auth.anonymous = true;
        config.auth.limits = NO_LIMITS;
    });
    hub.runtime.block_on(test(hub.clone()));
}

/// Runs a test against a hub of its own.
pub fn on_own_hub<F: Future<Output = ()>>(
    change: impl FnOnce(&mut HubConfig),
    test: impl FnOnce(Arc<TestHub>) -> F,
) {
    let hub = Arc::new(TestHub::start(change));
    hub.runtime.block_on(test(hub.clone()));
}

/// Somebody who asks: a token, or only the publishable key.
#[derive(Clone, Debug)]
pub struct Person {
    pub id: Uuid,
    pub token: String,
}

impl TestHub {
    /// A connection as superuser.
    pub async fn admin(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.database_url, NoTls).await.unwrap();
        self.runtime.handle().spawn(connection);
        client
    }

    pub fn token(&self, claims: Value) -> String {
        let key = jsonwebtoken::EncodingKey::from_secret(self.jwt_secret.as_bytes());
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
    }

    /// Seconds since 1970.
    pub fn now_s(&self) -> i64 {
        domain::Clock::now(&SystemClock).0 / 1000
    }

    /// A user without a password, with a token.
    pub async fn person(&self) -> Person {
        let id = Uuid::new_v4();
        let email = format!("{id}@example.com");
        self.admin()
            .await
            .execute(
                "insert into auth.users (id, email) values ($1, $2)",
                &[&id, &email],
            )
            .await
            .unwrap();
        Person {
            id,
            token: self.user_token(id, 3600),
        }
    }

    pub fn user_token(&self, id: Uuid, life_s: i64) -> String {
        self.token(json!({"sub": id, "role": "authenticated", "aud": "authenticated",
                          "exp": self.now_s() + life_s, "iat": self.now_s() - 1}))
    }

    pub fn anon(&self) -> Person {
        Person {
            id: Uuid::nil(),
            token: self.publishable.clone(),
        }
    }

    /// A new office owned by a new person.
    pub async fn office(&self) -> (Uuid, Person) {
        let owner = self.person().await;
        let made = self
            .ok(&owner, "create_office", json!({"p_name": "Office"}))
            .await;
        (id(&made["id"]), owner)
    }

    /// A new member of an office.
    pub async fn member(&self, office: Uuid, role: &str) -> Person {
        let person = self.person().await;
        self.admin()
            .await
            .execute(
                "insert into public.office_members (office_id, user_id, role) values ($1, $2, $3)",
                &[&office, &person.id, &role],
            )
            .await
            .unwrap();
        person
    }

    /// A registered client of `who`.
    pub async fn client(&self, who: &Person, office: Uuid) -> Uuid {
        let client = Uuid::new_v4();
        let args = json!({"p_office": office, "p_client": client, "p_name": "ws", "p_platform": "linux", "p_version": "1"});
        self.ok(who, "register_client", args).await;
        client
    }

    pub async fn enqueue(&self, who: &Person, office: Uuid, key: &str) -> Value {
        let args =
            json!({"p_office": office, "p_kind": "send_prompt", "p_args": {"prompt": "hi"}, "p_key": key});
        self.ok(who, "enqueue_command", args).await
    }

    pub async fn claim(&self, who: &Person, office: Uuid, client: Uuid, limit: u32) -> Vec<Value> {
        let args = json!({"p_office": office, "p_client": client, "p_limit": limit});
        self.ok(who, "claim_commands", args)
            .await
            .as_array()
            .unwrap()
            .clone()
    }

    pub fn request(&self, who: &Person, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.url))
            .header("apikey", &self.publishable)
            .header("authorization", format!("Bearer {}", who.token))
    }

    pub async fn get(&self, who: &Person, path: &str) -> (u16, Value) {
        answer(self.request(who, reqwest::Method::GET, &format!("/rest/v1/{path}"))).await
    }

    pub async fn rpc(&self, who: &Person, function: &str, args: Value) -> (u16, Value) {
        answer(
            self.request(who, reqwest::Method::POST, &format!("/rest/v1/rpc/{function}"))
                .json(&args),
        )
        .await
    }

    pub async fn ok(&self, who: &Person, function: &str, args: Value) -> Value {
        let (status, body) = self.rpc(who, function, args).await;
        assert_eq!(status, 200, "{function}: {body}");
        body
    }
}

pub async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// Waits until so many sessions wait for the lock of that number.
pub async fn waiting(admin: &Client, lock: i32, wanted: i64) {
    let began = std::time::Instant::now();
    loop {
        let found = waits(admin, lock).await;
        if found == wanted {
            return;
        }
        assert!(began.elapsed() < DEADLINE, "{found} wait, not {wanted}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// How many sessions wait for the lock of that number.
pub async fn waits(admin: &Client, lock: i32) -> i64 {
    const SQL: &str = "select count(*) from pg_locks
                       where locktype = 'advisory' and not granted and classid = 0 and objid = $1::int4::oid";
    admin.query_one(SQL, &[&lock]).await.unwrap().get(0)
}

/// Status of a WebSocket's handshake with this key.
pub async fn socket_status(hub: &TestHub, key: &str) -> u16 {
    let address = hub.url.replace("http://", "ws://");
    let address = format!("{address}/realtime/v1/websocket?apikey={key}");
    match tokio_tungstenite::connect_async(address).await {
        Ok((_, response)) => response.status().as_u16(),
        Err(tokio_tungstenite::tungstenite::Error::Http(response)) => response.status().as_u16(),
        Err(other) => panic!("{other}"),
    }
}

pub fn id(value: &Value) -> Uuid {
    value.as_str().unwrap().parse().unwrap()
}
