//! `tollgate completions`: what makes a shell complete commands and flags.
//! Made from the command line's own definition, so that it cannot lag behind.

use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use super::{Cli, man::print};

/// Print what makes a shell complete commands and flags
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  source <(tollgate completions bash)           in this shell; a line for ~/.bashrc
  tollgate completions zsh > _tollgate          into a folder of $fpath
  tollgate completions fish > tollgate.fish     into ~/.config/fish/completions

Exit codes: 0 done, 1 it failed, 2 wrongly asked.")]
pub struct CompletionsArgs {
    /// For which shell
    shell: Shell,
}

pub fn run(args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    let whole = Cli::command();
    // The generators would offer hidden ones, too.
    let shown = whole.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let mut shown = Command::new("tollgate").version(env!("CARGO_PKG_VERSION")).subcommands(shown);
    // By way of memory, as it panics where it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut shown, "tollgate", &mut script);
    print(&script)
}
