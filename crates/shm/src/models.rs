//! A ring's two ends, in every order that the memory model allows.
//!
//! Built and run by `cargo xtask loom`. Each model drives the production type, and has a twin with
//! a planted bug that must be found.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use loom::sync::{Condvar, Mutex};
use loom::thread;

use crate::ring::{CONTROL_WORDS, Consumer, Memory, Producer};
use crate::sync::Word;

struct Words(Vec<Word>);

impl Memory for Arc<Words> {
    fn words(&self) -> &[Word] {
        &self.0
    }
}

/// Two words: room for one.
fn ring() -> (Producer<Arc<Words>>, Consumer<Arc<Words>>) {
    let words = Arc::new(Words((0..CONTROL_WORDS + 2).map(|_| Word::new(0)).collect()));
    (Producer::new(Arc::clone(&words), 0, 2), Consumer::new(words, 0, 2))
}

/// The socket that bells ring on, as its reader sees it.
#[derive(Default)]
struct Socket {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Socket {
    fn ring(&self) {
        *self.rung.lock().expect("nobody panics with it") = true;
        self.changed.notify_one();
    }

    fn wait(&self) {
        let mut rung = self.rung.lock().expect("nobody panics with it");
        while !*rung {
            rung = self.changed.wait(rung).expect("nobody panics with it");
        }
        *rung = false;
    }
}

fn fails(model: impl Fn() + Send + Sync + 'static) -> bool {
    catch_unwind(AssertUnwindSafe(|| loom::model(model))).is_err()
}

/// Bytes from a writer to a reader that sleeps whenever it finds none.
fn bytes(ring_first: bool, chunks: &'static [&'static [u8]]) {
    let (mut tx, mut rx) = ring();
    let socket = Arc::new(Socket::default());
    let bell = Arc::clone(&socket);
    let writer = thread::spawn(move || {
        for chunk in chunks {
            if ring_first && tx.rouse() {
                bell.ring();
            }
            assert_eq!(tx.write(chunk), Ok(chunk.len()));
            if !ring_first && tx.rouse() {
                bell.ring();
            }
        }
    });
    let expected = chunks.concat();
    let mut got = Vec::new();
    while got.len() < expected.len() {
        let mut into = [0; 8];
        let read = rx.read(&mut into).expect("sound");
        got.extend_from_slice(&into[..read]);
        if read == 0 && rx.doze().expect("sound") {
            socket.wait();
        }
    }
    assert_eq!(got, expected);
    writer.join().expect("ends");
}

#[test]
fn what_is_written_is_read_and_no_bell_is_lost() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(|| bytes(false, &[b"ab", b"cde"]));
}

#[test]
fn a_bell_before_the_bytes_is_found_out() {
    assert!(fails(|| bytes(true, &[b"ab"])));
}

/// A writer that waits for room, and a reader that makes some.
fn room(read_first: bool) {
    let (mut tx, mut rx) = ring();
    let socket = Arc::new(Socket::default());
    let bell = Arc::clone(&socket);
    assert_eq!(tx.write(b"12345678"), Ok(8));
    let reader = thread::spawn(move || {
        let mut into = [0; 8];
        if !read_first && rx.rouse() {
            bell.ring();
        }
        assert_eq!(rx.read(&mut into), Ok(8));
        if read_first && rx.rouse() {
            bell.ring();
        }
        into
    });
    while tx.write(b"9").expect("sound") == 0 {
        if tx.await_room().expect("sound") {
            socket.wait();
        }
    }
    assert_eq!(&reader.join().expect("ends"), b"12345678");
}

#[test]
fn a_writer_learns_of_room() {
    loom::model(|| room(true));
}

#[test]
fn a_bell_before_there_is_room_is_found_out() {
    assert!(fails(|| room(false)));
}
