//! System calls that a confined process may make (seccomp(2)): those of a list, some with certain arguments alone.
//! Others fail with EPERM, and make no difference to a program that does not need them.
#![allow(unsafe_code, reason = "seccomp(2) takes a pointer to a program, which lives until it returns")]

use std::io;

use libc::{c_long, sock_filter, sock_fprog};

/// The kernel's number of this architecture (linux/audit.h); `None` where the list was never tried.
const ARCHITECTURE: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0xc000_003e)
} else if cfg!(target_arch = "aarch64") {
    Some(0xc000_00b7)
} else {
    None
};

/// Condition on a call's arguments, of which the lower half is looked at: the kernel looks at no more.
#[derive(Clone, Copy, Debug)]
enum Condition {
    /// Demands one of these values of this argument.
    OneOf(u8, &'static [u32]),
    /// Demands these bits of this argument.
    Bits(u8, u32, u32),
    /// Demands the process itself as this argument.
    Own(u8),
    /// Demands a null pointer as this argument.
    Null(u8),
}

/// The most frequent first. The kernel remembers what passes whatever its arguments are, so most cost nothing.
const ALLOWED: &[c_long] = &[
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_epoll_ctl,
    libc::SYS_futex,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_close,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_ioctl,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_ppoll,
    libc::SYS_epoll_create1,
    libc::SYS_eventfd2,
    libc::SYS_pipe2,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_membarrier,
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getcpu,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getrusage,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Calls that other architectures do not have.
#[cfg(target_arch = "x86_64")]
const OLDER: &[c_long] = &[libc::SYS_epoll_wait, libc::SYS_poll, libc::SYS_time, libc::SYS_dup2];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[c_long] = &[];

const STREAM: Condition = Condition::Bits(1, 0xf, libc::SOCK_STREAM as u32);
/// PR_SET_VMA of linux/prctl.h: the C library names its memory.
const NAME_MEMORY: u32 = 0x5356_4d41;

/// Calls that depend on their arguments: sockets of TCP and to the agent, threads, memory without code in it, signals to
/// the process itself.
const CONDITIONAL: &[(c_long, &[Condition])] = &[
    (
        libc::SYS_socket,
        &[Condition::OneOf(0, &[libc::AF_INET as u32, libc::AF_INET6 as u32, libc::AF_UNIX as u32]), STREAM],
    ),
    (libc::SYS_socketpair, &[Condition::OneOf(0, &[libc::AF_UNIX as u32])]),
    (libc::SYS_mmap, &[Condition::Bits(2, libc::PROT_EXEC as u32, 0)]),
    (libc::SYS_mprotect, &[Condition::Bits(2, libc::PROT_EXEC as u32, 0)]),
    (libc::SYS_clone, &[Condition::Bits(0, libc::CLONE_THREAD as u32, libc::CLONE_THREAD as u32)]),
    (libc::SYS_prlimit64, &[Condition::Null(2)]),
    (
        libc::SYS_prctl,
        &[Condition::OneOf(0, &[libc::PR_SET_NAME as u32, libc::PR_GET_NAME as u32, NAME_MEMORY])],
    ),
    (libc::SYS_tgkill, &[Condition::Own(0)]),
];

/// Fails as if the kernel had it not, whereupon the C library makes threads by `clone`, whose flags can be seen.
const UNKNOWN: c_long = libc::SYS_clone3;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const EQUALS: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
/// Places in struct seccomp_data.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const ABSENT: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// Holds the process and all threads that it will have to the list.
pub(super) fn install() -> io::Result<()> {
    let Some(architecture) = ARCHITECTURE else { return Ok(()) };
    let mut program = program(architecture, std::process::id());
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let described = sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: the pointers are to what lives until the end of this function; the kernel copies it.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            // Without it, older kernels slow down every process that has a filter.
            libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            &raw const described,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn program(architecture: u32, own: u32) -> Vec<sock_filter> {
    let mut program = vec![
        step(LOAD, ARCH),
        jump(architecture, 1, 0),
        step(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
        step(LOAD, NUMBER),
    ];
    for &call in ALLOWED.iter().chain(OLDER) {
        program.extend([jump(call as u32, 0, 1), step(RETURN, ALLOW)]);
    }
    program.extend([jump(UNKNOWN as u32, 0, 1), step(RETURN, ABSENT)]);
    for (call, conditions) in CONDITIONAL {
        let mut block: Vec<sock_filter> =
            conditions.iter().flat_map(|condition| condition.steps(own)).collect();
        block.push(step(RETURN, ALLOW));
        // No block is that long.
        program.push(jump(*call as u32, 0, u8::try_from(block.len()).unwrap_or(u8::MAX)));
        program.extend(block);
    }
    program.push(step(RETURN, REFUSE));
    program
}

impl Condition {
    /// Goes on behind the last step where the condition holds, and refuses otherwise.
    fn steps(self, own: u32) -> Vec<sock_filter> {
        let low = |argument: u8| step(LOAD, ARGUMENTS + 8 * u32::from(argument));
        match self {
            Self::OneOf(argument, values) => {
                let count = values.len();
                // Over the rest of the values and the refusal.
                let over = |place: usize| u8::try_from(count - place).unwrap_or(u8::MAX);
                let jumps = values.iter().enumerate().map(|(place, value)| jump(*value, over(place), 0));
                let tail = [step(RETURN, REFUSE)];
                [low(argument)].into_iter().chain(jumps).chain(tail).collect()
            }
            Self::Bits(argument, mask, value) => {
                vec![low(argument), step(AND, mask), jump(value, 1, 0), step(RETURN, REFUSE)]
            }
            Self::Own(argument) => vec![low(argument), jump(own, 1, 0), step(RETURN, REFUSE)],
            Self::Null(argument) => {
                let high = step(LOAD, ARGUMENTS + 8 * u32::from(argument) + 4);
                let check = [jump(0, 1, 0), step(RETURN, REFUSE)];
                [low(argument)].into_iter().chain(check).chain([high]).chain(check).collect()
            }
        }
    }
}

fn step(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

/// Compares; the counts are of the steps that are left out where it is equal, and where it is not.
fn jump(k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: EQUALS, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: u32 = 0xc000_003e;
    const OWN: u32 = 4711;

    /// Computes the kernel's verdict, by the steps that are used here.
    fn verdict(architecture: u32, call: c_long, arguments: [u64; 3]) -> u32 {
        let program = program(HERE, OWN);
        let load = |place: u32| match place {
            NUMBER => call as u32,
            ARCH => architecture,
            _ => {
                let argument = arguments[(place - ARGUMENTS) as usize / 8];
                if place.is_multiple_of(8) { argument as u32 } else { (argument >> 32) as u32 }
            }
        };
        let (mut at, mut value) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            match code {
                LOAD => value = load(k),
                AND => value &= k,
                EQUALS => at += usize::from(if value == k { jt } else { jf }),
                RETURN => return k,
                _ => panic!("step {code}"),
            }
        }
    }

    #[test]
    fn what_is_not_listed_is_refused() {
        for call in [
            libc::SYS_execve,
            libc::SYS_openat,
            libc::SYS_kill,
            libc::SYS_ptrace,
            libc::SYS_bpf,
            libc::SYS_unshare,
        ] {
            assert_eq!(verdict(HERE, call, [0; 3]), REFUSE, "{call}");
        }
        for call in ALLOWED {
            assert_eq!(verdict(HERE, *call, [u64::MAX; 3]), ALLOW, "{call}");
        }
        assert_eq!(verdict(HERE, libc::SYS_clone3, [0; 3]), ABSENT);
        assert_eq!(verdict(0x4000_0003, libc::SYS_read, [0; 3]), libc::SECCOMP_RET_KILL_PROCESS);
    }

    #[test]
    fn some_calls_pass_with_certain_arguments_alone() {
        let (stream, raw) = (libc::SOCK_STREAM as u64, libc::SOCK_RAW as u64);
        let options = (libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) as u64;
        let thread = (libc::CLONE_THREAD | libc::CLONE_VM) as u64;
        let table: [(c_long, [u64; 3], u32); 14] = [
            (libc::SYS_socket, [libc::AF_INET as u64, stream | options, 6], ALLOW),
            (libc::SYS_socket, [libc::AF_INET6 as u64, stream, 6], ALLOW),
            (libc::SYS_socket, [libc::AF_UNIX as u64, stream, 0], ALLOW),
            (libc::SYS_socket, [libc::AF_INET as u64, raw, 0], REFUSE),
            (libc::SYS_socket, [libc::AF_PACKET as u64, stream, 0], REFUSE),
            (libc::SYS_socket, [libc::AF_NETLINK as u64, stream, 0], REFUSE),
            (libc::SYS_mmap, [0, 4096, 3], ALLOW),
            (libc::SYS_mprotect, [0, 4096, 5], REFUSE),
            (libc::SYS_clone, [thread, 0, 0], ALLOW),
            (libc::SYS_clone, [libc::SIGCHLD as u64, 0, 0], REFUSE),
            (libc::SYS_prlimit64, [0, 7, 0], ALLOW),
            (libc::SYS_prlimit64, [0, 7, 1 << 40], REFUSE),
            (libc::SYS_tgkill, [u64::from(OWN), 1, 6], ALLOW),
            (libc::SYS_tgkill, [1, 1, 6], REFUSE),
        ];
        for (call, arguments, expected) in table {
            assert_eq!(verdict(HERE, call, arguments), expected, "{call} {arguments:?}");
        }
    }
}
