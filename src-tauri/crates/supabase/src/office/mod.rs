//! The office as typed calls: one method per SQL function, one per read. The names and arguments are the contract with
//! `migrations/supabase`; the functions are the only writers, and each may be called again with the same arguments.
//!
//! Called by `client` (claim, renew, complete), `cli` and `api` (enqueue, follow, lists).

mod rows;

use domain::{AgentId, AskId, ClientId, CommandId, OfficeId, ResultId, SessionId, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

pub use self::rows::{
    AgentRow, AskClosing, AskRow, AskState, BeginAnswer, CancelAnswer, ClaimedCommand, ClientRow, CommandRow,
    CommandState, Completion, FinalStatus, OfficeRow, Renewal, ResultRow, ResultStatus, SessionRow,
};
use crate::rest::{Readable, Rest, RestError, Select};

/// PostgREST's code for a function that the database does not have, or not with these arguments.
pub const NO_SUCH_FUNCTION: &str = "PGRST202";

/// Ids per request in an `in` filter: 50 of 39 characters keep the request line below 4 KiB.
const IDS_PER_REQUEST: usize = 50;
/// Results per request: no more than what Supabase gives at once by default.
const RESULTS_PER_REQUEST: usize = 1000;
/// Requests for one batch: each of its commands may have 200 rows of progress beside the final one.
const RESULT_PAGES_MAX: usize = 11;

/// A command to be put into the office.
#[derive(Debug, Clone, PartialEq)]
pub struct NewCommand {
    /// Which office.
    pub office: OfficeId,
    /// `send_prompt` … (see `domain::command`).
    pub kind: String,
    /// Its arguments; an object.
    pub args: Value,
    /// The same key again gives the first command back; with other content it is a conflict.
    pub key: String,
    /// Which agent is to do it; `None`: any.
    pub agent: Option<AgentId>,
    /// Which session it is about; only the client that has it will get the command.
    pub session: Option<SessionId>,
}

/// An agent to be made, or its new persona.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentDraft {
    /// Made by the caller; the same id again changes the agent.
    pub agent: AgentId,
    /// `FE`, `BE`, `QA` …
    pub role: String,
    /// Its name; unique in the office.
    pub name: String,
    /// What it is told about itself.
    pub prompt: String,
    /// Path patterns it is responsible for.
    pub scope_patterns: Vec<String>,
    /// What it is good at.
    pub core_skills: Vec<String>,
}

/// A session's row, as the client reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionDraft {
    /// The session.
    pub session: SessionId,
    /// Its office.
    pub office: OfficeId,
    /// The client it runs on.
    pub client: ClientId,
    /// Its agent.
    pub agent: AgentId,
    /// `starting`, `idle`, `working` … (names of `domain::session::SessionState`).
    pub state: String,
    /// Name of the repository.
    pub repository: String,
    /// Branch of its worktree.
    pub branch: String,
}

/// Which commands a client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim<'a> {
    /// Of which office.
    pub office: OfficeId,
    /// For which client.
    pub client: ClientId,
    /// Most that are taken.
    pub limit: u32,
    /// Length of their leases by the database's clock, in seconds.
    pub lease_s: u32,
    /// Of these kinds only; `None`: of any.
    pub kinds: Option<&'a [&'a str]>,
    /// All that this client has: what is leased to it beside that is given again, since an earlier answer was lost.
    /// `None`: that cannot be told, and nothing is given again before its lease is over.
    pub known: Option<&'a [CommandId]>,
    /// From which data folder this client works ([`Registration::folder`]). `None`: that is not told.
    pub folder: Option<Uuid>,
}

/// A client, as it makes itself known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registration<'a> {
    /// In which office.
    pub office: OfficeId,
    /// Its id there.
    pub client: ClientId,
    /// Its name, for people.
    pub name: &'a str,
    /// `linux`, `macos` …
    pub platform: &'a str,
    /// Version of the program.
    pub version: &'a str,
    /// The key of the data folder from which it works from now on; whoever goes by this client from another folder (a
    /// copy) is refused from here on. `None`: that stays as it is.
    pub folder: Option<Uuid>,
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq)]
pub struct CompleteArgs {
    /// The command.
    pub command: CommandId,
    /// The fencing token of the claim.
    pub token: Uuid,
    /// Made by the client once, so that a repeated report is recognised.
    pub result: ResultId,
    /// The command's final state.
    pub status: FinalStatus,
    /// `done`, `unconfirmed`, `failed`, `cancelled`, `ok` …
    pub outcome: Option<String>,
    /// What it gave.
    pub output: Option<Value>,
    /// What went wrong.
    pub error: Option<Value>,
    /// The facts behind it.
    pub evidence: Option<Value>,
    /// How long each part took.
    pub timings: Option<Value>,
}

/// An ask, as the client reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskDraft {
    /// Made by the client; the same id again changes the ask while it is pending.
    pub ask: AskId,
    /// Its office.
    pub office: OfficeId,
    /// The client that has the session.
    pub client: ClientId,
    /// The session that waits.
    pub session: SessionId,
    /// The session's agent.
    pub agent: AgentId,
    /// The command whose turn waits.
    pub command: Option<CommandId>,
    /// `permission`, `question`, `login` or `dialog`.
    pub kind: String,
    /// The tool it wants to use.
    pub tool: Option<String>,
    /// What a person needs to know to answer; at most 32 KiB.
    pub text: String,
    /// What may be chosen; together at most 64 KiB.
    pub choices: Vec<String>,
    /// When it came up.
    pub asked_at: Timestamp,
}

/// The end of an ask, as the client reports it.
#[derive(Debug, Clone, PartialEq)]
pub enum AskClose {
    /// Somebody answered.
    Answered {
        /// What was said; `None` when it was said at the agent's own terminal.
        answer: Option<Value>,
        /// `window`, `cli`, `terminal` or `command`.
        way: &'static str,
        /// The command that answered; the database finds out who made it.
        command: Option<CommandId>,
    },
    /// The agent does not wait any more.
    Withdrawn {
        /// Why, in at most 1000 characters.
        reason: String,
    },
}

impl Rest {
    /// Rings the office's own doorbell with `nonce`: whoever hears it on the office's channel has the proof that
    /// doorbells reach it. A database from before `0007_proof.sql` answers with [`NO_SUCH_FUNCTION`].
    pub async fn prove_doorbell(&self, office: OfficeId, nonce: Uuid) -> Result<(), RestError> {
        self.rpc("prove_doorbell", &json!({"p_office": office, "p_nonce": nonce}))
            .await
    }

    /// Puts a command into the office. Owners and operators only.
    pub async fn enqueue_command(&self, command: &NewCommand) -> Result<CommandRow, RestError> {
        let args = json!({
            "p_office": command.office,
            "p_kind": command.kind,
            "p_args": command.args,
            "p_key": command.key,
            "p_agent": command.agent,
            "p_session": command.session,
        });
        self.rpc("enqueue_command", &args).await
    }

    /// Makes this client known to the office; may be repeated. Owners and devices only.
    pub async fn register_client(
        &self,
        office: OfficeId,
        client: ClientId,
        name: &str,
        platform: &str,
        version: &str,
    ) -> Result<ClientRow, RestError> {
        let registration = Registration {
            office,
            client,
            name,
            platform,
            version,
            folder: None,
        };
        self.register(&registration).await
    }

    /// The same, in all that can be told. A database from before `p_folder` is [`RestError::NotFound`] with the code
    /// [`NO_SUCH_FUNCTION`].
    pub async fn register(&self, registration: &Registration<'_>) -> Result<ClientRow, RestError> {
        let mut args = json!({
            "p_office": registration.office, "p_client": registration.client, "p_name": registration.name,
            "p_platform": registration.platform, "p_version": registration.version,
        });
        if let Some(folder) = registration.folder {
            args["p_folder"] = json!(folder);
        }
        self.rpc("register_client", &args).await
    }

    /// Takes up to `limit` commands under a lease of `lease_s` seconds (the database's clock). In the order in which
    /// they are to be done.
    pub async fn claim_commands(
        &self,
        office: OfficeId,
        client: ClientId,
        limit: u32,
        lease_s: u32,
    ) -> Result<Vec<ClaimedCommand>, RestError> {
        let claim = Claim {
            office,
            client,
            limit,
            lease_s,
            kinds: None,
            known: None,
            folder: None,
        };
        self.claim(&claim).await
    }

    /// The same, in all that can be asked for. [`RestError::Conflict`]: another core works as this client, from another
    /// data folder. A database from before that is [`RestError::NotFound`] with the code
    /// [`NO_SUCH_FUNCTION`].
    pub async fn claim(&self, claim: &Claim<'_>) -> Result<Vec<ClaimedCommand>, RestError> {
        let mut args = json!({
            "p_office": claim.office, "p_client": claim.client, "p_limit": claim.limit, "p_lease_s": claim.lease_s,
        });
        // What is not said is not sent: a database from before it takes the rest.
        if let Some(kinds) = claim.kinds {
            args["p_kinds"] = json!(kinds);
        }
        if let Some(known) = claim.known {
            args["p_known"] = json!(known);
        }
        if let Some(folder) = claim.folder {
            args["p_folder"] = json!(folder);
        }
        let mut claimed: Vec<ClaimedCommand> = self.rpc("claim_commands", &args).await?;
        // RETURNING has no order.
        claimed.sort_by_key(|command| (std::cmp::Reverse(command.priority), command.seq));
        Ok(claimed)
    }

    /// Keeps a lease for `lease_s` more seconds. Not held any more: the work must stop.
    pub async fn renew_lease(
        &self,
        command: CommandId,
        token: Uuid,
        lease_s: u32,
    ) -> Result<Renewal, RestError> {
        let args = json!({"p_command": command, "p_token": token, "p_lease_s": lease_s});
        let rows: rows::OneOrMany<Renewal> = self.rpc("renew_lease", &args).await?;
        rows.first().ok_or_else(|| RestError::Malformed {
            attempted: "call renew_lease".to_owned(),
            why: "no row came back".to_owned(),
        })
    }

    /// Asks whether the first effect of a command may happen now, and keeps its lease. Only [`BeginAnswer::Begun`]
    /// allows it. `folder`: as in [`Claim::folder`]. A database from before that is [`RestError::NotFound`] with the code
    /// [`NO_SUCH_FUNCTION`].
    pub async fn begin_command(
        &self,
        command: CommandId,
        token: Uuid,
        lease_s: u32,
        folder: Option<Uuid>,
    ) -> Result<BeginAnswer, RestError> {
        let mut args = json!({"p_command": command, "p_token": token, "p_lease_s": lease_s});
        if let Some(folder) = folder {
            args["p_folder"] = json!(folder);
        }
        self.rpc("begin_command", &args).await
    }

    /// Records what came of a command. Repeat it until it answers.
    pub async fn complete_command(&self, args: &CompleteArgs) -> Result<Completion, RestError> {
        let body = json!({
            "p_command": args.command,
            "p_token": args.token,
            "p_result": args.result,
            "p_status": args.status,
            "p_outcome": args.outcome,
            "p_output": args.output,
            "p_error": args.error,
            "p_evidence": args.evidence,
            "p_timings": args.timings,
        });
        self.rpc("complete_command", &body).await
    }

    /// Asks for a command to be given up.
    pub async fn cancel_command(&self, command: CommandId) -> Result<CancelAnswer, RestError> {
        self.rpc("cancel_command", &json!({"p_command": command})).await
    }

    /// Reports a session's row.
    pub async fn upsert_session(&self, session: &SessionDraft) -> Result<SessionRow, RestError> {
        let args = json!({
            "p_session": session.session,
            "p_office": session.office,
            "p_client": session.client,
            "p_agent": session.agent,
            "p_state": session.state,
            "p_repository": session.repository,
            "p_branch": session.branch,
        });
        self.rpc("upsert_session", &args).await
    }

    /// Reports an ask; may be repeated.
    pub async fn upsert_ask(&self, ask: &AskDraft) -> Result<AskRow, RestError> {
        let args = json!({
            "p_ask": ask.ask,
            "p_office": ask.office,
            "p_client": ask.client,
            "p_session": ask.session,
            "p_agent": ask.agent,
            "p_command": ask.command,
            "p_kind": ask.kind,
            "p_tool": ask.tool,
            "p_text": ask.text,
            "p_choices": ask.choices,
            "p_asked_at": ask.asked_at.rfc3339(),
        });
        self.rpc("upsert_ask", &args).await
    }

    /// Reports the end of an ask of this user's client; may be repeated.
    pub async fn close_ask(&self, ask: AskId, close: &AskClose) -> Result<AskClosing, RestError> {
        let args = match close {
            AskClose::Answered { answer, way, command } => json!({
                "p_ask": ask, "p_state": "answered", "p_answer": answer, "p_way": way, "p_command": command,
            }),
            AskClose::Withdrawn { reason } => {
                json!({ "p_ask": ask, "p_state": "withdrawn", "p_reason": reason })
            }
        };
        self.rpc("close_ask", &args).await
    }

    /// Changes the named settings of an office, and takes away those that are null. Owners only.
    pub async fn update_office_settings(
        &self,
        office: OfficeId,
        settings: &Value,
    ) -> Result<OfficeRow, RestError> {
        let args = json!({ "p_office": office, "p_settings": settings });
        self.rpc("update_office_settings", &args).await
    }

    /// Makes an office; the caller owns it.
    pub async fn create_office(&self, name: &str) -> Result<OfficeRow, RestError> {
        self.rpc("create_office", &json!({"p_name": name})).await
    }

    /// Makes or changes an agent. Owners only.
    pub async fn upsert_agent(&self, office: OfficeId, agent: &AgentDraft) -> Result<AgentRow, RestError> {
        let args = json!({
            "p_office": office,
            "p_agent": agent.agent,
            "p_role": agent.role,
            "p_name": agent.name,
            "p_prompt": agent.prompt,
            "p_scope_patterns": agent.scope_patterns,
            "p_core_skills": agent.core_skills,
        });
        self.rpc("upsert_agent", &args).await
    }

    /// The offices the user is a member of, oldest first.
    pub async fn offices(&self) -> Result<Vec<OfficeRow>, RestError> {
        let query = Select::columns("*").order("created_at.asc");
        // All or nothing: who has none is given a first one.
        self.select("offices", query).await
    }

    /// The agents of an office, in the order in which they joined.
    pub async fn agents(&self, office: OfficeId) -> Result<Vec<AgentRow>, RestError> {
        let query = Select::columns("*")
            .eq("office_id", office)
            .order("created_at.asc,name.asc");
        // All or nothing: whoever is missing here counts as gone, and its sessions are ended.
        self.select("agents", query).await
    }

    /// The newest `limit` commands of an office, newest first.
    pub async fn commands(&self, office: OfficeId, limit: usize) -> Result<Vec<CommandRow>, RestError> {
        let query = Select::columns("*")
            .eq("office_id", office)
            .order("seq.desc")
            .limit(limit);
        Ok(self.select_readable("agent_commands", query).await?.rows)
    }

    /// One command; `None`: there is none that the user may see.
    pub async fn command(&self, id: CommandId) -> Result<Option<CommandRow>, RestError> {
        let rows: Vec<CommandRow> = self
            .select("agent_commands", Select::columns("*").eq("id", id).limit(1))
            .await?;
        Ok(rows.into_iter().next())
    }

    /// The results of these commands, oldest first within each batch of 50 commands.
    pub async fn results(&self, commands: &[CommandId]) -> Result<Vec<ResultRow>, RestError> {
        let mut results = Vec::new();
        for batch in commands.chunks(IDS_PER_REQUEST) {
            // Rows only ever come in at the end of this order, so pages do not shift under us.
            let query = Select::columns("*")
                .in_("command_id", batch)
                .order("created_at.asc,id.asc");
            for page in 0..RESULT_PAGES_MAX {
                let query = query
                    .clone()
                    .offset(page * RESULTS_PER_REQUEST)
                    .limit(RESULTS_PER_REQUEST);
                let page = self.select_readable("agent_command_results", query).await?;
                let is_last = page.came < RESULTS_PER_REQUEST;
                results.extend(page.rows);
                if is_last {
                    break;
                }
            }
        }
        Ok(results)
    }

    /// Asks of an office, at most `limit`: first those that nobody has answered yet, oldest first; then the others, the
    /// newest ends first. Any device of the office writes them, so each is read for itself.
    pub async fn asks(&self, office: OfficeId, limit: usize) -> Result<Readable<AskRow>, RestError> {
        let query = Select::columns("*")
            .eq("office_id", office)
            .order("closed_at.desc.nullsfirst,asked_at.asc")
            .limit(limit);
        self.select_readable("session_asks", query).await
    }

    /// One ask; `None`: there is none that the user may see.
    pub async fn ask(&self, id: AskId) -> Result<Option<AskRow>, RestError> {
        let rows: Vec<AskRow> = self
            .select("session_asks", Select::columns("*").eq("id", id).limit(1))
            .await?;
        Ok(rows.into_iter().next())
    }

    /// The sessions of an office, newest first.
    pub async fn sessions(&self, office: OfficeId) -> Result<Vec<SessionRow>, RestError> {
        let query = Select::columns("*")
            .eq("office_id", office)
            .order("started_at.desc");
        Ok(self.select_readable("sessions", query).await?.rows)
    }
}
