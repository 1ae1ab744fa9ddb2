//! Which driver runs.

/// A driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverKind {
    /// [`UringDriver`](crate::UringDriver).
    Uring,
    /// [`EpollDriver`](crate::EpollDriver).
    Epoll,
}

impl DriverKind {
    /// Its name in options and figures.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Epoll => "epoll",
        }
    }
}
