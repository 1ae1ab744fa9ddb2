//! Who may depend on whom: arrows between packages only point down, control-thread libraries stay
//! in control, and each dependency says in one line why it is here.

use std::path::Path;

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, MetadataCommand, Package};

use crate::Finding;
use crate::repo::{File, Repo};

/// Each package and the packages of this workspace that it may use outside of its tests.
const ARROWS: &[(&str, &[&str])] = &[
    ("ringway-numa", &[]),
    ("ringway-alloc", &["numa"]),
    ("ringway-proto", &["simd"]),
    ("ringway-flow", &["proto"]),
    ("ringway-link", &[]),
    ("ringway-ring", &["alloc", "numa", "proto"]),
    ("ringway-simd", &[]),
    ("ringway-dataplane", &["alloc", "numa", "proto", "flow", "link", "ring"]),
    ("ringway-control", &["alloc", "numa", "proto", "flow", "link", "ring", "dataplane"]),
    // A black box: UDP, TCP, the API and the stats socket; keys and messages come from proto.
    ("ringway-perf", &["proto"]),
    ("ringway-tools", &["proto"]),
    (
        "ringway-benches",
        &["alloc", "numa", "proto", "flow", "link", "ring", "simd", "dataplane", "control"],
    ),
    (
        // perf: the lab drives gateways and clients with the same toolbox that measures them.
        "ringway-tests",
        &["alloc", "numa", "proto", "flow", "link", "ring", "dataplane", "control", "perf"],
    ),
];

/// Libraries of the control thread, which never appear below `control`.
const CONTROL_LIBRARIES: &[&str] = &[
    "anyhow",
    "axum",
    "clap",
    "futures-util",
    "hyper",
    "prometheus-client",
    "reqwest",
    "rtnetlink",
    "rusqlite",
    "serde_json",
    "tokio",
    "toml",
    "toml_edit",
    "tower",
];

/// Packages that run on a core.
const BELOW_CONTROL: &[&str] = &[
    "ringway-numa",
    "ringway-alloc",
    "ringway-proto",
    "ringway-flow",
    "ringway-link",
    "ringway-ring",
    "ringway-simd",
    "ringway-dataplane",
];

/// Dependencies of all packages.
pub(crate) fn check(root: &Path, repo: &Repo) -> Result<Vec<Finding>> {
    let metadata = MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .no_deps()
        .exec()
        .context("cargo metadata failed")?;
    let mut findings = Vec::new();
    for package in &metadata.packages {
        findings.extend(check_package(root, package));
    }
    if let Some(manifest) = repo.file("Cargo.toml") {
        findings.extend(unexplained(manifest));
    }
    for manifest in repo.files.iter().filter(|file| file.path.ends_with("/Cargo.toml")) {
        findings.extend(own_versions(manifest));
    }
    Ok(findings)
}

fn check_package(root: &Path, package: &Package) -> Vec<Finding> {
    let manifest = package.manifest_path.as_std_path();
    let path = manifest.strip_prefix(root).unwrap_or(manifest).to_string_lossy();
    let used = package.dependencies.iter().filter(|used| used.kind != DependencyKind::Development);
    let names: Vec<&str> = used.map(|used| used.name.as_str()).collect();
    upward(&package.name, &names)
        .into_iter()
        .map(|(what, fix)| Finding::new(&path, 1, what, fix))
        .collect()
}

/// What is wrong with `package` using `names`, as (what, fix).
fn upward(package: &str, names: &[&str]) -> Vec<(String, &'static str)> {
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == package) else {
        let what = format!("package {package} has no place in the layers");
        return vec![(what, "give it one in tools/tidy/arrows.rs and in the map")];
    };
    let mut wrong = Vec::new();
    for name in names {
        let ours = name.strip_prefix("ringway-");
        if ours.is_some_and(|name| !allowed.contains(&name)) {
            wrong.push((format!("{package} depends on {name}"), "arrows only point down"));
        }
        if BELOW_CONTROL.contains(&package) && CONTROL_LIBRARIES.contains(name) {
            let what = format!("{package} depends on {name}");
            wrong.push((what, "libraries of the control thread stay in control"));
        }
    }
    wrong
}

/// Members and outside dependencies of the workspace that do not say why they are here.
fn unexplained(manifest: &File) -> Vec<Finding> {
    let mut section = "";
    let mut findings = Vec::new();
    for (line, text) in manifest.lines() {
        let text = text.trim();
        if text.starts_with('[') && text.ends_with(']') {
            section = text;
        } else if text.starts_with("members") {
            section = "members";
        } else if text.starts_with(']') {
            section = "";
        }
        let is_dependency = section == "[workspace.dependencies]"
            && text.contains('=')
            && !text.starts_with('#')
            && !text.contains("path =");
        let is_member = section == "members" && text.starts_with('"');
        if (is_dependency || is_member) && !text.contains(" # ") {
            let name = text.split([' ', ',']).next().unwrap_or_default();
            let what = format!("{name} does not say why it is here");
            findings.push(Finding::new(&manifest.path, line, what, "add `# reason` on its line"));
        }
    }
    findings
}

/// Dependencies of a member that bring their own version instead of the workspace's.
fn own_versions(manifest: &File) -> Vec<Finding> {
    if manifest.path.starts_with("tests/fuzz/") {
        return Vec::new();
    }
    let mut in_dependencies = false;
    let mut findings = Vec::new();
    for (line, text) in manifest.lines() {
        if text.starts_with('[') {
            in_dependencies = text.trim_end().ends_with("dependencies]");
        } else if in_dependencies && text.contains('=') && !text.contains("workspace = true") {
            let what = format!("`{}` is not taken from the workspace", text.trim());
            let fix = "name it in the root Cargo.toml with its reason, and use `workspace = true`";
            findings.push(Finding::new(&manifest.path, line, what, fix));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arrow_that_points_up_is_found() {
        assert!(upward("ringway-ring", &["ringway-alloc", "io-uring"]).is_empty());
        assert_eq!(upward("ringway-ring", &["ringway-dataplane"]).len(), 1);
        assert_eq!(upward("ringway-proto", &["ringway-flow"]).len(), 1);
        assert_eq!(upward("ringway-new", &[]).len(), 1);
    }

    #[test]
    fn control_libraries_stay_in_control() {
        assert_eq!(upward("ringway-dataplane", &["tokio"]).len(), 1);
        assert!(upward("ringway-control", &["tokio"]).is_empty());
    }

    #[test]
    fn members_and_dependencies_say_why() {
        let text = "members = [\n  \"numa\", # threads\n  \"alloc\",\n]\n\
                    [workspace.dependencies]\nringway-numa = { path = \"numa\" }\nlibc = \"0.2\"\n\
                    thiserror = \"2\" # errors\n[profile.dev]\ndebug = true\n";
        let findings = unexplained(&File::new("Cargo.toml", text));
        assert_eq!(findings.iter().map(|finding| finding.line).collect::<Vec<_>>(), [3, 7]);
    }

    #[test]
    fn members_take_versions_from_the_workspace() {
        let text =
            "[package]\nname = \"a\"\n[dependencies]\nlibc.workspace = true\nrand = \"0.9\"\n";
        let findings = own_versions(&File::new("flow/Cargo.toml", text));
        assert_eq!(findings.iter().map(|finding| finding.line).collect::<Vec<_>>(), [5]);
    }
}
