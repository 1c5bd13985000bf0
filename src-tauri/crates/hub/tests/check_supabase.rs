//! What scripts/check-supabase.sh says of a database: nothing of one that is as it should be, and what is wrong, in
//! words, of one that somebody has changed by hand.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and the script is a program"
)]

mod support;

use std::process::Command;

use support::{TestHub, on_own_hub};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../..");

/// Whether all is well, and what was said.
fn check(hub: &TestHub) -> (bool, String) {
    let output = Command::new("bash")
        .arg("scripts/check-supabase.sh")
        .args(["--db", &hub.database_url])
        .current_dir(ROOT)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), format!("{said}{complaint}"))
}

#[test]
fn what_was_changed_by_hand_is_found_and_told() {
    on_own_hub(
        |_| {},
        async |hub| {
            let (good, said) = check(&hub);
            assert!(good, "{said}");
            assert!(!said.contains("fault"), "{said}");
            let admin = hub.admin().await;
            for (change, words) in [
                (
                    "alter policy command_read on public.agent_commands using (true)",
                    &["command_read", "says something else", "`true`"][..],
                ),
                (
                    "alter policy office_commands_receive on realtime.messages
                   using (extension = 'broadcast' or private.topic_office((select realtime.topic()))
                          in (select private.my_offices()))",
                    &["office_commands_receive", "says something else", "OR"],
                ),
                (
                    "create or replace function private.my_offices() returns setof uuid
                 language sql stable security definer set search_path = '' as $$
  select m.office_id from public.office_members m
  where m.user_id = (select auth.uid()) $$",
                    &[
                        "private.my_offices is of another version",
                        "line 3",
                        "revoked_at is null",
                    ],
                ),
                (
                    "alter function private.has_office_role(uuid, text[]) set search_path = public",
                    &["private.has_office_role", "search_path"],
                ),
                (
                    "drop trigger agent_commands_ring_insert on public.agent_commands;
                 create trigger agent_commands_ring_insert after insert on public.agent_commands
                 for each row when (new.priority > 0) execute function private.ring_command()",
                    &["agent_commands_ring_insert", "does something else"],
                ),
            ] {
                admin.batch_execute("begin").await.unwrap();
                let changed = admin.batch_execute(change).await;
                changed.unwrap_or_else(|error| panic!("{change}: {error:?}"));
                admin.batch_execute("commit").await.unwrap();
                let (good, said) = check(&hub);
                assert!(!good, "{change} is not found");
                for word in words {
                    assert!(said.contains(word), "{change}: `{word}` is missing in\n{said}");
                }
            }
        },
    );
}
