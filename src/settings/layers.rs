//! Gathers the settings' texts from defaults, file, environment and flags, each over the last, and
//! remembers where each came from. Does not know what they mean.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::spec::{self, Setting};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    File(PathBuf),
    Variable(&'static str),
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variable(name) => write!(f, "{name}"),
            Self::Flag(key) => write!(f, "--{}", key.replace('_', "-")),
        }
    }
}

/// A value as text, and where it came from.
#[derive(Clone, Debug)]
pub struct Layered {
    pub text: String,
    pub origin: Origin,
}

/// One endpoint of the file, unparsed.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawEndpoint {
    #[serde(default)]
    pub secrets: Vec<String>,
    pub livemode: Option<String>,
    pub account: Option<String>,
}

/// Something wrong with the configuration, in a sentence that says where and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(pub String);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// All layers, merged.
#[derive(Debug, Default)]
pub struct Layers {
    values: BTreeMap<&'static str, Layered>,
    /// The `[endpoints.NAME]` tables, and the file they stand in.
    pub endpoints: BTreeMap<String, RawEndpoint>,
    pub file: Option<PathBuf>,
    /// What a person should hear of but that stops nothing.
    pub warnings: Vec<String>,
}

/// What the layers are made of; the environment comes in as an argument.
#[derive(Debug, Default)]
pub struct Inputs<'a> {
    /// `--config` or `TOLLGATE_CONFIG`; without it `tollgate.toml` in the working directory, if any.
    pub config: Option<PathBuf>,
    pub environment: Vec<(String, String)>,
    pub flags: Option<&'a BTreeMap<&'static str, String>>,
}

const DEFAULT_FILE: &str = "tollgate.toml";

impl Layers {
    /// Merges the layers, or says everything that is wrong with their names.
    pub fn gather(inputs: &Inputs<'_>) -> Result<Self, Vec<Problem>> {
        let mut layers = Self::default();
        let mut problems = Vec::new();
        for setting in spec::ALL.iter().filter(|setting| !setting.default.is_empty()) {
            layers.set(setting, setting.default.to_owned(), Origin::Default);
        }
        match &inputs.config {
            Some(path) => layers.read_file(path, &mut problems),
            None if Path::new(DEFAULT_FILE).is_file() => {
                layers.read_file(Path::new(DEFAULT_FILE), &mut problems);
            }
            None => {}
        }
        for (name, value) in &inputs.environment {
            layers.read_variable(name, value);
        }
        for (key, value) in inputs.flags.into_iter().flatten() {
            if let Some(setting) = spec::by_key(key) {
                layers.set(setting, value.clone(), Origin::Flag(setting.key));
            }
        }
        if problems.is_empty() { Ok(layers) } else { Err(problems) }
    }

    /// An empty text unsets what lower layers say: `VARIABLE= tollgate …` gives the default.
    fn set(&mut self, setting: &Setting, text: String, origin: Origin) {
        if !text.trim().is_empty() {
            self.values.insert(setting.key, Layered { text, origin });
        } else if setting.default.is_empty() {
            self.values.remove(setting.key);
        } else {
            let text = setting.default.to_owned();
            self.values.insert(setting.key, Layered { text, origin: Origin::Default });
        }
    }

    /// The value of a setting, if it has one.
    pub fn get(&self, key: &str) -> Option<&Layered> {
        self.values.get(key)
    }

    fn read_file(&mut self, path: &Path, problems: &mut Vec<Problem>) {
        let mut problem =
            |text: String| problems.push(Problem(format!("{}: {text}", path.display())));
        let table = match std::fs::read_to_string(path) {
            Err(error) => return problem(format!("cannot be read: {error}")),
            Ok(text) => match text.parse::<toml::Table>() {
                // Not the parser's own words: they quote the line, which may hold a secret.
                Err(error) => {
                    let start = error.span().map_or(0, |span| span.start);
                    let line = text.bytes().take(start).filter(|byte| *byte == b'\n').count() + 1;
                    return problem(format!("line {line} is not TOML"));
                }
                Ok(table) => table,
            },
        };
        self.file = Some(path.to_owned());
        for (key, value) in table {
            if key == "endpoints" {
                match value.try_into() {
                    Ok(endpoints) => self.endpoints = endpoints,
                    Err(_) => problem(
                        "[endpoints]: each [endpoints.NAME] takes secrets = [\"…\"], livemode = \"…\" and \
                         account = \"…\", and nothing else"
                            .into(),
                    ),
                }
            } else if let Some(setting) = spec::by_key(&key) {
                match scalar(&value) {
                    Some(text) => self.set(setting, text, Origin::File(path.to_owned())),
                    None => problem(format!("{key}: must be a text, a number or true/false")),
                }
            } else {
                let known = spec::ALL.iter().map(|setting| setting.key).chain(["endpoints"]);
                let hint = spec::nearest(&key, known)
                    .map_or_else(String::new, |near| format!("; did you mean {near}?"));
                problem(format!("{key}: there is no such setting{hint}"));
            }
        }
    }

    fn read_variable(&mut self, name: &str, value: &str) {
        if let Some(setting) = spec::ALL.iter().find(|setting| setting.variable == name) {
            self.set(setting, value.to_owned(), Origin::Variable(setting.variable));
        } else if name.starts_with("TOLLGATE_") && name != "TOLLGATE_CONFIG" {
            // Only a warning: Kubernetes sets variables of its own after a service's name.
            let mut known = spec::ALL.iter().map(|setting| setting.variable);
            // Not all of ours begin like that: DATABASE_URL.
            let bare = known.clone().find(|known| Some(*known) == name.strip_prefix("TOLLGATE_"));
            if let Some(near) = bare.or_else(|| spec::nearest(name, &mut known)) {
                self.warnings.push(format!(
                    "environment variable {name} is not known; did you mean {near}?"
                ));
            }
        }
    }
}

fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        _ => None,
    }
}
