//! Where events to send come from: files, directories, standard input, or generated stories.
//! The bytes of an event are never rewritten here; in which order they go out is `plan`'s affair.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::fixtures::Story;
use crate::stripe::event::{Envelope, Unusable};

/// An event to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its top-level `id`; `None` if it has no usable one, which a gateway must cope with.
    pub id: Option<String>,
    /// The exact bytes of the request's body.
    pub body: Bytes,
    pub origin: Origin,
}

/// Where an event came from, for messages: `page.json`, `events.jsonl:7` (line 7),
/// `page.json#7` (the seventh of a list).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    file: Arc<str>,
    part: Part,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Whole,
    Line(usize),
    Item(usize),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = &self.file;
        match self.part {
            Part::Whole => f.write_str(file),
            Part::Line(number) => write!(f, "{file}:{number}"),
            Part::Item(number) => write!(f, "{file}#{number}"),
        }
    }
}

impl Event {
    /// An event that a log holds, as it was received; messages call it by its id.
    pub fn kept(id: &str, body: Bytes) -> Self {
        Self {
            id: Some(id.to_owned()),
            body,
            origin: Origin { file: id.into(), part: Part::Whole },
        }
    }
}

/// Why events could not be loaded. Nothing has been sent then.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{origin} is not an event")]
    NotAnEvent { origin: Origin, source: Unusable },
    #[error("{0} has no id and is no event; to send it all the same, name the file itself")]
    Stray(Origin),
    #[error("there is no *.json, *.jsonl or *.ndjson in {}", .0.display())]
    NothingIn(PathBuf),
}

/// Loads all events of `paths`, in that order. Each path is one of
///
/// - a file with one event, sent byte for byte but for one newline at its end;
/// - a file with a JSON array of events, or a page of Stripe's event list;
/// - a `.jsonl` or `.ndjson` file, one event per line;
/// - a directory, searched for such files at any depth, in the order of their paths;
/// - `-`: `stdin`, one event per line.
///
/// # Errors
/// At the first path that cannot be read, or is not JSON objects; in a directory, at the first that has
/// no id.
pub fn load(paths: &[PathBuf], mut stdin: impl Read) -> Result<Vec<Event>, SourceError> {
    let mut events = Vec::new();
    for path in paths {
        if path == Path::new("-") {
            let mut text = Vec::new();
            stdin.read_to_end(&mut text).map_err(read_error(Path::new("standard input")))?;
            events.extend(lines(&"stdin".into(), &text.into())?);
        } else if path.is_dir() {
            let mut files = Vec::new();
            find(path, &mut files)?;
            if files.is_empty() {
                return Err(SourceError::NothingIn(path.clone()));
            }
            files.sort();
            for file in files {
                let of_file = load_file(&file)?;
                // A package.json, say, that somebody did not mean to send.
                if let Some(stray) = of_file.iter().find(|event| !looks_meant(event)) {
                    return Err(SourceError::Stray(stray.origin.clone()));
                }
                events.extend(of_file);
            }
        } else {
            events.extend(load_file(path)?);
        }
    }
    Ok(events)
}

/// The events of generated stories, in the order in which they happened.
#[must_use]
pub fn from_stories(stories: &[Story]) -> Vec<Event> {
    let mut samples: Vec<_> =
        stories.iter().flat_map(|story| story.events.iter().map(move |one| (story, one))).collect();
    samples.sort_by_key(|(_, sample)| sample.created);
    samples
        .into_iter()
        .map(|(story, sample)| Event {
            id: Some(sample.id.clone()),
            body: sample.body.clone().into(),
            origin: Origin { file: story.name.into(), part: Part::Whole },
        })
        .collect()
}

/// For `map_err`: what could not be read.
fn read_error(path: &Path) -> impl FnOnce(io::Error) -> SourceError {
    move |source| SourceError::Read { path: path.to_owned(), source }
}

/// Collects the event files below `dir`. Links to directories are not followed: they may loop.
fn find(dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), SourceError> {
    for entry in fs::read_dir(dir).map_err(read_error(dir))? {
        let entry = entry.map_err(read_error(dir))?;
        let path = entry.path();
        if entry.file_type().map_err(read_error(&path))?.is_dir() {
            find(&path, files)?;
        } else if (path.extension() == Some(OsStr::new("json")) || holds_lines(&path))
            && path.is_file()
        {
            files.push(path);
        }
    }
    Ok(())
}

fn holds_lines(path: &Path) -> bool {
    ["jsonl", "ndjson"].iter().any(|known| path.extension() == Some(OsStr::new(known)))
}

fn load_file(path: &Path) -> Result<Vec<Event>, SourceError> {
    let text = fs::read(path).map_err(read_error(path))?.into();
    let file = path.to_string_lossy().into();
    if holds_lines(path) { lines(&file, &text) } else { document(&file, &text) }
}

/// One event per line; empty lines count, but are no events.
fn lines(file: &Arc<str>, text: &Bytes) -> Result<Vec<Event>, SourceError> {
    text.split(|byte| *byte == b'\n')
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim_ascii()))
        .filter(|(_, line)| !line.is_empty())
        .map(|(number, line)| {
            event(text.slice_ref(line), Origin { file: file.clone(), part: Part::Line(number) })
        })
        .collect()
}

/// A page of `GET /v1/events`.
#[derive(Deserialize)]
struct Page<'a> {
    object: String,
    #[serde(borrow)]
    data: Vec<&'a RawValue>,
}

/// One event, an array of events, or a page of them.
fn document(file: &Arc<str>, text: &Bytes) -> Result<Vec<Event>, SourceError> {
    let list = serde_json::from_slice::<Vec<&RawValue>>(text).ok().or_else(|| {
        let page: Page = serde_json::from_slice(text).ok()?;
        (page.object == "list").then_some(page.data)
    });
    let Some(list) = list else {
        let body = text.strip_suffix(b"\n").unwrap_or(text);
        let body = body.strip_suffix(b"\r").unwrap_or(body);
        let origin = Origin { file: file.clone(), part: Part::Whole };
        return Ok(vec![event(text.slice_ref(body), origin)?]);
    };
    list.into_iter()
        .enumerate()
        .map(|(index, item)| {
            let origin = Origin { file: file.clone(), part: Part::Item(index + 1) };
            event(text.slice_ref(item.get().as_bytes()), origin)
        })
        .collect()
}

/// Whether a file of a directory is one of its events. One without an id is, if it says so.
fn looks_meant(event: &Event) -> bool {
    #[derive(Deserialize)]
    struct Kind<'a> {
        object: &'a str,
    }
    let named = |kind: Kind| matches!(kind.object, "event" | "v2.core.event");
    event.id.is_some() || serde_json::from_slice(&event.body).is_ok_and(named)
}

/// An object without an id is let through: what a gateway does with it is worth seeing. What is
/// no object at all is taken for a mistake in the choice of the file.
fn event(body: Bytes, origin: Origin) -> Result<Event, SourceError> {
    let id = match Envelope::parse(&body) {
        Ok(envelope) => Some(envelope.id.to_string()),
        Err(Unusable::NoId | Unusable::IdTooLong) => None,
        Err(source @ (Unusable::NotUtf8 | Unusable::NotJson)) => {
            return Err(SourceError::NotAnEvent { origin, source });
        }
    };
    Ok(Event { id, body, origin })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    /// Writes the files, loads what `paths` name, and shows each event as `origin id body`.
    fn loaded(files: &[(&str, &str)], paths: &[&str]) -> Result<Vec<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let place = |path: &&str| if *path == "-" { "-".into() } else { dir.path().join(path) };
        let paths: Vec<_> = paths.iter().map(place).collect();
        let shown = |text: String| text.replace(&format!("{}/", dir.path().display()), "");
        let events = load(&paths, b"{\"id\":\"evt_in\"}\n".as_slice())
            .map_err(|error| shown(format!("{:#}", anyhow::Error::from(error))))?;
        Ok(events
            .iter()
            .map(|Event { id, body, origin }| {
                let body = str::from_utf8(body).unwrap();
                shown(format!("{origin} {} {body}", id.as_deref().unwrap_or("?")))
            })
            .collect())
    }

    #[test]
    fn one_event_keeps_its_bytes_but_for_the_last_newline() {
        let files = [("a.json", " {\n  \"id\": \"evt_1\"}\n\n"), ("b.json", "{\"x\": 1e400}\r\n")];
        assert_eq!(
            loaded(&files, &["a.json", "b.json"]).unwrap(),
            ["a.json evt_1  {\n  \"id\": \"evt_1\"}\n", "b.json ? {\"x\": 1e400}"]
        );
    }

    #[test]
    fn lists_and_pages_keep_the_bytes_of_each_event() {
        let list = r#"[ {"id": "evt_1", "b":1.0, "a":"\u00e9"} , {"id":"evt_2"} ]"#;
        let page = format!(r#"{{"object": "list", "data": {list}, "has_more": false}}"#);
        for (text, name) in [(list, "list.json"), (&page, "page.json")] {
            assert_eq!(
                loaded(&[(name, text)], &[name]).unwrap(),
                [
                    format!(r#"{name}#1 evt_1 {{"id": "evt_1", "b":1.0, "a":"\u00e9"}}"#),
                    format!(r#"{name}#2 evt_2 {{"id":"evt_2"}}"#),
                ]
            );
        }
    }

    #[test]
    fn an_event_whose_data_is_an_object_is_no_page() {
        let text = r#"{"id":"evt_1","object":"event","data":{"object":{}}}"#;
        assert_eq!(loaded(&[("a", text)], &["a"]).unwrap(), [format!("a evt_1 {text}")]);
    }

    #[test]
    fn directories_are_read_in_the_order_of_their_paths() {
        let files = [
            ("d/z.json", r#"{"id":"evt_3"}"#),
            ("d/b/two.ndjson", "{\"id\":\"evt_1\"}\r\n\n{\"id\":\"evt_2\"}"),
            ("d/notes.txt", "not an event"),
            ("d/without.json", r#"{"object":"event"}"#),
        ];
        assert_eq!(
            loaded(&files, &["-", "d"]).unwrap(),
            [
                r#"stdin:1 evt_in {"id":"evt_in"}"#,
                r#"d/b/two.ndjson:1 evt_1 {"id":"evt_1"}"#,
                r#"d/b/two.ndjson:3 evt_2 {"id":"evt_2"}"#,
                r#"d/without.json ? {"object":"event"}"#,
                r#"d/z.json evt_3 {"id":"evt_3"}"#,
            ]
        );
    }

    #[test]
    fn what_is_no_event_is_named() {
        let files = [
            ("a.jsonl", "{}\n{\"id\":"),
            ("b.json", "[1]"),
            ("e/x.txt", ""),
            ("s/package.json", "{}"),
        ];
        for (path, message) in [
            ("a.jsonl", "a.jsonl:2 is not an event: the body is not a JSON object"),
            ("b.json", "b.json#1 is not an event: the body is not a JSON object"),
            ("e", "there is no *.json, *.jsonl or *.ndjson in"),
            ("missing.json", "cannot read missing.json:"),
            ("s", "s/package.json has no id and is no event"),
        ] {
            let error = loaded(&files, &[path]).unwrap_err();
            assert!(error.starts_with(message), "{error}");
        }
    }

    #[test]
    fn stories_become_events_in_the_order_of_their_time() {
        let stories = fixtures::stories(fixtures::SEED, fixtures::START);
        let events = from_stories(&stories);
        assert_eq!(events.len(), stories.iter().map(|story| story.events.len()).sum::<usize>());
        let created = |event: &Event| Envelope::parse(&event.body).unwrap().created;
        assert!(events.is_sorted_by_key(created));
    }
}
