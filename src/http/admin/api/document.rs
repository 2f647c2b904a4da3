//! The OpenAPI document and its interactive page, at `/api/`. The page's files come with the binary;
//! nothing is fetched from elsewhere. Document and page are for those who may look.

use std::sync::{Arc, OnceLock};

use actix_web::HttpResponse;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::{self, Path, ServiceConfig};
use utoipa::OpenApi;
use utoipa_swagger_ui::Config;

use super::super::{AdminError, Read};
use super::Document;

/// Files of the page that are served; of Swagger UI's own index page none, as it has inline script.
const FILES: [&str; 2] = ["swagger-ui.css", "swagger-ui-bundle.js"];

/// Starts the page. A session's calls carry the token that its forms would.
const START: &str = r##""use strict";
const csrf = document.querySelector('meta[name="csrf"]').content;
window.ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#api",
  deepLinking: true,
  validatorUrl: null,
  requestInterceptor: (request) => {
    if (csrf) request.headers["x-csrf-token"] = csrf;
    return request;
  },
});
"##;

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .route("/api", web::get().to(moved))
        .route("/api/", web::get().to(page))
        .route("/api/openapi.json", web::get().to(json))
        .route("/api/start.js", web::get().to(start))
        .route("/api/{file}", web::get().to(file));
}

/// The document as JSON, made once.
pub fn document() -> &'static str {
    static JSON: OnceLock<String> = OnceLock::new();
    JSON.get_or_init(|| Document::openapi().to_pretty_json().unwrap_or_default())
}

async fn moved(_: Read) -> HttpResponse {
    HttpResponse::PermanentRedirect().insert_header(("location", "/api/")).finish()
}

async fn json(_: Read) -> HttpResponse {
    HttpResponse::Ok().insert_header((CONTENT_TYPE, "application/json")).body(document())
}

async fn page(Read(who): Read) -> HttpResponse {
    // Hexadecimal, or nothing: there is nothing to escape.
    let csrf = who.csrf.unwrap_or_default();
    let page = format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="csrf" content="{csrf}">
<title>Tollgate API</title>
<link rel="stylesheet" href="swagger-ui.css">
<link rel="icon" href="data:,">
</head>
<body>
<main id="api"></main>
<script src="swagger-ui-bundle.js"></script>
<script src="start.js"></script>
</body>
</html>
"#
    );
    HttpResponse::Ok().insert_header((CONTENT_TYPE, "text/html; charset=utf-8")).body(page)
}

async fn start(_: Read) -> HttpResponse {
    HttpResponse::Ok().insert_header((CONTENT_TYPE, "text/javascript; charset=utf-8")).body(START)
}

async fn file(_: Read, file: Path<String>) -> Result<HttpResponse, AdminError> {
    let missing = || AdminError::NotFound(format!("page /api/{file}"));
    if !FILES.contains(&file.as_str()) {
        return Err(missing());
    }
    let config = Arc::new(Config::default());
    let found = utoipa_swagger_ui::serve(&file, config).map_err(|_| AdminError::Internal)?;
    let found = found.ok_or_else(missing)?;
    let mut response = HttpResponse::Ok();
    response.insert_header((CONTENT_TYPE, found.content_type));
    response.insert_header(("cache-control", "private, max-age=86400"));
    if found.gzpipped {
        response.insert_header(("content-encoding", "gzip"));
    }
    Ok(response.body(found.bytes.into_owned()))
}
