//! The admin API, `/api/v1`: its routes, in one table that the OpenAPI document is made from, too.
//! What each does stands with it; who may call it is the extractor that it takes.

mod alter;
mod ask;
mod bulk;
mod consumers;
mod document;
mod events;
mod figures;
mod people;
mod problems;

use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{IntoResponses, Modify, OpenApi, ToSchema};

pub use document::document;

use super::error::not_found;
use crate::http::problem::method_not_allowed;

/// What every call answers that is not done: a problem as in RFC 9457.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"title": "Not Found", "status": 404, "code": "not_found", "detail": "there is no event evt_1"}))]
pub struct Problem {
    title: String,
    status: u16,
    /// Stable, for programs: unauthorized, forbidden, cross_site, not_found, invalid, conflict,
    /// database_unavailable, internal.
    code: String,
    /// A sentence for people.
    detail: String,
}

/// The answers that every call may give.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "for the document")]
enum Problems {
    /// The request makes no sense: code `invalid`.
    #[response(status = 400, content_type = "application/problem+json")]
    Invalid(#[to_schema] Problem),
    /// Without a valid token: code `unauthorized`.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthorized(#[to_schema] Problem),
    /// With a token that does not allow it: code `forbidden`.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(#[to_schema] Problem),
    /// There is no such thing: code `not_found`.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(#[to_schema] Problem),
    /// Not as things stand: code `conflict`.
    #[response(status = 409, content_type = "application/problem+json")]
    Conflict(#[to_schema] Problem),
    /// The database does not answer: code `database_unavailable`.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(#[to_schema] Problem),
}

/// Makes, of one table, the routes, their list, and the document.
macro_rules! table {
    ($($method:ident $path:literal => $($handler:ident)::+;)*) => {
        /// Methods and paths of all routes.
        pub const ROUTES: &[(&str, &str)] = &[$((stringify!($method), $path)),*];

        /// The routes of the API.
        pub fn routes(config: &mut ServiceConfig) {
            $(config.route($path, web::$method().to($($handler)::+));)*
            $(config.route($path, web::route().to(other_method));)*
            document::routes(config);
            // Or the pages would answer.
            config.service(web::scope("/api").default_service(web::route().to(not_found)));
        }

        #[derive(OpenApi)]
        #[openapi(
            paths($($($handler)::+),*),
            info(
                title = "Tollgate",
                description = "Look at a Tollgate gateway and operate it: events, consumers, billing objects. \
                               Scopes of tokens: `read` looks; `operate` also retries, pauses, replays and reprocesses; \
                               `admin` also does what makes a consumer miss events, and manages consumers, handlers \
                               and tokens.",
            ),
            security(("token" = [])),
            modifiers(&Bearer),
        )]
        struct Document;
    };
}

/// The answer to a path of the API that does not take the request's method.
async fn other_method(request: HttpRequest) -> HttpResponse {
    let path = request.match_pattern().unwrap_or_default();
    let methods = ROUTES.iter().filter(|(_, known)| *known == path);
    let allowed: Vec<_> = methods.map(|(method, _)| method.to_ascii_uppercase()).collect();
    method_not_allowed(&allowed.join(", "))
}

// A fixed path stands before one that would swallow it.
table! {
    get "/api/v1/whoami" => people::whoami;
    get "/api/v1/events" => events::list;
    get "/api/v1/events/{id}" => events::one;
    get "/api/v1/events/{id}/raw" => events::raw;
    get "/api/v1/events/{id}/timeline" => events::story;
    post "/api/v1/events/{id}/reprocess" => events::reprocess_one;
    post "/api/v1/events/{id}/replay" => events::replay_one;
    post "/api/v1/reprocess" => bulk::reprocess;
    post "/api/v1/replay" => bulk::replay;
    get "/api/v1/quarantine" => problems::quarantine;
    get "/api/v1/quarantine/{sha256}" => problems::quarantined;
    get "/api/v1/quarantine/{sha256}/raw" => problems::quarantined_raw;
    get "/api/v1/failures" => problems::failures;
    post "/api/v1/failures/retry" => problems::retry_failures;
    post "/api/v1/failures/{failure}/retry" => problems::retry_failure;
    post "/api/v1/failures/discard" => problems::discard_failures;
    post "/api/v1/failures/{failure}/discard" => problems::discard_failure;
    get "/api/v1/dead-letters" => problems::dead_letters;
    post "/api/v1/dead-letters/retry" => problems::retry_dead_letters;
    post "/api/v1/dead-letters/discard" => problems::discard_dead_letters;
    get "/api/v1/consumers" => consumers::list;
    post "/api/v1/consumers" => consumers::create;
    get "/api/v1/consumers/{name}" => consumers::one;
    patch "/api/v1/consumers/{name}" => alter::alter;
    delete "/api/v1/consumers/{name}" => consumers::drop_one;
    get "/api/v1/consumers/{name}/attempts" => consumers::attempts;
    post "/api/v1/consumers/{name}/pause" => consumers::pause;
    post "/api/v1/consumers/{name}/resume" => consumers::resume;
    post "/api/v1/consumers/{name}/rewind" => consumers::rewind;
    get "/api/v1/handlers" => consumers::handlers;
    delete "/api/v1/handlers/{name}" => consumers::drop_handler;
    get "/api/v1/objects/{table}/{id}" => figures::object;
    get "/api/v1/ties" => figures::ties;
    get "/api/v1/billing" => figures::billing;
    get "/api/v1/stats" => figures::stats;
    get "/api/v1/totals" => figures::all;
    get "/api/v1/tokens" => people::list;
    post "/api/v1/tokens" => people::create;
    delete "/api/v1/tokens/{name}" => people::revoke;
    get "/api/v1/audit" => people::log;
}

/// How calls show who they are from.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        components.add_security_scheme("token", bearer);
    }
}
