//! The thread that writes lines, and the bounded queue to it.
//!
//! Whoever says something never waits: a line that finds the queue full, or that its sink does not
//! take, is lost and counted, and the count is said once lines can be written again. So a full
//! disk, a reader that has stopped or a pipe without one costs lines and nothing else. This module
//! must not know where lines come from.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::Duration;

use super::sink::Sink;

/// Lines that may wait. A burst of a start or a reload has hundreds.
pub const LINES_MAX: usize = 8192;

/// Bytes that may wait, so that long lines do not take what short ones are allowed: 8 MiB.
pub const BYTES_MAX: usize = 8 << 20;

/// How often the thread looks for something to say by itself.
const TICK: Duration = Duration::from_secs(1);

/// What became of lines since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Written.
    pub written: u64,
    /// Lost, because they came too fast or could not be written.
    pub lost: u64,
    /// Left out, because the same was said shortly before.
    pub left_out: u64,
}

/// The near end of the queue. Clones are the same queue.
#[derive(Clone, Debug)]
pub struct Writer {
    queue: SyncSender<Item>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    written: AtomicU64,
    lost: AtomicU64,
    waiting_bytes: AtomicUsize,
}

enum Item {
    Line(String),
    Reopen,
    Flush(SyncSender<()>),
}

/// Says what nobody calls for: counts of lines left out or lost.
pub trait Tick: Send {
    /// Lines to be written now, each with its end.
    fn tick(&mut self) -> Vec<String>;

    /// The line that says how many were lost.
    fn lost(&mut self, lines: u64) -> String;
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// The process may not have one more thread.
    pub fn start(sink: Box<dyn Sink>, tick: Box<dyn Tick>) -> std::io::Result<Self> {
        let (queue, items) = sync_channel(LINES_MAX);
        let shared = Arc::new(Shared::default());
        let far = Far { sink, tick, shared: Arc::clone(&shared), told: 0 };
        thread::Builder::new().name("ringway-log".to_owned()).spawn(move || far.run(&items))?;
        Ok(Self { queue, shared })
    }

    /// Hands a line over. Never waits.
    pub fn write(&self, line: String) {
        let bytes = line.len();
        let waiting = self.shared.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let sent = waiting + bytes <= BYTES_MAX && self.queue.try_send(Item::Line(line)).is_ok();
        if !sent {
            self.shared.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Has the sink opened anew.
    pub fn reopen(&self) {
        // A queue that is full is one that nobody writes from: then there is nothing to reopen.
        let _ = self.queue.try_send(Item::Reopen);
    }

    /// Waits until what was said before is written, but not longer than `patience`: a sink that
    /// does not take lines must not hold the end up. Says whether it is written.
    #[must_use]
    pub fn flush(&self, patience: Duration) -> bool {
        let (done, heard) = sync_channel(1);
        let mut item = Item::Flush(done);
        let pause = Duration::from_millis(1);
        let mut left = patience;
        loop {
            match self.queue.try_send(item) {
                Ok(()) => return heard.recv_timeout(left).is_ok(),
                Err(TrySendError::Full(back)) if left > pause => {
                    item = back;
                    thread::sleep(pause);
                    left = left.saturating_sub(pause);
                }
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => return false,
            }
        }
    }

    /// Lines written and lost so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            written: self.shared.written.load(Ordering::Relaxed),
            lost: self.shared.lost.load(Ordering::Relaxed),
            left_out: 0,
        }
    }
}

/// The far end: the thread.
struct Far {
    sink: Box<dyn Sink>,
    tick: Box<dyn Tick>,
    shared: Arc<Shared>,
    /// Lost lines that were told.
    told: u64,
}

impl Far {
    fn run(mut self, items: &Receiver<Item>) {
        loop {
            match items.recv_timeout(TICK) {
                Ok(Item::Line(line)) => {
                    self.shared.waiting_bytes.fetch_sub(line.len(), Ordering::Relaxed);
                    self.write(&line);
                }
                Ok(Item::Reopen) => self.sink.reopen(),
                Ok(Item::Flush(done)) => {
                    self.say_by_itself();
                    // Whoever waited may have lost patience.
                    let _ = done.send(());
                }
                Err(RecvTimeoutError::Timeout) => self.say_by_itself(),
                Err(RecvTimeoutError::Disconnected) => return self.say_by_itself(),
            }
        }
    }

    fn say_by_itself(&mut self) {
        for line in self.tick.tick() {
            self.write(&line);
        }
    }

    fn write(&mut self, line: &str) {
        let lost = self.shared.lost.load(Ordering::Relaxed);
        if lost > self.told {
            let notice = self.tick.lost(lost - self.told);
            if self.sink.write(notice.as_bytes()).is_ok() {
                self.told = lost;
            }
        }
        let counter = match self.sink.write(line.as_bytes()) {
            Ok(()) => &self.shared.written,
            Err(_) => &self.shared.lost,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// A lock whose holder cannot leave half a change behind.
pub(super) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::Mutex;
    use std::sync::mpsc::Sender;

    /// A sink whose every line the test lets through, and may refuse.
    struct Gate {
        lines: Arc<Mutex<Vec<String>>>,
        gate: Arc<Mutex<()>>,
        broken: Arc<Mutex<bool>>,
        entered: Sender<()>,
    }

    impl Sink for Gate {
        fn write(&mut self, line: &[u8]) -> io::Result<()> {
            let _ = self.entered.send(());
            let _open = lock(&self.gate);
            if *lock(&self.broken) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            lock(&self.lines).push(String::from_utf8_lossy(line).into_owned());
            Ok(())
        }

        fn reopen(&mut self) {
            *lock(&self.broken) = false;
        }
    }

    struct Quiet;

    impl Tick for Quiet {
        fn tick(&mut self) -> Vec<String> {
            Vec::new()
        }

        fn lost(&mut self, lines: u64) -> String {
            format!("lost {lines}\n")
        }
    }

    type Lines = Arc<Mutex<Vec<String>>>;
    type Switches = (Arc<Mutex<()>>, Arc<Mutex<bool>>, Receiver<()>);

    fn writer() -> (Writer, Lines, Switches) {
        let (lines, gate, broken) = (Lines::default(), Arc::default(), Arc::default());
        let (entered, seen) = std::sync::mpsc::channel();
        let sink = Gate {
            lines: Arc::clone(&lines),
            gate: Arc::clone(&gate),
            broken: Arc::clone(&broken),
            entered,
        };
        let writer = Writer::start(Box::new(sink), Box::new(Quiet)).unwrap();
        (writer, lines, (gate, broken, seen))
    }

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn lines_are_written_in_order_and_a_flush_waits_for_them() {
        let (writer, lines, _switches) = writer();
        (0..100).for_each(|number| writer.write(format!("{number}\n")));
        assert!(writer.flush(PATIENCE));
        let expected: Vec<String> = (0..100).map(|number| format!("{number}\n")).collect();
        assert_eq!(*lock(&lines), expected);
        assert_eq!(writer.counts(), Counts { written: 100, ..Counts::default() });
    }

    #[test]
    fn a_sink_that_hangs_never_makes_anybody_wait_and_the_loss_is_told_later() {
        let (writer, lines, (gate, _, seen)) = writer();
        let closed = lock(&gate);
        writer.write("first\n".to_owned());
        seen.recv().unwrap(); // the thread has it and hangs
        for _ in 0..LINES_MAX + 10 {
            writer.write("x\n".to_owned());
        }
        assert_eq!(writer.counts().lost, 10);
        assert!(!writer.flush(Duration::from_millis(5)), "the end does not wait for ever");
        drop(closed);
        assert!(writer.flush(PATIENCE));
        assert_eq!(lock(&lines)[1], "lost 10\n");
        assert_eq!(writer.counts().written, LINES_MAX as u64 + 1);
    }

    #[test]
    fn long_lines_do_not_fill_the_memory() {
        let (writer, _, (gate, _, seen)) = writer();
        let closed = lock(&gate);
        writer.write("first\n".to_owned());
        seen.recv().unwrap();
        let long = "x".repeat(64 << 10);
        for _ in 0..BYTES_MAX / long.len() + 3 {
            writer.write(long.clone());
        }
        assert_eq!(writer.counts().lost, 3);
        drop(closed);
        assert!(writer.flush(PATIENCE));
    }

    #[test]
    fn what_a_dead_pipe_does_not_take_is_counted_until_it_is_opened_anew() {
        let (writer, lines, (_, broken, _)) = writer();
        *lock(&broken) = true;
        (0..7).for_each(|_| writer.write("x\n".to_owned()));
        assert!(writer.flush(PATIENCE));
        assert_eq!(writer.counts(), Counts { lost: 7, ..Counts::default() });
        writer.reopen();
        writer.write("y\n".to_owned());
        assert!(writer.flush(PATIENCE));
        assert_eq!(*lock(&lines), ["lost 7\n", "y\n"]);
    }
}
