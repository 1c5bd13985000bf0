//! A hub in one file, and back: the database as `pg_dump` gives it, and the keys, without which no client could come
//! back and no password of a role would fit.
//!
//! A backup may be made while the hub runs. Putting one back never overwrites a hub that is there: it is refused, or
//! what was there is put aside and comes back when something fails. Called by the programs (`semo hub backup`,
//! `semo hub restore`).

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use domain::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_util::task::TaskTracker;

use crate::elsewhere::OTHER_OWNER;
use crate::error::HubError;
use crate::keys::{KEY_FILE, Keys};
use crate::one::One;
use crate::postgres::{self, Binaries, Cluster, SUPERUSER, Server, Tool, config_at};
use crate::source::Source;
use crate::{DatabaseAt, HubConfig, migrate};

/// Number of the form of the file; a program refuses what is newer.
const FORM: u32 = 1;
/// Names inside the file.
const MANIFEST: &str = "manifest.json";
const DUMP: &str = "database.dump";
/// Largest manifest or key file that is read, in bytes.
const SMALL_MAX: u64 = 1024 * 1024;
/// What is captured for sockets that are open just now: worthless a moment later.
const PASSING: &str = "--exclude-table-data=realtime.hub_*";

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORM`].
    pub form: u32,
    /// When it was made.
    pub made_at: Timestamp,
    /// By which version of the program.
    pub program: String,
    /// Bytes of the database's dump.
    pub dump_bytes: u64,
}

fn fault(attempt: impl Into<String>, reason: &dyn std::fmt::Display) -> HubError {
    HubError::Backup {
        attempt: attempt.into(),
        reason: reason.to_string(),
    }
}

/// Writes a backup of the hub of `config` to `file`, which must not be there; the hub may be running or not.
pub async fn backup(config: &HubConfig, file: &Path) -> Result<Manifest, HubError> {
    let attempt = || format!("write the backup {}", file.display());
    if file.exists() {
        return Err(fault(
            attempt(),
            &"there is a file of that name; choose another one",
        ));
    }
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // Beside its place: on the same disk, so that it is there as a whole or not at all.
    let work = tempfile::Builder::new()
        .prefix(".semo-backup-")
        .tempdir_in(folder)
        .map_err(|error| fault(attempt(), &error))?;
    let dump = work.path().join(DUMP);
    let keys = fs::read(config.data_dir.join(KEY_FILE)).map_err(|error| {
        fault(
            "read the keys of the hub",
            &format!("{error}; is this its data folder?"),
        )
    })?;
    dump_to(config, &dump).await?;
    let manifest = Manifest {
        form: FORM,
        made_at: config.clock.now(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        dump_bytes: fs::metadata(&dump)
            .map_err(|error| fault(attempt(), &error))?
            .len(),
    };
    let packed = work.path().join("backup");
    pack(&packed, &manifest, &keys, &dump)
        .and_then(|()| fs::rename(&packed, file))
        .and_then(|()| fs::File::open(folder)?.sync_all())
        .map_err(|error| fault(attempt(), &error))?;
    Ok(manifest)
}

/// The dump, from the server that runs, or from one that is started for it.
async fn dump_to(config: &HubConfig, dump: &Path) -> Result<(), HubError> {
    let file = format!("--file={}", dump.display());
    let arguments = [
        OsStr::new("--format=custom"),
        OsStr::new(PASSING),
        OsStr::new(&file),
    ];
    let setting = match &config.database {
        DatabaseAt::Own { postgres_bin } => postgres_bin.as_deref(),
        DatabaseAt::Url(url) => {
            let address = crate::elsewhere::parse(url)?;
            let binaries = postgres::locate(None, None).await?;
            return postgres::run(Tool::Dump, &binaries, &address, &arguments).await;
        }
    };
    match Cluster::open(&config.data_dir) {
        Err(HubError::InUse { .. }) => {
            let (socket, made_by) = Cluster::of_running(&config.data_dir)?;
            let binaries = postgres::locate(setting, made_by).await?;
            let address = config_at(&socket, SUPERUSER);
            postgres::run(Tool::Dump, &binaries, &address, &arguments).await
        }
        Err(error) => Err(error),
        Ok(cluster) => {
            let binaries = postgres::locate(setting, cluster.made_by()).await?;
            let server = Server::start(binaries.clone(), cluster).await?;
            let address = server.config(SUPERUSER);
            let dumped = postgres::run(Tool::Dump, &binaries, &address, &arguments).await;
            server.stop().await?;
            dumped
        }
    }
}

fn pack(to: &Path, manifest: &Manifest, keys: &[u8], dump: &Path) -> io::Result<()> {
    let file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)?;
    let mut archive = tar::Builder::new(file);
    let manifest = serde_json::to_vec_pretty(manifest)?;
    for (name, bytes) in [(MANIFEST, manifest.as_slice()), (KEY_FILE, keys)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        archive.append_data(&mut header, name, bytes)?;
    }
    archive.append_path_with_name(dump, DUMP)?;
    archive.into_inner()?.sync_all()
}

/// What is in a backup, unpacked beside the data folder.
struct Unpacked {
    manifest: Manifest,
    keys: Keys,
    dump: PathBuf,
    _folder: tempfile::TempDir,
}

fn unpack(file: &Path, data_dir: &Path) -> Result<Unpacked, HubError> {
    let attempt = || format!("read the backup {}", file.display());
    let bad = |reason: &dyn std::fmt::Display| fault(attempt(), reason);
    let folder = tempfile::Builder::new()
        .prefix("restore-")
        .tempdir_in(data_dir)
        .map_err(|error| bad(&error))?;
    let dump = folder.path().join(DUMP);
    let mut archive = tar::Archive::new(fs::File::open(file).map_err(|error| bad(&error))?);
    let (mut manifest, mut keys) = (None, None);
    for entry in archive.entries().map_err(|error| bad(&error))? {
        let mut entry = entry.map_err(|error| bad(&error))?;
        let name = entry.path().map_err(|error| bad(&error))?.into_owned();
        let mut small = || {
            let mut bytes = Vec::new();
            let read = entry.by_ref().take(SMALL_MAX).read_to_end(&mut bytes);
            read.map(|_| bytes)
        };
        // Names are compared, never used as paths.
        match name.to_str() {
            Some(MANIFEST) => manifest = Some(small().map_err(|error| bad(&error))?),
            Some(KEY_FILE) => keys = Some(small().map_err(|error| bad(&error))?),
            Some(DUMP) => {
                let mut to = fs::File::create(&dump).map_err(|error| bad(&error))?;
                io::copy(&mut entry, &mut to).map_err(|error| bad(&error))?;
            }
            _ => {}
        }
    }
    let (Some(manifest), Some(keys)) = (manifest, keys) else {
        return Err(bad(&"it is no backup of a hub"));
    };
    let manifest: Manifest = serde_json::from_slice(&manifest).map_err(|error| bad(&error))?;
    let keys: Keys = serde_json::from_slice(&keys).map_err(|error| bad(&error))?;
    if manifest.form > FORM {
        return Err(bad(&"it was made by a newer program; use that one"));
    }
    let bytes = fs::metadata(&dump).map_or(0, |meta| meta.len());
    if bytes != manifest.dump_bytes {
        let reason = format!(
            "it is not whole: {bytes} of {} bytes of the database are there",
            manifest.dump_bytes
        );
        return Err(bad(&reason));
    }
    Ok(Unpacked {
        manifest,
        keys,
        dump,
        _folder: folder,
    })
}

/// Puts a backup back, while no hub runs on the data folder. A hub that is there already is put aside when `replace`
/// says so (a database elsewhere is overwritten then), else it is refused.
pub async fn restore(config: &HubConfig, file: &Path, replace: bool) -> Result<Manifest, HubError> {
    let cluster = Cluster::open(&config.data_dir)?;
    let unpacked = unpack(file, &config.data_dir)?;
    match &config.database {
        DatabaseAt::Own { postgres_bin } => {
            restore_own(config, cluster, postgres_bin.as_deref(), &unpacked, replace).await?;
        }
        DatabaseAt::Url(url) => restore_away(config, cluster, url, &unpacked, replace).await?,
    }
    Ok(unpacked.manifest)
}

fn taken(what: &str) -> HubError {
    fault(
        "put the backup back",
        &format!("{what}; with `--replace` the backup takes its place"),
    )
}

async fn restore_own(
    config: &HubConfig,
    cluster: Cluster,
    setting: Option<&Path>,
    unpacked: &Unpacked,
    replace: bool,
) -> Result<(), HubError> {
    if cluster.made_by().is_some() && !replace {
        return Err(taken("there is a hub in this data folder"));
    }
    let aside = Aside::put(config, &cluster)?;
    // Opened again: the folders are made anew with their rights.
    let pgdata = cluster.pgdata.clone();
    drop(cluster);
    let done = async {
        let cluster = Cluster::open(&config.data_dir)?;
        let binaries = postgres::locate(setting, None).await?;
        unpacked.keys.write(&config.data_dir.join(KEY_FILE))?;
        let server = Server::start(binaries.clone(), cluster).await?;
        let source = Source::own(server)?;
        let filled = fill(&source, &binaries, &unpacked.dump).await;
        source.stop().await?;
        filled
    }
    .await;
    if done.is_err() {
        aside.bring_back(&pgdata, &config.data_dir.join(KEY_FILE))?;
    }
    done
}

async fn restore_away(
    config: &HubConfig,
    cluster: Cluster,
    url: &str,
    unpacked: &Unpacked,
    replace: bool,
) -> Result<(), HubError> {
    let tasks = TaskTracker::new();
    let source = Source::away(url, &unpacked.keys, cluster)?;
    let _one = One::take(source.superuser(), &tasks).await?;
    let superuser = source.superuser().open(&tasks, "to put a backup back").await?;
    source.check_is_ours(&superuser).await?;
    let row = superuser
        .query_one("select to_regclass('public.offices') is not null", &[])
        .await
        .map_err(|error| fault("look into the database", &crate::error::explained(&error)))?;
    if row.get::<_, bool>(0) && !replace {
        return Err(taken("there is a hub in this database"));
    }
    let keys = config.data_dir.join(KEY_FILE);
    let others = has_other_keys(&keys, &unpacked.keys)?;
    if others && !replace {
        return Err(taken("there are keys of another hub in this data folder"));
    }
    let binaries = postgres::locate(None, None).await?;
    // Both beside their place before anything is overwritten: afterwards the keys need no more than a new name.
    let restored = keys.with_extension("json.restored");
    unpacked.keys.write(&restored)?;
    if others {
        let kept = aside_of(config, &keys);
        fs::copy(&keys, &kept)
            .map_err(|error| fault(format!("keep the keys as {}", kept.display()), &error))?;
    }
    if let Err(error) = fill(&source, &binaries, &unpacked.dump).await {
        if let Err(left) = fs::remove_file(&restored) {
            tracing::warn!(error = %left, file = %restored.display(), "keys that came to nothing are left");
        }
        return Err(error);
    }
    fs::rename(&restored, &keys).map_err(|error| {
        let attempt = format!("give the keys in {} their name", restored.display());
        fault(attempt, &error)
    })
}

/// Whether there are keys at `path` and they are not `keys`.
fn has_other_keys(path: &Path, keys: &Keys) -> Result<bool, HubError> {
    let there = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(fault(format!("read {}", path.display()), &error)),
        Ok(bytes) => serde_json::from_slice::<serde_json::Value>(&bytes).ok(),
    };
    Ok(there.is_none() || there != serde_json::to_value(keys).ok())
}

/// Where something is kept that a backup takes the place of.
fn aside_of(config: &HubConfig, path: &Path) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(format!(".before-{}", config.clock.now().0 / 1000));
    PathBuf::from(name)
}

/// Roles first, which no dump of one database has; then the dump in one transaction.
async fn fill(source: &Source, binaries: &Binaries, dump: &Path) -> Result<(), HubError> {
    let tasks = TaskTracker::new();
    let superuser = source.superuser().open(&tasks, "to put a backup back").await?;
    let role = source.owner_role(&superuser).await?;
    migrate::bootstrap(&superuser, role).await?;
    // The dump may come from a server where another role was the owner; the hub hands over when it starts.
    let sql = format!(
        "do $$ begin
           if to_regrole('{OTHER_OWNER}') is null then create role {OTHER_OWNER} nologin; end if;
         end $$"
    );
    let made = superuser.batch_execute(&sql).await;
    made.map_err(|error| fault("make the roles", &crate::error::explained(&error)))?;
    drop(superuser);
    let arguments = [
        OsStr::new("--clean"),
        OsStr::new("--if-exists"),
        OsStr::new("--single-transaction"),
        OsStr::new("--exit-on-error"),
        OsStr::new("--dbname="),
        dump.as_os_str(),
    ];
    postgres::run(Tool::Restore, binaries, &source.superuser().config, &arguments).await
}

/// What was there before a backup takes its place.
struct Aside {
    moved: Vec<(PathBuf, PathBuf)>,
}

impl Aside {
    fn put(config: &HubConfig, cluster: &Cluster) -> Result<Aside, HubError> {
        let mut aside = Aside { moved: Vec::new() };
        for path in [cluster.pgdata.clone(), config.data_dir.join(KEY_FILE)] {
            let is_empty = fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_none());
            if !path.exists() || is_empty {
                continue;
            }
            let to = aside_of(config, &path);
            if let Err(error) = fs::rename(&path, &to) {
                aside.back()?;
                return Err(fault(format!("put {} aside", path.display()), &error));
            }
            aside.moved.push((path, to));
        }
        Ok(aside)
    }

    /// Takes away what was half made and brings back what was there.
    fn bring_back(self, pgdata: &Path, keys: &Path) -> Result<(), HubError> {
        let half_made = || -> io::Result<()> {
            if pgdata.exists() {
                fs::remove_dir_all(pgdata)?;
            }
            if keys.exists() {
                fs::remove_file(keys)?;
            }
            Ok(())
        };
        half_made().map_err(|error| fault("take away what was half made", &error))?;
        self.back()
    }

    fn back(self) -> Result<(), HubError> {
        for (path, from) in self.moved {
            fs::rename(&from, &path)
                .map_err(|error| fault(format!("bring {} back", from.display()), &error))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Debug)]
    struct Noon;

    impl domain::Clock for Noon {
        fn now(&self) -> Timestamp {
            Timestamp(1_795_219_200_000)
        }
    }

    #[test]
    fn what_cannot_be_put_aside_as_a_whole_stays_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let config = HubConfig::new(folder.path().join("hub"), listen, Arc::new(Noon));
        let cluster = Cluster::open(&config.data_dir).unwrap();
        let version = cluster.pgdata.join("PG_VERSION");
        fs::write(&version, "17").unwrap();
        let keys = config.data_dir.join(KEY_FILE);
        fs::write(&keys, "{}").unwrap();
        // A folder stands where the keys would go.
        fs::create_dir(aside_of(&config, &keys)).unwrap();
        let error = Aside::put(&config, &cluster).err().unwrap().to_string();
        assert!(error.contains(KEY_FILE), "{error}");
        assert_eq!(fs::read_to_string(&version).unwrap(), "17");
        assert_eq!(fs::read_to_string(&keys).unwrap(), "{}");
    }

    #[test]
    fn only_the_same_keys_are_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(KEY_FILE);
        let keys = Keys::load_or_create(folder.path(), Timestamp(0)).unwrap();
        assert!(!has_other_keys(&path, &keys).unwrap());
        assert!(!has_other_keys(&folder.path().join("none"), &keys).unwrap());
        Keys::rotate(folder.path(), Timestamp(0)).unwrap();
        assert!(has_other_keys(&path, &keys).unwrap());
        fs::write(&path, "{").unwrap();
        assert!(has_other_keys(&path, &keys).unwrap());
    }
}
