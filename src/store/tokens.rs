//! `tollgate.admin_tokens` and `tollgate.admin_sessions`: who may use the admin listener. Only
//! hashes are kept; what a scope allows is decided where it is asked for, in `http::admin`.

use std::fmt;
use std::str::FromStr;

use rand::TryRng;
use sha2::{Digest, Sha256};
use sqlx::{PgConnection, Row};
use time::OffsetDateTime;

/// Fewest characters of a token that a person chooses: whoever may guess should not get far.
const LEAST_TOKEN: usize = 16;

/// How long a session lasts without being used, and altogether, in seconds: a working day over a
/// night, and a week.
const SESSION_IDLE: f64 = 86_400.0;
const SESSION_MOST: f64 = 7.0 * 86_400.0;

/// What a token allows. Each scope includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Look at everything.
    Read,
    /// Also replay, retry, pause.
    Operate,
    /// Also tokens, consumers, handlers.
    Admin,
}

impl Scope {
    pub const ALL: [Self; 3] = [Self::Read, Self::Operate, Self::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = Self::ALL.into_iter().find(|scope| scope.as_str() == text);
        named.ok_or("expected read, operate or admin")
    }
}

/// SHA-256 of a token or of a session's cookie: what is compared and kept in place of the text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hashed([u8; 32]);

impl Hashed {
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Debug for Hashed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hashed(…)")
    }
}

/// The token of the settings.
impl FromStr for Hashed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() < LEAST_TOKEN || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!(
                "expected at least {LEAST_TOKEN} printable ASCII characters, for example what openssl rand -hex 32 prints"
            ));
        }
        Ok(Self::of(text))
    }
}

/// A new secret of 256 random bits, as text.
///
/// # Errors
/// If the source of randomness fails.
pub fn random_text<R: TryRng>(prefix: &str, rng: &mut R) -> Result<String, R::Error> {
    let mut bytes = [0; 32];
    rng.try_fill_bytes(&mut bytes)?;
    Ok(format!("{prefix}{}", hex::encode(bytes)))
}

/// Who a token belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub name: String,
    pub scope: Scope,
}

/// Whether a token may have this name; what it should have been, if not. The database checks the same.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let inside = |byte: u8| plain(byte) || b"_.-".contains(&byte);
    if matches!(name, "admin" | "local") {
        return Err(
            "is what the audit log calls those without a token of their own: choose another name",
        );
    }
    if name.len() > 63 || !name.bytes().next().is_some_and(plain) || !name.bytes().all(inside) {
        return Err("expected a name of lower case letters, digits, and - . _ inside, at most 63");
    }
    Ok(())
}

/// A token as people see it.
#[derive(Clone, Debug)]
pub struct TokenLine {
    pub name: String,
    pub scope: Scope,
    pub created_at: OffsetDateTime,
    pub created_by: String,
    pub expires_at: Option<OffsetDateTime>,
    pub used_at: Option<OffsetDateTime>,
}

fn scope(row: &sqlx::postgres::PgRow, column: usize) -> Result<Scope, sqlx::Error> {
    let text: String = row.try_get(column)?;
    text.parse().map_err(|expected: &str| sqlx::Error::Decode(expected.into()))
}

/// Makes a token; `lifetime` in seconds.
///
/// # Errors
/// SQLSTATE 23505 if the name is taken, 23514 if it is none.
pub async fn create(
    connection: &mut PgConnection,
    holder: &Holder,
    hash: &Hashed,
    by: &str,
    lifetime: Option<f64>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO tollgate.admin_tokens (name, scope, hash, created_by, expires_at)
         VALUES ($1, $2, $3, $4, clock_timestamp() + make_interval(secs => $5))",
    )
    .bind(&holder.name)
    .bind(holder.scope.as_str())
    .bind(&hash.0[..])
    .bind(by)
    .bind(lifetime)
    .execute(connection)
    .await
    .map(drop)
}

/// Revokes a token, in a transaction; what it allowed, or None if there is none of that name. No other
/// is made or revoked until it ends, so that `any` and `any_admin` tell what is left.
pub async fn revoke(
    connection: &mut PgConnection,
    name: &str,
) -> Result<Option<Scope>, sqlx::Error> {
    sqlx::query("LOCK TABLE tollgate.admin_tokens IN SHARE ROW EXCLUSIVE MODE")
        .execute(&mut *connection)
        .await?;
    let gone = sqlx::query("DELETE FROM tollgate.admin_tokens WHERE name = $1 RETURNING scope");
    let row = gone.bind(name).fetch_optional(connection).await?;
    row.map(|row| scope(&row, 0)).transpose()
}

/// All tokens, by name.
pub async fn list(connection: &mut PgConnection) -> Result<Vec<TokenLine>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT name, scope, created_at, created_by, expires_at, used_at FROM tollgate.admin_tokens ORDER BY name",
    )
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(TokenLine {
                name: row.try_get(0)?,
                scope: scope(row, 1)?,
                created_at: row.try_get(2)?,
                created_by: row.try_get(3)?,
                expires_at: row.try_get(4)?,
                used_at: row.try_get(5)?,
            })
        })
        .collect()
}

/// Whether there is a token that allows everything, and is valid.
pub async fn any_admin(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM tollgate.admin_tokens
                        WHERE scope = 'admin' AND coalesce(expires_at, 'infinity') > clock_timestamp())",
    )
    .fetch_one(connection)
    .await
}

/// Whether there is any token.
pub async fn any(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM tollgate.admin_tokens)")
        .fetch_one(connection)
        .await
}

/// Whose token this is, if it is valid; notes that it was used.
pub async fn holder(
    connection: &mut PgConnection,
    hash: &Hashed,
) -> Result<Option<Holder>, sqlx::Error> {
    let row = sqlx::query(
        "WITH used AS (
             UPDATE tollgate.admin_tokens SET used_at = clock_timestamp()
             WHERE hash = $1 AND coalesce(used_at, '-infinity') < clock_timestamp() - interval '1 minute'
         )
         SELECT name, scope FROM tollgate.admin_tokens
         WHERE hash = $1 AND coalesce(expires_at, 'infinity') > clock_timestamp()",
    )
    .bind(&hash.0[..])
    .fetch_optional(connection)
    .await?;
    row.map(|row| Ok(Holder { name: row.try_get(0)?, scope: scope(&row, 1)? })).transpose()
}

/// Begins a session with this token, and forgets those that have ended.
pub async fn begin_session(
    connection: &mut PgConnection,
    session: &Hashed,
    token: &Hashed,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "WITH ended AS (
             DELETE FROM tollgate.admin_sessions
             WHERE seen_at < clock_timestamp() - make_interval(secs => $3)
                OR created_at < clock_timestamp() - make_interval(secs => $4)
         )
         INSERT INTO tollgate.admin_sessions (hash, token_hash) VALUES ($1, $2)",
    )
    .bind(&session.0[..])
    .bind(&token.0[..])
    .bind(SESSION_IDLE)
    .bind(SESSION_MOST)
    .execute(connection)
    .await
    .map(drop)
}

/// The token with which a session that still lasts was begun; notes that it was used. Whether the
/// token is still valid is another question.
pub async fn session(
    connection: &mut PgConnection,
    session: &Hashed,
) -> Result<Option<Hashed>, sqlx::Error> {
    let token: Option<Vec<u8>> = sqlx::query_scalar(
        "WITH seen AS (
             UPDATE tollgate.admin_sessions SET seen_at = clock_timestamp()
             WHERE hash = $1 AND seen_at < clock_timestamp() - interval '1 minute'
               AND seen_at > clock_timestamp() - make_interval(secs => $2)
         )
         SELECT token_hash FROM tollgate.admin_sessions
         WHERE hash = $1 AND seen_at > clock_timestamp() - make_interval(secs => $2)
           AND created_at > clock_timestamp() - make_interval(secs => $3)",
    )
    .bind(&session.0[..])
    .bind(SESSION_IDLE)
    .bind(SESSION_MOST)
    .fetch_optional(connection)
    .await?;
    Ok(token.as_deref().and_then(Hashed::read))
}

/// Ends a session.
pub async fn end_session(
    connection: &mut PgConnection,
    session: &Hashed,
) -> Result<(), sqlx::Error> {
    let gone = sqlx::query("DELETE FROM tollgate.admin_sessions WHERE hash = $1");
    gone.bind(&session.0[..]).execute(connection).await.map(drop)
}
