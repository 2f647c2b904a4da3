//! The header `traceparent` of W3C Trace Context, read and written.
//! Whether to follow it is up to others.

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// `00-` trace `-` parent `-` flags.
const LENGTH: usize = 2 + 1 + 32 + 1 + 16 + 1 + 2;

/// Reads a header as <https://www.w3.org/TR/trace-context/#traceparent-header> says: lower-case
/// hexadecimal in fields of fixed lengths, ids that are not zero, version `ff` never; versions to
/// come may be longer, after another dash. None if it is anything else: such a header is ignored.
#[must_use]
pub fn parse(text: &str) -> Option<SpanContext> {
    // Beyond ASCII the fields would not lie where they are cut.
    if !text.is_ascii() || text.len() < LENGTH {
        return None;
    }
    let (known, more) = text.split_at(LENGTH);
    let mut fields = known.split('-');
    let version = hexadecimal(fields.next()?, 2)?;
    let trace = hexadecimal(fields.next()?, 32)?;
    let parent = hexadecimal(fields.next()?, 16)?;
    let flags = hexadecimal(fields.next()?, 2)?;
    let whole = fields.next().is_none();
    let longer = version != "00" && more.starts_with('-');
    if !whole || version == "ff" || !(more.is_empty() || longer) {
        return None;
    }
    // Of the flags only the one of sampling is known to every version.
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let trace = TraceId::from_hex(trace).ok()?;
    let parent = SpanId::from_hex(parent).ok()?;
    let context = SpanContext::new(trace, parent, flags, true, TraceState::NONE);
    context.is_valid().then_some(context)
}

fn hexadecimal(field: &str, length: usize) -> Option<&str> {
    let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (field.len() == length && field.bytes().all(digit)).then_some(field)
}

/// Writes it, in version 00.
#[must_use]
pub fn format(context: &SpanContext) -> String {
    let flags = context.trace_flags() & TraceFlags::SAMPLED;
    format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";

    #[test]
    fn what_is_good_is_read_and_written_as_it_was() {
        for flags in ["00", "01"] {
            let text = format!("00-{TRACE}-{PARENT}-{flags}");
            let context = parse(&text).unwrap();
            assert_eq!(format(&context), text);
            assert_eq!(context.is_sampled(), flags == "01");
            assert!(context.is_remote());
        }
        for (text, flags) in [
            (format!("00-{TRACE}-{PARENT}-ff"), "01"),
            (format!("00-{TRACE}-{PARENT}-02"), "00"),
            (format!("01-{TRACE}-{PARENT}-09"), "01"),
            (format!("fe-{TRACE}-{PARENT}-01-what-comes-then"), "01"),
            (format!("cc-{TRACE}-{PARENT}-01-"), "01"),
        ] {
            let context = parse(&text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(format(&context), format!("00-{TRACE}-{PARENT}-{flags}"), "{text}");
        }
    }

    #[test]
    fn what_is_malformed_is_none() {
        let upper = TRACE.to_uppercase();
        for text in [
            String::new(),
            "00".to_owned(),
            format!("ff-{TRACE}-{PARENT}-01"),
            format!("00-{upper}-{PARENT}-01"),
            format!("00-{TRACE}-00F067AA0BA902B7-01"),
            format!("00-{TRACE}-{PARENT}-0A"),
            format!("0A-{TRACE}-{PARENT}-01"),
            format!("00-{}-{PARENT}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{TRACE}-{PARENT}"),
            format!("00-{TRACE}-{PARENT}-"),
            format!("00-{TRACE}-{PARENT}-1"),
            format!("00-{TRACE}-{PARENT}-01-"),
            format!("00-{TRACE}-{PARENT}-01-more"),
            format!("00-{TRACE}-{PARENT}-011"),
            format!("01-{TRACE}-{PARENT}-011"),
            format!("00-{TRACE}0-{}-01", &PARENT[1..]),
            format!("00_{TRACE}_{PARENT}_01"),
            format!("00-{TRACE}-{PARENT}-0g"),
            format!("00-+{}-{PARENT}-01", &TRACE[1..]),
            format!("00-{TRACE}-{PARENT}-+1"),
            format!(" 00-{TRACE}-{PARENT}-01"),
            format!("00-{TRACE}-{PARENT}-01 "),
            format!("00-{TRACE}-{PARENT}-0é"),
            format!("00-{}é-{PARENT}-01", &TRACE[2..]),
        ] {
            assert!(parse(&text).is_none(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_and_only_the_grammar_is_read(text in "\\PC*|[0-9a-fA-F-]{50,60}") {
            if let Some(context) = parse(&text) {
                prop_assert_eq!(&format(&context)[2..53], &text[2..53]);
            }
        }

        #[test]
        fn one_changed_byte_is_noticed_or_another_id(at in 0_usize..55, byte in any::<u8>()) {
            let good = format!("00-{TRACE}-{PARENT}-01");
            let mut bytes = good.clone().into_bytes();
            bytes[at] = byte;
            if let Ok(text) = String::from_utf8(bytes)
                && let Some(context) = parse(&text)
            {
                prop_assert_eq!(&format(&context)[3..52], &text[3..52]);
            }
        }
    }
}
