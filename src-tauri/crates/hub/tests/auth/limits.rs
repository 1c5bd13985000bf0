//! Rate limits: per account, per address on the network.

use std::net::{IpAddr, Ipv4Addr};

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{TestHub, on_hub, on_own_hub};
use crate::wire::{PASSWORD, address, alone, answer, post, refresh, session, sign_in, user};

#[test]
fn guesses_at_one_account_end_and_others_are_not_stopped() {
    let _alone = alone();
    on_hub(async |hub| {
        let unknown = address();
        // All at once: they have no more tries than one after the other.
        let answers = join_all((0..11).map(|_| sign_in(&hub, &unknown, "wrong"))).await;
        let looked_at = answers.iter().filter(|answer| answer.status == 400).count();
        assert_eq!(looked_at, 10);
        let stopped = sign_in(&hub, &unknown, "wrong").await;
        assert_eq!(stopped.fault(), (429, "over_request_rate_limit"));
        let wait: u64 = stopped.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=300).contains(&wait), "{wait}");
        let (email, _) = user(&hub).await;
        sign_in(&hub, &email, PASSWORD).await.ok();
    });
}

#[test]
fn an_owner_who_is_guessed_at_from_elsewhere_still_signs_in() {
    let _alone = alone();
    on_hub(async |hub| {
        let (email, _) = user(&hub).await;
        let there = from(Ipv4Addr::new(127, 0, 0, 7));
        for _ in 0..11 {
            attempt(&hub, &there, &email, "wrong").await;
        }
        assert_eq!(attempt(&hub, &there, &email, PASSWORD).await, 429);
        sign_in(&hub, &email, PASSWORD).await.ok();
    });
}

/// A client of another address of this machine.
fn from(address: Ipv4Addr) -> reqwest::Client {
    reqwest::Client::builder()
        .local_address(IpAddr::V4(address))
        .build()
        .unwrap()
}

async fn attempt(hub: &TestHub, from: &reqwest::Client, email: &str, password: &str) -> u16 {
    let request = from
        .post(format!("{}/auth/v1/token?grant_type=password", hub.url))
        .header("apikey", &hub.publishable)
        .json(&json!({"email": email, "password": password}));
    answer(request).await.status
}

#[test]
fn one_address_on_the_network_asks_only_so_often() {
    let _alone = alone();
    on_own_hub(
        |config| {
            config.auth.sign_up = true;
            config.auth.limits = hub::AuthLimits {
                sign_ins: 4,
                refreshes: 3,
                sign_ups: 2,
            };
        },
        async |hub| {
            let (email, session) = session(&hub).await;
            for _ in 0..3 {
                refresh(&hub, &session["refresh_token"]).await.ok();
            }
            let stopped = refresh(&hub, &session["refresh_token"]).await;
            assert_eq!(stopped.fault(), (429, "over_request_rate_limit"));
            assert!(stopped.headers.contains_key("retry-after"));
            let sign_up = async || {
                post(&hub, "signup", json!({"email": address(), "password": PASSWORD}))
                    .await
                    .status
            };
            assert_eq!(
                [sign_up().await, sign_up().await, sign_up().await],
                [200, 200, 429]
            );
            // Each with another account: the address on the network is what counts.
            for _ in 0..3 {
                assert_eq!(sign_in(&hub, &address(), PASSWORD).await.status, 400);
            }
            assert_eq!(sign_in(&hub, &email, PASSWORD).await.status, 429);
            let there = from(Ipv4Addr::new(127, 0, 0, 7));
            assert_eq!(attempt(&hub, &there, &email, PASSWORD).await, 200);
        },
    );
}

#[test]
fn a_header_names_the_caller_only_where_the_owner_says_so() {
    let _alone = alone();
    let limits = hub::AuthLimits {
        sign_ins: 1,
        ..hub::AuthLimits::default()
    };
    // Each line of `told` is a header of its own.
    let through = async |hub: &TestHub, told: &str| {
        let request = hub
            .http
            .post(format!("{}/auth/v1/token?grant_type=password", hub.url))
            .header("apikey", &hub.publishable)
            .json(&json!({"email": address(), "password": PASSWORD}));
        let request = told
            .lines()
            .fold(request, |request, line| request.header("x-forwarded-for", line));
        answer(request).await.status
    };
    on_own_hub(
        |config| config.auth.limits = limits,
        async |hub| {
            assert_eq!(through(&hub, "10.0.0.1").await, 400);
            assert_eq!(through(&hub, "10.0.0.2").await, 429, "anybody could write that");
        },
    );
    on_own_hub(
        |config| {
            config.auth.limits = limits;
            config.auth.client_ip_header = Some("x-forwarded-for".to_owned());
        },
        async |hub| {
            assert_eq!(through(&hub, "10.0.0.1").await, 400);
            assert_eq!(through(&hub, "10.0.0.2").await, 400);
            assert_eq!(
                through(&hub, "6.6.6.6, 10.0.0.2").await,
                429,
                "the last is the proxy's own"
            );
            assert_eq!(
                through(&hub, "6.6.6.7\n10.0.0.2").await,
                429,
                "of several lines, too"
            );
            assert_eq!(
                through(&hub, "10.0.0.2:4711").await,
                429,
                "a port is no other caller"
            );
            assert_eq!(through(&hub, "10.0.0.2\n[2001:db8::3]:4711").await, 400);
        },
    );
}
