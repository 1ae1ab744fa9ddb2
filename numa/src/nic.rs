//! Where a network card is: its node, its queues, and the CPUs its interrupts go to.
//!
//! Read from `/sys` and `/proc`, or from a recorded copy of them. What a virtual interface does not
//! have is left empty. This module must not know what is sent over the card.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::list::CpuList;

/// What is known of one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nic {
    /// Its name.
    pub name: String,
    /// Node of its slot; `None` if it has no device or the firmware does not tell.
    pub node: Option<u32>,
    /// Receive queues, by number.
    pub rx: Vec<RxQueue>,
    /// Number of transmit queues.
    pub tx_queues: usize,
    /// Its interrupts, by number.
    pub interrupts: Vec<Interrupt>,
}

/// A receive queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RxQueue {
    /// CPUs that packets are passed on to in software (RPS); usually none.
    pub rps_cpus: CpuList,
}

/// An interrupt of the card.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interrupt {
    /// Its number.
    pub number: u32,
    /// CPUs it may go to.
    pub cpus: CpuList,
}

impl Nic {
    /// Reads what this machine says about `interface`.
    ///
    /// # Errors
    /// If there is no such interface.
    pub fn read(interface: &str) -> io::Result<Self> {
        Self::read_from(Path::new("/"), interface)
    }

    /// As [`Nic::read`], under another root.
    ///
    /// # Errors
    /// If there is no such interface.
    pub fn read_from(root: &Path, interface: &str) -> io::Result<Self> {
        if interface.is_empty() || interface.starts_with('.') || interface.contains('/') {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let base = root.join("sys/class/net").join(interface);
        fs::metadata(&base)?;
        let queues = names(&base.join("queues"));
        let mut rx: Vec<_> = numbered(&queues, "rx-");
        rx.sort_unstable();
        let mut interrupts: Vec<_> = numbered(&names(&base.join("device/msi_irqs")), "");
        interrupts.sort_unstable();
        let rx_queue =
            |number| RxQueue { rps_cpus: mask(&base.join(format!("queues/rx-{number}/rps_cpus"))) };
        let interrupt = |number| Interrupt {
            number,
            cpus: list(&root.join(format!("proc/irq/{number}/smp_affinity_list"))),
        };
        Ok(Self {
            name: interface.to_owned(),
            // The kernel writes -1 where there is no node.
            node: text(&base.join("device/numa_node")).parse().ok(),
            rx: rx.into_iter().map(rx_queue).collect(),
            tx_queues: numbered(&queues, "tx-").len(),
            interrupts: interrupts.into_iter().map(interrupt).collect(),
        })
    }
}

fn text(path: &PathBuf) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn list(path: &PathBuf) -> CpuList {
    text(path).parse().unwrap_or_default()
}

fn mask(path: &PathBuf) -> CpuList {
    CpuList::from_mask(&text(path)).unwrap_or_default()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn numbered(names: &[String], prefix: &str) -> Vec<u32> {
    names.iter().filter_map(|name| name.strip_prefix(prefix)?.parse().ok()).collect()
}
