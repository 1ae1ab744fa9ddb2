//! The chain of the audit log (to be written).

/// Where the log stood; kept elsewhere, it proves that nothing was cut off since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditHead {
    /// Sequence of the last entry; 0 if there is none.
    pub sequence: u64,
    /// Its hash, in hex.
    pub hash: String,
}

/// Where the log is broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("The audit log is broken at entry {sequence}: {why}")]
pub struct AuditBroken {
    /// The first entry that does not fit.
    pub sequence: u64,
    /// What does not fit.
    pub why: String,
}
