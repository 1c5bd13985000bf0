//! Two cores that could take each other for themselves: a data folder that was copied on one machine, and a connection to
//! a holder that breaks for no reason that anybody knows.

use std::time::Duration;

use cli::machine::{Core, StopHow};
use cli::world::World;
use domain::CommandId;
use harness::claude::ClaudeHome;
use harness::guard::EndsLeft;
use harness::processes::{built, cut};
use harness::program::{Place, code, err};
use harness::remote::Remote;
use harness::stub::Stub;
use harness::wait::{LONG, wait_until};
use harness::world::{problem_of, result_of};
use serde_json::{Value, json};
use supabase::CommandState;
use terminal::{Held, Holders};

/// Prompts that go to whichever of the two takes them.
const MORE: usize = 4;
/// A launch that comes after all that count milliseconds.
const LATER: u64 = 9_000_000_000_000;

/// A team's office and a workstation of it.
struct Team {
    remote: Remote,
    stub: Stub,
    original: World,
    // Before the folders go: what a failed story leaves is ended.
    _guards: Vec<EndsLeft>,
    _home: ClaudeHome,
    _office: tempfile::TempDir,
    dir: tempfile::TempDir,
}

impl Team {
    async fn new() -> Team {
        let folder = || tempfile::tempdir().expect("a folder");
        let (office, dir, home) = (folder(), folder(), ClaudeHome::new());
        let remote = Remote::start(office.path(), 0).await;
        let stub = Stub::start().await.expect("the stub");
        let original = remote.workstation(dir.path(), &home, &stub.url()).await;
        Team {
            remote,
            stub,
            original,
            _guards: vec![EndsLeft::of(dir.path())],
            _home: home,
            _office: office,
            dir,
        }
    }

    /// `cp -r` of the workstation's data folder, while it works.
    fn copy(&self) -> World {
        let mut copy = self.original.clone();
        copy.paths.data_dir = self.dir.path().join("copy");
        // Sockets and what goes away meanwhile cannot be copied: whoever does this does not care either.
        let _ = std::process::Command::new("cp")
            .arg("-r")
            .arg(&self.original.paths.data_dir)
            .arg(&copy.paths.data_dir)
            .stderr(std::process::Stdio::null())
            .status()
            .expect("cp runs");
        copy
    }

    async fn send(&self, prompt: &str) -> CommandId {
        let args = json!({ "prompt": prompt });
        let agent = Some(self.remote.agent.id);
        self.remote.enqueue("send_prompt", args, agent).await
    }

    /// Sends a prompt, and waits until its turn has begun.
    async fn begin(&self, prompt: &str) -> CommandId {
        let id = self.send(prompt).await;
        self.stub
            .turn_where("the turn has begun", LONG, |request| {
                request.prompt().is_some_and(|said| said.contains(prompt))
            })
            .await;
        id
    }

    async fn is_done(&self, id: CommandId) {
        let (row, result) = result_of(&self.remote.rest, id).await;
        assert_eq!(row.state, CommandState::Succeeded, "{result:?}");
    }

    fn times_at_the_model(&self, prompt: &str) -> usize {
        let turns = self.stub.turns();
        let said = turns
            .iter()
            .filter(|turn| turn.prompt().is_some_and(|said| said.contains(prompt)));
        said.count()
    }

    async fn stop(self, cores: Vec<Core>) {
        for core in cores {
            core.stop(StopHow::Now).await;
        }
        self.stub.stop().await;
        self.remote.hub.stop().await.expect("the hub stops");
    }
}

/// What a data folder goes by.
fn identity(world: &World) -> Value {
    let text = std::fs::read(world.paths.identity()).expect("its identity");
    serde_json::from_slice(&text).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_that_was_copied_in_mid_turn_is_a_client_of_its_own_and_no_prompt_is_carried_out_twice()
{
    let team = Team::new().await;
    let one = Core::start(&team.original).await.expect("a workstation");
    let gate = team.stub.hold("Slowly.");
    let slow = team.begin("Slowly.").await;
    let copy = team.copy();
    let two = Core::start(&copy).await.expect("the copy");
    let told = problem_of(&two, "copied_folder").await;
    let words = told["message"].as_str().unwrap_or_default();
    let original = team.original.paths.data_dir.display().to_string();
    assert!(words.contains("a copy of") && words.contains(&original), "{told}");
    assert_ne!(identity(&copy)["client"], identity(&team.original)["client"]);
    let mut more = Vec::new();
    for number in 0..MORE {
        more.push(team.send(&format!("Number {number}, please. scn=text")).await);
    }
    gate.open();
    team.is_done(slow).await;
    for id in more {
        team.is_done(id).await;
    }
    assert_eq!(team.times_at_the_model("Slowly"), 1);
    for number in 0..MORE {
        assert_eq!(team.times_at_the_model(&format!("Number {number}, please.")), 1);
    }
    assert!(
        one.taken_over().is_none() && two.taken_over().is_none(),
        "both go on"
    );
    team.stop(vec![one, two]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_cores_that_cannot_see_that_one_is_a_copy_the_office_lets_one_work_and_the_other_ends_calmly()
{
    let team = Team::new().await;
    let one = Core::start(&team.original).await.expect("a workstation");
    let gate = team.stub.hold("Slowly.");
    let slow = team.begin("Slowly.").await;
    let copy = team.copy();
    // As where the two lie in containers of their own: the original is not to be seen from the copy.
    let mut known = identity(&copy);
    known["folder"]["path"] = json!("/no/such/place");
    std::fs::write(copy.paths.identity(), known.to_string()).expect("its identity");
    let two = Core::start(&copy).await.expect("the copy");
    tokio::time::timeout(LONG, one.failed())
        .await
        .expect("the first one ends itself");
    let why = one.taken_over().expect("that is no fault");
    assert!(why.message.contains("took over"), "{why:?}");
    one.stop(StopHow::Leave).await;
    assert_eq!(identity(&copy)["client"], identity(&team.original)["client"]);
    let next = team.send("And now this. scn=text").await;
    team.is_done(next).await;
    assert_eq!(team.times_at_the_model("Slowly"), 1);

    // Whoever starts the first one again has his agents back, and the copy ends.
    let one = Core::start(&team.original).await.expect("the workstation again");
    tokio::time::timeout(LONG, two.failed())
        .await
        .expect("now the copy ends itself");
    assert!(two.taken_over().is_some());
    two.stop(StopHow::Leave).await;
    gate.open();
    team.is_done(slow).await;
    assert_eq!(team.times_at_the_model("Slowly"), 1);
    assert_eq!(team.times_at_the_model("And now this."), 1);
    team.stop(vec![one]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_to_a_holder_that_breaks_is_no_takeover_and_the_turn_goes_on() {
    let stub = Stub::start().await.expect("the stub");
    let place = Place::new(&stub.url());
    let up = place.up().await;
    let gate = stub.hold("Slowly.");
    let id = place.begin(&stub, "Slowly.").await;
    let holder = place.holders().first().expect("its holder").pid;
    for _ in 0..3 {
        wait_until("there is a connection to cut", LONG, || async {
            cut(holder, up.pid())
        })
        .await;
    }
    gate.open();
    let command = up.over(&id).await;
    assert_eq!(command["outcome"], "done", "{command}");
    let state = up.state().await;
    assert_eq!(state["problems"], json!([]), "{}", state["problems"]);
    let next = place
        .run(&["send", "--agent", "FE", "Say hello.", "--wait"])
        .await;
    assert_eq!(code(&next), Some(0), "{}", err(&next));
    place.down(up).await;
    stub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_core_in_whose_place_another_one_comes_ends_with_plain_words_and_without_a_fault() {
    let stub = Stub::start().await.expect("the stub");
    let place = Place::new(&stub.url());
    let (up, said) = place.follow(&["up"]);
    wait_until("it is there", LONG, || async {
        std::fs::read_to_string(&said).is_ok_and(|said| said.contains("Open the office"))
    })
    .await;
    place.begin(&stub, "Slowly. scn=slow:2400").await;
    // A later core takes the session: as where a network drive has lost the lock.
    let data = place.dir.path().join("data/holders");
    let later = Holders::of_processes(built("semo-holder"), data, LATER, LONG);
    let mut taken = Vec::new();
    for tag in later.tags().expect("its sessions") {
        if let Held::Attached(terminal) = later.attach(&tag).await {
            taken.push(terminal);
        }
    }
    assert_eq!(taken.len(), 1);
    assert_eq!(up.ended().await, Some(0));
    let words = std::fs::read_to_string(&said).expect("what it said");
    assert!(
        words.contains("another SEMO Office on this computer took over"),
        "{words}"
    );
    assert!(words.contains("its sessions go on there"), "{words}");
    for terminal in taken {
        let proof = terminal.stop(Duration::from_secs(5)).await.expect("it ends");
        assert!(proof.is_proven());
    }
    stub.stop().await;
}
