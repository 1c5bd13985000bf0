//! Which keys may be on a workstation. Pure; called by [`crate::project`].

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

/// Is it a key that passes by every policy? By its beginning, or, of the older kind, by the role that it carries.
pub(crate) fn is_secret(key: &str) -> bool {
    #[derive(Deserialize)]
    struct Claims {
        role: String,
    }
    if key.starts_with("sb_secret_") {
        return true;
    }
    let mut parts = key.split('.');
    let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let claims = URL_SAFE_NO_PAD.decode(claims.trim_end_matches('='));
    let claims = claims
        .ok()
        .and_then(|text| serde_json::from_slice::<Claims>(&text).ok());
    // Nothing but `anon` is made for programs in people's hands.
    claims.is_some_and(|claims| claims.role != "anon")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn legacy(role: &str) -> String {
        let claims = URL_SAFE_NO_PAD.encode(format!(
            r#"{{"iss":"supabase","role":"{role}","exp":1983812996}}"#
        ));
        format!("eyJhbGciOiJIUzI1NiJ9.{claims}.c2lnbmF0dXJl")
    }

    #[test]
    fn secret_keys_of_both_kinds_are_known_and_publishable_ones_pass() {
        assert!(is_secret("sb_secret_abc"));
        assert!(is_secret(&legacy("service_role")));
        assert!(!is_secret("sb_publishable_abc"));
        assert!(!is_secret(&legacy("anon")));
        assert!(!is_secret("a.b.c"));
    }
}
