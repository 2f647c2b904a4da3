//! What templates call on a value: `{{ name|t }}`. Texts of strangers go through `t`, `short`, `id` or
//! `kind` everywhere; askama escapes what comes out.

use std::fmt::Display;

use askama::filters::HtmlSafe;
use askama::{Template, Values};
use time::OffsetDateTime;

use super::{page, text};

/// A text, made harmless.
#[askama::filter_fn]
pub fn t(value: impl Display, _: &dyn Values) -> askama::Result<String> {
    Ok(text::harmless(&value.to_string()))
}

/// The same, cut where tables would burst.
#[askama::filter_fn]
pub fn short(value: impl Display, _: &dyn Values) -> askama::Result<String> {
    Ok(text::cut(&value.to_string(), text::SHORT))
}

/// A text as part of a URL's path or query.
#[askama::filter_fn]
pub fn url(value: impl Display, _: &dyn Values) -> askama::Result<String> {
    Ok(page::encoded(&value.to_string()))
}

/// A count with thousands apart.
#[askama::filter_fn]
pub fn count(value: &i64, _: &dyn Values) -> askama::Result<String> {
    Ok(text::thousands(*value))
}

/// Seconds as people say them.
#[askama::filter_fn]
pub fn span(value: &f64, _: &dyn Values) -> askama::Result<String> {
    Ok(text::span(*value))
}

/// An amount of minor units.
#[askama::filter_fn]
pub fn amount(value: &i64, _: &dyn Values, currency: &str) -> askama::Result<String> {
    Ok(text::amount(*value, currency))
}

/// A time for machines.
#[askama::filter_fn]
pub fn iso(value: &OffsetDateTime, _: &dyn Values) -> askama::Result<String> {
    Ok(text::iso(*value))
}

/// A time for people, in UTC.
#[askama::filter_fn]
pub fn exact(value: &OffsetDateTime, _: &dyn Values) -> askama::Result<String> {
    Ok(text::exact(*value))
}

/// The time of day, to the thousandth.
#[askama::filter_fn]
pub fn precise(value: &OffsetDateTime, _: &dyn Values) -> askama::Result<String> {
    Ok(text::precise(*value))
}

/// How long ago, with the exact time to be seen when pointed at.
#[askama::filter_fn]
pub fn when(value: &OffsetDateTime, _: &dyn Values, now: &OffsetDateTime) -> askama::Result<When> {
    Ok(When {
        iso: text::iso(*value),
        exact: text::exact(*value),
        relative: text::relative(*value, *now),
    })
}

#[derive(Template)]
#[template(
    source = r#"<time datetime="{{ iso }}" title="{{ exact }}" data-ago>{{ relative }}</time>"#,
    ext = "html"
)]
pub struct When {
    iso: String,
    exact: String,
    relative: String,
}

/// When something is to happen: what should have happened already is due.
#[askama::filter_fn]
pub fn due(value: &OffsetDateTime, _: &dyn Values, now: &OffsetDateTime) -> askama::Result<Due> {
    let relative = if value <= now { "due".to_owned() } else { text::relative(*value, *now) };
    Ok(Due { iso: text::iso(*value), exact: text::exact(*value), relative })
}

#[derive(Template)]
#[template(
    source = r#"<time datetime="{{ iso }}" title="{{ exact }}" data-ago data-due>{{ relative }}</time>"#,
    ext = "html"
)]
pub struct Due {
    iso: String,
    exact: String,
    relative: String,
}

/// The time of day of what happened on the day of something else, or the whole of it.
#[askama::filter_fn]
pub fn moment(
    value: &OffsetDateTime,
    _: &dyn Values,
    other: &OffsetDateTime,
) -> askama::Result<String> {
    let same = value.to_offset(time::UtcOffset::UTC).date()
        == other.to_offset(time::UtcOffset::UTC).date();
    Ok(if same { text::precise(*value) } else { text::exact(*value) })
}

/// An event's type: what happened stands out from what it happened to.
#[askama::filter_fn]
pub fn kind(value: impl Display, _: &dyn Values) -> askama::Result<Kind> {
    let value = text::cut(&value.to_string(), text::SHORT);
    let end = value.rfind('.').map_or(0, |dot| dot + 1);
    Ok(Kind { family: value[..end].to_owned(), act: value[end..].to_owned() })
}

#[derive(Template)]
#[template(
    source = r#"<bdi class="type" title="{{ family }}{{ act }}"><span class="family">{{ family }}</span><span class="act">{{ act }}</span></bdi>"#,
    ext = "html"
)]
pub struct Kind {
    family: String,
    act: String,
}

/// An id, apart from the direction of what stands around it.
#[askama::filter_fn]
pub fn id(value: impl Display, _: &dyn Values) -> askama::Result<Id> {
    Ok(Id(text::cut(&value.to_string(), text::SHORT)))
}

#[derive(Template)]
#[template(source = r#"<bdi class="id" title="{{ self.0 }}">{{ self.0 }}</bdi>"#, ext = "html")]
pub struct Id(String);

/// Live or test data.
#[askama::filter_fn]
pub fn mode(value: &bool, _: &dyn Values) -> askama::Result<Mode> {
    Ok(Mode(*value))
}

#[derive(Template)]
#[template(
    source = r#"{% if self.0 %}<span class="tag ok">live</span>{% else %}<span class="tag warn">test</span>{% endif %}"#,
    ext = "html"
)]
pub struct Mode(bool);

// Their templates escape what they show.
impl HtmlSafe for When {}
impl HtmlSafe for Due {}
impl HtmlSafe for Kind {}
impl HtmlSafe for Id {}
impl HtmlSafe for Mode {}
