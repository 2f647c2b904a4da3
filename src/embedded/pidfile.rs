//! Reads `postmaster.pid` and tells whether the process it names is still that server.
//! Not here: stopping or adopting it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// What `postmaster.pid` says. The server writes the first five lines at once, the rest as it
/// comes up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PidFile {
    /// Negative for a single-user backend.
    pub(super) pid: i32,
    pub(super) data_dir: PathBuf,
    pub(super) port: u16,
    /// `None` until the server listens.
    pub(super) socket_dir: Option<PathBuf>,
    pub(super) status: Status,
}

/// The last line of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Starting,
    Ready,
    Stopping,
}

/// What stands behind `postmaster.pid`.
pub(super) enum Found {
    /// No file, or one of a dead process, which Postgres replaces by itself (and checks first that
    /// no child of that process lingers).
    Nothing,
    /// The running server of this cluster.
    Live(PidFile),
    /// A file Postgres would trip over: unreadable, or with a number some other process has now.
    Misleading,
}

/// Parses the content of `postmaster.pid`; `None` when it is cut or garbage.
fn parse(content: &[u8]) -> Option<PidFile> {
    let lines: Vec<&[u8]> = content.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).collect();
    let text = |n: usize| lines.get(n).and_then(|line| std::str::from_utf8(line).ok());
    let path = |n: usize| {
        let line = lines.get(n).filter(|line| !line.is_empty())?;
        Some(PathBuf::from(OsStr::from_bytes(line)))
    };
    Some(PidFile {
        pid: text(0)?.parse().ok()?,
        data_dir: path(1)?,
        port: text(3)?.parse().ok()?,
        socket_dir: path(4),
        status: match text(7) {
            Some("ready" | "standby") => Status::Ready,
            Some("stopping") => Status::Stopping,
            _ => Status::Starting,
        },
    })
}

/// Where the file of the cluster at `pgdata` is.
pub(super) fn path(pgdata: &Path) -> PathBuf {
    pgdata.join("postmaster.pid")
}

/// Reads the file of the cluster at `pgdata`; `None` when missing or unusable.
pub(super) fn read(pgdata: &Path) -> Option<PidFile> {
    parse(&fs::read(path(pgdata)).ok()?)
}

/// Looks who serves the cluster at `pgdata` (an absolute path without links).
pub(super) fn look(pgdata: &Path) -> Found {
    let Ok(content) = fs::read(path(pgdata)) else { return Found::Nothing };
    match parse(&content) {
        Some(file) if file.pid <= 0 || !alive(file.pid) => Found::Nothing,
        Some(file) if file.data_dir == pgdata && serves(file.pid, pgdata) => Found::Live(file),
        _ => Found::Misleading,
    }
}

/// Whether a process with this number exists, ours or not.
pub(super) fn alive(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH)
}

/// Whether process `pid` was started as the server of `pgdata`. Numbers are used again, so the
/// command line is what counts; backends show another one, and a dead child not yet reaped none.
pub(super) fn serves(pid: i32, pgdata: &Path) -> bool {
    let wanted = pgdata.as_os_str().as_bytes();
    if cfg!(target_os = "linux") {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|&byte| byte == 0).any(|argument| argument == wanted)
    } else {
        let mut ps = std::process::Command::new("ps");
        let line = ps.args(["-ww", "-o", "command=", "-p"]).arg(pid.to_string()).output();
        line.is_ok_and(|line| line.stdout.windows(wanted.len()).any(|part| part == wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: &str =
        "4711\n/d/postgres\n1790000000\n5433\n/d/run\n127.0.0.1\n  123  7\nready   \n";

    #[test]
    fn a_full_file_is_read() {
        let file = parse(READY.as_bytes()).unwrap();
        let expected = PidFile {
            pid: 4711,
            data_dir: "/d/postgres".into(),
            port: 5433,
            socket_dir: Some("/d/run".into()),
            status: Status::Ready,
        };
        assert_eq!(file, expected);
    }

    #[test]
    fn the_status_follows_the_last_line() {
        let with = |status| parse(READY.replace("ready   ", status).as_bytes()).unwrap().status;
        assert_eq!(with("starting"), Status::Starting);
        assert_eq!(with("stopping"), Status::Stopping);
        assert_eq!(with("standby "), Status::Ready);
    }

    #[test]
    fn the_first_five_lines_are_enough_and_less_is_garbage() {
        let file = parse(b"-12\n/d/postgres\n1790000000\n5433\n\n").unwrap();
        assert_eq!((file.pid, file.socket_dir, file.status), (-12, None, Status::Starting));
        for garbage in ["", "\n", "x\n/d\n1\n5433\n", "12\n/d/postgres\n17", "12\n/d\n1\n99999\n\n"]
        {
            assert_eq!(parse(garbage.as_bytes()), None, "{garbage:?}");
        }
        assert_eq!(parse(&[0xff, 0xfe, b'\n']), None);
    }

    #[test]
    fn any_other_process_is_not_our_server() {
        let dir = tempfile::tempdir().unwrap();
        let content = READY.replace("/d/postgres", dir.path().to_str().unwrap());
        let write = |pid: u32| {
            fs::write(path(dir.path()), content.replace("4711", &pid.to_string())).unwrap();
        };
        assert!(matches!(look(dir.path()), Found::Nothing));
        write(std::process::id());
        assert!(matches!(look(dir.path()), Found::Misleading));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        write(child.id());
        assert!(matches!(look(dir.path()), Found::Nothing));
    }
}
