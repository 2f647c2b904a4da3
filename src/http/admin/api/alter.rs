//! `PATCH /api/v1/consumers/{name}`: what a consumer is like, changed. Where its events go is not
//! changed here: a target has secrets, which are the command line's.

use std::collections::BTreeMap;

use actix_web::web::{Data, Json, Path, Payload};
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;

use super::super::{Admin, AdminError, AdminOnly, actions};
use super::Problems;
use super::ask::body;
use super::consumers::{DONE, Done};
use super::problems::no_nul;
use crate::store::consumer_admin::{self, ConsumerFilter, ConsumerOptions};

/// What is to change; the rest stays. Times in seconds.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AlterConsumer {
    #[schema(example = json!(["invoice.*"]))]
    types: Option<Vec<String>>,
    /// none or object; not while events are in flight.
    ordering: Option<String>,
    max_attempts: Option<i32>,
    lease: Option<f64>,
    retry_first: Option<f64>,
    retry_most: Option<f64>,
    /// Only events that one of these endpoints received first; null for any.
    #[serde(deserialize_with = "said")]
    #[schema(value_type = Option<Vec<String>>)]
    endpoints: Part<Vec<String>>,
    /// Only events of these connected accounts, `platform` for the platform's own; null for any.
    #[serde(deserialize_with = "said")]
    #[schema(value_type = Option<Vec<String>>)]
    accounts: Part<Vec<String>>,
    /// Only live, or only test events; null for both.
    #[serde(deserialize_with = "said")]
    #[schema(value_type = Option<bool>)]
    livemode: Part<bool>,
    /// Only events whose object has all of these metadata; null for any.
    #[serde(deserialize_with = "said")]
    #[schema(value_type = Option<BTreeMap<String, String>>, example = json!({"app": "shop"}))]
    metadata: Part<BTreeMap<String, String>>,
}

/// A part of the filter: not mentioned, null, or a value.
type Part<T> = Option<Option<T>>;

fn said<'de, T: Deserialize<'de>, D: Deserializer<'de>>(value: D) -> Result<Part<T>, D::Error> {
    Option::deserialize(value).map(Some)
}

impl AlterConsumer {
    fn options(self) -> ConsumerOptions {
        let nulls = [
            ("endpoints", self.endpoints == Some(None)),
            ("accounts", self.accounts == Some(None)),
            ("livemode", self.livemode == Some(None)),
            ("metadata", self.metadata == Some(None)),
        ];
        let unset = nulls.into_iter().filter(|(_, null)| *null);
        ConsumerOptions {
            types: self.types,
            ordering: self.ordering,
            max_attempts: self.max_attempts,
            lease: self.lease,
            retry_first: self.retry_first,
            retry_most: self.retry_most,
            filter: ConsumerFilter {
                endpoints: self.endpoints.flatten(),
                accounts: self.accounts.flatten().map(consumer_admin::accounts),
                livemode: self.livemode.flatten(),
                metadata: self.metadata.flatten(),
                unset: unset.map(|(name, _)| name.to_owned()).collect(),
            },
        }
    }
}

/// Change a consumer. Types and filter count from the events on that have not been handed out yet.
#[utoipa::path(patch, path = "/api/v1/consumers/{name}", tag = "consumers", request_body = AlterConsumer,
    params(("name" = String, Path, description = "Its name", example = "mailer")),
    responses((status = 200, description = "It is so", body = Done), Problems))]
pub async fn alter(
    AdminOnly(who): AdminOnly,
    admin: Data<Admin>,
    name: Path<String>,
    payload: Payload,
) -> Result<Json<Done>, AdminError> {
    let name = no_nul("name", Some(name.into_inner()))?.unwrap_or_default();
    let options = body::<AlterConsumer>(payload).await?.options();
    let texts = options.types.iter().flatten().chain(&options.ordering);
    if texts.chain(options.filter.texts()).any(|text| text.contains('\0')) {
        return Err(AdminError::Invalid("expected texts without the character NUL".to_owned()));
    }
    let done = admin.transact(async move |connection| {
        actions::alter_consumer(connection, &who.name, &name, &options, None).await
    });
    done.await.map(|_| DONE)
}
