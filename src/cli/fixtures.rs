//! `tollgate fixtures` (hidden): writes the generated sample events to files, as in `fixtures/events`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use crate::fixtures::{SEED, START, stories};

/// Write sample events to files
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tollgate fixtures fixtures/events          the ones in the repository
  tollgate fixtures --seed 7 /tmp/events     others of the same kind")]
pub struct FixturesArgs {
    /// Folder to write to: one folder per story, one file per event
    folder: PathBuf,
    /// Seed of all ids and amounts
    #[arg(long, default_value_t = SEED)]
    seed: u64,
    /// When the first story begins, in Unix seconds
    #[arg(long, default_value_t = START)]
    start: i64,
}

pub fn run(args: &FixturesArgs) -> anyhow::Result<ExitCode> {
    let mut written = 0;
    for story in stories(args.seed, args.start) {
        let folder = args.folder.join(story.name);
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        for (index, event) in story.events.iter().enumerate() {
            let path = folder.join(format!("{:02}.{}.json", index + 1, event.event_type));
            std::fs::write(&path, &event.body).with_context(|| path.display().to_string())?;
            written += 1;
        }
    }
    say!("wrote {written} events to {}", args.folder.display());
    Ok(ExitCode::SUCCESS)
}
