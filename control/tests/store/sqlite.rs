//! What only a file can suffer: rights, damage, a full disk, a killed writer; and backups of it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ringway_control::store::query::UserFilter;
use ringway_control::store::records::UserSecrets;
use ringway_control::store::{Page, Store, StoreError, StoreOptions, StoreUrl, backup};

use crate::made;
use crate::server::{fresh, scratch};
use crate::world::{World, options};

/// Tells the child of a test which store to write to.
const CHILD: &str = "RINGWAY_STORE_TEST_CHILD";

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn beside(path: &Path, end: &str) -> PathBuf {
    PathBuf::from(format!("{}{end}", path.display()))
}

fn add(world: &World, name: &str) {
    let user = made::user(name);
    world.write(move |db| db.insert_user(&user, &UserSecrets::default()));
}

fn folder() -> PathBuf {
    let folder = scratch().join(fresh("folder"));
    fs::create_dir(&folder).unwrap();
    folder
}

/// A store with some users, closed.
fn filled() -> PathBuf {
    let world = World::sqlite();
    for name in 0..200 {
        add(&world, &format!("u{name}"));
    }
    let (path, copy) = (world.file().unwrap(), folder().join("store.db"));
    // A backup is one file, whether or not the threads of the store have ended.
    world.wait(world.store().backup(&copy, false)).unwrap();
    assert!(path.exists());
    copy
}

fn open(path: &Path) -> Result<World, StoreError> {
    let world = World::at(&format!("sqlite:{}", path.display()));
    world.open().map(|_| world)
}

fn names(world: &World) -> Vec<String> {
    let users = world.read(|db| db.users(&UserFilter::default(), &Page::first()));
    users.items.into_iter().map(|user| user.name).collect()
}

#[test]
fn the_file_and_its_log_are_for_the_owner_only() {
    let world = World::sqlite();
    add(&world, "ada");
    let path = world.file().unwrap();
    for end in ["", "-wal", "-shm"] {
        assert_eq!(mode(&beside(&path, end)), 0o600, "{end}");
    }
    let loose = filled();
    fs::set_permissions(&loose, fs::Permissions::from_mode(0o666)).unwrap();
    open(&loose).unwrap();
    assert_eq!(mode(&loose), 0o600);
}

#[test]
fn links_and_folders_that_others_may_write_to_are_refused() {
    let target = filled();
    let link = folder().join("link.db");
    symlink(&target, &link).unwrap();
    let refused = open(&link).err().unwrap();
    assert!(matches!(&refused, StoreError::Invalid { why } if why.contains("link")), "{refused}");
    let dangling = folder().join("dangling.db");
    symlink("nowhere.db", &dangling).unwrap();
    assert!(open(&dangling).is_err());

    let open_to_all = folder();
    fs::set_permissions(&open_to_all, fs::Permissions::from_mode(0o777)).unwrap();
    let refused = open(&open_to_all.join("store.db")).err().unwrap();
    assert!(matches!(&refused, StoreError::Invalid { why } if why.contains("chmod")), "{refused}");
    let missing = open(&scratch().join("no/such/store.db")).err().unwrap();
    assert!(matches!(missing, StoreError::Unavailable { .. }), "{missing}");
    let refused = open(&folder()).err().unwrap();
    assert!(
        matches!(&refused, StoreError::Invalid { why } if why.contains("no file")),
        "{refused}"
    );
}

#[test]
fn damaged_files_are_told_apart_and_left_as_they_are() {
    let whole = filled();
    let bytes = fs::read(&whole).unwrap();
    let half = bytes[..bytes.len() / 2].to_vec();
    let mut scribbled = bytes.clone();
    scribbled[4096..bytes.len() - 4096].fill(0x5a);
    let mut head = bytes.clone();
    head[..100].fill(0);
    let damaged: [(&str, Vec<u8>); 5] = [
        ("empty", Vec::new()),
        ("garbage", b"this is no database at all, whatever its name says".repeat(100)),
        ("half", half),
        ("scribbled", scribbled),
        ("head", head),
    ];
    for (how, bytes) in damaged {
        let path = folder().join("store.db");
        fs::write(&path, &bytes).unwrap();
        let refused = open(&path).err().unwrap_or_else(|| panic!("{how}"));
        let text = refused.to_string();
        assert!(matches!(refused, StoreError::Corrupt { .. }), "{how}: {text}");
        assert!(text.contains("backup") && text.contains("store.db"), "{how}: {text}");
        assert_eq!(fs::read(&path).unwrap().len(), bytes.len(), "{how}");
    }
    let other = folder().join("other.db");
    let connection = rusqlite::Connection::open(&other).unwrap();
    connection.execute_batch("CREATE TABLE notes (text TEXT)").unwrap();
    drop(connection);
    let before = fs::read(&other).unwrap();
    let refused = open(&other).err().unwrap();
    assert!(matches!(&refused, StoreError::Invalid { why } if why.contains("another program")));
    assert_eq!(fs::read(&other).unwrap(), before, "the database of another program is untouched");
    assert_eq!(names(&open(&whole).unwrap()).len(), 200);
}

#[test]
fn a_full_store_says_so_keeps_nothing_by_halves_and_works_again_with_room() {
    let world = World::sqlite();
    let small = StoreOptions { bytes_max: Some(400 * 1024), ..options() };
    let store = world.wait(Store::open(&world.url, &small)).unwrap();
    let mut kept = 0_u32;
    let full = loop {
        let write = store.write(move |db| {
            for part in 0..20 {
                let user = made::user(&format!("u{kept}-{part}"));
                db.insert_user(&user, &UserSecrets::default())?;
            }
            Ok(())
        });
        match world.wait(write) {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
        assert!(kept < 1000, "it never fills up");
    };
    assert!(matches!(&full, StoreError::Full { why } if why.contains("room")), "{full}");
    assert_eq!(world.wait(store.read(|db| db.count_users())), Ok(u64::from(kept) * 20));
    assert!(world.wait(store.write(|db| db.put_setting("a", &[0; 100_000]))).is_err());
    world
        .wait(store.write(|db| {
            let first = db.user_by_name("u0-0")?.unwrap();
            db.remove_user(first.id)
        }))
        .unwrap();
    drop(store);
    add(&world, "roomy");
    let count = world.read(|db| db.count_users());
    assert_eq!(count, u64::from(kept) * 20);
    assert_eq!(
        world
            .raw_number("SELECT COUNT(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'"),
        1
    );
}

/// Tells the child of the next test where its small disk is.
const DISK: &str = "RINGWAY_STORE_TEST_DISK";

#[test]
fn a_full_disk_is_told_and_there_is_no_change_by_halves() {
    if let Some(disk) = std::env::var_os(DISK) {
        return fill_disk(Path::new(&disk));
    }
    // A disk of 3 MiB that only the child sees.
    let disk = folder();
    let mount = "mount -t tmpfs -o size=3m,mode=700 tmpfs \"$0\" && exec \"$@\"";
    let ended = Command::new("unshare")
        .arg(if rustix::process::geteuid().is_root() { "-m" } else { "-rm" })
        .args(["sh", "-c", mount])
        .arg(&disk)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "sqlite::a_full_disk_is_told_and_there_is_no_change_by_halves"])
        .env(DISK, &disk)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success() && text.contains("1 passed"), "{text}");
}

fn fill_disk(disk: &Path) {
    let (path, filler) = (disk.join("store.db"), disk.join("filler"));
    fs::write(&filler, vec![1; 1 << 20]).unwrap();
    let world = World::at(&format!("sqlite:{}", path.display()));
    let mut kept = 0;
    let full = loop {
        let done = world.try_write(move |db| {
            db.put_setting(&format!("a{kept}"), &[7; 20_000])?;
            db.put_setting(&format!("b{kept}"), &[7; 20_000])
        });
        match done {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(&full, StoreError::Full { why } if why.contains("room")), "{full}");
    let has = |name: String| world.read(move |db| db.setting(&name)).is_some();
    assert!(kept > 5 && has(format!("b{}", kept - 1)));
    assert!(!has(format!("a{kept}")) && !has(format!("b{kept}")));
    fs::remove_file(&filler).unwrap();
    world.write(|db| db.put_setting("roomy", b"x"));
    assert!(has("roomy".to_owned()));
    let check = "SELECT COUNT(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'";
    assert_eq!(world.raw_number(check), 1);
}

#[test]
fn a_file_that_was_removed_under_a_running_gateway_is_not_made_anew() {
    let world = World::sqlite();
    add(&world, "ada");
    let path = world.file().unwrap();
    let away = beside(&path, ".away");
    fs::rename(&path, &away).unwrap();
    let gone = world.try_write(|db| db.put_setting("a", b"b")).unwrap_err();
    assert!(matches!(gone, StoreError::Unavailable { .. }), "{gone}");
    assert!(!path.exists());
    fs::rename(&away, &path).unwrap();
    let started = std::time::Instant::now();
    while let Err(error) = world.try_write(|db| db.put_setting("a", b"b")) {
        assert!(started.elapsed().as_secs() < 20, "{error}");
    }
    assert_eq!(names(&world), ["ada"]);
}

#[test]
fn a_writer_reports_what_is_kept_until_it_is_killed() {
    // Started by the next test, it goes on without end; otherwise it writes a little.
    let (path, rounds) = match std::env::var_os(CHILD) {
        Some(path) => (PathBuf::from(path), u64::MAX),
        None => (folder().join("store.db"), 3),
    };
    let world = World::at(&format!("sqlite:{}", path.display()));
    let options = StoreOptions { durable: true, ..options() };
    let store = world.wait(Store::open(&world.url, &options)).unwrap();
    for number in 0..rounds {
        let write = store.write(move |db| {
            for part in 0..3 {
                let user = made::user(&format!("u{number}-{part}"));
                db.insert_user(&user, &UserSecrets::default())?;
            }
            db.append_audit(Default::default(), "test", "user.insert", "u", &number.into())
        });
        world.wait(write).unwrap();
        eprintln!("kept {number}");
    }
    assert_eq!(world.read(|db| db.count_users()), 3 * rounds);
}

#[test]
fn a_killed_writer_loses_nothing_that_was_answered_and_leaves_nothing_by_halves() {
    let path = folder().join("store.db");
    let mut kept = None;
    for round in 0..4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "sqlite::a_writer_reports_what_is_kept_until_it_is_killed",
                "--nocapture",
            ])
            .env(CHILD, &path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let acknowledged = lines.map_while(Result::ok).filter_map(|line| {
            line.strip_prefix("kept ").map(|number| number.parse::<u64>().unwrap())
        });
        // Killed at another place each time, in the middle of whatever it does then.
        for number in acknowledged {
            kept = Some(number);
            if number >= 5 + 7 * round {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let world = open(&path).unwrap();
        let names = names(&world);
        let (whole, rest) = (names.len() / 3, names.len() % 3);
        assert_eq!(rest, 0, "writes are whole");
        assert!(whole as u64 > kept.unwrap(), "{whole} of {kept:?}");
        assert_eq!(world.read(|db| db.verify_audit()), Ok(whole as u64));
        // Begins anew, so that names are free.
        drop(world);
        for end in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(beside(&path, end));
        }
    }
}

#[test]
fn a_backup_of_a_running_store_is_one_whole_private_file() {
    let world = World::sqlite();
    for name in 0..50 {
        add(&world, &format!("u{name}"));
    }
    let to = folder().join("backup.db");
    let writer = world.store().clone();
    let copied = world.wait(async {
        let writing = tokio::spawn(async move {
            for name in 50..80 {
                let user = made::user(&format!("u{name}"));
                let write = writer.write(move |db| db.insert_user(&user, &UserSecrets::default()));
                write.await.unwrap();
            }
        });
        let copied = world.store().backup(&to, false).await;
        writing.await.unwrap();
        copied
    });
    copied.unwrap();
    assert_eq!(mode(&to), 0o600);
    let files: Vec<_> = fs::read_dir(to.parent().unwrap()).unwrap().collect();
    assert_eq!(files.len(), 1, "no draft and no log is left: {files:?}");
    let again = world.wait(world.store().backup(&to, false)).unwrap_err();
    assert!(matches!(&again, StoreError::Invalid { why } if why.contains("exists")), "{again}");
    world.wait(world.store().backup(&to, true)).unwrap();
    assert_eq!(names(&open(&to).unwrap()).len(), 80);
}

#[test]
fn an_erased_name_is_nowhere_in_the_file() {
    const NAME: &str = "zenobia-of-palmyra";
    let world = World::sqlite();
    let (user, path) = (made::user(NAME), world.file().unwrap());
    let id = user.id;
    for round in 0..30 {
        add(&world, &format!("u{round}"));
        world.write(move |db| {
            let detail = serde_json::json!({ "display_name": ["", NAME], "round": round });
            let object = id.to_string();
            db.append_audit(Default::default(), "local:0", "user.changed", &object, &detail)
        });
    }
    world.write(move |db| db.insert_user(&user, &UserSecrets::default()));
    let holds = |end: &str| {
        let bytes = fs::read(beside(&path, end)).unwrap_or_default();
        bytes.windows(NAME.len()).any(|window| window == NAME.as_bytes())
    };
    assert!(holds("-wal"), "the test looks at the right place");
    world.write(move |db| db.erase_user(id, Default::default(), "local:0"));
    assert!(!holds("") && !holds("-wal"), "at once, while the store runs");
    world.close();
    assert!(!holds("") && !beside(&path, "-wal").exists());
}

#[test]
fn a_backup_is_checked_before_it_replaces_a_store_that_rests() {
    let (old, backup_file) = (filled(), folder().join("backup.db"));
    {
        let world = World::sqlite();
        add(&world, "restored");
        world.wait(world.store().backup(&backup_file, false)).unwrap();
    }
    let bytes = fs::read(&backup_file).unwrap();
    let useless = folder().join("useless.db");
    let mut newer = None;
    let cases: [(&str, Option<Vec<u8>>); 3] = [
        ("store_corrupt", Some(bytes[..bytes.len() / 2].to_vec())),
        ("store_corrupt", Some(vec![7; 9000])),
        ("store_newer", None),
    ];
    for (reason, content) in cases {
        fs::write(&useless, content.unwrap_or_else(|| bytes.clone())).unwrap();
        if reason == "store_newer" {
            let connection = rusqlite::Connection::open(&useless).unwrap();
            connection.execute_batch("INSERT INTO migrations VALUES (9, 0)").unwrap();
        }
        let refused = backup::restore(&useless, &old).unwrap_err();
        assert_eq!(refused.reason(), reason, "{refused}");
        newer = Some(refused);
        assert_eq!(names(&open(&old).unwrap()).len(), 200);
    }
    assert_eq!(newer, Some(StoreError::Newer { found: 9, known: 6 }));

    let running = open(&old).unwrap();
    assert_eq!(names(&running).len(), 200);
    let refused = backup::restore(&backup_file, &old).unwrap_err();
    assert!(matches!(&refused, StoreError::Busy { why } if why.contains("stop")), "{refused}");
    running.close();
    let kept = backup::restore(&backup_file, &old).unwrap().unwrap();
    assert_eq!(names(&open(&old).unwrap()), ["restored"]);
    assert_eq!(kept, beside(&old, ".replaced"));
    assert_eq!(names(&open(&kept).unwrap()).len(), 200);
    // A second time, what the first one kept is not lost.
    let second = backup::restore(&kept, &old).unwrap().unwrap();
    assert_ne!(second, kept);
    assert_eq!(names(&open(&old).unwrap()).len(), 200);
    assert_eq!(names(&open(&second).unwrap()), ["restored"]);
    assert_eq!(names(&open(&kept).unwrap()).len(), 200);

    let fresh = folder().join("new.db");
    // The log of a store that is gone must not get into the one that comes.
    fs::write(beside(&fresh, "-wal"), "not of this store").unwrap();
    assert_eq!(backup::restore(&backup_file, &fresh), Ok(None));
    assert_eq!(names(&open(&fresh).unwrap()), ["restored"]);
    assert!(beside(&fresh, ".replaced-wal").exists());
}

#[test]
fn a_restored_store_belongs_to_whom_the_one_before_belonged() {
    // Only root can give files away; CI runs as root.
    let (mine, backup_file) = (filled(), folder().join("backup.db"));
    backup::backup(&mine, &backup_file, false).unwrap();
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    assert!(is_root, "run this test as root");
    let (store, nobody) = (filled(), 65534);
    chown(&store, Some(nobody), Some(nobody)).unwrap();
    let kept = backup::restore(&backup_file, &store).unwrap().unwrap();
    for path in [&store, &kept] {
        let about = fs::metadata(path).unwrap();
        assert_eq!((about.uid(), about.gid(), about.mode() & 0o777), (nobody, nobody, 0o600));
    }
    let fresh = folder().join("new.db");
    chown(fresh.parent().unwrap(), Some(nobody), Some(nobody)).unwrap();
    assert_eq!(backup::restore(&backup_file, &fresh), Ok(None));
    assert_eq!(fs::metadata(&fresh).unwrap().uid(), nobody);
}

#[test]
fn a_backup_that_has_no_room_is_no_fault_of_the_store() {
    let store = filled();
    let missing = folder().join("missing").join("copy.db");
    for place in [missing.as_path(), Path::new("/proc/copy.db"), Path::new("/proc/self")] {
        let refused = backup::backup(&store, place, false).unwrap_err();
        assert!(matches!(&refused, StoreError::Invalid { .. }), "{refused}");
        assert!(!refused.is_about_the_store());
        assert!(refused.to_string().contains("/"), "{refused}");
    }
}

#[test]
fn a_full_check_finds_what_is_wrong_in_an_index() {
    let path = filled();
    let connection = rusqlite::Connection::open(&path).unwrap();
    // An index that lacks entries: the definition is taken away, a row added, and put back.
    connection
        .execute_batch(
            "PRAGMA writable_schema = ON;
             CREATE TABLE hidden AS SELECT * FROM sqlite_master WHERE name = 'users_role';
             DROP TABLE hidden;
             CREATE INDEX users_role ON users (state);
             UPDATE sqlite_master SET sql = 'CREATE INDEX users_role ON users (name)'
             WHERE name = 'users_role'",
        )
        .unwrap();
    drop(connection);
    let url = StoreUrl::file(&path).unwrap();
    let world = open(&path).unwrap();
    let thorough = StoreOptions { full_check: true, ..options() };
    let found = world.wait(Store::open(&url, &thorough)).err().unwrap();
    assert!(matches!(found, StoreError::Corrupt { .. }), "{found}");
}
