//! Plans on machines that do not exist.

#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

fn machine(description: &str) -> Topology {
    Topology::from_synthetic(description).unwrap()
}

fn cpus(plan: &Plan) -> Vec<u32> {
    plan.workers.iter().map(|seat| seat.cpu).collect()
}

fn count(workers: u16) -> Workers {
    Workers::Count(NonZeroU16::new(workers).unwrap())
}

fn list(text: &str) -> CpuList {
    text.parse().unwrap()
}

const TWO_SOCKETS: &str = "package:2 [numa] core:4 pu:2";

#[test]
fn by_default_every_core_has_a_worker_and_siblings_are_idle() {
    let plan = Plan::new(&machine(TWO_SOCKETS), &Wishes::default()).unwrap();
    assert_eq!(cpus(&plan), [0, 2, 4, 6, 8, 10, 12, 14]);
    assert_eq!(plan.workers[3], Seat { cpu: 6, node: Some(0) });
    assert_eq!(plan.workers[4], Seat { cpu: 8, node: Some(1) });
    assert_eq!(plan.control_cpu, Some(1));
}

#[test]
fn few_workers_stay_on_one_node_and_control_gets_a_core_of_its_own() {
    let wishes = Wishes { workers: count(3), ..Default::default() };
    let plan = Plan::new(&machine(TWO_SOCKETS), &wishes).unwrap();
    assert_eq!(cpus(&plan), [0, 2, 4]);
    assert_eq!(plan.control_cpu, Some(6));
}

#[test]
fn siblings_come_after_all_cores() {
    let wishes = Wishes { workers: count(10), ..Default::default() };
    let plan = Plan::new(&machine(TWO_SOCKETS), &wishes).unwrap();
    assert_eq!(cpus(&plan)[6..], [12, 14, 1, 3]);
}

#[test]
fn the_operators_list_is_taken_in_its_order() {
    let wishes = Wishes { cpus: Some(list("9,8,0")), ..Default::default() };
    let plan = Plan::new(&machine(TWO_SOCKETS), &wishes).unwrap();
    assert_eq!(cpus(&plan), [9, 8, 0]);
    let wishes = Wishes { workers: count(2), ..wishes };
    assert_eq!(cpus(&Plan::new(&machine(TWO_SOCKETS), &wishes).unwrap()), [9, 8]);
}

#[test]
fn a_mask_that_left_second_siblings_still_gives_each_core_a_worker() {
    let nodes = list("0-1");
    let left = machine(TWO_SOCKETS).restricted_to(&list("1,3,4-5"), &nodes).unwrap();
    let plan = Plan::new(&left, &Wishes::default()).unwrap();
    assert_eq!(cpus(&plan), [1, 3, 4]);
    assert_eq!(plan.control_cpu, Some(5));
}

#[test]
fn nodes_choose_the_cpus() {
    let wishes = Wishes { numa: Numa::Nodes(list("1")), ..Default::default() };
    let plan = Plan::new(&machine(TWO_SOCKETS), &wishes).unwrap();
    assert_eq!(cpus(&plan), [8, 10, 12, 14]);
    assert!(plan.workers.iter().all(|seat| seat.node == Some(1)));
}

#[test]
fn with_numa_off_no_memory_is_bound() {
    let wishes = Wishes { numa: Numa::Off, ..Default::default() };
    let plan = Plan::new(&machine(TWO_SOCKETS), &wishes).unwrap();
    assert!(plan.workers.iter().all(|seat| seat.node.is_none()));
}

#[test]
fn memory_is_not_bound_to_a_node_the_process_may_not_use() {
    let left = machine(TWO_SOCKETS).restricted_to(&list("0-15"), &list("0")).unwrap();
    let plan = Plan::new(&left, &Wishes::default()).unwrap();
    assert_eq!(plan.workers[0].node, Some(0));
    assert_eq!(plan.workers[4], Seat { cpu: 8, node: None });
}

#[test]
fn on_a_machine_without_a_spare_cpu_control_goes_where_the_scheduler_likes() {
    let plan = Plan::new(&machine("core:2 pu:1"), &Wishes::default()).unwrap();
    assert_eq!(cpus(&plan), [0, 1]);
    assert_eq!(plan.control_cpu, None);
    let wishes = Wishes { control_cpu: Some(1), ..Default::default() };
    assert_eq!(Plan::new(&machine("core:2 pu:1"), &wishes).unwrap().control_cpu, Some(1));
}

#[test]
fn more_workers_than_cpus_need_permission() {
    let mut wishes = Wishes { workers: count(5), ..Default::default() };
    let machine = machine("core:2 pu:1");
    let refused = Plan::new(&machine, &wishes);
    assert_eq!(refused, Err(PlanError::TooManyWorkers { wanted: 5, available: 2 }));
    wishes.oversubscribe = true;
    assert_eq!(cpus(&Plan::new(&machine, &wishes).unwrap()), [0, 1, 0, 1, 0]);
}

#[test]
fn a_wish_that_cannot_be_fulfilled_is_answered_with_what_there_is() {
    let machine = machine("core:2 pu:1");
    let refused = |wishes| Plan::new(&machine, &wishes).unwrap_err().to_string();
    assert_eq!(
        refused(Wishes { cpus: Some(list("1-3")), ..Default::default() }),
        "CPUs 2-3 cannot be used (available: 0-1): correct --cpus, or widen the affinity mask \
         (taskset, numactl, CPUAffinity=)"
    );
    assert_eq!(
        refused(Wishes { control_cpu: Some(7), ..Default::default() }),
        "CPUs 7 cannot be used (available: 0-1): correct --control-cpu, or widen the affinity mask \
         (taskset, numactl, CPUAffinity=)"
    );
    assert_eq!(
        refused(Wishes { numa: Numa::Nodes(list("0,3")), ..Default::default() }),
        "Nodes 3 cannot be used (available: 0): correct --numa, or widen the memory policy \
         (numactl --membind, AllowedMemoryNodes=)"
    );
    assert_eq!(
        refused(Wishes { cpus: Some(CpuList::default()), ..Default::default() }),
        PlanError::NothingLeft.to_string()
    );
}

#[test]
fn options_are_read_as_the_command_line_writes_them() {
    assert_eq!("auto".parse(), Ok(Workers::Auto));
    assert_eq!("3".parse(), Ok(count(3)));
    assert!("0".parse::<Workers>().is_err());
    assert!("many".parse::<Workers>().is_err());
    assert_eq!("auto".parse(), Ok(Numa::Auto));
    assert_eq!("off".parse(), Ok(Numa::Off));
    assert_eq!("0,1".parse(), Ok(Numa::Nodes(list("0-1"))));
    assert!("".parse::<Numa>().is_err());
    assert!("on".parse::<Numa>().is_err());
}
