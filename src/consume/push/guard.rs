//! Keeps pushes out of networks they have no business in: a URL is text from a table, and must not
//! make the gateway talk to what only the gateway can reach. Which address lies where: `addresses`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::addresses::{Place, place};

/// The name that says loopback as plainly as an address.
const LOCALHOST: &str = "localhost";

/// Whether pushes may go where the Internet does not route: networks of one's own, documentation,
/// and names that turn out to be this machine. `http://localhost`, `http://127.0.0.1` and
/// `http://[::1]` say what they mean, and need no leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PrivateTargets {
    #[default]
    Refuse,
    /// All but multicast, broadcast and unspecified addresses.
    Allow,
}

/// An address that pushes may not go to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{subject} is {what}; {leave}")]
pub(super) struct Forbidden {
    subject: String,
    what: &'static str,
    leave: &'static str,
}

impl PrivateTargets {
    /// Checks the host of a URL if it is an address. A name is checked when it is looked up, for
    /// each connection.
    pub(super) fn check_literal(self, url: &Url) -> Result<(), Forbidden> {
        // The parser has normalised the odd ways to write an address (`0x7f.1`, `2130706433`).
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let Ok(address) = host.parse::<IpAddr>() else {
            return Ok(());
        };
        // Not where loopback hides in IPv6 clothes: that says nothing plainly.
        self.check(address, address.is_loopback(), || address.to_string())
    }

    /// Checks all addresses that a name has.
    ///
    /// One forbidden address condemns the rest. To leave it out would be enough to stay out of
    /// private networks, but such an answer is either an attack or a mistake, and to push to the
    /// other half would hide it.
    fn check_answer(self, name: &str, addresses: &[SocketAddr]) -> Result<(), Forbidden> {
        addresses.iter().map(SocketAddr::ip).try_for_each(|address| {
            let subject = || format!("{name} resolves to {address}, which");
            self.check(address, name == LOCALHOST, subject)
        })
    }

    fn check(
        self,
        address: IpAddr,
        says_loopback: bool,
        subject: impl FnOnce() -> String,
    ) -> Result<(), Forbidden> {
        const LEAVE: &str = "pushes go there only with TOLLGATE_PUSH_ALLOW_PRIVATE=true";
        let (what, leave) = match place(address) {
            Place::Internet => return Ok(()),
            Place::Loopback if says_loopback => return Ok(()),
            Place::Loopback | Place::Private(_) if self == Self::Allow => return Ok(()),
            Place::Loopback => ("an address of this machine", LEAVE),
            Place::Private(what) => (what, LEAVE),
            Place::Nowhere(what) => (what, "pushes never go there"),
        };
        Err(Forbidden { subject: subject(), what, leave })
    }
}

/// How names become addresses.
pub(super) trait Lookup: Send + Sync {
    /// All addresses of a name; their ports mean nothing.
    fn lookup(&self, name: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;
}

/// The operating system's resolver.
pub(super) struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup(&self, name: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) })
    }
}

/// Looks a name up once for each connection, and hands out what it has checked: the connection is
/// made to these very addresses, so a name cannot change between check and use.
pub(super) struct Guarded {
    lookup: Arc<dyn Lookup>,
    private: PrivateTargets,
}

impl Guarded {
    pub(super) fn new(lookup: Arc<dyn Lookup>, private: PrivateTargets) -> Self {
        Self { lookup, private }
    }
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let name = name.as_str().to_owned();
        let found = self.lookup.lookup(name.clone());
        let private = self.private;
        Box::pin(async move {
            let addresses = found.await?;
            if addresses.is_empty() {
                return Err(format!("{name} has no address").into());
            }
            private.check_answer(&name, &addresses)?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}
