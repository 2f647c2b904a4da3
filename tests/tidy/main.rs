//! The mechanical rules of the house, each as a test that names file and line. What the rules are
//! for stands in docs/ARCHITECTURE.md; to change one, change it here and there.

mod rust;

use std::collections::BTreeSet;
use std::path::Path;

use rust::{blanked, found, functions, is_word, line_of, lines_with, uses, without_tests, words};
use tollgate::settings::spec::ALL;

const MOST_LINES_PER_FILE: usize = 400;
const MOST_LINES_PER_FUNCTION: usize = 70;

/// What each module at the top of `src/` may use of the others. `main` is the binary.
const MAY_USE: [(&str, &[&str]); 21] = [
    ("stripe", &[]),
    ("clock", &[]),
    ("counting", &[]),
    ("http_client", &[]),
    ("shutdown", &[]),
    ("embedded", &[]),
    ("fixtures", &[]),
    ("traces", &["clock", "http_client"]),
    ("store", &["stripe"]),
    ("ingest", &["stripe", "store", "clock", "counting", "traces"]),
    ("maintain", &["store", "ingest", "clock"]),
    ("consume", &["stripe", "store", "clock", "counting", "http_client", "traces"]),
    ("sync", &["stripe", "store", "ingest", "clock", "http_client"]),
    ("settings", &["stripe", "store", "ingest", "consume", "sync", "traces"]),
    ("telemetry", &["settings"]),
    (
        "http",
        &["stripe", "store", "ingest", "maintain", "consume", "clock", "settings", "shutdown"],
    ),
    ("replay", &["stripe", "clock", "http_client", "fixtures"]),
    (
        "startup",
        &[
            "stripe", "store", "ingest", "maintain", "consume", "sync", "http", "embedded",
            "clock", "settings", "shutdown", "traces",
        ],
    ),
    (
        "cli",
        &[
            "stripe",
            "store",
            "ingest",
            "maintain",
            "consume",
            "sync",
            "http",
            "replay",
            "startup",
            "embedded",
            "fixtures",
            "clock",
            "http_client",
            "settings",
            "shutdown",
            "telemetry",
        ],
    ),
    ("lib", &[]),
    ("main", &["cli"]),
];

/// Beginnings of SQL statements, as they are written here.
const SQL: [&str; 15] = [
    "SELECT ",
    "INSERT INTO ",
    "UPDATE ",
    "DELETE FROM ",
    "CREATE ",
    "ALTER ",
    "DROP ",
    "TRUNCATE ",
    "WITH ",
    "LOCK ",
    "NOTIFY ",
    "LISTEN ",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
];

/// Variables in documents that are no settings; of the last, names that begin so.
const OTHER_VARIABLES: [&str; 2] = ["TOLLGATE_CONFIG", "TOLLGATE_FAULT_ROUNDS"];
const TEST_VARIABLES: &str = "TOLLGATE_TEST_";

#[test]
fn files_are_short() {
    let long = sources(&["src", "tests", "benches"]).into_iter().filter_map(|file| {
        let lines = file.text.lines().count();
        (lines > MOST_LINES_PER_FILE).then(|| format!("{}:{lines}: {lines} lines", file.path))
    });
    none(&format!("a file has at most {MOST_LINES_PER_FILE} lines"), long);
}

#[test]
fn functions_are_short() {
    let long = sources(&["src", "tests", "benches"]).into_iter().flat_map(|file| {
        let long =
            functions(&file.code).into_iter().filter(|(_, _, n)| *n > MOST_LINES_PER_FUNCTION);
        long.map(|(line, name, n)| format!("{}:{line}: {name} has {n} lines", file.path))
            .collect::<Vec<_>>()
    });
    none(&format!("a function has at most {MOST_LINES_PER_FUNCTION} lines"), long);
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent = sources(&["src", "tests", "benches"]).into_iter();
    let silent =
        silent.filter(|file| !file.text.starts_with("//! ")).map(|file| format!("{}:1", file.path));
    none("a file begins with `//! ` and what belongs into it", silent);
}

#[test]
fn imports_run_one_way() {
    let wrong = sources(&["src"]).into_iter().flat_map(|file| {
        let path = module_path(&file.path);
        let module = path.first().cloned().unwrap_or_else(|| "lib".to_owned());
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == module) else {
            return vec![format!("{}:1: {module} is not in the table MAY_USE", file.path)];
        };
        let known = |name: &str| MAY_USE.iter().any(|(module, _)| *module == name);
        let wrong = uses(&file.code, path.len()).into_iter();
        wrong
            .filter(|(_, used)| known(used) && *used != module && !allowed.contains(&used.as_str()))
            .map(|(line, used)| format!("{}:{line}: {module} may not use {used}", file.path))
            .collect()
    });
    none("imports run one way (MAY_USE in tests/tidy.rs)", wrong);
}

#[test]
fn sql_stands_in_the_store() {
    let wrong = sources(&["src"]).into_iter().filter(|file| !file.path.starts_with("src/store/"));
    let wrong = wrong.flat_map(|file| {
        let code = without_tests(&file.code);
        let calls =
            ["sqlx::query", "sqlx::raw_sql"].iter().flat_map(|call| lines_with(&code, call));
        let mut lines: BTreeSet<usize> = calls.collect();
        // Making the private cluster's database, which comes before there is any store.
        if file.path != "src/embedded/cluster.rs" {
            let is_sql = |text: &str| SQL.iter().any(|verb| text.trim_start().starts_with(verb));
            lines.extend(
                file.literals.iter().filter(|(_, text)| is_sql(text)).map(|(line, _)| line),
            );
        }
        lines.into_iter().map(move |line| format!("{}:{line}", file.path))
    });
    none("SQL stands under src/store, in migrations, tests and benches", wrong);
}

#[test]
fn errors_have_types_where_they_are_made() {
    let outer = ["main", "cli", "startup", "telemetry"];
    let wrong = sources(&["src"]).into_iter().filter(|file| {
        let outside =
            module_path(&file.path).first().is_some_and(|name| outer.contains(&name.as_str()));
        !outside && !file.path.ends_with("/tests.rs")
    });
    let wrong = wrong.flat_map(|file| found(&file.path, &without_tests(&file.code), "anyhow"));
    none("anyhow is for main, cli, startup and telemetry; elsewhere errors have types", wrong);
}

#[test]
fn nothing_is_unsafe() {
    let files = sources(&["src", "tests", "benches"]).into_iter();
    none("no `unsafe`", files.flat_map(|file| found(&file.path, &file.code, "unsafe")));
}

#[test]
fn time_comes_in_as_an_argument() {
    let readers = ["SystemTime::now", "now_utc", "now_local", "Utc::now", "Local::now"];
    let files = sources(&["src", "tests", "benches"]).into_iter();
    let files = files
        .filter(|file| file.path != "src/clock.rs" && !file.path.starts_with("tests/support/"));
    let wrong = files.flat_map(|file| {
        readers.iter().flat_map(|reader| found(&file.path, &file.code, reader)).collect::<Vec<_>>()
    });
    none("only src/clock.rs and tests/support ask for the time; others take a Clock", wrong);
}

#[test]
fn migrations_are_numbered_without_gaps() {
    let wrong = migrations().into_iter().zip(1..).filter_map(|((path, _), number)| {
        let name = path.trim_start_matches("migrations/").trim_end_matches(".sql").to_owned();
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let rest = name.strip_prefix(&format!("{number:04}_"));
        let fits = rest.is_some_and(|rest| !rest.is_empty() && rest.chars().all(plain));
        (!fits).then(|| format!("{path}:1: expected {number:04}_name.sql, lower case"))
    });
    none("migrations are named NNNN_name.sql, from 0001 on without gaps", wrong);
}

#[test]
fn what_migrations_create_is_commented() {
    let files = migrations();
    let all: String = files.iter().map(|(_, sql)| sql.as_str()).collect();
    let commented = |kind: &str, name: &str| {
        let comment = format!("COMMENT ON {kind} {name}");
        all.match_indices(&comment).any(|(at, _)| !all[at + comment.len()..].starts_with(is_word))
    };
    let silent = files.iter().flat_map(|(path, sql)| {
        let commented = &commented;
        created(sql).into_iter().filter(move |(_, kind, name)| !commented(kind, name)).map(
            move |(line, kind, name)| format!("{path}:{line}: COMMENT ON {kind} {name} is missing"),
        )
    });
    none("every table, view, function and sequence has a COMMENT ON", silent);
}

#[test]
fn documents_name_only_variables_that_exist() {
    let mut files = files_under("docs", "md");
    files.extend(files_under("deploy", ""));
    files.extend(["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Dockerfile"].map(str::to_owned));
    let known = |name: &str| ALL.iter().any(|setting| setting.variable == name);
    let wrong =
        files.iter().filter_map(|path| Some((path, read(path)?))).flat_map(|(path, text)| {
            let names = words(&text, "TOLLGATE_").into_iter().map(|at| {
                let name = &text[at..];
                (
                    line_of(&text, at),
                    name.split(|c| !is_word(c)).next().unwrap_or_default().to_owned(),
                )
            });
            let wrong = names.filter(|(_, name)| {
                name != "TOLLGATE_"
                    && !name.starts_with(TEST_VARIABLES)
                    && !known(name)
                    && !OTHER_VARIABLES.contains(&name.as_str())
            });
            wrong.map(|(line, name)| format!("{path}:{line}: {name}")).collect::<Vec<_>>()
        });
    none("a TOLLGATE_ variable in a document is a setting (src/settings/spec.rs)", wrong);
}

#[test]
fn the_readme_lists_every_setting() {
    let readme =
        read("README.md").expect("README.md is not there yet; it lists every setting in a table");
    let rows: Vec<&str> = readme.lines().filter(|line| line.starts_with('|')).collect();
    let missing = ALL.iter().filter(|setting| {
        let has = |row: &&str, text: &str| text.is_empty() || row.contains(&format!("`{text}`"));
        !rows.iter().any(|row| has(row, setting.variable) && has(row, setting.default))
    });
    none(
        "README.md has a table row with each setting's variable and default in backquotes",
        missing.map(|it| {
            format!(
                "README.md: | `{}` | `{}` | `{}` | {} |",
                it.key, it.variable, it.default, it.help
            )
        }),
    );
}

#[test]
fn the_example_configuration_lists_every_setting() {
    const PATH: &str = "deploy/tollgate.example.toml";
    let example = read(PATH).expect("an example configuration");
    let missing = ALL.iter().filter(|setting| {
        let quoted = format!("# {} = \"{}\"", setting.key, setting.default);
        let plain = format!("# {} = {}", setting.key, setting.default);
        let shown = |line: &str| line == quoted || line == plain;
        let open = setting.default.is_empty();
        !example.lines().any(|line| if open { line.starts_with(&plain) } else { shown(line) })
    });
    let missing = missing.map(|it| format!("{PATH}: # {} = {:?}", it.key, it.default));
    none("the example configuration shows each setting at its default, commented out", missing);
}

// Files ------------------------------------------------------------------------------------

#[track_caller]
#[test]
fn the_image_is_built_from_what_it_copies() {
    let [docker, ignore, cargo] =
        ["Dockerfile", ".dockerignore", "Cargo.toml"].map(|path| read(path).unwrap());
    let lets_in = |path: &str| ignore.lines().any(|line| line == format!("!{path}"));
    let copied = docker.lines().filter_map(|line| line.strip_prefix("COPY "));
    let copied = copied.filter(|line| !line.starts_with("--")).flat_map(|line| {
        let mut words: Vec<_> = line.split_whitespace().collect();
        words.pop();
        words
    });
    let shut_out = copied.filter(|path| !lets_in(path) && !path.starts_with("LICENSE-"));
    none("what the Dockerfile copies is let in by .dockerignore", shut_out.map(str::to_owned));
    let benches = cargo.split("[[bench]]").skip(1).filter_map(|bench| bench.split('"').nth(1));
    let missing = benches.filter(|name| !docker.contains(&format!("benches/{name}/main.rs")));
    none("the Dockerfile makes every target that Cargo.toml names", missing.map(str::to_owned));
    let templates = read("askama.toml").is_some_and(|text| text.contains("\"src/"));
    assert!(templates, "templates stand below src, which the Dockerfile copies");
}

fn none(rule: &str, broken: impl IntoIterator<Item = String>) {
    let broken: Vec<String> = broken.into_iter().collect();
    assert!(broken.is_empty(), "{rule}; broken at\n  {}\n", broken.join("\n  "));
}

struct Source {
    /// From the repository's root.
    path: String,
    text: String,
    /// The text with comments and literals blanked out, line for line.
    code: String,
    /// The string literals, with the lines they begin on.
    literals: Vec<(usize, String)>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(root().join(path)).ok()
}

/// All files below a folder whose names end in `.extension`, or all, sorted.
fn files_under(folder: &str, extension: &str) -> Vec<String> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(root().join(folder)).into_iter().flatten().flatten() {
        let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            files.extend(files_under(&path, extension));
        } else if extension.is_empty() || path.ends_with(&format!(".{extension}")) {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn sources(folders: &[&str]) -> Vec<Source> {
    let paths = folders.iter().flat_map(|folder| files_under(folder, "rs"));
    let sources: Vec<_> = paths
        .map(|path| {
            let text = read(&path).expect("a readable UTF-8 file");
            let (code, literals) = blanked(&text);
            Source { path, text, code, literals }
        })
        .collect();
    assert!(!sources.is_empty(), "no files in {folders:?}");
    sources
}

/// Names and contents of the migrations, without their comments.
fn migrations() -> Vec<(String, String)> {
    let strip = |line: &str| line.split("--").next().unwrap_or_default().to_owned() + "\n";
    let load =
        |path: String| (path.clone(), read(&path).unwrap_or_default().lines().map(strip).collect());
    files_under("migrations", "sql").into_iter().map(load).collect()
}

/// What SQL creates under a fixed name: line, kind and name.
fn created(sql: &str) -> Vec<(usize, &'static str, String)> {
    let mut all = Vec::new();
    for kind in ["TABLE", "VIEW", "MATERIALIZED VIEW", "FUNCTION", "PROCEDURE", "SEQUENCE"] {
        for create in ["CREATE", "CREATE OR REPLACE"] {
            let start = format!("{create} {kind} ");
            all.extend(sql.match_indices(&start).map(|(at, _)| {
                let rest = sql[at + start.len()..].trim_start_matches("IF NOT EXISTS ");
                let end = rest
                    .find(|c: char| c.is_whitespace() || "(;".contains(c))
                    .unwrap_or(rest.len());
                (line_of(sql, at), kind, rest[..end].to_owned())
            }));
        }
    }
    all.retain(|(_, _, name)| !name.contains('%'));
    all
}

/// `src/a/b.rs` is `[a, b]`, `src/a/mod.rs` is `[a]`, `src/lib.rs` is `[]`.
fn module_path(path: &str) -> Vec<String> {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs");
    path.split('/').filter(|part| !["mod", "lib"].contains(part)).map(str::to_owned).collect()
}
