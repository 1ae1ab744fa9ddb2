#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{Read as _, Write as _};
use std::os::unix::net as std_unix;

use super::*;
use crate::upgrade::message::Item;

fn on_runtime<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test)
}

async fn wires() -> (Wire, Wire) {
    let (one, two) = UnixStream::pair().unwrap();
    let opened = tokio::join!(Wire::open(one, true, "one"), Wire::open(two, false, "two"));
    let ((one, hello_two), (two, hello_one)) = (opened.0.unwrap(), opened.1.unwrap());
    assert_eq!((hello_one.program.as_str(), hello_two.program.as_str()), ("one", "two"));
    (one, two)
}

fn page(byte: u8) -> Message {
    Message::Page { core: 3, bytes: Zeroizing::new(vec![byte; 64 << 10]) }
}

#[test]
fn messages_arrive_in_order_whole_and_both_ways() {
    on_runtime(async {
        let (mut one, mut two) = wires().await;
        let there = async {
            for byte in 0..20 {
                one.send(&page(byte)).await.unwrap();
            }
            assert_eq!(one.receive(FRAME_TIMEOUT).await.unwrap(), Message::Commit);
        };
        let back = async {
            for byte in 0..20 {
                assert_eq!(two.receive(FRAME_TIMEOUT).await.unwrap(), page(byte));
            }
            two.send(&Message::Commit).await.unwrap();
        };
        tokio::join!(there, back);
    });
}

#[test]
fn descriptors_arrive_with_their_message_in_order() {
    on_runtime(async {
        let (mut one, mut two) = wires().await;
        let (mine, mut yours) = std_unix::UnixStream::pair().unwrap();
        let (other, mut others) = std_unix::UnixStream::pair().unwrap();
        let items = Message::Descriptors(vec![Item::Stats, Item::Tun(1)]);
        one.send_with(&items, &[mine.as_fd(), other.as_fd()]).await.unwrap();
        drop((mine, other));
        assert_eq!(two.receive(FRAME_TIMEOUT).await.unwrap(), items);
        for stream in [&mut yours, &mut others] {
            let mut taken = std_unix::UnixStream::from(two.descriptor().unwrap());
            taken.write_all(b"here").unwrap();
            let mut read = [0; 4];
            stream.read_exact(&mut read).unwrap();
            assert_eq!(&read, b"here");
        }
        assert!(matches!(two.descriptor(), Err(WireError::Garbled)));
    });
}

#[test]
fn what_is_not_sealed_with_our_keys_is_refused() {
    on_runtime(async {
        let (mut one, mut two) = wires().await;
        // As an eavesdropper would: the same keys, another counter.
        one.keys.as_mut().unwrap().sent += 1;
        one.send(&Message::Commit).await.unwrap();
        assert!(matches!(two.receive(FRAME_TIMEOUT).await, Err(WireError::Garbled)));
        let (mut one, mut two) = wires().await;
        one.keys = None;
        one.send(&Message::Commit).await.unwrap();
        assert!(matches!(two.receive(FRAME_TIMEOUT).await, Err(WireError::Garbled)));
    });
}

#[test]
fn another_version_is_refused_with_what_to_do() {
    on_runtime(async {
        let (mut one, two) = UnixStream::pair().unwrap();
        let hello = Hello { version: 9, program: "ringway 9.9".into(), key: PublicKey([9; 32]) };
        let mut frame = vec![0; 4];
        Message::Hello(hello).write(&mut frame);
        let len = frame.len() as u32 - 4;
        frame[..4].copy_from_slice(&len.to_le_bytes());
        tokio::io::AsyncWriteExt::write_all(&mut one, &frame).await.unwrap();
        match Wire::open(two, false, "ringway 1.0").await {
            Err(WireError::Refused(why)) => {
                assert!(why.contains("ringway 9.9") && why.contains("stop the gateway"), "{why}");
            }
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_frame_that_is_too_long_or_cut_ends_the_conversation() {
    on_runtime(async {
        for (bytes, gone) in [(u32::MAX.to_le_bytes().to_vec(), false), (vec![9, 0, 0, 0, 1], true)]
        {
            let (mut one, two) = UnixStream::pair().unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut one, &bytes).await.unwrap();
            drop(one);
            let error = Wire::open(two, false, "two").await.unwrap_err();
            assert_eq!(matches!(error, WireError::Gone), gone, "{error}");
        }
    });
}

#[test]
fn whoever_says_nothing_is_not_waited_for() {
    on_runtime(async {
        let (_one, mut two) = wires().await;
        let error = two.receive(Duration::from_millis(1)).await.unwrap_err();
        assert!(matches!(error, WireError::Silent));
    });
}

#[test]
fn nothing_follows_a_frame_that_was_given_up_half_way() {
    on_runtime(async {
        let (mut one, mut two) = wires().await;
        // Nobody reads: the socket takes some pages and a piece of one.
        let full = async { while one.send(&page(1)).await.is_ok() {} };
        timeout(Duration::from_millis(50), full).await.unwrap_err();
        let refusal = Message::Refuse { why: "too late".into() };
        let begun = std::time::Instant::now();
        assert!(matches!(one.send(&refusal).await, Err(WireError::Silent)));
        assert!(begun.elapsed() < FRAME_TIMEOUT / 2, "it was waited for");
        drop(one);
        let rest = async {
            loop {
                match two.receive(FRAME_TIMEOUT).await {
                    Ok(message) => assert_eq!(message, page(1)),
                    Err(error) => return error,
                }
            }
        };
        assert!(matches!(rest.await, WireError::Gone));
    });
}
