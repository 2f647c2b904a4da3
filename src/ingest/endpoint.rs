//! The endpoints that Stripe posts to: their names, secrets, and what they take.
//! Where they are configured is `settings`' affair.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::stripe::event::Envelope;
use crate::stripe::signature::SigningSecret;

/// The last part of an endpoint's path: 1 to 64 of `a-z 0-9 - _`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointName(Arc<str>);

/// A text that is no endpoint name.
#[derive(Debug, thiserror::Error)]
#[error("an endpoint name is 1 to 64 of a-z, 0-9, - and _")]
pub struct EndpointNameError;

impl EndpointName {
    /// The endpoint of the bare path `/webhooks/stripe`.
    pub const DEFAULT: &'static str = "default";

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EndpointName {
    type Err = EndpointNameError;

    fn from_str(name: &str) -> Result<Self, EndpointNameError> {
        let fits = (1..=64).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
        if fits { Ok(Self(name.into())) } else { Err(EndpointNameError) }
    }
}

impl fmt::Display for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which mode of Stripe an endpoint takes events of. A live Connect endpoint also gets test
/// events (<https://docs.stripe.com/connect/webhooks>).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LivemodeRule {
    #[default]
    Any,
    Live,
    Test,
}

impl FromStr for LivemodeRule {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "any" => Ok(Self::Any),
            "live" => Ok(Self::Live),
            "test" => Ok(Self::Test),
            _ => Err("any, live or test"),
        }
    }
}

/// One endpoint.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub name: EndpointName,
    /// All of them valid: several while one is being rolled.
    pub secrets: Vec<SigningSecret>,
    pub livemode: LivemodeRule,
    /// If set, the only connected account it takes events of.
    pub account: Option<String>,
}

impl Endpoint {
    /// Why an event does not belong here, as a code for the quarantine, if it does not.
    pub fn objection(&self, event: &Envelope) -> Option<&'static str> {
        let right_mode = match self.livemode {
            LivemodeRule::Any => true,
            LivemodeRule::Live => event.livemode,
            LivemodeRule::Test => !event.livemode,
        };
        if !right_mode {
            Some("wrong_livemode")
        } else if self.account.as_ref().is_some_and(|account| *account != event.account) {
            Some("wrong_account")
        } else {
            None
        }
    }
}

/// All endpoints, by name.
#[derive(Clone, Debug, Default)]
pub struct Endpoints(HashMap<EndpointName, Endpoint>);

impl Endpoints {
    pub fn get(&self, name: &str) -> Option<&Endpoint> {
        self.0.get(&EndpointName::from_str(name).ok()?)
    }

    /// In the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        let mut all: Vec<_> = self.0.values().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all.into_iter()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The endpoint that an event would have come to which no webhook brought: the one for its account
    /// alone; else for a connected account one that is not the default, which is the platform's; else
    /// the default; else the first that takes it.
    pub fn home_of(&self, event: &Envelope) -> &str {
        let mut fitting: Vec<_> =
            self.iter().filter(|endpoint| endpoint.objection(event).is_none()).collect();
        fitting.sort_by_key(|endpoint| {
            let is_default = endpoint.name.as_str() == EndpointName::DEFAULT;
            (endpoint.account.is_none(), is_default != event.account.is_empty())
        });
        fitting.first().map_or(EndpointName::DEFAULT, |endpoint| endpoint.name.as_str())
    }
}

impl FromIterator<Endpoint> for Endpoints {
    fn from_iter<I: IntoIterator<Item = Endpoint>>(endpoints: I) -> Self {
        Self(endpoints.into_iter().map(|endpoint| (endpoint.name.clone(), endpoint)).collect())
    }
}
