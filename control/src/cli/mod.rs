//! The program `ringway`: from its arguments to its exit code.
//!
//! Results go to standard output, everything said about them to standard error, so that `ringway
//! peer add NAME > client.conf` is a file that works. A failure is one sentence on standard error
//! and an exit code of `failure.rs`.

mod args;
mod ask;
mod client;
mod commands;
mod files;
mod given;
mod restore;
mod service;
mod show;
mod table;
mod top;

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;

use crate::failure::{Failure, Status};
use crate::{harden, logs};
use args::{Cli, Command, PeerCommand, WgCli};
use show::lines;

/// Does what the arguments say. The first one is the program's own name: called as `ringway-wg`,
/// the program is `ringway wg`.
#[must_use]
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    harden::no_core_dumps();
    let args: Vec<OsString> = args.into_iter().collect();
    let command = if is_called_wg(args.first()) {
        WgCli::try_parse_from(args).map(|cli| Command::Wg(cli.wg))
    } else {
        Cli::try_parse_from(args).map(|cli| cli.command)
    };
    let status = match command {
        Ok(command) => match dispatch(command) {
            Ok(status) => status,
            Err(failure) => {
                // What led to it comes before it.
                logs::finish();
                complain(&failure);
                failure.status
            }
        },
        Err(error) => {
            // Nothing sensible can be done if the terminal is gone.
            let _ = error.print();
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            if asked { Status::Done } else { Status::Usage }
        }
    };
    logs::finish();
    ExitCode::from(status.code())
}

/// Does what a line says, for tests that have a gateway in their own process.
#[cfg(test)]
pub(crate) fn obey(line: &str) -> Result<Status, Failure> {
    let cli = Cli::try_parse_from(line.split_whitespace());
    dispatch(cli.map_err(|error| Failure::new(Status::Usage, error.to_string()))?.command)
}

fn dispatch(command: Command) -> Result<Status, Failure> {
    match command {
        Command::Run(args) => commands::run(args),
        Command::Wg(args) => commands::wg(args),
        Command::Check(args) => commands::check(args),
        Command::Doctor(args) => commands::doctor(args),
        Command::Stats(args) => commands::stats(&args),
        Command::Upgrade(args) => commands::upgrade(args),
        Command::Reload(place) => commands::reload(place),
        Command::Genkey => commands::genkey(),
        Command::Pubkey => commands::pubkey(),
        Command::Genpsk => commands::genpsk(),
        Command::Peer(peer) => match peer.command {
            PeerCommand::Add(args) => commands::peer_add(args),
            PeerCommand::List(place) => commands::peer_list(place),
            PeerCommand::Remove(args) => commands::peer_remove(args),
        },
        Command::Status(verb) => service::gateway::status(&verb),
        Command::Health(verb) => service::gateway::health(&verb),
        Command::Top(verb) => top::run(&verb),
        Command::User(noun) => service::user::run(noun),
        Command::Device(noun) => service::device::run(noun),
        Command::Access(noun) => service::access::run(noun),
        Command::Enrol(verb) => service::enrol::run(&verb),
        Command::Group(noun) => service::group::run(noun),
        Command::Policy(noun) => service::policy::run(noun),
        Command::Pool(noun) => service::pool::run(noun),
        Command::Session(noun) => service::session::run(noun),
        Command::Token(noun) => service::token::run(noun),
        Command::Quota(noun) => service::quota::run(noun),
        Command::Audit(noun) => service::audit::run(noun),
        Command::Config(noun) => service::config::run(noun),
        Command::Ban(noun) => service::ban::run(noun),
        Command::Node(noun) => service::node::run(noun),
        Command::Drain(verb) => service::drain::run(&verb),
        Command::Events(verb) => service::events::run(&verb),
        Command::Report(noun) => service::report::run(noun),
        Command::Backup(verb) => service::gateway::backup(&verb),
        Command::Restore(args) => restore::run(args),
        Command::Setup(verb) => service::gateway::setup(&verb),
        Command::Completion(args) => commands::completion(args),
    }
}

fn is_called_wg(program: Option<&OsString>) -> bool {
    let name = program.and_then(|program| Path::new(program).file_name());
    name.is_some_and(|name| name.as_encoded_bytes().ends_with(b"ringway-wg"))
}

/// Prints JSON that came from outside.
fn print_json(text: &str) -> Result<(), Failure> {
    print(&format!("{}\n", show::json(text.trim_end())))
}

/// Prints a result. A reader that has gone away (`| head`) is not a failure.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let message = format!("Cannot write to standard output ({error})");
            Err(Failure::new(Status::State, message))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Prints a text of somebody else's, of several lines: as it is into a file or a pipe, because it
/// may be read again, and on a terminal without what that would obey.
fn print_lines(text: &str) -> Result<(), Failure> {
    if io::stdout().is_terminal() { print(&lines(text)) } else { print(text) }
}

/// Says something about a result. Nothing sensible can be done if standard error is gone.
fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

fn complain(failure: &Failure) {
    say(&format!("ringway: {failure}"));
}

#[cfg(test)]
mod manual_tests;
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_decides_whether_it_is_the_bare_interface() {
        for (name, wg) in [
            ("/usr/bin/ringway-wg", true),
            ("ringway-wg", true),
            ("ringway", false),
            ("/opt/ringway-wg/ringway", false),
        ] {
            assert_eq!(is_called_wg(Some(&name.into())), wg, "{name}");
        }
        assert!(!is_called_wg(None));
    }
}
