//! Groups over UNIX sockets: what is tested over TCP is tested over them, too, wherever a test
//! does not speak of ports.

#![allow(clippy::duplicate_mod, reason = "each file of tests brings what it needs")]

mod common;

// In this crate a cluster listens on sockets that are files.
#[path = "clients.rs"]
mod clients;
#[path = "group.rs"]
mod group;
#[path = "recovery.rs"]
mod recovery;

use std::os::unix::net::UnixListener;

use common::Cluster;
use genesis::Address;
use rt::StartError;

/// A replica that goes leaves no file, one that starts again listens anew, and one that is up is
/// not displaced.
#[test]
fn sockets_come_and_go_with_their_replicas() {
    let mut cluster = Cluster::start(4, 2, 1, &[]);
    let client = cluster.client(0, 1).open();
    let files = |id: usize| -> Vec<std::path::PathBuf> {
        let addresses = cluster.group.replicas()[id].addresses.iter();
        addresses.filter_map(Address::path).map(std::path::Path::to_path_buf).collect()
    };
    let of_three = files(3);
    assert!(of_three.len() == 2 && of_three.iter().all(|file| file.exists()));
    let told = cluster.try_start(3, None).expect_err("it runs").to_string();
    assert!(told.contains("listens on this socket already"), "{told}");
    drop(client);
    cluster.stop_one(3);
    assert!(of_three.iter().all(|file| !file.exists()));
    // As kill -9 leaves them: files that nobody listens on.
    for file in &of_three {
        drop(UnixListener::bind(file).expect("free"));
    }
    cluster.start_one(3, None);
    cluster.client(0, 2).open().drive(1, 20, 4);
    cluster.agree();
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let cluster = Cluster::start(4, 1, 1, &[0]);
    let address = &cluster.group.replicas()[0].addresses[0];
    let path = address.path().expect("a socket").to_path_buf();
    std::fs::write(&path, "precious").expect("written");
    let error = cluster.try_start(0, None).expect_err("it is taken");
    assert!(matches!(&error, StartError::Listen { address: told, .. } if told == address));
    assert_eq!(std::fs::read(&path).expect("untouched"), b"precious");
}
