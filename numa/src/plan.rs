//! Which worker gets which CPU and whose memory, and where the control thread goes.
//!
//! Without further wishes there is one worker per physical core, siblings stay idle, and workers
//! fill one node before the next, so that few workers share caches and the memory of one node. The
//! operator's list is taken literally, in its order. The control thread avoids the workers' CPUs
//! where it can. This module must not know what a worker does.

use std::num::NonZeroU16;
use std::str::FromStr;

use crate::list::{CpuList, ListError};
use crate::topology::{Cpu, Topology};

/// How many workers; `--workers`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Workers {
    /// One per physical core; with a list of CPUs, one per CPU of the list.
    #[default]
    Auto,
    /// So many.
    Count(NonZeroU16),
}

/// What to do about nodes; `--numa`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Numa {
    /// Memory of a worker comes from the node of its CPU.
    #[default]
    Auto,
    /// Memory comes from wherever the kernel takes it.
    Off,
    /// As `Auto`, with workers on the CPUs of these nodes only.
    Nodes(CpuList),
}

/// The operator's wishes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// How many workers.
    pub workers: Workers,
    /// CPUs for them, in this order.
    pub cpus: Option<CpuList>,
    /// What to do about nodes.
    pub numa: Numa,
    /// CPU for the control thread.
    pub control_cpu: Option<u32>,
    /// Whether there may be more workers than CPUs.
    pub oversubscribe: bool,
}

/// Where a worker lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// CPU to bind it to.
    pub cpu: u32,
    /// Node its memory is to be on; `None` leaves it to the kernel.
    pub node: Option<u32>,
}

/// Who lives where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// One seat per worker, in the order of their numbers.
    pub workers: Vec<Seat>,
    /// CPU of the control thread; `None` leaves it to the scheduler.
    pub control_cpu: Option<u32>,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Some of the CPUs cannot be used.
    #[error(
        "CPUs {missing} cannot be used (available: {available}): correct {option}, or widen the \
         affinity mask (taskset, numactl, CPUAffinity=)"
    )]
    CpusUnavailable {
        /// Those that cannot.
        missing: CpuList,
        /// Those that can.
        available: CpuList,
        /// The option that names them.
        option: &'static str,
    },
    /// Some of the nodes cannot be used.
    #[error(
        "Nodes {missing} cannot be used (available: {available}): correct --numa, or widen the \
         memory policy (numactl --membind, AllowedMemoryNodes=)"
    )]
    NodesUnavailable {
        /// Those that cannot.
        missing: CpuList,
        /// Those that can.
        available: CpuList,
    },
    /// No CPU fulfils all wishes.
    #[error("No CPU is both in --cpus and on the nodes of --numa: correct one of the two")]
    NothingLeft,
    /// More workers than CPUs.
    #[error(
        "{wanted} workers need {wanted} CPUs, and there are {available}: use --workers \
         {available}, or --oversubscribe to let workers share CPUs"
    )]
    TooManyWorkers {
        /// Workers asked for.
        wanted: usize,
        /// CPUs there are for them.
        available: usize,
    },
}

impl Plan {
    /// Places workers and control on a machine.
    ///
    /// # Errors
    /// If the wishes cannot be fulfilled: see [`PlanError`].
    pub fn new(topology: &Topology, wishes: &Wishes) -> Result<Self, PlanError> {
        let seats = candidates(topology, wishes)?;
        let count = match wishes.workers {
            Workers::Count(count) => usize::from(count.get()),
            Workers::Auto if wishes.cpus.is_some() => seats.len(),
            Workers::Auto => seats.iter().filter(|cpu| is_first_of_core(cpu, &seats)).count(),
        };
        if count > seats.len() && !wishes.oversubscribe {
            return Err(PlanError::TooManyWorkers { wanted: count, available: seats.len() });
        }
        let workers: Vec<_> =
            seats.iter().cycle().take(count).map(|cpu| seat(topology, wishes, cpu)).collect();
        let control_cpu = match wishes.control_cpu {
            Some(cpu) => {
                let wished = CpuList::from_iter([cpu]);
                check_cpus(topology, &wished, "--control-cpu")?;
                Some(cpu)
            }
            None => spare(topology, &workers),
        };
        Ok(Self { workers, control_cpu })
    }
}

impl FromStr for Workers {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "auto" { Ok(Self::Auto) } else { text.parse().map(Self::Count) }
    }
}

impl FromStr for Numa {
    type Err = ListError;

    fn from_str(text: &str) -> Result<Self, ListError> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            "" => Err(ListError::Malformed(String::new())),
            nodes => nodes.parse().map(Self::Nodes),
        }
    }
}

/// CPUs for workers, best first.
fn candidates(topology: &Topology, wishes: &Wishes) -> Result<Vec<Cpu>, PlanError> {
    let mut seats: Vec<Cpu> = if let Some(wished) = &wishes.cpus {
        check_cpus(topology, wished, "--cpus")?;
        wished.as_slice().iter().filter_map(|id| topology.cpu(*id)).copied().collect()
    } else {
        let mut all = topology.cpus().to_vec();
        // Every core once before any core twice; one node full before the next.
        all.sort_by_key(|cpu| (rank(topology, cpu), cpu.node, cpu.core, cpu.id));
        all
    };
    if let Numa::Nodes(nodes) = &wishes.numa {
        let absent = nodes.as_slice().iter().copied().filter(|id| !topology.has_node(*id));
        let missing: CpuList = absent.collect();
        if !missing.is_empty() {
            let available = topology.node_list();
            return Err(PlanError::NodesUnavailable { missing, available });
        }
        seats.retain(|cpu| nodes.contains(cpu.node));
    }
    if seats.is_empty() { Err(PlanError::NothingLeft) } else { Ok(seats) }
}

fn check_cpus(
    topology: &Topology,
    wished: &CpuList,
    option: &'static str,
) -> Result<(), PlanError> {
    let absent = wished.as_slice().iter().copied().filter(|id| topology.cpu(*id).is_none());
    let missing: CpuList = absent.collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(PlanError::CpusUnavailable { missing, available: topology.cpu_list(), option })
}

/// The rank of a CPU among the *usable* siblings of its core: a mask may have left only the second.
fn rank(topology: &Topology, cpu: &Cpu) -> usize {
    let before = |other: &&Cpu| other.core == cpu.core && other.sibling < cpu.sibling;
    topology.cpus().iter().filter(before).count()
}

fn is_first_of_core(cpu: &Cpu, seats: &[Cpu]) -> bool {
    seats.iter().find(|other| other.core == cpu.core).is_some_and(|first| first.id == cpu.id)
}

fn seat(topology: &Topology, wishes: &Wishes, cpu: &Cpu) -> Seat {
    // A node that the process may not take memory from cannot be bound to.
    let bound = wishes.numa != Numa::Off && topology.has_node(cpu.node);
    Seat { cpu: cpu.id, node: bound.then_some(cpu.node) }
}

/// A CPU that no worker has: best a core without workers, else a sibling of a worker.
fn spare(topology: &Topology, workers: &[Seat]) -> Option<u32> {
    let is_taken = |cpu: &Cpu| workers.iter().any(|seat| seat.cpu == cpu.id);
    let busy_cores: Vec<_> =
        topology.cpus().iter().filter(|cpu| is_taken(cpu)).map(|cpu| cpu.core).collect();
    let free = topology.cpus().iter().filter(|cpu| !is_taken(cpu));
    free.min_by_key(|cpu| (busy_cores.contains(&cpu.core), cpu.id)).map(|cpu| cpu.id)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
