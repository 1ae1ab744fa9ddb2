//! What the program prints against what nobody may read: keys, in any of their spellings.
//!
//! And what a process gives up before it reads one. The sockets of a running gateway are looked at
//! in the unit tests of `stats`; the configuration socket of WireGuard gives keys to whoever owns
//! it, by its protocol.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const PRIVATE: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
const PRESHARED: &str = "3iXBqL6MUJ4H6kHiykvYpnNWvDNkR1dIYsrhCCrpmFE=";
const IN_FILE: &str = "Ka4Dh5mcAfhYpPqXfIuXtrW2Yn0vEEyRxnkM8ZxvRGI=";
const PEERS: [&str; 2] = [
    "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=",
    "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
];

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = format!("ringway_secrets_{name}_{}", std::process::id());
        let path = std::env::temp_dir().join(folder);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A key as anybody could print it.
fn spellings(key: &str) -> Vec<String> {
    let bytes = STANDARD.decode(key).unwrap();
    let mut hex = String::new();
    bytes.iter().for_each(|byte| write!(hex, "{byte:02x}").unwrap());
    vec![
        key.to_owned(),
        key.trim_end_matches('=').to_owned(),
        hex.to_uppercase(),
        hex,
        format!("{bytes:?}"),
    ]
}

fn printed(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_ringway"))
        .args(arguments)
        .args(["--state-dir", folder.to_str().unwrap()])
        .env_remove("STATE_DIRECTORY")
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn no_command_that_looks_prints_a_private_or_preshared_key() {
    let folder = Folder::new("look");
    let file = |name: &str, text: &str| {
        let path = folder.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    file("private.key", &format!("{PRIVATE}\n"));
    file("second.psk", &format!("{IN_FILE}\n"));
    let config = format!(
        "[[peer]]\nname = \"one\"\npublic_key = \"{}\"\npreshared_key = \"{PRESHARED}\"\n\
         allowed_ips = [\"10.77.0.2/32\"]\n\
         [[peer]]\nname = \"two\"\npublic_key = \"{}\"\npreshared_key_file = \"second.psk\"\n\
         allowed_ips = [\"10.77.0.3/32\"]\n",
        PEERS[0], PEERS[1]
    );
    file("ringway.toml", &config);
    for command in [
        &["check"][..],
        &["doctor"],
        &["doctor", "--json"],
        &["stats"],
        &["reload"],
        &["peer", "list"],
        &["peer", "remove", "nobody"],
    ] {
        let text = printed(&folder.0, command);
        assert!(!text.is_empty(), "{command:?} says nothing, so nothing is tested");
        for secret in [PRIVATE, PRESHARED, IN_FILE].into_iter().flat_map(spellings) {
            assert!(!text.contains(&secret), "{command:?} prints {secret}");
        }
    }
    file("ringway.toml", &config.replace("name = \"one\"", "nome = \"one\""));
    let text = printed(&folder.0, &["check"]);
    assert!(text.contains("nome"), "{text}");
    assert!(!text.contains(PRESHARED), "an error shows the line before it: {text}");
}

#[test]
fn the_program_gives_up_core_dumps_before_it_reads_anything() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringway"));
    child.arg("pubkey").stdin(Stdio::piped()).stdout(Stdio::piped());
    // Whose process this is shows only for somebody who is not root.
    let nobody = 65_534;
    let as_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    if as_root {
        child.uid(nobody);
    }
    let mut child = child.spawn().unwrap();
    let limits = format!("/proc/{}/limits", child.id());
    let is_off = || {
        let text = fs::read_to_string(&limits).unwrap();
        let line = text.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        line.split_whitespace().nth(4) == Some("0")
    };
    // It waits for its input, so it gets there.
    for _ in 0..2000 {
        if is_off() && (!as_root || fs::metadata(&limits).unwrap().uid() == 0) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(is_off());
    if as_root {
        assert_eq!(fs::metadata(&limits).unwrap().uid(), 0, "another process may look into it");
    }
    child.stdin.take().unwrap().write_all(PRIVATE.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}
