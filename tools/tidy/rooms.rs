//! What may stand in which folder: unsafe code, clocks, hash maps, head comments; and which folders
//! there are.

use crate::Finding;
use crate::repo::{File, Repo};
use crate::source::Source;

/// The top-level folders, dot-folders aside.
const TOP_LEVEL: &[&str] =
    &["alloc", "benches", "control", "dataplane", "numa", "perf", "tests", "tools"];

/// Crates that may hold unsafe code.
const UNSAFE_ROOMS: &[&str] = &[
    "numa/",
    "alloc/",
    "dataplane/ring/",
    "dataplane/simd/",
    "control/link/",
    // What the driver is compared with: the io-uring crate alone.
    "benches/echo/bare.rs",
];

/// Crates that forbid it, by their `lib.rs`.
const FORBIDDING: &[&str] =
    &["dataplane/src/lib.rs", "dataplane/proto/src/lib.rs", "dataplane/flow/src/lib.rs"];

/// What runs for each packet: no clock, no keyed hash per packet.
const PACKET_PATH: &[&str] =
    &["dataplane/src/", "dataplane/proto/", "dataplane/flow/", "dataplane/ring/", "control/link/"];

/// Files that may read a clock: (path or folder, why).
const CLOCK_READERS: &[(&str, &str)] = &[
    ("dataplane/ring/src/clock.rs", "the one clock of a core, read once per turn"),
    ("control/src/", "the control thread has its own time"),
    ("control/tests/", "waits for states with a deadline"),
    ("tests/lab", "waits for states with a deadline"),
    ("benches/", "measures"),
    ("perf/", "measures"),
    ("tools/", "measures"),
];

/// Control state machines that take time as an argument although they live among clock readers.
const CLOCKLESS: &[&str] = &["control/src/plane"];

const CLOCKS: &[&str] = &["Instant::now", "SystemTime::now", "clock_gettime", "UNIX_EPOCH.elapsed"];

/// The rules of the room that `file` is in.
pub(crate) fn check(file: &File) -> Vec<Finding> {
    let Some(source) = &file.rust else { return Vec::new() };
    let mut findings = head_comment(file);
    findings.extend(unsafe_code(&file.path, source));
    findings.extend(clocks(&file.path, source));
    findings.extend(hash_maps(file, source));
    findings
}

/// Exactly these folders stand at the top.
pub(crate) fn check_top_level(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    let folders: Vec<&str> =
        repo.paths.iter().filter_map(|path| path.split_once('/')).map(|(top, _)| top).collect();
    for folder in &folders {
        if !folder.starts_with('.') && !TOP_LEVEL.contains(folder) {
            let what = format!("top-level folder `{folder}`");
            let fix = format!("the folders are {}", TOP_LEVEL.join(", "));
            findings.push(Finding::new(folder, 1, what, fix));
        }
    }
    for folder in TOP_LEVEL.iter().filter(|folder| !folders.contains(folder)) {
        findings.push(Finding::new(
            folder,
            1,
            "top-level folder is missing",
            "make it, or change the map",
        ));
    }
    findings
}

/// Test files are spoken for by the file that they test.
fn head_comment(file: &File) -> Vec<Finding> {
    if is_test_file(&file.path) || file.text.trim_start().starts_with("//!") {
        return Vec::new();
    }
    let fix = "begin with //!: what it is for, why here, what it must not know";
    vec![Finding::new(&file.path, 1, "no head comment", fix)]
}

fn unsafe_code(path: &str, source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    if FORBIDDING.contains(&path) && !source.code.contains("#![forbid(unsafe_code)]") {
        let fix = "add it below the head comment: this crate is pure";
        findings.push(Finding::new(path, 1, "no #![forbid(unsafe_code)]", fix));
    }
    if !UNSAFE_ROOMS.iter().any(|room| path.starts_with(room)) {
        let fix = format!("only {} hold unsafe code", UNSAFE_ROOMS.join(", "));
        let found = source.words("unsafe").map(|at| source.line_of(at));
        findings.extend(found.map(|line| Finding::new(path, line, "`unsafe`", fix.as_str())));
    }
    findings
}

fn clocks(path: &str, source: &Source) -> Vec<Finding> {
    let may_read = CLOCK_READERS.iter().any(|(reader, _)| path.starts_with(reader));
    if may_read && !CLOCKLESS.iter().any(|clockless| path.starts_with(clockless)) {
        return Vec::new();
    }
    let readings = CLOCKS.iter().flat_map(|clock| {
        let lines = source.words(clock).map(|at| source.line_of(at));
        lines.map(|line| (line, *clock)).collect::<Vec<_>>()
    });
    let finding = |(line, clock): (usize, &str)| {
        let fix = "time is an argument: take `now` from the caller";
        Finding::new(path, line, format!("reads a clock: `{clock}`"), fix)
    };
    readings.map(finding).collect()
}

/// The standard map hashes with a keyed function that costs more than the look-up. Tests may use
/// it.
fn hash_maps(file: &File, source: &Source) -> Vec<Finding> {
    let on_path = PACKET_PATH.iter().any(|room| file.path.starts_with(room));
    if !on_path || is_test_file(&file.path) {
        return Vec::new();
    }
    let tests_from = source.tests_from_line();
    let lines = ["HashMap", "HashSet"].into_iter().flat_map(|name| {
        let lines = source.words(name).map(|at| source.line_of(at));
        lines.filter(|line| *line < tests_from).map(|line| (line, name)).collect::<Vec<_>>()
    });
    let unexplained = lines.filter(|(line, name)| !has_reason(file, *line, name));
    let finding = |(line, name): (usize, &str)| {
        let fix = format!("use a slab or a sorted table, or say why above: `// {name}: reason`");
        Finding::new(&file.path, line, format!("`{name}` in a packet-path crate"), fix)
    };
    unexplained.map(finding).collect()
}

fn is_test_file(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("tests.rs")
}

/// The line, or the comment directly above it, says `name: reason`.
fn has_reason(file: &File, line: usize, name: &str) -> bool {
    let mark = format!("// {name}: ");
    let lines: Vec<&str> = file.text.lines().collect();
    let above = lines.get(..line.saturating_sub(1)).unwrap_or_default().iter().rev();
    let own = lines.get(line.saturating_sub(1)).is_some_and(|own| own.contains(&mark));
    own || above
        .take_while(|text| text.trim_start().starts_with("//"))
        .any(|text| text.contains(&mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whats(path: &str, text: &str) -> Vec<String> {
        let text = format!("//! Head.\n{text}");
        check(&File::new(path, &text)).into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn a_module_begins_with_its_head_comment() {
        let findings = check(&File::new("flow/a.rs", "use std::fmt;\n"));
        assert!(matches!(findings.as_slice(), [one] if one.what == "no head comment"));
    }

    #[test]
    fn unsafe_stands_only_in_its_rooms() {
        let text = "fn f() { unsafe { g() } } // unsafe\n#[deny(unsafe_code)]";
        assert_eq!(whats("control/src/a.rs", text), ["`unsafe`"]);
        assert!(whats("alloc/src/a.rs", text).is_empty());
    }

    #[test]
    fn pure_crates_forbid_unsafe() {
        assert_eq!(whats("dataplane/flow/src/lib.rs", ""), ["no #![forbid(unsafe_code)]"]);
        assert!(whats("dataplane/flow/src/lib.rs", "#![forbid(unsafe_code)]").is_empty());
    }

    #[test]
    fn clocks_are_read_only_by_their_readers() {
        let text = "fn f() { let t = std::time::Instant::now(); }";
        assert_eq!(whats("dataplane/proto/src/a.rs", text).len(), 1);
        assert_eq!(whats("control/src/plane.rs", text).len(), 1);
        assert!(whats("control/src/main.rs", text).is_empty());
    }

    #[test]
    fn a_hash_map_on_the_packet_path_needs_a_reason() {
        let bare = "use std::collections::HashMap;";
        assert_eq!(whats("dataplane/src/a.rs", bare).len(), 1);
        assert!(whats("control/src/a.rs", bare).is_empty());
        let reasoned =
            "// HashMap: filled at start, read by doctor only\nuse std::collections::HashMap;";
        assert!(whats("dataplane/src/a.rs", reasoned).is_empty());
        let in_tests = "#[cfg(test)]\nmod tests { use std::collections::HashMap; }";
        assert!(whats("dataplane/src/a.rs", in_tests).is_empty());
    }

    #[test]
    fn an_unknown_top_level_folder_is_found() {
        let mut files: Vec<(String, &str)> =
            TOP_LEVEL.iter().map(|folder| (format!("{folder}/a"), "")).collect();
        files.push(("docs/a".to_owned(), ""));
        files.push((".ci/run".to_owned(), ""));
        let files: Vec<(&str, &str)> =
            files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
        let findings = check_top_level(&Repo::of(&files));
        assert!(matches!(findings.as_slice(), [one] if one.what == "top-level folder `docs`"));
    }
}
