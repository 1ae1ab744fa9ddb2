//! The local exit on a real kernel: each test in a network namespace of its own, which nothing else
//! sees and which is gone with the test's thread.

use std::path::Path;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::config::InterfaceAddress;
use crate::scratch::Scratch;

const SWITCHES: [&str; 4] = [
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/accept_redirects",
    "net/ipv6/conf/all/forwarding",
    "net/ipv6/conf/rwt0/accept_ra",
];

/// Runs `test` in a fresh network namespace with an interface `rwt0`.
fn in_namespace(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let done = scope.spawn(|| {
            let entered = unshare(CloneFlags::CLONE_NEWNET);
            assert!(entered.is_ok(), "needs root to make a network namespace: {entered:?}");
            ip("link set lo up");
            ip("tuntap add dev rwt0 mode tun");
            test();
        });
        if let Err(panic) = done.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("ip is installed");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn tables() -> String {
    let output = Command::new("nft").args(["list", "ruleset"]).output().expect("nft is installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn switches() -> Vec<String> {
    let sysctls = Sysctls::default();
    SWITCHES.iter().map(|name| sysctls.read(name).unwrap()).collect()
}

fn plan() -> ExitPlan {
    ExitPlan {
        interface: "rwt0".to_owned(),
        pools: vec!["10.77.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()],
        masquerade: true,
        enable_forwarding: true,
    }
}

fn journal_is_there(folder: &Path) -> bool {
    folder.join("exit-rwt0.journal").exists()
}

#[test]
fn privileged_stopping_leaves_the_host_as_it_was() {
    in_namespace(|| {
        let folder = Scratch::new("exit_undo");
        let before = (switches(), tables());
        let (exit, notes) = LocalExit::set_up(&plan(), folder.path()).unwrap();
        assert_eq!(switches()[0], "1");
        assert_eq!(switches()[2], "1");
        assert_eq!(switches()[3], "2", "advertised routes survive forwarding");
        assert!(tables().contains("ip saddr 10.77.0.0/24 oifname != \"rwt0\" masquerade"));
        assert!(tables().contains("ip6 saddr fd00::/64 oifname != \"rwt0\" masquerade"));
        assert!(!notes.iter().any(|note| note.starts_with("warning")), "{notes:?}");
        assert!(journal_is_there(folder.path()));
        assert!(exit.undo().unwrap().is_empty());
        assert_eq!((switches(), tables()), before);
        assert!(!journal_is_there(folder.path()));
    });
}

#[test]
fn privileged_an_exit_goes_from_one_process_to_the_next() {
    in_namespace(|| {
        let folder = Scratch::new("exit_next");
        let before = (switches(), tables());
        let (old, _) = LocalExit::set_up(&plan(), folder.path()).unwrap();
        let during = (switches(), tables());
        let new = LocalExit::adopt(&plan(), folder.path(), old.lock().unwrap()).unwrap();
        old.release();
        assert_eq!((switches(), tables()), during);
        assert!(journal_is_there(folder.path()));
        assert!(new.undo().unwrap().is_empty());
        assert_eq!((switches(), tables()), before);
        assert!(!journal_is_there(folder.path()));
    });
}

#[test]
fn privileged_a_gateway_of_the_same_name_with_another_folder_touches_nothing() {
    in_namespace(|| {
        let (one, other) = (Scratch::new("exit_running"), Scratch::new("exit_namesake"));
        let before = (switches(), tables());
        let (running, _) = LocalExit::set_up(&plan(), one.path()).unwrap();
        let during = (switches(), tables());
        let refused = LocalExit::set_up(&plan(), other.path()).unwrap_err();
        assert_eq!(refused.status, Status::InterfaceExists);
        assert!(refused.message.contains("ringway_rwt0"), "{}", refused.message);
        assert_eq!((switches(), tables()), during, "the running gateway has lost something");
        // What is left of a gateway whose folder is gone is no gateway.
        ip("tuntap del dev rwt0 mode tun");
        let (heir, _) = LocalExit::set_up(&plan(), other.path()).unwrap();
        assert!(heir.undo().unwrap().iter().all(|note| note.contains("Another gateway")));
        ip("tuntap add dev rwt0 mode tun");
        drop(running);
        assert_eq!(tables(), before.1);
    });
}

#[test]
fn privileged_of_two_gateways_the_last_one_switches_forwarding_off() {
    in_namespace(|| {
        let (one, other) = (Scratch::new("exit_first"), Scratch::new("exit_second"));
        let before = (switches(), tables());
        let (first, _) = LocalExit::set_up(&plan(), one.path()).unwrap();
        // With nothing of its own to put back, not even a table.
        let second = ExitPlan { interface: "rwt1".into(), masquerade: false, ..plan() };
        let (second, _) = LocalExit::set_up(&second, other.path()).unwrap();
        let notes = first.undo().unwrap();
        assert!(notes[0].contains("Another gateway"), "{notes:?}");
        assert_eq!(switches()[0], "1");
        assert!(!journal_is_there(one.path()));
        assert!(second.undo().unwrap().is_empty());
        assert_eq!((switches(), tables()), before);
    });
}

#[test]
fn privileged_what_a_killed_run_left_is_put_back_at_the_next_start() {
    in_namespace(|| {
        let folder = Scratch::new("exit_killed");
        let before = (switches(), tables());
        // What a run does up to the moment at which it is killed: everything but the undo.
        let sysctls = Sysctls::default();
        let (file, _) = JournalFile::open(folder.path(), "rwt0").unwrap();
        let settings = sysctls.forwarding(true, true).unwrap();
        let journal = Journal::new(Some(nft::table_name("rwt0")), settings).unwrap();
        file.write(&journal).unwrap();
        sysctls.apply(&journal.settings).unwrap();
        nft::masquerade("rwt0", &plan().pools).unwrap();
        drop(file);
        assert_ne!((switches(), tables()), before);
        // The next start wants nothing of that any more.
        let quiet = ExitPlan { masquerade: false, enable_forwarding: false, ..plan() };
        let (exit, notes) = LocalExit::set_up(&quiet, folder.path()).unwrap();
        assert!(notes[0].contains("was killed"), "{notes:?}");
        assert_eq!((switches(), tables()), before);
        assert!(!journal_is_there(folder.path()));
        drop(exit);
    });
}

#[test]
fn privileged_a_run_killed_before_its_first_change_leaves_nothing_to_fear() {
    in_namespace(|| {
        let folder = Scratch::new("exit_killed_early");
        let before = (switches(), tables());
        let (file, _) = JournalFile::open(folder.path(), "rwt0").unwrap();
        let settings = Sysctls::default().forwarding(true, true).unwrap();
        file.write(&Journal::new(Some(nft::table_name("rwt0")), settings).unwrap()).unwrap();
        drop(file);
        let (exit, _) = LocalExit::set_up(&plan(), folder.path()).unwrap();
        exit.undo().unwrap();
        assert_eq!((switches(), tables()), before);
    });
}

#[test]
fn privileged_tables_of_others_are_not_touched() {
    in_namespace(|| {
        let folder = Scratch::new("exit_foreign");
        let made = Command::new("nft").args(["add", "table", "inet", "mine"]).status();
        assert!(made.is_ok_and(|status| status.success()));
        let before = tables();
        let (exit, _) = LocalExit::set_up(&plan(), folder.path()).unwrap();
        assert!(tables().contains("table inet mine"));
        drop(exit);
        assert_eq!(tables(), before);
    });
}

#[test]
fn privileged_a_host_that_does_not_forward_is_warned_about_and_not_changed() {
    in_namespace(|| {
        let folder = Scratch::new("exit_quiet");
        let before = switches();
        let plan = ExitPlan { enable_forwarding: false, ..plan() };
        let (exit, notes) = LocalExit::set_up(&plan, folder.path()).unwrap();
        assert_eq!(switches(), before);
        let warnings = notes.iter().filter(|note| note.starts_with("warning")).count();
        assert_eq!(warnings, 2, "{notes:?}");
        drop(exit);
    });
}

#[test]
fn privileged_a_failure_half_way_leaves_nothing_behind() {
    in_namespace(|| {
        let folder = Scratch::new("exit_half");
        let before = (switches(), tables());
        // A name that nft does not take, after the switches have been set.
        let plan = ExitPlan { interface: "rw;t".to_owned(), ..plan() };
        let failure = LocalExit::set_up(&plan, folder.path()).unwrap_err();
        assert_eq!(failure.status, Status::Unsupported);
        assert_eq!((switches(), tables()), before);
    });
}

#[test]
fn privileged_the_interface_gets_its_addresses_and_routes_the_pools() {
    in_namespace(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let addresses = [
            InterfaceAddress { address: "10.77.0.1".parse().unwrap(), prefix: 24 },
            InterfaceAddress { address: "fd00::1".parse().unwrap(), prefix: 64 },
        ];
        runtime.block_on(links::configure("rwt0", 1380, &addresses)).unwrap();
        let shown = ip("addr show rwt0");
        assert!(shown.contains("mtu 1380") && shown.contains("UP"), "{shown}");
        assert!(
            shown.contains("inet 10.77.0.1/24") && shown.contains("inet6 fd00::1/64"),
            "{shown}"
        );
        assert!(!shown.contains("fe80"), "{shown}");
        assert!(ip("route show").contains("10.77.0.0/24 dev rwt0"));
        assert!(ip("-6 route show").contains("fd00::/64 dev rwt0"));
        let pools = ["10.77.0.0/16".parse().unwrap(), "fd00::/64".parse().unwrap()];
        let own = runtime.block_on(links::conflicts("rwt0", &pools)).unwrap();
        assert_eq!(own, [], "its own networks are no conflict");
        let foreign = runtime.block_on(links::conflicts("other", &pools)).unwrap();
        let nets: Vec<String> = foreign.iter().map(|conflict| conflict.net.to_string()).collect();
        assert_eq!(nets, ["10.77.0.0/24", "fd00::/64"]);
        assert_eq!(foreign[0].interface, "rwt0");
        let again = runtime.block_on(links::configure("rwt0", 1380, &addresses));
        assert_eq!(again.unwrap_err().status, Status::Config);
        let gone = runtime.block_on(links::configure("rwt9", 1380, &addresses));
        assert!(gone.unwrap_err().message.contains("The interface rwt9 cannot be found"));
    });
}
