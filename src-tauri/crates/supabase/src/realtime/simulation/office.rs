//! The other side of a simulated day: what the office does with what it hears, and what goes wrong.

use std::time::Duration;

use rand::Rng;
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::channel::{Around, RingFault};
use super::super::codec::{Frame, PHOENIX};
use super::super::talk::{EndKind, Talk};
use super::{Day, Doing, Later, Net, TOPIC};
use crate::auth::AuthError;

impl Day {
    // ---- the office's part

    fn gets_through(&self) -> bool {
        !self.stranded && self.net != Net::Hole
    }

    /// Frames of one socket arrive in the order in which they were sent.
    pub(super) fn answer(&mut self, frame: Value) {
        let frame = Frame::decode_text(&frame.to_string()).expect("a frame");
        let bell_of = self
            .joined
            .first()
            .filter(|_| frame.event == "broadcast")
            .cloned();
        let soonest = self.now + Duration::from_millis(self.rng.random_range(1..500));
        self.arrives = self.arrives.max(soonest);
        self.at(self.arrives, Later::Frame(self.socket, frame, bell_of));
    }

    pub(super) fn service_hears(&mut self, frame: &Frame) {
        let join_ref = frame.join_ref.clone().unwrap_or_default();
        if frame.event == "phx_join" {
            assert!(
                self.used.insert(join_ref.clone()),
                "seed {}: join {join_ref} twice",
                self.seed
            );
            self.join.clone_from(&join_ref);
        }
        if !self.gets_through() {
            return;
        }
        let reply = |status: &str, response: Value| {
            let payload = json!({"status": status, "response": response});
            json!([frame.join_ref, frame.reference, frame.topic, "phx_reply", payload])
        };
        match frame.event.as_str() {
            "heartbeat" => {
                assert_eq!(frame.topic, PHOENIX);
                self.answer(reply("ok", json!({})));
            }
            "phx_join" => match self.refusal {
                Some(reason) => self.answer(reply("error", json!({ "reason": reason }))),
                None => {
                    // A new join ends the one before.
                    self.joined.clear();
                    self.answer(reply("ok", json!({"postgres_changes": []})));
                    self.joined.insert(join_ref);
                }
            },
            "phx_leave" => {
                self.joined.remove(&join_ref);
                self.answer(reply("ok", json!({})));
            }
            "access_token" => {}
            other => panic!("seed {}: {other} is not in the protocol", self.seed),
        }
    }

    pub(super) fn ring(&mut self, nonce: Uuid) {
        let rung = match (&self.ring_fault, self.net) {
            (Some(fault), _) => Err(fault.clone()),
            (None, Net::Fine) => Ok(()),
            (None, _) => Err(RingFault::Later("no network".to_owned())),
        };
        if rung.is_ok() && self.rings_through {
            self.broadcast(nonce);
        }
        self.in_ms(1..2_000, Later::Rang(self.socket, nonce, rung));
    }

    fn broadcast(&mut self, nonce: Uuid) {
        if self.joined.is_empty() || !self.gets_through() {
            return;
        }
        let payload = json!({"type": "broadcast", "event": "proof", "payload": {"nonce": nonce}});
        self.answer(json!([null, null, TOPIC, "broadcast", payload]));
    }

    // ---- what happens

    pub(super) fn happens(&mut self, what: Later) {
        match what {
            Later::Heal => self.heal(),
            Later::Mischief if self.healed.is_some() => {}
            Later::Mischief => {
                self.mischief();
                self.in_ms(0..self.temper_ms, Later::Mischief);
            }
            Later::Token(socket) => {
                let token = if self.signed_out {
                    Err(AuthError::SignedOut {
                        reason: "nobody".to_owned(),
                    })
                } else {
                    Ok(format!("t{}", self.token))
                };
                if let Some(talk) = self.talk_of(socket) {
                    let told = talk.token_came(token);
                    self.told(told);
                }
            }
            Later::Frame(socket, frame, bell_of) if self.gets_through() => {
                let moment = self.moment();
                if socket != self.socket {
                    return;
                }
                let Doing::Talking(talk) = &mut self.doing else {
                    return;
                };
                let around = &mut Around {
                    outlet: &mut self.outlet,
                    dice: &mut self.dice,
                    patience: &mut self.course.patience,
                };
                let told = talk.frame(frame, moment, around);
                self.proven.extend(bell_of);
                self.told(told);
            }
            Later::Frame(..) => {}
            Later::Closed(socket, kind) => {
                if self.talk_of(socket).is_some() {
                    self.told(Err((kind, "closed".to_owned())));
                }
            }
            Later::Rang(socket, nonce, rung) => {
                let moment = self.moment();
                if socket != self.socket {
                    return;
                }
                let Doing::Talking(talk) = &mut self.doing else {
                    return;
                };
                let around = &mut Around {
                    outlet: &mut self.outlet,
                    dice: &mut self.dice,
                    patience: &mut self.course.patience,
                };
                let told = talk.rang(nonce, &rung, moment, around);
                self.told(told);
            }
        }
    }

    fn talk_of(&mut self, socket: u64) -> Option<&mut Talk> {
        match &mut self.doing {
            Doing::Talking(talk) if socket == self.socket => Some(talk),
            _ => None,
        }
    }

    fn heal(&mut self) {
        self.net = Net::Fine;
        self.rings_through = true;
        self.ring_fault = None;
        self.refusal = None;
        self.signed_out = false;
        self.healed = Some(self.now);
    }

    fn mischief(&mut self) {
        let socket = self.socket;
        match self.rng.random_range(0..16) {
            0 => {
                let nets = [
                    Net::Hole,
                    Net::Refused,
                    Net::Status(401),
                    Net::Status(403),
                    Net::Status(429),
                    Net::Status(503),
                    Net::Captive,
                    Net::Proxy,
                ];
                self.net = nets[self.rng.random_range(0..nets.len())];
            }
            1 | 2 => self.net = Net::Fine,
            3 => self.stranded = true,
            4 => self.rings_through = !self.rings_through,
            5 => {
                let faults = [
                    None,
                    Some(RingFault::Later("503".to_owned())),
                    Some(RingFault::Never("no such function".to_owned())),
                ];
                self.ring_fault = faults[self.rng.random_range(0..faults.len())].clone();
            }
            6 => {
                let reasons = [
                    None,
                    Some("Unauthorized: no"),
                    Some("InvalidJWTToken: expired"),
                    Some("ClientJoinRateLimitReached: x"),
                    Some("PrivateOnly: x"),
                    Some("RealtimeRestarting: x"),
                ];
                self.refusal = reasons[self.rng.random_range(0..reasons.len())];
            }
            7 => {
                let kinds = [EndKind::Failed, EndKind::ServerRestarts];
                let kind = kinds[self.rng.random_range(0..kinds.len())];
                self.in_ms(0..100, Later::Closed(socket, kind));
            }
            8 | 9 => {
                let event = if self.chance(50) { "phx_close" } else { "phx_error" };
                // Of this join, or of an older one.
                let of: Vec<String> = self.used.iter().cloned().collect();
                if !of.is_empty() {
                    let join_ref = of[self.rng.random_range(0..of.len())].clone();
                    self.joined.remove(&join_ref);
                    self.answer(json!([join_ref, join_ref, TOPIC, event, {}]));
                }
            }
            10 => self.skew_ms += self.rng.random_range(-90_000_000_i64..90_000_000),
            11 => self.signed_out = !self.signed_out,
            12 | 13 => self.nudge(),
            14 => self.broadcast(Uuid::nil()),
            _ => {
                let nonsense = [
                    json!([null, null, TOPIC, "broadcast", 7]),
                    json!([null, "99", TOPIC, "phx_reply", {}]),
                ];
                let which = self.rng.random_range(0..nonsense.len());
                if !self.joined.is_empty() {
                    self.answer(nonsense[which].clone());
                }
            }
        }
    }

    fn nudge(&mut self) {
        let moment = self.moment();
        let doubts = self.chance(50);
        match &mut self.doing {
            Doing::Waiting {
                until,
                may_hurry: true,
                ..
            } => *until = self.now,
            Doing::Waiting { .. } | Doing::Dialing { .. } => {}
            Doing::Talking(talk) => {
                let around = &mut Around {
                    outlet: &mut self.outlet,
                    dice: &mut self.dice,
                    patience: &mut self.course.patience,
                };
                let told = if doubts {
                    talk.doubt(moment, around)
                } else {
                    talk.nudged(moment, *around.patience);
                    Ok(())
                };
                self.told(told);
            }
        }
    }
}
