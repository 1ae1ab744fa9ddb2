//! Nonce checker: reads a capture and looks for a counter used twice under one key.
//!
//! A WireGuard data message shows its receiver index and its counter in the clear. Within one
//! capture an index stands for one key, so two messages to the same address with the same index and
//! counter but different contents were sealed with the same nonce: the one mistake a sender must
//! never make. The same message seen twice is a duplicate on the wire and is counted apart.
//!
//! Reads classic pcap files of Ethernet, raw IP and Linux "cooked" captures. Large sends must be
//! captured as single datagrams: switch UDP segmentation off on the captured interface (`ethtool -K
//! IF tx-udp-segmentation off`).

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use anyhow::{Context as _, Result, bail, ensure};
use ringway_proto::ip::{Packet, protocol};

const MAGIC_MICROS: u32 = 0xa1b2_c3d4;
const MAGIC_NANOS: u32 = 0xa1b2_3c4d;
const FILE_HEADER_BYTES: usize = 24;
const RECORD_HEADER_BYTES: usize = 16;
const UDP_HEADER_BYTES: usize = 8;
const DATA_HEADER_BYTES: usize = 16;

/// What a capture shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NonceReport {
    /// Data messages looked at.
    pub messages: u64,
    /// Different keys (destination and receiver index).
    pub keys: usize,
    /// Messages seen twice, contents and all.
    pub duplicates: u64,
    /// Counters with two different contents: destination port, receiver index, counter.
    pub reused: Vec<(u16, u32, u64)>,
}

/// Looks through a pcap file.
///
/// # Errors
/// When it is no pcap file or of an unknown link type. Records that are not WireGuard data are
/// passed over.
pub fn check(capture: &[u8]) -> Result<NonceReport> {
    let header = capture.get(..FILE_HEADER_BYTES).context("Shorter than a pcap header")?;
    let magic = u32::from_le_bytes(word(header, 0)?);
    ensure!(matches!(magic, MAGIC_MICROS | MAGIC_NANOS), "Not a little-endian pcap file");
    let skip = link_header_bytes(u32::from_le_bytes(word(header, 20)?))?;

    let mut check = Seen::default();
    let mut rest = &capture[FILE_HEADER_BYTES..];
    while rest.len() >= RECORD_HEADER_BYTES {
        let kept = u32::from_le_bytes(word(rest, 8)?) as usize;
        let record = rest
            .get(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + kept)
            .context("The last record is cut off")?;
        rest = &rest[RECORD_HEADER_BYTES + kept..];
        if let Some(packet) = record.get(skip..) {
            check.packet(packet);
        }
    }
    Ok(check.report())
}

fn link_header_bytes(link_type: u32) -> Result<usize> {
    Ok(match link_type {
        1 => 14,   // Ethernet
        101 => 0,  // raw IP
        113 => 16, // Linux cooked
        276 => 20, // Linux cooked, version 2
        other => bail!("Link type {other} is not known here"),
    })
}

fn word(bytes: &[u8], at: usize) -> Result<[u8; 4]> {
    bytes.get(at..).and_then(|rest| rest.first_chunk().copied()).context("Cut off")
}

#[derive(Default)]
struct Seen {
    messages: HashMap<(u16, u32, u64), u64>,
    report: NonceReport,
}

impl Seen {
    fn packet(&mut self, packet: &[u8]) {
        let Some((port, message)) = data_message(packet) else { return };
        let Some(index) = message.get(4..8).and_then(|b| b.first_chunk().copied()) else { return };
        let Some(counter) = message.get(8..).and_then(|b| b.first_chunk().copied()) else { return };
        let nonce = (port, u32::from_le_bytes(index), u64::from_le_bytes(counter));
        let mut hasher = DefaultHasher::new();
        message.hash(&mut hasher);
        self.report.messages += 1;
        match self.messages.insert(nonce, hasher.finish()) {
            Some(before) if before == hasher.finish() => self.report.duplicates += 1,
            Some(_) => self.report.reused.push(nonce),
            None => {}
        }
    }

    fn report(mut self) -> NonceReport {
        let mut keys: Vec<(u16, u32)> = self.messages.keys().map(|key| (key.0, key.1)).collect();
        keys.sort_unstable();
        keys.dedup();
        self.report.keys = keys.len();
        self.report
    }
}

/// The destination port and the message, if the packet is a WireGuard data message over UDP.
fn data_message(packet: &[u8]) -> Option<(u16, &[u8])> {
    let view = Packet::parse(packet).ok()?;
    if view.protocol() != protocol::UDP {
        return None;
    }
    let udp = view.transport_of(packet)?;
    let port = u16::from_be_bytes([*udp.get(2)?, *udp.get(3)?]);
    let message = udp.get(UDP_HEADER_BYTES..)?;
    (message.len() >= 2 * DATA_HEADER_BYTES && message.starts_with(&[4, 0, 0, 0]))
        .then_some((port, message))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn capture(messages: &[(u32, u64, u8)]) -> Vec<u8> {
        let mut file = Vec::new();
        for word in [MAGIC_MICROS, 0x0004_0002, 0, 0, 65_535, 101] {
            file.extend(word.to_le_bytes());
        }
        for (index, counter, fill) in messages {
            let mut packet = vec![0x45, 0, 0, 60, 0, 0, 0, 0, 64, 17, 0, 0];
            packet.extend([10, 0, 0, 1, 10, 0, 0, 2, 0, 1, 0xca, 0x6c, 0, 40, 0, 0, 4, 0, 0, 0]);
            packet.extend(index.to_le_bytes());
            packet.extend(counter.to_le_bytes());
            packet.extend([*fill; 16]);
            let length = u32::try_from(packet.len()).unwrap();
            for word in [0, 0, length, length] {
                file.extend(u32::to_le_bytes(word));
            }
            file.extend(packet);
        }
        file
    }

    #[test]
    fn a_counter_with_two_contents_is_a_nonce_used_twice() {
        let report = check(&capture(&[(1, 0, 7), (1, 1, 8), (1, 1, 9)])).unwrap();
        assert_eq!((report.messages, report.keys), (3, 1));
        assert_eq!(report.reused, [(0xca6c, 1, 1)]);
    }

    #[test]
    fn the_same_message_twice_is_a_duplicate_and_another_key_is_another_nonce() {
        let report = check(&capture(&[(1, 0, 7), (1, 0, 7), (2, 0, 9)])).unwrap();
        assert_eq!((report.duplicates, report.keys), (1, 2));
        assert!(report.reused.is_empty());
    }

    #[test]
    fn noise_is_refused_and_a_cut_record_is_named() {
        assert!(check(b"not a capture at all, sorry").is_err());
        let mut file = capture(&[(1, 0, 7)]);
        file.pop();
        assert!(check(&file).unwrap_err().to_string().contains("cut off"));
    }
}
