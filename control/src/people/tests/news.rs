//! What is told of what happens: each thing once, by one name.

use super::*;
use crate::directory::input::{DevicePatch, Patch, UserPatch};
use crate::gateway::fake_cores::on_control_thread;
use crate::store::records::UserState;

/// Kind and subject of all that was told since the last time, of these kinds.
fn heard(events: &mut Listener, kinds: &[&str]) -> Vec<(&'static str, String)> {
    let mut told = Vec::new();
    while let Some(heard) = events.try_next() {
        let Heard::Event(event) = heard else { panic!("missed some") };
        if kinds.iter().any(|kind| event.kind.word().starts_with(kind)) {
            told.push((event.kind.word(), event.subject.clone()));
        }
    }
    told
}

/// Lets the device in, in one of several ways.
async fn let_in(directory: &Directory, round: usize) {
    let root = Actor::local(0);
    match round {
        1 => {
            let active = Patch::Set(UserState::Active);
            let patch = UserPatch { state: active, ..UserPatch::default() };
            directory.patch_user(&root, "ada", None, patch).await.unwrap();
        }
        2 => {
            let patch = DevicePatch { enabled: Patch::Set(true), ..DevicePatch::default() };
            directory.patch_device(&root, "ada", "laptop", None, patch).await.unwrap();
        }
        _ => {
            directory.grant_access(&root, "ada", None).await.unwrap();
        }
    }
}

/// Keeps it out again.
async fn keep_out(directory: &Directory, round: usize) {
    let root = Actor::local(0);
    match round {
        0 => {
            let disabled = Patch::Set(UserState::Disabled);
            let patch = UserPatch { state: disabled, ..UserPatch::default() };
            directory.patch_user(&root, "ada", None, patch).await.unwrap();
        }
        1 => {
            let patch = DevicePatch { enabled: Patch::Set(false), ..DevicePatch::default() };
            directory.patch_device(&root, "ada", "laptop", None, patch).await.unwrap();
        }
        2 => directory.end_access(&root, "ada", None).await.unwrap(),
        _ => directory.remove_device(&root, "ada", "laptop", None).await.unwrap(),
    }
}

#[test]
fn access_that_begins_or_ends_is_told_once_and_by_the_name_of_the_device() {
    on_control_thread(async {
        let world = World::new("news_access").await;
        let device = world.user("ada", &[Factor::Password]).await;
        let hub = world.people.reached.api.borrow().as_ref().unwrap().hub().clone();
        let (mut events, name) = (hub.listen(), "ada/laptop".to_owned());
        for round in 0..4 {
            let_in(&world.directory(), round).await;
            until(|| world.is_peer(&device)).await;
            let told = heard(&mut events, &["access."]);
            assert_eq!(told, [("access.granted", name.clone())], "{round}");
            keep_out(&world.directory(), round).await;
            until(|| !world.is_peer(&device)).await;
            // Of a device that is gone only the number is known.
            let subject = if round == 3 { device.id.to_string() } else { name.clone() };
            let told = heard(&mut events, &["access."]);
            assert_eq!(told, [("access.ended", subject)], "{round}");
        }
    });
}

#[test]
fn a_backup_is_told_and_is_nothing_to_be_warned_of() {
    on_control_thread(async {
        let world = World::new("news_backup").await;
        let hub = world.people.reached.api.borrow().as_ref().unwrap().hub().clone();
        let mut events = hub.listen();
        let file = world.folder.path().join("copy.db");
        world.directory().backup(&Actor::local(0), file.clone()).await.unwrap();
        let told = heard(&mut events, &["backup.", "gateway."]);
        assert_eq!(told, [("backup.made", file.display().to_string())]);
    });
}
