//! The cores can do whatever is asked of them, in whatever order records change.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Act {
    Put { user: u8, devices: Vec<u8>, state: u8, group: bool, quota: bool, until_h: i64 },
    Remove(u8),
    See(u8, bool),
    Count(u8, u64),
    Kill(u8),
    Group(bool),
    Gateway(bool),
    Wait(i64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let user = 1..4_u8;
    let device = 1..9_u8;
    let put = (
        user.clone(),
        prop::collection::btree_set(0..3_u8, 0..3),
        0..8_u8,
        any::<bool>(),
        any::<bool>(),
        0..5_i64,
    )
        .prop_map(|(user, devices, state, group, quota, until_h)| {
            // A device belongs to one user.
            let devices = devices.into_iter().map(|device| device * 3 + user).collect();
            Act::Put { user, devices, state, group, quota, until_h }
        });
    let act = prop_oneof![
        4 => put,
        1 => user.prop_map(Act::Remove),
        3 => (device.clone(), any::<bool>()).prop_map(|(device, live)| Act::See(device, live)),
        3 => (device.clone(), 0..800_u64).prop_map(|(device, bytes)| Act::Count(device, bytes)),
        1 => device.prop_map(Act::Kill),
        1 => any::<bool>().prop_map(Act::Group),
        1 => any::<bool>().prop_map(Act::Gateway),
        2 => (0..3 * HOUR).prop_map(Act::Wait),
    ];
    prop::collection::vec(act, 1..60)
}

/// Whether the cores have exactly whoever is in, and nothing else.
fn agree(projection: &Projection, cores: &Cores) -> Result<(), TestCaseError> {
    let is_in: BTreeSet<PublicKey> = projection
        .users
        .values()
        .flat_map(|entry| entry.person.clients.iter())
        .filter(|client| projection.stand(client.id) == Some(Stand::In))
        .map(|client| client.public)
        .collect();
    let peers: BTreeSet<PublicKey> = cores.peers.keys().copied().collect();
    prop_assert_eq!(&is_in, &peers);
    for session in projection.sessions().after(None) {
        prop_assert_eq!(projection.stand(session.owner.unwrap().1), Some(Stand::In));
    }
    for entry in projection.users.values() {
        let keys = entry.person.clients.iter().map(|client| client.public);
        let live = keys.filter(|key| projection.sessions().of(key).is_some());
        prop_assert!(live.count() <= entry.person.rules.sessions_max.max(2) as usize);
    }
    for (number, plan) in &cores.accounts {
        prop_assert_eq!(plan.number, *number);
    }
    // Nothing is kept of accounts that nobody draws on, but for groups and the gateway.
    prop_assert!(cores.accounts.len() <= 2 * peers.len() + 3);
    Ok(())
}

proptest! {
    #[test]
    fn the_cores_can_do_every_step_and_have_whoever_is_in(acts in acts()) {
        let (mut projection, mut cores) = (Projection::default(), Cores::default());
        let groups = [77, 78].map(|number| GroupId(uuid::Uuid::from_u128(number)));
        let limit = |on: bool| Rate { up_bps: on.then_some(8000), ..Rate::default() };
        let mut now = 0;
        for act in acts {
            match act {
                Act::Put { user, devices, state, group: grouped, quota, until_h } => {
                    let mut person = person(user, &devices);
                    person.group = grouped.then_some(groups[usize::from(state % 2)]);
                    if state == 0 {
                        person.state = UserState::Disabled;
                    }
                    person.rules.sessions_max = 1 + u32::from(state % 2);
                    person.rules.idle_timeout_s = u32::from(state / 4) * 3600;
                    if state % 3 == 0 {
                        person.rules.excess = Excess::KickOldest;
                    }
                    person.rules.quota = quota.then_some(Quota {
                        bytes: 1000,
                        period: Period::Day,
                        action: QuotaAction::Disconnect,
                        throttle_bps: None,
                    });
                    for client in &mut person.clients {
                        client.access_from = Some(Timestamp(now));
                        client.access_until = Some(Timestamp(now + until_h * HOUR));
                    }
                    projection.put_person(person, None, at(now));
                }
                Act::Remove(user) => projection.remove_person(person(user, &[]).id, at(now)),
                Act::See(device, live) => {
                    let state = if live { State::Online } else { State::Disconnected };
                    let key = PublicKey([device; 32]);
                    // Others are peers of the file.
                    if projection.device_of(&key).is_some() {
                        projection.see(&key, seen(state), at(now));
                    }
                }
                Act::Count(device, bytes) => {
                    let more = Counted { up_bytes: bytes, up_packets: 1, ..Counted::default() };
                    if let Some(peer) = cores.peers.get(&PublicKey([device; 32])) {
                        projection.count(peer.account, more, 1000, at(now));
                    }
                }
                Act::Kill(device) => {
                    projection.end_access(client(device).id, Out::Killed, at(now));
                }
                Act::Group(on) => {
                    projection.put_group(groups[usize::from(now % 2 == 0)], limit(on));
                }
                Act::Gateway(on) => projection.set_gateway_rate(limit(on)),
                Act::Wait(ms) => {
                    now += ms;
                    projection.tick(at(now));
                }
            }
            cores.take(&mut projection);
            agree(&projection, &cores)?;
        }
    }
}
