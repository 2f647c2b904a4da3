//! Who makes a request of the admin listener, and whether they may: bearer tokens, sessions, and
//! nobody at all where none is needed. What a token is stands in `store::tokens`.

use std::future::Future;
use std::num::NonZeroU32;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::http::header::{AUTHORIZATION, COOKIE};
use actix_web::web::Data;
use actix_web::{FromRequest, HttpRequest};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use super::{Admin, AdminError};
pub use crate::store::tokens::Scope;
use crate::store::tokens::{self, Hashed, Holder};

/// The cookie of a session.
pub const COOKIE_NAME: &str = "tollgate_session";

/// Logins from one address in a minute.
const LOGINS: NonZeroU32 = NonZeroU32::new(10).expect("not zero");

/// Addresses remembered for that; beyond it those are forgotten that have not tried of late.
const ADDRESSES: usize = 10_000;

/// Name of who uses the token of the settings, and of who needs none. No other token may have them.
const OF_THE_SETTINGS: &str = "admin";
pub(super) const OF_NOBODY: &str = "local";

/// What becomes of the last token, and of the last that allows everything. Where there is none, whoever
/// reaches a loopback address may do everything: whoever held the token that was to be revoked, too.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Last {
    Stays,
    Goes,
}

/// Who makes a request.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Name of the token, for the audit log.
    pub name: String,
    pub scope: Scope,
    /// What a form of a page must send back, if the request came with a session.
    pub csrf: Option<String>,
}

impl Identity {
    fn of(holder: Holder) -> Self {
        Self { name: holder.name, scope: holder.scope, csrf: None }
    }

    fn all_powerful(name: &str) -> Self {
        Self { name: name.to_owned(), scope: Scope::Admin, csrf: None }
    }

    /// Whether this scope is enough for what needs `needed`.
    pub fn may(&self, needed: Scope) -> bool {
        self.scope >= needed
    }
}

/// How requests are told apart.
pub struct Access {
    /// The token of the settings.
    token: Option<Hashed>,
    /// Only this host can connect, and no token is set.
    open: bool,
    logins: DefaultKeyedRateLimiter<std::net::IpAddr>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("open", &self.open).finish_non_exhaustive()
    }
}

impl Access {
    /// Without a token, and on a loopback address only, everybody may do everything, for as long as
    /// nobody makes a token.
    pub fn new(token: Option<Hashed>, loopback: bool) -> Self {
        let open = loopback && token.is_none();
        Self { token, open, logins: RateLimiter::keyed(Quota::per_minute(LOGINS)) }
    }

    /// Whether tokens may not be needed at all. Then a request must not come from a web page that
    /// has made its host name lead here (see `guard`).
    pub fn may_be_open(&self) -> bool {
        self.open
    }

    /// Whether the last token may be revoked: where one of the settings is left.
    pub fn last(&self) -> Last {
        if self.open { Last::Stays } else { Last::Goes }
    }

    /// Counts a try to log in.
    pub fn may_try(&self, address: Option<std::net::IpAddr>) -> Result<(), AdminError> {
        if self.logins.len() > ADDRESSES {
            self.logins.retain_recent();
        }
        match address.map(|address| self.logins.check_key(&address)) {
            Some(Err(_)) => Err(AdminError::TooManyTries),
            _ => Ok(()),
        }
    }

    /// Whose token this is.
    pub async fn identify(
        &self,
        connection: &mut PgConnection,
        token: &Hashed,
    ) -> Result<Option<Identity>, AdminError> {
        if self.is_of_settings(token) {
            return Ok(Some(Identity::all_powerful(OF_THE_SETTINGS)));
        }
        Ok(tokens::holder(connection, token).await?.map(Identity::of))
    }

    /// By their hashes, so that how long it takes says nothing of the token.
    fn is_of_settings(&self, token: &Hashed) -> bool {
        self.token.as_ref() == Some(token)
    }
}

/// What a request brings to show who it is from.
enum Credentials {
    Bearer(Hashed),
    Session(String),
    None,
}

fn credentials(request: &HttpRequest) -> Credentials {
    if let Some(header) = request.headers().get(AUTHORIZATION) {
        let token = header.to_str().ok().and_then(|text| {
            let (scheme, token) = text.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        // What is no bearer token must not pass for no token at all.
        return Credentials::Bearer(Hashed::of(token.unwrap_or_default()));
    }
    session_of(request).map_or(Credentials::None, Credentials::Session)
}

/// Whether the request brings a token: then it is from that token's holder, or from nobody who may.
pub fn has_bearer(request: &HttpRequest) -> bool {
    matches!(credentials(request), Credentials::Bearer(_))
}

/// What stands in the session's cookie.
pub fn session_of(request: &HttpRequest) -> Option<String> {
    let cookies = request.headers().get_all(COOKIE).filter_map(|header| header.to_str().ok());
    cookies
        .flat_map(|header| header.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, value)| *name == COOKIE_NAME && !value.is_empty())
        .map(|(_, value)| value.to_owned())
}

/// What forms of this session send back. Known to the page and to nobody else, as the cookie is.
pub fn csrf_of(session: &str) -> String {
    hex::encode(Sha256::digest(format!("csrf of {session}").as_bytes()))
}

/// Who makes this request.
pub async fn identify(admin: &Admin, request: &HttpRequest) -> Result<Identity, AdminError> {
    let credentials = credentials(request);
    // The token of the settings is known without the database, which may be down: that is when
    // metrics are wanted most.
    if let Credentials::Bearer(token) = &credentials
        && admin.access.is_of_settings(token)
    {
        return Ok(Identity::all_powerful(OF_THE_SETTINGS));
    }
    let mut connection = admin.pool.acquire().await?;
    match credentials {
        Credentials::Bearer(token) => {
            let known = admin.access.identify(&mut connection, &token).await?;
            known.ok_or(AdminError::Unauthorized)
        }
        Credentials::Session(session) => {
            let token = tokens::session(&mut connection, &Hashed::of(&session)).await?;
            let known = match token {
                Some(token) => admin.access.identify(&mut connection, &token).await?,
                None => None,
            };
            let known = match known {
                Some(known) => known,
                None => nobody(admin, &mut connection).await?,
            };
            // Also nobody's: the cookie, of another gateway say, comes along with every form.
            Ok(Identity { csrf: Some(csrf_of(&session)), ..known })
        }
        Credentials::None => nobody(admin, &mut connection).await,
    }
}

async fn nobody(admin: &Admin, connection: &mut PgConnection) -> Result<Identity, AdminError> {
    if admin.access.open && !tokens::any(connection).await? {
        return Ok(Identity::all_powerful(OF_NOBODY));
    }
    Err(AdminError::Unauthorized)
}

async fn with_scope(request: HttpRequest, needed: Scope) -> Result<Identity, AdminError> {
    let admin = request.app_data::<Data<Admin>>().cloned().ok_or(AdminError::Internal)?;
    // In a task of its own, which a client that hangs up does not cancel half-way.
    let task = actix_web::rt::spawn(async move { identify(&admin, &request).await });
    let identity = task.await.map_err(|_| AdminError::Internal)??;
    if identity.may(needed) { Ok(identity) } else { Err(AdminError::Forbidden { needed }) }
}

/// Extractors: a handler that takes one of them is called for nobody else.
macro_rules! extractor {
    ($(#[$about:meta])* $name:ident, $scope:expr) => {
        $(#[$about])*
        #[derive(Clone, Debug)]
        pub struct $name(pub Identity);

        impl FromRequest for $name {
            type Error = AdminError;
            type Future = Pin<Box<dyn Future<Output = Result<Self, AdminError>>>>;

            fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
                let request = request.clone();
                Box::pin(async move { with_scope(request, $scope).await.map(Self) })
            }
        }
    };
}

extractor! {
    /// Somebody who may look.
    Read, Scope::Read
}
extractor! {
    /// Somebody who may replay, retry and pause.
    Operate, Scope::Operate
}
extractor! {
    /// Somebody who may do everything.
    AdminOnly, Scope::Admin
}
