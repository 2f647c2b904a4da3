//! `tollgate healthcheck`: asks a running gateway whether it is ready, for container health checks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;

use super::flags::SettingFlags;
use crate::http_client;

/// Ask a running gateway whether it is ready (exit code 0) or not (1)
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tollgate healthcheck
  tollgate healthcheck --url http://gateway:8080/healthz --timeout 2s")]
pub struct HealthcheckArgs {
    /// What to ask [default: /readyz where TOLLGATE_LISTEN listens]
    #[arg(long)]
    url: Option<String>,
    /// Longest wait for the answer
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    flags: SettingFlags,
}

pub async fn run(args: HealthcheckArgs) -> anyhow::Result<ExitCode> {
    let url = match args.url {
        Some(url) => url,
        None => {
            format!("http://{}/readyz", reachable(args.flags.settings_and_warnings()?.0.listen))
        }
    };
    let url: reqwest::Url = url.parse().with_context(|| format!("{url} is no URL"))?;
    let client = http_client::builder(&url).timeout(args.timeout).build()?;
    let response =
        client.get(url.clone()).send().await.with_context(|| format!("{url} does not answer"))?;
    let status = response.status();
    say!("{status} {}", response.text().await.unwrap_or_default());
    Ok(if status.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A server that listens on all addresses is asked on loopback.
pub(super) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
