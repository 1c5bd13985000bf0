//! The port's guard, where Auth shows it.

use reqwest::Method;
use serde_json::json;

use crate::support::{answer, on_hub};
use crate::wire::request;

#[test]
fn health_and_settings_are_open_and_the_rest_wants_a_key() {
    on_hub(async |hub| {
        for path in ["/health", "/auth/v1/health", "/auth/v1/settings"] {
            let open = answer(hub.http.get(format!("{}{path}", hub.url))).await;
            assert_eq!(open.0, 200, "{path}");
        }
        for path in ["token?grant_type=password", "signup", "logout", "otp"] {
            let keyless = hub
                .http
                .post(format!("{}/auth/v1/{path}", hub.url))
                .json(&json!({"email": "a@b.c", "password": "p"}));
            assert_eq!(answer(keyless).await.0, 401, "{path}");
        }
    });
}

#[test]
fn foreign_hosts_and_origins_are_turned_away_and_pages_of_this_machine_get_cors() {
    on_hub(async |hub| {
        let ask = |name: &'static str, value: &str| {
            hub.http
                .get(format!("{}/health", hub.url))
                .header(name, value.to_owned())
                .send()
        };
        assert_eq!(ask("host", "evil.example").await.unwrap().status(), 403);
        assert_eq!(ask("origin", "https://evil.example").await.unwrap().status(), 403);
        let good = ask("origin", "http://localhost:5173").await.unwrap();
        assert_eq!(
            good.headers()["access-control-allow-origin"],
            "http://localhost:5173"
        );
        let preflight = hub
            .http
            .request(Method::OPTIONS, format!("{}/rest/v1/agents", hub.url))
            .header("origin", "http://localhost:5173")
            .header("access-control-request-method", "POST")
            .send()
            .await
            .unwrap();
        assert_eq!(preflight.status(), 204);
        let allowed = preflight.headers()["access-control-allow-headers"]
            .to_str()
            .unwrap();
        assert!(allowed.contains("authorization") && allowed.contains("x-supabase-api-version"));
        let listed = request(&hub, Method::GET, "settings").header("origin", "http://localhost:5173");
        let exposed = listed.send().await.unwrap().headers()["access-control-expose-headers"].clone();
        let exposed = exposed.to_str().unwrap();
        for name in [
            "x-sb-error-code",
            "x-supabase-api-version",
            "retry-after",
            "x-total-count",
            "link",
        ] {
            assert!(exposed.contains(name), "{name}: {exposed}");
        }
    });
}
