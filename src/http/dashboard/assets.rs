//! The style sheet, the script and the icon: built into the binary, under names that change with
//! their contents, so that browsers may keep them for ever.

use std::sync::LazyLock;

use actix_web::HttpResponse;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::web::Path;
use sha2::{Digest, Sha256};

const STYLE: &str = include_str!("assets/style.css");
const SCRIPT: &str = include_str!("assets/app.js");
const ICON: &str = include_str!("assets/icon.svg");

/// What pages refer to.
#[derive(Debug)]
pub struct Assets {
    pub style: String,
    pub script: String,
    pub icon: String,
}

pub static ASSETS: LazyLock<Assets> = LazyLock::new(|| Assets {
    style: named(STYLE, "style.css"),
    script: named(SCRIPT, "app.js"),
    icon: named(ICON, "icon.svg"),
});

fn named(contents: &str, name: &str) -> String {
    let digest = hex::encode(&Sha256::digest(contents.as_bytes())[..6]);
    format!("/assets/{digest}/{name}")
}

/// `GET /assets/{digest}/{name}`, for everybody: the login page needs them. An old digest gets the
/// contents of now, but not for ever.
pub async fn asset(path: Path<(String, String)>) -> HttpResponse {
    let (contents, kind, current) = match path.1.as_str() {
        "style.css" => (STYLE, "text/css; charset=utf-8", &ASSETS.style),
        "app.js" => (SCRIPT, "text/javascript; charset=utf-8", &ASSETS.script),
        "icon.svg" => (ICON, "image/svg+xml", &ASSETS.icon),
        _ => return HttpResponse::NotFound().finish(),
    };
    let fresh = current.split('/').nth(2) == Some(path.0.as_str());
    let keep = if fresh { "public, max-age=31536000, immutable" } else { "no-cache" };
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, kind))
        .insert_header((CACHE_CONTROL, keep))
        .insert_header(("x-content-type-options", "nosniff"))
        .body(contents)
}
