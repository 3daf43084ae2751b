//! Descriptors whose readability is awaited: a pidfd (the process has ended), a socket (the peer has gone).
#![allow(unsafe_code, reason = "tokio asks for a promise that a descriptor stays open; ours are owned")]

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use sealane_sys::Process;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Readable when the process has ended.
///
/// # Errors
/// When the runtime cannot watch it.
pub fn process(process: Process) -> io::Result<AsyncFd<Process>> {
    // SAFETY: a `Process` owns its pidfd and answers with the same one until it is dropped.
    unsafe { AsyncFd::register_with_interest(process, Interest::READABLE) }.map_err(Into::into)
}

/// Of the kernel's files that tell of changes as of something urgent.
///
/// # Errors
/// When the runtime cannot watch it.
pub fn priority(file: File) -> io::Result<AsyncFd<File>> {
    // SAFETY: a `File` is open until it is dropped, and has always the same descriptor.
    unsafe { AsyncFd::register_with_interest(file, Interest::PRIORITY) }.map_err(Into::into)
}

/// Readable when there is something to read, the end included.
///
/// # Errors
/// When the runtime cannot watch it.
pub fn socket(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open until it is dropped, and is always the same.
    unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }.map_err(Into::into)
}
