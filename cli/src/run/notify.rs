//! A service manager's socket for sd_notify(3), as the command will see it.

use crate::printer::Printer;

/// Says when the command will not be able to tell its service manager that it is ready.
pub(super) fn check(printer: &Printer) {
    if let Some(name) = std::env::var("NOTIFY_SOCKET").ok().filter(|name| is_abstract(name)) {
        printer.talk(&format!(
            "NOTIFY_SOCKET {name} is an abstract socket, which belongs to the host's network: the command cannot reach \
             it; a socket with a path can be reached"
        ));
    }
}

/// Abstract sockets are those of a network namespace (unix(7)); those with a path are anybody's who sees the path.
fn is_abstract(name: &str) -> bool {
    name.starts_with('@')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_with_a_path_pass_through() {
        assert!(is_abstract("@/org/freedesktop/systemd1/notify") && !is_abstract("/run/systemd/notify"));
    }
}
