//! A list of events for a spreadsheet. What a spreadsheet would take for a formula is none.

use crate::store::browse::events::EventLine;

use super::text;

const HEAD: &str = "id,type,status,object_type,object_id,account,livemode,api_version,endpoint,source,created,received_at,position\r\n";

/// The events as RFC 4180 has it, with a line that names the columns.
pub fn of(events: &[EventLine]) -> String {
    let mut csv = HEAD.to_owned();
    for event in events {
        let fields = [
            event.id.clone(),
            event.event_type.clone(),
            event.status.clone(),
            event.object_type.clone().unwrap_or_default(),
            event.object_id.clone().unwrap_or_default(),
            event.account.clone(),
            event.livemode.to_string(),
            event.api_version.clone().unwrap_or_default(),
            event.endpoint.clone(),
            event.source.clone(),
            text::iso(event.created),
            text::iso(event.received_at),
            event.position.map(|position| position.to_string()).unwrap_or_default(),
        ];
        csv += &fields.map(|field| quoted(&field)).join(",");
        csv += "\r\n";
    }
    csv
}

/// A field, in quotes where it needs them. Spreadsheets run what begins as a formula does; a quote
/// before it makes them show it.
fn quoted(field: &str) -> String {
    let formula = field.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let mark = if formula { "'" } else { "" };
    if !formula && !field.contains([',', '"', '\r', '\n']) {
        return field.to_owned();
    }
    format!("\"{mark}{}\"", field.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_field_stays_one_field_and_runs_nothing() {
        for (field, written) in [
            ("in_1", "in_1"),
            ("a,b", "\"a,b\""),
            ("say \"no\"\r\n", "\"say \"\"no\"\"\r\n\""),
            ("=cmd|' /C calc'!A0", "\"'=cmd|' /C calc'!A0\""),
            ("-1", "\"'-1\""),
        ] {
            assert_eq!(quoted(field), written);
        }
    }
}
