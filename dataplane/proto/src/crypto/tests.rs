//! Vectors and differential tests of both providers.
