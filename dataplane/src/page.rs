//! The page of one core: the shard's fields, then the driver's.
//!
//! The driver counts for itself and knows nothing of pages; here its numbers get names, kinds and
//! help like the shard's own.

use ringway_ring::DriverStats;

use crate::counters::{self, Counters, Field, Kind};

macro_rules! driver_fields {
    ($($name:literal $kind:ident $($path:ident).+, $help:literal;)*) => {
        const DRIVER_LAYOUT: &[Field] = &[
            $(Field { name: $name, kind: Kind::$kind, help: $help },)*
        ];

        fn publish_driver(stats: &DriverStats, out: &mut [u64]) {
            let values = [$(stats.$($path).+,)*];
            out.copy_from_slice(&values);
        }
    };
}

driver_fields! {
    "ring_enters" Counter enters, "System calls of the ring: submit, wait, or both.";
    "ring_completions" Counter completions, "Completions taken from the ring.";
    "ring_overflows" Counter overflows, "Completions that found the queue full and came later.";
    "ring_submissions_delayed" Counter submissions_delayed, "Operations that waited for room.";
    "ring_submissions_peak" Peak submissions_high_water, "Most operations submitted at once.";
    "ring_completions_peak" Peak completions_high_water, "Most completions taken in one turn.";
    "ring_rearmed" Counter rearmed, "Receives that had to be started anew.";
    "ring_wakes" Counter wakes, "Times another thread woke the core.";
    "outside_received_datagrams" Counter outside_datagrams, "Datagrams received.";
    "outside_received_bytes" Counter outside_bytes, "Bytes of datagrams received.";
    "outside_malformed" Counter outside_malformed, "Datagrams empty, cut or of no address.";
    "outside_no_buffer" Counter outside_no_buffer,
        "Times a datagram had to wait in its socket because no receive buffer was free.";
    "outside_dropped" Counter outside_dropped,
        "Datagrams that found the buffer of their socket full; merged ones count once.";
    "initiations_received" Counter initiations_datagrams,
        "Of the datagrams received, those not steered to an owner: initiations, mostly.";
    "initiations_dropped" Counter initiations_dropped,
        "Of these, those that found the buffer of their socket full; merged ones count once.";
    "initiations_no_buffer" Counter initiations_no_buffer,
        "Times one of these had to wait in its socket because no receive buffer was free.";
    "inside_received_packets" Counter inside_packets, "Packets or super-packets read from the TUN.";
    "inside_received_bytes" Counter inside_bytes, "Bytes read from the TUN.";
    "inside_malformed" Counter inside_malformed, "Reads of the TUN too short for their header.";
    "inside_no_buffer" Counter inside_no_buffer,
        "Times a packet had to wait in the TUN because no receive buffer was free.";
    "outside_sent_datagrams" Counter train_datagrams, "Datagrams handed to the kernel.";
    "outside_sent_bytes" Counter train_bytes, "Bytes of datagrams handed to the kernel.";
    "send_refused_too_long" Counter train_refused.too_long, "Sends refused: larger than the path.";
    "send_refused_unreachable" Counter train_refused.unreachable, "Sends refused: no route.";
    "send_refused_forbidden" Counter train_refused.forbidden, "Sends refused: firewall.";
    "send_refused_full" Counter train_refused.full, "Sends refused: no memory or queue full.";
    "send_refused_down" Counter train_refused.down, "Sends refused: interface down.";
    "send_refused_invalid" Counter train_refused.invalid, "Sends refused: not accepted like this.";
    "send_refused_other" Counter train_refused.other, "Sends refused for another cause.";
    "send_without_socket" Counter trains_without_socket, "Sends without a socket of that family.";
    "send_source_lost" Counter source_lost,
        "Sends repeated because their source address is no longer ours.";
    "segmentation_demoted" Counter segmentation_demoted, "Paths on which GSO was given up.";
    "paths_demoted" Gauge paths_demoted, "Paths on which GSO is given up now.";
    "trains_unsegmented" Counter trains_unsegmented, "Trains sent one datagram at a time.";
    "zero_copy_sent" Counter zero_copy_sent, "Trains sent without copying, as far as we asked.";
    "zero_copy_copied" Counter zero_copy_copied, "Of these, trains that the kernel copied.";
    "zero_copy_demoted" Counter zero_copy_demoted, "Paths on which zero copy was given up.";
    "inside_sent_bytes" Counter tun_write_bytes, "Bytes written to the TUN.";
    "tun_refused_down" Counter tun_refused.down, "Writes refused: the TUN is down.";
    "tun_refused_full" Counter tun_refused.full, "Writes refused: the TUN had no room.";
    "tun_refused_invalid" Counter tun_refused.invalid, "Writes refused: malformed for the TUN.";
    "tun_refused_other" Counter tun_refused.other, "Writes refused for another cause.";
    "pool_outside_free" Gauge outside_buffers_free, "Receive buffers of datagrams not in use.";
    "pool_outside_peak" Peak outside_buffers_high_water, "Most of them in use at once.";
    "pool_initiations_free" Gauge initiations_buffers_free,
        "Receive buffers of initiations not in use.";
    "pool_initiations_peak" Peak initiations_buffers_high_water, "Most of them in use at once.";
    "pool_inside_free" Gauge inside_buffers_free, "Receive buffers of TUN packets not in use.";
    "pool_inside_peak" Peak inside_buffers_high_water, "Most of them in use at once.";
    "pool_trains_free" Gauge train_buffers_free, "Transmit buffers not in use.";
    "pool_trains_peak" Peak train_buffers_high_water, "Most of them in use at once.";
    "pool_trains_exhausted" Counter train_buffers_exhausted, "Times no transmit buffer was free.";
    "pool_tun_writes_exhausted" Counter tun_writes_exhausted, "Times no TUN write was free.";
}

/// Words of a core's page.
pub const WORDS: usize = counters::WORDS + DRIVER_LAYOUT.len();

/// What the words of a core's page mean, in order.
#[must_use]
pub fn layout() -> Vec<Field> {
    counters::LAYOUT.iter().chain(DRIVER_LAYOUT).copied().collect()
}

/// Writes a core's page.
pub fn publish(counters: &Counters, driver: &DriverStats, out: &mut [u64]) {
    let (own, rest) = out.split_at_mut(counters::WORDS);
    counters.publish(own);
    publish_driver(driver, rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_its_own_name_and_the_words_add_up() {
        let layout = layout();
        let words: usize = layout.iter().map(|field| field.kind.words()).sum();
        assert_eq!(words, WORDS);
        let mut names: Vec<_> = layout.iter().map(|field| field.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), layout.len());
        publish(&Counters::default(), &DriverStats::default(), &mut vec![0; WORDS]);
    }
}
