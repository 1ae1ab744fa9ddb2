//! Views of IP, TCP, UDP and ICMP.

use ringway_proto::ip::{Icmp, Ipv4, Ipv6, Packet, Tcp, Udp, Version};

/// Whatever a view accepts, its accessors stay inside the packet and agree with each other.
pub(crate) fn views_agree_with_their_headers(bytes: &[u8]) {
    let Ok(packet) = Packet::parse(bytes) else { return };
    assert!(packet.transport_offset() <= packet.total_len());
    assert!(packet.total_len() <= bytes.len());
    match packet.version() {
        Version::V4 => {
            let view = Ipv4::parse(bytes).expect("parsed before");
            assert_eq!(view.total_len(), packet.total_len());
            assert_eq!(view.header().len() + view.payload().len(), packet.total_len());
            assert_eq!(view.protocol(), packet.protocol());
            let _ = (view.checksum_holds(), view.type_of_service(), view.identification());
        }
        Version::V6 => {
            let view = Ipv6::parse(bytes).expect("parsed before");
            assert_eq!(view.total_len(), packet.total_len());
            assert_eq!(view.payload().len() + 40, packet.total_len());
            assert_eq!(view.upper_layer().offset, packet.transport_offset());
            let _ = (view.traffic_class(), view.flow_label(), view.hop_limit());
        }
    }
    // Parsing the packet without what follows it says the same.
    assert_eq!(Packet::parse(&bytes[..packet.total_len()]), Ok(packet));

    let Some(transport) = packet.transport_of(bytes) else { return };
    assert_eq!(transport.len(), packet.total_len() - packet.transport_offset());
    if let Ok(tcp) = Tcp::parse(transport) {
        assert_eq!(tcp.header_len() + tcp.payload().len(), transport.len());
        assert!(tcp.options().count() <= 40);
    }
    if let Ok(udp) = Udp::parse(transport) {
        assert!(udp.datagram_len() <= transport.len());
        assert_eq!(udp.payload().len() + 8, udp.datagram_len());
    }
    if let Ok(icmp) = Icmp::parse(transport) {
        assert!(icmp.payload().len() < transport.len());
        let _ = (icmp.kind(), icmp.code(), icmp.identifier(), icmp.sequence());
    }
}
