//! A machine that turns to another project while something of the first one is under way or not told yet: it waits for
//! its own office, comes to its end, and nobody else hears of it.

use domain::CommandId;
use harness::program::{Place, Up, code, err};
use harness::proxy::{Act, FaultProxy};
use harness::remote::{EMAIL, PASSWORD, Remote};
use harness::stub::{Gate, Stub};
use harness::wait::{LONG, wait_until};
use harness::world::result_of;
use serde_json::{Value, json};
use supabase::{CommandState, ResultStatus};

/// No model is asked.
const NO_MODEL: &str = "http://127.0.0.1:9";
/// What brings a result.
const REPORT: &str = "rpc/complete_command";

/// A team's office, and the way to it.
struct Team {
    remote: Remote,
    proxy: FaultProxy,
    _dir: tempfile::TempDir,
}

impl Team {
    async fn start() -> Team {
        let dir = tempfile::tempdir().expect("a folder");
        let remote = Remote::start(dir.path(), 0).await;
        let proxy = FaultProxy::start(remote.hub.url()).await;
        Team {
            remote,
            proxy,
            _dir: dir,
        }
    }

    /// Signs the machine in here, while nothing runs on it; what `semo login` says beside that.
    async fn log_in(&self, place: &mut Place) -> String {
        place.set("SEMO_PASSWORD", PASSWORD);
        let key = &self.remote.hub.keys().publishable;
        let args = ["login", "--url", self.proxy.url(), "--key", key, "--email", EMAIL];
        let done = place.run(&args).await;
        place.set("SEMO_PASSWORD", "");
        assert_eq!(code(&done), Some(0), "{}", err(&done));
        err(&done)
    }

    /// Starts the core, and waits until it takes commands here.
    async fn up(&self, place: &Place) -> Up {
        let before = self.claims();
        let up = place.up().await;
        wait_until("its commands are taken", LONG, || async {
            self.claims() > before
        })
        .await;
        up
    }

    fn claims(&self) -> usize {
        self.proxy.seen("rpc/claim_commands").len()
    }

    /// Has a command carried out that needs no agent.
    async fn enqueue(&self) -> CommandId {
        self.remote.enqueue("list_sessions", json!({}), None).await
    }

    async fn succeeds(&self, id: CommandId) {
        let (row, result) = result_of(&self.remote.rest, id).await;
        assert_eq!(row.state, CommandState::Succeeded, "{result:?}");
        let results = self.remote.rest.results(&[id]).await.expect("the results");
        let ends = results
            .iter()
            .filter(|result| result.status != ResultStatus::Progress);
        assert_eq!(ends.count(), 1, "one end and no more: {results:?}");
    }

    async fn stop(self) {
        self.proxy.stop().await;
        self.remote.hub.stop().await.expect("the hub stops");
    }
}

/// The commands whose results stand in the journal and are not reported.
fn waiting(place: &Place) -> Vec<CommandId> {
    let file = place.dir.path().join("data/journal.sqlite");
    let journal = journal::Journal::open_to_read(&file).expect("the journal");
    journal.unanswered(None, 9).expect("what waits")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_waits_for_its_own_office_through_a_time_at_another_project_which_sees_nothing_of_it() {
    let (a, b) = (Team::start().await, Team::start().await);
    let mut place = Place::new(NO_MODEL);
    a.log_in(&mut place).await;
    let up = a.up(&place).await;
    a.proxy.trap(REPORT, u32::MAX, Act::CutRequest);
    let waiting = a.enqueue().await;
    wait_until("it is done and cannot be told", LONG, || async {
        !a.proxy.seen(REPORT).is_empty()
    })
    .await;
    // Nothing in memory stands for it any more.
    up.signal("KILL");
    up.ended().await;

    let told = b.log_in(&mut place).await;
    assert!(told.contains("wait here"), "{told}");
    assert_eq!(place.sign_ins().len(), 2, "it can still be brought there");
    let up = b.up(&place).await;
    let own = b.enqueue().await;
    b.succeeds(own).await;
    assert_eq!(b.proxy.seen(REPORT).len(), 1, "its own and no other");
    place.down(up).await;

    a.proxy.disarm();
    a.log_in(&mut place).await;
    let up = place.up().await;
    a.succeeds(waiting).await;
    assert_eq!(b.proxy.seen(REPORT).len(), 1);
    place.down(up).await;
    a.stop().await;
    b.stop().await;
}

/// A turn of the one team runs behind the gate while the other one is served: its command, and the core.
async fn turn_of_another(a: &Team, b: &Team, place: &mut Place, stub: &Stub) -> (CommandId, Up, Gate) {
    let sample = place.dir.path().join("sample");
    worktree::sample_repository(&sample).await.expect("a repository");
    let config = place.dir.path().join("config");
    std::fs::create_dir_all(&config).expect("a folder");
    let settings = format!("[repositories]\nsample = {:?}\n", sample.display().to_string());
    std::fs::write(config.join("settings.toml"), settings).expect("settings");
    a.log_in(place).await;
    let up = a.up(place).await;
    let gate = stub.hold("Slowly.");
    let id = place.begin(stub, "Slowly.").await;
    let left = place.run(&["down", "--leave"]).await;
    assert_eq!(code(&left), Some(0), "{}", err(&left));
    assert_eq!(up.ended().await, Some(0));

    b.log_in(place).await;
    let up = b.up(place).await;
    wait_until("its session is found", LONG, || async {
        up.state().await["launch"]["taken_up"] == 1
    })
    .await;
    assert!(waiting(place).is_empty(), "its turn runs");
    (id.parse().expect("an id"), up, gate)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_waits_for_a_turn_of_another_account_says_so() {
    let (a, b) = (Team::start().await, Team::start().await);
    let stub = Stub::start().await.expect("the stub of the model");
    let mut place = Place::new(&stub.url());
    let (id, up, gate) = turn_of_another(&a, &b, &mut place, &stub).await;
    up.signal("INT");
    wait_until("it is shown for what it waits", LONG, || async {
        up.state().await["ending"] == json!({ "how": "finish", "turns": 1 })
    })
    .await;
    gate.open();
    assert_eq!(up.ended().await, Some(0));
    assert_eq!(waiting(&place), [id], "its result is kept for its own office");
    stub.stop().await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_runs_goes_to_its_end_while_another_project_is_served_and_its_own_office_hears_of_it() {
    let (a, b) = (Team::start().await, Team::start().await);
    let stub = Stub::start().await.expect("the stub of the model");
    let mut place = Place::new(&stub.url());
    let (id, up, gate) = turn_of_another(&a, &b, &mut place, &stub).await;
    gate.open();
    wait_until("it has ended by itself", LONG, || async {
        !waiting(&place).is_empty()
    })
    .await;
    assert_eq!(place.holders().len(), 1, "its session is left as it is");
    for call in [
        "rpc/renew_lease",
        "rpc/begin_command",
        "rpc/upsert_session",
        REPORT,
    ] {
        assert_eq!(b.proxy.seen(call), [], "{call}");
    }
    place.down(up).await;

    a.log_in(&mut place).await;
    let up = place.up().await;
    a.succeeds(id).await;
    let (_, result) = result_of(&a.remote.rest, id).await;
    assert_eq!(result.outcome.as_deref(), Some("done"), "{result:?}");
    let asked = stub
        .turns()
        .into_iter()
        .filter(|turn| turn.prompt().is_some_and(|said| said.contains("Slowly.")));
    assert_eq!(asked.count(), 1, "and it is not done again");
    let state: Value = up.state().await;
    assert_eq!(state["problems"], json!([]), "{state}");
    place.down(up).await;
    stub.stop().await;
    a.stop().await;
    b.stop().await;
}
