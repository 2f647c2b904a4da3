//! `tollgate man`: manual pages, made from the command line's own definition.
//! How they look on a terminal is `man`'s affair.

use std::io::{ErrorKind, Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::CommandFactory;
use clap_mangen::Man;

use super::Cli;

/// Print the manual page, or write one for each command
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tollgate man > tollgate.1           to be read with man -l tollgate.1
  tollgate man --to share/man/man1    a page for each command, in a folder of man's

Exit codes: 0 done, 1 it failed, 2 wrongly asked.")]
pub struct ManArgs {
    /// Folder to write a page for each command into; made if it is not there
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

pub fn run(args: &ManArgs) -> anyhow::Result<ExitCode> {
    let Some(folder) = &args.to else {
        let mut page = Vec::new();
        Man::new(Cli::command()).render(&mut page)?;
        return print(&page);
    };
    let there = || format!("cannot write manual pages to {}", folder.display());
    std::fs::create_dir_all(folder).with_context(there)?;
    clap_mangen::generate_to(Cli::command(), folder).with_context(there)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes to standard output; that nobody reads on is no failure.
pub(super) fn print(bytes: &[u8]) -> anyhow::Result<ExitCode> {
    match stdout().write_all(bytes) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}
