//! What the hub does not have is said as a Supabase project says it where it is switched off.

use reqwest::Method;
use serde_json::json;

use crate::support::on_hub;
use crate::wire::{admin, answer, post, request, session, signed};

#[test]
fn mail_codes_and_other_providers_are_off() {
    on_hub(async |hub| {
        let email = json!({"email": "a@b.c", "create_user": true, "data": {}, "gotrue_meta_security": {}});
        let phone = json!({"phone": "+34123", "channel": "sms"});
        for (path, body, fault) in [
            ("otp", &email, (422, "email_provider_disabled")),
            ("otp", &phone, (400, "phone_provider_disabled")),
            ("magiclink", &email, (422, "email_provider_disabled")),
            ("recover", &email, (400, "email_provider_disabled")),
            ("resend", &email, (400, "email_provider_disabled")),
            ("resend", &phone, (400, "phone_provider_disabled")),
            ("verify", &email, (403, "otp_expired")),
            ("sso", &email, (404, "saml_provider_disabled")),
            (
                "passkeys/authentication/options",
                &email,
                (404, "passkey_disabled"),
            ),
            ("token?grant_type=id_token", &email, (400, "provider_disabled")),
            ("token?grant_type=web3", &email, (422, "web3_provider_disabled")),
            ("token?grant_type=pkce", &email, (400, "validation_failed")),
        ] {
            assert_eq!(
                post(&hub, path, body.clone()).await.fault(),
                fault,
                "{path} {body}"
            );
        }
        // `verifyOTP() with invalid phone number`.
        let number = json!({"phone": "123-invalid", "token": "1", "type": "sms"});
        assert_eq!(
            post(&hub, "verify", number).await.fault(),
            (400, "validation_failed")
        );
        // `exchangeCodeForSession() should fail with invalid authCode`.
        let code = json!({"auth_code": "mock_code", "code_verifier": "mock_verifier"});
        let refused = post(&hub, "token?grant_type=pkce", code).await;
        assert_eq!(refused.fault(), (404, "flow_state_not_found"));
        let refused = answer(request(&hub, Method::GET, "authorize?provider=google")).await;
        assert_eq!(refused.fault(), (400, "validation_failed"));
    });
}

#[test]
fn second_factors_and_linking_are_off_for_who_is_signed_in() {
    on_hub(async |hub| {
        let (_, session) = session(&hub).await;
        let token = &session["access_token"];
        for (method, path, body, fault) in [
            (
                Method::POST,
                "factors",
                json!({"factor_type": "totp"}),
                (422, "mfa_totp_enroll_not_enabled"),
            ),
            (
                Method::POST,
                "factors",
                json!({"factor_type": "phone"}),
                (422, "mfa_phone_enroll_not_enabled"),
            ),
            (Method::POST, "factors", json!({}), (400, "validation_failed")),
            (
                Method::POST,
                "factors/x/challenge",
                json!({}),
                (404, "mfa_factor_not_found"),
            ),
            (
                Method::DELETE,
                "factors/x",
                json!({}),
                (404, "mfa_factor_not_found"),
            ),
            (
                Method::GET,
                "user/identities/authorize",
                json!({}),
                (404, "manual_linking_disabled"),
            ),
            (
                Method::DELETE,
                "user/identities/x",
                json!({}),
                (404, "manual_linking_disabled"),
            ),
            (
                Method::GET,
                "reauthenticate",
                json!({}),
                (422, "email_provider_disabled"),
            ),
        ] {
            let refused = signed(&hub, token, method.clone(), path, Some(body)).await;
            assert_eq!(refused.fault(), fault, "{path}");
            let stranger = answer(request(&hub, method, path).json(&json!({}))).await;
            // `enroll({factorType: "totp"}) should fail without session`.
            assert_eq!(stranger.fault(), (401, "no_authorization"), "{path}");
        }
    });
}

#[test]
fn administrators_are_told_too() {
    on_hub(async |hub| {
        for path in ["invite", "admin/generate_link"] {
            let refused = admin(&hub, Method::POST, path, Some(json!({"email": "a@b.c"}))).await;
            assert_eq!(refused.fault(), (422, "email_provider_disabled"), "{path}");
            // `inviteUserByEmail()`, `generateLink() returns AuthError when email is invalid`.
            let refused = admin(&hub, Method::POST, path, Some(json!({"email": "xx:;x@x.x"}))).await;
            assert_eq!(refused.fault(), (400, "validation_failed"), "{path}");
        }
        let refused = admin(&hub, Method::GET, "admin/oauth/clients", None).await;
        assert_eq!(refused.fault(), (404, "feature_disabled"));
    });
}
