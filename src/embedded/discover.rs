//! Finds the programs `initdb` and `postgres` of a supported version on this machine.
//! Not here: running a server with them, and downloading anything.

use std::env;
use std::fs;
use std::ops::RangeInclusive;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::EmbeddedError;

/// The major versions Tollgate is tested with.
const SUPPORTED: RangeInclusive<u32> = 15..=18;

/// Where packages put Postgres: every folder `<.0>/<.1>*/<.2>` is one installation.
const USUAL: [(&str, &str, &str); 5] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
];

/// How deep below the data home an unpacked installation is looked for.
const UNPACKED_DEPTH: u32 = 5;

/// An installed Postgres.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PgInstall {
    /// The folder of `initdb` and `postgres`.
    pub bin_dir: PathBuf,
    /// The major version, 15 to 18.
    pub major: u32,
}

/// The Postgres that would be used for new data: the folder `explicit`, else the first found on
/// `PATH`, in the usual install folders (highest version first) or unpacked in the data home.
///
/// # Errors
/// [`EmbeddedError::BadBinDir`] when `explicit` is no supported Postgres,
/// [`EmbeddedError::NotFound`] when there is none.
fn discover(explicit: Option<&Path>) -> Result<PgInstall, EmbeddedError> {
    if let Some(dir) = explicit {
        return inspect(dir)
            .map_err(|problem| EmbeddedError::BadBinDir { dir: dir.to_owned(), problem });
    }
    installed().next().ok_or_else(|| EmbeddedError::NotFound { install: install_line() })
}

/// As [`discover`], but one that can read the cluster of version `wanted` in `data_dir`.
pub(super) fn discover_for(
    explicit: Option<&Path>,
    data_dir: &Path,
    wanted: Option<u32>,
) -> Result<PgInstall, EmbeddedError> {
    let Some(wanted) = wanted else { return discover(explicit) };
    let candidates = match explicit {
        Some(_) => vec![discover(explicit)?],
        None => installed().collect(),
    };
    if let Some(install) = candidates.iter().find(|install| install.major == wanted) {
        return Ok(install.clone());
    }
    let mut majors: Vec<_> = candidates.iter().map(|i| i.major.to_string()).collect();
    majors.dedup();
    let found = if majors.is_empty() {
        "found no PostgreSQL".to_owned()
    } else {
        format!("found PostgreSQL {}", majors.join(", "))
    };
    Err(EmbeddedError::OtherMajor { data_dir: data_dir.to_owned(), wanted, found })
}

/// Every supported installation, best first. Lazy: asking a program for its version costs a
/// process, and the first on `PATH` will mostly do.
fn installed() -> impl Iterator<Item = PgInstall> {
    let on_path = env::var_os("PATH").unwrap_or_default();
    let on_path: Vec<_> = env::split_paths(&on_path).filter(|dir| dir.is_absolute()).collect();
    let usual = || {
        newest_first(USUAL.iter().flat_map(|(parent, prefix, leaf)| {
            children(Path::new(parent)).into_iter().filter_map(move |dir| {
                let name = dir.file_name()?.to_str()?;
                name.starts_with(prefix).then(|| dir.join(leaf))
            })
        }))
    };
    let unpacked = || {
        let mut dirs = Vec::new();
        if let Some(home) = data_home() {
            bin_dirs(&home.join("tollgate/pgsql"), UNPACKED_DEPTH, &mut dirs);
        }
        newest_first(dirs)
    };
    on_path
        .into_iter()
        .filter_map(|dir| inspect(&dir).ok())
        .chain(std::iter::once_with(usual).flatten())
        .chain(std::iter::once_with(unpacked).flatten())
}

fn newest_first(dirs: impl IntoIterator<Item = PathBuf>) -> Vec<PgInstall> {
    let mut found: Vec<_> = dirs.into_iter().filter_map(|dir| inspect(&dir).ok()).collect();
    found.sort_by_key(|install| std::cmp::Reverse(install.major));
    found
}

/// The folders `bin` below `dir`, down to `depth` levels.
fn bin_dirs(dir: &Path, depth: u32, found: &mut Vec<PathBuf>) {
    for child in children(dir) {
        if child.ends_with("bin") {
            found.push(child);
        } else if depth > 0 && !child.is_symlink() {
            bin_dirs(&child, depth - 1, found);
        }
    }
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// Is `dir` the `bin` folder of a supported Postgres? Else what is wrong with it.
fn inspect(dir: &Path) -> Result<PgInstall, String> {
    // Through the link, so that a link to `postgres` in /usr/local/bin leads to the real folder.
    let postgres = dir.join("postgres").canonicalize().map_err(|_| "it holds no `postgres`")?;
    let real = postgres.parent().filter(|real| is_program(&real.join("initdb")));
    let bin_dir = real.unwrap_or(dir).to_owned();
    for name in ["postgres", "initdb"] {
        if !is_program(&bin_dir.join(name)) {
            return Err(format!("it holds no program `{name}`"));
        }
    }
    let output = Command::new(&postgres)
        .arg("--version")
        .output()
        .map_err(|error| format!("its `postgres` does not run: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let major = parse_major(&text)
        .ok_or_else(|| format!("its `postgres --version` says {:?}", text.trim()))?;
    if !SUPPORTED.contains(&major) {
        return Err(format!("it holds PostgreSQL {major}"));
    }
    Ok(PgInstall { bin_dir, major })
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The major version in what `postgres --version` prints: the first word that begins with a digit.
fn parse_major(text: &str) -> Option<u32> {
    let word =
        text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let end = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
    word[..end].parse().ok()
}

/// Where programs keep a user's data on this system. As root not root's home, which the server's
/// own user cannot enter.
fn data_home() -> Option<PathBuf> {
    if nix::unistd::Uid::effective().is_root() {
        return Some("/var/lib".into());
    }
    if let Some(dir) = env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|d| d.is_absolute()) {
        return Some(dir);
    }
    let below =
        if cfg!(target_os = "macos") { "Library/Application Support" } else { ".local/share" };
    env::home_dir().map(|home| home.join(below))
}

/// The command that installs Postgres on this system.
fn install_line() -> &'static str {
    let has = |path: &str| Path::new(path).exists();
    if cfg!(target_os = "macos") {
        "brew install postgresql@17"
    } else if has("/usr/bin/dnf") {
        "dnf install postgresql-server"
    } else if has("/sbin/apk") {
        "apk add postgresql17"
    } else if has("/usr/bin/pacman") {
        "pacman -S postgresql"
    } else {
        "apt-get install postgresql"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that looks like an installation of `version`.
    fn fake(bin_dir: &Path, version: &str) {
        fs::create_dir_all(bin_dir).unwrap();
        for name in ["postgres", "initdb"] {
            let path = bin_dir.join(name);
            fs::write(&path, format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n"))
                .unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    #[test]
    fn versions_are_read_in_every_style() {
        assert_eq!(parse_major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(parse_major("postgres (EnterpriseDB) 16.4"), Some(16));
        assert_eq!(parse_major("postgres (PostgreSQL) devel"), None);
        assert_eq!(parse_major(""), None);
    }

    #[test]
    fn a_named_folder_is_taken_or_refused_but_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let good = dir.join("good");
        fake(&good, "17.2");
        assert_eq!(discover(Some(&good)).unwrap(), PgInstall { bin_dir: good.clone(), major: 17 });
        fake(&dir.join("old"), "14.9");
        let error = discover(Some(&dir.join("old"))).unwrap_err().to_string();
        assert!(error.contains("it holds PostgreSQL 14"), "{error}");
        let error = discover(Some(&dir)).unwrap_err().to_string();
        assert!(error.contains("holds no `postgres`"), "{error}");
        let error = discover_for(Some(&good), Path::new("/d"), Some(15)).unwrap_err().to_string();
        assert!(error.contains("/d was made by PostgreSQL 15, but found PostgreSQL 17"), "{error}");
    }

    #[test]
    fn unpacked_installations_are_found_newest_first() {
        let dir = tempfile::tempdir().unwrap();
        fake(&dir.path().join("a/pginstall/bin"), "16.1");
        fake(&dir.path().join("b/c/pginstall/bin"), "18.6");
        let mut dirs = Vec::new();
        bin_dirs(dir.path(), UNPACKED_DEPTH, &mut dirs);
        let majors: Vec<_> = newest_first(dirs).iter().map(|install| install.major).collect();
        assert_eq!(majors, [18, 16]);
    }
}
