//! Accounts in the plane.
