//! The table of addresses: what each stands for, and whether a name or a literal may be it.

use std::net::IpAddr;

use super::*;

const PUBLIC: &[&str] = &[
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "93.184.216.34",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "168.63.129.15",
    "168.63.129.17",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.0.3.0",
    "192.88.98.255",
    "192.88.100.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "198.51.99.255",
    "198.51.101.0",
    "203.0.112.255",
    "203.0.114.0",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2001:4860:4860::8888",
    "2001:200::1",
    "2a00:1450:4001:81b::200e",
    "2400:cb00::1",
    "::ffff:8.8.8.8",
    "::8.8.8.8",
    "64:ff9b::8.8.8.8",
    "64:ff9b::808:808",
    "2a00:1450::5efe:808:808",
];

const PRIVATE: &[&str] = &[
    "0.0.0.0",
    "0.0.0.1",
    "0.255.255.255",
    "10.0.0.0",
    "10.255.255.255",
    "100.64.0.0",
    "100.100.100.199",
    "100.127.255.255",
    "127.0.0.0",
    "127.0.0.1",
    "127.0.0.53",
    "127.1.2.3",
    "127.255.255.255",
    "172.16.0.0",
    "172.17.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.170",
    "192.0.0.255",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.0",
    "192.168.255.255",
    "198.18.0.0",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::2",
    "::127.0.0.1",
    "::10.0.0.1",
    "::ffff:0.0.0.0",
    "::ffff:10.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "::ffff:192.168.1.1",
    "::ffff:100.64.0.1",
    "::ffff:0:127.0.0.1",
    "::ffff:0:10.1.2.3",
    "64:ff9b::127.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b::c0a8:101",
    "64:ff9b:1::8.8.8.8",
    "64:ff9b:1::10.0.0.1",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002::1",
    "2002:0808:0808::1",
    "2002:7f00:1::",
    "2002:0a00:1::1",
    "2002:c0a8:101::1",
    "2a00:1450::5efe:10.0.0.1",
    "2a00:1450::200:5efe:127.0.0.1",
    "3fff::1",
    "3fff:fff:ffff::1",
    "4000::1",
    "5f00::1",
    "8000::1",
    "fc00::1",
    "fd00::1",
    "fd12:3456:789a::1",
    "fdff:ffff::1",
    "fec0::1",
    "feff::1",
    "ff00::1",
    "ff02::1",
    "ff0e::1",
];

const GUARDED: &[&str] = &[
    "169.254.0.0",
    "169.254.0.1",
    "169.254.169.254",
    "169.254.170.2",
    "169.254.255.255",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "fe80::1",
    "fe80::a9fe:a9fe",
    "febf:ffff::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "::169.254.169.254",
    "::ffff:169.254.169.254",
    "::ffff:a9fe:a9fe",
    "::ffff:100.100.100.200",
    "::ffff:0:169.254.169.254",
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::169.254.169.254",
    "2002:a9fe:a9fe::",
    "2002:a83f:8110::1",
    "2001:0:a9fe:a9fe::1",
    // Teredo hides the client's address by turning its bits over.
    "2001:0:4136:e378:8000:63bf:5601:5601",
    "fe80::5efe:10.0.0.1",
    "2a00:1450::5efe:169.254.169.254",
];

fn parse(text: &str) -> IpAddr {
    text.parse().expect(text)
}

#[test]
fn each_address_has_its_reach() {
    assert!(PUBLIC.len() + PRIVATE.len() + GUARDED.len() >= 100);
    for text in PUBLIC {
        assert_eq!(reach(parse(text)), Reach::Public, "{text}");
    }
    for text in PRIVATE {
        assert!(
            matches!(reach(parse(text)), Reach::Private(_)),
            "{text}: {:?}",
            reach(parse(text))
        );
    }
    for text in GUARDED {
        assert!(
            matches!(reach(parse(text)), Reach::Guarded(_)),
            "{text}: {:?}",
            reach(parse(text))
        );
    }
}

#[test]
fn a_literal_is_its_own_permission_and_a_name_is_not() {
    for text in PUBLIC {
        assert_eq!(permit(parse(text), Spelling::Name, false), Ok(()), "{text}");
        assert_eq!(
            permit(parse(text), Spelling::Literal, false),
            Ok(()),
            "{text}"
        );
    }
    for text in PRIVATE {
        assert!(
            permit(parse(text), Spelling::Name, false).is_err(),
            "{text}"
        );
        assert_eq!(
            permit(parse(text), Spelling::Literal, false),
            Ok(()),
            "{text}"
        );
    }
}

#[test]
fn link_local_and_metadata_need_the_permission_however_they_are_written() {
    for text in GUARDED {
        assert!(
            permit(parse(text), Spelling::Name, false).is_err(),
            "{text}"
        );
        assert!(
            permit(parse(text), Spelling::Literal, false).is_err(),
            "{text}"
        );
    }
}

#[test]
fn the_permission_lifts_every_refusal() {
    for text in PRIVATE.iter().chain(GUARDED) {
        for spelling in [Spelling::Name, Spelling::Literal] {
            assert_eq!(permit(parse(text), spelling, true), Ok(()), "{text}");
        }
    }
}
