//! The settings with which Stripe's API is asked.
//! Who asks what stands in `sync`.

use std::time::Duration;

use super::{Reader, parse};
use crate::stripe::api_key::ApiKey;
use crate::sync::{Accounts, ClientOptions};

/// How Stripe's API is asked.
#[derive(Clone, Debug)]
pub struct StripeSettings {
    pub client: ClientOptions,
    pub accounts: Accounts,
    /// How often the log is compared with Stripe's list of events; None for never.
    pub reconcile: Option<Duration>,
}

/// None without a key.
pub(super) fn settings(read: &mut Reader<'_>) -> Option<StripeSettings> {
    let key = read.optional("stripe_api_key", |text| {
        text.parse::<ApiKey>().map_err(|error| error.to_string())
    });
    let base = read.optional("stripe_api_base", parse::api_base);
    let rate = read.required("stripe_api_rate", 1.0, parse::rate);
    let connected = read.required("stripe_connect", false, parse::flag);
    let reconcile = read.required("reconcile_interval", None, |text| match text.trim() {
        "off" => Ok(None),
        text => parse::timeout(text)
            .map(Some)
            .map_err(|_| "expected a time, for example 5m, or off".into()),
    });
    let client = ClientOptions { key: key?, base: base?, rate };
    let accounts = if connected { Accounts::Connected } else { Accounts::Own };
    Some(StripeSettings { client, accounts, reconcile })
}
