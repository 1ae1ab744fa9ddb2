//! A receive completion of a UDP socket, as the kernel laid it out.
//!
//! | offset | bytes | what |
//! |-------:|------:|------|
//! |      0 |    16 | lengths and flags (`io_uring_recvmsg_out`) |
//! |     16 |    32 | who sent it |
//! |     48 |   128 | control messages |
//! |    176 |       | datagrams; a WireGuard ciphertext, 16 bytes later, is 64-byte aligned |
//!
//! This file must not know rings or what the datagrams mean.

use ringway_alloc::Buf;

use crate::addr::{NAME_BYTES, parse_name};
use crate::cmsg::{self, CONTROL_IN_BYTES};
use crate::driver::Outside;

const HEADER_BYTES: usize = 16;
const NAME_IN_BYTES: usize = 32;
const CONTROL_AT: usize = HEADER_BYTES + NAME_IN_BYTES;

/// Where datagrams begin in a receive buffer.
pub const OUTSIDE_START: usize = CONTROL_AT + CONTROL_IN_BYTES;

const _: () = assert!(NAME_IN_BYTES >= NAME_BYTES);
const _: () = assert!(OUTSIDE_START.is_multiple_of(16));

/// The message header that a multishot receive is started with: it only says how much room names
/// and control messages have in each buffer.
pub(crate) fn receive_header() -> libc::msghdr {
    let mut header = crate::sys::empty_message();
    header.msg_namelen = NAME_IN_BYTES as libc::socklen_t;
    header.msg_controllen = CONTROL_IN_BYTES as _;
    header
}

/// Describes one receive into `buf`, laid out as a multishot receive would, for a kernel that is
/// asked to receive message by message. Header and vector are valid for as long as the buffer is
/// not moved out of its arena; the vector must stay where it is, too.
pub(crate) fn lay_out(buf: &mut Buf, vector: &mut libc::iovec) -> libc::msghdr {
    let (head, payload) = buf.split_at_mut(OUTSIDE_START);
    vector.iov_base = payload.as_mut_ptr().cast();
    vector.iov_len = payload.len();
    let (name, control) = head[HEADER_BYTES..].split_at_mut(NAME_IN_BYTES);
    let mut header = receive_header();
    header.msg_name = name.as_mut_ptr().cast();
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_iov = vector;
    header.msg_iovlen = 1;
    header
}

/// Notes in `buf` what the kernel said about a receive of `len` bytes into it, where a multishot
/// receive says it; how many bytes of the buffer are used.
pub(crate) fn note(buf: &mut Buf, header: &libc::msghdr, len: u32) -> u32 {
    let words = [header.msg_namelen, header.msg_controllen as u32, len, header.msg_flags as u32];
    for (place, word) in buf[..HEADER_BYTES].chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    OUTSIDE_START as u32 + len
}

/// Makes sense of a buffer of which the kernel used the first `used` bytes. `None` if there is no
/// whole datagram from a readable address in it; the buffer then goes back. Also how many datagrams
/// its socket had dropped when it arrived, if any.
#[inline]
pub(crate) fn parse(mut buf: Buf, used: usize) -> Option<(Outside, Option<u32>)> {
    let name = take_name(&mut buf);
    let filled = buf.get(..used)?;
    let header: &[u8; HEADER_BYTES] = filled.first_chunk()?;
    let word = |at: usize| {
        u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let (name_bytes, control_bytes, len, flags) = (word(0), word(4), word(8), word(12));
    // A datagram cut short, or control messages without the segment size, would be misread.
    if flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) as u32 != 0 {
        return None;
    }
    let payload = filled.len().checked_sub(OUTSIDE_START)?;
    let len = (len as usize).min(payload);
    if len == 0 {
        return None;
    }
    let from = parse_name(&name[..(name_bytes as usize).min(NAME_IN_BYTES)])?;
    let control = &filled[CONTROL_AT..][..(control_bytes as usize).min(CONTROL_IN_BYTES)];
    let facts = cmsg::parse(control);
    let stride = facts.segment_bytes.map_or(len, |size| size.min(len));
    let outside =
        Outside { start: OUTSIDE_START, len, stride, from, to: facts.to, ecn: facts.ecn, buf };
    Some((outside, facts.dropped))
}

/// Who sent it, which is no longer in the buffer then: that goes back as it is and may lie there
/// for long, when nobody may know any more who was here.
#[inline]
fn take_name(buf: &mut Buf) -> [u8; NAME_IN_BYTES] {
    let name: &mut [u8; NAME_IN_BYTES] =
        buf[HEADER_BYTES..].first_chunk_mut().expect("a buffer has room for what it begins with");
    std::mem::replace(name, [0; NAME_IN_BYTES])
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::addr::Name;
    use ringway_alloc::Arena;

    fn filled(payload: &[u8], flags: u32) -> (Buf, usize) {
        let mut buf = Arena::with_capacity(1, 4096).unwrap().take().unwrap();
        let words = [16, 0, payload.len() as u32, flags];
        for (n, word) in words.into_iter().enumerate() {
            buf[n * 4..][..4].copy_from_slice(&word.to_ne_bytes());
        }
        let mut name = Name::default();
        let len = name.set(&"192.0.2.1:5".parse().unwrap());
        buf[HEADER_BYTES..][..len].copy_from_slice(&name.as_bytes()[..len]);
        buf[OUTSIDE_START..][..payload.len()].copy_from_slice(payload);
        (buf, OUTSIDE_START + payload.len())
    }

    #[test]
    fn a_single_datagram_has_a_stride_of_its_length() {
        let (buf, used) = filled(b"hello", 0);
        let (outside, dropped) = parse(buf, used).unwrap();
        assert_eq!(dropped, None);
        assert_eq!(&outside.buf[outside.start..][..outside.len], b"hello");
        assert_eq!(outside.stride, 5);
        assert_eq!(outside.from, "192.0.2.1:5".parse().unwrap());
        assert_eq!(outside.to, None);
    }

    #[test]
    fn what_is_empty_cut_or_nameless_is_refused() {
        let (buf, used) = filled(b"", 0);
        assert!(parse(buf, used).is_none());
        let (buf, used) = filled(b"x", libc::MSG_TRUNC as u32);
        assert!(parse(buf, used).is_none());
        let (buf, used) = filled(b"x", libc::MSG_CTRUNC as u32);
        assert!(parse(buf, used).is_none());
        let (mut buf, used) = filled(b"x", 0);
        buf[HEADER_BYTES] = 99;
        assert!(parse(buf, used).is_none());
    }

    #[test]
    fn lengths_that_lie_stay_inside_the_buffer() {
        for used in [0, 15, 16, 100, OUTSIDE_START, 4096, 5000] {
            let (mut buf, _) = filled(b"x", 0);
            buf[..12].fill(0xff);
            if let Some((outside, _)) = parse(buf, used) {
                assert!(outside.start + outside.len <= used.min(4096));
                assert!(outside.stride <= outside.len);
            }
        }
    }
}
