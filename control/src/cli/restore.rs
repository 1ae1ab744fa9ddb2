//! `ringway restore`: goes back to a backup of the records while no gateway runs.
//!
//! It works on files of this host and needs no API. What a store is and how one takes the place of
//! another is the store's business (`store/backup.rs`); here is which file it is, and what is said.

use std::path::PathBuf;

use super::args::RestoreArgs;
use super::say;
use crate::config::{Config, Overrides, StoreChoice};
use crate::failure::{Failure, Status};
use crate::place::Places;
use crate::store::{StoreError, backup};

/// Does it.
pub(super) fn run(args: RestoreArgs) -> Result<Status, Failure> {
    let store = store_of(&args.place.places())?;
    let (from, to) = (args.path.display(), store.display());
    let what = format!(
        "{from} takes the place of {to}: users, devices, tokens and quotas are those of the backup \
         then"
    );
    args.sure.confirm(&what)?;
    let kept = backup::restore(&args.path, &store).map_err(failed)?;
    say(&format!("The records of {from} are in {to}"));
    match kept {
        Some(kept) => say(&format!("What was there before is kept as {}", kept.display())),
        None => say("Nothing was there before"),
    }
    say("They hold from the next start on (\"ringway run\", or your system's service)");
    Ok(Status::Done)
}

/// The file that the gateway of this configuration has its records in.
fn store_of(places: &Places) -> Result<PathBuf, Failure> {
    // A host that takes the place of one that was lost need not have a configuration yet.
    let config = if places.config_given || places.config.exists() {
        places.load(&Overrides::default())?
    } else {
        Config::parse("", "defaults", &places.state_dir, &Overrides::default())?
    };
    let refused = |why: &str| {
        let message = format!("{}: {why}", places.config.display());
        Err(Failure::new(Status::Config, message))
    };
    match config.store {
        StoreChoice::Sqlite(file) => Ok(places.state_dir.join(file)),
        StoreChoice::Off => refused("[store] url is \"off\": this gateway keeps no records"),
        StoreChoice::Postgresql(_) => refused(
            "the records are on a PostgreSQL server: restore them there, with pg_restore or psql",
        ),
    }
}

fn failed(error: StoreError) -> Failure {
    let status =
        if matches!(error, StoreError::Busy { .. }) { Status::Conflict } else { Status::State };
    let shown = error.to_string();
    // These sentences begin with a running store; here they are about files.
    let why = if let StoreError::Unavailable { why }
    | StoreError::Invalid { why }
    | StoreError::Busy { why } = error
    {
        why
    } else {
        shown
    };
    Failure::new(status, format!("{why}. Nothing was changed"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::cli::obey;
    use crate::failure::Status;
    use crate::scratch::Scratch;
    use crate::store::{Store, StoreOptions, StoreUrl};

    fn made(path: &std::path::Path) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let url = StoreUrl::file(path).unwrap();
            Store::open(&url, &StoreOptions::default()).await.unwrap().close().await;
        });
    }

    fn refused(line: &str, status: Status, words: &[&str]) {
        let failure = obey(line).unwrap_err();
        assert_eq!(failure.status, status, "{failure}");
        for word in words {
            assert!(failure.message.contains(word), "{failure} lacks {word}");
        }
    }

    #[test]
    fn a_backup_is_put_where_the_configuration_says() {
        let folder = Scratch::new("restore");
        let (state, backup) = (folder.path().join("state"), folder.path().join("backup.db"));
        fs::create_dir(&state).unwrap();
        made(&backup);
        let (state_dir, from) = (state.display(), backup.display());
        // No configuration: as the first start would have it.
        let line = format!("ringway restore {from} --state-dir {state_dir}");
        refused(&line, Status::Usage, &["--yes", "takes the place of"]);
        assert!(fs::read_dir(&state).unwrap().next().is_none());
        assert_eq!(obey(&format!("{line} --yes")), Ok(Status::Done));
        assert!(state.join("ringway.db").exists());

        let config = state.join("ringway.toml");
        fs::write(&config, "[store]\nurl = \"sqlite:other.db\"\n").unwrap();
        assert_eq!(obey(&format!("{line} --yes")), Ok(Status::Done));
        assert_eq!(obey(&format!("{line} --yes")), Ok(Status::Done));
        assert!(state.join("other.db").exists() && state.join("other.db.replaced").exists());
        assert!(!state.join("ringway.db.replaced").exists());

        fs::write(&backup, "no backup").unwrap();
        refused(&format!("{line} --yes"), Status::State, &["backup.db", "Nothing was changed"]);
        fs::remove_file(&backup).unwrap();
        refused(&format!("{line} --yes"), Status::State, &["backup.db", "Nothing was changed"]);
    }

    #[test]
    fn records_that_are_elsewhere_are_restored_elsewhere() {
        let folder = Scratch::new("restore-elsewhere");
        let config = folder.path().join("ringway.toml");
        let line = format!("ringway restore a.db --yes -c {}", config.display());
        for (url, word) in [("off", "keeps no records"), ("postgresql://u@h/d", "pg_restore")] {
            fs::write(&config, format!("[store]\nurl = \"{url}\"\n")).unwrap();
            refused(&line, Status::Config, &[word]);
        }
    }
}
