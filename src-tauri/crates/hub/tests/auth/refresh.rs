//! Refresh tokens: rotation, reuse, the end of sessions.

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{TestHub, on_hub, on_open_hub};
use crate::wire::{PASSWORD, get_user, post, refresh, session, sign_in, text, user};

/// As if a minute had passed since any token of this session was used.
async fn a_minute_passes(hub: &TestHub, session: &serde_json::Value) {
    let id = text(&crate::wire::claims(&session["access_token"])["session_id"]);
    hub.admin()
        .await
        .execute(
            "update auth.refresh_tokens set used_at = used_at - interval '1 minute' where session_id::text = $1",
            &[&id],
        )
        .await
        .unwrap();
}

/// `refreshSession() should return a new session using a passed-in refresh token`.
#[test]
fn a_refresh_gives_a_new_pair_of_the_same_session() {
    on_hub(async |hub| {
        let (email, first) = session(&hub).await;
        let second = refresh(&hub, &first["refresh_token"]).await.ok();
        assert_ne!(first["refresh_token"], second["refresh_token"]);
        assert_eq!(second["user"]["email"], json!(email));
        let id =
            |session: &serde_json::Value| crate::wire::claims(&session["access_token"])["session_id"].clone();
        assert_eq!(id(&first), id(&second));
        get_user(&hub, &second["access_token"]).await.ok();
    });
}

#[test]
fn refresh_tokens_rotate_and_a_stolen_one_ends_the_session() {
    on_hub(async |hub| {
        let (_, session) = session(&hub).await;
        let first = &session["refresh_token"];
        let second = refresh(&hub, first).await.ok()["refresh_token"].clone();
        refresh(&hub, first).await.ok();
        let third = refresh(&hub, &second).await.ok()["refresh_token"].clone();
        a_minute_passes(&hub, &session).await;
        let reused = refresh(&hub, first).await;
        assert_eq!(reused.fault(), (400, "refresh_token_already_used"));
        let ended = refresh(&hub, &third).await;
        assert_eq!(ended.fault(), (400, "refresh_token_not_found"), "all of it ended");
        let gone = get_user(&hub, &session["access_token"]).await;
        assert_eq!(gone.fault(), (403, "session_not_found"));
    });
}

#[test]
fn a_client_that_lost_the_answer_may_come_back_as_late_as_it_likes() {
    on_hub(async |hub| {
        let (_, session) = session(&hub).await;
        refresh(&hub, &session["refresh_token"]).await.ok();
        a_minute_passes(&hub, &session).await;
        let again = refresh(&hub, &session["refresh_token"]).await.ok();
        refresh(&hub, &again["refresh_token"]).await.ok();
    });
}

#[test]
fn two_children_of_one_token_cannot_both_live_on() {
    on_hub(async |hub| {
        let (_, session) = session(&hub).await;
        let first = &session["refresh_token"];
        let one = refresh(&hub, first).await.ok()["refresh_token"].clone();
        let other = refresh(&hub, first).await.ok()["refresh_token"].clone();
        let next = refresh(&hub, &one).await.ok()["refresh_token"].clone();
        a_minute_passes(&hub, &session).await;
        let refused = refresh(&hub, &other).await;
        assert_eq!(refused.fault(), (400, "refresh_token_already_used"));
        assert_eq!(
            refresh(&hub, &next).await.fault(),
            (400, "refresh_token_not_found")
        );
    });
}

/// `refresh should only happen once`, where a client does not see to that itself.
#[test]
fn any_number_of_refreshes_at_once_all_get_a_session() {
    on_open_hub(async |hub| {
        let (_, session) = session(&hub).await;
        let answers = join_all((0..12).map(|_| refresh(&hub, &session["refresh_token"]))).await;
        let mut last = None;
        for answer in answers {
            last = Some(answer.ok()["refresh_token"].clone());
        }
        refresh(&hub, &last.unwrap()).await.ok();
    });
}

/// `should handle refreshSession with invalid refresh token`.
#[test]
fn tokens_that_are_none_are_not_found() {
    on_hub(async |hub| {
        let (_, session) = session(&hub).await;
        let digest: String = hub
            .admin()
            .await
            .query_one(
                "select token from auth.refresh_tokens where user_id = $1 order by id desc limit 1",
                &[&text(&session["user"]["id"])],
            )
            .await
            .unwrap()
            .get(0);
        assert_eq!(digest.len(), 64, "a digest, no token");
        for token in [
            "nonsense",
            &digest,
            &text(&session["access_token"]),
            &"x".repeat(10_000),
            "' or 1=1 --",
        ] {
            let refused = refresh(&hub, &json!(token)).await;
            assert_eq!(refused.fault(), (400, "refresh_token_not_found"), "{token}");
        }
        for body in [json!({}), json!({"refresh_token": ""})] {
            let refused = post(&hub, "token?grant_type=refresh_token", body).await;
            assert_eq!(refused.fault(), (400, "validation_failed"));
        }
    });
}

#[test]
fn a_session_with_an_end_of_its_own_expires() {
    on_hub(async |hub| {
        let (_, session) = session(&hub).await;
        let id = text(&crate::wire::claims(&session["access_token"])["session_id"]);
        hub.admin()
            .await
            .execute(
                "update auth.sessions set not_after = now() - interval '1 second' where id::text = $1",
                &[&id],
            )
            .await
            .unwrap();
        let refused = refresh(&hub, &session["refresh_token"]).await;
        assert_eq!(refused.fault(), (400, "session_expired"));
    });
}

#[test]
fn a_banned_user_gets_nothing_and_goes_on_when_the_ban_ends() {
    on_hub(async |hub| {
        let (email, id) = user(&hub).await;
        let session = sign_in(&hub, &email, PASSWORD).await.ok();
        let admin = hub.admin().await;
        let ban = "update auth.users set banned_until = now() + interval '1 hour' where id = $1";
        admin.execute(ban, &[&id]).await.unwrap();
        let refused = refresh(&hub, &session["refresh_token"]).await;
        assert_eq!(refused.fault(), (400, "user_banned"));
        let me = get_user(&hub, &session["access_token"]).await;
        assert_eq!(me.fault(), (403, "user_banned"));
        let lift = "update auth.users set banned_until = null where id = $1";
        admin.execute(lift, &[&id]).await.unwrap();
        refresh(&hub, &session["refresh_token"]).await.ok();
    });
}

#[test]
fn a_session_keeps_no_more_tokens_than_it_needs() {
    on_open_hub(async |hub| {
        let (_, session) = session(&hub).await;
        let mut token = session["refresh_token"].clone();
        for _ in 0..60 {
            token = refresh(&hub, &token).await.ok()["refresh_token"].clone();
        }
        let count: i64 = hub
            .admin()
            .await
            .query_one(
                "select count(*) from auth.refresh_tokens where user_id = $1",
                &[&text(&session["user"]["id"])],
            )
            .await
            .unwrap()
            .get(0);
        assert_eq!(count, 50);
    });
}
