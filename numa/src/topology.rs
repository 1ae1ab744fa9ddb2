//! CPUs, cores, packages and nodes of a machine, as plain data.
//!
//! Read with hwloc: from this machine, from a recorded XML export, or from a synthetic description.
//! Only what this process may use is kept, so that numactl, taskset and containers are respected;
//! read it before any thread is bound. This module must not know who wants the CPUs.

use std::collections::BTreeMap;

use hwlocality::Topology as Hwloc;
use hwlocality::object::TopologyObject;
use hwlocality::object::attributes::ObjectAttributes;
use hwlocality::object::types::ObjectType;

use crate::list::CpuList;
use crate::{memory, pin};

/// What a process may use of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    cpus: Vec<Cpu>,
    nodes: Vec<Node>,
}

/// One hardware thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// The kernel's number.
    pub id: u32,
    /// Its core, counted over the whole machine; siblings share it.
    pub core: u32,
    /// Its rank among the siblings of its core: 0 for the first.
    pub sibling: u32,
    /// Its socket, counted over the whole machine.
    pub package: u32,
    /// The node whose memory is nearest.
    pub node: u32,
}

/// One memory node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// The kernel's number.
    pub id: u32,
    /// Bytes it has, 0 if unknown.
    pub bytes: u64,
}

/// Why the topology is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// hwloc failed.
    #[error("Cannot read the topology of the machine: {0}; is /sys mounted?")]
    Unreadable(String),
    /// Neither XML of hwloc nor a synthetic description.
    #[error("Not a topology: {0}")]
    Malformed(String),
    /// No CPU is left.
    #[error("The topology has no CPU that this process may use (available: {0})")]
    NoCpus(CpuList),
}

impl Topology {
    /// This machine, as far as the calling thread may use it.
    ///
    /// # Errors
    /// If hwloc cannot read it.
    pub fn read() -> Result<Self, TopologyError> {
        let hwloc = Hwloc::new().map_err(|error| TopologyError::Unreadable(error.to_string()))?;
        Self::from_hwloc(&hwloc).restricted_to(&pin::allowed_cpus(), &memory::allowed_nodes())
    }

    /// This machine, whether or not this process may use all of it; for reports.
    ///
    /// # Errors
    /// If hwloc cannot read it.
    pub fn read_whole() -> Result<Self, TopologyError> {
        let hwloc = Hwloc::new().map_err(|error| TopologyError::Unreadable(error.to_string()))?;
        Self::whole(&hwloc)
    }

    /// A recorded machine: what `lstopo --of xml` writes.
    ///
    /// # Errors
    /// If hwloc does not understand it, or there is no CPU in it.
    pub fn from_xml(xml: &str) -> Result<Self, TopologyError> {
        let malformed = |error: &dyn std::fmt::Display| TopologyError::Malformed(error.to_string());
        let builder = Hwloc::builder().from_xml(xml).map_err(|error| malformed(&error))?;
        Self::whole(&builder.build().map_err(|error| malformed(&error))?)
    }

    /// A machine that does not exist: hwloc's synthetic notation, such as
    /// `package:2 numa:1 core:4 pu:2`.
    ///
    /// # Errors
    /// If hwloc does not understand it.
    pub fn from_synthetic(description: &str) -> Result<Self, TopologyError> {
        let malformed = |error: &dyn std::fmt::Display| TopologyError::Malformed(error.to_string());
        let builder =
            Hwloc::builder().from_synthetic(description).map_err(|error| malformed(&error))?;
        Self::whole(&builder.build().map_err(|error| malformed(&error))?)
    }

    /// The part of the machine that lies in both lists.
    ///
    /// # Errors
    /// If no CPU is left.
    pub fn restricted_to(mut self, cpus: &CpuList, nodes: &CpuList) -> Result<Self, TopologyError> {
        self.cpus.retain(|cpu| cpus.contains(cpu.id));
        self.nodes.retain(|node| nodes.contains(node.id));
        if self.cpus.is_empty() { Err(TopologyError::NoCpus(cpus.clone())) } else { Ok(self) }
    }

    /// CPUs that may be used, by the kernel's number.
    #[must_use]
    pub fn cpus(&self) -> &[Cpu] {
        &self.cpus
    }

    /// Nodes that may be used, by the kernel's number. May be other nodes than those of the CPUs.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The CPU with this number, if it may be used.
    #[must_use]
    pub fn cpu(&self, id: u32) -> Option<&Cpu> {
        self.cpus.iter().find(|cpu| cpu.id == id)
    }

    /// Whether memory may be taken from this node.
    #[must_use]
    pub fn has_node(&self, id: u32) -> bool {
        self.nodes.iter().any(|node| node.id == id)
    }

    /// Cores with at least one usable CPU.
    #[must_use]
    pub fn cores(&self) -> usize {
        let mut cores: Vec<_> = self.cpus.iter().map(|cpu| cpu.core).collect();
        cores.sort_unstable();
        cores.dedup();
        cores.len()
    }

    /// The numbers of the usable CPUs.
    #[must_use]
    pub fn cpu_list(&self) -> CpuList {
        self.cpus.iter().map(|cpu| cpu.id).collect()
    }

    /// The numbers of the usable nodes.
    #[must_use]
    pub fn node_list(&self) -> CpuList {
        self.nodes.iter().map(|node| node.id).collect()
    }

    fn whole(hwloc: &Hwloc) -> Result<Self, TopologyError> {
        let all = Self::from_hwloc(hwloc);
        if all.cpus.is_empty() { Err(TopologyError::NoCpus(CpuList::default())) } else { Ok(all) }
    }

    fn from_hwloc(hwloc: &Hwloc) -> Self {
        let mut siblings = BTreeMap::new();
        let mut cpus = Vec::new();
        for unit in hwloc.objects_with_type(ObjectType::PU) {
            let Some(id) = number(unit) else { continue };
            // A machine that does not tell its cores or packages has one of each per CPU or in all.
            let core = ancestor(unit, ObjectType::Core).unwrap_or(id);
            let sibling = siblings.entry(core).or_insert(0);
            cpus.push(Cpu {
                id,
                core,
                sibling: *sibling,
                package: ancestor(unit, ObjectType::Package).unwrap_or(0),
                node: nearest_node(unit),
            });
            *sibling += 1;
        }
        cpus.sort_by_key(|cpu| cpu.id);
        let nodes = hwloc.objects_with_type(ObjectType::NUMANode);
        let mut nodes: Vec<_> = nodes.filter_map(node).collect();
        nodes.sort_by_key(|node| node.id);
        Self { cpus, nodes }
    }
}

fn number(object: &TopologyObject) -> Option<u32> {
    object.os_index().and_then(|index| u32::try_from(index).ok())
}

/// The number over the whole machine of the core or package a unit is in; the kernel's own numbers
/// of these repeat from socket to socket.
fn ancestor(unit: &TopologyObject, of: ObjectType) -> Option<u32> {
    unit.first_ancestor_with_type(of).and_then(|found| u32::try_from(found.logical_index()).ok())
}

/// Where a unit has several nodes (memory without CPUs hangs at the same package), the lowest is
/// the one with the ordinary memory.
fn nearest_node(unit: &TopologyObject) -> u32 {
    let first = unit.nodeset().and_then(|nodes| nodes.first_set());
    first.and_then(|index| u32::try_from(usize::from(index)).ok()).unwrap_or(0)
}

fn node(object: &TopologyObject) -> Option<Node> {
    let bytes = if let Some(ObjectAttributes::NUMANode(memory)) = object.attributes() {
        memory.local_memory().map_or(0, u64::from)
    } else {
        0
    };
    Some(Node { id: number(object)?, bytes })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn this_machine_has_the_cpus_this_thread_may_use() {
        let topology = Topology::read().unwrap();
        let mut allowed = pin::allowed_cpus().as_slice().to_vec();
        allowed.sort_unstable();
        assert_eq!(topology.cpu_list().as_slice(), allowed);
        assert!(topology.cores() >= 1);
        assert!(!topology.nodes().is_empty());
    }

    #[test]
    fn a_bound_thread_reads_only_its_own_cpu() {
        let cpu = pin::allowed_cpus().as_slice()[0];
        std::thread::scope(|threads| {
            threads.spawn(|| {
                pin::pin_to(cpu).unwrap();
                assert_eq!(Topology::read().unwrap().cpu_list().as_slice(), [cpu]);
            });
        });
    }

    #[test]
    fn siblings_are_counted_within_their_core() {
        let machine = Topology::from_synthetic("package:2 [numa] core:2 pu:2").unwrap();
        let seen: Vec<_> = machine
            .cpus()
            .iter()
            .map(|cpu| (cpu.id, cpu.core, cpu.sibling, cpu.package, cpu.node))
            .collect();
        assert_eq!(seen[..3], [(0, 0, 0, 0, 0), (1, 0, 1, 0, 0), (2, 1, 0, 0, 0)]);
        assert_eq!(seen[7], (7, 3, 1, 1, 1));
        assert_eq!(machine.cores(), 4);
        assert_eq!(machine.node_list().to_string(), "0-1");
    }

    #[test]
    fn what_is_no_topology_is_an_error() {
        assert!(matches!(Topology::from_xml("<html/>"), Err(TopologyError::Malformed(_))));
        assert!(matches!(Topology::from_xml("\0"), Err(TopologyError::Malformed(_))));
        assert!(matches!(Topology::from_synthetic("pu"), Err(TopologyError::Malformed(_))));
    }

    #[test]
    fn an_empty_intersection_is_an_error() {
        let machine = Topology::from_synthetic("core:2 pu:1").unwrap();
        let none = CpuList::from_iter([9]);
        let left = machine.restricted_to(&none, &CpuList::from_iter([0]));
        assert_eq!(left, Err(TopologyError::NoCpus(none)));
    }
}
