//! How the gateway is found and reached: sockets, HTTPS, tokens, and who is refused.

use super::gateway::{Done, Gateway, ringway, split};

fn run(line: &str, environment: &[(&str, &str)]) -> Done {
    ringway(&split(line), "", environment)
}

#[test]
fn a_gateway_that_is_not_there_is_said_so_with_what_to_do() {
    let mut gateway = Gateway::new("absent");
    let socket = gateway.socket().display().to_string();
    let absent = run("user list --socket /nowhere/x.api", &[]);
    absent.failed("user list", 7, &["/nowhere/x.api", "start it with \"ringway run\""]);
    run("status --interface rwnone9", &[]).failed("status", 7, &["/run/ringway/rwnone9.api"]);
    let config = gateway.file("other.toml", "[interface]\nname = \"rwnone8\"\n");
    run(&format!("status -c {config}"), &[]).failed("status", 7, &["/run/ringway/rwnone8.api"]);
    let off = gateway.file("off.toml", "[api]\nsocket = \"off\"\n");
    run(&format!("status -c {off}"), &[]).failed("status", 3, &["switches", "--api"]);
    let broken = gateway.file("broken.toml", "[interface]\nname = 7\n");
    let reached = ["2:", "--interface NAME", "ringway config rollback"];
    run(&format!("config rollback -c {broken}"), &[]).failed("config rollback", 3, &reached);
    run("status -c /nowhere.toml", &[]).failed("status", 8, &["/nowhere.toml"]);
    gateway.stop();
    let stopped = run(&format!("user list --socket {socket}"), &[]);
    stopped.failed("user list", 7, &[&socket, "No gateway answers"]);
    // A socket file that nobody serves any more.
    let _ = std::fs::remove_file(&socket);
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let dead = run(&format!("user list --socket {socket}"), &[]);
    dead.failed("user list", 7, &[&socket, "refused"]);
}

#[test]
fn the_configuration_says_where_the_socket_is() {
    let gateway = Gateway::new("by_config");
    let socket = gateway.socket();
    let config = gateway.file("by.toml", &format!("[api]\nsocket = \"{}\"\n", socket.display()));
    let done = run(&format!("status -q --config {config}"), &[]);
    assert_eq!((done.code, done.out.as_str()), (0, "running\n"), "{}", done.err);
    let both = run(&format!("status --config {config} --socket {}", socket.display()), &[]);
    both.failed("status", 2, &["--socket and --config", "leave one"]);
}

#[test]
fn who_may_not_is_refused_with_the_reason() {
    let gateway = Gateway::new("denied");
    let viewer = gateway.token("vera", "viewer", "*");
    let narrow = gateway.token("olga", "operator", "sessions:read");
    let as_token = |line: &str, token: &str| gateway.run(&format!("{line} --token {token}"));
    as_token("user list", "rw_wrong").failed("user list", 13, &["(unauthenticated)"]);
    as_token("user add eve", &viewer).failed("user add", 13, &["role operator", "(forbidden)"]);
    as_token("user list", &narrow).failed("user list", 13, &["users:read", "(scope-missing)"]);
    let local = as_token("backup /tmp/x.db", &viewer);
    local.failed("backup", 13, &["(forbidden)"]);
    assert_eq!(as_token("user list -q", &viewer).out, "olga\nvera\n");
}

#[test]
fn a_gateway_elsewhere_is_reached_by_https_with_a_token() {
    let gateway = Gateway::new("https");
    let token = gateway.token("vera", "viewer", "*");
    let (port, folder) = (gateway.https, gateway.folder.display());
    let api = format!("--api https://localhost:{port}");
    let ca = format!("--ca {folder}/api-certificate.pem");
    let file = gateway.file("token", &format!("{token}\n"));
    for (credentials, environment) in [
        (format!("--token {token}"), None),
        (format!("--token-file {file}"), None),
        (String::new(), Some(("RINGWAY_TOKEN", token.as_str()))),
    ] {
        let environment: Vec<(&str, &str)> = environment.into_iter().collect();
        let done = run(&format!("user list -q {api} {ca} {credentials}"), &environment);
        assert_eq!((done.code, done.out.as_str()), (0, "vera\n"), "{credentials}: {}", done.err);
    }
    let line = format!("user list {api} --token {token}");
    let unknown = run(&line, &[]);
    unknown.failed(&line, 13, &["certificate of https://localhost", "--ca"]);
    assert!(!unknown.err.contains(&token));
    let nobody = run(&format!("user list {api} {ca}"), &[]);
    nobody.failed("user list", 2, &["wants a token", "RINGWAY_TOKEN"]);
    let clear = run(&format!("user list --api http://vpn.example.org --token {token}"), &[]);
    clear.failed("user list", 2, &["in the clear"]);
    assert!(!clear.err.contains(&token));
    let plain = run(&format!("user list --api http://127.0.0.1:{port} --token {token}"), &[]);
    assert_eq!(plain.code, 7, "{}", plain.err);
}

#[test]
fn a_certificate_that_is_not_accepted_is_said_to_be_so_with_what_to_do() {
    let mut gateway = Gateway::new("certificates");
    let token = gateway.token("vera", "viewer", "*");
    let folder = gateway.folder.clone();
    let asked = |gateway: &Gateway, host: &str| {
        let (port, ca) = (gateway.https, folder.join("api-certificate.pem"));
        let api = format!("--api https://{host}:{port} --ca {}", ca.display());
        run(&format!("user list -q {api} --token {token}"), &[])
    };
    assert_eq!(asked(&gateway, "localhost").out, "vera\n");
    let wrong = asked(&gateway, "127.0.0.1");
    wrong.failed("wrong name", 13, &["certificate of https://127.0.0.1", "localhost and not for"]);
    // As everybody makes one first.
    gateway.stop();
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"])
        .args(["-keyout", "api-key.pem", "-out", "api-certificate.pem"])
        .current_dir(&folder)
        .output()
        .expect("openssl is missing: run tools/setup test");
    assert!(made.status.success(), "{made:?}");
    gateway.start();
    let parts =
        ["CA:TRUE", "openssl req -x509", "basicConstraints=critical,CA:FALSE", "DNS:localhost"];
    let refused = asked(&gateway, "localhost");
    refused.failed("authority", 13, &parts);
    assert!(!refused.err.contains("CaUsedAsEndEntity"), "{}", refused.err);
}

#[test]
fn every_shell_gets_a_completion_that_it_can_read() {
    for shell in ["bash", "zsh", "fish"] {
        let done = run(&format!("completion {shell}"), &[]);
        assert_eq!(done.code, 0, "{}", done.err);
        assert!(done.out.contains("ringway") && done.out.contains("rollback"), "{shell}");
    }
    run("completion tcsh", &[]).failed("completion", 2, &["bash"]);
    let script = run("completion bash", &[]).out;
    let file = std::env::temp_dir().join(format!("rw_completion_{}", std::process::id()));
    std::fs::write(&file, script).unwrap();
    let bash = |text: String| {
        let output = std::process::Command::new("bash").args(["--norc", "-c", &text]).output();
        Done::from(output.unwrap())
    };
    let path = file.display();
    assert_eq!(bash(format!("bash -n {path}")).code, 0);
    let loaded = bash(format!("source {path} && complete -p ringway"));
    assert_eq!(loaded.code, 0, "{}", loaded.err);
    assert!(loaded.out.contains("ringway"), "{}", loaded.out);
    let asked = bash(format!(
        "source {path}; COMP_WORDS=(ringway user e); COMP_CWORD=2; _ringway ringway e user; \
         echo \"${{COMPREPLY[*]}}\""
    ));
    let words: Vec<&str> = asked.out.split_whitespace().collect();
    assert_eq!(words, ["enable", "expire", "export", "erase"], "{}", asked.err);
    let _ = std::fs::remove_file(&file);
}
