//! The end of a simulated run: after all trouble everything works, and nothing is left behind.

use super::*;
use crate::model::Record;

impl World {
    /// Ends all trouble.
    pub(super) fn begin_calm(&mut self) {
        self.calm = true;
        self.next_attack = None;
        self.next_burst = self.time;
        self.model.in_order = false;
        let mut missing = Vec::new();
        for (_, event) in std::mem::take(&mut self.events) {
            if let Event::Add(number) = event {
                missing.push(number);
            }
        }
        missing.into_iter().for_each(|number| self.add(number));
        if self.scenario.scarce {
            self.restart_gateway();
        }
        let public = self.public();
        for guest in &mut self.guests {
            guest.cable.set(calm_link(), calm_link());
            guest.client.set_preshared(guest.preshared);
            if guest.plan.mute && !self.scenario.gentle {
                // It says nothing and knows nothing: the gateway's timers have to find it.
                guest.client.restart(public);
            }
        }
    }

    /// Everybody who may gets everything through, from `works_from` on.
    pub(super) fn check_delivery(&self, works_from: Instant) {
        // Where a clock has jumped, two hosts do not agree on the age of a key: what is under way
        // when the first of them refuses it is lost.
        let slept = |(_, event): &(Duration, Event)| matches!(event, Event::Suspend(..));
        let tolerated = usize::from(self.scenario.events.iter().any(slept));
        for (number, guest) in self.guests.iter().enumerate().filter(|(_, g)| !g.plan.stranger) {
            for way in [Way::ToExit, Way::ToClient] {
                let (sent, delivered) = self.model.count(|record| {
                    record.client == number && record.way == way && record.at >= works_from
                });
                let mute = guest.plan.mute && way == Way::ToExit;
                assert!(sent >= 5 || mute, "client {number} sent {sent}");
                assert!(
                    sent - delivered <= tolerated,
                    "client {number} {way:?}: {delivered} of {sent}; {:?} {:?}",
                    guest.plan,
                    self.scenario.events
                );
            }
        }
        if self.scenario.gentle {
            let (sent, delivered) = self.model.count(|record| !record.forbidden);
            assert_eq!(sent, delivered, "a gentle world loses nothing");
        }
    }

    /// How long after the end of all trouble the last packet was lost that should have arrived.
    pub(super) fn recovery(&self, storm_ends: Instant) -> Duration {
        let lost = |record: &&Record| !record.delivered && !record.forbidden;
        let last = self.model.records().iter().rev().find(lost);
        last.map_or(Duration::ZERO, |record| record.at.since(storm_ends))
    }

    /// Gauges say what is.
    pub(super) fn check_gauges(&mut self) {
        self.run_gateway();
        let peers = self.gateway.peers();
        let configured = self.guests.iter().filter(|guest| guest.configured).count();
        let live = peers.iter().filter(|peer| peer.live).count();
        assert_eq!(peers.len(), configured);
        assert_eq!(live, configured, "everybody has a session");
        let gateway = &mut self.gateway;
        assert_eq!(gateway.sum(|c| c.sessions), live as u64, "the gauge of sessions");
        assert_eq!(gateway.sum(|c| c.staged_packets), 0, "staged packets");
        let used = gateway.indices_used();
        assert!(used <= 4 * configured, "{used} indices for {configured} peers");
        for guest in self.guests.iter().filter(|guest| guest.configured) {
            let peer = peers.iter().find(|peer| peer.public == guest.client.public());
            let endpoint = peer.and_then(|peer| peer.endpoint);
            assert_eq!(endpoint, Some(guest.client.address));
        }
    }

    /// Without traffic and keepalives all sessions end, and what they held is free.
    pub(super) fn fall_asleep(&mut self) {
        for number in 0..self.guests.len() {
            let guest = &mut self.guests[number];
            guest.plan.gateway_keepalive_s = 0;
            guest.client.keep_alive(0, guest.clock.now(self.time));
            if guest.configured {
                let change = PeerChange {
                    keepalive_s: Some(0),
                    update_only: true,
                    ..PeerChange::of(guest.client.public())
                };
                self.command(|gateway| gateway.put_peer(change));
            }
        }
        self.run_until(self.time + Duration::from_secs(200));
        let live = self.gateway.peers().iter().filter(|peer| peer.live).count() as u64;
        assert_eq!(self.gateway.sum(|c| c.sessions), live, "sessions end with their keys");
        self.run_until(self.time + Duration::from_secs(600));
        assert_eq!(self.gateway.sum(|c| c.sessions), 0, "sessions of sleepers");
        assert_eq!(self.gateway.indices_used(), 0, "indices of sleepers");
        assert_eq!(self.gateway.heap_bytes(), 0, "memory of sleepers");
        self.ledger.audit(&mut self.gateway, self.time);
    }

    /// A gateway without peers holds nothing.
    pub(super) fn clear_out(&mut self) {
        self.command(Cluster::remove_all_peers);
        self.gateway.run();
        assert!(self.gateway.peers().is_empty());
        assert_eq!(self.gateway.indices_used(), 0, "indices of nobody");
        assert_eq!(self.gateway.heap_bytes(), 0, "memory of nobody");
        assert!(self.gateway.at_rest());
    }
}
