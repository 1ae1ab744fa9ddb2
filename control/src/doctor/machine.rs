//! Where workers and network cards are: CPUs, memory nodes, queues, interrupts.

use std::fs;

use ringway_numa::nic::Nic;
use ringway_numa::{CpuList, Plan, Topology};

use super::{Files, Finding};
use crate::config::Config;
use crate::run;

const AREA: &str = "machine";

pub(super) fn examine(files: &Files, config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    match Topology::read() {
        Ok(topology) => findings.push(topology_finding(&topology)),
        Err(error) => {
            let fix = "mount /sys";
            findings.push(Finding::missing(AREA, "topology", error.to_string(), fix));
        }
    }
    let plan = run::plan(&config.workers);
    findings.push(match &plan {
        Ok(plan) => Finding::ok(AREA, "plan", show_plan(plan)),
        Err(failure) => {
            let fix = "correct [workers] or the start-up flags";
            Finding::missing(AREA, "plan", &failure.message, fix)
        }
    });
    findings.extend(huge_pages(files));
    let plan = plan.unwrap_or(Plan { workers: Vec::new(), control_cpu: None });
    for uplink in uplinks(files) {
        if let Ok(nic) = Nic::read_from(&files.root, &uplink) {
            findings.extend(card(&nic, &plan));
        }
    }
    findings
}

/// Interfaces with a default route, by name; the gateway's outer traffic goes through them.
pub(super) fn uplinks(files: &Files) -> Vec<String> {
    let v4 = files.text("/proc/net/route").unwrap_or_default();
    // Interface, destination, gateway, flags, …, mask: a default route has both 0.
    let v4 = v4.lines().skip(1).filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let default = words.get(1) == Some(&"00000000") && words.get(7) == Some(&"00000000");
        default.then(|| words.first().copied()).flatten()
    });
    let v6 = files.text("/proc/net/ipv6_route").unwrap_or_default();
    // Destination, its prefix length, …, interface last. Loopback stands for "unreachable".
    let v6 = v6.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let destination = words.first()?;
        let default = destination.bytes().all(|byte| byte == b'0') && words.get(1) == Some(&"00");
        words.last().copied().filter(|name| default && *name != "lo")
    });
    let mut names: Vec<String> = v4.chain(v6).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    names
}

fn topology_finding(topology: &Topology) -> Finding {
    let text = format!(
        "{} CPU(s) on {} core(s) and {} memory node(s) may be used: CPUs {}, nodes {}",
        topology.cpus().len(),
        topology.cores(),
        topology.nodes().len(),
        topology.cpu_list(),
        topology.node_list(),
    );
    Finding::ok(AREA, "topology", text)
}

fn show_plan(plan: &Plan) -> String {
    let seats = plan.workers.iter().enumerate().map(|(worker, seat)| match seat.node {
        Some(node) => format!("worker {worker} on CPU {} with memory of node {node}", seat.cpu),
        None => format!("worker {worker} on CPU {}", seat.cpu),
    });
    let control = match plan.control_cpu {
        Some(cpu) => format!("control on CPU {cpu}"),
        None => "control wherever there is room".to_owned(),
    };
    seats.chain([control]).collect::<Vec<_>>().join(", ")
}

fn huge_pages(files: &Files) -> Option<Finding> {
    const NAME: &str = "transparent huge pages";
    let path = "/sys/kernel/mm/transparent_hugepage/enabled";
    let text = files.text(path)?;
    // The choice in force stands in brackets.
    let chosen = text.split('[').nth(1)?.split(']').next()?;
    Some(if matches!(chosen, "always" | "madvise") {
        Finding::ok(AREA, NAME, format!("{chosen}: packet arenas use them"))
    } else {
        let text = format!("{chosen}: packet arenas cost more TLB misses");
        Finding::advice(AREA, NAME, text, format!("echo madvise > {path}"))
    })
}

/// What a card could do better for these workers.
fn card(nic: &Nic, plan: &Plan) -> Vec<Finding> {
    let name = &nic.name;
    let workers: CpuList = plan.workers.iter().map(|seat| seat.cpu).collect();
    let queues = nic.rx.len();
    let mut findings = vec![Finding::ok(
        AREA,
        format!("card {name}"),
        format!(
            "{queues} receive and {} transmit queue(s), {} interrupt(s){}",
            nic.tx_queues,
            nic.interrupts.len(),
            nic.node.map_or_else(String::new, |node| format!(", on node {node}")),
        ),
    )];
    let softly_spread = nic.rx.iter().any(|queue| !queue.rps_cpus.is_empty());
    if queues > 0 && queues < workers.len() && !softly_spread {
        let text = format!(
            "{queues} queue(s) for {} workers: one CPU does the receive work of the kernel for all",
            workers.len()
        );
        let mask = workers
            .as_slice()
            .iter()
            .fold(0_u128, |mask, cpu| mask | 1_u128.checked_shl(*cpu).unwrap_or(0));
        let fix = format!(
            "ethtool -L {name} combined {}; if it has no more: echo {mask:x} > \
             /sys/class/net/{name}/queues/rx-0/rps_cpus",
            workers.len()
        );
        findings.push(Finding::advice(AREA, format!("receive queues of {name}"), text, fix));
    }
    findings.extend(interrupts(nic, &workers));
    let foreign = plan.workers.iter().filter_map(|seat| seat.node);
    if let Some(node) = nic.node
        && foreign.into_iter().any(|seat| seat != node)
    {
        let text = format!("on node {node}, workers also on others: packets cross between nodes");
        let fix = format!("ringway run --numa {node}");
        findings.push(Finding::advice(AREA, format!("node of {name}"), text, fix));
    }
    findings
}

/// Interrupts that can only go to the CPU of a worker, where they stop its loop.
fn interrupts(nic: &Nic, workers: &CpuList) -> Option<Finding> {
    let all_on_workers = |cpus: &CpuList| {
        !cpus.is_empty() && cpus.as_slice().iter().all(|cpu| workers.contains(*cpu))
    };
    let pinned: Vec<String> = nic
        .interrupts
        .iter()
        .filter(|interrupt| all_on_workers(&interrupt.cpus))
        .map(|interrupt| interrupt.number.to_string())
        .collect();
    let first = pinned.first()?;
    let spare = spare_cpus(workers)?;
    let text = format!("interrupts {} go to CPUs of workers only", pinned.join(", "));
    let fix = format!(
        "systemctl stop irqbalance; echo {spare} > /proc/irq/{first}/smp_affinity_list (and so on)"
    );
    Some(Finding::advice(AREA, format!("interrupts of {}", nic.name), text, fix))
}

/// CPUs that no worker has; `None` if there are none.
fn spare_cpus(workers: &CpuList) -> Option<CpuList> {
    let online: CpuList =
        fs::read_to_string("/sys/devices/system/cpu/online").ok()?.trim().parse().ok()?;
    let spare: CpuList =
        online.as_slice().iter().copied().filter(|cpu| !workers.contains(*cpu)).collect();
    (!spare.is_empty()).then_some(spare)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;
    use ringway_numa::nic::{Interrupt, RxQueue};
    use ringway_numa::plan::Seat;

    fn plan(cpus: &[u32], node: u32) -> Plan {
        let seat = |cpu: &u32| Seat { cpu: *cpu, node: Some(node) };
        Plan { workers: cpus.iter().map(seat).collect(), control_cpu: None }
    }

    fn nic(queues: usize) -> Nic {
        Nic {
            name: "eth0".to_owned(),
            node: Some(0),
            rx: vec![RxQueue::default(); queues],
            tx_queues: queues,
            interrupts: Vec::new(),
        }
    }

    #[test]
    fn too_few_queues_are_advice_with_the_mask_of_the_workers() {
        let findings = card(&nic(1), &plan(&[1, 2], 0));
        assert_eq!(findings.len(), 2);
        assert_eq!(findings[1].state, State::Advice);
        assert!(findings[1].fix.as_ref().unwrap().contains("combined 2"));
        assert!(findings[1].fix.as_ref().unwrap().contains("echo 6 >"));
        assert_eq!(card(&nic(2), &plan(&[1, 2], 0)).len(), 1);
    }

    #[test]
    fn a_card_on_another_node_is_advice() {
        let findings = card(&nic(1), &plan(&[1], 1));
        assert!(findings[1].fix.as_ref().unwrap().contains("--numa 0"), "{findings:?}");
    }

    #[test]
    fn interrupts_on_workers_only_are_advice_where_another_cpu_is_free() {
        let mut nic = nic(1);
        nic.interrupts.push(Interrupt { number: 7, cpus: CpuList::from_iter([0]) });
        let found = interrupts(&nic, &CpuList::from_iter([0]));
        let others = spare_cpus(&CpuList::from_iter([0])).is_some();
        assert_eq!(found.is_some(), others);
        assert_eq!(interrupts(&nic, &CpuList::from_iter([1])), None);
    }

    #[test]
    fn a_plan_is_shown_seat_by_seat() {
        assert_eq!(
            show_plan(&plan(&[3], 0)),
            "worker 0 on CPU 3 with memory of node 0, control wherever there is room"
        );
    }
}
