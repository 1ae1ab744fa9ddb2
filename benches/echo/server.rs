//! A server in a process of its own: starting it, weighing it, ending it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use anyhow::Context;

use super::{Contender, Workload, relay, udp};

/// The CPU of the server, and that of the load, on a machine with more than one.
const SERVER_CPU: usize = 1;
const LOAD_CPU: usize = 0;

/// Binds the load (the calling thread and what it starts).
///
/// # Errors
/// If that is not possible.
pub fn bind_load() -> anyhow::Result<()> {
    bind(LOAD_CPU)
}

fn bind(which: usize) -> anyhow::Result<()> {
    let allowed = ringway_numa::pin::allowed_cpus();
    if let Some(cpu) = allowed.as_slice().get(which) {
        ringway_numa::pin::pin_to(*cpu)?;
    }
    Ok(())
}

/// What the child does. `destination` is for relays.
///
/// # Errors
/// If the contender fails.
pub fn serve(contender: Contender, destination: Option<SocketAddr>) -> anyhow::Result<()> {
    // The input ends when the parent does, however that ends: no server is left behind.
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    match destination {
        None => udp::serve(contender, announce),
        Some(destination) => relay::serve(contender, destination, announce),
    }
}

#[allow(clippy::print_stdout, reason = "the parent reads it")]
fn announce(port: u16) {
    println!("{port}");
}

/// A running server. It ends when this is dropped.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub port: u16,
}

impl Server {
    /// Starts this program again as a server.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start(
        contender: Contender,
        workload: Workload,
        destination: SocketAddr,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--serve").arg(contender.name());
        if matches!(workload, Workload::Relay(_)) {
            command.arg("--to").arg(destination.to_string());
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().context("the output was asked for")?;
        let mut server = Self { child, port: 0 };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        server.port = line.trim().parse().context("The server did not come up")?;
        Ok(server)
    }

    /// CPU time of all its threads so far, in nanoseconds, workers of the kernel's ring included.
    ///
    /// # Errors
    /// If the server has gone.
    pub fn cpu_ns(&self) -> anyhow::Result<u64> {
        let mut sum = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // A thread may end meanwhile.
            let Ok(stat) = std::fs::read_to_string(task?.path().join("schedstat")) else {
                continue;
            };
            let first = stat.split_whitespace().next();
            sum += first.and_then(|it| it.parse::<u64>().ok()).context("no schedstat")?;
        }
        Ok(sum)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Binds the calling process, which is a server.
///
/// # Errors
/// If that is not possible.
pub fn bind_server() -> anyhow::Result<()> {
    bind(SERVER_CPU)
}
