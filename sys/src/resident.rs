//! Resident memory of long-lived small processes: program pages that only the start needed, and what a busy time has left
//! free in the heap.
//!
//! The kernel maps up to 16 pages around every page of a program that is touched (fault-around,
//! `fault_around_bytes`), so after the start a process counts megabytes of code as resident that it never runs.
//! Giving them back leaves them in the page cache, shared, and what is used comes back by minor faults.
#![allow(
    unsafe_code,
    reason = "madvise(2) on ranges that are shown to hold nothing but pages of a file; mallopt(3), malloc_trim(3)"
)]

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::mm::{Advice, madvise};

const SMAPS: &str = "/proc/self/smaps";
const STATUS: &str = "/proc/self/status";

/// Unmaps every page of this process that is a clean, read-only page of a file. Returns how many KiB of mappings
/// were gone through. The process goes on as before; what it touches next is mapped again from the page cache.
///
/// # Errors
/// When /proc is not mounted or the kernel refuses.
pub fn release_file_pages() -> io::Result<u64> {
    let smaps = of_this_process(SMAPS, |sight| &sight.smaps)?;
    let mut released = 0;
    for range in clean_file_ranges(&smaps) {
        let (start, length) = (range.start, range.end - range.start);
        let address = std::ptr::without_provenance_mut(start);
        // SAFETY: the mapping is private, read-only, of a file, and the kernel counts no anonymous page in it, so
        // that each of its pages is the file's own and comes back unchanged with the next access (MADV_DONTNEED in
        // madvise(2)). Relocated data has anonymous pages and is never among them.
        unsafe { madvise(address, length, Advice::LinuxDontNeed) }?;
        released += length as u64 / 1024;
    }
    Ok(released)
}

/// Files that are read where /proc is out of sight.
#[derive(Debug)]
struct Sight {
    smaps: Mutex<File>,
    status: Mutex<File>,
}

static SIGHT: OnceLock<Sight> = OnceLock::new();

/// Lets [`release_file_pages`] and [`anonymous`] work on when /proc is out of sight later.
pub fn keep_sight() {
    if let (Ok(smaps), Ok(status)) = (File::open(SMAPS), File::open(STATUS)) {
        // Another call has opened the same.
        let _ = SIGHT.set(Sight { smaps: Mutex::new(smaps), status: Mutex::new(status) });
    }
}

fn of_this_process(path: &str, kept: fn(&Sight) -> &Mutex<File>) -> io::Result<String> {
    let Some(sight) = SIGHT.get() else { return fs::read_to_string(path) };
    let mut file = kept(sight).lock().unwrap_or_else(PoisonError::into_inner);
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// The most heaps of the process: with one per thread, as glibc has it, what many threads have freed stays with each.
const ARENAS: libc::c_int = 2;

/// Bounds the number of heaps; to be called before there are threads.
pub fn bound_heaps() {
    // SAFETY: it takes two numbers, and changes what glibc does later.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS)
    };
}

/// Gives free memory of the heap back to the kernel, from the middle as well as from the end.
pub fn release_heap() {
    // SAFETY: glibc's own locks make it safe beside every other use of the heap.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}

/// Returns the resident bytes of this process that belong to no file.
///
/// # Errors
/// When /proc is not mounted.
pub fn anonymous() -> io::Result<usize> {
    let status = of_this_process(STATUS, |sight| &sight.status)?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<usize>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other("no RssAnon in /proc/self/status"))
}

/// The read-only private mappings of files in which no page was ever written.
fn clean_file_ranges(smaps: &str) -> Vec<std::ops::Range<usize>> {
    let mut ranges = Vec::new();
    let mut candidate = None;
    for line in smaps.lines() {
        if let Some(header) = header(line) {
            candidate = header.is_read_only_file.then_some(header.range);
        } else if let Some(rest) = line.strip_prefix("Anonymous:") {
            ranges.extend(candidate.take().filter(|_| rest.trim() == "0 kB"));
        }
    }
    ranges
}

struct Header {
    range: std::ops::Range<usize>,
    is_read_only_file: bool,
}

/// `start-end perms offset dev inode path`, proc_pid_maps(5).
fn header(line: &str) -> Option<Header> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
    let permissions = fields.next()?;
    let inode = fields.nth(2)?;
    let is_read_only_file = matches!(permissions, "r--p" | "r-xp") && inode != "0";
    Some(Header { range, is_read_only_file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clean_read_only_pages_of_files_are_given_back() {
        let smaps = "\
            1000-3000 r-xp 00000000 fe:00 17 /usr/bin/sealane\nSize: 8 kB\nAnonymous:             0 kB\n\
            3000-4000 r--p 00002000 fe:00 17 /usr/bin/sealane\nAnonymous:             4 kB\n\
            4000-5000 rw-p 00003000 fe:00 17 /usr/bin/sealane\nAnonymous:             0 kB\n\
            5000-6000 r--p 00000000 00:00 0 [vvar]\nAnonymous:             0 kB\n";
        assert_eq!(clean_file_ranges(smaps), vec![std::ops::Range { start: 0x1000, end: 0x3000 }]);
    }

    #[test]
    fn a_process_goes_on_after_its_pages_were_given_back() {
        assert!(release_file_pages().unwrap() > 0);
        keep_sight();
        let before = anonymous().unwrap();
        assert!(before > 0);
        let more = vec![1_u8; 64 << 20];
        assert!(anonymous().unwrap() > before + more.len() / 2, "what is kept open tells what is so now");
        assert!(release_file_pages().unwrap() > 0);
        assert!(release_file_pages().unwrap() > 0);
        bound_heaps();
        release_heap();
        let text: String = (0..100).map(|number| number.to_string()).collect();
        assert_eq!(text.len(), 190);
    }

    #[test]
    fn memory_that_is_no_files_is_known() {
        let before = anonymous().unwrap();
        let taken = vec![1_u8; 32 << 20];
        assert!(anonymous().unwrap() > before + (30 << 20), "{}", taken.len());
    }
}
