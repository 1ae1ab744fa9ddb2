//! The topology read from `/sys` of a machine this test does not run on: a two-socket server with
//! siblings, CPUs numbered alternately over the sockets, and one CPU offline. The files are written
//! as Linux shows them; hwloc is pointed at them by HWLOC_FSROOT, in a process of its own, because
//! the environment is shared by all threads.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ringway_numa::Topology;

const CPUS: u32 = 16;
const OFFLINE: u32 = 15;
const NODE_KIB: u64 = 64 << 20;

#[test]
fn a_two_socket_server_is_read_from_its_sysfs() {
    if std::env::var_os("HWLOC_FSROOT").is_some() {
        check();
        return;
    }
    let root = std::env::temp_dir().join(format!("ringway-sysfs-{}", std::process::id()));
    write_machine(&root);
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_two_socket_server_is_read_from_its_sysfs", "--nocapture"])
        .env("HWLOC_FSROOT", &root)
        .env("HWLOC_COMPONENTS", "linux,stop")
        .output()
        .unwrap();
    fs::remove_dir_all(&root).unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
}

fn check() {
    let machine = Topology::read_whole().unwrap();
    assert_eq!(machine.cpu_list().to_string(), "0-14");
    assert_eq!(machine.cores(), 8);
    assert_eq!(machine.node_list().to_string(), "0-1");
    for cpu in machine.cpus() {
        assert_eq!((cpu.package, cpu.node), (package(cpu.id), package(cpu.id)), "{cpu:?}");
        assert_eq!(cpu.sibling, cpu.id / 8, "{cpu:?}");
        let first = machine.cpu(cpu.id % 8).unwrap();
        assert_eq!(cpu.core, first.core, "{cpu:?}");
    }
    assert!(machine.nodes().iter().all(|node| node.bytes == NODE_KIB << 10));
}

const fn package(cpu: u32) -> u32 {
    cpu % 2
}

/// Core numbers repeat from socket to socket, as on real machines.
const fn core(cpu: u32) -> u32 {
    cpu / 2 % 4
}

fn write_machine(root: &Path) {
    let cpus = root.join("sys/devices/system/cpu");
    write(&cpus.join("possible"), "0-15");
    write(&cpus.join("present"), "0-15");
    write(&cpus.join("online"), "0-14");
    for cpu in 0..CPUS {
        let folder = cpus.join(format!("cpu{cpu}"));
        write(&folder.join("online"), if cpu == OFFLINE { "0" } else { "1" });
        if cpu == OFFLINE {
            continue;
        }
        let topology = folder.join("topology");
        let same_package = mask(|other| package(other) == package(cpu));
        let same_core = mask(|other| package(other) == package(cpu) && core(other) == core(cpu));
        for name in ["package_cpus", "core_siblings"] {
            write(&topology.join(name), &same_package);
        }
        for name in ["core_cpus", "thread_siblings"] {
            write(&topology.join(name), &same_core);
        }
        write(&topology.join("core_id"), &core(cpu).to_string());
        write(&topology.join("physical_package_id"), &package(cpu).to_string());
    }
    let nodes = root.join("sys/devices/system/node");
    for name in ["online", "possible", "has_cpu", "has_memory"] {
        write(&nodes.join(name), "0-1");
    }
    for node in 0..2 {
        let folder = nodes.join(format!("node{node}"));
        write(&folder.join("cpumap"), &mask(|cpu| package(cpu) == node));
        write(&folder.join("distance"), if node == 0 { "10 21" } else { "21 10" });
        write(&folder.join("meminfo"), &format!("Node {node} MemTotal:  {NODE_KIB} kB"));
    }
    let cpuinfo = |cpu| format!("processor\t: {cpu}\nphysical id\t: {}\n\n", package(cpu));
    write(&root.join("proc/cpuinfo"), &(0..OFFLINE).map(cpuinfo).collect::<String>());
    write(&root.join("proc/meminfo"), &format!("MemTotal:       {} kB", 2 * NODE_KIB));
}

fn mask(holds: impl Fn(u32) -> bool) -> String {
    let bits = (0..CPUS).filter(|cpu| *cpu != OFFLINE && holds(*cpu));
    format!("{:08x}", bits.fold(0_u32, |mask, cpu| mask | 1 << cpu))
}

fn write(path: &PathBuf, line: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("{line}\n")).unwrap();
}
