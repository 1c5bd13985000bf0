//! Where the database cluster and its socket lie, under which user Postgres runs, and who holds the folder.
//!
//! Postgres refuses to run as root, so under root it runs as another user, and that user must be able to enter
//! the folder. Where it cannot (a home of mode 0700), the cluster lies in `/var/lib/semo/<hash of the data
//! folder>` instead. Never removes a cluster whose data folder could come back. Called by [`crate::Hub::start`].

use std::fs;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::error::HubError;

/// Clusters of root's hubs whose data folder Postgres may not enter.
const ELSEWHERE: &str = "/var/lib/semo";
/// Longest path of a Unix socket on Linux and macOS, with room for the smaller of the two, in bytes.
const SOCKET_PATH_MAX: usize = 103;
/// What Postgres appends to the socket folder.
const SOCKET_NAME: &str = "/.s.PGSQL.5432";

/// The user Postgres runs as when the hub is root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunAs {
    pub uid: u32,
    pub gid: u32,
}

/// The folders of one hub's Postgres, held by a lock for as long as this value lives.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// `PGDATA`.
    pub pgdata: PathBuf,
    /// Folder of the Unix socket (0700).
    pub socket_dir: PathBuf,
    /// What Postgres prints.
    pub log: PathBuf,
    /// Set under root only.
    pub run_as: Option<RunAs>,
    _lock: Lock,
}

impl Cluster {
    /// Makes the folders, takes the lock, decides where the cluster lies.
    pub fn open(data_dir: &Path) -> Result<Cluster, HubError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(data_dir)
            .map_err(|source| HubError::Folder {
                attempt: "create the folder",
                path: data_dir.to_owned(),
                source,
            })?;
        let data_dir = &fs::canonicalize(data_dir).map_err(|source| HubError::Folder {
            attempt: "find the folder",
            path: data_dir.to_owned(),
            source,
        })?;
        let lock = lock(data_dir)?;
        let run_as = rustix::process::geteuid().is_root().then(unprivileged);
        let root = match run_as {
            Some(user) if !may_enter(data_dir, user) => elsewhere(data_dir)?,
            Some(_) | None => data_dir.clone(),
        };
        let pgdata = root.join("postgres");
        let socket_dir = socket_dir(&root, data_dir);
        for folder in [&pgdata, &socket_dir] {
            private_folder(folder, run_as)?;
        }
        Ok(Cluster {
            pgdata,
            socket_dir,
            log: data_dir.join("postgres.log"),
            run_as,
            _lock: lock,
        })
    }

    /// Where the socket of the hub is that holds `data_dir` now, and which major version made its cluster.
    pub fn of_running(data_dir: &Path) -> Result<(PathBuf, Option<u32>), HubError> {
        let data_dir = fs::canonicalize(data_dir).map_err(|source| HubError::Folder {
            attempt: "find the folder",
            path: data_dir.to_owned(),
            source,
        })?;
        let run_as = rustix::process::geteuid().is_root().then(unprivileged);
        let root = match run_as {
            Some(user) if !may_enter(&data_dir, user) => Path::new(ELSEWHERE).join(hash(&data_dir)),
            Some(_) | None => data_dir.clone(),
        };
        Ok((socket_dir(&root, &data_dir), version_in(&root.join("postgres"))))
    }

    /// The major version whose `initdb` has been here; `None` when none has.
    pub fn made_by(&self) -> Option<u32> {
        version_in(&self.pgdata)
    }
}

fn version_in(pgdata: &Path) -> Option<u32> {
    let version = fs::read_to_string(pgdata.join("PG_VERSION")).ok()?;
    version.trim().parse().ok()
}

/// Beside the cluster, unless a Unix socket's path could not be that long.
fn socket_dir(root: &Path, data_dir: &Path) -> PathBuf {
    let beside = root.join("socket");
    if beside.as_os_str().len() + SOCKET_NAME.len() > SOCKET_PATH_MAX {
        return Path::new("/tmp").join(format!("semo-hub-{}", hash(data_dir)));
    }
    beside
}

/// A locked file. Unlocked in words, not by closing it: a program that another thread is starting just now has it open for
/// a moment, too.
#[derive(Debug)]
struct Lock(fs::File);

impl Drop for Lock {
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "the data folder is not given back before this process ends");
        }
    }
}

/// One hub per data folder. The file stays; the lock goes with the process, however it ends.
fn lock(data_dir: &Path) -> Result<Lock, HubError> {
    let path = data_dir.join("hub.lock");
    let fault = |attempt| {
        move |source, path: &Path| HubError::Folder {
            attempt,
            path: path.to_owned(),
            source,
        }
    };
    let mut file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|source| fault("write to")(source, &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let known = file.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
            let holder = if known {
                holder.trim().to_owned()
            } else {
                "unknown".to_owned()
            };
            return Err(HubError::InUse {
                path: data_dir.to_owned(),
                holder,
            });
        }
        Err(fs::TryLockError::Error(source)) => return Err(fault("lock")(source, &path)),
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(std::process::id().to_string().as_bytes()))
        .map_err(|source| fault("write to")(source, &path))?;
    Ok(Lock(file))
}

/// `postgres` where the distribution made that user, else `nobody`.
fn unprivileged() -> RunAs {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let find = |name: &str| {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let (user, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
            (user == name).then_some(RunAs {
                uid: uid.parse().ok()?,
                gid: gid.parse().ok()?,
            })
        })
    };
    const NOBODY: RunAs = RunAs {
        uid: 65_534,
        gid: 65_534,
    };
    find("postgres").or_else(|| find("nobody")).unwrap_or(NOBODY)
}

/// True when every folder from the root down to `folder` lets `user` through.
fn may_enter(folder: &Path, user: RunAs) -> bool {
    folder.ancestors().all(|part| {
        fs::metadata(part).is_ok_and(|meta| {
            let mode = meta.mode();
            if meta.uid() == user.uid {
                mode & 0o100 != 0
            } else if meta.gid() == user.gid {
                mode & 0o010 != 0
            } else {
                mode & 0o001 != 0
            }
        })
    })
}

/// The place for a cluster whose data folder Postgres may not enter; a note in it says whose it is.
fn elsewhere(data_dir: &Path) -> Result<PathBuf, HubError> {
    sweep_temporary();
    let root = Path::new(ELSEWHERE).join(hash(data_dir));
    let fault = |source| HubError::Folder {
        attempt: "create the folder",
        path: root.clone(),
        source,
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(&root)
        .map_err(fault)?;
    fs::write(root.join("data-folder"), data_dir.as_os_str().as_encoded_bytes()).map_err(fault)?;
    tracing::info!(cluster = %root.display(), data = %data_dir.display(),
        "Postgres may not enter the data folder; the cluster lies elsewhere");
    Ok(root)
}

/// Removes clusters whose data folder was in the system's temporary folder and is gone: left by tests. Any
/// other data folder that is missing may be on a disk that is not mounted just now.
fn sweep_temporary() {
    let temporary = std::env::temp_dir();
    for entry in fs::read_dir(ELSEWHERE).into_iter().flatten().flatten() {
        let Ok(owner) = fs::read_to_string(entry.path().join("data-folder")) else {
            continue;
        };
        let owner = Path::new(&owner);
        let running = entry.path().join("postgres/postmaster.pid").exists();
        if owner.starts_with(&temporary)
            && !owner.exists()
            && !running
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::debug!(folder = %entry.path().display(), %error, "a left-over cluster stays");
        }
    }
}

/// Makes `folder` 0700 and owned by the user Postgres runs as; refuses one that belongs to somebody else.
fn private_folder(folder: &Path, run_as: Option<RunAs>) -> Result<(), HubError> {
    let fault = |source| HubError::Folder {
        attempt: "set up the folder",
        path: folder.to_owned(),
        source,
    };
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(fault(source)),
    }
    let meta = fs::symlink_metadata(folder).map_err(fault)?;
    let own = rustix::process::geteuid().as_raw();
    let wanted = run_as.map_or(own, |user| user.uid);
    if !meta.is_dir() || (meta.uid() != own && meta.uid() != wanted) {
        return Err(fault(std::io::Error::other("it is not a folder of this user")));
    }
    if let Some(user) = run_as {
        std::os::unix::fs::chown(folder, Some(user.uid), Some(user.gid)).map_err(fault)?;
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(fault)
}

fn hash(path: &Path) -> String {
    let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_hub_on_the_same_folder_is_told_who_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        let first = Cluster::open(folder.path()).unwrap();
        let error = Cluster::open(folder.path()).unwrap_err();
        assert!(
            matches!(&error, HubError::InUse { holder, .. } if *holder == std::process::id().to_string())
        );
        // As a program has it that is just being started.
        let inherited = first._lock.0.try_clone().unwrap();
        drop(first);
        Cluster::open(folder.path()).unwrap();
        drop(inherited);
    }

    #[test]
    fn a_deep_data_folder_does_not_break_the_socket() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("d".repeat(120));
        let cluster = Cluster::open(&deep).unwrap();
        assert!(cluster.socket_dir.as_os_str().len() + SOCKET_NAME.len() <= SOCKET_PATH_MAX);
        fs::remove_dir(&cluster.socket_dir).unwrap();
    }

    #[test]
    fn a_closed_home_cannot_be_entered_by_another_user() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let stranger = RunAs {
            uid: 4_000_000,
            gid: 4_000_000,
        };
        assert!(!may_enter(folder.path(), stranger));
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
        assert!(may_enter(folder.path(), stranger));
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named_in_the_error() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let error = Cluster::open(&folder.path().join("file/hub"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("file/hub") && error.contains("create the folder"),
            "{error}"
        );
    }
}
