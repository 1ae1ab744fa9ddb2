//! `control/manual/commands.md` and the command line, compared.

use std::collections::BTreeSet;

use clap::{CommandFactory as _, Parser as _};

use super::args::Cli;

const MANUAL: &str = include_str!("../../manual/commands.md");

/// Words of a line as the program gets them from a shell: quotes hold words together, and where the
/// output goes is the shell's business.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (at, part) in line.split('"').enumerate() {
        if at % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    let own = words.iter().position(|word| word.starts_with(['>', '<', '|']));
    words.truncate(own.unwrap_or(words.len()));
    words
}

/// Lines of the manual's examples.
fn examples() -> Vec<&'static str> {
    let blocks = MANUAL.split("```").skip(1).step_by(2);
    blocks.flat_map(str::lines).filter(|line| line.starts_with("ringway ")).collect()
}

/// The names of all commands without commands of their own: `ringway user add`.
fn leaves(command: &clap::Command, path: &str, out: &mut BTreeSet<String>) {
    for sub in command.get_subcommands() {
        let path = format!("{path} {}", sub.get_name());
        if sub.has_subcommands() {
            leaves(sub, &path, out);
        } else {
            out.insert(path);
        }
    }
}

#[test]
fn every_example_of_the_manual_is_a_command() {
    let examples = examples();
    assert!(examples.len() > 60, "{}", examples.len());
    for line in examples {
        if let Err(error) = Cli::try_parse_from(words(line)) {
            panic!("control/manual/commands.md: {line}: {error}");
        }
    }
}

#[test]
fn every_command_of_the_service_has_an_example() {
    let mut all = BTreeSet::new();
    leaves(&Cli::command(), "ringway", &mut all);
    // These are explained in words above the service.
    let before = [
        "run",
        "wg",
        "check",
        "doctor",
        "stats",
        "upgrade",
        "reload",
        "genkey",
        "pubkey",
        "genpsk",
        "peer add",
        "peer list",
        "peer remove",
    ];
    for name in before {
        assert!(all.remove(&format!("ringway {name}")), "there is no {name}");
    }
    for name in all {
        let has = examples().iter().any(|line| {
            line.strip_prefix(name.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        });
        assert!(has, "control/manual/commands.md has no example of {name}");
    }
}

#[test]
fn the_manual_names_no_command_that_there_is_not() {
    let root = Cli::command();
    for quoted in MANUAL.split('`').skip(1).step_by(2) {
        let Some(rest) = quoted.strip_prefix("ringway ") else { continue };
        let mut command = &root;
        for word in rest.split_whitespace() {
            if !command.has_subcommands() || word.chars().any(|c| c.is_uppercase()) {
                break;
            }
            let found = command.find_subcommand(word);
            command = found.unwrap_or_else(|| panic!("there is no \"{quoted}\""));
        }
    }
}
