//! The command line: what may be written, and nothing of what it does.
//!
//! Defaults are not here but in the configuration, so that a flag that was not given changes
//! nothing.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use ringway_numa::CpuList;
use ringway_proto::allowed_ips::IpNet;
use ringway_proto::crypto::PublicKey;

use crate::config::{
    DriverChoice, FastPaths, NumaChoice, Overrides, SandboxChoice, SpinChoice, SteeringChoice,
    WorkerCount, ZeroCopyChoice, options, values,
};
use crate::keys;

use super::ask::SureArgs;
use super::service::access::AccessVerb;
use super::service::audit::AuditVerb;
use super::service::ban::BanVerb;
use super::service::config::ConfigVerb;
use super::service::device::DeviceVerb;
use super::service::drain::DrainArgs;
use super::service::enrol::EnrolArgs;
use super::service::events::EventsArgs;
use super::service::gateway::{BackupArgs, SetupArgs};
use super::service::group::GroupVerb;
use super::service::node::NodeVerb;
use super::service::policy::PolicyVerb;
use super::service::pool::PoolVerb;
use super::service::quota::QuotaVerb;
use super::service::report::ReportVerb;
use super::service::session::SessionVerb;
use super::service::token::TokenVerb;
use super::service::user::UserVerb;
use super::service::{Nothing, Noun, Verb};
use super::top::TopArgs;

/// `ringway …`.
#[derive(Debug, Parser)]
#[command(name = "ringway", version, about = "A VPN gateway on io_uring, WireGuard first")]
#[command(arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the gateway in the foreground, on safe defaults if there is no configuration
    Run(RunArgs),
    /// Make a bare WireGuard interface for wg and wg-quick, like "wireguard-go IFNAME"
    Wg(WgArgs),
    /// Print the effective configuration with every default explained
    Check(CheckArgs),
    /// Examine this machine: what is used, what is missing, the command that fixes it
    Doctor(DoctorArgs),
    /// Print the counters of a running gateway
    Stats(StatsArgs),
    /// Take the running gateway over with this program; clients notice nothing
    Upgrade(UpgradeArgs),
    /// Make the running gateway read its configuration again; live sessions go on
    Reload(Where),
    /// Print a new private key
    Genkey,
    /// Read a private key from standard input and print its public key
    Pubkey,
    /// Print a new preshared key
    Genpsk,
    /// Add, list or remove clients that the configuration file has
    Peer(PeerArgs),
    /// Say what the gateway is and does, in a few numbers
    Status(Verb<Nothing>),
    /// Say whether traffic can be served, part by part; ends with 1 if it cannot
    Health(Verb<Nothing>),
    /// Watch the gateway: cores, sessions, drops, limits
    Top(Verb<TopArgs>),
    /// Users: who may come in
    User(Noun<UserVerb>),
    /// Devices of users, and what to load into them
    Device(Noun<DeviceVerb>),
    /// Sign in, so that your own devices may connect
    Access(Noun<AccessVerb>),
    /// Make a one-time link by which a user adds a device
    Enrol(Verb<EnrolArgs>),
    /// Groups: users with a policy and a rate in common
    Group(Noun<GroupVerb>),
    /// Policies: what users may do
    Policy(Noun<PolicyVerb>),
    /// Pools: inner addresses that devices lease
    Pool(Noun<PoolVerb>),
    /// Sessions: who is connected now
    Session(Noun<SessionVerb>),
    /// Tokens by which programs use the API
    Token(Noun<TokenVerb>),
    /// Quotas: who used how much
    Quota(Noun<QuotaVerb>),
    /// Who changed what, and whether that record is whole
    Audit(Noun<AuditVerb>),
    /// The configuration of the running gateway: try, apply, confirm, take back
    Config(Noun<ConfigVerb>),
    /// Who is kept out for a while after too many failures
    Ban(Noun<BanVerb>),
    /// Exits, in service or out of it
    Node(Noun<NodeVerb>),
    /// Empty the gateway: no new sessions, and the old ones leave until a deadline
    Drain(Verb<DrainArgs>),
    /// Follow what happens
    Events(Verb<EventsArgs>),
    /// Reports: who moved how much, how fast it was
    Report(Noun<ReportVerb>),
    /// Copy the records to a file of the gateway's host
    Backup(Verb<BackupArgs>),
    /// Put a copy of the records in place of those of a gateway that is stopped
    Restore(RestoreArgs),
    /// Make the first administrator, with the secret that the first start printed
    Setup(Verb<SetupArgs>),
    /// Print what makes a shell complete these commands
    Completion(CompletionArgs),
}

/// `ringway completion`.
#[derive(Args, Debug)]
pub(crate) struct CompletionArgs {
    /// For which shell
    pub(crate) shell: clap_complete::Shell,
}

/// `ringway restore`.
#[derive(Args, Debug)]
pub(crate) struct RestoreArgs {
    /// A file that "ringway backup" has made
    pub(crate) path: PathBuf,
    #[command(flatten)]
    pub(crate) place: Where,
    #[command(flatten)]
    pub(crate) sure: SureArgs,
}

/// `ringway config import`.
#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    /// A gateway's YAML, a proxy's TOML, or a script with the flags of a dispatching proxy
    pub(crate) file: PathBuf,
}

/// Where configuration and state are.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Where {
    /// Configuration file [default: ringway.toml in the state folder]
    #[arg(long, short = 'c', value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// State folder [default: $STATE_DIRECTORY, else /var/lib/ringway]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
}

/// `ringway run`.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) place: Where,
    #[command(flatten)]
    pub(crate) workers: WorkerArgs,
}

/// Flags that win over `[workers]`.
#[derive(Args, Debug, Default)]
pub(crate) struct WorkerArgs {
    /// Cores that carry traffic: a number, or "auto" for one per physical core allowed
    #[arg(long, value_name = "N|auto", value_parser = workers)]
    workers: Option<WorkerCount>,
    /// Allow more workers than CPUs (for tests)
    #[arg(long)]
    oversubscribe: bool,
    /// CPUs that workers may be pinned to, such as 0-3,8
    #[arg(long, value_name = "LIST", value_parser = cpus)]
    cpus: Option<CpuList>,
    /// Memory nodes: "auto", "off", or node numbers such as 0,1
    #[arg(long, value_name = "auto|off|NODES", value_parser = numa)]
    numa: Option<NumaChoice>,
    /// CPU of the control thread
    #[arg(long, value_name = "N")]
    control_cpu: Option<u32>,
    /// How packets are moved
    #[arg(long, value_name = "auto|uring|epoll", value_parser = driver)]
    driver: Option<DriverChoice>,
    /// Whether the kernel brings packets to the worker that owns their session
    #[arg(long, value_name = "auto|off", value_parser = steering)]
    steering: Option<SteeringChoice>,
    /// Microseconds that a worker looks for work before it sleeps
    #[arg(long, value_name = "auto|N", value_parser = spin_us)]
    spin_us: Option<SpinChoice>,
    /// Whether workers give up what they do not need
    #[arg(long, value_name = "on|off", value_parser = sandbox)]
    sandbox: Option<SandboxChoice>,
    /// Whether large trains are sent from where they lie
    #[arg(long, value_name = "off|auto|on", value_parser = zero_copy)]
    zero_copy: Option<ZeroCopyChoice>,
    /// Fast paths to do without, separated by commas, such as gso,gro; "all", or "none"
    #[arg(long, value_name = "PATHS", value_parser = without)]
    without: Option<FastPaths>,
}

impl WorkerArgs {
    pub(crate) fn overrides(self) -> Overrides {
        Overrides {
            count: self.workers,
            oversubscribe: self.oversubscribe,
            cpus: self.cpus,
            numa: self.numa,
            control_cpu: self.control_cpu,
            driver: self.driver,
            steering: self.steering,
            spin_us: self.spin_us,
            sandbox: self.sandbox,
            zero_copy: self.zero_copy,
            without: self.without,
        }
    }
}

/// `ringway wg`, and `ringway-wg`.
#[derive(Args, Debug)]
pub(crate) struct WgArgs {
    /// Stay in the foreground
    #[arg(long, short = 'f')]
    pub(crate) foreground: bool,
    /// Name of the interface to make
    #[arg(value_name = "IFNAME")]
    pub(crate) interface: String,
    #[command(flatten)]
    pub(crate) workers: WorkerArgs,
}

/// `ringway-wg [-f] IFNAME`.
#[derive(Debug, Parser)]
#[command(name = "ringway-wg", version, about = "A bare WireGuard interface for wg and wg-quick")]
pub(crate) struct WgCli {
    #[command(flatten)]
    pub(crate) wg: WgArgs,
}

/// `ringway check`.
#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) place: Where,
    #[command(flatten)]
    pub(crate) workers: WorkerArgs,
}

/// `ringway doctor`.
#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) place: Where,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `ringway stats`.
#[derive(Args, Debug)]
pub(crate) struct StatsArgs {
    #[command(flatten)]
    pub(crate) place: Where,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Ask the gateway of this interface (also one made by "ringway wg"), not the configuration's
    #[arg(long, value_name = "IFNAME", conflicts_with_all = ["config", "state_dir"])]
    #[arg(value_parser = interface)]
    pub(crate) interface: Option<String>,
}

/// `ringway upgrade`.
#[derive(Args, Debug)]
pub(crate) struct UpgradeArgs {
    #[command(flatten)]
    pub(crate) place: Where,
    /// Take over the gateway of this interface (also one made by "ringway wg")
    #[arg(long, value_name = "IFNAME", conflicts_with_all = ["config", "state_dir"])]
    #[arg(value_parser = interface)]
    pub(crate) interface: Option<String>,
    /// Stay in the foreground
    #[arg(long, short = 'f')]
    pub(crate) foreground: bool,
    #[command(flatten)]
    pub(crate) workers: WorkerArgs,
}

/// `ringway peer`.
#[derive(Args, Debug)]
pub(crate) struct PeerArgs {
    #[command(subcommand)]
    pub(crate) command: PeerCommand,
}

/// What to do with peers.
#[derive(Debug, Subcommand)]
pub(crate) enum PeerCommand {
    /// Add a client: write the configuration, apply it live, print the client's wg-quick file
    Add(PeerAddArgs),
    /// List the configured peers
    List(Where),
    /// Remove a client from the configuration and from the running gateway
    Remove(PeerRemoveArgs),
}

/// `ringway peer add`.
#[derive(Args, Debug)]
pub(crate) struct PeerAddArgs {
    /// What to call the client
    #[arg(value_parser = peer_name)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) place: Where,
    /// Where clients reach this gateway; without a port, its own
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) endpoint: Option<String>,
    /// What the client sends into the tunnel, separated by commas [default: everything]
    #[arg(long, value_name = "PREFIXES", value_delimiter = ',', value_parser = net)]
    pub(crate) allowed_ips: Option<Vec<IpNet>>,
    /// Seconds between the client's keepalives (25 keeps most NATs open), or "off"
    #[arg(long, value_name = "SECONDS", value_parser = keepalive)]
    pub(crate) keepalive: Option<u16>,
    /// The client's public key, if the client keeps its private key to itself
    #[arg(long, value_name = "KEY", value_parser = public_key)]
    pub(crate) public_key: Option<PublicKey>,
    /// Draw a QR code for the camera of a phone, on standard error
    #[arg(long, conflicts_with = "public_key")]
    pub(crate) qr: bool,
}

/// `ringway peer remove`.
#[derive(Args, Debug)]
pub(crate) struct PeerRemoveArgs {
    /// Name or public key of the client
    #[arg(value_name = "NAME|KEY")]
    pub(crate) name_or_key: String,
    #[command(flatten)]
    pub(crate) place: Where,
}

/// Completes "is neither …" with what to write, from the table of options.
fn advise<T>(section: &str, key: &str, read: Result<T, String>) -> Result<T, String> {
    let wants = options::find(section, key).map_or("something else", |option| option.wants);
    read.map_err(|why| format!("{why}: write {wants}"))
}

fn workers(text: &str) -> Result<WorkerCount, String> {
    advise("workers", "count", values::worker_count(text))
}

fn cpus(text: &str) -> Result<CpuList, String> {
    advise("workers", "cpus", values::number_list(text))
}

fn numa(text: &str) -> Result<NumaChoice, String> {
    advise("workers", "numa", values::numa(text))
}

fn driver(text: &str) -> Result<DriverChoice, String> {
    advise("workers", "driver", values::driver(text))
}

fn steering(text: &str) -> Result<SteeringChoice, String> {
    advise("workers", "steering", values::steering(text))
}

fn spin_us(text: &str) -> Result<SpinChoice, String> {
    advise("workers", "spin_us", values::spin_us(text))
}

fn sandbox(text: &str) -> Result<SandboxChoice, String> {
    advise("workers", "sandbox", values::sandbox(text))
}

fn zero_copy(text: &str) -> Result<ZeroCopyChoice, String> {
    advise("workers", "zero_copy", values::zero_copy(text))
}

fn without(text: &str) -> Result<FastPaths, String> {
    advise("workers", "without", values::without(text))
}

pub(super) fn interface(text: &str) -> Result<String, String> {
    advise("interface", "name", values::interface_name(text))
}

fn peer_name(text: &str) -> Result<String, String> {
    advise("peer", "name", values::peer_name(text))
}

fn net(text: &str) -> Result<IpNet, String> {
    text.trim().parse().map_err(|error| format!("{error}: write for example 10.77.0.0/24"))
}

/// A bare number is accepted here, as the flag's name says seconds.
fn keepalive(text: &str) -> Result<u16, String> {
    let bare = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text {
        "0" => Ok(0),
        number if bare => values::keepalive_text(&format!("{number}s")),
        other => values::keepalive_text(other),
    }
}

pub(super) fn public_key(text: &str) -> Result<PublicKey, String> {
    keys::parse_public(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    use crate::config::FastPath;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
        WgCli::command().debug_assert();
    }

    #[test]
    fn the_manual_explains_every_command_and_flag() {
        fn names(command: &clap::Command, path: &str, out: &mut Vec<String>) {
            for flag in command.get_arguments().filter_map(clap::Arg::get_long) {
                out.push(format!("`--{flag}"));
            }
            for sub in command.get_subcommands() {
                let path = format!("{path} {}", sub.get_name());
                if !sub.has_subcommands() {
                    out.push(format!("`{path}"));
                }
                names(sub, &path, out);
            }
        }
        let manual = include_str!("../../manual/commands.md");
        let mut wanted = Vec::new();
        names(&Cli::command(), "ringway", &mut wanted);
        assert!(wanted.len() > 30, "{wanted:?}");
        for name in wanted {
            assert!(manual.contains(&name), "control/manual/commands.md lacks {name}");
        }
    }

    #[test]
    fn start_up_flags_become_overrides() {
        let line = "ringway run --workers 2 --cpus 0-1,3 --numa 0 --control-cpu 2 --driver uring \
                    --steering off --spin-us 20 --sandbox off --zero-copy auto --without gso,tun-offload";
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let Command::Run(run) = cli.command else { panic!("{cli:?}") };
        let overrides = run.workers.overrides();
        assert_eq!(overrides.count, Some(WorkerCount::Exactly(2)));
        assert_eq!(overrides.cpus, Some(CpuList::from_iter([0, 1, 3])));
        assert_eq!(overrides.numa, Some(NumaChoice::Nodes(CpuList::from_iter([0]))));
        assert_eq!(overrides.control_cpu, Some(2));
        assert_eq!(overrides.driver, Some(DriverChoice::Uring));
        assert_eq!(overrides.steering, Some(SteeringChoice::Off));
        assert_eq!(overrides.spin_us, Some(SpinChoice::Micros(20)));
        assert_eq!(overrides.sandbox, Some(SandboxChoice::Off));
        assert_eq!(overrides.zero_copy, Some(ZeroCopyChoice::Auto));
        let without = FastPaths::default().and(FastPath::TunOffload).and(FastPath::Gso);
        assert_eq!(overrides.without, Some(without));
        for wrong in [
            "--driver kqueue",
            "--steering on",
            "--spin-us 1001",
            "--sandbox maybe",
            "--zero-copy maybe",
            "--without gros",
        ] {
            let line = format!("ringway wg lab0 {wrong}");
            let error = Cli::try_parse_from(line.split(' ')).unwrap_err().to_string();
            assert!(error.contains(": write "), "{error}");
        }
    }

    #[test]
    fn keepalive_takes_seconds_with_and_without_their_unit() {
        assert_eq!(keepalive("25"), Ok(25));
        assert_eq!(keepalive("2m"), Ok(120));
        assert_eq!(keepalive("0"), Ok(0));
        assert_eq!(keepalive("off"), Ok(0));
        assert!(keepalive("").is_err() && keepalive("70000").is_err());
    }
}
