//! The dashboard's pages: HTML made on the server, nothing to build, nothing from elsewhere. What they
//! show is asked of `store::browse`, what their buttons do stands in `http::admin::actions`.

mod around;
mod assets;
mod audit;
mod billing;
mod chart;
mod consumers;
mod csv;
mod dead_letters;
mod event;
mod events;
#[allow(
    clippy::inline_always,
    clippy::trivially_copy_pass_by_ref,
    clippy::unnecessary_wraps,
    clippy::unused_self,
    reason = "the shape that askama wants, and makes"
)]
mod filters;
mod live;
mod nav;
mod overview;
mod page;
mod payload;
mod problems;
pub(crate) mod text;
mod tokens;
mod traffic;

use actix_web::middleware::from_fn;
use actix_web::web::{self, ServiceConfig};
use askama::Template;

use assets::{ASSETS, Assets};

/// The routes of the pages. Everything that is not there is a page too, so these come last.
pub fn routes(config: &mut ServiceConfig) {
    let pages = web::scope("")
        .wrap(from_fn(around::pages))
        .route("/assets/{digest}/{name}", web::get().to(assets::asset))
        .configure(overview::routes)
        .configure(events::routes)
        .configure(event::routes)
        .configure(live::routes)
        .configure(consumers::routes)
        .configure(dead_letters::routes)
        .configure(billing::routes)
        .configure(problems::routes)
        .configure(audit::routes)
        .configure(tokens::routes)
        .default_service(web::route().to(around::not_found));
    config.service(pages);
}

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage<'a> {
    assets: &'static Assets,
    next: &'a str,
    wrong: Option<&'a str>,
}

/// The page that asks for a token; `next` is where to go afterwards, `wrong` why the last try failed.
pub fn login_page(next: &str, wrong: Option<&str>) -> String {
    // Writing into a string does not fail.
    LoginPage { assets: &ASSETS, next, wrong }.render().unwrap_or_default()
}
