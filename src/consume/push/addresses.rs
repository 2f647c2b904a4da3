//! Which IP addresses lie where: on the Internet, on this machine, or in a network of one's own.
//! Whether to go there is decided in `guard`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where an address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// To the same machine from everywhere.
    Internet,
    /// To this machine.
    Loopback,
    /// Somewhere else from each network; the words say what kind it is.
    Private(&'static str),
    /// To no single machine.
    Nowhere(&'static str),
}

/// What the IPv4 blocks are that the Internet does not route, with the lengths of their prefixes:
/// IANA's registry of special-purpose addresses, and the classes D and E.
const IPV4: [([u8; 4], u32, Place); 16] = [
    ([0, 0, 0, 0], 8, Place::Nowhere("an unspecified address")),
    ([10, 0, 0, 0], 8, Place::Private("a private address")),
    ([100, 64, 0, 0], 10, Place::Private("an address of a carrier's network")),
    ([127, 0, 0, 0], 8, Place::Loopback),
    // Clouds keep their metadata, and with them credentials, at 169.254.169.254.
    ([169, 254, 0, 0], 16, Place::Private("a link-local address")),
    ([172, 16, 0, 0], 12, Place::Private("a private address")),
    ([192, 0, 0, 0], 24, RESERVED),
    ([192, 0, 2, 0], 24, DOCUMENTATION),
    ([192, 88, 99, 0], 24, RESERVED),
    ([192, 168, 0, 0], 16, Place::Private("a private address")),
    ([198, 18, 0, 0], 15, Place::Private("an address for benchmarks")),
    ([198, 51, 100, 0], 24, DOCUMENTATION),
    ([203, 0, 113, 0], 24, DOCUMENTATION),
    ([224, 0, 0, 0], 4, MULTICAST),
    // Before the block it lies in.
    ([255, 255, 255, 255], 32, Place::Nowhere("the broadcast address")),
    ([240, 0, 0, 0], 4, RESERVED),
];

const RESERVED: Place = Place::Private("a reserved address");
const DOCUMENTATION: Place = Place::Private("an address for documentation");
const MULTICAST: Place = Place::Nowhere("a multicast address");

/// Where `address` leads. Forms of IPv6 that carry an IPv4 address are judged by that one.
pub(super) fn place(address: IpAddr) -> Place {
    match address {
        IpAddr::V4(address) => ipv4(address),
        IpAddr::V6(address) => ipv6(address),
    }
}

fn ipv4(address: Ipv4Addr) -> Place {
    let bits = address.to_bits();
    let within =
        |block: [u8; 4], length: u32| (bits ^ u32::from_be_bytes(block)) >> (32 - length) == 0;
    IPV4.iter()
        .find(|(block, length, _)| within(*block, *length))
        .map_or(Place::Internet, |(_, _, place)| *place)
}

fn ipv6(address: Ipv6Addr) -> Place {
    if address.is_loopback() {
        return Place::Loopback;
    }
    if address.is_unspecified() {
        return Place::Nowhere("an unspecified address");
    }
    let segments = address.segments();
    let inside = |at: usize| {
        let [high, low] = [segments[at], segments[at + 1]].map(u32::from);
        ipv4(Ipv4Addr::from_bits(high << 16 | low))
    };
    match segments {
        // Mapped (::ffff:0:0/96), compatible (::/96) and translated (64:ff9b::/96).
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => inside(6),
        // 6to4.
        [0x2002, ..] => inside(1),
        [0xff00..=0xffff, ..] => MULTICAST,
        [0xfe80..=0xfebf, ..] => Place::Private("a link-local address"),
        [0xfc00..=0xfdff, ..] => Place::Private("a private address"),
        [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => DOCUMENTATION,
        // Protocols' own, among them Teredo, which leads to IPv4 addresses of the sender's choice.
        [0x2001, 0..=0x01ff, ..] => RESERVED,
        // All that has been given to anybody so far.
        [0x2000..=0x3fff, ..] => Place::Internet,
        _ => RESERVED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First and last address of each block, and its neighbours on both sides.
    #[test]
    fn blocks_end_where_they_end() {
        let blocks = [
            ("1.0.0.0", "9.255.255.255", "Internet"),
            ("0.0.0.0", "0.255.255.255", "Nowhere"),
            ("10.0.0.0", "10.255.255.255", "Private"),
            ("11.0.0.0", "100.63.255.255", "Internet"),
            ("100.64.0.0", "100.127.255.255", "Private"),
            ("100.128.0.0", "126.255.255.255", "Internet"),
            ("127.0.0.0", "127.255.255.255", "Loopback"),
            ("128.0.0.0", "169.253.255.255", "Internet"),
            ("169.254.0.0", "169.254.255.255", "Private"),
            ("169.255.0.0", "172.15.255.255", "Internet"),
            ("172.16.0.0", "172.31.255.255", "Private"),
            ("172.32.0.0", "191.255.255.255", "Internet"),
            ("192.0.0.0", "192.0.0.255", "Private"),
            ("192.0.1.0", "192.0.1.255", "Internet"),
            ("192.0.2.0", "192.0.2.255", "Private"),
            ("192.88.99.0", "192.88.99.255", "Private"),
            ("192.167.255.255", "192.167.255.255", "Internet"),
            ("192.168.0.0", "192.168.255.255", "Private"),
            ("192.169.0.0", "198.17.255.255", "Internet"),
            ("198.18.0.0", "198.19.255.255", "Private"),
            ("198.20.0.0", "198.51.99.255", "Internet"),
            ("198.51.100.0", "198.51.100.255", "Private"),
            ("198.51.101.0", "203.0.112.255", "Internet"),
            ("203.0.113.0", "203.0.113.255", "Private"),
            ("203.0.114.0", "223.255.255.255", "Internet"),
            ("224.0.0.0", "239.255.255.255", "Nowhere"),
            ("240.0.0.0", "255.255.255.254", "Private"),
            ("255.255.255.255", "255.255.255.255", "Nowhere"),
            ("::", "::", "Nowhere"),
            ("::1", "::1", "Loopback"),
            ("64:ff9c::", "1fff:ffff::", "Private"),
            ("2000::", "2000:ffff:ffff::", "Internet"),
            ("2001::", "2001:1ff:ffff::", "Private"),
            ("2001:200::", "2001:db7:ffff::", "Internet"),
            ("2001:db8::", "2001:db8:ffff::", "Private"),
            ("2001:db9::", "2001:ffff::", "Internet"),
            ("2003::", "3ffe:ffff::", "Internet"),
            ("3fff::", "3fff:fff:ffff::", "Private"),
            ("3fff:1000::", "3fff:ffff::", "Internet"),
            ("4000::", "fbff:ffff::", "Private"),
            ("fc00::", "fdff:ffff::", "Private"),
            ("fe80::", "febf:ffff::", "Private"),
            ("fec0::", "feff:ffff::", "Private"),
            ("ff00::", "ffff:ffff::", "Nowhere"),
        ];
        for (first, last, expected) in blocks {
            for text in [first, last] {
                assert_eq!(word(text), expected, "{text}");
            }
        }
    }

    #[test]
    fn an_ipv4_address_counts_in_every_form_of_ipv6_that_carries_it() {
        for (inner, hex, expected) in [
            ("8.8.8.8", "808:808", "Internet"),
            ("10.1.2.3", "a01:203", "Private"),
            ("127.0.0.1", "7f00:1", "Loopback"),
            ("224.0.0.1", "e000:1", "Nowhere"),
        ] {
            for text in [
                format!("::ffff:{inner}"),
                format!("::{inner}"),
                format!("64:ff9b::{inner}"),
                format!("2002:{hex}::5"),
            ] {
                assert_eq!(word(&text), expected, "{text}");
            }
        }
    }

    fn word(address: &str) -> &'static str {
        match place(address.parse().unwrap()) {
            Place::Internet => "Internet",
            Place::Loopback => "Loopback",
            Place::Private(_) => "Private",
            Place::Nowhere(_) => "Nowhere",
        }
    }
}
