//! How this program makes HTTP requests of its own: TLS provider, no redirects, no surprises.
//! Whom to ask, and what, is up to the caller.

use reqwest::Url;
use reqwest::redirect::Policy;

const AGENT: &str = concat!("tollgate/", env!("CARGO_PKG_VERSION"));

/// A client builder with the project's defaults, for requests to `url` and others of its scheme:
/// rustls on ring, redirects refused, connections made directly whatever proxies the environment
/// names.
pub fn builder(url: &Url) -> reqwest::ClientBuilder {
    install_provider();
    let client = reqwest::Client::builder().redirect(Policy::none()).no_proxy().user_agent(AGENT);
    if url.scheme() == "http" {
        // Systems without root certificates exist, and here none are needed.
        client.tls_certs_only([])
    } else {
        client
    }
}

/// The same for a thread where no async code runs.
pub fn blocking_builder(url: &Url) -> reqwest::blocking::ClientBuilder {
    install_provider();
    let client =
        reqwest::blocking::Client::builder().redirect(Policy::none()).no_proxy().user_agent(AGENT);
    if url.scheme() == "http" { client.tls_certs_only([]) } else { client }
}

fn install_provider() {
    // Fails if it is installed already, which is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
}
