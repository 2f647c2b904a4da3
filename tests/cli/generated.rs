//! What is made from the command line's definition: completions for shells, manual pages.

use std::process::Command;

use crate::{stderr, stdout, tollgate};

/// The commands that `--help` lists.
fn commands() -> Vec<String> {
    let help = stdout(&tollgate(&["--help"], &[]));
    let (_, commands) = help.split_once("\nCommands:\n").unwrap();
    let lines = commands.lines().take_while(|line| !line.is_empty());
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names: Vec<_> = names.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.contains(&"serve") && names.contains(&"dead-letters"), "{names:?}");
    names.into_iter().filter(|name| *name != "help").map(str::to_owned).collect()
}

/// What bash offers after these words.
fn offered(words: &str) -> Vec<String> {
    let script = r#"source <("$0" completions bash) || exit 1
        COMP_WORDS=($1); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        [[ $1 == *" " ]] && { COMP_WORDS+=(""); COMP_CWORD=$((COMP_CWORD + 1)); }
        _tollgate tollgate "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let output = Command::new("bash")
        .args(["--norc", "-c", script, env!("CARGO_BIN_EXE_tollgate"), words])
        .output()
        .unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", stderr(&output));
    stdout(&output).lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_and_flags() {
    let all = offered("tollgate ");
    for command in commands() {
        assert!(all.contains(&command), "{command}: {all:?}");
    }
    assert!(!all.iter().any(|word| word == "fixtures"), "hidden ones stay hidden: {all:?}");
    assert_eq!(offered("tollgate healthc"), ["healthcheck"]);
    assert_eq!(offered("tollgate serve --otlp-e"), ["--otlp-endpoint"]);
    assert!(offered("tollgate consumers ").iter().any(|word| word == "pause"));
    assert_eq!(offered("tollgate completions fi"), ["fish"]);
}

#[test]
fn every_shell_has_a_script_and_another_is_wrongly_asked() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = tollgate(&["completions", shell], &[]);
        assert!(script.status.success(), "{}", stderr(&script));
        assert!(stdout(&script).contains("dead-letters"), "{shell}");
    }
    for wrong in [&["completions"] as &[_], &["completions", "csh"]] {
        assert_eq!(tollgate(wrong, &[]).status.code(), Some(2));
    }
}

#[test]
fn nobody_needs_to_read_to_the_end() {
    let script = r#"set -o pipefail; "$0" completions zsh | head -c 1 > /dev/null"#;
    let status =
        Command::new("bash").args(["-c", script, env!("CARGO_BIN_EXE_tollgate")]).status().unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn the_manual_has_every_command_and_a_page_for_each() {
    let page = tollgate(&["man"], &[]);
    assert!(page.status.success(), "{}", stderr(&page));
    let folder = tempfile::tempdir().unwrap();
    // One that is not there yet.
    let to = folder.path().join("share/man1");
    let written = tollgate(&["man", "--to", to.to_str().unwrap()], &[]);
    assert!(written.status.success(), "{}", stderr(&written));
    std::fs::write(to.join("printed.1"), &page.stdout).unwrap();
    let whole = rendered(&to.join("printed.1"));
    for command in commands() {
        assert!(whole.contains(&format!("tollgate-{command}")), "{command}: {whole}");
        let page = rendered(&to.join(format!("tollgate-{command}.1")));
        assert!(page.contains("Examples:"), "{command}: {page}");
    }
    assert!(whole.contains("Exit codes"), "{whole}");
    assert!(rendered(&to.join("tollgate-serve.1")).contains("TOLLGATE_MAX_BODY"));
    assert!(!to.join("tollgate-fixtures.1").exists());

    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let refused = tollgate(&["man", "--to", file.to_str().unwrap()], &[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("cannot write manual pages"), "{}", stderr(&refused));
}

/// A page as `man` shows it, or as it is written where there is no `man`.
fn rendered(page: &std::path::Path) -> String {
    let source =
        std::fs::read_to_string(page).unwrap_or_else(|e| panic!("{}: {e}", page.display()));
    let mut man = Command::new("man");
    man.args(["-l", "--warnings"]).arg(page).env("MANWIDTH", "200").env("LC_ALL", "C.UTF-8");
    match man.output() {
        Ok(output) if output.status.success() && output.stdout.len() > 200 => {
            assert!(output.stderr.is_empty(), "{}: {}", page.display(), stderr(&output));
            stdout(&output).replace('\u{2010}', "-")
        }
        _ => source.replace("\\-", "-"),
    }
}
