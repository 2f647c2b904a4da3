//! A flag for every setting, generated from the settings' own list, and the way from a command's
//! flags to parsed `Settings`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use super::Misconfigured;
use crate::settings::Settings;
use crate::settings::layers::{Inputs, Layers, Problem};
use crate::settings::spec::ALL;

/// The settings given on the command line, and where the file is.
#[derive(Debug, Default)]
pub struct SettingFlags {
    config: Option<PathBuf>,
    values: BTreeMap<&'static str, String>,
}

impl Args for SettingFlags {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help_heading("Settings")
            .help("Configuration file [env: TOLLGATE_CONFIG] [default: tollgate.toml, if there is one]");
        command.arg(config).args(ALL.iter().map(|setting| {
            let default = if setting.default.is_empty() {
                String::new()
            } else {
                format!(" [default: {}]", setting.default)
            };
            // As the Stripe CLI calls it.
            let alias = (setting.key == "stripe_api_base").then_some("api-base");
            Arg::new(setting.key)
                .long(setting.key.replace('_', "-"))
                .visible_aliases(alias)
                .value_name("VALUE")
                .help_heading("Settings")
                .help(format!("{} [env: {}]{default}", setting.help, setting.variable))
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.config = matches.get_one::<PathBuf>("config").cloned();
        for setting in ALL {
            if let Some(value) = matches.get_one::<String>(setting.key) {
                self.values.insert(setting.key, value.clone());
            }
        }
        Ok(())
    }
}

impl SettingFlags {
    /// The value given as a flag.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// Sets a value as if it had been given as a flag; an empty one unsets what other layers say.
    pub fn set(&mut self, key: &'static str, value: impl Into<String>) {
        self.values.insert(key, value.into());
    }

    /// Gathers all layers: defaults, file, environment, these flags.
    pub fn layers(&self) -> Result<Layers, Vec<Problem>> {
        let named = std::env::var_os("TOLLGATE_CONFIG").filter(|path| !path.is_empty());
        let config = self.config.clone().or_else(|| named.map(PathBuf::from));
        let mut environment = Vec::new();
        for (name, value) in std::env::vars_os() {
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => environment.push((name, value)),
                Err(_) if ALL.iter().any(|setting| setting.variable == name) => {
                    return Err(vec![Problem(format!("{name}: expected a text in UTF-8"))]);
                }
                Err(_) => {}
            }
        }
        Layers::gather(&Inputs { config, environment, flags: Some(&self.values) })
    }

    /// The parsed settings; warnings about them, of names that nobody knows say, go to standard error.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        let (settings, warnings) = self.settings_and_warnings()?;
        for warning in warnings {
            // Nobody minds if standard error is closed.
            let _ = writeln!(io::stderr(), "tollgate: {warning}");
        }
        Ok(settings)
    }

    /// The parsed settings, and warnings about them.
    pub fn settings_and_warnings(&self) -> anyhow::Result<(Settings, Vec<String>)> {
        let layers = self.layers().map_err(|problems| misconfigured(&problems))?;
        let settings = Settings::parse(&layers).map_err(|problems| misconfigured(&problems))?;
        Ok((settings, layers.warnings))
    }
}

/// All problems, one to a line.
pub(super) fn misconfigured(problems: &[Problem]) -> Misconfigured {
    let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
    Misconfigured(format!("the configuration is wrong:\n  {}", lines.join("\n  ")))
}
