//! What the kernel can do: io_uring and its operations, UDP offloads, the TUN driver, the crypto.

use ringway_proto::crypto::provider;
use ringway_ring::{Features, Sandbox, sandbox};

use super::Finding;

const AREA: &str = "kernel";

pub(super) fn examine() -> Vec<Finding> {
    let mut findings = judge(&Features::probe());
    findings.extend(judge_sandbox(&sandbox::rehearse()));
    findings
}

fn judge(features: &Features) -> Vec<Finding> {
    let mut findings = vec![Finding::ok(AREA, "release", &features.kernel)];
    findings.extend(ring(features));
    findings.push(if features.udp_gro {
        Finding::ok(AREA, "UDP_GRO", "datagrams that arrive together are received together")
    } else {
        let text = "every datagram costs a completion of its own";
        Finding::advice(AREA, "UDP_GRO", text, "run Linux 5.0 or newer")
    });
    findings.push(match features.udp_segments_max {
        0 | 1 => {
            let text = "every datagram is sent by itself";
            Finding::advice(AREA, "UDP_SEGMENT", text, "run Linux 4.18 or newer")
        }
        max => Finding::ok(AREA, "UDP_SEGMENT", format!("up to {max} datagrams in one send")),
    });
    findings.extend(tun(features));
    let text = format!("ChaCha20-Poly1305 and X25519: {}", provider());
    findings.push(Finding::ok(AREA, "crypto", text));
    findings
}

/// What workers give up when they start. What is missing does not keep the gateway from running.
fn judge_sandbox(sandbox: &Sandbox) -> Vec<Finding> {
    if sandbox.is_complete() {
        return vec![Finding::ok(AREA, "sandbox of workers", sandbox.to_string())];
    }
    let advice = |(part, gap): (&str, &sandbox::Gap)| {
        let text = format!("workers do without it: {}", gap.why);
        Finding::advice(AREA, format!("sandbox: {part}"), text, &gap.fix)
    };
    sandbox.gaps().map(advice).collect()
}

fn ring(features: &Features) -> Vec<Finding> {
    let uring = match &features.uring {
        Ok(uring) => uring,
        Err(why) => {
            let fix = match features.uring_disabled {
                Some(1 | 2) => "sysctl -w kernel.io_uring_disabled=0",
                Some(_) => {
                    "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp \
                     profile of the container or service"
                }
                None => "run Linux 6.1 or newer with CONFIG_IO_URING=y",
            };
            let text = format!("{}; the epoll driver carries the packets", why.0);
            return vec![Finding::advice(AREA, "io_uring", text, fix)];
        }
    };
    let operation = |there: bool, name: &str, used: &str, without: &str, release: &str| {
        if there {
            Finding::ok(AREA, name, used)
        } else {
            Finding::advice(AREA, name, without, format!("run Linux {release} or newer"))
        }
    };
    let mut findings = vec![Finding::ok(AREA, "io_uring", uring.to_string())];
    findings.push(if uring.receive_multishot {
        let text = "one submission receives datagrams until it is told to stop";
        Finding::ok(AREA, "RECVMSG multishot", text)
    } else {
        let text = "missing; the epoll driver carries the packets";
        Finding::advice(AREA, "RECVMSG multishot", text, "run Linux 6.1 or newer")
    });
    findings.push(operation(
        uring.read_multishot,
        "READ multishot",
        "one submission reads the TUN until it is told to stop",
        "every read of the TUN is submitted by itself",
        "6.7",
    ));
    findings.push(operation(
        uring.send_zero_copy,
        "SENDMSG zero copy",
        "can be probed on paths that do not copy",
        "every send copies",
        "6.1",
    ));
    findings
}

fn tun(features: &Features) -> Vec<Finding> {
    let driver = match &features.tun {
        Ok(driver) => driver,
        Err(why) => {
            let fix = "modprobe tun; test -c /dev/net/tun || { mkdir -p /dev/net && mknod -m 0666 \
                       /dev/net/tun c 10 200; }";
            return vec![Finding::missing(AREA, "/dev/net/tun", why, fix)];
        }
    };
    let parts = [
        (driver.vnet_header, "virtio header", "super-packets and checksum offload"),
        (driver.multi_queue, "several queues", "one queue per worker"),
    ];
    let judged = parts.into_iter().map(|(there, name, used)| {
        let name = format!("TUN {name}");
        if there {
            Finding::ok(AREA, name, used)
        } else {
            Finding::missing(AREA, name, format!("no {used}"), "run Linux 6.1 or newer")
        }
    });
    let mut findings: Vec<Finding> = judged.collect();
    findings.push(offloads(&features.kernel));
    findings
}

/// Which offloads an interface will have. The driver can only be asked for those of an interface
/// that exists, so the release has to do; the running gateway asks.
fn offloads(release: &str) -> Finding {
    const NAME: &str = "TUN offloads";
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let version = (numbers.next(), numbers.next());
    if matches!(version, (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= (6, 2)) {
        return Finding::ok(AREA, NAME, "checksums, TCP and UDP segmentation");
    }
    let text = "checksums and TCP segmentation; UDP packets are read one at a time";
    Finding::advice(AREA, NAME, text, "run Linux 6.2 or newer")
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use ringway_ring::features::NoUring;

    fn state(findings: &[Finding], name: &str) -> State {
        findings.iter().find(|finding| finding.name == name).unwrap().state
    }

    #[test]
    fn a_kernel_without_the_ring_is_told_how_to_get_it() {
        let mut features = Features::probe();
        features.uring = Err(NoUring("io_uring is switched off".to_owned()));
        for (switch, fix) in
            [(Some(2), "sysctl -w kernel.io_uring_disabled=0"), (Some(0), "seccomp"), (None, "6.1")]
        {
            features.uring_disabled = switch;
            let findings = judge(&features);
            let ring = findings.iter().find(|finding| finding.name == "io_uring").unwrap();
            assert_eq!(ring.state, State::Advice, "the other driver works");
            assert!(ring.fix.as_ref().unwrap().contains(fix), "{ring:?}");
        }
    }

    #[test]
    fn a_part_of_the_sandbox_that_is_missing_is_advice_with_its_fix() {
        let complete = sandbox::rehearse();
        assert_eq!(judge_sandbox(&complete)[0].state, State::Ok);
        let gap = sandbox::Gap { why: "It is off".to_owned(), fix: "switch it on".to_owned() };
        let findings = judge_sandbox(&Sandbox { landlock: Err(gap), ..complete });
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].name, "sandbox: landlock");
        assert_eq!(findings[0].state, State::Advice);
        assert_eq!(findings[0].fix.as_deref(), Some("switch it on"));
    }

    #[test]
    fn udp_segmentation_of_the_tun_came_with_a_release() {
        assert_eq!(offloads("6.18.44-fc").state, State::Ok);
        assert_eq!(offloads("6.2.0").state, State::Ok);
        assert_eq!(offloads("6.1.140-1-amd64").state, State::Advice);
        assert_eq!(offloads("").state, State::Advice);
    }

    #[test]
    fn lacking_offloads_are_advice_and_a_lacking_tun_is_not() {
        let mut features = Features::probe();
        features.udp_gro = false;
        features.udp_segments_max = 1;
        features.tun = Err("No such device".to_owned());
        let findings = judge(&features);
        assert_eq!(state(&findings, "UDP_GRO"), State::Advice);
        assert_eq!(state(&findings, "UDP_SEGMENT"), State::Advice);
        assert_eq!(state(&findings, "/dev/net/tun"), State::Missing);
    }
}
