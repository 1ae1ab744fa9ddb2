//! Which core a peer lives on.
//!
//! A pure function of the peer's static key and the number of cores, so that control, the core that
//! decrypts an initiation and the core that owns the peer agree without asking each other. It must
//! not know where a datagram came from: a peer stays on its core wherever it roams.

use ringway_proto::CoreId;
use ringway_proto::crypto::PublicKey;

/// The owner of a peer among `cores` cores (at least one). Keys are as good as random, but whoever
/// adds a peer may have chosen its key, so all of it counts (FNV-1a).
#[must_use]
pub fn owner_of(public: &PublicKey, cores: u16) -> CoreId {
    let hash = public.0.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    CoreId((hash % u64::from(cores.max(1))) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_core_gets_its_share_of_the_keys() {
        for cores in [1, 2, 3, 4, 64] {
            let mut counts = vec![0_u32; usize::from(cores)];
            for number in 0..64_000_u32 {
                let mut key = [0; 32];
                key[..4].copy_from_slice(&number.to_le_bytes());
                counts[usize::from(owner_of(&PublicKey(key), cores).0)] += 1;
            }
            let fair = 64_000 / u32::from(cores);
            assert!(counts.iter().all(|count| count.abs_diff(fair) < fair / 5), "{counts:?}");
        }
    }
}
