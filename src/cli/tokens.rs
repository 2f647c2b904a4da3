//! `tollgate tokens`: who may use the dashboard and the admin API. What a scope allows is decided in
//! `http::admin`.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::database::{act, connect, said};
use super::flags::SettingFlags;
use super::table;
use crate::http::admin::access::Last;
use crate::http::admin::actions;
use crate::store::tokens::{self, Holder, Scope};

/// Make, list and revoke tokens for the dashboard and the admin API
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tollgate tokens create prometheus
  tollgate tokens create ada --scope operate --expires 90d
  tollgate tokens list
  tollgate tokens revoke ada

A token is shown once, when it is made: only a hash of it is kept. To revoke it ends the sessions
that were begun with it, too. TOLLGATE_ADMIN_TOKEN is one more, with the scope admin.")]
pub struct TokensArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a token, and print it
    Create(CreateArgs),
    /// What there is
    List {
        /// JSON, one array
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        flags: SettingFlags,
    },
    /// Refuse a token from now on
    Revoke {
        /// The token's name, as list shows it
        name: String,
        /// Even if it is the last one, or the last with the scope admin: where there is none, and
        /// TOLLGATE_ADMIN_TOKEN is not set either, whoever is on that machine may do everything
        #[arg(long)]
        last: bool,
        #[command(flatten)]
        flags: SettingFlags,
    },
}

#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// Whose it is, or what for; stands in the audit log
    name: String,
    /// read: look. operate: also replay, retry, pause. admin: everything
    #[arg(long, value_enum, default_value = "read")]
    scope: ScopeArg,
    /// How long it is valid; for ever if not given
    #[arg(long, value_parser = humantime::parse_duration)]
    expires: Option<Duration>,
    #[command(flatten)]
    flags: SettingFlags,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ScopeArg {
    Read,
    Operate,
    Admin,
}

impl From<ScopeArg> for Scope {
    fn from(scope: ScopeArg) -> Self {
        match scope {
            ScopeArg::Read => Self::Read,
            ScopeArg::Operate => Self::Operate,
            ScopeArg::Admin => Self::Admin,
        }
    }
}

pub async fn run(args: TokensArgs) -> anyhow::Result<ExitCode> {
    match args.action {
        Action::Create(args) => create(args).await?,
        Action::List { json, flags } => list(json, &flags).await?,
        Action::Revoke { name, last, flags } => {
            let last = if last { Last::Goes } else { Last::Stays };
            act(&flags, async |connection, me| {
                actions::revoke_token(connection, me, &name, last).await
            })
            .await?;
            say!("revoked {name}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn create(args: CreateArgs) -> anyhow::Result<()> {
    let CreateArgs { name, scope, expires, flags } = args;
    let holder = Holder { name, scope: scope.into() };
    let days = expires.map(|expires| expires.as_secs_f64() / 86_400.0);
    let made = act(&flags, async |connection, me| {
        actions::create_token(connection, me, &holder, days).await
    });
    let token = made.await?;
    say!("{token}");
    Ok(())
}

async fn list(json: bool, flags: &SettingFlags) -> anyhow::Result<()> {
    let all = said(tokens::list(&mut connect(flags).await?).await)?;
    let time = |time: OffsetDateTime| time.format(&Rfc3339).unwrap_or_default();
    if json {
        let all = all.iter().map(|token| {
            json!({
                "name": token.name,
                "scope": token.scope.as_str(),
                "created_at": time(token.created_at),
                "created_by": token.created_by,
                "expires_at": token.expires_at.map(time),
                "used_at": token.used_at.map(time),
            })
        });
        say!("{}", serde_json::to_string_pretty(&all.collect::<Vec<_>>())?);
        return Ok(());
    }
    let mut lines = table::plain();
    lines.set_header(["name", "scope", "made", "by", "expires", "used"]);
    for token in all {
        lines.add_row([
            token.name,
            token.scope.to_string(),
            time(token.created_at),
            token.created_by,
            token.expires_at.map_or("never".to_owned(), time),
            token.used_at.map_or("never".to_owned(), time),
        ]);
    }
    say!("{}", table::text(&lines));
    Ok(())
}
