//! What may go wrong with the store, as facts that a caller can act on.
//!
//! Both engines answer with the same errors; texts say what, where, why and what to do. This module
//! must not know an engine.

/// Why the store did not do something. Nothing of it was done, unless the text says that this is
/// not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no such record.
    #[error("There is no {kind} {id}")]
    NotFound {
        /// What was looked for: `user`, `device`, ….
        kind: &'static str,
        /// Its identifier or name.
        id: String,
    },
    /// Something that must be unique is taken.
    #[error("There is already a {kind} whose {field} is {value}; choose another {field}")]
    Conflict {
        /// What was to be written.
        kind: &'static str,
        /// Its field.
        field: &'static str,
        /// What is taken.
        value: String,
    },
    /// Somebody else changed the record since it was read.
    #[error("The {kind} was changed meanwhile; read it again and repeat the change")]
    Stale {
        /// What was to be changed.
        kind: &'static str,
    },
    /// Others refer to the record.
    #[error("The {kind} {id} is in use by {by}; change these first")]
    InUse {
        /// What was to be removed.
        kind: &'static str,
        /// Its name or identifier.
        id: String,
        /// Who uses it.
        by: String,
    },
    /// The record refers to something that does not exist.
    #[error("The {kind} refers to a {target} that does not exist; make it first")]
    Missing {
        /// What was to be written.
        kind: &'static str,
        /// What it refers to.
        target: &'static str,
    },
    /// Too much to do, or somebody else holds the store.
    #[error("The store is busy: {why}; try again in a moment")]
    Busy {
        /// Who or what is in the way.
        why: String,
    },
    /// No answer within the deadline.
    #[error("The store did not answer in time: {why}")]
    Timeout {
        /// What was waited for, and whether the change may have been kept.
        why: String,
    },
    /// Two writers collided more often than it was worth trying again.
    #[error("The change collided with others of other gateways, {tries} times; try again")]
    Collision {
        /// How often it was tried.
        tries: u32,
    },
    /// The store cannot be reached.
    #[error("The store cannot be reached: {why}")]
    Unavailable {
        /// Why, and what to look at.
        why: String,
    },
    /// There is no room for more.
    #[error("The store is full: {why}")]
    Full {
        /// Where, and what to do.
        why: String,
    },
    /// What is stored makes no sense.
    #[error("The store is damaged: {why}")]
    Corrupt {
        /// What was found, and what to do.
        why: String,
    },
    /// A later program has written the store.
    #[error(
        "The store was written by a later Ringway: its version is {found}, this program knows up \
         to {known}. Run the later program, or restore a backup made before the upgrade"
    )]
    Newer {
        /// Version of the store.
        found: u32,
        /// The latest that this program knows.
        known: u32,
    },
    /// What was asked for makes no sense.
    #[error("The store refuses this: {why}")]
    Invalid {
        /// Why.
        why: String,
    },
}

impl StoreError {
    /// Codes of all errors, in the order of [`Self::code`].
    pub const REASONS: [&'static str; 13] = [
        "not_found",
        "conflict",
        "stale",
        "in_use",
        "missing",
        "store_busy",
        "store_timeout",
        "store_collision",
        "store_unavailable",
        "store_full",
        "store_corrupt",
        "store_newer",
        "invalid",
    ];

    /// A stable code for metrics and the API.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        Self::REASONS.get(self.code()).copied().unwrap_or("invalid")
    }

    /// The index of [`Self::reason`] in [`Self::REASONS`].
    #[must_use]
    pub const fn code(&self) -> usize {
        match self {
            Self::NotFound { .. } => 0,
            Self::Conflict { .. } => 1,
            Self::Stale { .. } => 2,
            Self::InUse { .. } => 3,
            Self::Missing { .. } => 4,
            Self::Busy { .. } => 5,
            Self::Timeout { .. } => 6,
            Self::Collision { .. } => 7,
            Self::Unavailable { .. } => 8,
            Self::Full { .. } => 9,
            Self::Corrupt { .. } => 10,
            Self::Newer { .. } => 11,
            Self::Invalid { .. } => 12,
        }
    }

    /// Whether it says something about the store rather than about the request.
    #[must_use]
    pub const fn is_about_the_store(&self) -> bool {
        matches!(self.code(), 5..=11)
    }

    pub(crate) fn not_found(kind: &'static str, id: impl ToString) -> Self {
        Self::NotFound { kind, id: id.to_string() }
    }

    pub(crate) fn invalid(why: impl Into<String>) -> Self {
        Self::Invalid { why: why.into() }
    }

    pub(crate) fn corrupt(why: impl Into<String>) -> Self {
        Self::Corrupt { why: why.into() }
    }

    pub(crate) fn unavailable(why: impl Into<String>) -> Self {
        Self::Unavailable { why: why.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_a_code_of_its_own() {
        let mut reasons = StoreError::REASONS.to_vec();
        reasons.sort_unstable();
        reasons.dedup();
        assert_eq!(reasons.len(), StoreError::REASONS.len());
        assert_eq!(StoreError::invalid("x").reason(), "invalid");
        assert_eq!(StoreError::Newer { found: 2, known: 1 }.reason(), "store_newer");
        assert!(!StoreError::not_found("user", "a").is_about_the_store());
        assert!(StoreError::unavailable("x").is_about_the_store());
    }
}
