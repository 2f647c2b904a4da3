//! Whose events and objects are asked for: the key's own account, and those connected to it.

use super::client::Client;
use super::error::ApiError;
use super::list::List;

/// Which accounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accounts {
    /// The one that the key belongs to.
    #[default]
    Own,
    /// And all that are connected to it (<https://docs.stripe.com/connect/authentication>).
    Connected,
}

/// Their ids; the own account is the empty one, as in the log, and comes first.
pub async fn accounts(client: &Client, which: Accounts) -> Result<Vec<String>, ApiError> {
    let mut all = vec![String::new()];
    if which == Accounts::Connected {
        let mut list = List::new(client, "/v1/accounts", "", None);
        while let Some(page) = list.next().await? {
            all.extend(page.items.into_iter().map(|item| item.id));
        }
    }
    Ok(all)
}
