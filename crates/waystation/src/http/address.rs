//! Which addresses an endpoint may stand for: the guard against requests forged through us (SSRF).
//!
//! A literal address in the operator's file is its own permission. A name that resolves to a private
//! address needs `allow_private`, for whoever owns the name chooses the address. Link-local and
//! metadata addresses always need it, for they hand out credentials.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How far an address is from the public Internet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reach {
    /// Anybody may be there.
    Public,
    /// Ours, our network's or nobody's; the word says why.
    Private(&'static str),
    /// Link-local or a cloud's metadata; the word says why.
    Guarded(&'static str),
}

/// How the operator wrote the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Spelling {
    /// As an address.
    Literal,
    /// As a name, which somebody resolves.
    Name,
}

/// Tells whether an endpoint may connect to an address; else why not.
pub(super) fn permit(
    address: IpAddr,
    spelling: Spelling,
    allow_private: bool,
) -> Result<(), &'static str> {
    match (reach(address), spelling) {
        (Reach::Public, Spelling::Literal | Spelling::Name)
        | (Reach::Private(_), Spelling::Literal) => Ok(()),
        (Reach::Private(why), Spelling::Name)
        | (Reach::Guarded(why), Spelling::Literal | Spelling::Name) => {
            if allow_private {
                Ok(())
            } else {
                Err(why)
            }
        }
    }
}

/// Says how far an address is from the public Internet. An IPv6 address that carries an IPv4 address
/// (mapped, compatible, NAT64, 6to4, Teredo, ISATAP) is at most as public as what it carries.
#[must_use]
pub fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(v4) => reach_v4(v4),
        IpAddr::V6(v6) => reach_v6(v6),
    }
}

/// IANA's special-purpose registry, and the metadata services that live on ordinary addresses.
const V4: &[(Ipv4Addr, u32, Reach)] = &[
    (
        Ipv4Addr::new(169, 254, 0, 0),
        16,
        Reach::Guarded("link-local"),
    ),
    (
        Ipv4Addr::new(100, 100, 100, 200),
        32,
        Reach::Guarded("cloud metadata"),
    ),
    (
        Ipv4Addr::new(168, 63, 129, 16),
        32,
        Reach::Guarded("cloud metadata"),
    ),
    (
        Ipv4Addr::new(192, 0, 0, 192),
        32,
        Reach::Guarded("cloud metadata"),
    ),
    (Ipv4Addr::new(0, 0, 0, 0), 8, Reach::Private("this host")),
    (
        Ipv4Addr::new(10, 0, 0, 0),
        8,
        Reach::Private("private network"),
    ),
    (
        Ipv4Addr::new(100, 64, 0, 0),
        10,
        Reach::Private("shared address space"),
    ),
    (Ipv4Addr::new(127, 0, 0, 0), 8, Reach::Private("loopback")),
    (
        Ipv4Addr::new(172, 16, 0, 0),
        12,
        Reach::Private("private network"),
    ),
    (
        Ipv4Addr::new(192, 0, 0, 0),
        24,
        Reach::Private("protocol assignments"),
    ),
    (
        Ipv4Addr::new(192, 0, 2, 0),
        24,
        Reach::Private("documentation"),
    ),
    (
        Ipv4Addr::new(192, 88, 99, 0),
        24,
        Reach::Private("6to4 relay"),
    ),
    (
        Ipv4Addr::new(192, 168, 0, 0),
        16,
        Reach::Private("private network"),
    ),
    (
        Ipv4Addr::new(198, 18, 0, 0),
        15,
        Reach::Private("benchmarking"),
    ),
    (
        Ipv4Addr::new(198, 51, 100, 0),
        24,
        Reach::Private("documentation"),
    ),
    (
        Ipv4Addr::new(203, 0, 113, 0),
        24,
        Reach::Private("documentation"),
    ),
    (Ipv4Addr::new(224, 0, 0, 0), 4, Reach::Private("multicast")),
    (Ipv4Addr::new(240, 0, 0, 0), 4, Reach::Private("reserved")),
];

fn reach_v4(address: Ipv4Addr) -> Reach {
    V4.iter()
        .find(|(net, bits, _)| (address.to_bits() ^ net.to_bits()) >> (32 - bits) == 0)
        .map_or(Reach::Public, |(_, _, reach)| *reach)
}

/// As [`V4`]; the first that matches wins, the last line is all that is not global unicast.
const V6: &[(u128, u32, Reach)] = &[
    (
        0xfd00_0ec2_u128 << 96 | 0x254,
        128,
        Reach::Guarded("cloud metadata"),
    ),
    (
        0xfd20_00ce_u128 << 96 | 0x254,
        128,
        Reach::Guarded("cloud metadata"),
    ),
    (0xfe80 << 112, 10, Reach::Guarded("link-local")),
    (0, 128, Reach::Private("this host")),
    (1, 128, Reach::Private("loopback")),
    (0xfc00 << 112, 7, Reach::Private("private network")),
    (0xfec0 << 112, 10, Reach::Private("site-local")),
    (0xff00 << 112, 8, Reach::Private("multicast")),
    (0x0100 << 112, 64, Reach::Private("discard")),
    (0x0064_ff9b_0001 << 80, 48, Reach::Private("local NAT64")),
    (0x2001_0db8 << 96, 32, Reach::Private("documentation")),
    (0x3fff << 112, 20, Reach::Private("documentation")),
    (0x5f00 << 112, 16, Reach::Private("segment routing")),
    (0x2002 << 112, 16, Reach::Private("6to4")),
    (0x2001 << 112, 32, Reach::Private("Teredo")),
    (0x2001 << 112, 23, Reach::Private("protocol assignments")),
];

fn reach_v6(address: Ipv6Addr) -> Reach {
    let bits = address.to_bits();
    let own = V6
        .iter()
        .find(|(net, length, _)| (bits ^ net) >> (128 - length) == 0)
        .map(|(_, _, reach)| *reach);
    let carried = carried_v4(bits).map(reach_v4).max();
    match (own, carried) {
        (Some(own), Some(carried)) => own.max(carried),
        (Some(own), None) => own,
        (None, Some(carried)) => carried,
        (None, None) if bits >> 125 == 0b001 => Reach::Public,
        (None, None) => Reach::Private("reserved"),
    }
}

/// The IPv4 addresses that an IPv6 address carries; two at most (Teredo: server and client).
fn carried_v4(bits: u128) -> impl Iterator<Item = Ipv4Addr> {
    let at = |shift: u32| {
        let word = (bits >> shift) & u128::from(u32::MAX);
        Ipv4Addr::from_bits(u32::try_from(word).unwrap_or(0))
    };
    let low = at(0);
    let found = match (bits >> 112, bits >> 96) {
        _ if bits <= 1 => [None, None],
        // Compatible ::a.b.c.d, mapped ::ffff:a.b.c.d, translated ::ffff:0:a.b.c.d.
        _ if bits >> 32 == 0 || bits >> 32 == 0xffff || bits >> 32 == 0xffff_0000 => {
            [Some(low), None]
        }
        (0x0064, 0x0064_ff9b) if (bits >> 80) & 0xffff <= 1 => [Some(low), None],
        (0x2002, _) => [Some(at(80)), None],
        (0x2001, 0x2001_0000) => [Some(at(64)), Some(Ipv4Addr::from_bits(!low.to_bits()))],
        // ISATAP: an interface id 0:5efe or 200:5efe and the address.
        _ if (bits >> 32) & 0xfdff_ffff == 0x5efe => [Some(low), None],
        _ => [None, None],
    };
    found.into_iter().flatten()
}

#[cfg(test)]
#[path = "address_tests.rs"]
mod tests;
