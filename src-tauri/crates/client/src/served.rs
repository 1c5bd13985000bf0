//! For whom this machine works: one account of one project at a time, or the office of this machine. The journal keeps
//! with each command for whom it was claimed, so that no result, and no question about a lease, goes to anybody else: it
//! waits until its account is served again.
//!
//! By the account's address, which the settings have: who is signed in is known only when a keychain has been opened. A
//! session goes by the address that it began with ([`supabase::Tokens`]). Who signs in anew by another address of the same
//! account is another one here: the office gives its commands out again, results that wait here go nowhere any more.

use journal::{Journal, JournalError};
use supabase::Project;

use crate::paths::Paths;
use crate::settings::{Profile, Settings};

/// Most results that are counted.
pub(crate) const COUNTED_MAX: usize = 1_000;

/// What stands in the journal for the account `email` at `project`. The hub of this machine is the same one whatever its
/// address is.
pub(crate) fn served(profile: Profile, project: &Project, email: &str) -> String {
    match profile {
        Profile::ThisMachine => "this-machine".to_owned(),
        Profile::Supabase => format!("{} {}", project.url, email.to_lowercase()),
    }
}

/// How many results of the account that `settings` name at a project its office has not answered yet. They wait in the
/// journal. Can be asked beside a core that runs, and without one.
pub fn results_waiting(settings: &Settings, paths: &Paths) -> Result<usize, JournalError> {
    let known = &settings.supabase;
    let Ok(project) = Project::new(&known.url, &known.publishable_key) else {
        return Ok(0);
    };
    let file = paths.journal();
    if !file.exists() {
        return Ok(0);
    }
    let account = served(Profile::Supabase, &project, &known.email);
    let waiting = Journal::open_to_read(&file)?.unanswered(Some(&account), COUNTED_MAX)?;
    Ok(waiting.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_the_same_one_however_its_address_and_its_projects_are_typed() {
        let of = |url, email| served(Profile::Supabase, &Project::new(url, "k").unwrap(), email);
        let account = of("https://abc.supabase.co", "a@b.c");
        for (url, email) in [
            ("https://ABC.supabase.co", "a@b.c"),
            ("https://abc.supabase.co:443/", "a@b.c"),
            (" https://abc.supabase.co", "A@B.c"),
        ] {
            assert_eq!(of(url, email), account, "{url} {email}");
        }
        for (url, email) in [
            ("https://abd.supabase.co", "a@b.c"),
            ("http://abc.supabase.co", "a@b.c"),
            ("https://abc.supabase.co", "b@b.c"),
        ] {
            assert_ne!(of(url, email), account, "{url} {email}");
        }
    }
}
