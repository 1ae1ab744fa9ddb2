//! Control messages that the kernel attaches to datagrams.

use ringway_ring::cmsg::{ControlIn, parse};

/// Any bytes are read to an end; what was found is well-formed, and cutting bytes off the end never
/// finds what was not there.
pub(crate) fn control_messages_are_read_within_bounds(bytes: &[u8]) {
    let facts = parse(bytes);
    assert!(facts.segment_bytes.is_none_or(|segment| segment > 0));
    assert!(facts.ecn.0 < 4);
    assert_eq!(parse(&[]), ControlIn::default());
    // A truncated list is a prefix of the facts: each is as in some longer list, or absent.
    for len in 0..bytes.len().min(128) {
        let cut = parse(&bytes[..len]);
        assert!(cut.segment_bytes.is_none_or(|segment| segment > 0));
    }
}
