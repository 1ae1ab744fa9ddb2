//! A gateway without its fast paths: nothing is merged, nothing is sealed eight at a time, and
//! everything arrives as it was sent. What drivers do without theirs is tested beside them.
//!
//! AVX-512 is forbidden for a whole process, so these tests have one of their own.

use ringway_flow::Policy;
use ringway_proto::crypto::{Batch, provider};
use ringway_proto::offload::VnetHeader;
use ringway_tests::gateway::Setup;
use ringway_tests::packets::{TcpPacket, udp};
use ringway_tests::pair::{Families, Pair, SEED};

const DATAGRAMS: u8 = 40;

fn connected(families: Families) -> Pair {
    Batch::forbid();
    let policy = Policy { merge: false, ..Policy::default() };
    let setup = Setup { policy, ..Setup::new(SEED, families.gateway()) };
    let mut pair = Pair::new(setup, families);
    pair.connect();
    pair
}

#[test]
fn what_is_forbidden_is_not_named_as_used() {
    Batch::forbid();
    assert!(Batch::detect().is_none());
    assert!(!provider().contains("AVX-512"), "{}", provider());
}

#[test]
fn each_packet_that_arrived_with_others_is_a_write_of_its_own() {
    for families in Families::ALL {
        let mut pair = connected(families);
        let path = (families.inside(), families.beyond());
        let datagram = |n| udp(path.0, path.1, &[n; 512]);
        let segment = |n: u8| {
            let sequence = u32::from(n) * 512;
            TcpPacket { path, sequence, flags: 0x10, options: &[], payload: &[n; 512] }.build()
        };
        for packets in [
            (0..DATAGRAMS).map(datagram).collect::<Vec<_>>(),
            (0..DATAGRAMS).map(segment).collect::<Vec<_>>(),
        ] {
            let now = pair.gateway.now;
            let sealed: Vec<_> =
                packets.iter().flat_map(|packet| pair.client.send(packet, now)).collect();
            let from = pair.client.address;
            pair.gateway.receive(&sealed, from);
            let written = std::mem::take(&mut pair.gateway.written);
            assert_eq!(written.len(), packets.len());
            for (write, packet) in written.iter().zip(&packets) {
                // Nothing is left to the kernel, and the client's checksums stand.
                assert!(write[..10].iter().all(|byte| *byte == 0), "{:?}", &write[..10]);
                assert_eq!(write[10..], packet[..]);
            }
        }
        let counters = pair.gateway.shard.counters_mut();
        assert_eq!(counters.tun_coalesced_packets, 0);
        assert_eq!(counters.tun_writes, counters.to_exit_packets);
        assert_eq!(pair.gateway.all_drops(), 0);
        assert!(pair.gateway.shard.driver_mut().at_rest());
    }
}

#[test]
fn whole_packets_and_super_packets_reach_their_client_sealed_one_by_one() {
    for families in Families::ALL {
        let mut pair = connected(families);
        let path = (families.beyond(), families.inside());
        let payload: Vec<u8> = (0..20 * 1_300_usize).map(|at| (at / 1_300) as u8).collect();
        let segment = TcpPacket { path, sequence: 1, flags: 0x10, options: &[], payload: &payload };
        let whole = segment.build_super(1_300);
        assert!(VnetHeader::parse(&whole).is_ok());
        pair.gateway.shard.driver_mut().inject_inside(&whole);
        for n in 0..DATAGRAMS {
            pair.leave_inside(&[n; 300]);
        }
        let sent = pair.gateway.run();
        pair.answer(sent);
        let received = std::mem::take(&mut pair.client.received);
        assert_eq!(received.len(), 20 + usize::from(DATAGRAMS));
        let last = |packet: &Vec<u8>| packet[packet.len() - 1];
        let expected = (0..20).chain(0..DATAGRAMS);
        assert!(received.iter().map(last).eq(expected), "in order, and each as it was");
        assert_eq!(pair.gateway.all_drops(), 0);
    }
}
