//! The persona's block comes, is checked, and goes again without a trace.

use super::*;

#[tokio::test]
async fn the_block_is_read_back_with_the_hash_it_was_written_with() {
    let place = Place::new().await;
    let worktree = place.worktree("fe-1").await;
    assert_eq!(worktree.persona(PERSONA_FILES).unwrap(), None);
    let wanted = block("You are Mina.");
    let file = worktree.write_persona(PERSONA_FILES, &wanted).await.unwrap();
    let found = worktree.persona(PERSONA_FILES).unwrap().unwrap();
    assert_eq!((&found.file, &found.hash), (&file, &persona_hash(&wanted)));
    write(
        &worktree.path,
        ".claude/CLAUDE.md",
        &read(&file).replace("Mina", "Evil"),
    );
    let tampered = worktree.persona(PERSONA_FILES).unwrap().unwrap();
    assert_ne!(tampered.hash, persona_hash(&wanted));
    worktree.write_persona(PERSONA_FILES, &wanted).await.unwrap();
    assert_eq!(
        worktree.persona(PERSONA_FILES).unwrap().unwrap().hash,
        persona_hash(&wanted)
    );
}

#[tokio::test]
async fn what_stood_beside_the_block_is_there_again_to_the_byte_when_it_goes() {
    let place = Place::new().await;
    let worktree = place.worktree("fe-1").await;
    for text in [
        "notes\n",
        "no end",
        "blank ends  \n\n\n",
        "\u{feff}첫 줄\r\nsecond\r\n",
    ] {
        write(&worktree.path, "CLAUDE.local.md", text);
        write(&worktree.path, ".claude/settings.json", "{}");
        worktree
            .write_persona(&["CLAUDE.local.md"], &block("one"))
            .await
            .unwrap();
        worktree
            .write_persona(&["CLAUDE.local.md"], &block("two"))
            .await
            .unwrap();
        let changed = worktree.remove_persona(PERSONA_FILES).await.unwrap();
        assert_eq!(changed, [worktree.path.join("CLAUDE.local.md")]);
        assert_eq!(read(worktree.path.join("CLAUDE.local.md")), text);
    }
    assert!(worktree.path.join(".claude/settings.json").exists());
}

#[tokio::test]
async fn a_file_and_a_folder_that_only_the_block_brought_go_with_it() {
    let place = Place::new().await;
    let worktree = place.worktree("fe-1").await;
    worktree.write_persona(PERSONA_FILES, &block("x")).await.unwrap();
    worktree.remove_persona(PERSONA_FILES).await.unwrap();
    assert!(!worktree.path.join(".claude").exists());
    assert!(worktree.remove_persona(PERSONA_FILES).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_instruction_file_that_is_too_long_is_left_as_it_is() {
    let place = Place::new().await;
    let worktree = place.worktree("fe-1").await;
    let text = "x".repeat(1024 * 1024 + 1);
    write(&worktree.path, ".claude/CLAUDE.md", &text);
    assert!(worktree.write_persona(PERSONA_FILES, &block("x")).await.is_err());
    assert_eq!(read(worktree.path.join(".claude/CLAUDE.md")).len(), text.len());
}

#[tokio::test]
async fn a_pipe_in_the_place_of_a_persona_is_refused_and_never_waited_for() {
    let place = Place::new().await;
    let worktree = place.worktree("fe-1").await;
    let pipe = worktree.path.join("CLAUDE.local.md");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, mode).unwrap();
    let (done, finished) = std::sync::mpsc::channel();
    // On a thread of its own: it must come back, whatever it says.
    let its = worktree.clone();
    std::thread::spawn(move || done.send(its.persona(&["CLAUDE.local.md"]).map(|_| ())));
    let read = finished.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
    let error = read.unwrap_err();
    assert!(error.to_string().contains("CLAUDE.local.md"), "{error}");
    let written = worktree
        .write_persona(&["CLAUDE.local.md"], &block("You are Mina."))
        .await;
    assert!(written.is_err(), "{written:?}");
}
