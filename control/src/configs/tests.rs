use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use super::fake::{Gateway, Memory, SHARED, text};
use super::*;
use crate::events::Kind;
use crate::scratch::Scratch;
use trial::Recovered;

const PUBLIC: &str = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";

struct World {
    folder: Scratch,
    file: PathBuf,
    now: Arc<AtomicI64>,
    gateway: Arc<Gateway>,
    history: Arc<Memory>,
    hub: Hub,
    configs: Arc<Configs>,
}

impl World {
    async fn new(name: &str) -> Self {
        Self::at(Scratch::new(&format!("configs_{name}"))).await
    }

    async fn at(folder: Scratch) -> Self {
        let file = folder.path().join("ringway.toml");
        fs::write(&file, text(&[2])).unwrap();
        let now = Arc::new(AtomicI64::new(1_000_000));
        let gateway = Arc::new(Gateway::new(file.clone()));
        let (history, hub) = (Arc::new(Memory::default()), Hub::default());
        let configs = configs(folder.path(), &file, &now, &gateway, &history, &hub, None);
        configs.note_file().await.unwrap();
        Self { folder, file, now, gateway, history, hub, configs }
    }

    fn restart(&mut self) -> Recovered {
        let now = Timestamp(self.now.load(Ordering::SeqCst));
        let recovered = trial::recover(self.folder.path(), &self.file, now, |_| true).unwrap();
        let trial = match &recovered {
            Recovered::Continues(trial) => Some(trial.clone()),
            Recovered::Nothing | Recovered::RolledBack(_) => None,
        };
        let (folder, file) = (self.folder.path(), &self.file);
        self.configs =
            configs(folder, file, &self.now, &self.gateway, &self.history, &self.hub, trial);
        recovered
    }

    async fn put(&self, text: &str, confirm: Option<u32>) -> Result<Outcome, ConfigError> {
        let tag = self.configs.current().await.unwrap().tag;
        self.configs.put(wanted(text, &tag, confirm)).await
    }

    fn on_disk(&self) -> String {
        fs::read_to_string(&self.file).unwrap()
    }

    fn in_force(&self) -> String {
        self.gateway.has.lock().unwrap().clone()
    }

    fn pass(&self, ms: i64) {
        self.now.fetch_add(ms, Ordering::SeqCst);
    }

    fn has_journal(&self) -> bool {
        self.folder.path().join(trial::FILE_NAME).exists()
    }
}

fn configs(
    folder: &Path,
    file: &Path,
    now: &Arc<AtomicI64>,
    gateway: &Arc<Gateway>,
    history: &Arc<Memory>,
    hub: &Hub,
    trial: Option<Trial>,
) -> Arc<Configs> {
    let now = Arc::clone(now);
    Arc::new(Configs::new(ConfigParts {
        file: file.to_owned(),
        state_dir: folder.to_owned(),
        overrides: Overrides::default(),
        reloader: Arc::clone(gateway) as Arc<dyn Reloader>,
        history: Arc::clone(history) as Arc<dyn History>,
        hub: hub.clone(),
        clock: Arc::new(move || Timestamp(now.load(Ordering::SeqCst))),
        trial,
    }))
}

fn wanted(text: &str, tag: &str, confirm_within_s: Option<u32>) -> Wanted {
    Wanted {
        text: Zeroizing::new(text.to_owned()),
        tag: tag.to_owned(),
        dry_run: false,
        confirm_within_s,
        actor: "user:anna".to_owned(),
    }
}

#[tokio::test]
async fn a_change_reaches_file_gateway_and_history_and_keys_stay_inside() {
    let world = World::new("put").await;
    let mut events = world.hub.listen();
    let shown = world.configs.current().await.unwrap();
    assert!(!shown.text.contains(SHARED) && shown.text.contains(redact::REDACTED));
    // What was shown, with one more peer.
    let added = format!(
        "{}\n[[peer]]\nname = \"new\"\npublic_key = \"{PUBLIC}\"\nallowed_ips = [\"10.9.0.9/32\"]\n",
        shown.text
    );
    let outcome = world.put(&added, None).await.unwrap();
    assert_eq!((outcome.peers_added, outcome.peers_changed, outcome.version), (1, 0, Some(2)));
    assert!(outcome.diff.contains("+name = \"new\"") && !outcome.diff.contains(SHARED));
    assert!(world.on_disk().contains(SHARED), "the masked key is as it was");
    assert_eq!(world.on_disk(), world.in_force());
    assert_eq!(outcome.etag, world.configs.current().await.unwrap().tag);
    let version = world.configs.version(2).await.unwrap();
    assert!(!version.text.contains(SHARED));
    let sealed = seal(&Key::new([7; 32]), &world.on_disk());
    assert_eq!((version.actor.as_str(), version.hash), ("user:anna", sealed));
    assert!(matches!(events.try_next(),
        Some(crate::events::Heard::Event(event)) if event.kind == Kind::ConfigApplied));
}

#[tokio::test]
async fn no_password_of_an_address_and_nothing_to_guess_it_by_is_shown() {
    let world = World::new("password").await;
    let with = |password: &str| {
        let peers = text(&[2]);
        format!("[store]\nurl = \"postgresql://ringway:{password}@db/ringway\"\n\n{peers}")
    };
    fs::write(&world.file, with("hunter2")).unwrap();
    world.configs.note_file().await.unwrap();
    let current = world.configs.current().await.unwrap();
    let version = world.configs.version(2).await.unwrap();
    let effective = world.configs.effective().await.unwrap();
    // The whole file is known but for the password: its hash would tell when a guess is right.
    let telling = hash(&with("hunter2"));
    for shown in [&current.text, &current.tag, &version.text, &version.hash, &effective] {
        assert!(!shown.contains("hunter2") && !shown.contains(&telling[..16]), "{shown}");
    }
    let unparseable = format!("{}broken =\n", with("hunter2"));
    fs::write(&world.file, unparseable).unwrap();
    assert!(!world.configs.current().await.unwrap().text.contains("hunter2"));
    // What was shown may be put back, and the password is as it was.
    fs::write(&world.file, with("hunter2")).unwrap();
    let added = current.text.replace("p2", "renamed");
    let outcome = world.put(&added, None).await.unwrap();
    assert!(!outcome.diff.contains("hunter2"));
    assert_eq!(world.on_disk(), with("hunter2").replace("p2", "renamed"));
    let moved = current.text.replace("@db", "@elsewhere");
    let error = world.put(&moved, None).await.unwrap_err();
    assert!(matches!(error, ConfigError::Invalid(list) if list[0].2.contains("@elsewhere")));
}

#[tokio::test]
async fn a_change_of_something_older_is_refused() {
    let world = World::new("stale").await;
    let tag = world.configs.current().await.unwrap().tag;
    world.put(&text(&[2, 3]), None).await.unwrap();
    let error = world.configs.put(wanted(&text(&[2]), &tag, None)).await.unwrap_err();
    assert!(matches!(error, ConfigError::Stale { .. }));
    // Edited by hand, without a version of its own.
    let tag = world.configs.current().await.unwrap().tag;
    fs::write(&world.file, text(&[2, 3, 4])).unwrap();
    let error = world.configs.put(wanted(&text(&[2]), &tag, None)).await.unwrap_err();
    assert!(matches!(error, ConfigError::Stale { .. }));
    assert_eq!(world.on_disk(), text(&[2, 3, 4]));
}

#[tokio::test]
async fn a_dry_run_says_what_would_change_and_changes_nothing() {
    let world = World::new("dry").await;
    let wider = text(&[2]).replace("51820", "51821");
    let tag = world.configs.current().await.unwrap().tag;
    let run = Wanted { dry_run: true, ..wanted(&wider, &tag, None) };
    let outcome = world.configs.put(run).await.unwrap();
    assert_eq!(outcome.needs_restart.len(), 1);
    assert!(!outcome.applied && outcome.diff.contains("+listen_port = 51821"));
    let error = world.put(&wider, None).await.unwrap_err();
    assert!(matches!(error, ConfigError::NeedsRestart(options) if options.len() == 1));
    assert_eq!(world.on_disk(), text(&[2]));
    assert_eq!(world.history.versions.lock().unwrap().len(), 1);
}

/// A token that may write the configuration would otherwise become any user after a restart.
#[tokio::test]
async fn whom_the_gateway_believes_is_changed_on_the_host_only() {
    let world = World::new("believes").await;
    fs::write(world.folder.path().join("keys.json"), "{\"keys\":[]}").unwrap();
    let issuer = "[[issuer]]\nname = \"evil\"\nissuer = \"https://evil.example\"\n\
                  audience = \"gateway\"\nalgorithms = [\"EdDSA\"]\nkeys = \"keys.json\"\n";
    let others = [
        (issuer, "[issuer] name"),
        ("[sign_in]\ncertificate_authorities = \"keys.json\"\n", "certificate_authorities"),
        ("[sign_in]\nallow = [\"192.0.2.0/24\"]\n", "[sign_in] allow"),
        ("[sign_in]\ngroups_from_credentials = true\n", "groups_from_credentials"),
        ("[store]\nurl = \"sqlite:other.db\"\n", "[store] url"),
        ("[api]\nlisten = [\"127.0.0.1:8443\"]\n", "[api] listen"),
    ];
    for (more, option) in others {
        let text = format!("{}\n{more}", text(&[2, 3]));
        for confirm in [None, Some(60)] {
            let error = world.put(&text, confirm).await.unwrap_err();
            let ConfigError::NeedsRestart(options) = error else { panic!("{more}: {error}") };
            assert!(options.iter().any(|name| name.contains(option)), "{option}: {options:?}");
        }
    }
    assert_eq!(world.on_disk(), text(&[2]));
    assert!(!world.has_journal());
    // Nor by going back to a version that had it.
    let past = format!("{}\n{issuer}", text(&[2]));
    let entry = Entry {
        at: Timestamp(1),
        actor: "user:anna".to_owned(),
        text: past,
        hash: String::new(),
        action: "config.put",
    };
    let version = world.history.append(entry).await.unwrap();
    let error = world.configs.roll_back(Some(version), "user:anna").await.unwrap_err();
    assert!(matches!(error, ConfigError::NeedsRestart(_)), "{error}");
    assert_eq!((world.on_disk(), world.in_force()), (text(&[2]), text(&[2])));
}

#[tokio::test]
async fn a_wrong_text_is_refused_with_its_lines() {
    let world = World::new("wrong").await;
    let wrong = format!("{}[interfac]\nmtu = 1\n", text(&[2]));
    let ConfigError::Invalid(problems) = world.put(&wrong, None).await.unwrap_err() else {
        panic!("it is invalid")
    };
    assert_eq!(problems[0].0, wrong.lines().count() - 1);
    let masked = text(&[2, 3]).replace(SHARED, redact::REDACTED);
    let error = world.put(&masked, None).await.unwrap_err();
    assert!(matches!(error, ConfigError::Invalid(list) if list[0].2.contains("peer p3")));
    assert_eq!(world.on_disk(), text(&[2]));
}

#[tokio::test]
async fn what_fails_on_the_way_leaves_everything_as_it_was() {
    let world = World::new("fails").await;
    for confirm in [None, Some(60)] {
        world.gateway.refuses.store(true, Ordering::SeqCst);
        let error = world.put(&text(&[2, 3]), confirm).await.unwrap_err();
        assert!(matches!(error, ConfigError::Refused(_)));
        world.gateway.refuses.store(false, Ordering::SeqCst);
        world.history.fails.store(true, Ordering::SeqCst);
        let error = world.put(&text(&[2, 3]), confirm).await.unwrap_err();
        assert!(matches!(error, ConfigError::Store(StoreError::Busy { .. })));
        world.history.fails.store(false, Ordering::SeqCst);
        assert_eq!((world.on_disk(), world.in_force()), (text(&[2]), text(&[2])));
        assert!(!world.has_journal());
        assert!(world.configs.current().await.unwrap().on_trial.is_none());
    }
    // And it works afterwards.
    world.put(&text(&[2, 3]), None).await.unwrap();
}

#[tokio::test]
async fn a_trial_that_nobody_confirms_takes_itself_back() {
    let world = World::new("trial").await;
    let outcome = world.put(&text(&[2, 3]), Some(60)).await.unwrap();
    assert_eq!(outcome.confirm_by, Some(Timestamp(1_060_000)));
    assert_eq!(world.in_force(), text(&[2, 3]));
    assert!(matches!(world.put(&text(&[2]), None).await, Err(ConfigError::OnTrial { .. })));
    world.pass(59_999);
    world.configs.expire().await;
    assert_eq!(world.in_force(), text(&[2, 3]), "not yet");
    world.pass(1);
    world.configs.expire().await;
    assert_eq!((world.on_disk(), world.in_force()), (text(&[2]), text(&[2])));
    assert!(!world.has_journal());
    assert_eq!(world.configs.version(3).await.unwrap().actor, "gateway");
    assert_eq!(world.configs.confirm("user:anna").await, Err(ConfigError::NoTrial));
}

#[tokio::test]
async fn the_watch_takes_a_trial_back_by_itself() {
    let world = World::new("watch").await;
    let watch = tokio::spawn(Arc::clone(&world.configs).watch());
    let mut events = world.hub.listen();
    world.put(&text(&[2, 3]), Some(10)).await.unwrap();
    // The clock is past the end when the watch looks for the first time.
    world.pass(10_000);
    while !matches!(events.next().await,
        Some(crate::events::Heard::Event(event)) if event.kind == Kind::ConfigRolledBack)
    {}
    assert_eq!(world.in_force(), text(&[2]));
    watch.abort();
}

/// Waits until something is true, however long it takes: a test that hangs is told so.
async fn until(what: impl Fn() -> bool) {
    while !what() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_trial_is_taken_back_while_the_store_is_down_and_the_history_follows() {
    let world = World::new("down").await;
    world.put(&text(&[2, 3]), Some(10)).await.unwrap();
    let mut events = world.hub.listen();
    world.history.is_down.store(true, Ordering::SeqCst);
    world.pass(10_000);
    let watch = tokio::spawn(Arc::clone(&world.configs).watch());
    while !matches!(events.next().await,
        Some(crate::events::Heard::Event(event)) if event.kind == Kind::ConfigRolledBack)
    {}
    assert_eq!((world.on_disk(), world.in_force()), (text(&[2]), text(&[2])));
    assert!(!world.has_journal());
    // Another try to enter it changes nothing at the gateway.
    for _ in 0..3 {
        assert!(!world.configs.expire().await);
    }
    assert_eq!(world.gateway.told.load(Ordering::SeqCst), 2, "the change, and its taking back");
    assert_eq!(world.history.versions.lock().unwrap().len(), 2);
    world.history.is_down.store(false, Ordering::SeqCst);
    until(|| world.history.versions.lock().unwrap().len() == 3).await;
    watch.abort();
    let entered = world.configs.version(3).await.unwrap();
    assert_eq!((entered.actor.as_str(), entered.at), ("gateway", Timestamp(1_010_000)));
    assert_eq!(world.configs.roll_back(None, "a").await, Err(ConfigError::NoTrial));
}

#[tokio::test]
async fn a_change_enters_the_roll_back_before_itself_or_is_refused() {
    let world = World::new("owed").await;
    world.put(&text(&[2, 3]), Some(10)).await.unwrap();
    world.history.is_down.store(true, Ordering::SeqCst);
    let outcome = world.configs.roll_back(None, "user:anna").await.unwrap();
    assert_eq!((outcome.applied, outcome.version, outcome.etag.as_str()), (true, None, ""));
    let refused = world.configs.put(wanted(&text(&[2, 4]), "*", None)).await.unwrap_err();
    assert!(matches!(refused, ConfigError::Store(_)), "{refused}");
    assert_eq!((world.on_disk(), world.in_force()), (text(&[2]), text(&[2])));
    world.history.is_down.store(false, Ordering::SeqCst);
    world.put(&text(&[2, 4]), None).await.unwrap();
    let versions = world.history.versions.lock().unwrap();
    let peers: Vec<usize> =
        versions.iter().map(|version| version.text.matches("[[peer]]").count()).collect();
    assert_eq!(peers, [1, 2, 1, 2]);
}

#[tokio::test]
async fn a_gateway_that_does_not_take_its_former_configuration_is_asked_again_and_the_file_stays() {
    let world = World::new("refuses").await;
    world.put(&text(&[2, 3]), Some(10)).await.unwrap();
    world.pass(10_000);
    world.gateway.refuses.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        assert!(!world.configs.expire().await);
        assert_eq!((world.on_disk(), world.in_force()), (text(&[2]), text(&[2, 3])));
        assert!(world.configs.current().await.unwrap().on_trial.is_some());
    }
    // A restart has it from the file.
    let now = Timestamp(world.now.load(Ordering::SeqCst));
    let journal = fs::read(world.folder.path().join(trial::FILE_NAME)).unwrap();
    let recovered = trial::recover(world.folder.path(), &world.file, now, |_| true).unwrap();
    assert!(matches!(recovered, Recovered::Nothing));
    assert_eq!(world.on_disk(), text(&[2]));
    fs::write(world.folder.path().join(trial::FILE_NAME), journal).unwrap();
    world.gateway.refuses.store(false, Ordering::SeqCst);
    assert!(world.configs.expire().await);
    assert_eq!(world.in_force(), text(&[2]));
    assert!(!world.has_journal());
    assert_eq!(world.history.versions.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn an_edit_by_hand_during_a_trial_is_not_written_over() {
    for asked in [false, true] {
        let world = World::new(&format!("edited{asked}")).await;
        world.put(&text(&[2, 3]), Some(10)).await.unwrap();
        let mut events = world.hub.listen();
        fs::write(&world.file, text(&[2, 5])).unwrap();
        if asked {
            let refused = world.configs.roll_back(None, "user:anna").await;
            assert_eq!(refused, Err(ConfigError::Edited));
        } else {
            world.pass(10_000);
            assert!(world.configs.expire().await, "there is nothing to try again");
        }
        assert_eq!(world.on_disk(), text(&[2, 5]));
        assert!(!world.has_journal());
        assert!(world.configs.current().await.unwrap().on_trial.is_none());
        assert!(matches!(events.try_next(),
            Some(crate::events::Heard::Event(event)) if event.kind == Kind::Warning));
    }
}

#[tokio::test]
async fn a_confirmed_trial_stays() {
    let world = World::new("confirm").await;
    world.put(&text(&[2, 3]), Some(60)).await.unwrap();
    let current = world.configs.confirm("user:anna").await.unwrap();
    assert_eq!(current.on_trial, None);
    world.pass(900_000);
    world.configs.expire().await;
    assert_eq!(world.in_force(), text(&[2, 3]));
    assert!(!world.has_journal());
}

#[tokio::test]
async fn a_trial_survives_a_crash_and_is_taken_back_by_the_next_start_or_the_next_watch() {
    let mut world = World::new("crash").await;
    world.put(&text(&[2, 3]), Some(60)).await.unwrap();
    world.pass(10_000);
    assert!(matches!(world.restart(), Recovered::Continues(_)));
    assert!(world.configs.current().await.unwrap().on_trial.is_some());
    world.pass(50_000);
    world.configs.expire().await;
    assert_eq!(world.in_force(), text(&[2]));
    world.put(&text(&[2, 3]), Some(60)).await.unwrap();
    world.pass(60_000);
    assert!(matches!(world.restart(), Recovered::RolledBack(_)));
    assert_eq!(world.on_disk(), text(&[2]));
}

#[tokio::test]
async fn one_goes_back_at_once_or_to_a_version() {
    let world = World::new("back").await;
    assert_eq!(world.configs.roll_back(None, "a").await, Err(ConfigError::NoTrial));
    assert_eq!(world.configs.roll_back(Some(9), "a").await, Err(ConfigError::NoVersion(9)));
    world.put(&text(&[2, 3]), Some(60)).await.unwrap();
    let outcome = world.configs.roll_back(None, "user:anna").await.unwrap();
    assert_eq!((outcome.version, outcome.peers_removed), (Some(3), 1));
    world.put(&text(&[2, 4]), None).await.unwrap();
    let outcome = world.configs.roll_back(Some(1), "user:anna").await.unwrap();
    assert_eq!(outcome.version, Some(5));
    assert_eq!(world.on_disk(), text(&[2]), "with the key that the history does not have");
    // Version 2 had a peer whose key is kept nowhere any more.
    let error = world.configs.roll_back(Some(2), "user:anna").await.unwrap_err();
    assert!(matches!(error, ConfigError::Invalid(list) if list[0].2.contains("p3")));
}

#[tokio::test]
async fn what_was_changed_on_the_host_is_in_the_history_before_it_is_replaced() {
    let world = World::new("found").await;
    world.put(&text(&[2, 3]), None).await.unwrap();
    // As by hand and a reload, or by a command on the host.
    let by_hand = text(&[2, 3, 4]);
    fs::write(&world.file, &by_hand).unwrap();
    world.gateway.reload().await.unwrap();
    world.configs.roll_back(Some(1), "user:anna").await.unwrap();
    assert_eq!(world.in_force(), text(&[2]));
    let versions = world.history.versions.lock().unwrap().clone();
    let actors: Vec<&str> = versions.iter().map(|version| version.actor.as_str()).collect();
    assert_eq!(actors, ["gateway", "user:anna", "gateway", "user:anna"]);
    assert_eq!(versions[2].text, redact::redact(&by_hand));
    // Nothing twice, and nothing for what is only tried.
    let run = Wanted { dry_run: true, ..wanted(&text(&[5]), "*", None) };
    world.configs.put(run).await.unwrap();
    world.put(&text(&[2, 5]), None).await.unwrap();
    assert_eq!(world.history.versions.lock().unwrap().len(), 5);
    // While the store is away nothing is replaced that it does not have.
    fs::write(&world.file, text(&[6])).unwrap();
    world.history.fails.store(true, Ordering::SeqCst);
    let tag = world.configs.current().await.unwrap().tag;
    world.configs.put(wanted(&text(&[7]), &tag, None)).await.unwrap_err();
    assert_eq!(world.on_disk(), text(&[6]));
}

#[tokio::test]
async fn of_many_changes_at_once_from_the_same_version_one_wins() {
    let world = World::new("race").await;
    let tag = world.configs.current().await.unwrap().tag;
    let tasks: Vec<_> = (3..11)
        .map(|number| {
            let (configs, tag) = (Arc::clone(&world.configs), tag.clone());
            tokio::spawn(async move { configs.put(wanted(&text(&[2, number]), &tag, None)).await })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => won += 1,
            Err(error) => assert!(matches!(error, ConfigError::Stale { .. }), "{error}"),
        }
    }
    assert_eq!(won, 1);
    assert_eq!(world.on_disk(), world.in_force());
}

#[tokio::test]
async fn a_file_changed_by_hand_is_noted_once_at_the_start() {
    let world = World::new("hand").await;
    fs::write(&world.file, text(&[2, 5])).unwrap();
    world.configs.note_file().await.unwrap();
    world.configs.note_file().await.unwrap();
    assert_eq!(world.history.versions.lock().unwrap().len(), 2);
}

/// On a file system of 64 KiB in a mount namespace of the test's own thread.
#[test]
fn privileged_a_full_disk_refuses_a_change_and_leaves_the_old_file_whole() {
    let test = || {
        let folder = Scratch::new("configs_full");
        let own = nix::sched::CloneFlags::CLONE_NEWNS | nix::sched::CloneFlags::CLONE_FS;
        nix::sched::unshare(own).expect("this needs root");
        let mount = |arguments: &[&str]| {
            let done = std::process::Command::new("mount").args(arguments).status().unwrap();
            assert!(done.success(), "mount {arguments:?}");
        };
        mount(&["--make-rprivate", "/"]);
        mount(&["-t", "tmpfs", "-o", "size=64k", "tmpfs", folder.path().to_str().unwrap()]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::at(folder).await;
            let filler = world.folder.path().join("filler");
            // Whatever fits: the write ends where the room does.
            fs::write(&filler, vec![0; 128 << 10]).unwrap_err();
            for confirm in [None, Some(60)] {
                let error = world.put(&text(&[2, 3]), confirm).await.unwrap_err();
                assert!(matches!(error, ConfigError::Full(_)), "{error}");
                assert_eq!((world.on_disk(), world.in_force()), (text(&[2]), text(&[2])));
                assert!(!world.has_journal());
            }
            fs::remove_file(&filler).unwrap();
            world.put(&text(&[2, 3]), Some(60)).await.unwrap();
            assert_eq!(world.on_disk(), text(&[2, 3]));
        });
    };
    // A thread that goes: others must not find themselves in its namespace.
    let done = std::thread::spawn(test).join();
    // While it was mounted the folder could not be removed.
    drop(Scratch::new("configs_full"));
    done.unwrap();
}
