//! How this program makes HTTP requests of its own: TLS provider, no redirects, no surprises.
//! Whom to ask, and what, is up to the caller.

use reqwest::redirect::Policy;

/// A client builder with the project's defaults: rustls on ring, redirects refused, connections
/// made directly whatever proxies the environment names.
pub fn builder() -> reqwest::ClientBuilder {
    // Fails if it is installed already, which is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder()
        .redirect(Policy::none())
        .no_proxy()
        .user_agent(concat!("tollgate/", env!("CARGO_PKG_VERSION")))
}
