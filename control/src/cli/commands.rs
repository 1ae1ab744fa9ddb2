//! The short commands: each does its work and ends.

use std::env;
use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _};
use std::net::IpAddr;
use std::path::Path;

use clap::CommandFactory as _;
use ringway_proto::allowed_ips::IpNet;
use ringway_proto::crypto::{PrivateKey, Random as _};
use zeroize::Zeroizing;

use super::args::{
    CheckArgs, Cli, CompletionArgs, DoctorArgs, ImportArgs, PeerAddArgs, PeerRemoveArgs, RunArgs,
    StatsArgs, UpgradeArgs, WgArgs, Where,
};
use super::client::target::Target;
use super::client::{Client, path};
use super::{print, print_lines, say};
use crate::config::{Config, Overrides, StoreChoice, values};
use crate::failure::{Failure, Status};
use crate::import::{self, Imported};
use crate::keys::{self, SystemRandom};
use crate::peers::{self, AddRequest, Change, Removed, qr};
use crate::place::Places;
use crate::stats;
use crate::upgrade::new;
use crate::{daemon, doctor};

impl Where {
    /// Decides where things are, by these flags and the environment.
    pub(super) fn places(self) -> Places {
        Places::find(self.config, self.state_dir, env::var_os("STATE_DIRECTORY"))
    }
}

pub(super) fn run(args: RunArgs) -> Result<Status, Failure> {
    crate::run::run(args.place.places(), args.workers.overrides()).map(|()| Status::Done)
}

pub(super) fn wg(args: WgArgs) -> Result<Status, Failure> {
    let flags = args.workers.overrides();
    let options = daemon::Options {
        foreground: args.foreground,
        interface: args.interface,
        workers: crate::run::workers_by_flags(&flags)?,
        control_cpu: flags.control_cpu,
    };
    daemon::run(&options).map(|()| Status::Done)
}

pub(super) fn check(args: CheckArgs) -> Result<Status, Failure> {
    let places = args.place.places();
    let config = places.load(&args.workers.overrides())?;
    let file = places.config.display();
    print_lines(&format!("# Effective configuration of {file}\n\n{}", config.explain()))?;
    for line in config.show_warnings(&file.to_string()) {
        say(&line);
    }
    say(&format!("{file} is valid, with {} peer(s)", config.peers.len()));
    Ok(Status::Done)
}

pub(super) fn doctor(args: DoctorArgs) -> Result<Status, Failure> {
    let places = args.place.places();
    // Without a file, what a first start would make is examined.
    let config = if places.config_given || places.config.exists() {
        places.load(&Overrides::default())?
    } else {
        Config::parse("", "defaults", &places.state_dir, &Overrides::default())?
    };
    let findings = doctor::examine(&config);
    print(&if args.json { doctor::json(&findings) } else { doctor::show(&findings) })?;
    Ok(if doctor::is_missing_something(&findings) { Status::Findings } else { Status::Done })
}

pub(super) fn stats(args: &StatsArgs) -> Result<Status, Failure> {
    let socket = match &args.interface {
        Some(interface) => stats::socket_path(interface),
        None => args.place.clone().places().load(&Overrides::default())?.stats.socket,
    };
    let query = if args.json { "stats json" } else { "stats" };
    let answer = ask(&socket, query)?;
    print(&answer)?;
    Ok(Status::Done)
}

pub(super) fn reload(place: Where) -> Result<Status, Failure> {
    let config = place.places().load(&Overrides::default())?;
    match ask_to_reload(&config) {
        Reloaded::Done(done) => print(&format!("{done}\n"))?,
        Reloaded::NotRunning => return Err(not_running(&config.stats.socket)),
        Reloaded::Refused(failure) | Reloaded::Unclear(failure) => return Err(failure),
    }
    Ok(Status::Done)
}

pub(super) fn upgrade(args: UpgradeArgs) -> Result<Status, Failure> {
    let places = args.place.places();
    // The process in the background leaves this folder.
    let absolute = |path: &Path| {
        std::path::absolute(path).map_err(|error| Failure::file("find", path, &error))
    };
    let options = new::Options {
        foreground: args.foreground,
        interface: args.interface,
        places: Places {
            state_dir: absolute(&places.state_dir)?,
            config: absolute(&places.config)?,
            ..places
        },
        flags: args.workers.overrides(),
    };
    new::run(options).map(|()| Status::Done)
}

/// Prints what the file becomes, and says how much of it somebody has to look at.
pub(in crate::cli) fn config_import(args: &ImportArgs) -> Result<Status, Failure> {
    let path = &args.file;
    let failed = |error: &io::Error| Failure::file("read", path, error);
    let file = File::open(path).map_err(|error| failed(&error))?;
    let mut bytes = Vec::new();
    // One byte more than is taken shows that there is more.
    let read = file.take(import::BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| failed(&error))?;
    let name = path.display().to_string();
    let text = String::from_utf8(bytes).map_err(|_| {
        Failure::new(Status::Config, format!("{name}: is no text (UTF-8); nothing was imported"))
    })?;
    let imported = import::import(import::kind_of(path, &text), &name, &text)?;
    print(&imported.text)?;
    let Imported { carried, left, .. } = imported;
    say(&format!("{carried} setting(s) carried over, {left} to be looked at"));
    Ok(if left > 0 { Status::Findings } else { Status::Done })
}

pub(super) fn completion(args: CompletionArgs) -> Result<Status, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ringway", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(Status::Done)
}

pub(super) fn genkey() -> Result<Status, Failure> {
    let private = PrivateKey::generate(&mut SystemRandom);
    print_secret(&keys::show_private(&private))
}

pub(super) fn genpsk() -> Result<Status, Failure> {
    let mut key = Zeroizing::new([0; 32]);
    SystemRandom.fill(&mut key[..]);
    print_secret(&keys::encode(&key))
}

pub(super) fn pubkey() -> Result<Status, Failure> {
    let mut text = Zeroizing::new(String::with_capacity(256));
    let read = io::stdin().lock().take(256).read_to_string(&mut text);
    let private = match read {
        Err(error) => Err(format!("cannot be read ({error})")),
        Ok(_) => keys::parse_private(text.trim()).map_err(|error| format!("is no key: {error}")),
    };
    let private = private.map_err(|why| {
        Failure::new(Status::Config, format!("The private key on standard input {why}"))
    })?;
    print(&format!("{}\n", keys::show_public(&private.public())))?;
    Ok(Status::Done)
}

pub(super) fn peer_add(args: PeerAddArgs) -> Result<Status, Failure> {
    let places = args.place.places();
    let before = places.load(&Overrides::default())?;
    let port = before.interface.listen_port;
    let request = AddRequest {
        name: args.name,
        endpoint: args.endpoint.map(|text| endpoint(&text, port)).transpose()?,
        allowed_ips: args.allowed_ips,
        keepalive_s: args.keepalive,
        public_key: args.public_key,
        leased: leased(&before, &places),
    };
    let added = peers::add(&places.config, request, &mut SystemRandom)?;
    for note in &added.notes {
        say(note);
    }
    let text = added.client.text();
    let drawn = if args.qr { Some(draw(&text)?) } else { None };
    say(&format!("Added the peer \"{}\" to {}", added.client.name, places.config.display()));
    let applied = apply(&added.config, added.change, &places.config);
    // A file for a client that there is not would only mislead; of one that there may be, this is
    // the only one.
    if applied.as_ref().err().is_none_or(|not| not.is_kept) {
        print(&text)?;
        if let Some(drawn) = drawn {
            say(&drawn);
        }
    }
    applied.map(|()| Status::Done).map_err(|not| not.failure)
}

/// What devices of users lease from the gateway, if it runs and has any. If it does not run, that
/// is said: its records are not opened beside it.
fn leased(config: &Config, places: &Places) -> Vec<IpNet> {
    let may_lease = match &config.store {
        StoreChoice::Off => false,
        // Before the first start there are no records.
        StoreChoice::Sqlite(file) => places.state_dir.join(file).exists(),
        StoreChoice::Postgresql(_) => true,
    };
    let Some(socket) = config.api.socket.as_ref().filter(|socket| socket.exists()) else {
        if may_lease {
            say("warning: what users lease was not looked at, because the API of the gateway is \
                 not there; the file alone chooses the address");
        }
        return Vec::new();
    };
    let ask = || -> Result<Vec<IpNet>, Failure> {
        let client = Client::new(Target::of_socket(socket))?;
        let pools = client.pages("/api/v1/pools", &[])?;
        let mut nets = Vec::new();
        for name in pools["items"].as_array().into_iter().flatten() {
            let pool = name["name"].as_str().unwrap_or_default();
            let leases = client.pages(&path(&["pools", pool, "leases"]), &[])?;
            let leases = leases["items"].as_array().into_iter().flatten();
            let addresses = leases.flat_map(|lease| [&lease["address4"], &lease["address6"]]);
            let addresses = addresses.filter_map(serde_json::Value::as_str);
            let addresses = addresses.filter_map(|text| text.parse::<IpAddr>().ok());
            nets.extend(addresses.map(IpNet::host));
        }
        Ok(nets)
    };
    ask().unwrap_or_else(|failure| {
        say(&format!("What users lease is not known, so the file chooses the address: {failure}"));
        Vec::new()
    })
}

pub(super) fn peer_list(place: Where) -> Result<Status, Failure> {
    print(&peers::list(&place.places().load(&Overrides::default())?))?;
    Ok(Status::Done)
}

pub(super) fn peer_remove(args: PeerRemoveArgs) -> Result<Status, Failure> {
    let places = args.place.places();
    places.load(&Overrides::default())?;
    let Removed { peer, config, change } = peers::remove(&places.config, &args.name_or_key)?;
    let name = if peer.name.is_empty() { keys::show_public(&peer.public) } else { peer.name };
    say(&format!("Removed the peer \"{name}\" from {}", places.config.display()));
    let applied = apply(&config, change, &places.config);
    applied.map(|()| Status::Done).map_err(|not| not.failure)
}

/// A change of the file that the running gateway did not take.
struct NotApplied {
    failure: Failure,
    /// Whether the file keeps it all the same.
    is_kept: bool,
}

/// Makes the running gateway take the changed file at `path`, if one is running. If it refuses, the
/// file becomes what it was.
fn apply(config: &Config, change: Change, path: &Path) -> Result<(), NotApplied> {
    let path_shown = path.display();
    let (failure, is_kept, left) = match ask_to_reload(config) {
        Reloaded::Done(done) => {
            say(&format!("Applied to the running gateway: {done}"));
            return Ok(());
        }
        Reloaded::NotRunning => {
            say("No gateway is running; the next \"ringway run\" will use it");
            return Ok(());
        }
        Reloaded::Unclear(failure) => (failure, true, "keeps the change".to_owned()),
        Reloaded::Refused(failure) => match change.take_back(path) {
            Ok(true) => (failure, false, "is again as it was before".to_owned()),
            Ok(false) => {
                (failure, true, "keeps the change, as somebody has edited it since".to_owned())
            }
            Err(trouble) => (failure, true, format!("keeps the change: {trouble}")),
        },
    };
    let message = format!("{}; {path_shown} {left}", failure.message);
    Err(NotApplied { failure: Failure::new(failure.status, message), is_kept })
}

/// What came of a request to read the file again.
enum Reloaded {
    /// What the gateway did.
    Done(String),
    /// Nobody is there to be asked.
    NotRunning,
    /// The gateway goes on as before.
    Refused(Failure),
    /// It ended, or something else answered: whoever is the gateway may take the file.
    Unclear(Failure),
}

fn ask_to_reload(config: &Config) -> Reloaded {
    let answer = match ask(&config.stats.socket, "reload") {
        Ok(answer) => answer,
        Err(failure) if failure.status == Status::NotRunning => return Reloaded::NotRunning,
        Err(failure) => return Reloaded::Unclear(failure),
    };
    let answer = answer.trim();
    if let Some(done) = answer.strip_prefix("Done:") {
        return Reloaded::Done(done.trim().to_owned());
    }
    let refused = |message| Failure::new(Status::Refused, message);
    match answer.strip_prefix("Refused:") {
        Some(why) => Reloaded::Refused(refused(format!(
            "The running gateway did not take the configuration and goes on as before: {}",
            why.trim()
        ))),
        None => Reloaded::Unclear(refused(format!(
            "Whether the running gateway took the configuration is not known: {}",
            if answer.is_empty() { "it did not answer" } else { answer }
        ))),
    }
}

/// Sends one query to the gateway at `socket`.
fn ask(socket: &Path, query: &str) -> Result<String, Failure> {
    let mut answer = Vec::new();
    match stats::client::ask(socket, query, &mut answer) {
        Ok(()) => Ok(String::from_utf8_lossy(&answer).into_owned()),
        Err(error) if is_nobody(&error) => Err(not_running(socket)),
        Err(error) => Err(Failure::file("talk to the gateway at", socket, &error)),
    }
}

/// Whether nobody is there to answer.
fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn not_running(socket: &Path) -> Failure {
    let message = format!(
        "No gateway answers at {}: start it with \"ringway run\", or name its configuration with \
         --config",
        socket.display()
    );
    Failure::new(Status::NotRunning, message)
}

fn endpoint(text: &str, port: u16) -> Result<String, Failure> {
    let with_port = || format!("{text}:{port}");
    values::host_and_port(text).or_else(|why| {
        // A host alone gets the gateway's own port.
        values::host_and_port(&with_port()).map_err(|_| {
            let message = format!(
                "--endpoint {text} {why}: write HOST:PORT, such as vpn.example.org:{port} or \
                 [2001:db8::1]:{port}"
            );
            Failure::new(Status::Usage, message)
        })
    })
}

fn draw(text: &str) -> Result<Zeroizing<String>, Failure> {
    qr::draw(text, io::stderr().is_terminal()).map(Zeroizing::new)
}

fn print_secret(text: &Zeroizing<String>) -> Result<Status, Failure> {
    print(&Zeroizing::new(format!("{}\n", **text)))?;
    Ok(Status::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_without_a_port_gets_the_gateways() {
        assert_eq!(endpoint("vpn.example.org", 7), Ok("vpn.example.org:7".to_owned()));
        assert_eq!(endpoint("[2001:db8::1]", 7), Ok("[2001:db8::1]:7".to_owned()));
        assert_eq!(endpoint("192.0.2.1:9", 7), Ok("192.0.2.1:9".to_owned()));
        let failure = endpoint("2001:db8::1:9", 7).unwrap_err();
        assert_eq!(failure.status, Status::Usage);
        assert!(failure.message.contains("[2001:db8::1]:7"), "{failure}");
    }
}
