//! What stands in deploy/ for those who run a gateway: that Prometheus takes it, and that it speaks
//! of metrics, settings and chapters that are there.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tollgate::settings::spec::ALL;

use crate::scrape::{Page, scrape};
use crate::support::App;

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What tools find wrong is a failure; that a tool is missing is one only in CI.
fn skip(what: &str, needed: bool) {
    let ci = std::env::var("CI").as_deref() == Ok("true");
    assert!(!(ci && needed), "{what} is missing");
    // Past the test harness, which swallows what tests that pass print.
    let line = format!("SKIPPED: {what} is missing; scripts/ensure-test-tools installs it\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Runs a tool; None if it is not there.
fn run(program: &Path, args: &[&str], folder: &Path, input: &str) -> Option<(bool, String)> {
    let mut command = Command::new(program);
    command.args(args).current_dir(folder).stdin(Stdio::piped());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => panic!("{}: {error}", program.display()),
    };
    // A tool that has read enough may be gone.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

fn promtool(args: &[&str], folder: &Path, input: &str) -> Option<(bool, String)> {
    let unpacked = root().join("target/test-tools/prometheus/usr/bin/promtool");
    let program = if unpacked.is_file() { unpacked } else { "promtool".into() };
    run(&program, args, folder, input)
}

/// The metrics that a text speaks of, comments apart.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'))
        .filter(|word| word.starts_with("tollgate_") || word.starts_with("process_"))
        .collect()
}

/// The family that a sample is of.
fn family<'p>(page: &'p Page, name: &str) -> Option<&'p str> {
    let of_histogram =
        ["_bucket", "_sum", "_count"].iter().filter_map(|end| name.strip_suffix(end));
    let found = std::iter::once(name).chain(of_histogram);
    found.filter_map(|name| page.families.get_key_value(name)).map(|(name, _)| name.as_str()).next()
}

#[test]
fn prometheus_takes_the_rules_and_the_alerts_fire_when_they_should() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["alerts.yml", "alerts.test.yml", "prometheus.yml"] {
        let token = folder.path().join("token");
        std::fs::write(&token, "of the tests").unwrap();
        let text = read(&format!("deploy/prometheus/{name}"));
        let text = text.replace("/etc/prometheus/tollgate.token", token.to_str().unwrap());
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    for args in [
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts.test.yml"],
        ["check", "config", "prometheus.yml"],
    ] {
        let Some((good, said)) = promtool(&args, folder.path(), "") else {
            return skip("promtool", true);
        };
        assert!(good, "promtool {args:?}: {said}");
    }
}

#[test]
fn every_alert_is_tested_and_says_what_to_do() {
    let (alerts, tests) =
        (read("deploy/prometheus/alerts.yml"), read("deploy/prometheus/alerts.test.yml"));
    let guide = read("docs/OPERATING.md");
    let anchors: BTreeSet<_> = guide
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .map(|title| title.to_lowercase().replace(' ', "-"))
        .collect();
    let rules: Vec<_> = alerts.split("- alert: ").skip(1).collect();
    assert!(rules.len() > 10);
    for rule in rules {
        let name = rule.lines().next().unwrap();
        let (_, anchor) = rule.split_once("runbook_url: docs/OPERATING.md#").expect(name);
        let anchor = anchor.lines().next().unwrap();
        assert!(anchors.contains(anchor), "{name}: docs/OPERATING.md has no ### {anchor}");
        assert!(rule.contains("labels: {severity: ") && rule.contains("summary: "), "{name}");
        let tested = tests.contains(&format!("alertname: {name}\n"));
        assert!(tested, "{name} has no test in which it fires");
    }
}

#[tokio::test]
async fn dashboards_alerts_and_documents_speak_of_metrics_that_are_served() {
    let app = App::spawn().await;
    let page = scrape(&app).await;
    assert!(page.names().contains("tollgate_database_up"));
    for path in [
        "deploy/prometheus/alerts.yml",
        "deploy/prometheus/alerts.test.yml",
        "deploy/grafana/tollgate.json",
        "deploy/kubernetes/autoscaling.yaml",
    ] {
        let text = read(path);
        for name in metrics_in(&text) {
            assert!(family(&page, name).is_some(), "{path} speaks of {name}, which is not served");
        }
    }
    let dashboard = read("deploy/grafana/tollgate.json");
    let shown: BTreeSet<_> =
        metrics_in(&dashboard).into_iter().filter_map(|name| family(&page, name)).collect();
    let hidden: Vec<_> =
        page.families.keys().filter(|name| !shown.contains(name.as_str())).collect();
    assert_eq!(hidden, ["tollgate_consumers"], "what the dashboard does not show");

    let line = |(name, (kind, help)): (&String, &(String, String))| {
        format!("| `{name}` | {kind} | {help} |\n")
    };
    let table = page.families.iter().map(line).collect::<Vec<_>>().concat();
    assert!(read("docs/METRICS.md").ends_with(&table), "docs/METRICS.md ends with\n{table}");

    let answer = app.ask("GET", "/metrics", |request| request).await;
    match promtool(&["check", "metrics"], &root(), &answer.body) {
        None => skip("promtool", true),
        Some((good, said)) => assert!(good, "{said}"),
    }
}

#[test]
fn the_dashboard_is_whole() {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/tollgate.json")).unwrap();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    assert_eq!(variables[0]["type"], "datasource");
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_i64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().unwrap();
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        assert!(!panel["targets"].as_array().unwrap().is_empty(), "{title}");
        let at = &panel["gridPos"];
        assert!(at["x"].as_i64().unwrap() + at["w"].as_i64().unwrap() <= 24, "{title}");
    }
}

/// Each query of the dashboard is one that Prometheus can read: as a rule that records it.
#[test]
fn prometheus_understands_the_dashboards_queries() {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/tollgate.json")).unwrap();
    let mut rules = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap();
            let query = query.replace("$__rate_interval", "5m").replace("$job", ".*");
            let query = serde_json::to_string(&query.replace("$instance", ".*")).unwrap();
            rules += &["      - record: q\n        expr: ", &query, "\n"].concat();
        }
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("queries.yml"), rules).unwrap();
    let args = ["check", "rules", "--lint=none", "queries.yml"];
    match promtool(&args, folder.path(), "") {
        None => skip("promtool", true),
        Some((good, said)) => assert!(good, "{said}"),
    }
}

#[test]
fn systemd_takes_the_unit() {
    let folder = tempfile::tempdir().unwrap();
    let unit = read("deploy/systemd/tollgate.service");
    assert!(unit.contains("ExecStart=/usr/local/bin/tollgate serve"));
    let unit = unit.replace("/usr/local/bin/tollgate", "/bin/true");
    std::fs::write(folder.path().join("tollgate.service"), unit).unwrap();
    match run(Path::new("systemd-analyze"), &["verify", "./tollgate.service"], folder.path(), "") {
        None => skip("systemd-analyze", false),
        Some((good, said)) => assert!(good && said.trim().is_empty(), "{said}"),
    }
}

#[test]
fn manifests_are_yaml_and_set_what_can_be_set() {
    let known: BTreeSet<_> = ALL.iter().map(|setting| setting.variable).collect();
    let script = "import sys, yaml
for one in yaml.safe_load_all(sys.stdin):
    assert one['apiVersion'] and one['metadata']['name'].startswith('tollgate')
    print(one['kind'])";
    let mut kinds = BTreeSet::new();
    for name in ["autoscaling", "secret.example", "tollgate"] {
        let text = read(&format!("deploy/kubernetes/{name}.yaml"));
        assert!(!text.contains('\t'), "{name}");
        for entry in text.lines().filter_map(|line| line.trim().strip_prefix("- {name: ")) {
            let variable = entry.split(',').next().unwrap();
            let is_variable = variable.chars().all(|c| c.is_ascii_uppercase() || c == '_');
            assert!(!is_variable || known.contains(variable), "{name}: {variable} is no setting");
        }
        let yaml = run(Path::new("python3"), &["-c", "import yaml"], &root(), "");
        if !yaml.is_some_and(|(there, _)| there) {
            return skip("python3 with PyYAML", false);
        }
        let (good, said) = run(Path::new("python3"), &["-c", script], &root(), &text).unwrap();
        assert!(good, "{name}: {said}");
        kinds.extend(said.lines().map(str::to_owned));
    }
    for kind in
        ["Deployment", "Service", "Secret", "PodDisruptionBudget", "HorizontalPodAutoscaler"]
    {
        assert!(kinds.contains(kind), "{kind}");
    }
}

/// What the guide tells to type: statements run, commands parse.
#[tokio::test]
async fn the_guides_statements_and_commands_are_good() {
    let app = App::spawn().await;
    let guide = read("docs/OPERATING.md");
    // Whole blocks first, because their fences are backticks too.
    let prose: Vec<_> = guide.split("```").step_by(2).collect();
    let blocks = guide.split("```").skip(1).step_by(2).flat_map(str::lines);
    let inline = prose.iter().flat_map(|text| text.split('`').skip(1).step_by(2));
    let (mut statements, mut commands) = (0, 0);
    for code in inline.chain(blocks) {
        let code = code.split_whitespace().collect::<Vec<_>>().join(" ");
        if code.starts_with("SELECT ") {
            let explain = sqlx::AssertSqlSafe(format!("EXPLAIN {code}"));
            sqlx::raw_sql(explain)
                .execute(&app.pool)
                .await
                .unwrap_or_else(|e| panic!("{code}: {e}"));
            statements += 1;
        } else if code.starts_with("tollgate ") {
            let command = code.split('#').next().unwrap().replace("POSITION", "7");
            let words: Vec<_> = command.split_whitespace().skip(1).collect();
            let program = Path::new(env!("CARGO_BIN_EXE_tollgate"));
            // It says what is wrong with its arguments before it does anything; `--help` comes last.
            let (_, said) =
                run(program, &[&words[..], &["--no-such-flag"]].concat(), &root(), "").unwrap();
            let wrong: Vec<_> = said.lines().filter(|line| line.starts_with("error: ")).collect();
            assert_eq!(wrong, ["error: unexpected argument '--no-such-flag' found"], "{code}");
            commands += 1;
        }
    }
    assert!(statements > 5 && commands > 10, "{statements} {commands}");
}
