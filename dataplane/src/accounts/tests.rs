//! Homes and branches of two cores and more, with messages that take their time, against what may
//! be and what is conserved.

use std::collections::VecDeque;

use proptest::prelude::*;
use ringway_flow::qos::Rate;

use super::change::{AccountChange, AccountPage, Exhausted, Volume, VolumeChange};
use super::*;
use crate::command::Refusal;

const fn at(us: u64) -> Now {
    Now { mono: Instant::from_nanos(1_000_000_000 + us * 1_000), wall: Duration::ZERO }
}

fn change(id: u32) -> AccountChange {
    AccountChange {
        id: AccountId(id),
        owner: 1,
        parent: None,
        rates: [None; 2],
        volume: VolumeChange::Keep,
    }
}

/// Cores whose messages are delivered by hand.
struct Cores {
    all: Vec<Accounts>,
    lines: Vec<Vec<VecDeque<Credit>>>,
}

impl Cores {
    fn new(cores: u16) -> Self {
        let of = |core| {
            let usage = UsageWriter::in_memory(64).expect("room");
            Accounts::new(CoreId(core), cores, usage, at(0).mono)
        };
        let lines = (0..cores).map(|_| (0..cores).map(|_| VecDeque::new()).collect());
        Self { all: (0..cores).map(of).collect(), lines: lines.collect() }
    }

    fn put(&mut self, change: &AccountChange, now: Now) {
        for accounts in &mut self.all {
            accounts.put(change, now.mono).expect("an account");
        }
        self.collect();
    }

    fn pass(&mut self, core: usize, id: u32, way: Way, len: usize, now: Now) -> bool {
        let accounts = &mut self.all[core];
        let passed = accounts.admit(AccountId(id), way, len, now).is_ok();
        if passed {
            accounts.charge(AccountId(id), way, len, now);
        }
        self.collect();
        passed
    }

    /// Messages are on their way.
    fn collect(&mut self) {
        for (from, accounts) in self.all.iter_mut().enumerate() {
            for (to, credit) in accounts.outbox.drain(..) {
                self.lines[from][usize::from(to)].push_back(credit);
            }
        }
    }

    /// The next message of a line arrives.
    fn deliver(&mut self, from: usize, to: usize, now: Now) -> bool {
        let Some(credit) = self.lines[from][to].pop_front() else { return false };
        self.all[to].receive(credit, now.mono);
        self.collect();
        true
    }

    fn deliver_all(&mut self, now: Now) {
        let cores = self.all.len();
        while (0..cores * cores).any(|line| self.deliver(line / cores, line % cores, now)) {}
    }

    /// Bytes of the volume: what the home has, what cores hold, what is on its way.
    fn volume(&self, id: u32, now: Now) -> u64 {
        let mut sum = 0;
        for accounts in &self.all {
            let mut page = AccountPage { cursor: Some(id), accounts: Vec::with_capacity(1) };
            accounts.read(&mut page, now.mono);
            sum += page.accounts[0].held_volume;
            sum += page.accounts[0].home.and_then(|home| home.volume).unwrap_or(0);
        }
        for credit in self.lines.iter().flatten().flatten() {
            sum += match credit.kind {
                Kind::Grant(grant) => grant.amounts[branch::VOLUME],
                Kind::GiveBack { amounts, .. } => amounts[branch::VOLUME],
                Kind::Ask(_) | Kind::Recall => 0,
            };
        }
        sum
    }
}

/// Something that happens.
#[derive(Clone, Debug)]
enum Step {
    Packets { core: usize, way: bool, len: usize, count: usize },
    Deliver { from: usize, to: usize, count: usize },
    Sleep { us: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..3_usize, any::<bool>(), 1..1_500_usize, 1..40_usize)
            .prop_map(|(core, way, len, count)| Step::Packets { core, way, len, count }),
        (0..3_usize, 0..3_usize, 1..4_usize).prop_map(|(from, to, count)| Step::Deliver {
            from,
            to,
            count
        }),
        prop_oneof![1..900_u64, 1_000..30_000_u64, Just(150_000)].prop_map(|us| Step::Sleep { us }),
    ];
    proptest::collection::vec(step, 1..300)
}

proptest! {
    #[test]
    fn never_more_passes_than_rate_and_burst_and_the_volume_is_conserved(
        steps in steps(),
        bytes_per_second in 200_000..20_000_000_u64,
        burst in 0..400_000_u64,
        bytes in 0..3_000_000_u64,
        id in 0..3_u32,
    ) {
        let mut cores = Cores::new(3);
        let rate = Rate { bytes_per_second, burst };
        let volume = Volume { number: 1, bytes, then: Exhausted::Drop };
        let change = AccountChange {
            rates: [Some(rate); 2],
            volume: VolumeChange::Begin(volume),
            ..change(id)
        };
        cores.put(&change, at(0));
        let (mut us, mut passed) = (0, [0_u64; 2]);
        for step in steps {
            match step {
                Step::Packets { core, way, len, count } => {
                    let way = if way { Way::ToExit } else { Way::ToClient };
                    for _ in 0..count {
                        if cores.pass(core, id, way, len, at(us)) {
                            passed[way as usize] += len as u64;
                        }
                    }
                }
                Step::Deliver { from, to, count } => {
                    (0..count).for_each(|_| _ = cores.deliver(from, to, at(us)));
                }
                Step::Sleep { us: more } => {
                    us += more;
                    cores.all.iter_mut().for_each(|accounts| accounts.keep_house(at(us).mono));
                    cores.collect();
                }
            }
            let allowed = u128::from(bytes_per_second) * u128::from(us) / 1_000_000
                + u128::from(rate.burst());
            prop_assert!(passed.iter().all(|bytes| u128::from(*bytes) <= allowed));
            let sum = passed[0] + passed[1];
            prop_assert!(sum <= bytes);
            if cores.all.iter().all(|accounts| accounts.exhausted.is_empty()) {
                prop_assert_eq!(cores.volume(id, at(us)) + sum, bytes);
            }
        }
        let said: usize = cores.all.iter().map(|accounts| accounts.exhausted.len()).sum();
        prop_assert!(said <= 1);
        // What was on its way arrives, and then whoever sends has what is left, and no less.
        cores.deliver_all(at(us));
        let mut sum = passed[0] + passed[1];
        for round in 0..30_000_u64 {
            us += 5_000;
            let core = (round % 3) as usize;
            sum += if cores.pass(core, id, Way::ToExit, 100, at(us)) { 100 } else { 0 };
            cores.all.iter_mut().for_each(|accounts| accounts.keep_house(at(us).mono));
            cores.collect();
            cores.deliver_all(at(us));
            if said == 1 || cores.all.iter().any(|accounts| !accounts.exhausted.is_empty()) {
                break;
            }
        }
        let said: usize = cores.all.iter().map(|accounts| accounts.exhausted.len()).sum();
        prop_assert_eq!(said, 1);
        prop_assert!(sum <= bytes && bytes - sum < 1_500, "{} of {}", sum, bytes);
    }
}

#[test]
fn a_steady_flow_far_from_home_never_waits_for_answers_that_take_a_millisecond() {
    let mut cores = Cores::new(2);
    let rate = Rate::of(12_500_000);
    cores.put(&AccountChange { rates: [Some(rate); 2], ..change(0) }, at(0));
    cores.all[1].bind(AccountId(0), at(0).mono);
    cores.collect();
    cores.deliver_all(at(0));
    // 1,250 bytes every 100 us are all that it may; answers take up to 1.5 ms.
    for step in 0..100_000_u64 {
        let now = at(step * 100);
        assert!(cores.pass(1, 0, Way::ToClient, 1_250, now), "in step {step}");
        if step % 10 == 0 {
            cores.deliver(1, 0, now);
        }
        if step % 10 == 5 {
            cores.deliver(0, 1, now);
        }
    }
}

#[test]
fn chains_are_short_have_no_loops_and_know_who_uses_them() {
    let mut cores = Cores::new(1);
    let below =
        |id: u32, parent: u32| AccountChange { parent: Some(AccountId(parent)), ..change(id) };
    cores.put(&change(0), at(0));
    (1..4).for_each(|id| cores.put(&below(id, id - 1), at(0)));
    let accounts = &mut cores.all[0];
    let mut refused = |change: &AccountChange| accounts.put(change, at(0).mono).unwrap_err();
    assert_eq!(refused(&below(4, 3)), Refusal::AccountChain);
    assert_eq!(refused(&below(5, 5)), Refusal::AccountChain);
    assert_eq!(refused(&below(0, 3)), Refusal::AccountChain);
    assert_eq!(refused(&below(6, 77)), Refusal::UnknownAccount);
    assert_eq!(refused(&change(ACCOUNTS_MAX)), Refusal::TooManyAccounts);
    assert!(!accounts.knows(AccountId(4)));
    accounts.bind(AccountId(3), at(0).mono);
    let peers = |accounts: &Accounts| {
        let mut page = AccountPage { cursor: None, accounts: Vec::with_capacity(9) };
        accounts.read(&mut page, at(0).mono);
        page.accounts.iter().map(|status| status.peers).collect::<Vec<_>>()
    };
    assert_eq!(peers(accounts), [1, 1, 1, 1]);
    // It moves with its peer.
    accounts.put(&below(3, 0), at(0).mono).unwrap();
    assert_eq!(peers(accounts), [1, 0, 0, 1]);
    assert_eq!(accounts.remove(AccountId(0)), Err(Refusal::AccountInUse));
    assert_eq!(accounts.remove(AccountId(3)), Err(Refusal::AccountInUse));
    assert_eq!(accounts.remove(AccountId(9)), Err(Refusal::UnknownAccount));
    accounts.unbind(AccountId(3));
    for id in [3, 2, 1, 0] {
        accounts.remove(AccountId(id)).unwrap();
    }
    assert_eq!(accounts.len(), 0);
}

#[test]
fn an_account_moves_with_the_accounts_below_it() {
    let mut cores = Cores::new(1);
    let below =
        |id: u32, parent: u32| AccountChange { parent: Some(AccountId(parent)), ..change(id) };
    // A user with two devices; later a group, and later still a gateway, get limits.
    let (user, devices, group, gateway) = (0, [1, 2], 3, 4);
    cores.put(&change(user), at(0));
    for device in devices {
        cores.put(&below(device, user), at(0));
        cores.all[0].bind(AccountId(device), at(0).mono);
    }
    let limited = |id: u32| AccountChange { rates: [Some(Rate::of(1_000)); 2], ..change(id) };
    cores.put(&limited(group), at(0));
    cores.put(&below(user, group), at(0));
    assert!(!cores.pass(0, devices[1], Way::ToExit, 1 << 20, at(0)), "the group has a limit");
    cores.put(&change(gateway), at(0));
    cores.put(&AccountChange { parent: Some(AccountId(gateway)), ..limited(group) }, at(0));
    let accounts = &mut cores.all[0];
    let mut page = AccountPage { cursor: None, accounts: Vec::with_capacity(9) };
    accounts.read(&mut page, at(0).mono);
    let peers: Vec<u32> = page.accounts.iter().map(|status| status.peers).collect();
    assert_eq!(peers, [2, 1, 1, 2, 2]);
    let mut put = |change: &AccountChange| accounts.put(change, at(0).mono);
    // Neither below itself, nor so deep that devices are the fifth.
    assert_eq!(put(&below(gateway, devices[0])), Err(Refusal::AccountChain));
    assert_eq!(put(&below(group, user)), Err(Refusal::AccountChain));
    assert_eq!(put(&change(5)), Ok(()));
    assert_eq!(put(&below(gateway, 5)), Err(Refusal::AccountChain));
    // Out of the group: below the gateway itself.
    assert_eq!(put(&below(user, gateway)), Ok(()));
    assert_eq!(put(&below(group, 5)), Ok(()));
    assert_eq!(accounts.remove(AccountId(group)), Ok(()));
    assert_eq!(accounts.remove(AccountId(gateway)), Err(Refusal::AccountInUse));
}

#[test]
fn pages_go_on_where_they_stopped() {
    let mut cores = Cores::new(2);
    (0..700).filter(|id| id % 3 > 0).for_each(|id| cores.put(&change(id), at(0)));
    let mut page = AccountPage { cursor: Some(0), accounts: Vec::with_capacity(100) };
    let mut seen = Vec::new();
    while page.cursor.is_some() {
        cores.all[1].read(&mut page, at(0).mono);
        assert!(page.accounts.len() <= 100);
        seen.extend(page.accounts.iter().map(|status| (status.id.0, status.home.is_some())));
    }
    let expected = (0..700).filter(|id| id % 3 > 0).map(|id| (id, id % 2 == 1));
    assert_eq!(seen, expected.collect::<Vec<_>>());
}

#[test]
fn a_message_about_an_account_that_is_gone_does_nothing() {
    let mut cores = Cores::new(2);
    cores.put(&AccountChange { rates: [Some(Rate::of(1_000)); 2], ..change(0) }, at(0));
    assert!(!cores.pass(1, 0, Way::ToExit, 100, at(0)));
    cores.all.iter_mut().for_each(|accounts| accounts.remove(AccountId(0)).unwrap());
    cores.deliver_all(at(0));
    assert!(cores.pass(1, 0, Way::ToExit, 100, at(1)), "nothing limits it");
    assert!(cores.all.iter().all(|accounts| accounts.sleep(at(1).mono).is_none()));
}
