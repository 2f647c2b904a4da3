//! Who Postgres runs as: the user of the gateway, but never root, because it refuses that.
//! Not here: what it is run for.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::Path;
use std::process::Stdio;

use nix::unistd::{Uid, User, geteuid};
use tokio::process::Command;

use super::error::EmbeddedError;

/// What a child gets of our environment. The gateway's secrets are in it, and PG* variables would
/// change what the server does: so everything else is kept from it.
const ENVIRONMENT: [&str; 3] = ["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"];

/// The user Postgres runs as.
#[derive(Debug)]
pub(super) struct Account {
    name: String,
    /// User and group to change to; `None` when we stay who we are.
    ids: Option<(u32, u32)>,
}

impl Account {
    /// For a cluster at `pgdata`: as root the owner of what is there, else `postgres`, else
    /// `nobody`; as anybody else oneself.
    pub(super) fn for_cluster(pgdata: &Path) -> Result<Self, EmbeddedError> {
        if !geteuid().is_root() {
            return Ok(Self { name: "yourself".into(), ids: None });
        }
        if let Ok(meta) = fs::metadata(pgdata)
            && meta.uid() != 0
        {
            let user = User::from_uid(Uid::from_raw(meta.uid())).ok().flatten();
            let name = user.map_or_else(|| format!("number {}", meta.uid()), |user| user.name);
            return Ok(Self { name, ids: Some((meta.uid(), meta.gid())) });
        }
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .map(|user| Self { name: user.name, ids: Some((user.uid.as_raw(), user.gid.as_raw())) })
            .ok_or(EmbeddedError::NoAccount)
    }

    /// The user id its processes and files have.
    pub(super) fn uid(&self) -> u32 {
        self.ids.map_or_else(|| geteuid().as_raw(), |(uid, _)| uid)
    }

    /// Access rights of the data directory: when Postgres runs as somebody else, that user must be
    /// let through to its own folders in it.
    pub(super) fn data_dir_mode(&self) -> u32 {
        if self.ids.is_some() { 0o711 } else { 0o700 }
    }

    /// Gives `path` to the account. Never follows a link: as root that could give away any file.
    pub(super) fn give(&self, path: &Path) -> io::Result<()> {
        self.ids.map_or(Ok(()), |(uid, gid)| lchown(path, Some(uid), Some(gid)))
    }

    /// Whether the account may pass through the folder `dir` itself.
    pub(super) fn may_enter(&self, dir: &Path) -> bool {
        let Some((uid, gid)) = self.ids else { return true };
        fs::metadata(dir).is_ok_and(|meta| {
            let shift = if meta.uid() == uid {
                6
            } else if meta.gid() == gid {
                3
            } else {
                0
            };
            (meta.mode() >> shift) & 1 == 1
        })
    }

    /// Fails with the first folder on the way to `dir`, itself included, that the account may not
    /// enter.
    pub(super) fn check_reach(&self, dir: &Path) -> Result<(), EmbeddedError> {
        let mut ancestors: Vec<_> = dir.ancestors().collect();
        ancestors.reverse();
        match ancestors.into_iter().find(|ancestor| !self.may_enter(ancestor)) {
            None => Ok(()),
            Some(closed) => {
                Err(EmbeddedError::NotEnterable { dir: closed.to_owned(), user: self.name.clone() })
            }
        }
    }

    /// A command that runs `program` in `dir` as the account, in a process group of its own: a
    /// Ctrl-C in the terminal is for the gateway, which then stops Postgres in good order.
    pub(super) fn command(&self, program: &Path, dir: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("LC_ALL", "C").current_dir(dir).process_group(0);
        command.envs(ENVIRONMENT.iter().filter_map(|name| Some((name, env::var_os(name)?))));
        command.stdin(Stdio::null());
        if let Some((uid, gid)) = self.ids {
            command.uid(uid).gid(gid);
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_closed_folder_on_the_way_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("closed/inner");
        fs::create_dir_all(&inner).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        fs::set_permissions(inner.parent().unwrap(), fs::Permissions::from_mode(0o700)).unwrap();
        let somebody = Account { name: "somebody".into(), ids: Some((64_000, 64_000)) };
        let error = somebody.check_reach(&inner).unwrap_err().to_string();
        assert!(
            error.contains("somebody, who may not enter") && error.contains("closed:"),
            "{error}"
        );
        somebody.check_reach(dir.path()).unwrap();
    }
}
