//! The menu: which pages there are, which one is open, and what on them wants to be looked at.

use sqlx::PgConnection;

use crate::http::concerns::Trouble;
use crate::store::browse::totals::totals;

/// A heading and the links under it.
pub type Group = (&'static str, Vec<Link>);

pub struct Link {
    pub name: &'static str,
    pub path: &'static str,
    pub here: bool,
    /// What is there and should not be; 0 for nothing.
    pub count: i64,
    pub about: &'static str,
    /// Whether it can wait.
    pub mild: bool,
}

/// Counts what wants to be looked at.
pub async fn trouble(connection: &mut PgConnection) -> Result<Trouble, sqlx::Error> {
    Ok(Trouble::from(&totals(connection).await?))
}

/// The menu on the page at `here`, for somebody who may or may not see tokens.
pub fn menu(here: &str, trouble: Trouble, admin: bool) -> Vec<Group> {
    let link = |name, path, count, about, mild| Link {
        name,
        path,
        here: path == here,
        count,
        about,
        mild,
    };
    let plain = |name, path| link(name, path, 0, "", false);
    let mut administration = vec![plain("Audit log", "/audit")];
    administration.extend(admin.then(|| plain("Tokens", "/tokens")));
    vec![
        ("", vec![plain("Overview", "/")]),
        ("Events", vec![plain("Events", "/events"), plain("Live tail", "/live")]),
        (
            "Delivery",
            vec![
                plain("Consumers", "/consumers"),
                link("Dead letters", "/dead-letters", trouble.dead_letters, "dead letters", false),
            ],
        ),
        ("Billing", vec![plain("Billing", "/billing"), plain("Ties", "/ties")]),
        (
            "Processing",
            vec![
                plain("Handlers", "/handlers"),
                link("Failures", "/failures", trouble.failures(), "failures", true),
                link("Quarantine", "/quarantine", trouble.quarantined, "bodies", true),
            ],
        ),
        ("Administration", administration),
    ]
}
