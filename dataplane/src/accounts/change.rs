//! What control says about accounts, and what it is told.
//!
//! Every core gets every account, before the peers that use it. A change says everything about an
//! account but its volume, which goes on unless another one begins: so control may say all of it
//! again at any time.

use ringway_flow::qos::Rate;
use ringway_proto::AccountId;

use super::Way;

/// An account as it is to be from now on. Rates take effect in place: what may pass now is clipped
/// to the new burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountChange {
    /// Which.
    pub id: AccountId,
    /// Tag of its slot in the usage pages; 0 if nothing is counted there.
    pub owner: u64,
    /// The account that all its traffic counts for too. Accounts that others are below keep theirs.
    pub parent: Option<AccountId>,
    /// Limits by [`Way`]; unlimited if absent.
    pub rates: [Option<Rate>; 2],
    /// What becomes of its volume.
    pub volume: VolumeChange,
}

/// What becomes of the volume of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeChange {
    /// It goes on; a new account has none.
    Keep,
    /// There is no limit.
    Unlimited,
    /// Another one begins, and what was left of the last is forgotten.
    Begin(Volume),
}

/// Bytes that an account may use, both directions together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Greater than that of every volume before, of any account.
    pub number: u32,
    /// Inner bytes.
    pub bytes: u64,
    /// What happens when they are used up.
    pub then: Exhausted,
}

/// What happens when a volume is used up: when a packet is longer than what is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exhausted {
    /// Nothing passes any more.
    Drop,
    /// These rates hold instead, by [`Way`].
    Throttle([Rate; 2]),
    /// Nothing but the report.
    Report,
}

/// State of some accounts on one core, filled without allocating: at most the capacity.
#[derive(Debug, Default)]
pub struct AccountPage {
    /// Where to go on; 0 at first. Set by the core; `None` when there is no more.
    pub cursor: Option<u32>,
    /// Filled by the core; cleared first.
    pub accounts: Vec<AccountStatus>,
}

/// What one core knows of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountStatus {
    /// Which.
    pub id: AccountId,
    /// Peers of this core that use it or an account below.
    pub peers: u32,
    /// Bytes that this core may let pass without asking, by [`Way`]; `None` without a limit.
    pub held: [Option<u64>; 2],
    /// Bytes of the volume among them; 0 without one.
    pub held_volume: u64,
    /// Packets that this account let not pass for its rate, by [`Way`].
    pub dropped_rate: [u64; 2],
    /// Packets that it let not pass because its volume is used up.
    pub dropped_volume: u64,
    /// What only its home knows.
    pub home: Option<HomeStatus>,
}

/// What the home of an account knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HomeStatus {
    /// Bytes that are in the buckets, by [`Way`]; `None` without a limit. Cores hold some more.
    pub tokens: [Option<u64>; 2],
    /// Number of its volume; 0 if there never was one.
    pub volume_number: u32,
    /// Bytes of the volume that no core holds; `None` without one.
    pub volume: Option<u64>,
    /// Whether the volume is used up.
    pub exhausted: bool,
}

impl AccountStatus {
    /// Packets that the account let not pass, whatever for.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped_rate[Way::ToExit as usize]
            + self.dropped_rate[Way::ToClient as usize]
            + self.dropped_volume
    }
}
