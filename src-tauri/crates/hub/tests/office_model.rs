//! The model of the office by which the client's rules are simulated (`client/src/sim/office.rs`) against the real
//! functions on the hub's Postgres: the same random calls to both, the same answers and the same rows, call by call.
//!
//! The database's clock is not waited for: every time in its rows is moved into the past instead.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[path = "../../client/src/sim/office.rs"]
#[allow(dead_code, reason = "the simulation uses what this test does not")]
mod office;
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt as _;
use office::{Begin, By, Cancel, Claimed, Completed, Gap, Kept, Office, State};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use support::{Person, TestHub, id, on_hub};
use tokio_postgres::Client;
use uuid::Uuid;

/// Sequences, and calls of each.
const SEQUENCES: u64 = 12;
const CALLS: u32 = 60;
/// Sequences within which a rule that is left out must be noticed.
const NOTICED_WITHIN: u64 = 60;
/// The model's clock only ever stands at full hundreds of seconds, and what runs out does so fifty seconds beside them:
/// the real clock, which goes on while the calls are made, comes to the same answers.
const STEP_MS: i64 = 100_000;
const LEASE_S: i64 = 650;

/// The same office twice.
struct Twice {
    hub: Arc<TestHub>,
    admin: Client,
    model: Office,
    office: Uuid,
    owner: Person,
    /// A person with one client each.
    clients: Vec<(Person, Uuid)>,
    /// Keys of data folders: one of them is a copy of the other.
    folders: [Uuid; 2],
    sessions: Vec<Uuid>,
    commands: Vec<Uuid>,
    /// The real token of each token of the model, and who holds it.
    tokens: BTreeMap<Uuid, (Uuid, usize, Uuid)>,
    results: Vec<(Uuid, Uuid)>,
    /// When the real clock was brought to the model's.
    set_at: Instant,
    random: StdRng,
}

impl Twice {
    async fn new(hub: Arc<TestHub>, seed: u64) -> Twice {
        let (office, owner) = hub.office().await;
        let agent = json!({"p_office": office, "p_agent": null, "p_role": "FE", "p_name": "Mina"});
        let agent = hub.ok(&owner, "upsert_agent", agent).await["id"].clone();
        let mut clients = Vec::new();
        let mut model = Office::default();
        let mut sessions = Vec::new();
        for _ in 0..2 {
            let person = hub.member(office, "device").await;
            let client = hub.client(&person, office).await;
            let session = Uuid::new_v4();
            let row = json!({"p_session": session, "p_office": office, "p_client": client, "p_agent": agent,
                             "p_state": "idle"});
            hub.ok(&person, "upsert_session", row).await;
            model.sessions.insert(session, client);
            sessions.push(session);
            clients.push((person, client));
        }
        Twice {
            admin: hub.admin().await,
            hub,
            model,
            office,
            owner,
            clients,
            folders: [Uuid::new_v4(), Uuid::new_v4()],
            sessions,
            commands: Vec::new(),
            tokens: BTreeMap::new(),
            results: Vec::new(),
            set_at: Instant::now(),
            random: StdRng::seed_from_u64(seed),
        }
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        (!all.is_empty()).then(|| all[self.random.random_range(0..all.len())])
    }

    /// Moves the model's clock, and every time of the office by what the real one lacks.
    async fn pass(&mut self, ms: i64) {
        let real = i64::try_from(self.set_at.elapsed().as_millis()).unwrap();
        assert!(
            real < 40_000,
            "one call took {real} ms: too slow for this test's clock"
        );
        self.set_at = Instant::now();
        self.model.now += ms;
        let change = "update public.agent_commands set expires_at = expires_at - $2 * interval '1 ms',
                      lease_until = lease_until - $2 * interval '1 ms',
                      not_before = not_before - $3 * interval '1 ms' where office_id = $1";
        let shift = (ms - real) as f64;
        // What may be claimed already is never moved into the future: the model has no such times.
        let whole = ms as f64;
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 3] = [&self.office, &shift, &whole];
        self.admin.execute(change, &values).await.unwrap();
    }

    async fn enqueue(&mut self) {
        let kind = self
            .pick(&[
                "send_prompt",
                "send_prompt",
                "send_keys",
                "list_sessions",
                "cancel",
            ])
            .unwrap();
        let session = match (kind, self.random.random_bool(0.7)) {
            ("send_prompt", true) | ("send_keys", _) => self.pick(&self.sessions.clone()),
            _ => None,
        };
        let priority = self.pick(&[None, None, None, Some(7)]).unwrap();
        let ttl_s = self.pick(&[50, 350, 3_050, 36_050]).unwrap();
        let args = json!({"p_office": self.office, "p_kind": kind, "p_args": {}, "p_key": Uuid::new_v4(),
                          "p_session": session, "p_priority": priority, "p_ttl_s": ttl_s});
        let row = self.hub.ok(&self.owner, "enqueue_command", args).await;
        let urgent = if kind == "cancel" { 100 } else { 0 };
        let command = id(&row["id"]);
        self.model
            .enqueue(command, kind, session, priority.unwrap_or(urgent), ttl_s * 1_000);
        self.commands.push(command);
    }

    /// A data folder, mostly the first one; programs of before tell none.
    fn folder(&mut self) -> Option<Uuid> {
        let [first, copy] = self.folders;
        self.pick(&[None, Some(first), Some(first), Some(first), Some(copy)])
            .flatten()
    }

    async fn register(&mut self) {
        let who = self.random.random_range(0..self.clients.len());
        let (person, client) = self.clients[who].clone();
        let folder = self.folder();
        let args = json!({"p_office": self.office, "p_client": client, "p_name": "here", "p_folder": folder});
        self.hub.ok(&person, "register_client", args).await;
        self.model.register(client, folder);
    }

    async fn claim(&mut self) {
        let who = self.random.random_range(0..self.clients.len());
        let (person, client) = self.clients[who].clone();
        let folder = self.folder();
        let limit = self.random.random_range(1..5_usize);
        let kinds: Option<&[&str]> = self.random.random_bool(0.2).then_some(&["cancel", "send_keys"]);
        // What it says to know: nothing about that, or some of all that there is.
        let known: Option<Vec<Uuid>> = self.random.random_bool(0.6).then(|| {
            let share = self.random.random_range(0.0..1.0);
            let all = self.commands.clone();
            all.into_iter()
                .filter(|_| self.random.random_bool(share))
                .collect()
        });
        let mut args = json!({"p_office": self.office, "p_client": client, "p_limit": limit, "p_lease_s": LEASE_S,
                              "p_kinds": kinds});
        if let Some(known) = &known {
            args["p_known"] = json!(known);
        }
        if folder.is_some() || self.random.random_bool(0.5) {
            args["p_folder"] = json!(folder);
        }
        let (code, real) = self.hub.rpc(&person, "claim_commands", args).await;
        let by = By { client, folder };
        let model = self
            .model
            .claim(by, limit, LEASE_S * 1_000, kinds, known.as_deref());
        let Some(model) = model else {
            assert_eq!((code, &real["code"]), (409, &json!("PT409")), "{real}");
            return;
        };
        assert_eq!(code, 200, "{real}");
        let mut real = real.as_array().unwrap().clone();
        real.sort_by_key(|row| (-row["priority"].as_i64().unwrap(), row["seq"].as_i64().unwrap()));
        let seen = |row: &Value| {
            (
                id(&row["id"]),
                row["attempt"].as_i64().unwrap(),
                row["begun"] == true,
            )
        };
        let expected = |row: &Claimed| (row.row.id, i64::from(row.row.attempt), row.begun);
        assert_eq!(
            real.iter().map(seen).collect::<Vec<_>>(),
            model.iter().map(expected).collect::<Vec<_>>(),
            "claimed"
        );
        for (real, model) in real.iter().zip(&model) {
            let token = (id(&real["lease_token"]), who, model.row.id);
            let before = self.tokens.insert(model.token, token);
            assert!(
                before.is_none_or(|before| before == token),
                "given again as it was"
            );
        }
    }

    /// Any token that was ever given, with its person and command.
    fn token(&mut self) -> Option<(Uuid, Uuid, Person, Uuid)> {
        let all: Vec<_> = self.tokens.iter().map(|(model, real)| (*model, *real)).collect();
        // Newer ones more often.
        let from = if self.random.random_bool(0.7) {
            all.len().saturating_sub(4)
        } else {
            0
        };
        let (model, (real, who, command)) = self.pick(&all[from..])?;
        Some((model, real, self.clients[who].0.clone(), command))
    }

    async fn renew(&mut self) {
        let Some((model, real, person, command)) = self.token() else {
            return;
        };
        let args = json!({"p_command": command, "p_token": real, "p_lease_s": LEASE_S});
        let real = self.hub.ok(&person, "renew_lease", args).await;
        let (held, cancel) = self.model.renew(command, model, LEASE_S * 1_000);
        assert_eq!(real, json!([{"held": held, "cancel": cancel}]), "renewed");
    }

    async fn begin(&mut self) {
        let Some((model, real, person, command)) = self.token() else {
            return;
        };
        let folder = self.folder();
        let args = json!({"p_command": command, "p_token": real, "p_lease_s": LEASE_S, "p_folder": folder});
        let real = self.hub.ok(&person, "begin_command", args).await;
        let said = self
            .model
            .begin(command, model, folder, Uuid::new_v4(), LEASE_S * 1_000);
        let expected = match said {
            Begin::Begun => "begun",
            Begin::Cancel => "cancel",
            Begin::Expired => "expired",
            Begin::Lost => "lost",
        };
        assert_eq!(real, json!(expected), "begun");
    }

    async fn complete(&mut self) {
        let Some((model, real, person, command)) = self.token() else {
            return;
        };
        let repeated = self.random.random_bool(0.2);
        let mine: Vec<_> = self
            .results
            .iter()
            .filter(|(of, _)| *of == command)
            .copied()
            .collect();
        let result = match self.pick(&mine).filter(|_| repeated) {
            Some((_, result)) => result,
            None => Uuid::new_v4(),
        };
        self.results.push((command, result));
        let status = self
            .pick(&[
                None,
                Some(State::Succeeded),
                Some(State::Unconfirmed),
                Some(State::Failed),
                Some(State::Cancelled),
            ])
            .unwrap();
        let args = json!({"p_command": command, "p_token": real, "p_result": result,
                          "p_status": status.map_or("progress", word)});
        let (code, real) = self.hub.rpc(&person, "complete_command", args).await;
        match self.model.complete(command, model, result, status) {
            Ok(Completed::Recorded) => assert_eq!(real, json!("recorded")),
            Ok(Completed::Duplicate) => assert_eq!(real, json!("duplicate")),
            Ok(Completed::Late) => assert_eq!(real, json!("late")),
            Err(wrong) => assert!(code != 200, "{wrong}: {real}"),
        }
    }

    async fn cancel(&mut self) {
        let Some(command) = self.pick(&self.commands.clone()) else {
            return;
        };
        let args = json!({"p_command": command});
        let real = self.hub.ok(&self.owner, "cancel_command", args).await;
        match self.model.cancel(command) {
            Cancel::Cancelled => assert_eq!(real, json!("cancelled")),
            Cancel::Requested => assert_eq!(real, json!("requested")),
            Cancel::Over => assert!(real != json!("cancelled") || self.state(command) == State::Cancelled),
        }
    }

    fn state(&self, command: Uuid) -> State {
        self.model.rows[&command].state
    }

    /// All rows of both are the same.
    async fn compare(&self) {
        let rows = "select c.id, c.state, c.attempt, c.client_id, c.cancel_requested_at is not null,
                      coalesce(extract(epoch from c.lease_until - clock_timestamp()), -1e9)::float8,
                      (select string_agg(r.status || coalesce('/' || r.outcome, '') || r.attempt || '/' || r.client_id, ' '
                                         order by r.created_at) from public.agent_command_results r
                        where r.command_id = c.id)
                    from public.agent_commands c where c.office_id = $1 order by c.seq";
        let rows = self.admin.query(rows, &[&self.office]).await.unwrap();
        assert_eq!(rows.len(), self.model.rows.len());
        for row in rows {
            let model = &self.model.rows[&row.get::<_, Uuid>(0)];
            let real: (String, i32, Option<Uuid>, bool) = (row.get(1), row.get(2), row.get(3), row.get(4));
            let expected = (
                word(model.state).to_owned(),
                model.attempt,
                model.client,
                model.cancel_wanted,
            );
            assert_eq!(real, expected, "{model:?}");
            let left_s: f64 = row.get(5);
            let model_left_s = model
                .lease_until
                .map_or(-1e9, |until| (until - self.model.now) as f64 / 1e3);
            assert!(
                (left_s - model_left_s).abs() < 45.0,
                "{left_s} {model_left_s} {model:?}"
            );
            let kept = |result: &office::ResultRow| {
                let status = match result.kept {
                    Kept::Begun => "progress/begun",
                    Kept::Progress => "progress",
                    Kept::Late => "late",
                    Kept::Final(state) => word(state),
                };
                format!("{status}{}/{}", result.attempt, result.client)
            };
            let of_it = self
                .model
                .results
                .iter()
                .filter(|result| result.command == model.id);
            let expected = of_it.map(kept).collect::<Vec<_>>().join(" ");
            assert_eq!(
                row.get::<_, Option<String>>(6).unwrap_or_default(),
                expected,
                "{model:?}"
            );
        }
    }
}

fn word(state: State) -> &'static str {
    match state {
        State::Queued => "queued",
        State::Leased => "leased",
        State::Succeeded => "succeeded",
        State::Unconfirmed => "unconfirmed",
        State::Failed => "failed",
        State::Cancelled => "cancelled",
        State::Expired => "expired",
        State::Dead => "dead",
    }
}

/// One sequence, with a rule left out of the model or none.
async fn run(hub: Arc<TestHub>, seed: u64, gap: Option<Gap>) {
    let mut twice = Twice::new(hub, seed).await;
    twice.model.gap = gap;
    for call in 0..CALLS {
        // Printed when the test fails.
        println!("sequence {seed}, call {call}, model time {}", twice.model.now);
        match twice.random.random_range(0..20) {
            0..4 => twice.enqueue().await,
            4..9 => twice.claim().await,
            9..11 => twice.renew().await,
            11..14 => twice.begin().await,
            14..17 => twice.complete().await,
            17 => twice.cancel().await,
            18 => twice.register().await,
            _ => {}
        }
        twice.compare().await;
        let steps = twice.pick(&[0, 0, 0, 1, 1, 3, 7, 12, 40]).unwrap();
        twice.pass(steps * STEP_MS).await;
    }
}

/// One test, because the reaper of each claim looks at all offices of the hub.
#[test]
fn the_model_of_the_office_answers_as_the_real_functions_do_and_a_rule_left_out_of_it_is_noticed() {
    on_hub(async |hub| {
        for seed in 0..SEQUENCES {
            run(hub.clone(), seed, None).await;
        }
        for gap in [
            Gap::BegunGoesToAnybody,
            Gap::PromptsTogether,
            Gap::NoFence,
            Gap::GivenAgainToAnybody,
            Gap::NothingGivenAgain,
            Gap::GivenAgainToCopies,
            Gap::CopiesClaim,
            Gap::CopiesBegin,
            Gap::CopiesEnd,
            Gap::CopiesOutbid,
        ] {
            let mut noticed = false;
            for seed in 0..NOTICED_WITHIN {
                let run = std::panic::AssertUnwindSafe(run(hub.clone(), seed, Some(gap)));
                noticed = run.catch_unwind().await.is_err();
                if noticed {
                    break;
                }
            }
            assert!(noticed, "{gap:?}");
        }
    });
}
