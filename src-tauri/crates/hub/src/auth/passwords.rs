//! Passwords: strength, hashes (argon2id for new ones; bcrypt and other argon2 of imported users), and taking as long
//! for an address that nobody has.
//!
//! Never stores or returns a password. Hashing runs beside the event loop, [`HASHES_MAX`] at a time, so that a flood
//! of sign-ins takes neither all memory nor all cores. Called by `token`, `signup`, `account`, `admin` and `users`.

use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Argon2, Params};
use axum::http::StatusCode;
use rand::RngCore as _;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::error::AuthError;

/// Password hashes computed at the same time; the rest waits. Each takes 19 MiB for about 20 ms.
const HASHES_MAX: usize = 2;
/// Requests that may be at or wait for their hash; more are refused, so that a flood does not keep people out for long.
const WAITING_MAX: usize = 20;
/// bcrypt looks at no more than this many bytes, and GoTrue takes no more: longer passwords are refused, not cut.
pub(crate) const PASSWORD_BYTES_MAX: usize = 72;
/// Bytes of salt in a new hash (RFC 9106).
const SALT_BYTES: usize = 16;
/// Most memory an imported argon2 hash may ask for, in KiB.
const IMPORTED_MEMORY_KIB_MAX: u32 = 256 * 1024;
/// Most rounds an imported argon2 hash may ask for.
const IMPORTED_ROUNDS_MAX: u32 = 16;
/// Highest bcrypt cost of an imported hash: 2^14 rounds take a second.
const IMPORTED_COST_MAX: u32 = 14;
/// A wrong password is answered after this long at the earliest, whatever kind of hash there was to look at, if any:
/// longer than a hash takes, so that the time of an answer does not tell which addresses exist.
const WRONG_AFTER: Duration = Duration::from_millis(250);

static HASHING: Semaphore = Semaphore::const_new(HASHES_MAX);
static WAITING: Semaphore = Semaphore::const_new(WAITING_MAX);

/// What a look at a password came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// It is the right one.
    Right,
    /// It is the right one, and its hash is of an older kind than new ones.
    RightButOld,
    /// It is not, or there is no hash.
    Wrong,
}

/// Refuses a password that is too short or too long, in GoTrue's words.
pub(crate) fn check_strength(password: &str, chars_min: usize) -> Result<(), AuthError> {
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(AuthError::invalid(format!(
            "Password cannot be longer than {PASSWORD_BYTES_MAX} characters"
        )));
    }
    if password.chars().count() < chars_min {
        return Err(AuthError::weak_password(format!(
            "Password should be at least {chars_min} characters."
        )));
    }
    Ok(())
}

/// Whether a hash of somebody else's making can be checked here, at a cost that is not an attack.
pub(crate) fn can_be_checked(hash: &str) -> bool {
    if hash.starts_with("$argon2") {
        let Ok(parsed) = PasswordHash::new(hash) else {
            return false;
        };
        return parsed.hash.is_some()
            && Params::try_from(&parsed).is_ok_and(|params| {
                params.m_cost() <= IMPORTED_MEMORY_KIB_MAX && params.t_cost() <= IMPORTED_ROUNDS_MAX
            });
    }
    hash.parse::<bcrypt::HashParts>()
        .is_ok_and(|parts| parts.get_cost() <= IMPORTED_COST_MAX)
}

/// Looks whether `password` belongs to `hash`. Wrong ones, and those without a hash, all take the same time.
pub(crate) async fn look(password: String, hash: Option<String>) -> Result<Look, AuthError> {
    let place = WAITING.try_acquire().map_err(|_| AuthError::too_many_at_once())?;
    let turn = HASHING
        .acquire()
        .await
        .map_err(|error| AuthError::internal("look at a password", &error))?;
    let since = Instant::now();
    let looked = counted((turn, place), move || match hash {
        Some(hash) if can_be_checked(&hash) => compare(&password, &hash),
        Some(_) | None => {
            let spent = argon2id(&password);
            drop(spent);
            Look::Wrong
        }
    })
    .await
    .map_err(|error| AuthError::internal("look at a password", &error))?;
    if looked == Look::Wrong {
        // Turn and place are given back: this waiting costs nobody anything.
        tokio::time::sleep_until(since + WRONG_AFTER).await;
    }
    Ok(looked)
}

type Permits = (SemaphorePermit<'static>, SemaphorePermit<'static>);

/// Works beside the event loop. Turn and place are the work's: it goes on when whoever asked for it went away, and
/// counts for as long.
fn counted<T: Send + 'static>(permits: Permits, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    tokio::task::spawn_blocking(move || {
        let done = work();
        drop(permits);
        done
    })
}

fn compare(password: &str, hash: &str) -> Look {
    if hash.starts_with("$argon2") {
        let Ok(parsed) = PasswordHash::new(hash) else {
            return Look::Wrong;
        };
        if Argon2::default()
            .verify_password(password.as_bytes(), &parsed)
            .is_err()
        {
            return Look::Wrong;
        }
        let is_new = parsed.algorithm.as_str() == "argon2id"
            && Params::try_from(&parsed).is_ok_and(|params| {
                params.m_cost() >= Params::DEFAULT_M_COST && params.t_cost() >= Params::DEFAULT_T_COST
            });
        return if is_new { Look::Right } else { Look::RightButOld };
    }
    match bcrypt::verify(password, hash) {
        Ok(true) => Look::RightButOld,
        Ok(false) | Err(_) => Look::Wrong,
    }
}

/// The argon2id hash of a new password.
pub(crate) async fn hashed(password: String) -> Result<String, AuthError> {
    let place = WAITING.try_acquire().map_err(|_| AuthError::too_many_at_once())?;
    let fault = |error: &dyn std::fmt::Display| AuthError::internal("hash a password", error);
    let turn = HASHING.acquire().await.map_err(|error| fault(&error))?;
    counted((turn, place), move || argon2id(&password))
        .await
        .map_err(|error| fault(&error))?
        .map_err(|error| fault(&error))
}

/// OWASP's first choice (19 MiB, 2 rounds), which is also the crate's default.
fn argon2id(password: &str) -> Result<String, argon2::password_hash::Error> {
    let mut salt = [0u8; SALT_BYTES];
    rand::rng().fill_bytes(&mut salt);
    let hash = Argon2::default().hash_password_with_salt(password.as_bytes(), &salt)?;
    Ok(hash.to_string())
}

impl AuthError {
    fn too_many_at_once() -> AuthError {
        AuthError::new(
            StatusCode::TOO_MANY_REQUESTS,
            "over_request_rate_limit",
            "Too many sign-ins at once; try again in a moment",
        )
        .retry_after(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_of_other_programs_are_known_and_costly_ones_refused() {
        let bcrypt = bcrypt::hash("correct horse", 4).unwrap();
        assert_eq!(compare("correct horse", &bcrypt), Look::RightButOld);
        assert_eq!(compare("wrong", &bcrypt), Look::Wrong);
        let ours = argon2id("correct horse").unwrap();
        assert!(ours.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{ours}");
        assert_eq!(compare("correct horse", &ours), Look::Right);
        assert_eq!(compare("wrong", &ours), Look::Wrong);
        assert!(can_be_checked(&bcrypt) && can_be_checked(&ours));
        for bad in [
            "",
            "plain text",
            "$argon2id$",
            "$argon2id$v=19$m=4194304,t=2,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNo",
            "$argon2id$v=19$m=19456,t=4000000,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNo",
            "$2b$31$abcdefghijklmnopqrstuuN8AXJpM5BJFVOD8cx1rRWxEn7s9zZ7e",
        ] {
            assert!(!can_be_checked(bad), "{bad}");
        }
    }

    #[test]
    fn a_hash_that_nobody_waits_for_any_more_still_counts() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        runtime.block_on(async {
            // The only thread for such work is taken: the hashes below have to wait.
            let (go_on, told) = std::sync::mpsc::channel::<()>();
            drop(tokio::task::spawn_blocking(move || told.recv()));
            tokio::select! {
                biased;
                _ = hashed("correct horse".to_owned()) => panic!("it was hashed"),
                () = std::future::ready(()) => {}
            }
            tokio::select! {
                biased;
                _ = look("correct horse".to_owned(), None) => panic!("it was looked at"),
                () = std::future::ready(()) => {}
            }
            let free = || (HASHING.available_permits(), WAITING.available_permits());
            assert_eq!(free(), (HASHES_MAX - 2, WAITING_MAX - 2));
            go_on.send(()).unwrap();
            let since = Instant::now();
            while free() != (HASHES_MAX, WAITING_MAX) {
                assert!(since.elapsed() < Duration::from_secs(30), "{:?}", free());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    }

    #[test]
    fn weak_and_overlong_passwords_are_told_apart() {
        assert_eq!(check_strength("short", 6).unwrap_err().code, "weak_password");
        assert_eq!(
            check_strength(&"x".repeat(73), 6).unwrap_err().code,
            "validation_failed"
        );
        assert!(check_strength("äöüäöü", 6).is_ok());
    }
}
