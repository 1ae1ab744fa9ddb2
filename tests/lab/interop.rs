//! Every client against the gateway, and the gateway's own code as client against every server,
//! both families outside times both families inside: ping, then TCP both ways.
//!
//! ```text
//!   cli: client ── 10.91.1.0/24, fd91:1::/64 ── gw ── 10.91.2.0/24, fd91:2::/64 ── dst: iperf3
//! ```

use ringway_perf::ping;
use ringway_perf::programs::Program;
use ringway_perf::topology::{Family, Place, Plan};

use crate::setup::{connected, gateway, transfer_all};

fn carries_everything(server: Program, client: Program, outside: Family) {
    let site = connected(Plan { outside, ..Plan::new(server, client) });
    for inside in Family::BOTH {
        let answers = ping::count(&site.line.cli, Place::Destination.address(inside), 100).unwrap();
        assert_eq!(answers, 100, "{inside:?} inside");
    }
    transfer_all(&site, 16);
}

macro_rules! pairs {
    ($($name:ident: $server:expr, $client:expr, $outside:expr;)*) => {$(
        #[test]
        fn $name() {
            carries_everything($server, $client, $outside);
        }
    )*};
}

pairs! {
    privileged_wireguard_go_connects_over_ipv4: gateway(), Program::WireguardGo, Family::V4;
    privileged_wireguard_go_connects_over_ipv6: gateway(), Program::WireguardGo, Family::V6;
    privileged_boringtun_connects_over_ipv4: gateway(), Program::Boringtun, Family::V4;
    privileged_boringtun_connects_over_ipv6: gateway(), Program::Boringtun, Family::V6;
    privileged_gotatun_connects_over_ipv4: gateway(), Program::Gotatun, Family::V4;
    privileged_gotatun_connects_over_ipv6: gateway(), Program::Gotatun, Family::V6;
    privileged_two_of_ours_talk_over_ipv4: gateway(), gateway(), Family::V4;
    privileged_two_of_ours_talk_over_ipv6: gateway(), gateway(), Family::V6;
    privileged_we_connect_to_wireguard_go_over_ipv4: Program::WireguardGo, gateway(), Family::V4;
    privileged_we_connect_to_wireguard_go_over_ipv6: Program::WireguardGo, gateway(), Family::V6;
    privileged_we_connect_to_boringtun_over_ipv4: Program::Boringtun, gateway(), Family::V4;
    privileged_we_connect_to_boringtun_over_ipv6: Program::Boringtun, gateway(), Family::V6;
    privileged_we_connect_to_gotatun_over_ipv4: Program::Gotatun, gateway(), Family::V4;
    privileged_we_connect_to_gotatun_over_ipv6: Program::Gotatun, gateway(), Family::V6;
}

/// Both ends count the same bytes: what one says it sent, the other says it received. With pings,
/// of which a slow client loses none.
#[test]
fn privileged_counters_agree_with_those_of_the_client() {
    let site = connected(Plan::new(gateway(), crate::setup::stock_client()));
    for inside in Family::BOTH {
        let to = Place::Destination.address(inside);
        assert_eq!(ping::count(&site.line.cli, to, 200).unwrap(), 200, "{inside:?}");
    }
    let agree = || {
        let (ours, theirs) = (site.gateway.tunnel.peers().unwrap(), site.client.peers().unwrap());
        let counts = (ours[0].rx_bytes, ours[0].tx_bytes, theirs[0].tx_bytes, theirs[0].rx_bytes);
        counts.0 == counts.2 && counts.1 == counts.3 && counts.0 > 400 * 96
    };
    // Publication of counters may lag behind the last packet.
    ringway_perf::wait::wait_for("both ends to agree", crate::setup::SOON, agree).unwrap_or_else(
        |e| panic!("{e}: {:?} {:?}", site.gateway.tunnel.peers(), site.client.peers()),
    );
}
