//! Claims and results over REST, in turns with the same statements over connections to the same database.
//!
//! The other side does what the hub does for a request and nothing else: begin, claims and role, the function, commit;
//! over as many connections as the hub may use.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use crate::member::{Member, database, id};
use crate::process::Process;
use crate::table::{Times, head, line, ms};

/// Rounds of each side.
const ROUNDS: usize = 3;
/// Commands of one round.
const COMMANDS: usize = 640;
/// Connections of the SQL side: what the hub's pool for requests has.
const CONNECTIONS_MAX: usize = 16;

/// A workstation of the office.
struct Station {
    member: Member,
    client: Uuid,
}

/// What one round took.
#[derive(Default)]
struct Round {
    claims: Times,
    results: Times,
    took: Duration,
}

impl Round {
    fn per_second(&self) -> f64 {
        (self.claims.len() + self.results.len()) as f64 / self.took.as_secs_f64()
    }
}

pub async fn run(counts: &[usize]) {
    println!("\nclaim_commands (one) and complete_command by workstations of one office, ms\n");
    head(&[
        "clients",
        "requests a second, REST",
        "SQL",
        "REST / SQL",
        "claim p50, REST",
        "p95",
        "p99",
        "SQL p50",
        "p95",
        "complete p50, REST",
        "p95",
        "p99",
        "SQL p50",
        "p95",
    ]);
    for count in counts {
        measure(*count).await;
    }
}

async fn measure(count: usize) {
    let hub = Process::start(count + 1);
    let http = reqwest::Client::new();
    let owner = Member::sign_in(&hub, &http, 0).await;
    let office = owner.office("Here").await;
    let admin = database(&hub).await;
    let mut stations = Vec::new();
    for number in 1..=count {
        stations.push(Rc::new(station(&hub, &http, &admin, office, number).await));
    }
    let mut connections = Vec::new();
    for _ in 0..count.min(CONNECTIONS_MAX) {
        connections.push(Rc::new(Mutex::new(Direct::open(&hub).await)));
    }
    let (mut rest, mut sql) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        fill(&admin, office).await;
        let by_rest = work(&stations, office, None).await;
        fill(&admin, office).await;
        let by_sql = work(&stations, office, Some(&connections)).await;
        // The first round warms both up.
        if round > 0 {
            rest.push(by_rest);
            sql.push(by_sql);
        }
    }
    tell(count, &rest, &sql);
}

async fn station(
    hub: &Process,
    http: &reqwest::Client,
    admin: &Client,
    office: Uuid,
    number: usize,
) -> Station {
    let member = Member::sign_in(hub, http, number).await;
    let sql = "insert into public.office_members (office_id, user_id, role) values ($1, $2, 'device')";
    admin.execute(sql, &[&office, &member.user]).await.unwrap();
    let client = Uuid::new_v4();
    let arguments = json!({"p_office": office, "p_client": client, "p_name": "ws"});
    member.call("register_client", &arguments).await;
    Station { member, client }
}

/// A new round's commands; nobody listens, so nobody is told.
async fn fill(admin: &Client, office: Uuid) {
    let many = i32::try_from(COMMANDS).unwrap();
    admin
        .batch_execute("set session_replication_role = replica")
        .await
        .unwrap();
    admin
        .execute(
            "insert into public.agent_commands (office_id, kind, args, idempotency_key, expires_at)
             select $1, 'send_prompt', '{\"prompt\": \"Say hello.\"}', gen_random_uuid()::text, now() + interval '1 hour'
             from generate_series(1, $2)",
            &[&office, &many],
        )
        .await
        .unwrap();
    admin
        .batch_execute("vacuum (analyze) public.agent_commands")
        .await
        .unwrap();
}

/// All stations work until nothing is left.
async fn work(stations: &[Rc<Station>], office: Uuid, connections: Option<&[Rc<Mutex<Direct>>]>) -> Round {
    let left = Rc::new(Cell::new(COMMANDS));
    let began = Instant::now();
    let mut workers = Vec::new();
    for (number, station) in stations.iter().enumerate() {
        let (station, left) = (station.clone(), left.clone());
        let direct = connections.map(|all| all[number % all.len()].clone());
        workers.push(tokio::task::spawn_local(async move {
            one_after_the_other(&station, office, &left, direct.as_deref()).await
        }));
    }
    let mut whole = Round::default();
    for worker in workers {
        let one = worker.await.unwrap();
        whole.claims.extend(&one.claims);
        whole.results.extend(&one.results);
    }
    whole.took = began.elapsed();
    whole
}

async fn one_after_the_other(
    station: &Station,
    office: Uuid,
    left: &Cell<usize>,
    direct: Option<&Mutex<Direct>>,
) -> Round {
    let mut round = Round::default();
    while left.get() > 0 {
        left.set(left.get() - 1);
        let claim = json!({"p_office": office, "p_client": station.client, "p_limit": 1});
        let began = Instant::now();
        let claimed = match direct {
            None => station.member.call("claim_commands", &claim).await,
            Some(direct) => direct.lock().await.claim(station, office).await,
        };
        round.claims.push(began.elapsed());
        let (command, token) = (id(&claimed[0]["id"]), id(&claimed[0]["lease_token"]));
        let result = Uuid::new_v4();
        let complete = json!({"p_command": command, "p_token": token, "p_result": result, "p_status": "succeeded",
                              "p_outcome": "done"});
        let began = Instant::now();
        let recorded = match direct {
            None => station.member.call("complete_command", &complete).await,
            Some(direct) => {
                direct
                    .lock()
                    .await
                    .complete(station, command, token, result)
                    .await
            }
        };
        round.results.push(began.elapsed());
        assert_eq!(recorded, "recorded");
    }
    round
}

/// A connection that does what the hub's do.
struct Direct {
    client: Client,
    setup: Statement,
    claim: Statement,
    complete: Statement,
}

impl Direct {
    async fn open(hub: &Process) -> Direct {
        let client = database(hub).await;
        let setup = "select set_config('request.jwt.claims', $1, true), set_config('statement_timeout', '8000', true),
                            set_config('search_path', 'public, extensions', true),
                            set_config('role', 'authenticated', true)";
        let claim = "select id, lease_token from public.claim_commands($1, $2, 1)";
        let complete = "select public.complete_command($1, $2, $3, 'succeeded', 'done')";
        Direct {
            setup: client.prepare(setup).await.unwrap(),
            claim: client.prepare(claim).await.unwrap(),
            complete: client.prepare(complete).await.unwrap(),
            client,
        }
    }

    async fn claim(&mut self, station: &Station, office: Uuid) -> Value {
        let transaction = self.client.transaction().await.unwrap();
        transaction
            .execute(&self.setup, &[&claims(station)])
            .await
            .unwrap();
        let row = transaction
            .query_one(&self.claim, &[&office, &station.client])
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        json!([{"id": row.get::<_, Uuid>(0), "lease_token": row.get::<_, Uuid>(1)}])
    }

    async fn complete(&mut self, station: &Station, command: Uuid, token: Uuid, result: Uuid) -> Value {
        let transaction = self.client.transaction().await.unwrap();
        transaction
            .execute(&self.setup, &[&claims(station)])
            .await
            .unwrap();
        let row = transaction
            .query_one(&self.complete, &[&command, &token, &result])
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        json!(row.get::<_, String>(0))
    }
}

fn claims(station: &Station) -> String {
    json!({"sub": station.member.user, "role": "authenticated", "aud": "authenticated"}).to_string()
}

fn tell(count: usize, rest: &[Round], sql: &[Round]) {
    let median = |rounds: &[Round]| {
        let mut all: Vec<f64> = rounds.iter().map(Round::per_second).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let times = |rounds: &[Round], pick: fn(&Round) -> &Times| {
        let mut all = Times::default();
        rounds.iter().for_each(|round| all.extend(pick(round)));
        all
    };
    let mut cells = vec![
        count.to_string(),
        format!("{:.0}", median(rest)),
        format!("{:.0}", median(sql)),
        format!("{:.2}", median(rest) / median(sql)),
    ];
    let picks: [fn(&Round) -> &Times; 2] = [|round| &round.claims, |round| &round.results];
    for pick in picks {
        let (rest, sql) = (times(rest, pick), times(sql, pick));
        cells.extend([0.5, 0.95, 0.99].map(|share| ms(rest.at(share))));
        cells.extend([0.5, 0.95].map(|share| ms(sql.at(share))));
    }
    line(&cells);
}
