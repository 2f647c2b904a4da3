//! What commands share that write to a terminal or into a pipe: no orders from strangers, no colour
//! that nobody wants, JSON on one line.

use std::fmt::Write as _;
use std::io::{ErrorKind, IsTerminal, Write as _};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use time::OffsetDateTime;

use super::Misconfigured;
use crate::http::dashboard::text::is_treacherous;

/// How words stand out, if they do.
#[derive(Clone, Copy, Debug)]
pub struct Colours(bool);

/// On a terminal whose owner does not mind.
pub fn colours() -> Colours {
    Colours(std::io::stdout().is_terminal() && !no_colour())
}

impl Colours {
    pub fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    pub fn doubtful(self, text: &str) -> String {
        self.paint("33", text)
    }

    pub fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[1;{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Whether standard output, a full disk say, did not take a line.
static UNSAID: AtomicBool = AtomicBool::new(false);

/// What `say!` does.
pub fn say(line: std::fmt::Arguments<'_>) {
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            if !UNSAID.swap(true, Relaxed) {
                eprintln!("tollgate: cannot write to standard output: {error}");
            }
        }
        // Whoever has left does not want to know.
        Ok(()) | Err(_) => {}
    }
}

/// Whether something that was to be said could not be.
pub fn left_unsaid() -> bool {
    UNSAID.load(Relaxed)
}

/// Asks whoever sits at the terminal, unless they have said yes before. True to go on.
///
/// # Errors
/// If nobody sits there: a script says `--yes`.
pub fn confirm(question: &str, yes: bool) -> anyhow::Result<bool> {
    if yes {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        let nobody = "nobody is there to be asked: look at it with --dry-run, then add --yes";
        return Err(Misconfigured(nobody.to_owned()).into());
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    let agreed = matches!(answer.trim().to_lowercase().as_str(), "y" | "yes");
    if !agreed {
        eprintln!("nothing was done");
    }
    Ok(agreed)
}

/// As <https://no-color.org> has it.
pub fn no_colour() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// The text with everything spelt out that would move the cursor, give the terminal orders, or show
/// characters in another order than they have.
pub fn harmless(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_treacherous(c) {
            let _ = write!(safe, "{}", c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// `2026-11-21 20:43:56`, in UTC as logs have it.
pub fn second(at: OffsetDateTime) -> String {
    let at = at.to_offset(time::UtcOffset::UTC);
    let (hour, minute, second) = at.to_hms();
    format!("{} {hour:02}:{minute:02}:{second:02}", at.date())
}

/// JSON without the white space between its tokens. The rest stays as it is: to read and write it
/// anew would change numbers, and fail where JSON allows more than we can hold.
pub fn on_one_line(json: &[u8]) -> Vec<u8> {
    let (mut within, mut escaped) = (false, false);
    let keep = |byte: &u8| {
        if within {
            within = escaped || *byte != b'"';
            escaped = !escaped && *byte == b'\\';
            return true;
        }
        within = *byte == b'"';
        !byte.is_ascii_whitespace()
    };
    json.iter().copied().filter(keep).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_goes_only_between_tokens() {
        for (given, expected) in [
            ("{ \"a\" :\r\n\t[1 , 2.50e+1] }", r#"{"a":[1,2.50e+1]}"#),
            (r#"{"a  b": "c \" d \\" , "e": " "}"#, r#"{"a  b":"c \" d \\","e":" "}"#),
            (r#"["\\\" x" , 1]"#, r#"["\\\" x",1]"#),
        ] {
            assert_eq!(String::from_utf8(on_one_line(given.as_bytes())).unwrap(), expected);
        }
    }

    #[test]
    fn a_hostile_text_cannot_steer_the_terminal() {
        assert_eq!(harmless("invoice.paid Zürich 日本"), "invoice.paid Zürich 日本");
        assert_eq!(harmless("a\x1b[2J\nb\r\u{9b}\u{202e}c"), r"a\u{1b}[2J\nb\r\u{9b}\u{202e}c");
    }
}
