//! `tollgate migrate`: brings the database's schema up to date and says where it stands.

use std::process::ExitCode;

use super::flags::SettingFlags;
use crate::embedded;
use crate::startup::Backend;
use crate::store::migrations;
use crate::telemetry;

/// Bring the database's schema up to date; safe to repeat
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  DATABASE_URL=postgres://owner@db/app tollgate migrate
  tollgate migrate --data-dir ./data

serve does this by itself unless TOLLGATE_MIGRATE=false.")]
pub struct MigrateArgs {
    #[command(flatten)]
    flags: SettingFlags,
}

pub async fn run(args: MigrateArgs) -> anyhow::Result<ExitCode> {
    let settings = args.flags.settings()?;
    let _log = telemetry::start(&settings.log)?;
    // Beside a gateway that does not migrate by itself, say.
    let ours = settings.database.url.is_none();
    let backend = if ours && embedded::running(&settings.database.data_dir)?.is_some() {
        Backend::attach(&settings.database)?
    } else {
        Backend::open(&settings.database).await?
    };
    let migrated = async {
        backend.migrate().await?;
        let state = migrations::state(&mut backend.direct.connect().await?).await?;
        anyhow::Ok((state, backend.direct.describe()))
    }
    .await;
    // The embedded server is stopped whatever happened.
    backend.close().await?;
    let (state, database) = migrated?;
    say!("{database}: {state}");
    Ok(ExitCode::SUCCESS)
}
