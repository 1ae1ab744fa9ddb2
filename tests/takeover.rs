//! A shard goes on with the sessions of another one, as in an upgrade: what clients notice
//! (nothing), what it costs, and that a failure leaves everything as it was.

use std::net::SocketAddr;
use std::time::Duration;

use ringway_dataplane::crossing::{Crossing, LINE_SLOTS};
use ringway_dataplane::index_table::IndexLayout;
use ringway_dataplane::state::{Pending, StatePage};
use ringway_dataplane::{Command, PeerChange, Refusal, Report};
use ringway_link::mesh;
use ringway_proto::wireguard::export::RESUME_LEAP;
use ringway_proto::{CoreId, DropReason};
use ringway_ring::Driver as _;
use ringway_tests::client::{Client, Seeded};
use ringway_tests::gateway::{Gateway, Place, Setup, change_of};
use ringway_tests::packets::udp4;
use ringway_tests::pair::{Families, Pair, SEED};
use std::net::Ipv4Addr;

const PEERS: [&str; 2] = ["10.0.0.2/32", "fd00::2/128"];

fn outcome(report: &Report) -> Result<(), Refusal> {
    match report {
        Report::Done { outcome, .. } => *outcome,
        other @ (Report::Stopped { .. } | Report::AccountExhausted { .. }) => panic!("{other:?}"),
    }
}

fn pause(gateway: &mut Gateway) -> Pending {
    match gateway.apply(Command::Pause(Pending::default())) {
        Report::Done { outcome: Ok(()), spent: Command::Pause(pending), .. } => pending,
        other
        @ (Report::Done { .. } | Report::Stopped { .. } | Report::AccountExhausted { .. }) => {
            panic!("{other:?}")
        }
    }
}

fn resume(gateway: &mut Gateway, counters_ahead: u64) {
    gateway.command(Command::Resume { counters_ahead });
}

/// All pages of a paused gateway.
fn pages(gateway: &mut Gateway) -> Vec<Vec<u8>> {
    let mut pages = Vec::new();
    let mut cursor = Some(0);
    while let Some(at) = cursor {
        let page = StatePage::to_fill(at);
        match gateway.apply(Command::ExportPeers(Box::new(page))) {
            Report::Done { outcome: Ok(()), spent: Command::ExportPeers(page), .. } => {
                cursor = page.cursor;
                pages.push(page.bytes.to_vec());
            }
            other @ (Report::Done { .. }
            | Report::Stopped { .. }
            | Report::AccountExhausted { .. }) => panic!("{other:?}"),
        }
    }
    pages
}

/// A worker of the next process: frozen, with the same key and layout and other randomness.
fn heir(old: &Gateway, clients: &[&Client]) -> Gateway {
    let setup = Setup { seed: SEED + 1000, now: old.now, ..Setup::new(SEED, old.address) };
    let layout = IndexLayout::new(1, Seeded(SEED).draw() as u32);
    let crossing = Crossing::new(mesh::ports(1, LINE_SLOTS).remove(0), None);
    let mut heir = Gateway::placed(setup, Place { core: CoreId(0), layout, crossing });
    heir.shard.driver_mut().set_receiving(false).expect("the world can");
    heir.shard.begin_frozen();
    for client in clients {
        heir.put_peer(change_of(client.public(), &PEERS));
    }
    heir
}

fn import(heir: &mut Gateway, page: &[u8]) -> Result<(), Refusal> {
    let page = StatePage::filled(page.to_vec().into());
    outcome(&heir.apply(Command::ImportPeers(Box::new(page))))
}

/// A whole upgrade. What arrives in between waits for the new one, as in the sockets.
fn upgrade(pair: &mut Pair, meanwhile: &[Vec<u8>]) {
    pause(&mut pair.gateway);
    let mut next = heir(&pair.gateway, &[&pair.client]);
    for page in pages(&mut pair.gateway) {
        import(&mut next, &page).expect("the state of a sound shard");
    }
    let home = pair.client.address;
    for datagram in meanwhile {
        assert!(next.receive(std::slice::from_ref(datagram), home).is_empty(), "it speaks early");
    }
    resume(&mut next, 0);
    pair.gateway = next;
    let sent = pair.gateway.run();
    pair.answer(sent);
}

#[test]
fn a_client_notices_nothing_of_an_upgrade() {
    for families in Families::ALL {
        let mut pair = Pair::connected_over(families);
        for round in 0..5_u8 {
            let packet = pair.to_exit(&[round; 100]);
            let sealed = pair.client.send(&packet, pair.now());
            upgrade(&mut pair, &sealed);
            assert_eq!(pair.gateway.written.len(), 1, "what waited is carried");
            assert_eq!(pair.gateway.written.remove(0)[10..], packet);

            let answer = pair.to_client(&[round; 200]);
            assert!(!pair.inside(&answer).is_empty());
            assert_eq!(pair.client.received.pop(), Some(answer));
            assert_eq!(pair.gateway.all_drops(), 0);
            assert_eq!(pair.gateway.shard.counters_mut().handshakes_sent, 0);
            assert_eq!(pair.gateway.shard.counters_mut().sessions, 1);
            assert!(pair.gateway.shard.driver_mut().at_rest());
        }
    }
}

#[test]
fn what_the_old_process_accepted_the_new_one_refuses() {
    let mut pair = Pair::connected();
    let packet = pair.to_exit(b"once");
    let sealed = pair.client.send(&packet, pair.now());
    pair.talk(sealed.clone());
    assert_eq!(pair.gateway.written.len(), 1);
    upgrade(&mut pair, &sealed);
    assert_eq!(pair.gateway.written.len(), 0);
    assert_eq!(pair.drops(DropReason::DataReplayed), 1);
}

#[test]
fn what_was_received_before_the_pause_is_carried_before_it_is_answered() {
    let mut pair = Pair::connected();
    let home = pair.client.address;
    let local = pair.gateway.ip();
    for number in 0..20_u8 {
        let packet = pair.to_exit(&[number]);
        let sealed = pair.client.send(&packet, pair.now());
        pair.gateway.deliver(&sealed, home, local, Default::default());
        pair.leave_inside(&[number]);
    }
    let pending = pause(&mut pair.gateway);
    assert_eq!(pending, Pending::default());
    // One super-packet: headers once, twenty payloads.
    assert_eq!(pair.gateway.written.iter().map(Vec::len).collect::<Vec<_>>(), [10 + 28 + 20]);
    assert_eq!(pair.gateway.shard.driver_mut().sent.len(), 20);
}

#[test]
fn a_paused_shard_sends_nothing_by_itself_and_does_not_spin() {
    let mut pair = Pair::connected();
    let keepalive = PeerChange {
        keepalive_s: Some(1),
        update_only: true,
        ..PeerChange::of(pair.client.public())
    };
    pair.gateway.put_peer(keepalive);
    pair.gateway.run();
    pause(&mut pair.gateway);
    pages(&mut pair.gateway);
    assert!(pair.gateway.advance(Duration::from_secs(300)).is_empty());
    resume(&mut pair.gateway, 0);
    assert!(!pair.gateway.run().is_empty());
}

#[test]
fn a_failed_upgrade_leaves_everything_as_it_was() {
    let mut pair = Pair::connected();
    for round in 0..3_u8 {
        // The new process dies after it was told to begin: it may have sent.
        pause(&mut pair.gateway);
        pages(&mut pair.gateway);
        let packet = pair.to_exit(&[round]);
        let sealed = pair.client.send(&packet, pair.now());
        let home = pair.client.address;
        assert!(pair.gateway.receive(&sealed, home).is_empty());
        assert!(pair.gateway.written.is_empty(), "paused");
        resume(&mut pair.gateway, if round == 0 { 0 } else { RESUME_LEAP });
        pair.gateway.run();
        assert_eq!(pair.gateway.written.pop().expect("what waited")[10..], packet);
        let answer = pair.to_client(&[round]);
        let sent = pair.inside(&answer);
        let counter = u64::from_le_bytes(sent[0].bytes[8..16].try_into().expect("eight"));
        assert_eq!(counter >> 32, u64::from(round));
        assert_eq!(pair.client.received.pop(), Some(answer));
    }
    assert_eq!(pair.gateway.all_drops(), 0);
}

#[test]
fn what_an_upgrade_loses_is_counted() {
    let mut pair = Pair::reachable();
    pair.leave_inside(b"one");
    pair.leave_inside(b"two");
    let initiations = pair.gateway.run();
    assert_eq!(initiations.len(), 1);
    let home = pair.client.address;
    let pending = pause(&mut pair.gateway);
    assert_eq!(pending, Pending { handshakes: 0, initiations: 1, staged: 2 });
    resume(&mut pair.gateway, 0);

    // The answer comes to a process that knows nothing of the question: it asks again, later.
    upgrade(&mut pair, &[]);
    let answers = pair.client.receive(&initiations[0].bytes, pair.now());
    for answer in answers {
        pair.gateway.receive(&[answer], home);
    }
    assert_eq!(pair.drops(DropReason::IndexUnknown), 1);
    pair.pass(Duration::from_secs(6));
    assert!(pair.client.ready(pair.now()));
}

#[test]
fn many_peers_cross_in_pages() {
    let families = Families::V4;
    let mut gateway = Gateway::with(Setup::new(SEED, families.gateway()));
    let public = Gateway::public_of(SEED);
    let mut clients: Vec<Client> = (0..600_u16)
        .map(|number| {
            let home = SocketAddr::new(families.client().ip(), 1000 + number);
            Client::new(u64::from(number) + 50, public, home, [0; 32])
        })
        .collect();
    let inside = |number: usize| Ipv4Addr::new(10, 1, (number / 250) as u8, (number % 250) as u8);
    for (number, client) in clients.iter_mut().enumerate() {
        let own = format!("{}/32", inside(number));
        gateway.put_peer(change_of(client.public(), &[&own]));
        if number % 2 == 0 {
            let packet = udp4(inside(number), Ipv4Addr::new(192, 0, 2, 1), b"hello");
            for datagram in client.send(&packet, gateway.now) {
                for answer in gateway.receive(&[datagram], client.address) {
                    for datagram in client.receive(&answer.bytes, gateway.now) {
                        gateway.receive(&[datagram], client.address);
                    }
                }
            }
        }
        gateway.advance(Duration::from_millis(25));
    }
    let before = gateway.peers();
    pause(&mut gateway);
    let pages = pages(&mut gateway);
    assert!(pages.len() > 1);
    let mut next = heir(&gateway, &clients.iter().collect::<Vec<_>>());
    pages.iter().for_each(|page| import(&mut next, page).expect("sound"));
    resume(&mut next, 0);
    assert_eq!(next.peers(), before);
    assert_eq!(next.shard.counters_mut().sessions, 300);
    assert_eq!(next.shard.indices().used(), gateway.shard.indices().used());
}

#[test]
fn a_page_that_is_cut_changed_or_of_strangers_is_refused_and_nothing_breaks() {
    let mut pair = Pair::connected();
    pause(&mut pair.gateway);
    let page = pages(&mut pair.gateway).remove(0);
    let mut next = heir(&pair.gateway, &[&pair.client]);
    for len in (0..page.len()).filter(|len| *len != 8) {
        assert_eq!(import(&mut next, &page[..len]), Err(Refusal::State), "{len} bytes");
    }
    let mut other = page.clone();
    other[12] ^= 2; // the version of the peer's record
    assert_eq!(import(&mut next, &other), Err(Refusal::State));
    for at in 8..page.len() {
        let mut changed = page.clone();
        changed[at] ^= 0x41;
        // Whatever comes of it, the shard stays sound.
        let _ = import(&mut next, &changed);
    }
    let mut stranger = heir(&pair.gateway, &[]);
    assert_eq!(import(&mut stranger, &page), Err(Refusal::UnknownPeer));
    assert_eq!(import(&mut next, &page), Ok(()));
    resume(&mut next, 0);
    pair.gateway = next;
    let packet = pair.to_exit(b"after all that");
    pair.send(&packet);
    assert_eq!(pair.gateway.written.len(), 1);
}

#[test]
fn a_running_shard_neither_writes_nor_takes_state() {
    let mut pair = Pair::connected();
    let page = || Box::new(StatePage::to_fill(0));
    let gateway = &mut pair.gateway;
    assert_eq!(outcome(&gateway.apply(Command::ExportPeers(page()))), Err(Refusal::Pause));
    assert_eq!(outcome(&gateway.apply(Command::ImportPeers(page()))), Err(Refusal::Pause));
    pause(gateway);
    let again = gateway.apply(Command::Pause(Pending::default()));
    assert_eq!(outcome(&again), Err(Refusal::Pause));
    assert_eq!(outcome(&gateway.apply(Command::ImportPeers(page()))), Err(Refusal::Pause));
}
