//! What asks the store for the gateway's sake does not wait for it forever.

use std::io;
use std::os::fd::OwnedFd;

use super::*;
use crate::gateway::Role;
use crate::gateway::fake_cores::on_control_thread;
use crate::gateway::requests;
use crate::plane::{Operation, Plane};
use crate::upgrade::{Endpoints, Legacy};

/// A configuration file that says another thing than the gateway does.
struct Changed {
    plan: Plan,
    /// Whether each reload took effect.
    done: Vec<bool>,
}

impl Role for Changed {
    fn first(&mut self) -> Vec<Operation> {
        Vec::new()
    }

    fn raise(&mut self, _interface: &str) -> Result<(), Failure> {
        Ok(())
    }

    fn reload(&mut self) -> Result<(Vec<Operation>, String), String> {
        let peer = Operation::Peer(PublicKey([3; 32]));
        Ok((vec![peer], "One peer".to_owned()))
    }

    fn reloaded(&mut self, done: bool) {
        self.done.push(done);
    }

    fn lower(&mut self) {}

    fn people(&self) -> Option<Plan> {
        Some(self.plan.clone())
    }

    fn legacy(&self) -> io::Result<Legacy> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn release(&mut self) {}

    fn inherit(&mut self, _: Option<OwnedFd>, _: &Plane, _: &Endpoints) {}
}

/// The plan without the pool that the device's address is from.
fn other_pool(world: &World) -> Plan {
    let plan = world.people.plan.borrow().clone();
    let text = std::fs::read_to_string(&plan.file).unwrap().replace("10.9.0.0/24", "10.8.0.0/24");
    let config = Config::parse(&text, "t", world.folder.path(), &Overrides::default()).unwrap();
    Plan { config, ..plan }
}

#[test]
fn a_hand_over_is_refused_while_the_store_is_still_told_what_was_used() {
    on_control_thread(async {
        let world = World::new("hold").await;
        let held = world.people.hold().await.unwrap();
        assert!(held.is_some());
        // Whoever tells the store holds the same.
        let refused = world.people.hold_within(Duration::from_millis(20)).await.unwrap_err();
        // As does whoever reads all records.
        for part in ["records are being read", "does not take what devices used", "in a moment"] {
            assert!(refused.contains(part), "{refused}");
        }
        drop(held);
        assert!(world.people.hold().await.unwrap().is_some());
    });
}

#[test]
fn a_reload_that_the_store_does_not_answer_about_is_taken() {
    on_control_thread(async {
        let world = World::new("check").await;
        world.user("ann", &[Factor::Password]).await;
        let plan = other_pool(&world);
        let refused = world.people.check(&plan).await.unwrap_err();
        assert!(refused.contains("10.9.0."), "{refused}");
        let (mut release, mut asked) = (Vec::new(), Vec::new());
        for _ in 0..StoreOptions::default().readers {
            let store = world.directory().store().clone();
            let (end, wait) = std::sync::mpsc::channel::<()>();
            release.push(end);
            // It answers when there is nobody any more who could send.
            let busy = async move { store.read(move |_| Ok(wait.recv().is_err())).await };
            asked.push(spawn_local(busy));
        }
        tokio::task::yield_now().await;
        let limit = Duration::from_millis(20);
        assert_eq!(world.people.check_within(&plan, limit).await, Ok(()));
        drop(release);
        for busy in asked {
            assert_eq!(busy.await.unwrap(), Ok(true), "it was held up meanwhile");
        }
        assert!(world.people.check(&plan).await.is_err());
    });
}

#[test]
fn the_end_of_the_gateway_is_heard_while_a_reload_waits_for_the_store() {
    on_control_thread(async {
        let world = World::new("reload_end").await;
        let (desk, people) = (&world.people.desk, Some(&*world.people));
        let plan = world.people.plan.borrow().clone();
        let mut role = Changed { plan, done: Vec::new() };
        let ends = std::future::ready("Told to stop");
        let (outcome, ended) = requests::reload(desk, &mut role, people, ends).await;
        assert_eq!(outcome, Err("the gateway is stopping".to_owned()));
        assert_eq!(ended, Some("Told to stop"));
        assert!(world.told.peers.borrow().is_empty(), "nothing was changed");
        let (outcome, ended) =
            requests::reload(desk, &mut role, people, std::future::pending()).await;
        assert_eq!((outcome, ended), (Ok("One peer".to_owned()), None));
        assert_eq!(world.told.peers.borrow().len(), 1);
        assert_eq!(role.done, [false, true]);
    });
}

#[test]
fn a_stop_waits_for_a_store_that_does_not_answer_no_longer_than_its_bound() {
    on_control_thread(async {
        let world = World::new("settle").await;
        let device = world.user("ann", &[Factor::Password]).await;
        world.directory().grant_access(&Actor::local(0), "ann", None).await.unwrap();
        until(|| world.told.accounts.borrow().contains_key(&device.public_key)).await;
        world.told.live.borrow_mut().insert(device.public_key);
        let service = world.service();
        until(|| service.with_projection(|known| !known.sessions().is_empty())).await;
        assert!(service.flush_outbox().await);
        let store = service.store().clone();
        let (release, wait) = std::sync::mpsc::channel::<()>();
        // It answers when there is nobody any more who could send.
        let busy = store.clone();
        let busy = spawn_local(async move { busy.write(move |_| Ok(wait.recv().is_err())).await });
        tokio::task::yield_now().await;
        let limit = Duration::from_millis(50);
        let begun = Instant::now();
        world.people.settle_within(limit).await;
        let took = begun.elapsed();
        assert!(took >= limit && took < Duration::from_secs(2), "{took:?}");
        drop(release);
        assert_eq!(busy.await.unwrap(), Ok(true));
        // What it did not take is no loss: whoever starts next has it.
        let name = keys::show_public(&world.people.plan.borrow().gateway);
        let left = store.read(move |db| db.open_sessions(&name)).await.unwrap().sessions;
        assert_eq!(left.len(), 1, "{left:?}");
        assert_eq!(left[0].device, device.id);
    });
}
