//! Machines this test does not run on, in `data/`: topologies of two-socket servers as `lstopo --of
//! xml` writes them (exported by hwloc 2.9 from its synthetic notation, which is kept in each
//! file), and what `/sys` and `/proc` say about network cards on such a server.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use ringway_numa::nic::{Interrupt, Nic};
use ringway_numa::plan::{Numa, Seat, Wishes, Workers};
use ringway_numa::{CpuList, Plan, Topology};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn machine(name: &str) -> Topology {
    Topology::from_xml(&std::fs::read_to_string(data(name)).unwrap()).unwrap()
}

fn cpus(plan: &Plan) -> String {
    plan.workers.iter().map(|seat| seat.cpu).collect::<CpuList>().to_string()
}

fn list(text: &str) -> CpuList {
    text.parse().unwrap()
}

#[test]
fn siblings_numbered_after_all_cores_are_recognised() {
    let machine = machine("two_sockets_smt.xml");
    assert_eq!(machine.cpu_list().to_string(), "0-15");
    assert_eq!(machine.cores(), 8);
    for id in 0..8 {
        let (first, second) = (machine.cpu(id).unwrap(), machine.cpu(id + 8).unwrap());
        assert_eq!((first.core, first.node), (second.core, second.node));
        assert_eq!((first.sibling, second.sibling), (0, 1));
        assert_eq!((first.package, first.node), (id / 4, id / 4));
    }
    assert!(machine.nodes().iter().all(|node| node.bytes == 64 << 30));
    let plan = Plan::new(&machine, &Wishes::default()).unwrap();
    assert_eq!(cpus(&plan), "0-7");
    assert_eq!(plan.control_cpu, Some(8));
}

#[test]
fn cpus_numbered_alternately_over_the_sockets_fill_one_node_first() {
    let machine = machine("two_sockets_interleaved.xml");
    assert_eq!(machine.cpu(3).unwrap().node, 1);
    let workers = Workers::Count(5.try_into().unwrap());
    let plan = Plan::new(&machine, &Wishes { workers, ..Default::default() }).unwrap();
    assert_eq!(cpus(&plan), "0,2,4,6,1");
    assert_eq!(plan.workers[4], Seat { cpu: 1, node: Some(1) });
    assert_eq!(plan.control_cpu, Some(3));
}

#[test]
fn a_socket_may_have_two_nodes() {
    let machine = machine("two_sockets_four_nodes.xml");
    assert_eq!(machine.node_list().to_string(), "0-3");
    let numa = Numa::Nodes(list("3,1"));
    let plan = Plan::new(&machine, &Wishes { numa, ..Default::default() }).unwrap();
    let seats: Vec<_> = plan.workers.iter().map(|seat| (seat.cpu, seat.node.unwrap())).collect();
    assert_eq!(seats, [(2, 1), (3, 1), (6, 3), (7, 3)]);
}

#[test]
fn memory_without_cpus_is_not_taken_for_the_memory_of_its_socket() {
    let machine = machine("two_sockets_far_memory.xml");
    assert_eq!(machine.node_list().to_string(), "0-3");
    let nodes: Vec<_> = machine.cpus().iter().map(|cpu| cpu.node).collect();
    assert_eq!(nodes, [0, 0, 2, 2]);
}

#[test]
fn a_container_with_half_a_machine_gets_a_plan_for_its_half() {
    let left = machine("two_sockets_smt.xml").restricted_to(&list("4-7,12-13"), &list("1"));
    let plan = Plan::new(&left.unwrap(), &Wishes::default()).unwrap();
    assert_eq!(cpus(&plan), "4-7");
    assert!(plan.workers.iter().all(|seat| seat.node == Some(1)));
    assert_eq!(plan.control_cpu, Some(12));
}

#[test]
fn every_cut_off_recording_is_an_error_and_no_crash() {
    let whole = std::fs::read_to_string(data("two_sockets_smt.xml")).unwrap();
    for end in (0..whole.len() - 20).step_by(97) {
        assert!(Topology::from_xml(&whole[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn a_network_card_tells_its_node_its_queues_and_its_interrupts() {
    let nic = Nic::read_from(&data("two_sockets_files"), "ens1f0").unwrap();
    assert_eq!((nic.name.as_str(), nic.node), ("ens1f0", Some(1)));
    assert_eq!((nic.rx.len(), nic.tx_queues), (4, 4));
    let rps: Vec<_> = nic.rx.iter().map(|queue| queue.rps_cpus.to_string()).collect();
    assert_eq!(rps, ["", "", "", "8-15"]);
    assert_eq!(nic.interrupts[0], Interrupt { number: 120, cpus: list("4") });
    assert_eq!(nic.interrupts[4], Interrupt { number: 124, cpus: list("0-15") });
}

#[test]
fn a_card_whose_firmware_does_not_tell_has_no_node() {
    let nic = Nic::read_from(&data("two_sockets_files"), "eth0").unwrap();
    assert_eq!(nic.node, None);
    assert_eq!(nic.rx[0].rps_cpus.to_string(), "0-3");
    assert!(nic.interrupts.is_empty());
}

#[test]
fn a_virtual_interface_has_queues_but_no_slot() {
    let nic = Nic::read_from(&data("two_sockets_files"), "veth1").unwrap();
    assert_eq!((nic.node, nic.rx.len(), nic.tx_queues), (None, 1, 1));
}

#[test]
fn an_interface_that_is_not_there_or_no_name_is_an_error() {
    for name in ["ens9", "", "..", ".", "../net/eth0", "a/b"] {
        assert!(Nic::read_from(&data("two_sockets_files"), name).is_err());
    }
}

#[test]
fn the_loopback_of_this_machine_is_read() {
    let nic = Nic::read("lo").unwrap();
    assert_eq!((nic.node, nic.rx.len()), (None, 1));
}
