//! The small repository that a fresh machine starts with, so that there is something to work on.

use std::fs;
use std::path::Path;

use crate::error::WorktreeError;
use crate::git::Git;
use crate::repository::Repository;

/// Path and text of every file.
const FILES: &[(&str, &str)] = &[
    ("README.md", include_str!("../sample/README.md")),
    (".gitignore", include_str!("../sample/gitignore")),
    ("package.json", include_str!("../sample/package.json")),
    ("ui/index.html", include_str!("../sample/ui/index.html")),
    ("ui/app.js", include_str!("../sample/ui/app.js")),
    ("ui/style.css", include_str!("../sample/ui/style.css")),
    ("server/main.js", include_str!("../sample/server/main.js")),
    ("server/tasks.js", include_str!("../sample/server/tasks.js")),
    (
        "tests/tasks.test.js",
        include_str!("../sample/tests/tasks.test.js"),
    ),
];

/// Opens the sample repository in `dir`, making it with one commit when the folder does not exist yet. A folder that
/// exists is the user's: it is opened as it is, never written to.
pub async fn sample_repository(dir: &Path) -> Result<Repository, WorktreeError> {
    if fs::symlink_metadata(dir).is_ok() {
        return Repository::open(dir).await;
    }
    // Made beside its place and moved there whole, so that a crash leaves no half of it under the real name.
    let parent = dir.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(WorktreeError::io("make the folder", parent))?;
    let draft = tempfile::Builder::new()
        .prefix(".sample-")
        .tempdir_in(parent)
        .map_err(WorktreeError::io("make a folder in", parent))?;
    let top = draft.path();
    for (name, text) in FILES {
        let file = top.join(name);
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).map_err(WorktreeError::io("make the folder", folder))?;
        }
        fs::write(&file, text).map_err(WorktreeError::io("write", &file))?;
    }
    let what = "make the sample repository";
    Git::new(top, what)
        .args(["init", "--quiet", "--initial-branch=main"])
        .text()
        .await?;
    Git::new(top, what).args(["add", "--all"]).text().await?;
    Git::new(top, what)
        .args([
            "commit",
            "--quiet",
            "--no-gpg-sign",
            "-m",
            "A small to-do list: page, server, tests",
        ])
        .text()
        .await?;
    let top = draft.keep();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&top, mode).map_err(WorktreeError::io("open up", &top))?;
    }
    match fs::rename(&top, dir) {
        Ok(()) => {}
        // Another program of ours was quicker. The draft holds nothing but our own text.
        Err(_) if dir.exists() => {
            fs::remove_dir_all(&top).map_err(WorktreeError::io("remove the draft", &top))?;
        }
        Err(error) => return Err(WorktreeError::io("move the sample repository to", dir)(error)),
    }
    Repository::open(dir).await
}
