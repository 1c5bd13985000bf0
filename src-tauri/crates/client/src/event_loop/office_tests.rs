//! Making an office with its first agents, against an office that is cut off at each point of it.

use std::sync::Mutex;

use domain::Timestamp;
use serde_json::{Value, json};
use supabase::{MemoryTokenStore, Project, Tokens};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use super::*;
use crate::clock::SystemClock;

/// Offices and agents as a database has them, as far as it matters here.
#[derive(Default)]
struct Database {
    offices: Vec<Value>,
    agents: Vec<Value>,
    /// Writes that come through; the answer to the next one is lost.
    writes_left: usize,
}

impl Database {
    /// What is answered; `None`: it was done, and the answer is lost.
    fn answer(&mut self, line: &str, body: &Value) -> Option<Value> {
        if line.contains("/rest/v1/offices") {
            return Some(json!(self.offices));
        }
        if line.contains("/rest/v1/agents") {
            return Some(json!(self.agents));
        }
        let row = if line.contains("create_office") {
            let id = Uuid::from_u128(900 + self.offices.len() as u128);
            let row = json!({ "id": id, "name": body["p_name"], "created_at": "2026-01-01T00:00:00Z" });
            self.offices.push(row.clone());
            row
        } else {
            let row = json!({
                "id": body["p_agent"], "office_id": body["p_office"], "role": body["p_role"], "name": body["p_name"],
            });
            self.agents.retain(|known| known["id"] != row["id"]);
            self.agents.push(row.clone());
            row
        };
        self.writes_left = self.writes_left.checked_sub(1)?;
        Some(row)
    }
}

async fn serve(mut stream: TcpStream, database: Arc<Mutex<Database>>) -> std::io::Result<()> {
    let mut request = Vec::new();
    let (head, body) = loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length")
                    .then(|| value.trim().parse().ok())?
            });
            if body.len() >= length.unwrap_or(0) {
                break (head.to_owned(), body.to_owned());
            }
        }
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    };
    let body = serde_json::from_str(&body).unwrap_or_default();
    let line = head.lines().next().unwrap_or_default();
    let answer = database.lock().unwrap().answer(line, &body);
    let (status, text) = match answer {
        Some(answer) => ("200 OK", answer.to_string()),
        None => ("502 Bad Gateway", "{}".to_owned()),
    };
    let length = text.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{text}"
    );
    stream.write_all(answer.as_bytes()).await
}

fn first_office() -> FirstOffice {
    let agent = |role: &str| FirstAgent {
        role: role.to_owned(),
        name: role.to_owned(),
        prompt: String::new(),
        scope_patterns: Vec::new(),
        core_skills: Vec::new(),
    };
    FirstOffice {
        name: "Team".to_owned(),
        agents: vec![agent("FE"), agent("BE")],
    }
}

/// The office's REST, on a database in memory.
async fn rest(tasks: &TaskTracker, database: &Arc<Mutex<Database>>) -> Rest {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (its, serving) = (database.clone(), tasks.clone());
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            serving.spawn(serve(stream, its.clone()));
        }
    });
    let project = Project::new(&url, "sb_publishable_test").unwrap();
    let forever = Timestamp(i64::MAX / 2);
    let tokens = Tokens {
        access_token: "access".to_owned(),
        refresh_token: "refresh".to_owned(),
        refresh_at: forever,
        expires_at: forever,
        user: UserId(Uuid::nil()),
        email: "a@b.c".to_owned(),
        project: project.url.clone(),
    };
    let store = Arc::new(MemoryTokenStore::with(tokens));
    let auth = supabase::Auth::new(project.clone(), Arc::new(SystemClock), store).unwrap();
    Rest::new(project, auth)
}

#[tokio::test]
async fn an_office_that_was_made_half_way_is_taken_up_the_next_time_and_made_once() {
    let tasks = TaskTracker::new();
    for writes_left in 0..3 {
        let database = Arc::new(Mutex::new(Database {
            writes_left,
            ..Database::default()
        }));
        let rest = rest(&tasks, &database).await;
        let error = make_with_agents(&rest, &first_office()).await.unwrap_err();
        let half_made = error.message.contains("not all of its agents");
        assert_eq!(half_made, writes_left > 0, "{error:?}");
        database.lock().unwrap().writes_left = usize::MAX;
        let office = make_with_agents(&rest, &first_office()).await.unwrap();
        let database = database.lock().unwrap();
        let made: Vec<_> = database.offices.iter().map(|row| &row["name"]).collect();
        assert_eq!((made, office.name.as_str()), (vec![&json!("Team")], "Team"));
        let roles: Vec<_> = database.agents.iter().map(|row| &row["role"]).collect();
        assert_eq!(roles, ["FE", "BE"], "{writes_left}");
    }
}

#[tokio::test]
async fn an_office_of_that_name_in_which_others_work_keeps_its_own_agents() {
    let tasks = TaskTracker::new();
    let id = Uuid::from_u128(900);
    let database = Arc::new(Mutex::new(Database {
        offices: vec![json!({ "id": id, "name": "Team", "created_at": "2026-01-01T00:00:00Z" })],
        agents: vec![json!({ "id": Uuid::from_u128(7), "office_id": id, "role": "QA", "name": "Sora" })],
        writes_left: usize::MAX,
    }));
    let rest = rest(&tasks, &database).await;
    make_with_agents(&rest, &first_office()).await.unwrap();
    assert_eq!(database.lock().unwrap().agents.len(), 1);
}
