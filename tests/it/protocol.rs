//! The client's side of the office's protocols against the real hub: real Postgres, real roles, real sockets.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use domain::{AgentId, ClientId, Clock, CommandId, OfficeId, ResultId, SessionId};
use harness::clock::{SystemClock, TestClock};
use harness::wait::LONG;
use hub::{Hub, HubConfig};
use serde_json::{Value, json};
use supabase::{
    AgentDraft, Auth, AuthError, CancelAnswer, ClaimedCommand, CommandState, CompleteArgs, Completion,
    ConnectionState, FinalStatus, MemoryTokenStore, NewCommand, Project, Realtime, RealtimeEvent,
    RealtimeHandle, Renewal, Rest, RestError, ResultStatus, SessionDraft, Topic,
};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// Longest wait for anything that should happen at once.
const SOON: Duration = LONG;
const PASSWORD: &str = "correct horse battery staple";

async fn start_hub(folder: &Path, listen: SocketAddr, clock: Arc<dyn Clock>) -> Hub {
    Hub::start(HubConfig::new(folder.to_owned(), listen, clock))
        .await
        .expect("the hub starts")
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn auth_for(hub: &Hub, clock: Arc<dyn Clock>) -> Auth {
    let project = Project::new(hub.url(), &hub.keys().publishable).expect("the hub's address");
    Auth::new(project, clock, Arc::new(MemoryTokenStore::default())).expect("an auth")
}

/// Makes the user and signs in as them.
async fn member(hub: &Hub, email: &str, clock: Arc<dyn Clock>) -> Rest {
    hub.ensure_user(email, PASSWORD).await.expect("a user");
    let auth = auth_for(hub, clock);
    auth.sign_in(email, PASSWORD).await.expect("signed in");
    Rest::new(auth.project().clone(), auth)
}

/// A connection to Realtime with what it says.
struct Ear {
    handle: RealtimeHandle,
    heard: mpsc::Receiver<RealtimeEvent>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Ear {
    fn listen(rest: &Rest, topic: Topic, clock: Arc<dyn Clock>) -> Ear {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (handle, heard) = Realtime::start(
            rest.project().clone(),
            rest.auth().clone(),
            vec![topic],
            clock,
            &tasks,
            stop.clone(),
        );
        Ear {
            handle,
            heard,
            tasks,
            stop,
        }
    }

    async fn live(&self) {
        let mut watch = self.handle.watch();
        let live = watch.wait_for(|state| *state == ConnectionState::Live);
        if timeout(SOON, live).await.is_err() {
            panic!("never live, but {:?}", self.handle.state());
        }
    }

    /// The payload of the next doorbell of that name for that row.
    async fn doorbell(&mut self, name: &str, id: CommandId) -> Value {
        let wanted = id.to_string();
        let ring = async {
            loop {
                match self.heard.recv().await.expect("an event") {
                    RealtimeEvent::Doorbell { event, payload, .. }
                        if event == name && payload["id"] == wanted =>
                    {
                        return payload;
                    }
                    _ => {}
                }
            }
        };
        timeout(SOON, ring)
            .await
            .unwrap_or_else(|_| panic!("no doorbell {name} for {id}"))
    }

    async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        timeout(SOON, self.tasks.wait()).await.expect("its task ends");
    }
}

fn prompt(office: OfficeId, agent: Option<AgentId>, key: &str) -> NewCommand {
    NewCommand {
        office,
        kind: "send_prompt".to_owned(),
        args: json!({"prompt": "안녕하세요\nsecond line"}),
        key: key.to_owned(),
        agent,
        session: None,
    }
}

fn done(claimed: &ClaimedCommand) -> CompleteArgs {
    CompleteArgs {
        command: claimed.id,
        token: claimed.lease_token,
        result: ResultId(Uuid::new_v4()),
        status: FinalStatus::Succeeded,
        outcome: Some("done".to_owned()),
        output: Some(json!({"text": "fertig"})),
        error: None,
        evidence: Some(json!({"rule": "stop_hook", "claims": []})),
        timings: Some(json!({"turn_ms": 12})),
    }
}

/// An office with an agent and a registered client, all of one owner.
struct Setting {
    office: OfficeId,
    agent: AgentId,
    client: ClientId,
}

async fn furnish(owner: &Rest) -> Setting {
    let office = owner.create_office("Second floor").await.expect("an office").id;
    let draft = AgentDraft {
        agent: AgentId(Uuid::new_v4()),
        role: "FE".to_owned(),
        name: "Mina".to_owned(),
        prompt: "You build the window.".to_owned(),
        scope_patterns: vec!["ui/**".to_owned(), "a,b{c}\"d\"".to_owned()],
        core_skills: vec!["svelte".to_owned()],
    };
    let agent = owner.upsert_agent(office, &draft).await.expect("an agent");
    assert_eq!(
        (agent.id, &agent.persona().scope_patterns),
        (draft.agent, &draft.scope_patterns)
    );
    let client = ClientId(Uuid::new_v4());
    owner
        .register_client(office, client, "desk", "linux", "0.1.0")
        .await
        .expect("registered");
    owner
        .register_client(office, client, "desk", "linux", "0.1.1")
        .await
        .expect("registered again");
    Setting {
        office,
        agent: agent.id,
        client,
    }
}

#[tokio::test]
async fn a_command_goes_from_the_doorbell_to_its_recorded_result() {
    let folder = tempfile::tempdir().expect("a folder");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let hub = start_hub(folder.path(), any_port(), clock.clone()).await;
    let owner = member(&hub, "owner@semo.test", clock.clone()).await;
    let wrong = auth_for(&hub, clock.clone())
        .sign_in("owner@semo.test", "guess")
        .await;
    assert!(matches!(wrong, Err(AuthError::WrongPassword)), "{wrong:?}");

    let Setting {
        office,
        agent,
        client,
    } = furnish(&owner).await;
    assert_eq!(
        owner
            .offices()
            .await
            .expect("offices")
            .iter()
            .map(|row| row.id)
            .collect::<Vec<_>>(),
        [office]
    );
    assert_eq!(owner.agents(office).await.expect("agents")[0].name, "Mina");
    let mut ear = Ear::listen(&owner, Topic::office_commands(office), clock.clone());
    let mut inserts = Ear::listen(&owner, Topic::office_commands_and_inserts(office), clock.clone());
    ear.live().await;
    inserts.live().await;

    let command = owner
        .enqueue_command(&prompt(office, Some(agent), "k1"))
        .await
        .expect("enqueued");
    assert_eq!(
        (command.state, command.agent_id),
        (CommandState::Queued, Some(agent))
    );
    let again = owner
        .enqueue_command(&prompt(office, Some(agent), "k1"))
        .await
        .expect("the first one back");
    assert_eq!(again.id, command.id, "one key, one command");
    let other = owner.enqueue_command(&prompt(office, None, "k1")).await;
    assert!(matches!(other, Err(RestError::Conflict { .. })), "{other:?}");
    let bell = ear.doorbell("command", command.id).await;
    assert!(bell.get("args").is_none(), "a doorbell carries ids only: {bell}");
    assert_eq!(
        inserts.doorbell("INSERT", command.id).await["kind"],
        "send_prompt"
    );

    let claimed = owner
        .claim_commands(office, client, 10, 60)
        .await
        .expect("claimed");
    let [claimed] = claimed.as_slice() else {
        panic!("one command, not {claimed:?}")
    };
    assert_eq!(
        (claimed.id, claimed.attempt, &claimed.args),
        (command.id, 1, &command.args)
    );
    assert_eq!(
        owner
            .claim_commands(office, client, 10, 60)
            .await
            .expect("none left"),
        []
    );
    let renewal = owner
        .renew_lease(claimed.id, claimed.lease_token, 60)
        .await
        .expect("renewed");
    assert_eq!(
        renewal,
        Renewal {
            held: true,
            cancel: false
        }
    );
    let stale = owner
        .renew_lease(claimed.id, Uuid::new_v4(), 60)
        .await
        .expect("an answer");
    assert!(!stale.held, "another token holds nothing");

    let report = done(claimed);
    assert_eq!(
        owner.complete_command(&report).await.expect("an answer"),
        Completion::Recorded
    );
    assert_eq!(
        owner.complete_command(&report).await.expect("an answer"),
        Completion::Duplicate
    );
    assert_eq!(
        owner.complete_command(&done(claimed)).await.expect("an answer"),
        Completion::Late
    );
    ear.doorbell("result", command.id).await;
    let row = owner
        .command(command.id)
        .await
        .expect("a row")
        .expect("the command");
    assert!(
        row.state == CommandState::Succeeded && row.finished_at.is_some(),
        "{row:?}"
    );
    let results = owner.results(&[command.id]).await.expect("results");
    let statuses: Vec<ResultStatus> = results.iter().map(|result| result.status).collect();
    assert_eq!(statuses, [ResultStatus::Succeeded, ResultStatus::Late]);
    assert_eq!(
        (results[0].id, &results[0].output),
        (report.result, &report.output)
    );

    ear.end().await;
    inserts.end().await;
    hub.stop().await.expect("the hub stops");
}

#[tokio::test]
async fn a_command_can_be_given_up_before_and_during_its_work() {
    let folder = tempfile::tempdir().expect("a folder");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let hub = start_hub(folder.path(), any_port(), clock.clone()).await;
    let owner = member(&hub, "owner@semo.test", clock.clone()).await;
    let Setting {
        office,
        agent,
        client,
    } = furnish(&owner).await;
    let mut ear = Ear::listen(&owner, Topic::office_commands(office), clock.clone());
    ear.live().await;

    let waiting = owner
        .enqueue_command(&prompt(office, Some(agent), "k1"))
        .await
        .expect("enqueued");
    assert_eq!(
        owner.cancel_command(waiting.id).await.expect("an answer"),
        CancelAnswer::Cancelled
    );
    assert_eq!(
        owner.cancel_command(waiting.id).await.expect("an answer"),
        CancelAnswer::Cancelled
    );
    assert_eq!(
        owner.claim_commands(office, client, 10, 60).await.expect("none"),
        []
    );

    let session = SessionDraft {
        session: SessionId(Uuid::new_v4()),
        office,
        client,
        agent,
        state: "idle".to_owned(),
        repository: "sample".to_owned(),
        branch: "semo/fe".to_owned(),
    };
    owner.upsert_session(&session).await.expect("a session");
    assert_eq!(
        owner.sessions(office).await.expect("sessions")[0].id,
        session.session
    );
    let of_session = NewCommand {
        session: Some(session.session),
        ..prompt(office, Some(agent), "k2")
    };
    let running = owner.enqueue_command(&of_session).await.expect("enqueued");
    let claimed = owner
        .claim_commands(office, client, 1, 60)
        .await
        .expect("claimed")
        .remove(0);
    assert_eq!(claimed.session_id, Some(session.session));
    ear.doorbell("command", running.id).await;
    assert_eq!(
        owner.cancel_command(running.id).await.expect("an answer"),
        CancelAnswer::Requested
    );
    assert_eq!(ear.doorbell("command", running.id).await["cancel"], true);
    let renewal = owner
        .renew_lease(running.id, claimed.lease_token, 60)
        .await
        .expect("renewed");
    assert_eq!(
        renewal,
        Renewal {
            held: true,
            cancel: true
        }
    );
    let given_up = CompleteArgs {
        status: FinalStatus::Cancelled,
        outcome: None,
        ..done(&claimed)
    };
    assert_eq!(
        owner.complete_command(&given_up).await.expect("an answer"),
        Completion::Recorded
    );
    assert_eq!(
        owner.cancel_command(running.id).await.expect("an answer"),
        CancelAnswer::Cancelled
    );
    let newest = owner.commands(office, 1).await.expect("rows");
    assert_eq!(
        (newest.len(), newest[0].id, newest[0].state),
        (1, running.id, CommandState::Cancelled)
    );

    ear.end().await;
    hub.stop().await.expect("the hub stops");
}

#[tokio::test]
async fn a_stranger_sees_hears_and_does_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let hub = start_hub(folder.path(), any_port(), clock.clone()).await;
    let owner = member(&hub, "owner@semo.test", clock.clone()).await;
    let Setting { office, agent, .. } = furnish(&owner).await;
    let stranger = member(&hub, "stranger@semo.test", clock.clone()).await;

    let ear = Ear::listen(&stranger, Topic::office_commands(office), clock.clone());
    let mut watch = ear.handle.watch();
    let refused = watch.wait_for(|state| matches!(state, ConnectionState::Backoff { permanent: true, .. }));
    let refused = timeout(SOON, refused)
        .await
        .expect("refused in time")
        .expect("a state")
        .clone();
    let ConnectionState::Backoff { why, .. } = &refused else {
        unreachable!()
    };
    assert!(why.contains("permissions"), "{why}");

    let command = owner
        .enqueue_command(&prompt(office, Some(agent), "k1"))
        .await
        .expect("enqueued");
    assert_eq!(stranger.offices().await.expect("none"), []);
    assert_eq!(stranger.agents(office).await.expect("none"), []);
    assert_eq!(stranger.commands(office, 10).await.expect("none"), []);
    assert_eq!(stranger.command(command.id).await.expect("none"), None);
    assert_eq!(stranger.results(&[command.id]).await.expect("none"), []);
    let unknown = OfficeId(Uuid::new_v4());
    for place in [office, unknown] {
        let tried = stranger.enqueue_command(&prompt(place, None, "k2")).await;
        let Err(RestError::Forbidden { message, .. }) = &tried else {
            panic!("{tried:?}")
        };
        assert_eq!(
            message, "not allowed in this office",
            "a foreign office is as unknown as one that is not there"
        );
        let tried = stranger
            .claim_commands(place, ClientId(Uuid::new_v4()), 10, 60)
            .await;
        assert!(matches!(tried, Err(RestError::Forbidden { .. })), "{tried:?}");
    }
    let tried = stranger.cancel_command(command.id).await;
    assert!(matches!(tried, Err(RestError::NotFound { .. })), "{tried:?}");
    assert_eq!(
        owner
            .command(command.id)
            .await
            .expect("a row")
            .map(|row| row.state),
        Some(CommandState::Queued)
    );

    stranger.auth().sign_out().await.expect("signed out");
    assert!(matches!(
        stranger.offices().await,
        Err(RestError::Unauthorized { .. })
    ));
    ear.end().await;
    hub.stop().await.expect("the hub stops");
}

#[tokio::test]
async fn an_expired_token_is_replaced_on_the_way() {
    let folder = tempfile::tempdir().expect("a folder");
    let hub_clock = Arc::new(TestClock::default());
    let hub = start_hub(folder.path(), any_port(), hub_clock.clone()).await;
    // The client's clock stands still: it believes its token to be good until the hub says otherwise.
    let clock: Arc<dyn Clock> = Arc::new(TestClock::default());
    let owner = member(&hub, "owner@semo.test", clock.clone()).await;
    let before = owner.auth().access_token().await.expect("a token");
    let Setting { office, .. } = furnish(&owner).await;

    hub_clock.advance_ms(2 * 3_600_000);
    assert_eq!(owner.offices().await.expect("refreshed and repeated").len(), 1);
    assert_ne!(owner.auth().access_token().await.expect("a token"), before);

    hub_clock.advance_ms(2 * 3_600_000);
    let ear = Ear::listen(&owner, Topic::office_commands(office), Arc::new(SystemClock));
    ear.live().await;
    ear.end().await;
    hub.stop().await.expect("the hub stops");
}

#[tokio::test]
async fn a_hub_that_was_restarted_finds_its_clients_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let hub = start_hub(folder.path(), any_port(), clock.clone()).await;
    let listen: SocketAddr = hub
        .url()
        .trim_start_matches("http://")
        .parse()
        .expect("an address");
    let owner = member(&hub, "owner@semo.test", clock.clone()).await;
    let Setting {
        office,
        agent,
        client,
    } = furnish(&owner).await;
    let mut ear = Ear::listen(&owner, Topic::office_commands(office), clock.clone());
    ear.live().await;
    let kept = owner
        .enqueue_command(&prompt(office, Some(agent), "k1"))
        .await
        .expect("enqueued");

    hub.stop().await.expect("the hub stops");
    let mut watch = ear.handle.watch();
    let away = watch.wait_for(|state| matches!(state, ConnectionState::Backoff { .. }));
    timeout(SOON, away)
        .await
        .expect("noticed in time")
        .expect("a state");
    let error = owner.offices().await.expect_err("nobody there");
    assert!(error.is_passing(), "{error}");

    let hub = start_hub(folder.path(), listen, clock.clone()).await;
    ear.handle.nudge();
    ear.live().await;
    let fresh = owner
        .enqueue_command(&prompt(office, Some(agent), "k2"))
        .await
        .expect("enqueued");
    ear.doorbell("command", fresh.id).await;
    let claimed = owner
        .claim_commands(office, client, 10, 60)
        .await
        .expect("claimed");
    assert_eq!(
        claimed.iter().map(|command| command.id).collect::<Vec<_>>(),
        [kept.id, fresh.id]
    );
    ear.end().await;
    hub.stop().await.expect("the hub stops");
}
