//! The data directory: its layout and access rights, the owner's lock, port, password and log.
//! Not here: what is inside the cluster (see `cluster`), and running it (see `server`).

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::account::Account;
use super::error::{EmbeddedError, io_error};
use super::pidfile::{self, Found};
use super::{Connection, NAME};

/// The system allows 103 bytes (macOS) or 107 (Linux) for the path of a socket.
const SOCKET_PATH_MAX: usize = 100;
/// Where ports are chosen from: below the range outgoing connections take theirs from, so that the
/// remembered one is still free at the next start.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
const LOG_MAX_BYTES: u64 = 16 << 20;
/// How much of the log an error shows.
const TAIL_BYTES: u64 = 2048;

/// A data directory owned by this process.
pub(super) struct Home {
    /// Absolute, without links.
    pub(super) dir: PathBuf,
    pub(super) account: Account,
    pub(super) socket_dir: PathBuf,
    /// Locked while this lives; the system unlocks it when the process dies, however it does.
    _lock: File,
}

impl Home {
    /// Makes the directory when missing, takes possession of it, and prepares it for the account
    /// Postgres will run as.
    pub(super) fn open(data_dir: &Path) -> Result<Self, EmbeddedError> {
        let account = Account::for_cluster(&pgdata(data_dir))?;
        make_folders(data_dir, account.data_dir_mode())?;
        let dir = data_dir.canonicalize().map_err(io_error("find", data_dir))?;
        let lock = lock(&dir)?;
        if !account.may_enter(&dir) {
            let mode = Permissions::from_mode(account.data_dir_mode());
            fs::set_permissions(&dir, mode).map_err(io_error("open up", &dir))?;
        }
        account.check_reach(&dir)?;
        let socket_dir = make_socket_dir(&dir, &account)?;
        Ok(Self { dir, account, socket_dir, _lock: lock })
    }

    pub(super) fn pgdata(&self) -> PathBuf {
        pgdata(&self.dir)
    }

    pub(super) fn log(&self) -> PathBuf {
        self.dir.join("postgres.log")
    }

    pub(super) fn password_file(&self) -> PathBuf {
        password_file(&self.dir)
    }

    pub(super) fn has_password(&self) -> bool {
        password(&self.dir).is_some()
    }

    /// How to connect to the server of this directory when it listens on `port`.
    pub(super) fn connection(&self, port: u16) -> Result<Connection, EmbeddedError> {
        connection(&self.dir, self.socket_dir.clone(), port)
            .ok_or_else(|| EmbeddedError::NoPassword { path: self.password_file() })
    }

    /// The port to serve on: `forced`, else that of a server still running from before, else the
    /// remembered one if it is free, else a free one.
    pub(super) fn choose_port(&self, forced: Option<u16>) -> Result<u16, EmbeddedError> {
        let running = match pidfile::look(&self.pgdata()) {
            Found::Live(file) => Some(file.port),
            _ => None,
        };
        if let Some(port) = forced {
            let usable = running == Some(port) || is_free(port);
            return if usable { Ok(port) } else { Err(EmbeddedError::PortTaken { port }) };
        }
        let path = self.dir.join("port");
        let remembered = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
        if let Some(port) = running.or(remembered.filter(|&port| is_free(port))) {
            return Ok(port);
        }
        let port = free_port().map_err(io_error("find a free port for", &self.dir))?;
        fs::write(&path, format!("{port}\n")).map_err(io_error("write", &path))?;
        Ok(port)
    }

    /// Opens the log for a server about to start; a long one is put aside first.
    pub(super) fn open_log(&self) -> Result<File, EmbeddedError> {
        let path = self.log();
        self.cut_log().map_err(io_error("cut short", &path))?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(io_error("open", &path))?;
        // Else only root could start this server again.
        self.account.give(&path).map_err(io_error("change the owner of", &path))?;
        Ok(log)
    }

    /// Puts a long log aside, also under a server that writes to it: what is written between the copy and
    /// the cut is lost. It appends, so it goes on at the beginning.
    pub(super) fn cut_log(&self) -> io::Result<()> {
        let path = self.log();
        let old = path.with_extension("log.1");
        // Somebody may have taken it away.
        if fs::metadata(&path).is_ok_and(|meta| meta.len() > LOG_MAX_BYTES) {
            let _ = fs::remove_file(&old);
            fs::copy(&path, &old)?;
            self.account.give(&old)?;
            File::options().write(true).open(&path)?.set_len(0)?;
        }
        Ok(())
    }

    /// The last lines of the log, for an error message.
    pub(super) fn log_tail(&self) -> String {
        let mut bytes = Vec::new();
        if let Ok(mut file) = File::open(self.log()) {
            let length = file.metadata().map_or(0, |meta| meta.len());
            let _ = file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)));
            let _ = file.take(TAIL_BYTES).read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }
}

/// Makes the folder and those on the way to it that are missing, all of this mode: the umask of a
/// hardened host would keep Postgres' own user from the ones that we made.
fn make_folders(dir: &Path, mode: u32) -> Result<(), EmbeddedError> {
    let missing: Vec<_> = dir.ancestors().take_while(|folder| !folder.exists()).collect();
    for folder in missing.into_iter().rev().filter(|folder| !folder.as_os_str().is_empty()) {
        match DirBuilder::new().mode(mode).create(folder) {
            Ok(()) => fs::set_permissions(folder, Permissions::from_mode(mode))
                .map_err(io_error("open up", folder))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io_error("create", folder)(error)),
        }
    }
    Ok(())
}

pub(super) fn pgdata(dir: &Path) -> PathBuf {
    dir.join("postgres")
}

fn password_file(dir: &Path) -> PathBuf {
    dir.join("password")
}

/// The connection of the data directory `dir`; `None` without a password.
fn connection(dir: &Path, socket_dir: PathBuf, port: u16) -> Option<Connection> {
    let password = password(dir)?;
    let (user, database) = (NAME.to_owned(), NAME.to_owned());
    Some(Connection { socket_dir, port, user, password, database })
}

fn password(dir: &Path) -> Option<String> {
    let text = fs::read_to_string(password_file(dir)).ok()?;
    Some(text.trim().to_owned()).filter(|password| !password.is_empty())
}

/// See [`super::examine`]: who Postgres would run as, if they get to the folder, and the port is to be
/// had.
pub(super) fn examine(data_dir: &Path, port: Option<u16>) -> Result<Account, EmbeddedError> {
    let account = Account::for_cluster(&pgdata(data_dir))?;
    // What is not there yet is made below what is, for that user; our own folder is opened up.
    let below = std::path::absolute(data_dir).map_err(io_error("find", data_dir))?;
    if let Some(there) = below.ancestors().skip(1).find(|folder| folder.exists()) {
        account.check_reach(&there.canonicalize().map_err(io_error("find", there))?)?;
    }
    match port {
        Some(port) if running(data_dir)?.is_none_or(|it| it.port != port) && !is_free(port) => {
            Err(EmbeddedError::PortTaken { port })
        }
        _ => Ok(account),
    }
}

/// See [`super::running`].
pub(super) fn running(data_dir: &Path) -> Result<Option<Connection>, EmbeddedError> {
    let path = pidfile::path(&pgdata(data_dir));
    if let Err(error) = File::open(&path)
        && error.kind() == io::ErrorKind::PermissionDenied
    {
        return Err(EmbeddedError::Closed { data_dir: data_dir.to_owned() });
    }
    let Ok(dir) = data_dir.canonicalize() else { return Ok(None) };
    Ok(match pidfile::look(&pgdata(&dir)) {
        Found::Live(file) => {
            file.socket_dir.and_then(|socket_dir| connection(&dir, socket_dir, file.port))
        }
        _ => None,
    })
}

/// See [`super::put_aside`].
pub(super) fn put_aside(data_dir: &Path) -> Result<PathBuf, EmbeddedError> {
    // Until it is renamed, so that nobody starts a server in it meanwhile.
    let _lock = lock(data_dir)?;
    let aside = data_dir.with_extension("old");
    if aside.exists() {
        fs::remove_dir_all(&aside).map_err(io_error("remove", &aside))?;
    }
    fs::rename(data_dir, &aside).map_err(io_error("rename", data_dir))?;
    Ok(aside)
}

fn lock(dir: &Path) -> Result<File, EmbeddedError> {
    let path = dir.join("lock");
    let mut options = OpenOptions::new();
    options.create(true).write(true).truncate(false).mode(0o600);
    let file = options.open(&path).map_err(io_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(EmbeddedError::Locked { data_dir: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(io_error("lock", &path)(source)),
    }
}

/// The folder of the socket: `run` in the data directory, or one in /tmp when that path is too
/// long for a socket or has signs the server's setting would need quoted.
fn make_socket_dir(dir: &Path, account: &Account) -> Result<PathBuf, EmbeddedError> {
    let run = dir.join("run");
    let longest = run.join(".s.PGSQL.65535");
    let plain = run.to_str().is_some_and(|text| !text.contains([',', '"', '\n']));
    let path = if plain && longest.as_os_str().len() <= SOCKET_PATH_MAX {
        run
    } else {
        let mut hasher = DefaultHasher::new();
        dir.hash(&mut hasher);
        PathBuf::from(format!("/tmp/tollgate-{:016x}", hasher.finish()))
    };
    match DirBuilder::new().mode(0o700).create(&path) {
        Ok(()) => account.give(&path).map_err(io_error("change the owner of", &path))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(io_error("create", &path)(error)),
    }
    // Anybody may have made a folder of this name in /tmp, and would then get our password.
    let meta = fs::symlink_metadata(&path).map_err(io_error("inspect", &path))?;
    if !meta.is_dir() || meta.uid() != account.uid() || meta.mode() & 0o077 != 0 {
        return Err(EmbeddedError::UnsafeSocketDir { dir: path });
    }
    Ok(path)
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[allow(clippy::disallowed_methods, reason = "which free port it is matters to nobody")]
fn free_port() -> io::Result<u16> {
    let tries = std::iter::repeat_with(|| rand::random_range(PORTS)).take(100);
    match tries.into_iter().find(|&port| is_free(port)) {
        Some(port) => Ok(port),
        None => Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port()),
    }
}

/// Writes a file only its owner can read so that it is either all there or not at all.
pub(super) fn write_private(path: &Path, text: &str, account: &Account) -> io::Result<()> {
    let draft = path.with_extension("new");
    let _ = fs::remove_file(&draft);
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    account.give(&draft)?;
    fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_is_put_aside_and_its_tail_is_short() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let home = Home::open(dir.path()).unwrap();
        fs::write(home.log(), vec![b'x'; usize::try_from(LOG_MAX_BYTES).unwrap() + 1]).unwrap();
        assert_eq!(home.log_tail().len() as u64, TAIL_BYTES);
        writeln!(home.open_log().unwrap(), "first").unwrap();
        let mut server = home.open_log().unwrap();
        writeln!(server, "second").unwrap();
        assert_eq!(home.log_tail(), "first\nsecond");
        assert!(dir.path().join("postgres.log.1").exists());
        home.cut_log().unwrap();
        assert_eq!(home.log_tail(), "first\nsecond", "short enough");
        server.write_all(&vec![b'y'; usize::try_from(LOG_MAX_BYTES).unwrap()]).unwrap();
        home.cut_log().unwrap();
        writeln!(server, "third").unwrap();
        assert_eq!(home.log_tail(), "third");
        assert!(fs::read(dir.path().join("postgres.log.1")).unwrap().starts_with(b"first"));
    }

    #[test]
    fn the_port_is_remembered_replaced_when_taken_and_refused_when_forced() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        let first = home.choose_port(None).unwrap();
        assert_eq!(home.choose_port(None).unwrap(), first);
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).unwrap();
        let second = home.choose_port(None).unwrap();
        assert_ne!(second, first);
        assert_eq!(home.choose_port(None).unwrap(), second);
        let error = home.choose_port(Some(first)).unwrap_err();
        assert!(matches!(error, EmbeddedError::PortTaken { port } if port == first));
    }

    #[test]
    fn what_is_put_aside_is_kept_until_the_next_time() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("data");
        let missing = put_aside(&dir).unwrap_err();
        assert!(matches!(missing, EmbeddedError::Io { .. }), "{missing}");
        for text in ["first", "second"] {
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join("text"), text).unwrap();
            let owner = lock(&dir).unwrap();
            let error = put_aside(&dir).unwrap_err();
            assert!(matches!(error, EmbeddedError::Locked { .. }), "{error}");
            drop(owner);
            let aside = put_aside(&dir).unwrap();
            assert!(!dir.exists());
            assert_eq!(fs::read_to_string(aside.join("text")).unwrap(), text);
        }
    }

    #[test]
    fn a_socket_folder_open_to_others_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("run")).unwrap();
        let error = Home::open(dir.path()).err().unwrap();
        assert!(matches!(error, EmbeddedError::UnsafeSocketDir { .. }), "{error}");
    }
}
