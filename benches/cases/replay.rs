//! The replay window.

use std::hint::black_box;

use ringway_proto::wireguard::ReplayWindow;

use super::Case;

const MESSAGES: u32 = 1024;

pub(super) const CASES: &[Case] = &[
    Case { name: "replay/in_order", operations: MESSAGES, prepare: || mark(|number| number) },
    Case {
        name: "replay/pairs_swapped",
        operations: MESSAGES,
        prepare: || mark(|number| number ^ 1),
    },
];

fn mark(counter_of: fn(u64) -> u64) -> super::Work {
    let mut first = 0;
    let mut window = ReplayWindow::default();
    Box::new(move || {
        for number in first..first + u64::from(MESSAGES) {
            let counter = black_box(counter_of(number));
            assert!(window.is_fresh(counter));
            assert!(window.mark(counter));
        }
        first += u64::from(MESSAGES);
    })
}
