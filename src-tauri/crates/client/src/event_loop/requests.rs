//! What people at windows ask for. Work for an agent goes through the office like everybody's, so that the record is
//! the same; only an interrupt goes straight to the session.

use domain::command::{CreateSession, SendPrompt, Terminate};
use domain::fault::chain;
use domain::{AgentId, Command, CommandId, OfficeId, SessionId};
use serde::Serialize;
use serde_json::{Value, json};
use session::{Session, WhichTurn};
use supabase::{NewCommand, RestError};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::profile::{ProfileWish, Typed};
use super::{EventLoop, Stage, Work};
use crate::request::{Answer, ErrorCode, Request, RequestError};

pub(super) type Reply = oneshot::Sender<Result<Answer, RequestError>>;

impl EventLoop {
    pub(super) fn answer(&mut self, request: Request, reply: Reply) {
        match request {
            Request::SelectOffice { office_id } => say(reply, self.select_office(office_id)),
            Request::CreateSession { agent_id, repository } => {
                let args = CreateSession {
                    repository,
                    base: None,
                };
                self.enqueue("create_session", &args, Some(agent_id), None, reply);
            }
            Request::SendPrompt {
                agent_id,
                session_id,
                prompt,
                marker,
                repository,
            } => {
                let (agent_id, session_id) = self.addressed(agent_id, session_id);
                let args = SendPrompt {
                    prompt,
                    session: session_id,
                    marker,
                    timeout_s: None,
                    repository,
                };
                self.enqueue("send_prompt", &args, agent_id, session_id, reply);
            }
            Request::CancelTurn { session_id } => say(reply, self.interrupt(session_id)),
            Request::CancelCommand { command_id } => self.cancel_for(command_id, reply),
            // The office does not know it: a command for it would go to any workstation.
            Request::Terminate { session_id }
                if self.sessions.get(&session_id).is_some_and(|live| live.warm) =>
            {
                say(reply, self.end_warm(session_id));
            }
            Request::Terminate { session_id } => {
                let args = Terminate { session: session_id };
                self.enqueue("terminate", &args, None, Some(session_id), reply);
            }
            Request::AnswerAsk { ask_id, answer, way } => self.answer_ask(ask_id, answer, way, reply),
            Request::Explain { session_id } => self.explain(session_id, reply),
            Request::ListPreserved {} => self.list_preserved(reply),
            Request::RestorePreserved {
                repository,
                name,
                to_branch,
            } => self.restore_preserved(repository, name, to_branch, reply),
            Request::SignIn {
                url,
                publishable_key,
                email,
                password,
            } => {
                let wish = ProfileWish::SignIn(Typed {
                    url,
                    key: publishable_key,
                    email,
                    password,
                });
                self.answer_of_profile(wish, reply);
            }
            Request::SignOut {} => self.answer_of_profile(ProfileWish::SignOut, reply),
            Request::UseProfile { profile } => self.answer_of_profile(ProfileWish::Use(profile), reply),
            Request::MakeOffice { name } => self.answer_of_profile(ProfileWish::MakeOffice(name), reply),
            Request::Refresh {} => {
                self.look_at_everything();
                say(reply, Ok(Answer::default()));
            }
        }
    }

    fn look_at_everything(&mut self) {
        self.check_program();
        self.solved("profile");
        // Joining reads everything anew, the list of offices too.
        self.join();
        if let Some((realtime, _, _)) = &self.realtime {
            realtime.nudge();
        }
        self.refresh();
        self.claim("a person asked");
    }

    /// The office does not know a session that was started ahead of need; its agent gets it in any case.
    fn addressed(
        &self,
        agent: Option<AgentId>,
        session: Option<SessionId>,
    ) -> (Option<AgentId>, Option<SessionId>) {
        let live = session.and_then(|session| self.sessions.get(&session));
        match live.filter(|live| live.warm) {
            Some(live) => (Some(live.agent), None),
            None => (agent, session),
        }
    }

    fn end_warm(&mut self, session: SessionId) -> Result<Answer, RequestError> {
        if self.is_busy(session) {
            let message = "a command is being given to this session just now";
            return Err(RequestError::new(
                ErrorCode::Conflict,
                message,
                "Try again in a moment.",
            ));
        }
        self.give_up(session, "a person ended it before it was used");
        Ok(Answer::note(
            "it is being ended; it was kept ready and had no work",
        ))
    }

    /// The session's own actor tells; the loop does not wait for it.
    fn explain(&self, session: SessionId, reply: Reply) {
        let handle = self.sessions.get(&session).and_then(|live| live.session.clone());
        let Some(handle) = handle else {
            say(
                reply,
                Err(not_found(format!(
                    "there is no session {session} on this machine"
                ))),
            );
            return;
        };
        self.ground.tasks.spawn(async move {
            say(reply, explanation(&handle).await);
        });
    }

    fn select_office(&mut self, office: OfficeId) -> Result<Answer, RequestError> {
        let data = self.office.as_ref();
        if !data.is_some_and(|data| data.offices.iter().any(|row| row.id == office)) {
            return Err(not_found(format!("you are not a member of office {office}")));
        }
        let here = data.map(|data| data.office.id);
        if here != Some(office) && self.work.values().any(|work| Some(work.row.office_id) == here) {
            let message = "commands of the present office are still being carried out here";
            return Err(RequestError::new(
                ErrorCode::Conflict,
                message,
                "Wait for their end, or cancel them.",
            ));
        }
        // A join that is under way ends first; the wish is not forgotten meanwhile.
        self.office_wanted = Some(office);
        if !std::mem::replace(&mut self.joining, true) {
            self.join_office(Some(office));
        }
        Ok(Answer::default())
    }

    /// Stops a command here, and wherever else the office has it.
    fn cancel_for(&mut self, command_id: CommandId, reply: Reply) {
        self.cancel_work(command_id, json!({ "way": "window" }));
        let rest = self.ground.rest.clone();
        self.ground.tasks.spawn(async move {
            let answer = rest.cancel_command(command_id).await;
            say(
                reply,
                answer.map(|_| Answer::command(command_id)).map_err(refused),
            );
        });
    }

    fn interrupt(&mut self, session: SessionId) -> Result<Answer, RequestError> {
        let runs_in =
            |work: &&mut Work| matches!(work.stage, Stage::Turn { session: its, .. } if its == session);
        if let Some(work) = self.work.values_mut().find(runs_in) {
            work.cancelled_by.get_or_insert(json!({ "way": "window" }));
        }
        let handle = self.sessions.get(&session).and_then(|live| live.session.as_ref());
        let handle =
            handle.ok_or_else(|| not_found(format!("there is no session {session} on this machine")))?;
        handle
            .cancel(WhichTurn::Current)
            .map(|()| Answer::default())
            .map_err(|error| RequestError::new(ErrorCode::Conflict, chain(&error), ""))
    }

    /// Puts a command into the office, after the same checks that it would meet when it comes back.
    pub(super) fn enqueue(
        &self,
        kind: &str,
        args: &impl Serialize,
        agent: Option<AgentId>,
        session: Option<SessionId>,
        reply: Reply,
    ) {
        let Some(data) = &self.office else {
            let error = RequestError::new(
                ErrorCode::NotReady,
                "no office is joined yet",
                "See the problems at the top.",
            );
            say(reply, Err(error));
            return;
        };
        let args = without_nulls(serde_json::to_value(args).unwrap_or_else(|_| json!({})));
        if let Err(fault) = Command::parse(kind, &args) {
            say(
                reply,
                Err(RequestError::new(ErrorCode::Invalid, fault.to_string(), "")),
            );
            return;
        }
        let key = Uuid::new_v4().to_string();
        let command = NewCommand {
            office: data.office.id,
            kind: kind.to_owned(),
            args,
            key,
            agent,
            session,
        };
        let rest = self.ground.rest.clone();
        self.ground.tasks.spawn(async move {
            let answer = rest.enqueue_command(&command).await;
            say(reply, answer.map(|row| Answer::command(row.id)).map_err(refused));
        });
    }
}

async fn explanation(session: &Session) -> Result<Answer, RequestError> {
    let explanation = session
        .explain()
        .await
        .map_err(|error| RequestError::new(ErrorCode::NotReady, chain(&error), ""))?;
    Ok(Answer {
        explanation: Some(explanation),
        ..Answer::default()
    })
}

/// Whoever asked may have gone; that is no fault.
pub(super) fn say(reply: Reply, answer: Result<Answer, RequestError>) {
    let _ = reply.send(answer);
}

fn not_found(message: String) -> RequestError {
    RequestError::new(ErrorCode::NotFound, message, "")
}

fn without_nulls(mut args: Value) -> Value {
    if let Some(fields) = args.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    args
}

pub(super) fn refused(error: RestError) -> RequestError {
    let (code, hint) = match &error {
        RestError::Unauthorized { .. } => (ErrorCode::Unauthorized, "Sign in again."),
        RestError::Forbidden { .. } => (
            ErrorCode::Forbidden,
            "Ask the owner of the office for the right role.",
        ),
        RestError::NotFound { .. } => (ErrorCode::NotFound, ""),
        RestError::Conflict { .. } => (ErrorCode::Conflict, ""),
        RestError::Rejected { .. } => (ErrorCode::Invalid, ""),
        RestError::Unreachable { .. } => (ErrorCode::Unreachable, "Check the network, then try again."),
        RestError::Malformed { .. } => (ErrorCode::Internal, ""),
    };
    RequestError::new(code, error.to_string(), hint)
}
