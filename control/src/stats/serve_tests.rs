#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::gateway::fake_cores::{desk, on_control_thread};
use crate::plane::Operation;
use ringway_proto::crypto::PublicKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Sends `input`, closes the sending side and reads everything that comes back.
async fn ask(desk: &Rc<Desk>, input: &[u8]) -> (String, io::Result<()>) {
    let (reloads, mut requests) = mpsc::channel::<ReloadRequest>(1);
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let served = Rc::clone(desk);
    let conversation = tokio::task::spawn_local(async move {
        Conversation { client: Client::new(theirs), desk: &served, reloads }.run().await
    });
    tokio::task::spawn_local(async move {
        while let Some(request) = requests.recv().await {
            request.send(Ok("1 peer(s) added".to_owned())).unwrap();
        }
    });
    // The other side may have hung up already.
    let _ = ours.write_all(input).await;
    let _ = ours.shutdown().await;
    let mut answer = String::new();
    ours.read_to_string(&mut answer).await.unwrap();
    (answer, conversation.await.unwrap())
}

async fn with_peers(count: u8) -> Rc<Desk> {
    let (desk, _told) = desk(1);
    let peers = (0..count).map(|n| Operation::Peer(PublicKey([n; 32]))).collect();
    desk.configure(peers).await.unwrap();
    desk
}

#[test]
fn every_command_is_answered() {
    on_control_thread(async {
        let desk = with_peers(3).await;
        for (command, expected) in [
            ("stats", "interface test0 (down)"),
            ("stats json", "{\"about\":"),
            ("metrics", "# EOF\n"),
            ("sessions", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="),
            ("peers json", "\"public_key\":\"AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=\""),
            ("reload", "Done: 1 peer(s) added\n"),
            ("help", "peers json"),
            ("nonsense", "Unknown command. These are known:\nstats "),
        ] {
            let (answer, ended) = ask(&desk, format!("{command}\n").as_bytes()).await;
            assert!(answer.contains(expected), "{command}: {answer}");
            ended.unwrap();
        }
        let about = desk.snapshot().about;
        assert_eq!((about.queries_served, about.queries_unknown), (7, 1));
    });
}

#[test]
fn several_commands_may_come_on_one_connection_and_the_last_without_its_end() {
    on_control_thread(async {
        let desk = with_peers(0).await;
        let (answer, ended) = ask(&desk, b"help\nreload\nhelp").await;
        assert_eq!(answer.matches("this text").count(), 2);
        assert_eq!(answer.matches("Done: ").count(), 1);
        ended.unwrap();
    });
}

#[test]
fn sessions_come_in_pages_that_name_the_next_one() {
    on_control_thread(async {
        let desk = with_peers(10).await;
        let (mut rows, mut line) = (0, "sessions 0:0 4".to_owned());
        for expected in [4, 4, 2] {
            let (answer, _) = ask(&desk, line.as_bytes()).await;
            rows += answer.matches(" idle ").count();
            assert_eq!(answer.matches(" idle ").count(), expected, "{answer}");
            if let Some((_, next)) = answer.split_once("more: ") {
                line = format!("{} 4", next.trim());
            }
        }
        assert_eq!(rows, 10);
        let (all, _) = ask(&desk, b"sessions all").await;
        assert_eq!(all.matches(" idle ").count(), 10);
        assert!(!all.contains("more:"));
    });
}

#[test]
fn all_peers_are_one_json_array() {
    on_control_thread(async {
        for count in [0, 1, 200] {
            let desk = with_peers(count).await;
            let (answer, _) = ask(&desk, b"peers json").await;
            let array: serde_json::Value = serde_json::from_str(&answer).unwrap();
            assert_eq!(array.as_array().unwrap().len(), usize::from(count));
        }
    });
}

#[test]
fn a_line_that_never_ends_is_cut_off() {
    on_control_thread(async {
        let desk = with_peers(0).await;
        let (answer, ended) = ask(&desk, &[b'x'; 10_000]).await;
        assert_eq!(answer, "");
        assert!(ended.is_err());
    });
}

#[test]
fn bytes_that_are_no_text_are_an_unknown_command() {
    on_control_thread(async {
        let desk = with_peers(0).await;
        let (answer, ended) = ask(&desk, b"\xff\xfe\n").await;
        assert!(answer.starts_with("Unknown command."));
        ended.unwrap();
    });
}

#[test]
fn no_answer_holds_a_private_or_preshared_key_in_any_spelling() {
    on_control_thread(async {
        let (desk, _told) = desk(1);
        let secrets = [[0xa7; 32], [0x3b; 32]];
        let (private, preshared) = (secrets[0], secrets[1]);
        let steps = vec![
            Operation::PrivateKey(crate::plane::Secret::new(private)),
            Operation::Peer(PublicKey([1; 32])),
            Operation::Preshared(ringway_proto::crypto::PresharedKey(preshared)),
        ];
        desk.configure(steps).await.unwrap();
        let spellings = secrets.iter().flat_map(|key| {
            let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
            let base64 = crate::keys::encode(key).trim_end_matches('=').to_owned();
            [hex.to_uppercase(), hex, base64, format!("{key:?}")]
        });
        let spellings: Vec<String> = spellings.collect();
        for command in ["stats", "stats json", "metrics", "sessions all", "peers json", "help", "x"]
        {
            let (answer, _) = ask(&desk, command.as_bytes()).await;
            assert!(!answer.is_empty());
            for secret in &spellings {
                assert!(!answer.contains(secret), "{command}: {answer}");
            }
        }
    });
}

#[test]
fn metrics_hold_what_parts_of_control_say_and_rates_after_two_readings() {
    struct Part;
    impl crate::stats::service::Source for Part {
        fn fill(&self, stats: &mut crate::stats::service::ServiceStats) {
            stats.access = Some(crate::stats::service::Access { users: 7, ..Default::default() });
        }
    }
    on_control_thread(async {
        let desk = with_peers(1).await;
        let (before, _) = ask(&desk, b"metrics").await;
        crate::stats::strict::read(&before).unwrap();
        assert!(!before.contains("ringway_users_connected"));
        assert!(!before.contains("ringway_connection_rate"));
        desk.hear(Box::new(Part));
        desk.take_reading();
        desk.take_reading();
        let (after, _) = ask(&desk, b"metrics").await;
        let families = crate::stats::strict::read(&after).unwrap();
        assert!((families["ringway_users_connected"].samples[0].value - 7.0).abs() < 1e-9);
        assert!(families.contains_key("ringway_connection_rate"));
        assert_eq!(desk.signals().active, 0);
    });
}

#[test]
fn where_a_client_is_can_be_kept_from_everybody_who_looks() {
    use crate::logs::privacy::{Mode, Privacy};
    on_control_thread(async {
        let desk = with_peers(1).await;
        for (mode, show_live, shown) in
            [(Mode::Full, false, true), (Mode::NoLog, false, false), (Mode::NoLog, true, true)]
        {
            desk.keep_private(Privacy { mode, show_live, ..Privacy::default() });
            for command in ["sessions", "peers json"] {
                let (answer, _) = ask(&desk, command.as_bytes()).await;
                assert_eq!(answer.contains("192.0.2."), shown, "{mode:?} {command}: {answer}");
            }
        }
    });
}
