//! `tollgate psql`: opens psql on the gateway's database, or prints how to connect.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};

use super::flags::SettingFlags;
use crate::embedded;
use crate::settings::layers::Layers;
use crate::settings::parse::secret_text;

/// Open psql on the gateway's database
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tollgate psql
  tollgate psql -- -c 'SELECT position, id, type FROM tollgate.events ORDER BY position DESC LIMIT 5'
  tollgate psql --print

The embedded database runs while tollgate serve or tollgate demo does.")]
pub struct PsqlArgs {
    /// Print the connection URL, password included, instead of connecting
    #[arg(long)]
    print: bool,
    /// Arguments for psql
    #[arg(last = true)]
    arguments: Vec<String>,
    #[command(flatten)]
    flags: SettingFlags,
}

pub fn run(args: &PsqlArgs) -> anyhow::Result<ExitCode> {
    let settings = args.flags.settings()?;
    let url = match &settings.database.url {
        Some(_) => database_url(&args.flags)?,
        None => match embedded::running(&settings.database.data_dir)? {
            Some(connection) => connection.url(),
            None => bail!(
                "the embedded database in {} is not running: start tollgate serve or tollgate demo first, or name \
                 another --data-dir",
                settings.database.data_dir.display()
            ),
        },
    };
    if args.print {
        say!("{url}");
        return Ok(ExitCode::SUCCESS);
    }
    let (url, password) = without_password(&url)?;
    let mut psql = Command::new("psql");
    // In the environment and not among the arguments, which other users of this machine can read.
    if let Some(password) = password {
        psql.env("PGPASSWORD", password);
    }
    let error = psql.arg(url).args(&args.arguments).exec();
    Err(error)
        .context("cannot run psql: install the PostgreSQL client, or use tollgate psql --print")
}

/// Takes the password out of a URL, wherever it stands in it; the one in the query counts.
fn without_password(url: &str) -> anyhow::Result<(String, Option<String>)> {
    let mut url: reqwest::Url = url.parse().context("DATABASE_URL is no URL")?;
    let mut password = url.password().map(|password| {
        percent_encoding::percent_decode_str(password).decode_utf8_lossy().into_owned()
    });
    if password.is_some() {
        // Fails only for URLs without a host, which have no password either.
        let _ = url.set_password(None);
    }
    let query: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    if let Some((_, value)) = query.iter().find(|(name, _)| name == "password") {
        password = Some(value.clone());
        let others = query.iter().filter(|(name, _)| name != "password");
        url.query_pairs_mut().clear().extend_pairs(others);
    }
    Ok((url.into(), password))
}

/// The URL as it was given: parsed, its password cannot be read back.
fn database_url(flags: &SettingFlags) -> anyhow::Result<String> {
    let layers: Layers = flags.layers().unwrap_or_default();
    let text = layers.get("database_url").map(|value| value.text.clone()).unwrap_or_default();
    secret_text(&text).map_err(|problem| anyhow::anyhow!("database_url {problem}"))
}

#[cfg(test)]
mod tests {
    use super::without_password;

    #[test]
    fn no_password_stays_in_the_url() {
        let urls = [
            ("postgres://me:s%2Fx@db:5433/app?sslmode=require", "s/x"),
            ("postgres://me@db/app?password=s%2Fx&sslmode=require", "s/x"),
            ("postgres://me:other@db/app?password=s/x", "s/x"),
        ];
        for (given, expected) in urls {
            let (url, password) = without_password(given).unwrap();
            assert_eq!(password.as_deref(), Some(expected), "{given}");
            assert!(
                !url.contains("s%2Fx") && !url.contains("s/x") && !url.contains("other"),
                "{url}"
            );
        }
        let (url, password) = without_password("postgres://me@db/app?sslmode=require").unwrap();
        assert_eq!((url.as_str(), password), ("postgres://me@db/app?sslmode=require", None));
    }
}
