//! Channels, what is told to them, and what is kept for them.

use serde_json::json;

use super::super::outbox::Waiting;
use super::*;

fn realtime() -> Realtime {
    Realtime::new(CancellationToken::new(), TaskTracker::new())
}

fn joined(realtime: &Realtime, private: bool) -> (u64, Waiting) {
    let (line, waiting, _nudges) = line();
    let claims = Arc::new(crate::identity::key_claims("anon"));
    let id = realtime.add(Member::new(line, Version::V2, "t", private, claims));
    realtime.release(id, &[], HashSet::new(), false);
    (id, waiting)
}

fn line() -> (Line, Waiting, mpsc::Receiver<Nudge>) {
    let (outbox, waiting) = Outbox::new();
    let (nudges, nudged) = mpsc::channel(NUDGES_MAX);
    (Line { outbox, nudges }, waiting, nudged)
}

/// Somebody who is signed in.
fn claims_of(user: Uuid) -> Arc<Claims> {
    let mut claims = crate::identity::key_claims("authenticated");
    claims.all.insert("sub".to_owned(), json!(user));
    Arc::new(claims)
}

fn text(words: &str) -> Spoken {
    Spoken::Text(json!({"event": words}).to_string().into())
}

#[test]
fn public_and_private_channels_of_one_name_do_not_hear_each_other() {
    let realtime = realtime();
    let (_, mut waiting) = joined(&realtime, false);
    realtime.broadcast(("t", true), text("a"), None, None);
    assert!(waiting.ready().is_none());
    realtime.broadcast(("t", false), text("b"), None, None);
    assert!(waiting.ready().is_some());
}

#[test]
fn what_comes_before_the_answer_waits_and_what_was_replayed_does_not_come_again() {
    let realtime = realtime();
    let (line, mut waiting, _nudged) = line();
    let claims = Arc::new(crate::identity::key_claims("anon"));
    let id = realtime.add(Member::new(line, Version::V1, "t", true, claims));
    let (known, new) = (Uuid::from_u128(1), Uuid::from_u128(2));
    for message in [known, new] {
        realtime.broadcast(("t", true), text(&message.to_string()), Some(message), None);
    }
    assert!(waiting.ready().is_none());
    let answer = pushed("t", "phx_reply", json!({}));
    realtime.release(id, &[answer], HashSet::from([known]), false);
    let said: Vec<String> = std::iter::from_fn(|| waiting.ready())
        .map(|frame| format!("{frame:?}"))
        .collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("phx_reply") && said[1].contains(&new.to_string()));
    realtime.broadcast(("t", true), text("again"), Some(known), None);
    assert!(waiting.ready().is_none());
}

#[test]
fn whoever_goes_is_taken_off_the_topic_and_the_others_are_told() {
    let realtime = realtime();
    let (one, mut told) = joined(&realtime, true);
    let (two, _gone) = joined(&realtime, true);
    realtime.track(two, "k", &Map::new()).unwrap();
    assert!(
        told.ready()
            .is_some_and(|frame| format!("{frame:?}").contains("joins"))
    );
    realtime.remove(two);
    assert!(
        told.ready()
            .is_some_and(|frame| format!("{frame:?}").contains("leaves"))
    );
    realtime.remove(one);
    assert!(
        locked(&realtime.state).topics.is_empty(),
        "an empty topic is forgotten"
    );
}

#[test]
fn whose_rights_may_have_changed_hears_nothing_until_the_answer_and_all_of_it_then() {
    let realtime = realtime();
    let (user, other) = (Uuid::from_u128(7), Uuid::from_u128(8));
    let (line, mut waiting, mut nudged) = line();
    let id = realtime.add(Member::new(line, Version::V2, "t", true, claims_of(user)));
    realtime.release(id, &[], HashSet::new(), false);
    let before = realtime.rights();
    realtime.rights_changed(Some(other));
    assert_eq!((realtime.paused(id), nudged.try_recv().ok()), (None, None));
    assert!(realtime.rights() > before, "a join on its way must see it");
    realtime.rights_changed(Some(user));
    assert_eq!(nudged.try_recv().ok(), Some(Nudge::Rights(id)));
    realtime.broadcast(("t", true), text("a"), None, None);
    let asked = realtime.paused(id).unwrap();
    realtime.rights_changed(Some(user));
    assert_eq!(nudged.try_recv().ok(), None, "one nudge is enough");
    assert!(
        !realtime.resume(id, asked),
        "the answer is older than the last change"
    );
    assert!(waiting.ready().is_none());
    let asked = realtime.paused(id).unwrap();
    assert!(realtime.resume(id, asked));
    assert!(waiting.ready().is_some());
    assert_eq!(realtime.paused(id), None);
    realtime.rights_changed(None);
    realtime.broadcast(("t", true), text("b"), None, None);
    assert!(waiting.ready().is_none());
    realtime.remove(id);
    assert!(waiting.ready().is_none());
}

#[test]
fn what_is_kept_for_a_channel_is_bounded_in_bytes_and_given_back_with_it() {
    let realtime = realtime();
    let (line, waiting, _nudged) = line();
    let outbox = line.outbox.clone();
    let claims = claims_of(Uuid::from_u128(7));
    let joining = |topic: &str| Member::new(line.clone(), Version::V2, topic, true, claims.clone());
    // Of all channels of a socket together, before their joins are answered.
    let ids = ["t", "u", "v"].map(|topic| realtime.add(joining(topic)));
    let third = Spoken::Text("x".repeat(outbox::BYTES_MAX / 3).into());
    for topic in ["t", "u"] {
        realtime.broadcast((topic, true), third.clone(), None, None);
    }
    assert!(!waiting.overflow.is_cancelled());
    realtime.remove(ids[0]);
    realtime.broadcast(("u", true), third.clone(), None, None);
    assert!(
        !waiting.overflow.is_cancelled(),
        "what was kept went with its channel"
    );
    realtime.broadcast(("v", true), third, None, None);
    assert!(waiting.overflow.is_cancelled());
    for id in ids {
        realtime.remove(id);
    }
    assert!(outbox.reserve(outbox::BYTES_MAX), "all of it is given back");
}

#[test]
fn rights_of_a_user_that_change_while_his_token_is_judged_are_asked_again_when_he_has_it() {
    let realtime = realtime();
    let (former, user) = (Uuid::from_u128(7), Uuid::from_u128(8));
    let (line, mut waiting, mut nudged) = line();
    let id = realtime.add(Member::new(line, Version::V2, "t", true, claims_of(former)));
    realtime.release(id, &[], HashSet::new(), false);
    let asked = realtime.rights();
    realtime.set_claims(id, claims_of(former), (true, true), asked);
    assert_eq!(nudged.try_recv().ok(), None, "nothing has changed");
    // He is not found yet.
    realtime.rights_changed(Some(user));
    assert_eq!(nudged.try_recv().ok(), None);
    realtime.set_claims(id, claims_of(user), (true, true), asked);
    assert_eq!(nudged.try_recv().ok(), Some(Nudge::Rights(id)));
    realtime.broadcast(("t", true), text("a"), None, None);
    assert!(waiting.ready().is_none(), "nothing is told until the answer");
}

#[test]
fn who_takes_no_more_is_told_no_more() {
    let realtime = realtime();
    let (id, waiting) = joined(&realtime, true);
    let third = || "x".repeat(outbox::BYTES_MAX / 3);
    assert!(realtime.tell_change(id, third()) && realtime.tell_change(id, third()));
    assert!(realtime.takes_more(id));
    assert!(!realtime.tell_change(id, third()) && !realtime.takes_more(id));
    assert!(waiting.overflow.is_cancelled());
    realtime.remove(id);
    assert!(!realtime.tell_change(id, String::new()), "it is gone");
}
