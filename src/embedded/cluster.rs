//! Makes the cluster with `initdb`, once and completely, and knows the settings it is served with.
//! Not here: the server process (see `process`) and anything inside the database `tollgate`.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::NAME;
use super::discover::PgInstall;
use super::error::{EmbeddedError, io_error};
use super::home::{Home, write_private};

/// A cluster in the making: only a complete one is renamed to `postgres`.
const DRAFT: &str = "postgres.init-";
/// Bytes of randomness in the password.
const PASSWORD_BYTES: usize = 24;

/// Settings of every server, ahead of `postgresql.conf`. The first three are Postgres' defaults:
/// they are here because what Tollgate promises rests on them.
const SETTINGS: [&str; 18] = [
    "fsync=on",
    "synchronous_commit=on",
    "full_page_writes=on",
    "listen_addresses=127.0.0.1",
    "max_connections=100",
    "shared_buffers=128MB",
    // A new segment of WAL is written twice, once with zeros: keep to a few, and use them again.
    "min_wal_size=512MB",
    "max_wal_size=512MB",
    "checkpoint_timeout=15min",
    "timezone=UTC",
    "log_timezone=UTC",
    "lc_messages=C",
    "log_destination=stderr",
    "logging_collector=off",
    // Details and statements hold what customers are called. Hints go with them.
    "log_error_verbosity=terse",
    "log_min_error_statement=panic",
    "cluster_name=tollgate",
    "unix_socket_permissions=0700",
];

/// The major version that made the cluster at `pgdata`; `None` when there is none yet.
pub(super) fn major(pgdata: &Path) -> Result<Option<u32>, EmbeddedError> {
    let path = pgdata.join("PG_VERSION");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", &path)(error)),
    }
}

/// Makes the cluster, its password and the database when they are not there yet. Killed at any
/// moment, it leaves nothing the next call would take for a cluster.
#[allow(clippy::disallowed_methods, reason = "a password is to be unpredictable, a draft unique")]
pub(super) async fn ensure(home: &Home, install: &PgInstall) -> Result<(), EmbeddedError> {
    remove_drafts(&home.dir);
    if major(&home.pgdata())?.is_some() {
        return Ok(());
    }
    tracing::info!(data_dir = %home.dir.display(), version = install.major, "making a new database");
    // One that is there belongs to a cluster that is away, on a volume not mounted yet say: it must
    // fit when that comes back.
    let path = home.password_file();
    if home.has_password() {
        home.account.give(&path).map_err(io_error("change the owner of", &path))?;
    } else {
        let password = hex::encode(rand::random::<[u8; PASSWORD_BYTES]>());
        write_private(&path, &password, &home.account).map_err(io_error("write", &path))?;
    }

    // Always another name: the `initdb` of a killed predecessor may still be at work in its own.
    let draft = home.dir.join(format!("{DRAFT}{:08x}", rand::random::<u32>()));
    DirBuilder::new().mode(0o700).create(&draft).map_err(io_error("create", &draft))?;
    home.account.give(&draft).map_err(io_error("change the owner of", &draft))?;
    init(home, install, &draft).await?;
    create_database(home, install, &draft).await?;

    let pgdata = home.pgdata();
    fs::rename(&draft, &pgdata).map_err(io_error("rename", &draft))?;
    let synced = File::open(&home.dir).and_then(|dir| dir.sync_all());
    synced.map_err(io_error("sync", &home.dir))
}

/// What an interrupted `ensure` left. What cannot be removed is only in the way of nobody.
fn remove_drafts(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(DRAFT)
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::warn!(path = %entry.path().display(), %error, "cannot remove");
        }
    }
}

/// Runs `initdb` in the empty folder `draft`.
async fn init(home: &Home, install: &PgInstall, draft: &Path) -> Result<(), EmbeddedError> {
    // Sorting by code point is the same on every system and survives its upgrades. Upper and lower
    // case of all of Unicode come from Postgres itself since 17, before from the system, if it can.
    let locales: &[&[&str]] = if install.major >= 17 {
        &[&["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]]
    } else {
        &[&["--lc-ctype=C.UTF-8"], &[]]
    };
    let mut outcome = Ok(());
    for locale in locales {
        let mut command = home.account.command(&install.bin_dir.join("initdb"), &home.dir);
        command.arg("-D").arg(draft).arg("-U").arg(NAME);
        command.arg("--pwfile").arg(home.password_file());
        command.args(["--auth-local=scram-sha-256", "--auth-host=scram-sha-256"]);
        command.args(["--encoding=UTF8", "--locale=C", "--data-checksums", "--no-instructions"]);
        command.args(*locale);
        outcome = run(home, "initdb", command, b"").await;
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// Creates the database in a cluster nobody serves yet, so that a renamed draft is complete.
async fn create_database(
    home: &Home,
    install: &PgInstall,
    draft: &Path,
) -> Result<(), EmbeddedError> {
    let mut command = home.account.command(&install.bin_dir.join("postgres"), &home.dir);
    command.arg("--single").arg("-D").arg(draft);
    command.args(["-c", "exit_on_error=true", "-c", "log_checkpoints=off", "template1"]);
    // The role's name is also that of our schema, which the default search path would put first:
    // tables that a user makes by hand belong into `public`. One command to a line.
    let sql = format!(
        "CREATE DATABASE {NAME} OWNER {NAME}\nALTER DATABASE {NAME} SET search_path = public\n"
    );
    run(home, "postgres --single", command, sql.as_bytes()).await
}

/// Runs `command` to its end with `input`; it dies with us, or when the future is dropped.
async fn run(
    home: &Home,
    program: &'static str,
    mut command: Command,
    input: &[u8],
) -> Result<(), EmbeddedError> {
    let failed = |output| EmbeddedError::Init { data_dir: home.dir.clone(), program, output };
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // Its own words, below, say more than the broken pipe of a program that ended early.
        let _ = stdin.write_all(input).await;
    }
    let output = child.wait_with_output().await.map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(failed(String::from_utf8_lossy(&said).trim().to_owned()))
}

/// The command that serves the cluster on `port`.
pub(super) async fn serve_command(home: &Home, install: &PgInstall, port: u16) -> Command {
    let postgres = install.bin_dir.join("postgres");
    let mut command = home.account.command(&postgres, &home.dir);
    command.arg("-D").arg(home.pgdata());
    for setting in SETTINGS {
        command.args(["-c", setting]);
    }
    command.arg("-c").arg(format!("port={port}"));
    let socket_dir = home.socket_dir.display();
    command.arg("-c").arg(format!("unix_socket_directories={socket_dir}"));

    // Not every build has lz4, and one without would refuse to start: ask it first.
    let lz4 = ["-c", "default_toast_compression=lz4"];
    let mut probe = home.account.command(&postgres, &home.dir);
    probe.args(["-C", "default_toast_compression", "-D"]).arg(home.pgdata()).args(lz4);
    probe.stdout(Stdio::null()).stderr(Stdio::null());
    if probe.status().await.is_ok_and(|status| status.success()) {
        command.args(lz4);
    }
    command
}
