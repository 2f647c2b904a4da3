//! A body of JSON laid out for people: in lines, coloured, foldable. Reads the bytes as they are
//! and takes anything: what is no JSON is shown as text, what is too long or too deep is cut.

use askama::Template;
use askama::filters::HtmlSafe;

use super::{filters, text};

/// Most lines laid out, and most bytes of a body that is none.
const MOST_PIECES: usize = 4000;
const MOST_TEXT: usize = 64 << 10;

/// Longest string shown, in characters.
const MOST_STRING: usize = 2000;

/// Deepest nesting that is laid out.
const MOST_DEPTH: usize = 48;

/// Beyond this depth objects begin folded.
const OPEN_DEPTH: usize = 4;

/// A line, or the beginning or end of a block.
enum Piece {
    Open { key: Option<String>, bracket: char, close: char, inside: usize, open: bool },
    Close { close: char, comma: bool },
    Leaf { key: Option<String>, class: char, text: String, link: bool, comma: bool },
}

/// A body, laid out.
#[derive(Template)]
#[template(path = "payload.html")]
pub struct Payload {
    pieces: Vec<Piece>,
    /// The body, if it is no JSON.
    text: Option<String>,
    cut: bool,
    /// Where all of it is to be had.
    whole: String,
}

impl HtmlSafe for Payload {}

impl Payload {
    /// Lays out a body; `whole` is the address of its bytes.
    pub fn new(body: &[u8], whole: String) -> Self {
        let source = String::from_utf8_lossy(body);
        let mut layout = Layout { rest: &source, pieces: Vec::new(), open: Vec::new(), cut: false };
        let is_json = layout.run().is_some();
        if is_json || layout.cut {
            layout.close_all();
            return Self { pieces: layout.pieces, text: None, cut: layout.cut, whole };
        }
        let lines = source.char_indices().nth(MOST_TEXT);
        let shown = lines.map_or(&*source, |(end, _)| &source[..end]);
        let text = shown.lines().map(text::harmless).collect::<Vec<_>>().join("\n");
        Self { pieces: Vec::new(), text: Some(text), cut: lines.is_some(), whole }
    }
}

/// Goes through a JSON text once, without recursion: nesting is the sender's.
struct Layout<'a> {
    rest: &'a str,
    pieces: Vec<Piece>,
    /// The blocks that are open: their piece, and whether they are objects.
    open: Vec<(usize, bool)>,
    cut: bool,
}

impl<'a> Layout<'a> {
    /// None if this is no JSON, or too much of it.
    fn run(&mut self) -> Option<()> {
        loop {
            self.blank();
            let key = match self.open.last() {
                Some((_, true)) if !self.rest.starts_with('}') => Some(self.key()?),
                _ => None,
            };
            if self.pieces.len() >= MOST_PIECES || self.open.len() >= MOST_DEPTH {
                self.cut = true;
                return None;
            }
            match self.rest.chars().next()? {
                bracket @ ('{' | '[') => self.begin(key, bracket),
                // A trailing comma is none of ours to judge.
                '}' | ']' if self.open.is_empty() => return None,
                '}' | ']' => self.end(),
                _ => self.leaf(key)?,
            }
            while self.after_value() {
                self.end();
            }
            if self.open.is_empty() {
                self.blank();
                return self.rest.is_empty().then_some(());
            }
        }
    }

    fn blank(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Past a comma, if there is one; whether a block ends here.
    fn after_value(&mut self) -> bool {
        if self.open.is_empty() {
            return false;
        }
        self.blank();
        if let Some(rest) = self.rest.strip_prefix(',') {
            self.rest = rest;
            if let Some(Piece::Leaf { comma, .. } | Piece::Close { comma, .. }) =
                self.pieces.last_mut()
            {
                *comma = true;
            }
            return false;
        }
        self.rest.starts_with(['}', ']'])
    }

    fn key(&mut self) -> Option<String> {
        let key = self.string()?;
        self.blank();
        self.rest = self.rest.strip_prefix(':')?;
        self.blank();
        Some(text::cut(key, text::SHORT))
    }

    /// A string without its quotes, escapes as they are.
    fn string(&mut self) -> Option<&'a str> {
        let inner = self.rest.strip_prefix('"')?;
        let mut escaped = false;
        let end = inner.bytes().position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        })?;
        self.rest = &inner[end + 1..];
        Some(&inner[..end])
    }

    fn count(&mut self) {
        if let Some((piece, _)) = self.open.last()
            && let Piece::Open { inside, .. } = &mut self.pieces[*piece]
        {
            *inside += 1;
        }
    }

    fn begin(&mut self, key: Option<String>, bracket: char) {
        self.count();
        let close = if bracket == '{' { '}' } else { ']' };
        let open = self.open.len() < OPEN_DEPTH;
        self.open.push((self.pieces.len(), bracket == '{'));
        self.pieces.push(Piece::Open { key, bracket, close, inside: 0, open });
        self.rest = &self.rest[1..];
    }

    fn end(&mut self) {
        self.rest = &self.rest[1..];
        self.close();
    }

    fn close(&mut self) {
        let Some((begun, _)) = self.open.pop() else { return };
        let Piece::Open { key, bracket, close, inside, .. } = &mut self.pieces[begun] else {
            return;
        };
        let close = *close;
        if *inside == 0 {
            // Nothing to fold.
            let text = format!("{bracket}{close}");
            let key = key.take();
            self.pieces[begun] = Piece::Leaf { key, class: 'p', text, link: false, comma: false };
            return;
        }
        self.pieces.push(Piece::Close { close, comma: false });
    }

    /// After a cut: so that the page stays whole.
    fn close_all(&mut self) {
        while !self.open.is_empty() {
            self.close();
        }
    }

    fn leaf(&mut self, key: Option<String>) -> Option<()> {
        self.count();
        let leaf = if self.rest.starts_with('"') {
            let string = self.string()?;
            let text = format!("\"{}\"", text::cut(string, MOST_STRING));
            self.cut |= text.len() <= string.len();
            Piece::Leaf { key, class: 's', link: is_id(string), text, comma: false }
        } else {
            let end =
                self.rest.find(|c: char| c == ',' || c == ']' || c == '}' || c.is_whitespace());
            let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
            self.rest = rest;
            let number = word.starts_with(|c: char| c == '-' || c.is_ascii_digit());
            if !number && !["true", "false", "null"].contains(&word) {
                return None;
            }
            let class = if number { 'n' } else { 'w' };
            Piece::Leaf {
                key,
                class,
                text: text::cut(word, text::SHORT),
                link: false,
                comma: false,
            }
        };
        self.pieces.push(leaf);
        Some(())
    }
}

/// Whether this looks like an id of Stripe's: `in_1Pgc…`.
pub fn is_id(text: &str) -> bool {
    text.len() <= 100
        && text.split_once('_').is_some_and(|(kind, rest)| {
            (2..=12).contains(&kind.len())
                && kind.bytes().all(|byte| byte.is_ascii_lowercase())
                && rest.len() >= 8
                && rest.bytes().any(|byte| byte.is_ascii_digit())
                && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(body: &[u8]) -> String {
        Payload::new(body, "/raw".to_owned()).render().unwrap()
    }

    #[test]
    fn a_payload_is_laid_out_and_escaped() {
        let html = shown(
            r#"{"a": [1, {"b": null}], "<i>": "<script>alert(1)</script>\u202e", "c": {}}"#
                .as_bytes(),
        );
        assert!(html.contains("&#60;script&#62;"), "{html}");
        assert!(!html.contains("<script>") && !html.contains("<i>"), "{html}");
        assert!(html.contains("2 items") && html.contains(r"\u202e"), "{html}");
        assert_eq!(html.matches("<details").count(), html.matches("</details>").count());
    }

    #[test]
    fn a_mark_that_turns_text_around_is_spelt_out() {
        let html = shown("{\"a\":\"x\u{202e}y\"}".as_bytes());
        assert!(html.contains(r"x\u{202e}y") && !html.contains('\u{202e}'), "{html}");
    }

    #[test]
    fn what_is_no_json_is_text() {
        for body in ["", "{", "[1", "{\"a\" 1}", "nonsense", "{\"a\": <b>}", "]", "1 2", "\"a"] {
            let layout = Payload::new(body.as_bytes(), String::new());
            assert!(layout.text.is_some(), "{body}");
        }
        assert!(shown(b"\xff<b>").contains("&#60;b&#62;"));
    }

    #[test]
    fn too_deep_and_too_long_is_cut_and_balanced() {
        let deep = "[".repeat(100_000);
        let wide = format!("[{}1]", "1,".repeat(100_000));
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(1 << 20));
        for body in [deep, wide, long] {
            let html = shown(body.as_bytes());
            assert!(html.contains("href=\"/raw\""), "no way to the whole");
            assert!(html.len() < 1 << 20);
            assert_eq!(html.matches("<details").count(), html.matches("</details>").count());
        }
    }

    #[test]
    fn numbers_are_shown_as_they_came() {
        let html = shown(br#"{"n": [1e400, -0.10, 12345678901234567890123]}"#);
        assert!(
            html.contains("1e400")
                && html.contains("-0.10")
                && html.contains("12345678901234567890123")
        );
    }

    #[test]
    fn ids_lead_to_their_events() {
        assert!(is_id("in_1PgcQ2abcd") && is_id("evt_test_000012"));
        for text in ["requires_payment_method", "in_", "https://x_1", "cus_<b>12345678", "month"] {
            assert!(!is_id(text), "{text}");
        }
    }
}
