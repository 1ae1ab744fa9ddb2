//! What cores say to each other about accounts.
//!
//! All of it is small, of a fixed size, and travels in parcels like everything that crosses. It is
//! sent until there is room, never lost: credit that left a bucket arrives.

/// By way, and of the volume.
pub(crate) type Amounts = [u64; 3];

/// One message about one account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Credit {
    pub(crate) account: u32,
    /// The core that says it.
    pub(crate) from: u16,
    /// Which volume it is about.
    pub(crate) number: u32,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// To the home.
    Ask(Ask),
    /// From the home.
    Grant(Grant),
    /// To the home: nobody needs this here. `spent` is what was used of the volume besides.
    GiveBack { amounts: Amounts, spent: u64 },
    /// From the home: what is held of the volume is needed elsewhere.
    Recall,
}

/// What a core would like to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    /// The same until the last part of the answer is there.
    pub(crate) sequence: u32,
    /// Bytes, 0 of what is not wanted.
    pub(crate) want: Amounts,
    /// Less than this lets no packet pass; 0 if none waits.
    pub(crate) need: Amounts,
    /// What was used of the volume since this was last said.
    pub(crate) spent: u64,
    /// What is held of the volume.
    pub(crate) held: u64,
}

/// What a core gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// Of the question.
    pub(crate) sequence: u32,
    pub(crate) amounts: Amounts,
    /// Nothing more follows on this question.
    pub(crate) last: bool,
    /// The volume is used up.
    pub(crate) exhausted: bool,
}
