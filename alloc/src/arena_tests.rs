//! The arena against a model of who owns which buffer.

#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use proptest::prelude::*;

const COUNT: u32 = 6;
const BYTES: usize = 100;

#[derive(Clone, Debug)]
enum Operation {
    Take,
    DropBuf(usize),
    Hold(usize),
    DropHold(usize),
    Lend,
    Adopt(usize),
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        3 => Just(Operation::Take),
        2 => any::<usize>().prop_map(Operation::DropBuf),
        2 => any::<usize>().prop_map(Operation::Hold),
        2 => any::<usize>().prop_map(Operation::DropHold),
        1 => Just(Operation::Lend),
        1 => any::<usize>().prop_map(Operation::Adopt),
    ]
}

fn remove<T>(items: &mut Vec<T>, which: usize) -> Option<T> {
    (!items.is_empty()).then(|| items.swap_remove(which % items.len()))
}

proptest! {
    #[test]
    fn a_buffer_is_free_exactly_when_nobody_owns_holds_or_borrows_it(
        operations in proptest::collection::vec(operation(), 0..200),
    ) {
        let arena = Arena::with_capacity(COUNT, BYTES).unwrap();
        let (mut bufs, mut holds, mut lent) = (Vec::<Buf>::new(), Vec::<Hold>::new(), Vec::new());
        let mut stamp = 0_u8;
        for operation in operations {
            match operation {
                Operation::Take => if let Some(mut buf) = arena.take() {
                    stamp = stamp.wrapping_add(1);
                    buf.fill(stamp);
                    bufs.push(buf);
                },
                Operation::DropBuf(which) => drop(remove(&mut bufs, which)),
                Operation::Hold(which) => if !bufs.is_empty() {
                    holds.push(bufs[which % bufs.len()].hold());
                },
                Operation::DropHold(which) => drop(remove(&mut holds, which)),
                Operation::Lend => lent.extend(arena.lend()),
                Operation::Adopt(which) => if let Some(index) = remove(&mut lent, which) {
                    let mut buf = arena.adopt(index);
                    buf.fill(0);
                    bufs.push(buf);
                },
            }
            let mut busy: Vec<u32> = bufs.iter().map(Buf::index).collect();
            busy.extend(&lent);
            // Owners and loans are exclusive; holds may be of the same buffers.
            let exclusive = busy.len();
            busy.sort_unstable();
            busy.dedup();
            prop_assert_eq!(busy.len(), exclusive);
            busy.extend(holds.iter().map(Hold::index));
            busy.sort_unstable();
            busy.dedup();
            prop_assert_eq!(arena.free(), COUNT as usize - busy.len());
            prop_assert_eq!(arena.take().is_some(), busy.len() < COUNT as usize);
            for hold in &holds {
                let owned = bufs.iter().any(|buf| buf.index() == hold.index());
                prop_assert_eq!(hold.bytes().is_none(), owned);
            }
            for buf in &bufs {
                prop_assert_eq!(buf.len(), BYTES);
                prop_assert!(buf.iter().all(|byte| *byte == buf[0]));
            }
        }
    }
}

#[test]
fn a_held_buffer_keeps_its_bytes_after_its_owner_has_gone() {
    let arena = Arena::with_capacity(1, 16).unwrap();
    let mut buf = arena.take().unwrap();
    buf.copy_from_slice(b"sixteen bytes ok");
    let hold = buf.hold();
    let address = hold.address();
    assert_eq!(address, arena.address(0));
    assert_eq!(hold.bytes(), None);
    drop(buf);
    assert!(arena.take().is_none());
    assert_eq!(hold.bytes(), Some(&b"sixteen bytes ok"[..]));
    drop(hold);
    assert_eq!(&*arena.take().unwrap(), b"sixteen bytes ok");
}

#[test]
fn the_region_stays_mapped_while_a_buffer_is_held() {
    let arena = Arena::with_capacity(2, 8).unwrap();
    let mut buf = arena.take().unwrap();
    let hold = buf.hold();
    drop(arena);
    buf.fill(7);
    assert_eq!(&*buf, [7; 8]);
    drop(buf);
    drop(hold);
}

#[test]
fn buffers_do_not_overlap() {
    let arena = Arena::with_capacity(64, 4096).unwrap();
    let mut bufs: Vec<_> = std::iter::from_fn(|| arena.take()).collect();
    assert_eq!(bufs.len(), 64);
    for (number, buf) in bufs.iter_mut().enumerate() {
        buf.fill(number as u8);
    }
    assert!(bufs.iter().enumerate().all(|(number, buf)| buf.iter().all(|it| *it == number as u8)));
}

#[test]
#[should_panic(expected = "was not lent")]
fn the_kernel_cannot_return_a_buffer_it_does_not_have() {
    let arena = Arena::with_capacity(2, 8).unwrap();
    let _mine = arena.take().unwrap();
    drop(arena.adopt(0));
}

#[test]
#[should_panic(expected = "was not lent")]
fn the_kernel_cannot_return_a_buffer_twice() {
    let arena = Arena::with_capacity(2, 8).unwrap();
    let index = arena.lend().unwrap();
    let _first = arena.adopt(index);
    drop(arena.adopt(index));
}
