//! Explicit congestion notification across the tunnel (RFC 6040).

use ringway_proto::ip::{checksum, read_u16, write_u16};

/// Congestion experienced.
const CE: u8 = 3;

/// Carries the congestion mark of the outer header over to the inner one, where that is capable of
/// it. Says whether the packet was changed. A mark on a packet that is not capable is ignored
/// instead of being a reason to drop, as kernel WireGuard does.
#[inline]
pub fn decapsulate(packet: &mut [u8], outer: u8) -> bool {
    if outer & CE != CE {
        return false;
    }
    mark(packet)
}

#[cold]
fn mark(packet: &mut [u8]) -> bool {
    match packet {
        [first, tos, _, _, _, _, _, _, _, _, _, _, ..] if *first >> 4 == 4 => {
            if matches!(*tos & CE, 0 | CE) {
                return false;
            }
            let old = read_u16(packet, 0);
            write_u16(packet, 0, old | u16::from(CE));
            let sum = checksum::update(read_u16(packet, 10), old, old | u16::from(CE));
            write_u16(packet, 10, sum);
            true
        }
        [first, second, ..] if *first >> 4 == 6 => {
            // The traffic class lies across two bytes.
            let inner = *second >> 4 & CE;
            *second |= if inner == 0 { 0 } else { CE << 4 };
            !matches!(inner, 0 | CE)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Spec, checksums_hold};

    #[test]
    fn a_mark_outside_reaches_only_what_is_capable_inside() {
        for v6 in [false, true] {
            for (inner, outer, after, changed) in [
                (0, 3, 0, false),
                (1, 3, 3, true),
                (2, 3, 3, true),
                (3, 3, 3, false),
                (2, 1, 2, false),
                (2, 0, 2, false),
            ] {
                let mut packet = Spec { v6, tos: 0xb8 | inner, ..Spec::default() }.build();
                assert_eq!(decapsulate(&mut packet, outer), changed);
                let expected = Spec { v6, tos: 0xb8 | after, ..Spec::default() }.build();
                assert_eq!(packet, expected);
                assert!(checksums_hold(&packet));
            }
        }
    }

    #[test]
    fn bytes_that_are_no_packet_stay_as_they_are() {
        for bytes in [&mut [][..], &mut [0x45; 3], &mut [0x00; 20]] {
            assert!(!decapsulate(bytes, 3));
        }
    }
}
