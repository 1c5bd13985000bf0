//! A hub that serves a team: TLS, names, a database elsewhere, its figures, backups. Each test has hubs of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and two hubs are started at once"
)]

#[path = "support/certificate.rs"]
mod certificate;
mod support;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use hub::{DatabaseAt, Door, Hub, HubConfig, HubError, Team, TlsFiles};
use serde_json::{Value, json};
use support::{DEADLINE, answer, config, waiting};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

const EMAIL: &str = "mina@example.test";
const PASSWORD: &str = "correct horse battery staple";

/// A folder that Postgres may enter, also when it runs as another user.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let open = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).unwrap();
    folder
}

/// A self-signed certificate for `name` and its key, written to `folder`; returns the certificate as PEM.
fn certify(folder: &Path, name: &str) -> (TlsFiles, Vec<u8>) {
    let (certificate, key) = certificate::certify(name);
    let files = TlsFiles {
        certificate: folder.join("hub.crt"),
        key: folder.join("hub.key"),
    };
    std::fs::write(&files.certificate, &certificate).unwrap();
    std::fs::write(&files.key, key).unwrap();
    (files, certificate)
}

/// Somebody who trusts this one certificate and finds `name` at `address`.
fn trusting(certificate: &[u8], name: &str, address: SocketAddr) -> reqwest::Client {
    reqwest::Client::builder()
        .tls_built_in_root_certs(false)
        .add_root_certificate(reqwest::Certificate::from_pem(certificate).unwrap())
        .resolve(name, address)
        .build()
        .unwrap()
}

fn port_of(hub: &Hub) -> u16 {
    hub.url().rsplit_once(':').unwrap().1.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn other_machines_are_not_served_without_encryption() {
    let folder = folder();
    let mut config = config(folder.path().join("hub"));
    config.listen = "0.0.0.0:0".parse().unwrap();
    let error = Hub::start(config).await.unwrap_err();
    assert!(matches!(error, HubError::Plain { .. }), "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_team_is_served_with_a_certificate_and_with_the_one_that_follows_it() {
    let folder = folder();
    let (files, first) = certify(folder.path(), "hub.example");
    let config = HubConfig {
        listen: "0.0.0.0:0".parse().unwrap(),
        door: Door {
            tls: Some(files),
            names: vec!["hub.example".to_owned()],
            ..Door::default()
        },
        ..config(folder.path().join("hub"))
    };
    let hub = Hub::start(config).await.unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], port_of(&hub)));
    assert!(hub.url().starts_with("https://hub.example:"), "{}", hub.url());
    let health = format!("{}/health", hub.url());
    let before = trusting(&first, "hub.example", address);
    assert_eq!(before.get(&health).send().await.unwrap().status(), 200);
    let plain = reqwest::get(format!("http://{address}/health")).await;
    assert!(
        plain.is_err(),
        "nothing is answered without encryption: {plain:?}"
    );

    let (_, second) = certify(folder.path(), "hub.example");
    hub.renew_certificate().unwrap();
    let after = trusting(&second, "hub.example", address);
    assert_eq!(after.get(&health).send().await.unwrap().status(), 200);
    let old = trusting(&first, "hub.example", address);
    assert!(
        old.get(&health).send().await.is_err(),
        "the old one is no longer shown"
    );

    std::fs::write(folder.path().join("hub.crt"), "nonsense").unwrap();
    let error = hub.renew_certificate().unwrap_err().to_string();
    assert!(error.contains("hub.crt") && error.contains("PEM"), "{error}");
    assert_eq!(after.get(&health).send().await.unwrap().status(), 200);
    hub.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_cannot_be_used_is_named() {
    let folder = folder();
    let files = TlsFiles {
        certificate: folder.path().join("none.crt"),
        key: folder.path().join("none.key"),
    };
    let mut config = config(folder.path().join("hub"));
    config.door.tls = Some(files);
    let error = Hub::start(config).await.unwrap_err().to_string();
    assert!(error.contains("none.crt"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_names_and_pages_of_the_settings_are_let_in() {
    let folder = folder();
    let mut config = config(folder.path().join("hub"));
    config.door.names = vec!["hub.example".to_owned()];
    config.door.origins = vec!["https://office.example".to_owned()];
    let hub = Hub::start(config).await.unwrap();
    let http = reqwest::Client::new();
    let status = async |host: &str, origin: &str| {
        let asked = http
            .get(format!("http://127.0.0.1:{}/health", port_of(&hub)))
            .header("host", host)
            .header("origin", origin);
        asked.send().await.unwrap().status().as_u16()
    };
    assert_eq!(status("hub.example", "https://office.example").await, 200);
    assert_eq!(status("evil.example", "https://office.example").await, 403);
    assert_eq!(status("hub.example", "https://evil.example").await, 403);
    hub.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_are_for_whoever_has_the_secret_key() {
    let folder = folder();
    let hub = Hub::start(config(folder.path().join("hub"))).await.unwrap();
    let http = reqwest::Client::new();
    let metrics = format!("{}/metrics", hub.url());
    assert_eq!(http.get(&metrics).send().await.unwrap().status(), 401);
    let publishable = http.get(&metrics).bearer_auth(&hub.keys().publishable);
    assert_eq!(publishable.send().await.unwrap().status(), 401);
    let (status, ready) = answer(http.get(format!("{}/ready", hub.url()))).await;
    assert_eq!((status, ready["status"].as_str()), (200, Some("ready")));
    let refused = http.get(format!("{}/rest/v1/offices", hub.url()));
    assert_eq!(refused.send().await.unwrap().status(), 401);
    let asked = http.get(&metrics).bearer_auth(&hub.keys().secret);
    let text = asked.send().await.unwrap().text().await.unwrap();
    for line in [
        "semo_hub_answers_total{protocol=\"Rest\",class=\"4\"} 1",
        "semo_hub_sockets 0",
        "semo_hub_database_connections_max 16",
        "semo_hub_connections_refused_total 0",
        "# EOF",
    ] {
        assert!(text.contains(line), "`{line}` is missing in:\n{text}");
    }
    hub.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_who_never_finish_their_sentence_keep_nobody_waiting() {
    let folder = folder();
    let hub = Hub::start(config(folder.path().join("hub"))).await.unwrap();
    let mut slow = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(("127.0.0.1", port_of(&hub))).await.unwrap();
        stream
            .write_all(b"GET /rest/v1/offices HTTP/1.1\r\nhost: 127")
            .await
            .unwrap();
        slow.push(stream);
    }
    let health = reqwest::get(format!("{}/health", hub.url())).await.unwrap();
    assert_eq!(health.status(), 200);
    // They do not hold up its end either.
    hub.stop().await.unwrap();
    let mut last = slow.pop().unwrap();
    let mut rest = Vec::new();
    let closed = last.read_to_end(&mut rest).await;
    assert!(closed.is_err() || rest.is_empty() || rest.starts_with(b"HTTP/1.1 4"));
}

/// A Postgres that somebody else runs: another hub's, with a database of its own in it.
struct Elsewhere {
    server: Hub,
    _folder: tempfile::TempDir,
}

impl Elsewhere {
    async fn start() -> Elsewhere {
        let folder = folder();
        let server = Hub::start(config(folder.path().join("hub"))).await.unwrap();
        let (client, connection) = tokio_postgres::connect(&server.database_url(), tokio_postgres::NoTls)
            .await
            .unwrap();
        let driving = tokio::spawn(connection);
        client.batch_execute("create database team").await.unwrap();
        drop(client);
        driving.await.unwrap().unwrap();
        Elsewhere {
            server,
            _folder: folder,
        }
    }

    /// Of a hub that works in the database of that name.
    fn config(&self, database: &str, data_dir: PathBuf) -> HubConfig {
        HubConfig {
            database: DatabaseAt::Url(self.url_of(database)),
            ..config(data_dir)
        }
    }

    /// A hub in the database `team`, and its folder.
    async fn hub(&self) -> (Hub, tempfile::TempDir) {
        let folder = folder();
        let config = self.config("team", folder.path().join("hub"));
        (Hub::start(config).await.unwrap(), folder)
    }

    /// A connection as superuser to the database of that name.
    async fn admin(&self, database: &str) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::connect(&self.url_of(database), tokio_postgres::NoTls)
            .await
            .unwrap();
        tokio_util::task::TaskTracker::new().spawn(connection);
        client
    }

    fn url_of(&self, database: &str) -> String {
        let (address, _) = self.server.database_url().rsplit_once('/').map_or_else(
            || unreachable!(),
            |(address, name)| (address.to_owned(), name.to_owned()),
        );
        format!("{address}/{database}")
    }
}

async fn sign_in(hub: &Hub) -> (u16, Value) {
    let asked = reqwest::Client::new()
        .post(format!("{}/auth/v1/token?grant_type=password", hub.url()))
        .header("apikey", &hub.keys().publishable)
        .json(&json!({ "email": EMAIL, "password": PASSWORD }));
    answer(asked).await
}

async fn offices(hub: &Hub, token: &str) -> Value {
    let asked = reqwest::Client::new()
        .get(format!("{}/rest/v1/offices?select=name", hub.url()))
        .header("apikey", &hub.keys().publishable)
        .bearer_auth(token);
    answer(asked).await.1
}

async fn make_office(hub: &Hub, token: &str, name: &str) {
    let asked = reqwest::Client::new()
        .post(format!("{}/rest/v1/rpc/create_office", hub.url()))
        .header("apikey", &hub.keys().publishable)
        .bearer_auth(token)
        .json(&json!({ "p_name": name }));
    assert_eq!(answer(asked).await.0, 200);
}

/// The account can sign in, and its offices are these.
async fn has_offices(hub: &Hub, names: &[&str]) {
    let (status, session) = sign_in(hub).await;
    assert_eq!(status, 200, "{session}");
    let wanted: Vec<Value> = names.iter().map(|name| json!({ "name": name })).collect();
    assert_eq!(offices(hub, &token_of(&session)).await, Value::Array(wanted));
}

fn token_of(session: &Value) -> String {
    session["access_token"].as_str().unwrap().to_owned()
}

/// Another hub with the keys of the one in `here` begins to start.
fn successor(elsewhere: &Elsewhere, here: &Path) -> (JoinHandle<Result<Hub, HubError>>, tempfile::TempDir) {
    let there = folder();
    let next = there.path().join("hub");
    std::fs::create_dir(&next).unwrap();
    std::fs::copy(here.join("hub").join(hub::KEY_FILE), next.join(hub::KEY_FILE)).unwrap();
    (tokio::spawn(Hub::start(elsewhere.config("team", next))), there)
}

/// Waits until somebody has tried to take the database `team` for his hub and did not get it.
async fn is_refused(admin: &tokio_postgres::Client) {
    const SQL: &str = "select pid, query_start::text from pg_stat_activity
                       where datname = 'team' and state = 'idle' and query like '%pg_try_advisory_lock%'";
    let mut begun = std::collections::BTreeSet::new();
    let began = std::time::Instant::now();
    // It is prepared and run: the third time is that of the next try, which nobody makes who got it.
    while begun.len() < 3 {
        assert!(began.elapsed() < DEADLINE, "nobody tries: {begun:?}");
        for row in admin.query(SQL, &[]).await.unwrap() {
            begun.insert((row.get::<_, i32>(0), row.get::<_, String>(1)));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_works_in_a_database_elsewhere_and_its_successor_waits_for_its_end() {
    let elsewhere = Elsewhere::start().await;
    let (first, here) = elsewhere.hub().await;
    first.ensure_user(EMAIL, PASSWORD).await.unwrap();
    let (status, session) = sign_in(&first).await;
    assert_eq!(status, 200, "{session}");
    make_office(&first, &token_of(&session), "Elsewhere").await;

    let (second, _there) = successor(&elsewhere, here.path());
    let admin = elsewhere.admin("team").await;
    is_refused(&admin).await;
    assert!(!second.is_finished(), "it waits for the end of the first one");
    drop(admin);
    assert_eq!(
        offices(&first, &token_of(&session)).await,
        json!([{"name": "Elsewhere"}])
    );
    first.stop().await.unwrap();
    let second = second.await.unwrap().unwrap();
    has_offices(&second, &["Elsewhere"]).await;
    second.stop().await.unwrap();
    elsewhere.server.stop().await.unwrap();
}

/// Whether a hub has the database of this connection; its lock is "semo hub" in bytes.
async fn is_taken(admin: &tokio_postgres::Client) -> bool {
    const SQL: &str = "select exists (select 1 from pg_locks where locktype = 'advisory' and granted
                       and database = (select oid from pg_database where datname = current_database())
                       and classid = x'73656d6f'::bigint::oid and objid = x'20687562'::bigint::oid)";
    admin.query_one(SQL, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_ends_has_its_database_until_its_last_request_is_done() {
    let elsewhere = Elsewhere::start().await;
    let (hub, here) = elsewhere.hub().await;
    let (admin, keeper) = (elsewhere.admin("team").await, elsewhere.admin("team").await);
    assert!(is_taken(&admin).await);
    let slow = "create function public.slow() returns int language sql volatile as
                  'select 1 from pg_advisory_xact_lock_shared(7401)'";
    for sql in [slow, "notify pgrst, 'reload schema'"] {
        admin.batch_execute(sql).await.unwrap();
    }
    keeper
        .batch_execute("select pg_advisory_lock(7401)")
        .await
        .unwrap();
    let http = reqwest::Client::new();
    let asked = http
        .post(format!("{}/rest/v1/rpc/slow", hub.url()))
        .header("apikey", &hub.keys().secret)
        .json(&json!({}));
    let asked = tokio::spawn(answer(asked));
    waiting(&admin, 7401, 1).await;

    let port = port_of(&hub);
    let ending = tokio::spawn(hub.stop());
    let began = std::time::Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
        assert!(began.elapsed() < DEADLINE, "the port is closed");
    }
    let (next, _there) = successor(&elsewhere, here.path());
    is_refused(&admin).await;
    assert!(
        !next.is_finished() && is_taken(&admin).await,
        "it would be in it with the request of the one before"
    );
    assert!(!ending.is_finished());
    keeper
        .batch_execute("select pg_advisory_unlock(7401)")
        .await
        .unwrap();
    assert_eq!(asked.await.unwrap(), (200, json!(1)));
    ending.await.unwrap().unwrap();
    // Now the next one may have it.
    next.await.unwrap().unwrap().stop().await.unwrap();
    drop((admin, keeper));
    elsewhere.server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_without_its_database_says_so_to_everybody_and_why_to_nobody() {
    let elsewhere = Elsewhere::start().await;
    let (hub, _folder) = elsewhere.hub().await;
    let ready = async || answer(reqwest::Client::new().get(format!("{}/ready", hub.url()))).await;
    assert_eq!(ready().await.0, 200);
    elsewhere.server.stop().await.unwrap();
    let began = std::time::Instant::now();
    loop {
        match ready().await {
            (200, _) => assert!(began.elapsed() < DEADLINE, "it is noticed"),
            (status, said) => {
                assert_eq!(status, 503);
                assert_eq!(said["status"], "not ready");
                let reason = said["reason"].as_str().unwrap();
                assert!(reason.contains("log") && !reason.contains("PGSQL"), "{reason}");
                break;
            }
        }
    }
    hub.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_something_elses_is_left_alone() {
    let elsewhere = Elsewhere::start().await;
    let folder = folder();
    let refused = async |database: &str| {
        let config = elsewhere.config(database, folder.path().join(database));
        let error = Hub::start(config).await.unwrap_err();
        assert!(matches!(error, HubError::DatabaseUrl { .. }), "{error}");
        error.to_string()
    };
    let admin = elsewhere.admin("team").await;
    admin.batch_execute("create database shop").await.unwrap();
    let shop = elsewhere.admin("shop").await;
    shop.batch_execute("create table public.customers (name text)")
        .await
        .unwrap();
    let told = refused("shop").await;
    assert!(
        told.contains("customers") && told.contains("of its own"),
        "{told}"
    );
    let schemas = shop
        .query_one("select to_regnamespace('auth') is null", &[])
        .await
        .unwrap();
    assert!(schemas.get::<_, bool>(0), "nothing was made in it");

    // Somebody else's role of the name that REST logs in with.
    admin.batch_execute("create database club").await.unwrap();
    admin
        .batch_execute("alter role authenticator password 'theirs'")
        .await
        .unwrap();
    let before: String = password(&admin).await;
    let told = refused("club").await;
    assert!(
        told.contains("authenticator") && told.contains("something else"),
        "{told}"
    );
    assert_eq!(password(&admin).await, before);
    drop((admin, shop));
    elsewhere.server.stop().await.unwrap();
}

/// What the server keeps of the password of the role REST logs in with.
async fn password(admin: &tokio_postgres::Client) -> String {
    let sql = "select rolpassword from pg_authid where rolname = 'authenticator'";
    admin.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_takes_one_hub_and_never_sees_the_password_of_its_role() {
    let elsewhere = Elsewhere::start().await;
    let admin = elsewhere.admin("team").await;
    // A server that would keep less of a password it is told.
    for sql in [
        "alter database team set password_encryption = 'md5'",
        "create database club",
    ] {
        admin.batch_execute(sql).await.unwrap();
    }
    let (here, there) = (folder(), folder());
    let config_in = |folder: &Path, database: &str| elsewhere.config(database, folder.join("hub"));
    let hub = Hub::start(config_in(here.path(), "team")).await.unwrap();
    let kept = password(&admin).await;
    assert!(kept.starts_with("SCRAM-SHA-256$"), "{kept}");
    let told = Hub::start(config_in(there.path(), "club")).await.unwrap_err();
    let told = told.to_string();
    assert!(
        told.contains("authenticator") && told.contains("`team`"),
        "{told}"
    );
    assert_eq!(password(&admin).await, kept);
    hub.stop().await.unwrap();
    // The same database with other keys is the same hub; another one only when that database is gone.
    let hub = Hub::start(config_in(there.path(), "team")).await.unwrap();
    assert_ne!(password(&admin).await, kept);
    hub.stop().await.unwrap();
    drop(admin);
    let admin = elsewhere.admin("club").await;
    admin.batch_execute("drop database team").await.unwrap();
    let hub = Hub::start(config_in(here.path(), "club")).await.unwrap();
    hub.stop().await.unwrap();
    drop(admin);
    elsewhere.server.stop().await.unwrap();
}

/// How many tables and functions of the office belong to a superuser.
async fn of_superusers(admin: &tokio_postgres::Client) -> i64 {
    let sql = "select count(*) from (
                 select proowner as owner, pronamespace as space from pg_proc
                 union all select relowner, relnamespace from pg_class where relkind in ('r', 'v')) o
               join pg_roles r on r.oid = o.owner
               where r.rolsuper and o.space in ('public'::regnamespace, 'private'::regnamespace)";
    admin.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn where_postgres_is_a_superuser_the_office_belongs_to_somebody_else() {
    let elsewhere = Elsewhere::start().await;
    let admin = elsewhere.admin("team").await;
    admin
        .batch_execute("alter role postgres superuser")
        .await
        .unwrap();
    let folder = folder();
    let (own, config) = (
        config(folder.path().join("own")),
        elsewhere.config("team", folder.path().join("away")),
    );
    for round in 0..2 {
        let hub = Hub::start(config.clone()).await.unwrap();
        assert_eq!(of_superusers(&admin).await, 0);
        if round == 0 {
            hub.ensure_user(EMAIL, PASSWORD).await.unwrap();
            let (_, session) = sign_in(&hub).await;
            make_office(&hub, &token_of(&session), "Kept").await;
            // As an older program left it.
            admin
                .batch_execute(
                    "alter table public.offices owner to postgres; alter schema private owner to postgres",
                )
                .await
                .unwrap();
        }
        hub.stop().await.unwrap();
    }
    // It moves to a hub with a Postgres of its own, and back.
    let file = folder.path().join("hub.backup");
    hub::backup(&config, &file).await.unwrap();
    hub::restore(&own, &file, false).await.unwrap();
    let hub = Hub::start(own.clone()).await.unwrap();
    has_offices(&hub, &["Kept"]).await;
    hub.stop().await.unwrap();
    let back = folder.path().join("back.backup");
    hub::backup(&own, &back).await.unwrap();
    hub::restore(&config, &back, true).await.unwrap();
    let hub = Hub::start(config).await.unwrap();
    has_offices(&hub, &["Kept"]).await;
    assert_eq!(of_superusers(&admin).await, 0);
    hub.stop().await.unwrap();
    drop(admin);
    elsewhere.server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_leads_nowhere_is_told_without_its_password() {
    let folder = folder();
    for (url, word) in [
        ("postgresql://semo:very-secret@127.0.0.1:1/semo", "connect"),
        ("postgresql://semo:very-secret@/semo?nonsense=1", "nonsense"),
    ] {
        let config = HubConfig {
            database: DatabaseAt::Url(url.to_owned()),
            ..config(folder.path().join("hub"))
        };
        assert!(!format!("{config:?}").contains("very-secret"));
        let error = Hub::start(config).await.unwrap_err().to_string();
        assert!(error.contains(word) && !error.contains("very-secret"), "{error}");
    }
}

/// A hub with an account and an office, its backup made while it ran, and the folder of both.
async fn with_backup() -> (tempfile::TempDir, PathBuf, String) {
    let folder = folder();
    let config = config(folder.path().join("hub"));
    let hub = Hub::start(config.clone()).await.unwrap();
    hub.ensure_user(EMAIL, PASSWORD).await.unwrap();
    let (_, session) = sign_in(&hub).await;
    make_office(&hub, &token_of(&session), "Kept").await;
    let file = folder.path().join("hub.backup");
    let manifest = hub::backup(&config, &file).await.unwrap();
    assert!(manifest.dump_bytes > 1000, "{manifest:?}");
    let publishable = hub.keys().publishable.clone();
    hub.stop().await.unwrap();
    (folder, file, publishable)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_running_hub_comes_back_on_another_machine_with_its_keys_and_accounts() {
    let (folder, file, publishable) = with_backup().await;
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "it holds everything");
    let elsewhere = config(folder.path().join("restored"));
    hub::restore(&elsewhere, &file, false).await.unwrap();
    let hub = Hub::start(elsewhere).await.unwrap();
    assert_eq!(hub.keys().publishable, publishable);
    has_offices(&hub, &["Kept"]).await;
    hub.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_takes_the_place_of_a_hub_only_when_that_is_wanted_and_only_as_a_whole() {
    let (folder, file, _) = with_backup().await;
    let config = config(folder.path().join("hub"));
    let hub = Hub::start(config.clone()).await.unwrap();
    let running = hub::restore(&config, &file, true).await.unwrap_err();
    assert!(matches!(running, HubError::InUse { .. }), "{running}");
    let (_, session) = sign_in(&hub).await;
    make_office(&hub, &token_of(&session), "Later").await;
    hub.stop().await.unwrap();

    let refused = hub::restore(&config, &file, false).await.unwrap_err().to_string();
    assert!(refused.contains("--replace"), "{refused}");

    // Cut off in the middle of the database.
    let bytes = std::fs::read(&file).unwrap();
    let cut = folder.path().join("cut.backup");
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let error = hub::restore(&config, &cut, true).await.unwrap_err().to_string();
    assert!(error.contains("cut.backup"), "{error}");
    // Whole, but no database in it.
    let mut broken = bytes.clone();
    let dump = broken
        .windows(5)
        .position(|window| window == b"PGDMP")
        .expect("the dump");
    broken[dump..dump + 5].copy_from_slice(b"NODMP");
    let spoilt = folder.path().join("spoilt.backup");
    std::fs::write(&spoilt, broken).unwrap();
    let error = hub::restore(&config, &spoilt, true)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("pg_restore"), "{error}");
    let empty = HubConfig {
        data_dir: folder.path().join("empty"),
        ..config.clone()
    };
    hub::restore(&empty, &spoilt, false).await.unwrap_err();
    let keys = empty.data_dir.join(hub::KEY_FILE);
    assert!(!keys.exists(), "the keys of a hub that is not there");

    let hub = Hub::start(config.clone()).await.unwrap();
    // What was there is there again.
    has_offices(&hub, &["Kept", "Later"]).await;
    hub.stop().await.unwrap();

    hub::restore(&config, &file, true).await.unwrap();
    let hub = Hub::start(config).await.unwrap();
    has_offices(&hub, &["Kept"]).await;
    hub.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_put_back_elsewhere_takes_no_keys_away_unasked() {
    let (folder, file, publishable) = with_backup().await;
    let elsewhere = Elsewhere::start().await;
    let config = elsewhere.config("team", folder.path().join("restored"));
    let keys = config.data_dir.join(hub::KEY_FILE);
    std::fs::create_dir(&config.data_dir).unwrap();
    std::fs::write(&keys, "{\"of\": \"another hub\"}").unwrap();
    let others = std::fs::read(&keys).unwrap();
    let refused = hub::restore(&config, &file, false).await.unwrap_err().to_string();
    assert!(
        refused.contains("--replace") && refused.contains("keys"),
        "{refused}"
    );
    assert_eq!(std::fs::read(&keys).unwrap(), others);

    hub::restore(&config, &file, true).await.unwrap();
    let kept = std::fs::read_dir(&config.data_dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .find(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with("hub.json.before-")
        })
        .expect("the keys of before");
    assert_eq!(std::fs::read(kept.path()).unwrap(), others);
    // Now they are the backup's own: nothing stands in the way but the database.
    let refused = hub::restore(&config, &file, false).await.unwrap_err().to_string();
    assert!(refused.contains("in this database"), "{refused}");
    let hub = Hub::start(config).await.unwrap();
    assert_eq!(hub.keys().publishable, publishable);
    has_offices(&hub, &["Kept"]).await;
    hub.stop().await.unwrap();
    elsewhere.server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_made_and_let_into_offices_while_the_hub_runs() {
    let folder = folder();
    let config = config(folder.path().join("hub"));
    let hub = Hub::start(config.clone()).await.unwrap();
    hub.ensure_user("owner@example.test", PASSWORD).await.unwrap();
    let team = Team::open(&config).await.unwrap();
    team.account(EMAIL, PASSWORD).await.unwrap();
    let (_, session) = sign_in(&hub).await;
    make_office(&hub, &token_of(&session), "Team").await;

    team.admit("owner@example.test", "Team", "viewer").await.unwrap();
    let members = team.members().await.unwrap();
    let roles: Vec<(&str, &str)> = members
        .iter()
        .flat_map(|member| {
            let email = member.email.as_str();
            member
                .offices
                .iter()
                .map(move |(_, _, role)| (email, role.as_str()))
        })
        .collect();
    assert_eq!(roles, [(EMAIL, "owner"), ("owner@example.test", "viewer")]);

    team.dismiss(EMAIL, "Team").await.unwrap();
    assert_eq!(offices(&hub, &token_of(&session)).await, json!([]));
    for (error, word) in [
        (team.dismiss(EMAIL, "Team").await.unwrap_err(), "not a member"),
        (
            team.admit("x@example.test", "Team", "viewer").await.unwrap_err(),
            "no account",
        ),
        (
            team.admit(EMAIL, "Nowhere", "viewer").await.unwrap_err(),
            "no office",
        ),
    ] {
        assert!(error.to_string().contains(word), "{error}");
    }
    team.close().await;
    hub.stop().await.unwrap();
}
