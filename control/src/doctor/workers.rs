//! What workers get from this kernel: their driver, steering, and the sandbox around them.
//!
//! Each is tried as the gateway would do it, on loopback or on a thread that ends, so the answer is
//! the kernel's and not a guess from its release.

use std::net::Ipv4Addr;

use ringway_dataplane::index_table::IndexLayout;
use ringway_dataplane::steering::steering;
use ringway_ring::steer::{TunSteering, TunSteeringError};
use ringway_ring::{
    Choice, DriverChoice, DriverKind, Features, Sandbox, UdpGroup, UdpOptions, sandbox,
};

use super::Finding;
use crate::config::{Config, FastPaths, SandboxChoice, SteeringChoice, WorkerCount};

const AREA: &str = "workers";

/// Cores of the steering that is tried.
const CORES_TRIED: u16 = 2;

/// What gives a process the right to steer a TUN.
const ALLOW_BPF: &str = "run as root, or grant CAP_BPF: AmbientCapabilities=CAP_BPF in the systemd \
                         unit (also in CapabilityBoundingSet), or setcap cap_bpf+ep beside what \
                         the program has";

/// `features` are those of the kernel without what the configuration leaves out.
pub(super) fn examine(config: &Config, features: &Features) -> Vec<Finding> {
    let wanted = config.workers.driver.into();
    let mut findings = vec![driver(wanted, &ringway_ring::choose(wanted, features))];
    findings.extend(steerings(config));
    findings.push(fast_paths(config.workers.without));
    findings.extend(sandboxes(config, sandbox::rehearse));
    findings
}

fn driver(wanted: DriverChoice, choice: &Choice) -> Finding {
    const NAME: &str = "driver";
    match choice.kind {
        DriverKind::Uring => Finding::ok(AREA, NAME, choice.to_string()),
        // It was asked for, or it is the better one.
        DriverKind::Epoll if wanted == DriverChoice::Epoll || choice.measured.is_some() => {
            Finding::ok(AREA, NAME, choice.to_string())
        }
        DriverKind::Epoll => {
            let fix = "see io_uring above, or write driver = \"epoll\" in [workers] if it is meant";
            Finding::advice(AREA, NAME, choice.to_string(), fix)
        }
    }
}

fn steerings(config: &Config) -> Vec<Finding> {
    if config.workers.count == WorkerCount::Exactly(1) {
        return vec![Finding::ok(AREA, "steering", "not needed: there is one worker")];
    }
    if config.workers.steering == SteeringChoice::Off {
        let text = "off: every other packet is handed over between workers";
        let fix = "write steering = \"auto\" in [workers]";
        return vec![Finding::advice(AREA, "steering", text, fix)];
    }
    vec![datagrams(), packets(TunSteering::new(CORES_TRIED, 16).map(drop))]
}

fn datagrams() -> Finding {
    const NAME: &str = "steering of datagrams";
    let options =
        UdpOptions { ipv4: Some(Ipv4Addr::LOCALHOST), ipv6: None, ..UdpOptions::default() };
    let rules = steering(CORES_TRIED, IndexLayout::new(CORES_TRIED, 0));
    let refused = match UdpGroup::open(&options, CORES_TRIED, Some(&rules)) {
        Ok(UdpGroup { refusal: None, .. }) => {
            let text = "the kernel brings each to the worker that owns its session";
            return Finding::ok(AREA, NAME, text);
        }
        Ok(UdpGroup { refusal: Some(error), .. }) => error.to_string(),
        Err(error) => error.to_string(),
    };
    let text = format!("refused ({refused}): workers hand over what is not theirs");
    let fix = "run Linux 4.5 or newer, or allow SO_ATTACH_REUSEPORT_CBPF in the seccomp profile";
    Finding::advice(AREA, NAME, text, fix)
}

fn packets(tried: Result<(), TunSteeringError>) -> Finding {
    const NAME: &str = "steering of packets";
    let Err(error) = tried else {
        let text = "the kernel brings each to the worker that has its client";
        return Finding::ok(AREA, NAME, text);
    };
    let fix = if matches!(error, TunSteeringError::NotAllowed) {
        ALLOW_BPF
    } else {
        "run Linux 4.16 or newer with CONFIG_BPF_SYSCALL=y"
    };
    Finding::advice(AREA, NAME, error.to_string().replace('\n', " "), fix)
}

/// Whoever left one out had a reason then, which may have gone with the kernel that it lay in.
fn fast_paths(without: FastPaths) -> Finding {
    const NAME: &str = "fast paths";
    if without.is_empty() {
        return Finding::ok(AREA, NAME, "none is left out");
    }
    let text = format!("left out: {without}; packets cost more without");
    Finding::advice(AREA, NAME, text, "take them out of without in [workers], and try")
}

fn sandboxes(config: &Config, rehearse: impl FnOnce() -> Sandbox) -> Vec<Finding> {
    const NAME: &str = "sandbox";
    if config.workers.sandbox == SandboxChoice::Off {
        let text = "off: a worker that is taken over may open, connect and start what it likes";
        let fix = "write sandbox = \"on\" in [workers]";
        return vec![Finding::advice(AREA, NAME, text, fix)];
    }
    let sandbox = rehearse();
    let mut findings: Vec<Finding> = sandbox
        .gaps()
        .map(|(part, gap)| {
            let name = format!("{NAME}: {part}");
            let fix = "the gateway runs without this part; what it takes is said before";
            Finding::advice(AREA, name, gap.to_string(), fix)
        })
        .collect();
    if findings.is_empty() {
        findings.push(Finding::ok(AREA, NAME, sandbox.to_string()));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use crate::config::Overrides;
    use std::path::Path;

    fn config(workers: &str) -> Config {
        let text = format!("[workers]\n{workers}\n");
        Config::parse(&text, "t", Path::new("/"), &Overrides::default()).unwrap()
    }

    #[test]
    fn a_single_worker_needs_no_steering_and_several_are_told_how_they_stand() {
        let single = steerings(&config("count = 1"));
        assert_eq!((single.len(), single[0].state), (1, State::Ok));
        let several = steerings(&config("count = 2"));
        assert_eq!(several[0].state, State::Ok, "needs no privilege: {several:?}");
        assert_eq!(several.len(), 2);
        let off = steerings(&config("count = 2\nsteering = \"off\""));
        assert_eq!(off[0].state, State::Advice);
    }

    #[test]
    fn a_process_that_may_not_steer_is_told_which_capability_it_lacks() {
        let finding = packets(Err(TunSteeringError::NotAllowed));
        assert_eq!(finding.state, State::Advice);
        assert!(finding.fix.is_some_and(|fix| fix.contains("CAP_BPF")));
    }

    #[test]
    fn a_sandbox_that_is_off_is_advised_against_and_not_tried() {
        let rehearse = || -> Sandbox { panic!("must not be tried") };
        let findings = sandboxes(&config("sandbox = \"off\""), rehearse);
        assert_eq!(findings[0].state, State::Advice);
    }

    #[test]
    fn fast_paths_that_are_left_out_are_named() {
        assert_eq!(fast_paths(config("").workers.without).state, State::Ok);
        let finding = fast_paths(config("without = [\"gso\", \"avx512\"]").workers.without);
        assert_eq!(finding.state, State::Advice);
        assert!(finding.text.contains("gso, avx512"), "{finding:?}");
    }

    #[test]
    fn a_driver_that_was_not_the_first_choice_says_so() {
        let epoll = Choice { kind: DriverKind::Epoll, why: "no ring".into(), measured: None };
        assert_eq!(driver(DriverChoice::Auto, &epoll).state, State::Advice);
        assert_eq!(driver(DriverChoice::Epoll, &epoll).state, State::Ok);
    }
}
