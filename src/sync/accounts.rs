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

/// The ids of those that are connected; none if they are not to be asked for. The own account has the
/// empty one, as in the log.
pub async fn connected(client: &Client, which: Accounts) -> Result<Vec<String>, ApiError> {
    let mut all = Vec::new();
    if which == Accounts::Connected {
        let mut list = List::new(client, "/v1/accounts", "", None);
        while let Some(page) = list.next().await? {
            all.extend(page.items.into_iter().map(|item| item.id));
        }
    }
    Ok(all)
}

/// The empty id of the own account, and those of `connected`.
pub async fn all(client: &Client, which: Accounts) -> Result<Vec<String>, ApiError> {
    let mut all = vec![String::new()];
    all.extend(connected(client, which).await?);
    Ok(all)
}
