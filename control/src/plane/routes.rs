//! Who owns which prefix, and what the other cores still have to hear of it.
//!
//! A core that gets a packet for a peer of another core hands it over once, so every core knows for
//! every prefix which core serves it. Changes are collected while a request is worked off and told
//! in batches: what a request gives and takes again is not told at all. Where traffic moves from
//! one core to another, the new one is told first, then those that only hand over, then the old
//! one, each when all before it have answered; a packet that is on its way meanwhile ends with the
//! old owner or with the new one, and is handed over once. With one core nothing of this happens.
//!
//! This file must not know peers beyond their keys.

use std::collections::BTreeMap;

use ringway_dataplane::command::{Command, ROUTES_PER_COMMAND_MAX, RouteChange};
use ringway_proto::CoreId;
use ringway_proto::allowed_ips::IpNet;
use ringway_proto::crypto::PublicKey;

use super::lines::Lines;

/// Lengths that a prefix may have, both families.
const LENGTHS: usize = 129;

/// All prefixes.
#[derive(Debug)]
pub(super) struct Prefixes {
    owners: BTreeMap<IpNet, Owner>,
    /// How many prefixes of each length there are, by family.
    lengths: [[u32; LENGTHS]; 2],
    cores: u16,
    /// What somebody got since the other cores were last told, and how it was then.
    given: BTreeMap<IpNet, Before>,
    /// What nobody has any more, though the other cores were told of an owner.
    taken: BTreeMap<IpNet, Before>,
    /// Of these, those whose traffic now falls to a shorter prefix of another core.
    exposed: Vec<IpNet>,
    /// Peers that lost a prefix to a peer of another core and were not told.
    robbed: Vec<(IpNet, Owner)>,
    /// What the kernel's map was not told yet.
    steered: Vec<RouteChange>,
}

/// Who has a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) public: PublicKey,
    pub(super) core: CoreId,
}

#[derive(Clone, Copy, Debug)]
struct Before {
    /// The core that had exactly this prefix.
    exact: Option<CoreId>,
    /// The core that was sent the prefix' traffic: as above, or by a shorter prefix.
    served: Option<CoreId>,
    /// Whether it went from one core to another meanwhile.
    moved: bool,
}

/// A change that is about to be told.
#[derive(Clone, Copy, Debug)]
struct Change {
    route: RouteChange,
    from: Option<CoreId>,
    to: Option<CoreId>,
}

impl Change {
    fn moves(&self) -> bool {
        self.from.is_some() && self.to.is_some() && self.from != self.to
    }
}

impl Prefixes {
    pub(super) const fn new(cores: u16) -> Self {
        Self {
            owners: BTreeMap::new(),
            lengths: [[0; LENGTHS]; 2],
            cores,
            given: BTreeMap::new(),
            taken: BTreeMap::new(),
            exposed: Vec::new(),
            robbed: Vec::new(),
            steered: Vec::new(),
        }
    }

    pub(super) fn owner(&self, net: IpNet) -> Option<Owner> {
        self.owners.get(&net).copied()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.owners.len()
    }

    /// Gives the prefix to `owner`; says who had it, if that was another peer.
    pub(super) fn give(&mut self, net: IpNet, owner: Owner) -> Option<Owner> {
        let had = self.owner(net);
        if had == Some(owner) {
            return None;
        }
        let mut before = self.before(net, had);
        if let Some(robbed) = had.filter(|had| had.core != owner.core) {
            // On the same core the gift itself takes it away.
            self.robbed.push((net, robbed));
            before.moved = true;
        }
        if self.cores > 1 && (before.moved || before.exact != Some(owner.core)) {
            self.given.insert(net, before);
        }
        if had.is_none() {
            *self.count(net) += 1;
        }
        self.owners.insert(net, owner);
        had
    }

    /// Takes the prefix from `public`; `false` if it did not have it.
    pub(super) fn take(&mut self, net: IpNet, public: &PublicKey) -> bool {
        let Some(had) = self.owner(net).filter(|owner| owner.public == *public) else {
            return false;
        };
        let before = self.before(net, Some(had));
        self.owners.remove(&net);
        *self.count(net) -= 1;
        if self.cores > 1 && before.exact.is_some() {
            self.taken.insert(net, before);
            if self.served(net).is_some_and(|to| to != had.core) {
                self.exposed.push(net);
            }
        }
        true
    }

    /// Whether a batch of gifts is full.
    pub(super) fn batch_is_full(&self) -> bool {
        self.given.len() >= ROUTES_PER_COMMAND_MAX
    }

    /// What the kernel's map should know since it was last asked for.
    pub(super) fn take_steered(&mut self) -> Vec<RouteChange> {
        std::mem::take(&mut self.steered)
    }

    /// Tells the other cores what `core` is about to lose to a shorter prefix of another core.
    /// Returns the number below which all must be answered before `core` may hear of it; 0 if it
    /// may at once.
    pub(super) fn tell_exposed(&mut self, core: CoreId, lines: &mut Lines) -> u64 {
        let mut nets = std::mem::take(&mut self.exposed);
        nets.retain(|net| self.taken.get(net).is_some_and(|before| before.exact == Some(core)));
        if nets.is_empty() {
            return 0;
        }
        let lost = nets.into_iter().filter_map(|net| Some((net, self.taken.remove(&net)?)));
        let lost = lost.collect();
        self.settle_and_broadcast(lost, lines);
        lines.next_sequence()
    }

    /// Tells the other cores what was given. Returns who lost prefixes without being told yet.
    pub(super) fn tell_given(&mut self, lines: &mut Lines) -> Vec<(IpNet, Owner)> {
        let given = std::mem::take(&mut self.given);
        self.settle_and_broadcast(given.into_iter().collect(), lines);
        let robbed = std::mem::take(&mut self.robbed);
        // Whoever got it back meanwhile keeps it.
        robbed.into_iter().filter(|(net, owner)| self.owner(*net) != Some(*owner)).collect()
    }

    /// Tells the other cores what was taken and not given again.
    pub(super) fn tell_taken(&mut self, lines: &mut Lines) {
        self.exposed.clear();
        let taken = std::mem::take(&mut self.taken);
        self.settle_and_broadcast(taken.into_iter().collect(), lines);
    }

    fn settle_and_broadcast(&mut self, changed: Vec<(IpNet, Before)>, lines: &mut Lines) {
        for batch in changed.chunks(ROUTES_PER_COMMAND_MAX) {
            let change = |(net, before): &(IpNet, Before)| {
                let route = RouteChange { net: *net, core: self.owner(*net).map(|own| own.core) };
                Change { route, from: before.served, to: self.served(*net) }
            };
            let changes: Vec<Change> = batch.iter().map(change).collect();
            self.steered.extend(changes.iter().map(|change| change.route));
            broadcast(&changes, lines);
        }
    }

    /// How it was when the other cores were last told.
    fn before(&mut self, net: IpNet, had: Option<Owner>) -> Before {
        let noted = self.given.remove(&net).or_else(|| self.taken.remove(&net));
        noted.unwrap_or_else(|| Before {
            exact: had.map(|owner| owner.core),
            served: if self.cores > 1 { self.served(net) } else { None },
            moved: false,
        })
    }

    /// The core that is sent the traffic of a prefix.
    fn served(&self, net: IpNet) -> Option<CoreId> {
        let lengths = &self.lengths[usize::from(net.address().is_ipv6())];
        let longest_first = (0..=net.prefix()).rev();
        let mut nets = longest_first
            .filter(|length| lengths[usize::from(*length)] > 0)
            .filter_map(|length| IpNet::new(net.address(), length));
        nets.find_map(|net| self.owner(net)).map(|owner| owner.core)
    }

    fn count(&mut self, net: IpNet) -> &mut u32 {
        &mut self.lengths[usize::from(net.address().is_ipv6())][usize::from(net.prefix())]
    }
}

/// Tells one batch, in at most three steps: see the head of this file.
fn broadcast(changes: &[Change], lines: &mut Lines) {
    let moves = changes.iter().any(Change::moves);
    let step_of = |core: CoreId, change: &Change| match change {
        change if change.route.core == Some(core) => None, // it is told with its peer
        change if change.moves() && change.to == Some(core) => Some(0),
        change if change.moves() && change.from == Some(core) => Some(2),
        _ => Some(1),
    };
    for step in 0..3 {
        let after = if moves { lines.next_sequence() } else { 0 };
        for core in lines.cores() {
            let of_step = changes.iter().filter(|change| step_of(core, change) == Some(step));
            let routes: Vec<RouteChange> = of_step.map(|change| change.route).collect();
            if !routes.is_empty() {
                lines.push_after(core, Command::PutRoutes(Box::new(routes)), after);
            }
        }
    }
}
