//! What is sent in a simulated run, by those who may and by those who may not, and how it travels.

use super::*;

impl World {
    /// Some packets of one client, in one direction; in the calm one packet of each, both ways.
    pub(super) fn burst(&mut self) {
        if self.calm {
            self.next_burst = self.time + Duration::from_secs(1);
            for number in 0..self.guests.len() {
                if !self.guests[number].plan.mute {
                    self.send(number, Way::ToExit, 1, 100);
                }
                self.send(number, Way::ToClient, 1, 100);
            }
            return;
        }
        let gap = self.scenario.burst_gap.as_nanos() as u64;
        // Now and then nothing happens for long enough that timers matter.
        let pause = if self.random.below(60) == 0 { 40 } else { 2 };
        self.next_burst = self.time + Duration::from_nanos(1 + self.random.below(gap * pause));
        let number = self.random.below(self.guests.len() as u64) as usize;
        let way = if self.random.below(2) == 0 { Way::ToExit } else { Way::ToClient };
        let count = if self.random.below(8) == 0 { 20 } else { 1 + self.random.below(4) };
        let payload = match self.random.below(4) {
            0 => 8 + self.random.below(100),
            1 => u64::from(self.inner_mtu) - 48,
            2 if !self.scenario.gentle => 1_300 + self.random.below(300),
            _ => 8 + self.random.below(1_200),
        };
        self.send(number, way, count as usize, payload as usize);
    }

    fn send(&mut self, number: usize, way: Way, count: usize, payload: usize) {
        let v6 = self.guests[number].chooses_v6(self.random.below(2) == 0);
        let mut path = self.guests[number].path(way, v6);
        let forged = !self.calm && self.random.below(40) == 0;
        match way {
            Way::ToExit if forged => path.0 = inner(number + 1, v6).0,
            Way::ToClient if forged => path.1 = inner(200, v6).0,
            Way::ToExit | Way::ToClient => {}
        }
        let packets: Vec<_> = (0..count)
            .map(|at| {
                // The last of a train may be shorter.
                let shorter = at + 1 == count && count > 1;
                let payload = if shorter { payload / 2 } else { payload };
                let packet = self.model.packet(way, number, path, payload, self.time);
                if forged || self.guests[number].plan.stranger {
                    self.model.forbid_last();
                }
                packet
            })
            .collect();
        match way {
            Way::ToExit => {
                for packet in &packets {
                    let now = self.guests[number].clock.now(self.time);
                    let out = self.guests[number].client.send(packet, now);
                    self.send_up(number, out);
                }
            }
            Way::ToClient => self.send_inside(&packets),
        }
    }

    fn send_inside(&mut self, packets: &[Vec<u8>]) {
        let equal = packets[..packets.len() - 1].iter().all(|p| p.len() == packets[0].len());
        let gateway = &mut self.gateway;
        let (handed, taken, each) = if self.scenario.offloads && packets.len() > 1 && equal {
            let taken = gateway.inject_inside(&merged(packets));
            (1, u64::from(taken), packets.len() as u64)
        } else {
            let taken = packets.iter().filter(|packet| gateway.inject_packet(packet)).count();
            (packets.len() as u64, taken as u64, 1)
        };
        self.ledger.inside += taken;
        self.ledger.inside_packets += taken * each;
        self.ledger.occasions += handed;
        self.run_gateway();
    }

    /// Something hostile reaches the gateway or a client.
    pub(super) fn attack(&mut self) {
        let gap = self.scenario.attack_gap.map(|gap| gap.as_nanos() as u64);
        self.next_attack =
            gap.map(|gap| self.time + Duration::from_nanos(1 + self.random.below(2 * gap)));
        let number = self.random.below(self.guests.len() as u64) as usize;
        if self.random.below(3) == 0 {
            let guest = &self.guests[number];
            let victim = guest.client.public();
            let (hostile, _) = self.attacker.invent(guest.client.address, &victim);
            self.arrive(number, &hostile.bytes);
        } else {
            let to = gateway_address(self.guests[number].plan.outside_v6);
            let victim = self.public();
            let (hostile, authentic) = self.attacker.invent(to, &victim);
            let copy = self.arrived.contains(&digest(&hostile.bytes));
            let authentic = authentic && !copy;
            let before = self.endpoints();
            self.deliver(&[hostile]);
            self.run_gateway();
            assert!(authentic || self.endpoints() == before, "a forgery moved an endpoint");
        }
    }

    fn endpoints(&self) -> Vec<Option<SocketAddr>> {
        let mut found = Vec::new();
        for shard in &self.gateway.shards {
            let peers = shard.shard.peers();
            let mut cursor = 0;
            while let Some((id, peer)) = peers.next_from(cursor) {
                cursor = id.slot + 1;
                found.push(peer.endpoint.map(|endpoint| endpoint.remote));
            }
        }
        found
    }

    /// Many handshakes that lead nowhere, at once.
    pub(super) fn flood(&mut self, count: u16) {
        let victim = self.public();
        let to = gateway_address(false);
        let from = SocketAddr::new([203, 0, 113, 67].into(), 667);
        let flood: Vec<_> = (0..count)
            .map(|_| Datagram { bytes: initiation(&mut self.random, &victim), from, to })
            .collect();
        flood.chunks(MERGED_MAX).for_each(|merged| self.deliver(merged));
        self.run_gateway();
    }

    /// What a client sends goes into its cable.
    pub(super) fn send_up(&mut self, number: usize, out: Vec<Vec<u8>>) {
        let guest = &mut self.guests[number];
        let to = gateway_address(guest.plan.outside_v6);
        for bytes in out {
            let datagram = Datagram { bytes, from: guest.client.address, to };
            self.trace = traced(self.trace, self.time, &datagram);
            if self.next_attack.is_some() {
                self.attacker.overhear(&datagram);
            }
            guest.cable.send_up(datagram, self.time);
        }
    }

    /// All that reaches the gateway now, merged as a kernel merges it.
    pub(super) fn arrive_at_gateway(&mut self) {
        let time = self.time;
        let mut arrived = Vec::new();
        for guest in &mut self.guests {
            arrived.extend(std::iter::from_fn(|| guest.cable.take_up(time)));
        }
        if arrived.is_empty() {
            return;
        }
        let mut handed = 0;
        while !arrived.is_empty() {
            let count = if self.scenario.offloads { mergeable(&arrived) } else { 1 };
            let rest = arrived.split_off(count);
            if self.next_attack.is_some() && self.scenario.offloads && self.random.below(8) == 0 {
                // Somebody sends it twice, so fast that both are merged.
                arrived.insert(0, arrived[0].clone());
            }
            self.deliver(&arrived);
            arrived = rest;
            handed += 1;
            if handed % HANDED_MAX == 0 {
                self.run_gateway();
            }
        }
        self.run_gateway();
    }

    fn deliver(&mut self, merged: &[Datagram]) {
        // An empty datagram is refused by the driver already.
        let Some(first) = merged.first().filter(|first| !first.bytes.is_empty()) else { return };
        let (from, to) = (first.from, first.to);
        let bytes: Vec<_> = merged.iter().map(|datagram| datagram.bytes.clone()).collect();
        if self.gateway.is_steered()
            && first.bytes[0] == 1
            && let Some(guest) = self.guests.iter().find(|guest| guest.client.address == from)
        {
            // The kernel steers what it merged by the first datagram: data behind an initiation
            // comes to the core of the initiation, and data behind that to its own.
            self.model.may_be_overtaken(guest.number, bytes.len() - 1);
        }
        let ecn = Ecn(self.random.below(4) as u8);
        let refused = self.gateway.deliver(&bytes, from, to.ip(), ecn);
        self.ledger.datagrams += bytes.len() as u64 - refused;
        if self.next_attack.is_some() && refused == 0 {
            // A refused handshake message may be accepted later; a transport message never.
            let data = bytes.iter().filter(|bytes| bytes[0] == 4);
            self.arrived.extend(data.map(|bytes| digest(bytes)));
        }
        self.ledger.occasions += bytes.len() as u64;
    }

    /// All that reaches this client now.
    pub(super) fn arrive_at_guest(&mut self, number: usize) {
        while let Some(datagram) = self.guests[number].cable.take_down(self.time) {
            // It may have moved meanwhile.
            if datagram.to == self.guests[number].client.address {
                self.arrive(number, &datagram.bytes);
            }
        }
    }

    fn arrive(&mut self, number: usize, bytes: &[u8]) {
        let guest = &mut self.guests[number];
        let now = guest.clock.now(self.time);
        let out = guest.client.receive(bytes, now);
        for packet in std::mem::take(&mut guest.client.received) {
            self.model.received(number, &packet);
        }
        self.send_up(number, out);
    }

    /// Lets the gateway work, and sees what came of it.
    pub(super) fn run_gateway(&mut self) {
        self.gateway.now = self.clock.now(self.time);
        let sent = self.gateway.run();
        assert!(self.gateway.at_rest(), "a buffer is missing");
        for packet in std::mem::take(&mut self.gateway.written) {
            self.model.written(&packet);
        }
        for datagram in sent {
            self.send_down(datagram);
        }
    }

    fn send_down(&mut self, sent: Sent) {
        let from = gateway_address(sent.to.is_ipv6());
        if let Some(local) = sent.from {
            assert_eq!(local.address, from.ip(), "an answer leaves from where it was asked");
        }
        // Padding never makes a packet longer than the path takes (section 5.4.6), which for IPv6
        // is never less than 1280.
        let most = 32 + usize::from(self.inner_mtu.max(1_280));
        assert!(sent.bytes.len() <= most, "{} bytes", sent.bytes.len());
        let datagram = Datagram { bytes: sent.bytes, from, to: sent.to };
        self.trace = traced(self.trace, self.time, &datagram);
        if self.next_attack.is_some() {
            self.attacker.overhear(&datagram);
        }
        let guest = self.guests.iter_mut().find(|guest| guest.client.address == datagram.to);
        if let Some(guest) = guest {
            guest.cable.send_down(datagram, self.time);
        }
    }
}

/// How many of the first datagrams a kernel would merge: one sender, equal length, the last may be
/// shorter.
fn mergeable(datagrams: &[Datagram]) -> usize {
    let first = &datagrams[0];
    let stride = first.bytes.len();
    let mut total = stride;
    let mut count = 1;
    for datagram in &datagrams[1..datagrams.len().min(MERGED_MAX)] {
        let len = datagram.bytes.len();
        let fits = stride > 0 && len > 0 && len <= stride && total + len <= 65_507;
        if !fits || datagram.from != first.from || datagram.to != first.to {
            break;
        }
        total += len;
        count += 1;
        if len < stride {
            break;
        }
    }
    count
}

/// One step of a hash over what happens.
fn traced(trace: u64, time: Instant, datagram: &Datagram) -> u64 {
    let place = |address: SocketAddr| u64::from(address.port());
    let words = [trace, time.as_nanos(), place(datagram.from), place(datagram.to)];
    let words = words.map(u64::to_le_bytes);
    digest(&[words.as_flattened(), &datagram.bytes].concat())
}

fn digest(bytes: &[u8]) -> u64 {
    hash(&[bytes]).first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
}
