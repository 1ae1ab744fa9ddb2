//! Programs and their owners: a process ends when its owner is dropped, and is ended by PID, never
//! by name.
//!
//! Standard output and error go to files in the scratch folder, so that no pipe can fill up and the
//! text is there when something went wrong. A child is also ended when the thread that started it
//! dies, so that a killed test run leaves no daemon behind.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait;

/// How long a process may take to obey SIGTERM before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// Beginning of the names of scratch folders; the PID follows.
pub const SCRATCH_PREFIX: &str = "ringway-lab-";

/// A command line to be run: where (namespace), on which CPUs, with what environment.
#[derive(Clone, Debug)]
pub struct Launch {
    program: OsString,
    args: Vec<OsString>,
    netns: Option<String>,
    cpus: Option<String>,
    env: Vec<(String, String)>,
    input: Option<PathBuf>,
}

impl Launch {
    /// Runs `program`, found as the shell would find it.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            netns: None,
            cpus: None,
            env: Vec::new(),
            input: None,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds the words of `text` as arguments; for arguments without blanks.
    #[must_use]
    pub fn words(self, text: &str) -> Self {
        self.args(text.split_whitespace())
    }

    /// Runs inside the network namespace `name`.
    #[must_use]
    pub fn within(mut self, name: &str) -> Self {
        self.netns = Some(name.to_owned());
        self
    }

    /// Pins to a CPU list as `taskset` reads it; `None` leaves the affinity alone.
    #[must_use]
    pub fn on_cpus(mut self, cpus: Option<&str>) -> Self {
        self.cpus = cpus.map(str::to_owned);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Gives it a file to read from standard input, which is empty otherwise.
    #[must_use]
    pub fn input(mut self, path: impl Into<PathBuf>) -> Self {
        self.input = Some(path.into());
        self
    }

    /// Starts it; it ends with its owner.
    ///
    /// # Errors
    /// When the program cannot be started or the scratch folder cannot be written.
    pub fn spawn(&self) -> Result<Process> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let title = Path::new(&self.program)
            .file_name()
            .map_or_else(|| "program".to_owned(), |name| name.to_string_lossy().into_owned());
        let base = scratch()?.join(format!("{serial:05}-{title}"));
        let (out, err) = (base.with_extension("out"), base.with_extension("err"));

        let input = match &self.input {
            Some(path) => {
                File::open(path).with_context(|| format!("Opening {}", path.display()))?.into()
            }
            None => Stdio::null(),
        };
        let mut command = self.command();
        command
            .stdin(input)
            .stdout(File::create(&out).with_context(|| format!("Creating {}", out.display()))?)
            .stderr(File::create(&err).with_context(|| format!("Creating {}", err.display()))?);
        let child = command.spawn().with_context(|| format!("Starting {self}"))?;
        Ok(Process { child, title: self.to_string(), out, err })
    }

    /// Runs it to its end and returns what it wrote to standard output.
    ///
    /// # Errors
    /// When it cannot be started, fails, or outlives `limit`.
    pub fn output(&self, limit: Duration) -> Result<String> {
        let mut process = self.spawn()?;
        let status = process.wait(limit)?;
        if !status.success() {
            bail!("{self}: {status}\n{}{}", process.errors(), process.output());
        }
        Ok(process.output())
    }

    /// Runs a quick command (10 s limit) to its end.
    ///
    /// # Errors
    /// As [`Launch::output`].
    pub fn run(&self) -> Result<String> {
        self.output(Duration::from_secs(10))
    }

    fn command(&self) -> Command {
        let mut words: Vec<OsString> = ["setpriv", "--pdeathsig", "KILL"].map(Into::into).into();
        if let Some(netns) = &self.netns {
            words.extend(["ip", "netns", "exec", netns].map(Into::into));
        }
        if let Some(cpus) = &self.cpus {
            words.extend(["taskset", "-c", cpus].map(Into::into));
        }
        words.push(self.program.clone());
        words.extend(self.args.iter().cloned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).envs(self.env.iter().map(|(key, value)| (key, value)));
        command
    }
}

impl std::fmt::Display for Launch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(netns) = &self.netns {
            write!(f, "[{netns}] ")?;
        }
        write!(f, "{}", self.program.to_string_lossy())?;
        for arg in &self.args {
            write!(f, " {}", arg.to_string_lossy())?;
        }
        Ok(())
    }
}

/// A running program; ended when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    title: String,
    out: PathBuf,
    err: PathBuf,
}

impl Process {
    /// Its process id. The wrappers (`ip netns exec`, `taskset`) replace themselves, so this is the
    /// program's own.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to standard output so far.
    #[must_use]
    pub fn output(&self) -> String {
        fs::read(&self.out).map(|bytes| String::from_utf8_lossy(&bytes).into()).unwrap_or_default()
    }

    /// What it wrote to standard error so far.
    #[must_use]
    pub fn errors(&self) -> String {
        fs::read(&self.err).map(|bytes| String::from_utf8_lossy(&bytes).into()).unwrap_or_default()
    }

    /// The exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Kills it and says so when it outlives `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let child = &mut self.child;
        wait::wait_until(&self.title, limit, || child.try_wait().ok().flatten())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.raw_pid(), signal).with_context(|| format!("Signalling {}", self.title))
    }

    /// Ends it: SIGTERM, and SIGKILL when that is ignored.
    pub fn stop(&mut self) {
        if self.ended().is_some() {
            return;
        }
        let _ = kill(self.raw_pid(), Signal::SIGTERM);
        if self.wait(STOP_LIMIT).is_err() {
            self.kill();
        }
    }

    /// Ends it at once, as a power failure would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn raw_pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
        let _ = fs::remove_file(&self.out);
        let _ = fs::remove_file(&self.err);
    }
}

/// The folder for output files and configuration files of this process, made on first use.
///
/// # Errors
/// When the temporary folder cannot be written.
pub fn scratch() -> Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("{SCRATCH_PREFIX}{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("Creating {}", folder.display()))?;
    Ok(folder)
}
