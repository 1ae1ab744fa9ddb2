//! A change on trial, and the journal by which it is taken back after a crash.
//!
//! The journal holds the text before the change and is on the disk before the file changes. At the
//! next start it decides, before the configuration is read: time over, a file that does not load,
//! or too many starts in a row (it may be the change that kills the gateway) bring the old text
//! back. A journal whose change never reached the file, or whose file somebody edited since, is
//! void. Time is an argument.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use super::{TrialView, hash};
use crate::failure::Failure;
use crate::keys;
use crate::peers::file::Locked;
use crate::store::ids::Timestamp;

/// Name of the journal in the state folder.
pub const FILE_NAME: &str = "config-trial.json";

/// Starts that a trial survives. An operator restarts once or twice; a gateway that dies of its
/// configuration is started again and again.
const STARTS_MAX: u32 = 3;

/// A change on trial, as the journal has it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// When it began.
    pub started_at: Timestamp,
    /// When it is taken back.
    pub deadline: Timestamp,
    /// Who made it.
    pub actor: String,
    /// SHA-256 of the text on trial.
    pub new_hash: String,
    /// The text before, with its secrets.
    pub previous: String,
    /// Starts since it began.
    pub starts: u32,
}

impl std::fmt::Debug for Trial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Trial until {} by {}", self.deadline, self.actor)
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.previous.zeroize();
    }
}

/// What the journal said at the start.
#[derive(Debug)]
pub enum Recovered {
    /// Nothing is on trial.
    Nothing,
    /// The trial goes on.
    Continues(Trial),
    /// The text before is in force again; the sentence says why.
    RolledBack(String),
}

impl Trial {
    /// As it is shown.
    #[must_use]
    pub fn view(&self) -> TrialView {
        TrialView { until: self.deadline, actor: self.actor.clone() }
    }

    /// Why it must be taken back at a start at `now`; none if it may go on. `loads` says whether
    /// the file on trial can be used at all.
    #[must_use]
    pub fn verdict(&self, now: Timestamp, loads: bool) -> Option<&'static str> {
        if now >= self.deadline {
            return Some("nobody confirmed it in time");
        }
        if now < self.started_at {
            return Some("the clock went back, so the time for confirming it is unknown");
        }
        if !loads {
            return Some("the gateway cannot start with it");
        }
        (self.starts >= STARTS_MAX).then_some("the gateway was started again too often with it")
    }

    /// Writes the journal, durably.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn save(&self, state_dir: &Path) -> io::Result<()> {
        let path = path(state_dir);
        let text = Zeroizing::new(serde_json::to_vec(self)?);
        let aside = keys::aside(&path);
        let placed = keys::write_aside(&aside, &text).and_then(|()| fs::rename(&aside, &path));
        if placed.is_err() {
            let _ = fs::remove_file(&aside);
        }
        placed?;
        keys::sync_folder(&path)
    }

    /// Removes the journal, durably.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn forget(state_dir: &Path) -> io::Result<()> {
        let path = path(state_dir);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => (),
        }
        keys::sync_folder(&path)
    }
}

/// Decides about a trial that a process before this one began. Call it before the configuration is
/// read.
///
/// # Errors
/// Files that cannot be read or written: the start must not go on with a change that should be
/// taken back.
pub fn recover(
    state_dir: &Path,
    config: &Path,
    now: Timestamp,
    loads: impl FnOnce(&str) -> bool,
) -> Result<Recovered, Failure> {
    let journal = path(state_dir);
    let text = match fs::read(&journal) {
        Ok(text) => Zeroizing::new(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Recovered::Nothing),
        Err(error) => {
            return Err(Failure::file("read the journal of the trial", &journal, &error));
        }
    };
    let forget = || {
        Trial::forget(state_dir)
            .map_err(|error| Failure::file("remove the journal of the trial", &journal, &error))
    };
    let Ok(mut trial) = serde_json::from_slice::<Trial>(&text) else {
        // It is replaced whole, so this is no crash of ours. Kept for whoever wants to look.
        let aside = journal.with_extension("damaged");
        fs::rename(&journal, &aside)
            .map_err(|error| Failure::file("move the damaged journal to", &aside, &error))?;
        tracing::warn!(file = %aside.display(), "The journal of the trial is damaged");
        return Ok(Recovered::Nothing);
    };
    let file = Locked::open(config)?;
    if hash(file.text()) != trial.new_hash {
        forget()?;
        return Ok(Recovered::Nothing);
    }
    if let Some(why) = trial.verdict(now, loads(file.text())) {
        file.replace(&trial.previous)?;
        forget()?;
        let by = &trial.actor;
        let said = format!("The configuration of {by} on trial was taken back: {why}");
        return Ok(Recovered::RolledBack(said));
    }
    trial.starts += 1;
    trial
        .save(state_dir)
        .map_err(|error| Failure::file("write the journal of the trial", &journal, &error))?;
    Ok(Recovered::Continues(trial))
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE_NAME)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    struct Case {
        folder: Scratch,
        config: PathBuf,
    }

    impl Case {
        fn new(name: &str, on_disk: &str) -> Self {
            let folder = Scratch::new(name);
            let config = folder.path().join("ringway.toml");
            fs::write(&config, on_disk).unwrap();
            let trial = Trial {
                started_at: Timestamp(1000),
                deadline: Timestamp(61_000),
                actor: "user:anna".to_owned(),
                new_hash: hash("new"),
                previous: "old".to_owned(),
                starts: 0,
            };
            trial.save(folder.path()).unwrap();
            Self { folder, config }
        }

        fn start(&self, now: i64, loads: bool) -> Recovered {
            recover(self.folder.path(), &self.config, Timestamp(now), |text| {
                assert_eq!(text, "new");
                loads
            })
            .unwrap()
        }

        fn text(&self) -> String {
            fs::read_to_string(&self.config).unwrap()
        }

        fn has_journal(&self) -> bool {
            path(self.folder.path()).exists()
        }
    }

    #[test]
    fn a_restart_within_the_time_goes_on_with_the_trial() {
        let case = Case::new("trial_on", "new");
        assert!(matches!(case.start(2000, true), Recovered::Continues(trial) if trial.starts == 1));
        assert_eq!(case.text(), "new");
        assert!(case.has_journal());
    }

    #[test]
    fn whatever_speaks_against_it_brings_the_old_text_back_once() {
        for (at, (now, loads)) in
            [(61_000, true), (900_000, true), (999, true), (2000, false)].into_iter().enumerate()
        {
            let case = Case::new(&format!("trial_back{at}"), "new");
            assert!(matches!(case.start(now, loads), Recovered::RolledBack(_)), "{now} {loads}");
            assert_eq!(case.text(), "old");
            assert!(!case.has_journal());
            assert!(matches!(case.start(now, loads), Recovered::Nothing));
        }
    }

    #[test]
    fn a_gateway_that_is_started_again_and_again_gets_its_old_text_back() {
        let case = Case::new("trial_loop", "new");
        for _ in 0..STARTS_MAX {
            assert!(matches!(case.start(2000, true), Recovered::Continues(_)));
        }
        assert!(matches!(case.start(2000, true), Recovered::RolledBack(_)));
        assert_eq!(case.text(), "old");
    }

    #[test]
    fn a_change_that_never_reached_the_file_or_was_edited_over_is_left_alone() {
        for text in ["old", "edited"] {
            let case = Case::new(&format!("trial_void_{text}"), text);
            assert!(matches!(case.start(900_000, true), Recovered::Nothing));
            assert_eq!(case.text(), text);
            assert!(!case.has_journal());
        }
    }

    #[test]
    fn a_damaged_journal_is_put_aside_and_changes_nothing() {
        let case = Case::new("trial_damaged", "new");
        fs::write(path(case.folder.path()), "{\"started").unwrap();
        assert!(matches!(case.start(900_000, true), Recovered::Nothing));
        assert_eq!(case.text(), "new");
        assert!(!case.has_journal());
    }

    #[test]
    fn the_journal_is_for_its_owner_only_and_says_no_secret_in_the_log() {
        use std::os::unix::fs::PermissionsExt as _;
        let case = Case::new("trial_mode", "new");
        let mode = fs::metadata(path(case.folder.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let Recovered::Continues(trial) = case.start(2000, true) else { panic!("it goes on") };
        assert!(!format!("{trial:?}").contains("old"));
    }
}
