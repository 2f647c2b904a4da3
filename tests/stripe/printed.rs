//! Every `stripe` command that a page prints is run as printed. Only an address and an event of the
//! reader's own are put in their place.

use std::path::Path;

use crate::cli::Cli;
use crate::forwarded::gateway;
use crate::support::stripe::FakeStripe;

const PAGES: [&str; 2] = ["README.md", "docs/STRIPE_CLI.md"];

/// The commands of a page's shell examples.
fn commands(page: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let text = std::fs::read_to_string(path).unwrap();
    let blocks = text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let lines = blocks.flat_map(str::lines).filter(|line| line.starts_with("stripe "));
    lines.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_the_pages_work() {
    let stripe = FakeStripe::start().await;
    let Some(cli) = Cli::of(&stripe) else { return };
    let app = gateway().await;
    cli.done(&["trigger", "product.created"]).await;
    let event = stripe.events("")[0]["id"].as_str().unwrap().to_owned();
    for page in PAGES {
        let commands = commands(page);
        assert!(commands.len() >= 2, "{page} has {commands:?}");
        for printed in commands {
            let command = printed.replace("http://127.0.0.1:8080", &app.url(""));
            let command = command.replace("evt_…", &event);
            let command = command.split(" > ").next().unwrap();
            let words: Vec<&str> = command.split_whitespace().skip(1).collect();
            if words[0] == "listen" && !words.contains(&"--print-secret") {
                cli.listen(&words[1..]).await;
            } else {
                let said = cli.done(&words).await;
                assert!(!said.contains("\"error\": {"), "{printed}: {said}");
            }
        }
    }
}
