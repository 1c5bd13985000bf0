//! Who shows themselves on a topic: keys, what they show, and what changes in it.
//!
//! Pure. A channel shows one thing under its key; several channels may share a key. Called by `registry`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::Rng as _;
use serde_json::{Map, Value, json};

/// What all of one topic show together, in bytes: it is sent whole to everybody who joins.
pub(crate) const TOPIC_BYTES_MAX: usize = 2 * 1024 * 1024;

/// One topic's presence.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    shown: BTreeMap<u64, Shown>,
    bytes: usize,
}

#[derive(Debug)]
struct Shown {
    key: String,
    /// What was tracked, with `phx_ref` and, after a change, `phx_ref_prev`.
    meta: Value,
    phx_ref: String,
    bytes: usize,
}

/// The topic shows as much as it may.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Presence {
    /// `{key: {metas: […]}}` of everybody.
    pub fn state(&self) -> Value {
        let mut all: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
        for shown in self.shown.values() {
            all.entry(&shown.key).or_default().push(&shown.meta);
        }
        all.into_iter()
            .map(|(key, metas)| (key.to_owned(), json!({"metas": metas})))
            .collect::<Map<String, Value>>()
            .into()
    }

    /// Shows `payload` for channel `who`; the answer is the `presence_diff`.
    pub fn track(&mut self, who: u64, key: &str, payload: &Map<String, Value>) -> Result<Value, Full> {
        let phx_ref = fresh_ref();
        let mut meta = payload.clone();
        meta.insert("phx_ref".to_owned(), json!(phx_ref));
        let before = self.shown.get(&who);
        if let Some(before) = before {
            meta.insert("phx_ref_prev".to_owned(), json!(before.phx_ref));
        }
        let meta = Value::Object(meta);
        let bytes = meta.to_string().len() + key.len();
        let others = self.bytes - before.map_or(0, |shown| shown.bytes);
        if others + bytes > TOPIC_BYTES_MAX {
            return Err(Full);
        }
        self.bytes = others + bytes;
        let joins = one(key, &meta);
        let shown = Shown {
            key: key.to_owned(),
            meta,
            phx_ref,
            bytes,
        };
        let leaves = self
            .shown
            .insert(who, shown)
            .map_or_else(|| json!({}), |before| one(&before.key, &before.meta));
        Ok(json!({"joins": joins, "leaves": leaves}))
    }

    /// Shows nothing for `who` any more; the answer is the `presence_diff`, if it showed anything.
    pub fn untrack(&mut self, who: u64) -> Option<Value> {
        let before = self.shown.remove(&who)?;
        self.bytes -= before.bytes;
        Some(json!({"joins": {}, "leaves": one(&before.key, &before.meta)}))
    }
}

fn one(key: &str, meta: &Value) -> Value {
    json!({key: {"metas": [meta]}})
}

/// As Phoenix makes them: short, and never twice.
fn fresh_ref() -> String {
    let bytes: [u8; 12] = rand::rng().random();
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_change_names_what_it_replaces() {
        let mut presence = Presence::default();
        let first = presence.track(1, "k", &payload(json!({"u": 1}))).unwrap();
        let old = first["joins"]["k"]["metas"][0].clone();
        assert_eq!((&old["u"], &first["leaves"]), (&json!(1), &json!({})));
        let second = presence.track(1, "k", &payload(json!({"u": 2}))).unwrap();
        let new = &second["joins"]["k"]["metas"][0];
        assert_eq!(new["phx_ref_prev"], old["phx_ref"]);
        assert_ne!(new["phx_ref"], old["phx_ref"]);
        assert_eq!(second["leaves"]["k"]["metas"], json!([old]));
        assert_eq!(presence.state()["k"]["metas"], json!([new]));
    }

    #[test]
    fn channels_may_share_a_key_and_leave_one_by_one() {
        let mut presence = Presence::default();
        for who in [1, 2] {
            presence.track(who, "k", &payload(json!({"who": who}))).unwrap();
        }
        assert_eq!(presence.state()["k"]["metas"].as_array().unwrap().len(), 2);
        let left = presence.untrack(1).unwrap();
        assert_eq!(left["leaves"]["k"]["metas"][0]["who"], json!(1));
        assert_eq!(presence.untrack(1), None);
        presence.untrack(2);
        assert_eq!((presence.state(), presence.bytes), (json!({}), 0));
        assert!(presence.shown.is_empty());
    }

    #[test]
    fn a_topic_shows_only_so_much() {
        let mut presence = Presence::default();
        let large = payload(json!({"x": "x".repeat(TOPIC_BYTES_MAX / 2)}));
        presence.track(1, "a", &large).unwrap();
        assert_eq!(presence.track(2, "b", &large), Err(Full));
        assert!(presence.track(1, "a", &large).is_ok(), "its own is replaced");
    }
}
