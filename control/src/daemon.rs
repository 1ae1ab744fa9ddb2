//! `ringway wg`: a WireGuard daemon for one interface, driven by `wg` and `wg-quick` alone.
//!
//! Takes the place of `wireguard-go IFNAME`. Without `-f` the program starts itself again in a new
//! session and waits: it returns when the configuration socket answers, or with the message and
//! exit code of the start that failed. `LOG_LEVEL` is `silent`, `error` (the default), `verbose` or
//! `debug`; where it is set, messages go on coming to the standard error of whoever started it.

use std::env;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use ringway_flow::Policy;
use ringway_numa::pin;
use ringway_ring::{PoolSizes, UdpOptions};
use tracing::level_filters::LevelFilter;

use crate::config::{Overrides, WorkerCount};
use crate::failure::{Failure, Status};
use crate::gateway::{self, Role, Setup, UapiSocket, WorkerSetup};
use crate::plane::{Operation, Plane};
use crate::upgrade::message::{Offer, Part};
use crate::upgrade::{Endpoints, Legacy};
use crate::{logs, run, stats, uapi};

/// Set for the process in the background; tells it to report on its standard output.
const BACKGROUND: &str = "RINGWAY_WG_BACKGROUND";

/// What the background process says when it serves, after what the operator should know. Without it
/// what was said is why it does not serve.
const SERVING: &str = "serving";

/// What the command line said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Stay in the foreground.
    pub foreground: bool,
    /// Name of the interface.
    pub interface: String,
    /// The workers.
    pub workers: WorkerSetup,
    /// CPU of the control thread, if it is to be bound to one.
    pub control_cpu: Option<u32>,
}

/// Runs the daemon, in the foreground or in the background.
///
/// # Errors
/// Why it did not start, or why it ended.
pub fn run(options: &Options) -> Result<(), Failure> {
    check_name(&options.interface)?;
    detached(options.foreground, |ready| {
        start_log()?;
        serve(options, || ready(&[]))
    })
}

/// Serves in this process. Only here the control thread is bound: a process that starts another one
/// would hand its single CPU on.
fn serve(options: &Options, ready: impl FnOnce()) -> Result<(), Failure> {
    bind_control(options.control_cpu)?;
    gateway::run(setup(options), &mut Configured, ready)
}

fn bind_control(cpu: Option<u32>) -> Result<(), Failure> {
    let Some(cpu) = cpu else { return Ok(()) };
    pin::pin_to(cpu).map_err(|error| Failure::new(Status::Config, error.to_string()))
}

fn check_name(name: &str) -> Result<(), Failure> {
    let fits = (1..16).contains(&name.len()) && !name.contains(['/', ' ', ':']) && name != "..";
    if fits && name != "." {
        return Ok(());
    }
    let message = format!("{name:?} cannot be the name of an interface (1 to 15 bytes)");
    Err(Failure::new(Status::Usage, message))
}

fn setup(options: &Options) -> Setup {
    let name = &options.interface;
    Setup {
        interface: name.clone(),
        workers: options.workers.clone(),
        udp: UdpOptions::default(),
        policy: Policy::default(),
        session_heaps: "auto",
        pools: PoolSizes::default(),
        stats_socket: stats::socket_path(name),
        pages: None,
        uapi: UapiSocket { path: uapi::socket_path(name), writable: true },
    }
    .leave_out()
}

/// Everything comes through the configuration socket.
struct Configured;

impl Role for Configured {
    fn first(&mut self) -> Vec<Operation> {
        Vec::new()
    }

    fn raise(&mut self, _interface: &str) -> Result<(), Failure> {
        Ok(())
    }

    fn reload(&mut self) -> Result<(Vec<Operation>, String), String> {
        Err("this interface has no file; it is configured with `wg` and `wg-quick`".to_owned())
    }

    fn reloaded(&mut self, _done: bool) {}

    fn lower(&mut self) {}

    fn legacy(&self) -> io::Result<Legacy> {
        Ok(Legacy {
            part: Part::Wg,
            config: PathBuf::new(),
            state_dir: PathBuf::new(),
            settings: Vec::new(),
            journal: None,
            endpoints: Endpoints::new(),
        })
    }

    fn release(&mut self) {}

    fn inherit(&mut self, _journal: Option<OwnedFd>, _plane: &Plane, _endpoints: &Endpoints) {}
}

/// The daemon of an interface that another process serves, with as many workers.
///
/// # Errors
/// Wishes that this machine cannot fulfil.
pub(crate) fn claim(offer: &Offer, flags: &Overrides) -> Result<(Setup, Box<dyn Role>), Failure> {
    start_log()?;
    let mut flags = flags.clone();
    if flags.count.is_none() && offer.cores > 1 {
        flags.count = Some(WorkerCount::Exactly(offer.cores));
        flags.oversubscribe = true;
    }
    let options = Options {
        foreground: true,
        interface: offer.interface.clone(),
        workers: run::workers_by_flags(&flags)?,
        control_cpu: flags.control_cpu,
    };
    bind_control(options.control_cpu)?;
    let mut setup = setup(&options);
    setup.udp = UdpOptions { port: offer.port, mark: offer.mark, ..setup.udp };
    Ok((setup, Box::new(Configured)))
}

/// Serves in this process, or starts this program again in the background and waits until that one
/// serves. `serve` is given what to call then, with lines for the operator.
///
/// # Errors
/// What `serve` says, here or there.
pub(crate) fn detached(
    foreground: bool,
    serve: impl FnOnce(&mut dyn FnMut(&[String])) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if env::var_os(BACKGROUND).is_some() {
        return in_background(serve);
    }
    if foreground {
        return serve(&mut |lines| lines.iter().for_each(|line| println_once(line)));
    }
    start_background()
}

/// Starts this program again in the background and waits until it serves.
fn start_background() -> Result<(), Failure> {
    let failed = |error: io::Error| {
        Failure::new(Status::Unsupported, format!("Cannot start in the background: {error}"))
    };
    let mut arguments = env::args_os();
    let _own_name = arguments.next();
    let mut command = Command::new(env::current_exe().map_err(failed)?);
    command.args(arguments).env(BACKGROUND, "1").stdin(Stdio::null()).stdout(Stdio::piped());
    if let Some(name) = env::args_os().next() {
        std::os::unix::process::CommandExt::arg0(&mut command, name);
    }
    if !logs_are_wanted() && !keeps_messages() {
        command.stderr(Stdio::null());
    }
    let mut child = command.spawn().map_err(failed)?;
    let mut said = String::new();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines() {
            let line = line.map_err(failed)?;
            if line == SERVING {
                said.lines().for_each(println_once);
                return Ok(());
            }
            said.push_str(&line);
            said.push('\n');
        }
    }
    let code = child.wait().map_err(failed)?.code();
    let status = Status::ALL
        .iter()
        .find(|status| Some(i32::from(status.code())) == code && **status != Status::Done);
    let said = said.trim_end();
    let message = if said.is_empty() { "It ended without saying why" } else { said };
    Err(Failure::new(status.copied().unwrap_or(Status::Crashed), message))
}

fn in_background(
    serve: impl FnOnce(&mut dyn FnMut(&[String])) -> Result<(), Failure>,
) -> Result<(), Failure> {
    // Whoever started us may end its session; we stay. Fails only if we lead one already.
    let _ = rustix::process::setsid();
    let _ = env::set_current_dir("/");
    let mut told = false;
    let outcome = serve(&mut |lines| {
        told = true;
        lines.iter().for_each(|line| println_once(line));
        println_once(SERVING);
        leave_stdout();
    });
    if let Err(failure) = &outcome
        && !told
    {
        println_once(&failure.message);
    }
    outcome
}

/// The one thing said on standard output; if nobody listens any more, nobody needs it.
fn println_once(text: &str) {
    let mut stdout = io::stdout();
    let _ = writeln!(stdout, "{text}");
    let _ = stdout.flush();
}

/// Lets go of the pipe to whoever started us.
fn leave_stdout() {
    if let Ok(null) = File::options().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}

/// Whether standard error goes to a file or to the journal. A terminal belongs to somebody else
/// soon, and who reads a pipe to its end would wait for the end of the daemon.
fn keeps_messages() -> bool {
    let kind = fs::metadata("/proc/self/fd/2").map(|stderr| stderr.file_type());
    kind.is_ok_and(|kind| kind.is_file() || kind.is_socket())
}

fn logs_are_wanted() -> bool {
    env::var("LOG_LEVEL").is_ok_and(|level| !level.is_empty() && level != "silent")
}

/// Logs as the environment wants it.
fn start_log() -> Result<(), Failure> {
    let level = match env::var("LOG_LEVEL").as_deref() {
        Ok("silent") => LevelFilter::OFF,
        Ok("verbose" | "debug") => LevelFilter::DEBUG,
        Ok(_) | Err(_) => LevelFilter::ERROR,
    };
    logs::init(&logs::Settings { level, ..logs::Settings::default() })
}
