//! A data folder that was copied on one computer: the copy is found at its start (`crate::identity`) and is a client of its
//! own. Where it could not be found (the original cannot be seen from there), the office tells the two apart by their
//! folders' keys: who came last is the client, and the other one ends itself, as when a later core has its sessions.

use journal::{Finish, InboxRow, Phase};
use uuid::Uuid;

use super::EventLoop;
use super::finish::End;
use crate::identity::Original;
use crate::view::TAKEN_OVER;

impl EventLoop {
    /// The data folder from which we work, for the office. Nothing for a database of before that.
    pub(super) fn folder(&self) -> Option<Uuid> {
        match self.claims_plainly {
            true => None,
            false => self.ground.identity.folder_key(),
        }
    }

    /// This data folder was found to be a copy, just now: what a person has to know.
    pub(super) fn tell_of_copy(&mut self) {
        let Some(Original { client, at, aside }) = self.ground.copied_from.take() else {
            return;
        };
        let whose = match &at {
            Some(at) => format!("of {}", at.display()),
            None => "of another computer's".to_owned(),
        };
        tracing::warn!(%client, ?at, "this data folder is a copy; it goes on as a client of its own");
        let message = format!(
            "this data folder is a copy {whose}: it goes on as a client of its own, with no session and no command of \
             the original"
        );
        let mut hint = "What the original had under way is finished there.".to_owned();
        if let Some(aside) = aside {
            hint.push_str(&format!(
                " Its journal as it was copied lies in {}.",
                aside.display()
            ));
        }
        self.problem("copied_folder", message, hint);
    }

    /// A command that the journal holds was claimed from another data folder: this journal is a copy, or was brought back,
    /// and whether the core that claimed it lives cannot be told. As long as it does it keeps its lease, and nothing is
    /// said or done here. If the lease ends, the office gives it out again: what had not been begun is new then, of what
    /// had been it is told that nothing is known.
    pub(super) fn leave_to_its_lease(&mut self, row: &InboxRow) {
        let (id, now) = (row.command.id, self.now());
        let journal = &self.ground.journal;
        let left = match row.phase {
            Phase::Received => journal.let_go(id).map(|_| ()),
            Phase::Started => {
                let why = "it was begun from another data folder, of which this one is a copy or which was brought back \
                           here; what came of it is not known";
                let finish = Finish {
                    command: id,
                    result: End::unknown_because(why).result(),
                    turn: None,
                };
                journal.finish_untold(&finish, now).map(|_| ())
            }
            Phase::Finished => Ok(()),
        };
        tracing::warn!(command = %id, phase = ?row.phase, ?left, "a command of another data folder is left to its lease");
        if let Err(error) = left {
            self.problem("journal", error.to_string(), "");
        }
    }

    /// Another core works as this client: its data folder is a copy of ours, or ours of its. We can claim and begin
    /// nothing any more; what runs goes on in its holders.
    pub(super) fn another_core_is_this_client(&mut self) {
        let message = "another SEMO Office took over: it goes by this one's name in the office, since one of the two data \
                       folders is a copy of the other";
        let dir = self.ground.paths.data_dir.display();
        let hint = format!(
            "Use that one; agents that work here ({dir}) go on until it is started again. To keep both, end both, remove \
             client.json and journal.sqlite* from the copy, and start them again."
        );
        self.problem(TAKEN_OVER, message, hint);
        self.leave_now();
    }
}
