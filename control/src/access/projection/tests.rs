mod any_order;

use std::collections::BTreeMap;

use super::*;
use crate::access::chain::{Exhausted, Volume};
use crate::access::people::Rules;
use crate::access::sessions::{Counted, Seen, State};
use crate::store::records::{Excess, Period, Quota, UserState};

const HOUR: i64 = 3_600_000;

fn at(ms: i64) -> Moment {
    Moment { wall: Timestamp(ms), steady: Timestamp(ms) }
}

fn rules() -> Rules {
    Rules {
        session_rate: Rate::default(),
        user_rate: Rate::default(),
        quota: None,
        idle_timeout_s: 0,
        sessions_max: 5,
        excess: Excess::Refuse,
    }
}

fn client(number: u8) -> Client {
    Client {
        id: DeviceId(uuid::Uuid::from_u128(u128::from(number) << 64 | 7)),
        name: format!("d{number}"),
        public: PublicKey([number; 32]),
        preshared: PresharedKey::default(),
        addresses: vec![format!("10.0.0.{number}/32").parse().unwrap()],
        enabled: true,
        access_from: Some(Timestamp(0)),
        access_until: Some(Timestamp(24 * HOUR)),
    }
}

fn person(number: u8, devices: &[u8]) -> Person {
    Person {
        id: UserId(uuid::Uuid::from_u128(u128::from(number))),
        name: format!("u{number}"),
        group: None,
        state: UserState::Active,
        expires_at: None,
        rules: rules(),
        clients: devices.iter().map(|device| client(*device)).collect(),
    }
}

fn seen(state: State) -> Seen {
    Seen {
        state,
        endpoint: None,
        last_handshake: None,
        last_received: None,
        path_mtu: 1420,
        core: 0,
        outer_bytes: (0, 0),
    }
}

/// What the cores would have, if they did as they were told; panics where they would refuse.
#[derive(Default)]
struct Cores {
    accounts: BTreeMap<Number, AccountPlan>,
    peers: BTreeMap<PublicKey, PeerPlan>,
}

impl Cores {
    fn take(&mut self, projection: &mut Projection) -> usize {
        let steps = projection.take_steps();
        let count = steps.len();
        for step in steps {
            match step {
                Step::PutAccount(plan) => {
                    if let Some(parent) = plan.parent {
                        assert!(self.accounts.contains_key(&parent), "no parent for {plan:?}");
                    }
                    let number = plan.number;
                    let known = self.accounts.get(&number);
                    if known.is_some_and(|known| known.parent != plan.parent) {
                        let below = self.accounts.values().any(|one| one.parent == Some(number));
                        assert!(!below, "others are below {plan:?}");
                    }
                    self.accounts.insert(plan.number, plan);
                }
                Step::RemoveAccount(number) => {
                    assert!(self.accounts.remove(&number).is_some(), "no account {number}");
                    let used = self.peers.values().any(|peer| peer.account == number)
                        || self.accounts.values().any(|plan| plan.parent == Some(number));
                    assert!(!used, "account {number} is drawn on");
                }
                Step::PutPeer(plan) => {
                    assert!(self.accounts.contains_key(&plan.account), "no account for {plan:?}");
                    self.peers.insert(plan.public, plan);
                }
                Step::RemovePeer(public) => {
                    assert!(self.peers.remove(&public).is_some(), "no such peer");
                }
            }
        }
        let retired: Vec<Number> = projection.retiring().collect();
        for number in retired {
            projection.retired(number);
        }
        count
    }
}

fn outs(notes: &[Note]) -> Vec<Out> {
    notes
        .iter()
        .filter_map(|note| match note {
            Note::Out { why, .. } => Some(*why),
            Note::In { .. }
            | Note::Connected(_)
            | Note::Moved(_)
            | Note::Disconnected(..)
            | Note::QuotaReached { .. }
            | Note::QuotaRenewed { .. } => None,
        })
        .collect()
}

#[test]
fn a_session_moves_when_its_client_is_heard_from_elsewhere() {
    let mut projection = Projection::default();
    projection.put_person(person(1, &[1]), None, at(0));
    let from = |endpoint: Option<&str>| Seen {
        endpoint: endpoint.map(|text| text.parse().unwrap()),
        ..seen(State::Online)
    };
    let key = PublicKey([1; 32]);
    for endpoint in [None, Some("192.0.2.1:5"), Some("192.0.2.1:5"), None, Some("192.0.2.1:5")] {
        projection.see(&key, from(endpoint), at(1));
    }
    let is_move = |note: &&Note| matches!(note, Note::Moved(_));
    assert_eq!(projection.take_notes().iter().filter(is_move).count(), 0, "known, not another");
    for endpoint in ["192.0.2.1:6", "[2001:db8::1]:6", "[2001:db8::1]:6"] {
        projection.see(&key, from(Some(endpoint)), at(2));
    }
    let notes = projection.take_notes();
    let moved = notes.iter().filter_map(|note| {
        let Note::Moved(session) = note else { return None };
        session.seen.endpoint
    });
    let ports: Vec<String> = moved.map(|at| at.to_string()).collect();
    assert_eq!(ports, ["192.0.2.1:6", "[2001:db8::1]:6"]);
}

#[test]
fn a_device_with_access_is_a_peer_until_its_time_is_over() {
    let (mut projection, mut cores) = (Projection::default(), Cores::default());
    projection.put_person(person(1, &[1, 2]), None, at(0));
    cores.take(&mut projection);
    assert_eq!(cores.peers.len(), 2);
    assert_eq!(projection.next_deadline(), Some(Timestamp(24 * HOUR)));
    projection.tick(at(24 * HOUR - 1));
    assert_eq!(cores.take(&mut projection), 0);
    let _ = projection.take_notes();
    projection.tick(at(24 * HOUR));
    cores.take(&mut projection);
    assert!(cores.peers.is_empty() && cores.accounts.is_empty());
    assert_eq!(outs(&projection.take_notes()), [Out::SessionTimeout; 2]);
}

#[test]
fn a_renewed_access_is_no_step_at_all() {
    let (mut projection, mut cores) = (Projection::default(), Cores::default());
    projection.put_person(person(1, &[1]), None, at(0));
    cores.take(&mut projection);
    let mut renewed = person(1, &[1]);
    renewed.clients[0].access_until = Some(Timestamp(48 * HOUR));
    projection.put_person(renewed, None, at(HOUR));
    assert_eq!(projection.take_steps(), []);
    projection.tick(at(24 * HOUR));
    assert_eq!(projection.take_steps(), []);
    assert_eq!(projection.next_deadline(), Some(Timestamp(48 * HOUR)));
}

#[test]
fn a_change_of_one_users_rate_mentions_no_peer_and_nobody_else() {
    let (mut projection, mut cores) = (Projection::default(), Cores::default());
    projection.put_person(person(1, &[1]), None, at(0));
    projection.put_person(person(2, &[2]), None, at(0));
    cores.take(&mut projection);
    let mut slower = person(1, &[1]);
    slower.rules.user_rate.down_bps = Some(8_000_000);
    projection.put_person(slower, None, at(1));
    let steps = projection.take_steps();
    let [Step::PutAccount(plan)] = steps.as_slice() else { panic!("{steps:?}") };
    assert_eq!((plan.down, plan.volume), (Some(1_000_000), Volume::Keep));
}

#[test]
fn a_date_follows_the_calendar_and_a_span_does_not() {
    let mut projection = Projection::default();
    let mut user = person(1, &[1]);
    user.expires_at = Some(Timestamp(10 * HOUR));
    projection.put_person(user, None, at(0));
    let _ = projection.take_notes();
    // The calendar is set back by two hours, then forward by twelve.
    let back = Moment { wall: Timestamp(-HOUR), steady: Timestamp(HOUR) };
    projection.calendar_was_set(back);
    projection.tick(Moment { wall: Timestamp(9 * HOUR), steady: Timestamp(11 * HOUR) });
    assert_eq!(outs(&projection.take_notes()), []);
    let forward = Moment { wall: Timestamp(21 * HOUR), steady: Timestamp(11 * HOUR) };
    projection.calendar_was_set(forward);
    assert_eq!(outs(&projection.take_notes()), [Out::UserExpired]);
    let mut projection = Projection::default();
    projection.put_person(person(1, &[1]), None, at(0));
    let _ = projection.take_notes();
    projection.calendar_was_set(Moment { wall: Timestamp(1000 * HOUR), steady: Timestamp(HOUR) });
    assert_eq!(outs(&projection.take_notes()), [], "24 hours are 24 hours");
}

/// A change of a user.
type Change = fn(&mut Person);

#[test]
fn every_reason_that_is_in_the_records_keeps_a_device_out() {
    let changes: [(Out, Change); 6] = [
        (Out::UserDisabled, |user| user.state = UserState::Disabled),
        (Out::UserBanned, |user| user.state = UserState::Banned),
        (Out::UserExpired, |user| user.expires_at = Some(Timestamp(5))),
        (Out::DeviceDisabled, |user| user.clients[0].enabled = false),
        (Out::NoAddress, |user| user.clients[0].addresses.clear()),
        (Out::NotSignedIn, |user| user.clients[0].access_from = None),
    ];
    for (why, change) in changes {
        let (mut projection, mut cores) = (Projection::default(), Cores::default());
        projection.put_person(person(1, &[1]), None, at(0));
        cores.take(&mut projection);
        let mut changed = person(1, &[1]);
        change(&mut changed);
        projection.put_person(changed, None, at(10));
        cores.take(&mut projection);
        assert!(cores.peers.is_empty(), "{why:?}");
        assert!(outs(&projection.take_notes()).contains(&why), "{why:?}");
        assert_eq!(projection.stand(client(1).id), Some(Stand::Out(why)));
        projection.put_person(person(1, &[1]), None, at(11));
        cores.take(&mut projection);
        assert_eq!(cores.peers.len(), 1, "back after {why:?}");
    }
}

#[test]
fn a_killed_session_comes_back_only_with_another_sign_in() {
    let (mut projection, mut cores) = (Projection::default(), Cores::default());
    projection.put_person(person(1, &[1]), None, at(0));
    projection.see(&PublicKey([1; 32]), seen(State::Online), at(1));
    assert!(projection.end_access(client(1).id, Out::Killed, at(2)));
    assert!(!projection.end_access(client(1).id, Out::Killed, at(2)), "once");
    cores.take(&mut projection);
    assert!(cores.peers.is_empty());
    let notes = projection.take_notes();
    assert!(
        matches!(
            notes[..],
            [
                Note::In { .. },
                Note::Connected(_),
                Note::Disconnected(_, Some(Out::Killed)),
                Note::Out { why: Out::Killed, ends_access: true, .. },
            ]
        ),
        "{notes:?}"
    );
    // The store has heard of it.
    let mut ended = person(1, &[1]);
    ended.clients[0].access_until = Some(Timestamp(2));
    projection.put_person(ended, None, at(3));
    assert_eq!(projection.stand(client(1).id), Some(Stand::Out(Out::Killed)));
    projection.put_person(person(1, &[1]), None, at(4));
    assert_eq!(projection.stand(client(1).id), Some(Stand::Out(Out::Killed)), "an old record");
    let mut again = person(1, &[1]);
    again.clients[0].access_from = Some(Timestamp(5));
    projection.put_person(again, None, at(5));
    cores.take(&mut projection);
    assert_eq!(cores.peers.len(), 1);
}

#[test]
fn an_idle_device_loses_its_access_and_a_busy_one_does_not() {
    let mut projection = Projection::default();
    let mut user = person(1, &[1, 2]);
    user.rules.idle_timeout_s = 60;
    projection.put_person(user, None, at(0));
    let busy = projection.peers[&PublicKey([1; 32])].account;
    let packet = Counted { up_bytes: 1, up_packets: 1, ..Counted::default() };
    for second in 1..=120 {
        projection.count(busy, packet, 1000, at(second * 1000));
        projection.tick(at(second * 1000));
    }
    assert_eq!(projection.stand(client(1).id), Some(Stand::In));
    assert_eq!(projection.stand(client(2).id), Some(Stand::Out(Out::IdleTimeout)));
}

fn with_quota(action: QuotaAction) -> Person {
    let mut user = person(1, &[1]);
    user.clients[0].access_until = None;
    let throttle_bps = Some(64_000);
    user.rules.quota = Some(Quota { bytes: 1000, period: Period::Day, action, throttle_bps });
    user
}

#[test]
fn a_quota_ends_sessions_and_begins_anew_at_midnight() {
    let (mut projection, mut cores) = (Projection::default(), Cores::default());
    projection.put_person(with_quota(QuotaAction::Disconnect), Some(400), at(HOUR));
    cores.take(&mut projection);
    let device = cores.peers[&PublicKey([1; 32])].account;
    let user = &cores.accounts[&cores.accounts[&device].parent.unwrap()];
    assert_eq!((user.volume, user.exhausted), (Volume::Left(600), Exhausted::Drop));
    let bytes = |up_bytes| Counted { up_bytes, up_packets: 1, ..Counted::default() };
    projection.count(device, bytes(599), 1000, at(2 * HOUR));
    assert_eq!(cores.take(&mut projection), 0);
    projection.count(device, bytes(1), 1000, at(3 * HOUR));
    cores.take(&mut projection);
    assert!(cores.peers.is_empty());
    assert_eq!(outs(&projection.take_notes()), [Out::QuotaExceeded]);
    assert_eq!(projection.next_deadline(), Some(Timestamp(24 * HOUR)));
    projection.tick(at(24 * HOUR));
    cores.take(&mut projection);
    assert_eq!(cores.peers.len(), 1);
    let notes = projection.take_notes();
    assert!(notes.iter().any(|note| matches!(note, Note::QuotaRenewed { .. })), "{notes:?}");
    let device = cores.peers[&PublicKey([1; 32])].account;
    let user = &cores.accounts[&cores.accounts[&device].parent.unwrap()];
    assert_eq!(user.volume, Volume::Left(1000));
}

#[test]
fn a_quota_that_throttles_or_notifies_leaves_the_session_alone_and_says_so_once() {
    for action in [QuotaAction::Throttle, QuotaAction::Notify] {
        let (mut projection, mut cores) = (Projection::default(), Cores::default());
        projection.put_person(with_quota(action), Some(0), at(0));
        cores.take(&mut projection);
        let user = person(1, &[]).id;
        projection.quota_may_be_reached(user, true, at(1));
        projection.quota_may_be_reached(user, true, at(2));
        assert_eq!(cores.take(&mut projection), 0, "the cores know what to do");
        let reached = |note: &&Note| matches!(note, Note::QuotaReached { .. });
        assert_eq!(projection.take_notes().iter().filter(reached).count(), 1);
        // Raised by an administrator: what is left is told, and nothing else.
        let mut raised = with_quota(action);
        raised.rules.quota = raised.rules.quota.map(|quota| Quota { bytes: 5000, ..quota });
        projection.put_person(raised, None, at(3));
        let steps = projection.take_steps();
        let [Step::PutAccount(plan)] = steps.as_slice() else { panic!("{steps:?}") };
        assert_eq!(plan.volume, Volume::Left(4000));
    }
}

#[test]
fn a_calendar_that_is_set_back_over_midnight_gives_no_second_quota() {
    let mut projection = Projection::default();
    projection.put_person(with_quota(QuotaAction::Disconnect), Some(1000), at(25 * HOUR));
    assert_eq!(projection.stand(client(1).id), Some(Stand::Out(Out::QuotaExceeded)));
    let back = Moment { wall: Timestamp(23 * HOUR), steady: Timestamp(26 * HOUR) };
    projection.calendar_was_set(back);
    let midnight = Moment { wall: Timestamp(24 * HOUR + 1), steady: Timestamp(27 * HOUR + 1) };
    projection.tick(midnight);
    assert_eq!(projection.stand(client(1).id), Some(Stand::Out(Out::QuotaExceeded)));
    let next = Moment { wall: Timestamp(48 * HOUR), steady: Timestamp(51 * HOUR) };
    projection.tick(next);
    assert_eq!(projection.stand(client(1).id), Some(Stand::In));
}

#[test]
fn one_session_too_many_waits_until_another_ends() {
    let mut projection = Projection::default();
    let mut user = person(1, &[1, 2, 3]);
    user.rules.sessions_max = 2;
    projection.put_person(user, None, at(0));
    for number in 1..=3 {
        let key = PublicKey([number; 32]);
        projection.see(&key, seen(State::Online), at(i64::from(number)));
    }
    assert_eq!(projection.stand(client(3).id), Some(Stand::Out(Out::TooManySessions)));
    assert_eq!(projection.sessions().len(), 2);
    projection.see(&PublicKey([1; 32]), seen(State::Disconnected), at(9));
    assert_eq!(projection.stand(client(3).id), Some(Stand::In));
}

#[test]
fn the_oldest_session_goes_where_the_policy_says_so() {
    let mut projection = Projection::default();
    let mut user = person(1, &[1, 2, 3]);
    user.rules.sessions_max = 2;
    user.rules.excess = Excess::KickOldest;
    projection.put_person(user, None, at(0));
    for number in [2, 1, 3] {
        projection.see(&PublicKey([number; 32]), seen(State::Online), at(100 - i64::from(number)));
    }
    assert_eq!(
        projection.stand(client(3).id),
        Some(Stand::In),
        "the newest stays, whatever it says"
    );
    assert_eq!(projection.stand(client(1).id), Some(Stand::In));
    assert_eq!(projection.stand(client(2).id), Some(Stand::Out(Out::Displaced)));
}

#[test]
fn a_session_that_was_seen_before_its_user_was_known_is_the_users() {
    let mut projection = Projection::default();
    let key = PublicKey([1; 32]);
    projection.see(&key, seen(State::Online), at(0));
    assert_eq!(projection.sessions().of(&key).unwrap().owner, None);
    let user = person(1, &[1]);
    let owner = (user.id, client(1).id);
    projection.put_person(user, None, at(1));
    assert_eq!(projection.sessions().of(&key).unwrap().owner, Some(owner));
    projection.remove_person(owner.0, at(2));
    assert!(projection.sessions().is_empty());
}

#[test]
fn who_waits_for_a_session_to_end_waits_no_longer_when_the_oldest_has_to_go() {
    let mut projection = Projection::default();
    let mut user = person(1, &[1, 2]);
    user.rules.sessions_max = 1;
    user.rules.excess = Excess::Refuse;
    projection.put_person(user.clone(), None, at(0));
    for number in [1, 2] {
        let key = PublicKey([number; 32]);
        projection.see(&key, seen(State::Online), at(i64::from(number)));
    }
    assert_eq!(projection.stand(client(2).id), Some(Stand::Out(Out::TooManySessions)));
    user.rules.excess = Excess::KickOldest;
    projection.put_person(user, None, at(3));
    assert_eq!(projection.stand(client(2).id), Some(Stand::In));
    projection.see(&PublicKey([2; 32]), seen(State::Online), at(4));
    assert_eq!(projection.stand(client(1).id), Some(Stand::Out(Out::Displaced)));
}

#[test]
fn limits_of_group_and_gateway_lengthen_the_chain_of_those_who_are_there() {
    let (mut projection, mut cores) = (Projection::default(), Cores::default());
    let group = GroupId::fresh();
    let rate = Rate { up_bps: Some(8000), ..Rate::default() };
    projection.put_group(group, Rate::default());
    let mut user = person(1, &[1]);
    user.group = Some(group);
    projection.put_person(user, None, at(0));
    projection.put_person(person(2, &[2]), None, at(0));
    cores.take(&mut projection);
    let depth = |cores: &Cores, number: u8| {
        let mut at = Some(cores.peers[&PublicKey([number; 32])].account);
        let mut depth = 0;
        while let Some(number) = at {
            (at, depth) = (cores.accounts[&number].parent, depth + 1);
        }
        depth
    };
    assert_eq!((depth(&cores, 1), depth(&cores, 2)), (2, 2));
    projection.put_group(group, rate);
    cores.take(&mut projection);
    assert_eq!((depth(&cores, 1), depth(&cores, 2)), (3, 2));
    projection.set_gateway_rate(rate);
    cores.take(&mut projection);
    assert_eq!((depth(&cores, 1), depth(&cores, 2)), (4, 3));
}

#[test]
fn a_user_who_changes_groups_has_new_accounts_below_the_other_one_and_is_never_without() {
    let (mut projection, mut cores) = (Projection::default(), Cores::default());
    let groups = [GroupId::fresh(), GroupId::fresh()];
    for (at, group) in groups.into_iter().enumerate() {
        let rate = Rate { up_bps: Some(8000 * (at as u64 + 1)), ..Rate::default() };
        projection.put_group(group, rate);
    }
    let mut user = with_quota(QuotaAction::Disconnect);
    user.group = Some(groups[0]);
    projection.put_person(user.clone(), Some(0), at(0));
    cores.take(&mut projection);
    let chain = |cores: &Cores| {
        let device = cores.peers[&PublicKey([1; 32])].account;
        let user = cores.accounts[&device].parent.unwrap();
        (device, user, cores.accounts[&user].parent.unwrap())
    };
    let before = chain(&cores);
    let more = Counted { up_bytes: 400, up_packets: 1, ..Counted::default() };
    projection.count(before.0, more, 1000, at(1));
    user.group = Some(groups[1]);
    projection.put_person(user, None, at(2));
    cores.take(&mut projection);
    let after = chain(&cores);
    assert_eq!(cores.accounts[&after.2].up, Some(2000));
    assert_eq!(cores.accounts[&after.1].volume, Volume::Left(600), "what is left goes with it");
    assert!(before.0 != after.0 && before.1 != after.1);
    assert!(!cores.accounts.contains_key(&before.0) && !cores.accounts.contains_key(&before.1));
}

#[test]
fn a_clock_that_was_wrong_at_the_start_neither_prolongs_nor_ends_a_sign_in() {
    const DAY: i64 = 24 * HOUR;
    for step in [2 * DAY, -2 * DAY] {
        let mut projection = Projection::default();
        // The calendar is set by `step` an hour after the start; then somebody signs in for a day.
        let wall = 100 * DAY + HOUR + step;
        let now = Moment { wall: Timestamp(wall), steady: Timestamp(100 * DAY + HOUR) };
        let mut user = person(1, &[1]);
        user.clients[0].access_from = Some(Timestamp(wall));
        user.clients[0].access_until = Some(Timestamp(wall + DAY));
        projection.put_person(user.clone(), None, now);
        assert_eq!(projection.stand(client(1).id), Some(Stand::In), "{step}");
        let later = |ms: i64| Moment {
            wall: Timestamp(wall + ms),
            steady: Timestamp(100 * DAY + HOUR + ms),
        };
        projection.tick(later(DAY - 1));
        projection.put_person(user, None, later(DAY - 1));
        assert_eq!(projection.stand(client(1).id), Some(Stand::In), "{step}");
        projection.tick(later(DAY));
        assert_eq!(projection.stand(client(1).id), Some(Stand::Out(Out::SessionTimeout)));
    }
}

#[test]
fn what_the_plane_lost_is_said_again_from_the_top_down_and_what_waits_comes_first() {
    let (mut projection, mut cores) = (Projection::default(), Cores::default());
    projection.set_gateway_rate(Rate { up_bps: Some(8_000), ..Rate::default() });
    projection.put_person(person(1, &[1, 2]), None, at(0));
    cores.take(&mut projection);
    let has_account = |cores: &Cores, number| cores.accounts.contains_key(&number);
    let has_peer = |cores: &Cores, public: &PublicKey, account| {
        cores.peers.get(public).is_some_and(|peer| peer.account == account)
    };
    let missing = |cores: &Cores| {
        projection.missing(|number| has_account(cores, number), |key, n| has_peer(cores, key, n))
    };
    assert_eq!(missing(&cores), [], "nothing is lost");
    let whole = (cores.accounts.clone(), cores.peers.clone());
    let lost = cores.peers.remove(&PublicKey([2; 32])).unwrap();
    assert_eq!(missing(&cores), [Step::PutPeer(lost)]);
    let all = missing(&Cores::default());
    let mut projection = projection;
    projection.put_person(person(3, &[3]), None, at(1));
    projection.put_first(all);
    let mut fresh = Cores::default();
    fresh.take(&mut projection);
    assert!(whole.0.keys().all(|number| fresh.accounts.contains_key(number)));
    assert!(whole.1.keys().all(|public| fresh.peers.contains_key(public)));
    assert!(fresh.peers.contains_key(&PublicKey([3; 32])));
}
