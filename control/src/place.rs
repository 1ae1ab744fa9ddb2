//! Where the gateway keeps its things, and how it starts on safe defaults.
//!
//! One folder holds key, configuration and journal: `--state-dir`, else `$STATE_DIRECTORY`
//! (systemd), else `/var/lib/ringway`. Without `--config` the configuration is `ringway.toml` in
//! that folder and is made on the first start. Everything that was made is said, with how to go on.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ringway_proto::crypto::{PrivateKey, Random};

use crate::config::{Config, Overrides};
use crate::configs::trial::{self, Recovered, Trial};
use crate::exit::sysctl::Sysctls;
use crate::failure::{Failure, Status};
use crate::keys;
use crate::store::records::Timestamp;

/// State folder if nobody says otherwise.
const STATE_DIR: &str = "/var/lib/ringway";

/// Name of the configuration in the state folder.
const CONFIG_NAME: &str = "ringway.toml";

/// The folder and the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Key, default configuration and journal.
    pub state_dir: PathBuf,
    /// The configuration.
    pub config: PathBuf,
    /// Whether the operator named the configuration; it is then never made.
    pub config_given: bool,
}

/// Everything that is known before the gateway starts.
#[derive(Debug)]
pub struct Prepared {
    /// Where things are.
    pub places: Places,
    /// What the file and the flags say.
    pub config: Config,
    /// The gateway's key.
    pub private: PrivateKey,
    /// What was made and what to look at, for the operator, line by line.
    pub said: Vec<String>,
    /// The command line, which goes before the file.
    pub overrides: Overrides,
    /// A change of the configuration that waits to be confirmed.
    pub trial: Option<Trial>,
}

impl Places {
    /// Decides where things are. `state_directory` is the value of `$STATE_DIRECTORY`, which may
    /// name several folders separated by colons; the first counts.
    #[must_use]
    pub fn find(
        config: Option<PathBuf>,
        state_dir: Option<PathBuf>,
        state_directory: Option<OsString>,
    ) -> Self {
        let from_systemd = || {
            let text = state_directory?.into_string().ok()?;
            let first = text.split(':').next().unwrap_or_default();
            (!first.is_empty()).then(|| PathBuf::from(first))
        };
        let state_dir = state_dir.or_else(from_systemd).unwrap_or_else(|| STATE_DIR.into());
        let config_given = config.is_some();
        let config = config.unwrap_or_else(|| state_dir.join(CONFIG_NAME));
        Self { state_dir, config, config_given }
    }

    /// Reads the configuration; nothing is made.
    ///
    /// # Errors
    /// A file that is missing, unreadable or wrong.
    pub fn load(&self, overrides: &Overrides) -> Result<Config, Failure> {
        if !self.config_given && !self.config.exists() {
            let message = format!(
                "There is no configuration at {}: \"ringway run\" makes one, or name yours with \
                 --config",
                self.config.display()
            );
            return Err(Failure::new(Status::State, message));
        }
        Config::load(&self.config, overrides)
    }

    /// Makes what is missing (folder, configuration, key) and reads it all.
    ///
    /// # Errors
    /// A configuration or key that is wrong, a folder that cannot be written. What was made by then
    /// stays: it is complete in itself and the next start uses it.
    pub fn prepare(
        self,
        overrides: Overrides,
        random: &mut dyn Random,
    ) -> Result<Prepared, Failure> {
        let mut said = Vec::new();
        if make_folder(&self.state_dir)? {
            said.push(format!("Made the state folder {}", self.state_dir.display()));
        }
        if !self.config_given && !self.config.exists() {
            let ipv6 = Sysctls::default().has_ipv6();
            write_new(&self.config, &first_configuration(random, ipv6))?;
            let without = if ipv6 { "" } else { " without IPv6, which is switched off here" };
            said.push(format!("Made the configuration {}{without}", self.config.display()));
        }
        let trial = self.judge_trial(&overrides, &mut said)?;
        let config = Config::load(&self.config, &overrides)?;
        let key_path = &config.interface.private_key_file;
        let key = keys::load_or_make_private(key_path, random)?;
        if key.made {
            said.push(format!("Made the private key {}", key_path.display()));
        }
        if key.exposed {
            let path = key_path.display();
            said.push(format!("warning: others may read {path}: chmod 600 {path}"));
        }
        said.extend(config.show_warnings(&self.config.display().to_string()));
        let public = key.private.public();
        if config.peers.iter().any(|peer| peer.public == public) {
            let message = format!(
                "{}: a peer has the gateway's own public key {}: give the peer its own",
                self.config.display(),
                keys::show_public(&public)
            );
            return Err(Failure::new(Status::Config, message));
        }
        if config.peers.is_empty() {
            said.push(format!("No peers yet: {}", self.how_to_add_a_peer()));
        }
        Ok(Prepared { places: self, config, private: key.private, said, overrides, trial })
    }

    /// A change of the configuration that nobody has confirmed yet goes on, or is taken back before
    /// it is read.
    fn judge_trial(
        &self,
        overrides: &Overrides,
        said: &mut Vec<String>,
    ) -> Result<Option<Trial>, Failure> {
        let since_epoch = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let now = Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX));
        let loads = |_: &str| Config::load(&self.config, overrides).is_ok();
        Ok(match trial::recover(&self.state_dir, &self.config, now, loads)? {
            Recovered::Nothing => None,
            Recovered::RolledBack(what) => {
                said.push(what);
                None
            }
            Recovered::Continues(trial) => Some(trial),
        })
    }

    /// The command that adds the first peer to this gateway.
    fn how_to_add_a_peer(&self) -> String {
        let option = if self.config_given {
            format!(" --config {}", self.config.display())
        } else if self.state_dir != Path::new(STATE_DIR) {
            format!(" --state-dir {}", self.state_dir.display())
        } else {
            String::new()
        };
        format!("ringway peer add NAME --endpoint HOST:PORT{option}")
    }
}

impl Prepared {
    /// Reads the same file under the same flags again.
    ///
    /// # Errors
    /// A file that cannot be read or is wrong. What runs goes on with what it has.
    pub fn reload(&self) -> Result<Config, Failure> {
        Config::load(&self.places.config, &self.overrides)
    }
}

/// Makes the folder, for its owner only, if it is missing; says whether it did.
fn make_folder(path: &Path) -> Result<bool, Failure> {
    if path.is_dir() {
        return Ok(false);
    }
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map(|()| true).map_err(|error| Failure::file("make the state folder", path, &error))
}

fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    match keys::write_new_secret(path, text.as_bytes()) {
        // Another process made it in the meantime: that one counts.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(Failure::file("write the configuration", path, &error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The configuration of a first start: the defaults, and where the host has IPv6 a unique local
/// prefix (RFC 4193) of this gateway's own, so that networks can be joined later.
fn first_configuration(random: &mut dyn Random, ipv6: bool) -> String {
    let head = "# Ringway. \"ringway check\" explains every option,\n\
                # \"ringway peer add NAME\" adds a client.\n\n[interface]\n";
    if !ipv6 {
        return format!("{head}# Inner addresses of clients.\npools = [\"10.77.0.0/24\"]\n");
    }
    let mut global_id = [0; 5];
    random.fill(&mut global_id);
    let [a, b, c, d, e] = global_id;
    let prefix = format!("fd{a:02x}:{b:02x}{c:02x}:{d:02x}{e:02x}::/64");
    format!(
        "{head}# Inner addresses of clients. The IPv6 prefix was drawn at random.\n\
         pools = [\"10.77.0.0/24\", \"{prefix}\"]\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::SystemRandom;
    use crate::scratch::Scratch;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn flags_win_over_systemd_and_systemd_over_the_default() {
        let places = Places::find(None, None, None);
        assert_eq!(places.config, Path::new("/var/lib/ringway/ringway.toml"));
        let places = Places::find(None, None, Some("/a:/b".into()));
        assert_eq!(places.config, Path::new("/a/ringway.toml"));
        let places = Places::find(Some("/x.toml".into()), Some("/c".into()), Some("/a".into()));
        assert_eq!((places.state_dir, places.config), ("/c".into(), "/x.toml".into()));
    }

    #[test]
    fn the_first_start_makes_everything_and_the_second_nothing() {
        let folder = Scratch::new("first_start");
        let state = folder.path().join("state");
        let places = Places::find(None, Some(state.clone()), None);
        let first = places.clone().prepare(Overrides::default(), &mut SystemRandom).unwrap();
        assert_eq!(first.said.len(), 4, "{:?}", first.said);
        assert!(first.said[3].contains("ringway peer add"), "{:?}", first.said);
        assert_eq!(fs::metadata(&state).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(&places.config).unwrap().mode() & 0o777, 0o600);
        let second = places.prepare(Overrides::default(), &mut SystemRandom).unwrap();
        assert_eq!(second.said.len(), 1, "{:?}", second.said);
        assert_eq!(first.private.public(), second.private.public());
        assert_eq!(first.config.interface, second.config.interface);
        assert!(second.reload().unwrap().peers.is_empty());
    }

    #[test]
    fn a_first_configuration_is_valid_with_and_without_ipv6() {
        for ipv6 in [false, true] {
            let text = first_configuration(&mut SystemRandom, ipv6);
            let config = Config::parse(&text, "t", Path::new("/"), &Overrides::default()).unwrap();
            assert_eq!(config.interface.pool6.is_some(), ipv6);
            assert!(config.interface.pool4.is_some() && config.warnings.is_empty());
        }
    }

    #[test]
    fn a_configuration_that_was_named_is_never_made() {
        let folder = Scratch::new("named");
        let path = folder.path().join("x.toml");
        let state = folder.path().join("state");
        let places = Places::find(Some(path.clone()), Some(state), None);
        let failure = places.prepare(Overrides::default(), &mut SystemRandom).unwrap_err();
        assert_eq!(failure.status, Status::State);
        assert!(failure.message.contains("x.toml"), "{failure}");
        assert!(!path.exists());
    }

    #[test]
    fn a_peer_with_the_gateways_own_key_is_refused() {
        let folder = Scratch::new("own_key");
        let path = folder.path().join("x.toml");
        let key = folder.path().join("private.key");
        let own = keys::load_or_make_private(&key, &mut SystemRandom).unwrap();
        let public = keys::show_public(&own.private.public());
        fs::write(&path, format!("[[peer]]\npublic_key = \"{public}\"\n")).unwrap();
        let places = Places::find(Some(path), Some(folder.path().to_owned()), None);
        let failure = places.prepare(Overrides::default(), &mut SystemRandom).unwrap_err();
        assert!(failure.message.contains("own public key"), "{failure}");
    }
}
