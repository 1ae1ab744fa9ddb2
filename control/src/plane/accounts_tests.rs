//! What the cores are told about accounts, in which order, and what is remembered.

#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::wildcard_enum_match_arm, reason = "tests that look for one of many")]

use ringway_dataplane::command::{PeerChange, Report};
use ringway_dataplane::{Envelope, Refusal};
use ringway_proto::CoreId;

use super::*;
use crate::plane::{Operation, Ticket};

const RATE: Rate = Rate { bytes_per_second: 1_000, burst: 50_000 };

/// A plane, and cores that take everything but what they are told to refuse.
struct Scene {
    plane: Plane,
    refuse: Option<Refusal>,
    told: Vec<(u16, Command)>,
}

impl Scene {
    fn new() -> Self {
        Self { plane: Plane::new(2), refuse: None, told: Vec::new() }
    }

    fn apply(&mut self, steps: impl IntoIterator<Item = Operation>) -> Result<(), Refusal> {
        let ticket = self.plane.apply(steps);
        self.settle(ticket)
    }

    fn settle(&mut self, ticket: Ticket) -> Result<(), Refusal> {
        self.told.clear();
        while self.plane.pending() > 0 {
            for core in 0..2 {
                let sent: Vec<_> = self.plane.outgoing(CoreId(core)).collect();
                for Envelope { sequence, command } in sent {
                    let outcome = self.refuse.map_or(Ok(()), Err);
                    self.told.push((core, copy(&command)));
                    let report = Report::Done { sequence, outcome, spent: command };
                    self.plane.report(CoreId(core), report);
                }
            }
        }
        self.plane.outcome(ticket).unwrap()
    }

    /// The changes of accounts that core 1 was told.
    fn changes(&self) -> Vec<AccountChange> {
        let change = |(core, command): &(u16, Command)| match command {
            Command::PutAccount(change) if *core == 1 => Some(**change),
            _ => None,
        };
        self.told.iter().filter_map(change).collect()
    }
}

fn copy(command: &Command) -> Command {
    match command {
        Command::PutAccount(change) => Command::PutAccount(change.clone()),
        Command::RemoveAccount(id) => Command::RemoveAccount(*id),
        Command::RemovePeer(public) => Command::RemovePeer(*public),
        Command::PutPeer(change) => Command::PutPeer(Box::new(PeerChange {
            account: change.account,
            allowed_ips: change.allowed_ips.clone(),
            ..PeerChange::of(change.public)
        })),
        _ => Command::Stop,
    }
}

fn put(id: u32, account: Account) -> Operation {
    Operation::PutAccount(AccountId(id), Box::new(account))
}

fn below(parent: u32) -> Account {
    Account { parent: Some(AccountId(parent)), ..Account::default() }
}

fn with_volume(number: u64, bytes: u64) -> Account {
    let volume = Some(AccountVolume { number, bytes, then: Exhausted::Drop });
    Account { owner: 5, volume, ..Account::default() }
}

fn key(n: u8) -> PublicKey {
    PublicKey([n; 32])
}

#[test]
fn every_core_gets_accounts_before_the_peers_that_use_them() {
    let mut scene = Scene::new();
    let limited = Account { rates: [Some(RATE), None], ..below(0) };
    let net = "10.0.0.2/32".parse().unwrap();
    let steps = [
        Operation::Peer(key(1)),
        Operation::AllowedIp(net),
        put(0, Account::default()),
        put(7, limited),
        // The peer named last is still that.
        Operation::Account(Some(AccountId(7))),
    ];
    scene.apply(steps).unwrap();
    let owner = scene.plane.peer(&key(1)).unwrap().owner.0;
    for core in 0..2 {
        let told: Vec<_> = scene.told.iter().filter(|(to, _)| *to == core).collect();
        let accounts: Vec<_> =
            told.iter().filter(|(_, command)| matches!(command, Command::PutAccount(_))).collect();
        assert_eq!(accounts.len(), 2);
        let bound = told.iter().position(|(_, command)| {
            matches!(command, Command::PutPeer(change)
                if change.account == Some(Some(AccountId(7))))
        });
        assert_eq!(bound.is_some(), core == owner);
        let last = told.iter().rposition(|(_, c)| matches!(c, Command::PutAccount(_)));
        assert!(bound.is_none_or(|bound| bound > last.unwrap()));
    }
    assert_eq!(scene.plane.account(AccountId(7)), Some(&limited));
    assert_eq!(scene.plane.peer(&key(1)).unwrap().account, Some(AccountId(7)));
    assert_eq!(scene.plane.depth(AccountId(7)), 1);
}

#[test]
fn a_volume_begins_once_whatever_else_is_said_of_the_account() {
    let mut scene = Scene::new();
    scene.apply([put(3, with_volume(100, 5_000))]).unwrap();
    let VolumeChange::Begin(first) = scene.changes()[0].volume else { panic!() };
    assert_eq!(first.bytes, 5_000);
    let faster = Account { rates: [Some(RATE); 2], ..with_volume(100, 9_999_999) };
    scene.apply([put(3, faster)]).unwrap();
    assert_eq!(scene.changes()[0].volume, VolumeChange::Keep);
    assert_eq!(scene.changes()[0].rates, [Some(RATE); 2]);
    // What holds is what was begun.
    assert_eq!(scene.plane.account(AccountId(3)).unwrap().volume.unwrap().bytes, 5_000);
    scene.apply([put(4, with_volume(100, 1)), put(3, with_volume(101, 7_000))]).unwrap();
    let numbers = scene.changes().into_iter().map(|change| match change.volume {
        VolumeChange::Begin(volume) => volume.number,
        VolumeChange::Keep | VolumeChange::Unlimited => panic!(),
    });
    let numbers: Vec<_> = numbers.collect();
    assert!(first.number < numbers[0] && numbers[0] < numbers[1]);
    scene.apply([put(3, Account::default())]).unwrap();
    assert_eq!(scene.changes()[0].volume, VolumeChange::Unlimited);
    scene.apply([put(3, Account::default())]).unwrap();
    assert_eq!(scene.changes()[0].volume, VolumeChange::Keep);
}

#[test]
fn what_cores_refuse_is_told_and_not_remembered() {
    let mut scene = Scene::new();
    scene
        .apply((0..4).map(|id| put(id, id.checked_sub(1).map_or_else(Account::default, below))))
        .unwrap();
    scene.refuse = Some(Refusal::AccountChain);
    for (id, account) in [
        (4, below(3)),
        (5, below(5)),
        (6, below(99)),
        (0, below(3)),
        (ACCOUNTS_MAX, Account::default()),
    ] {
        let before = scene.plane.account(AccountId(id)).copied();
        assert_eq!(scene.apply([put(id, account)]), Err(Refusal::AccountChain), "{id}");
        assert_eq!(scene.plane.account(AccountId(id)).copied(), before, "{id}");
        assert_eq!(scene.changes().len(), 1);
    }
    scene.refuse = None;
    // The last of the chain may move, and the middle with what is below it.
    scene.apply([put(3, below(0)), put(4, below(3))]).unwrap();
    assert_eq!(scene.plane.depth(AccountId(4)), 2);
    scene.apply([put(9, Account::default()), put(3, below(9)), put(9, below(0))]).unwrap();
    assert_eq!(scene.plane.depth(AccountId(4)), 3);
    scene.refuse = Some(Refusal::AccountChain);
    assert_eq!(scene.apply([put(9, below(1))]), Err(Refusal::AccountChain));
}

#[test]
fn an_account_that_is_not_there_is_refused_without_losing_the_rest_of_the_change() {
    let mut scene = Scene::new();
    scene.apply([Operation::Peer(key(2))]).unwrap();
    let net = "10.0.0.3/32".parse().unwrap();
    let account = Operation::Account(Some(AccountId(9)));
    scene.apply([Operation::Peer(key(2)), Operation::AllowedIp(net), account]).unwrap();
    let puts: Vec<_> =
        scene.told.iter().filter(|(_, c)| matches!(c, Command::PutPeer(_))).collect();
    let [(_, Command::PutPeer(with_net)), (_, Command::PutPeer(with_account))] = &puts[..] else {
        panic!("{puts:?}")
    };
    assert_eq!((with_net.allowed_ips.len(), with_net.account), (1, None));
    assert!(with_account.allowed_ips.is_empty());
    assert_eq!(with_account.account, Some(Some(AccountId(9))));
    assert_eq!(scene.plane.peer(&key(2)).unwrap().account, None);
}

#[test]
fn a_peer_whose_account_is_not_there_does_not_come_into_being() {
    let mut scene = Scene::new();
    let (stays, lost) = ("10.0.0.3/32".parse().unwrap(), "10.0.0.4/32".parse().unwrap());
    let bind = Operation::Account(Some(AccountId(1)));
    let first = [Operation::Peer(key(1)), bind.clone(), Operation::AllowedIp(lost)];
    scene.apply(std::iter::once(put(1, Account::default())).chain(first)).unwrap();
    let unknown = Operation::Account(Some(AccountId(9)));
    // Before its prefixes, as records are told; what follows is about nobody.
    let steps = [Operation::Peer(key(2)), unknown.clone(), Operation::AllowedIp(stays)];
    scene.apply(steps).unwrap();
    let asked = |(_, command): &(u16, Command)| match command {
        Command::PutPeer(change) => Some(change.account),
        _ => None,
    };
    // Its core is asked, so that the refusal is heard, and no peer is made.
    assert_eq!(scene.told.iter().map(asked).collect::<Vec<_>>(), [Some(Some(Some(AccountId(9))))]);
    assert!(scene.plane.peer(&key(2)).is_none());
    // After a part of it was told: it is taken back, with what it took from others.
    let own = "10.0.0.5/32".parse().unwrap();
    let steps = [
        Operation::Peer(key(2)),
        Operation::AllowedIp(own),
        Operation::AllowedIp(lost),
        put(2, Account::default()),
        unknown.clone(),
        Operation::Keepalive(5),
        // The next one is whole.
        Operation::Peer(key(3)),
        bind.clone(),
        Operation::AllowedIp(stays),
    ];
    scene.apply(steps).unwrap();
    assert!(scene.plane.peer(&key(2)).is_none());
    let owner = scene.plane.lines.owner(&key(2)).0;
    let position = |wanted: fn(&Command) -> bool| {
        scene.told.iter().rposition(|(core, command)| *core == owner && wanted(command))
    };
    let removed = position(|c| matches!(c, Command::RemovePeer(public) if *public == key(2)));
    let refused = position(
        |c| matches!(c, Command::PutPeer(change) if change.account == Some(Some(AccountId(9)))),
    );
    assert!(removed.is_some() && removed < refused, "{:?}", scene.told);
    let peers: Vec<_> = scene.plane.peers().map(|(public, peer)| (*public, peer.account)).collect();
    assert_eq!(peers, [(key(1), Some(AccountId(1))), (key(3), Some(AccountId(1)))]);
    assert!(scene.plane.peer(&key(1)).unwrap().allowed_ips.iter().next().is_none());
    // One that was there before keeps its account, and the rest of the change.
    let steps = [Operation::Peer(key(3)), unknown, Operation::AllowedIp(own)];
    scene.apply(steps).unwrap();
    let peer = scene.plane.peer(&key(3)).unwrap();
    assert_eq!((peer.account, peer.allowed_ips.iter().count()), (Some(AccountId(1)), 2));
}

#[test]
fn an_account_in_use_stays_and_only_who_refuses_is_asked() {
    let mut scene = Scene::new();
    let bind = [Operation::Peer(key(3)), Operation::Account(Some(AccountId(1)))];
    scene.apply([put(0, Account::default()), put(1, below(0))].into_iter().chain(bind)).unwrap();
    let owner = scene.plane.peer(&key(3)).unwrap().owner.0;
    scene.refuse = Some(Refusal::AccountInUse);
    assert_eq!(scene.apply([Operation::RemoveAccount(AccountId(1))]), Err(Refusal::AccountInUse));
    assert!(matches!(&scene.told[..], [(to, Command::RemoveAccount(_))] if *to == owner));
    assert_eq!(scene.apply([Operation::RemoveAccount(AccountId(0))]), Err(Refusal::AccountInUse));
    assert_eq!(scene.told.len(), 2);
    assert_eq!(scene.plane.accounts().len(), 2);
    scene.refuse = None;
    scene.apply([Operation::Peer(key(3)), Operation::Account(None)]).unwrap();
    let removals = [1, 0].map(|id| Operation::RemoveAccount(AccountId(id)));
    scene.apply(removals).unwrap();
    assert_eq!(scene.told.len(), 4);
    assert_eq!(scene.plane.accounts().len(), 0);
}

#[test]
fn exhaustion_is_heard_once_of_each_volume_and_of_no_other() {
    let mut scene = Scene::new();
    scene.apply([put(3, with_volume(100, 5_000))]).unwrap();
    let number = |scene: &Scene| match scene.changes()[0].volume {
        VolumeChange::Begin(volume) => volume.number,
        VolumeChange::Keep | VolumeChange::Unlimited => panic!(),
    };
    let first = number(&scene);
    let account = AccountId(3);
    let hear = |scene: &mut Scene, volume| {
        let report = Report::AccountExhausted { account, volume };
        match scene.plane.report(CoreId(1), report) {
            Answer::Exhausted { number, .. } => Some(number),
            _ => None,
        }
    };
    assert_eq!(hear(&mut scene, first), Some(100));
    assert!(scene.plane.is_exhausted(account));
    assert_eq!(hear(&mut scene, first), None);
    scene.apply([put(3, with_volume(101, 5_000))]).unwrap();
    assert!(!scene.plane.is_exhausted(account));
    // It crossed the change.
    assert_eq!(hear(&mut scene, first), None);
    let second = number(&scene);
    assert_eq!(hear(&mut scene, second), Some(101));
}

#[test]
fn another_process_goes_on_with_what_is_left_and_says_nothing_twice() {
    let mut scene = Scene::new();
    let accounts = [put(1, with_volume(10, 5_000)), put(2, with_volume(11, 6_000))];
    scene.apply(accounts.into_iter().chain([put(3, Account::default())])).unwrap();
    let left =
        |account, bytes, exhausted| VolumeLeft { account: AccountId(account), bytes, exhausted };
    // The last two have no volume here.
    let volumes = [left(1, 1_234, false), left(2, 77, true), left(3, 5, false), left(9, 5, false)];
    let ticket = scene.plane.resume_volumes(&volumes);
    scene.settle(ticket).unwrap();
    let begun: Vec<_> = scene
        .changes()
        .into_iter()
        .map(|change| match change.volume {
            VolumeChange::Begin(volume) => (change.id.0, volume.bytes, volume.number),
            VolumeChange::Keep | VolumeChange::Unlimited => panic!(),
        })
        .collect();
    let [(1, 1_234, first), (2, 0, second)] = begun[..] else { panic!("{begun:?}") };
    assert!(scene.plane.is_exhausted(AccountId(2)) && !scene.plane.is_exhausted(AccountId(1)));
    let report = |account, volume| Report::AccountExhausted { account: AccountId(account), volume };
    let answer = scene.plane.report(CoreId(0), report(2, second));
    assert!(matches!(answer, Answer::Noted), "it was said by the process before");
    let answer = scene.plane.report(CoreId(1), report(1, first));
    assert!(matches!(answer, Answer::Exhausted { number: 10, .. }));
    // Said again with the number that was configured, it goes on.
    scene.apply([put(1, with_volume(10, 5_000))]).unwrap();
    assert_eq!(scene.changes()[0].volume, VolumeChange::Keep);
}
