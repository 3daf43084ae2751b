//! Logs: to standard error, as text or JSON lines, by `SEALANE_LOG` (tracing's filter syntax).

use std::io;

use tracing_subscriber::EnvFilter;

/// The variable that holds the log filter; `info` without it.
pub const LOG_VARIABLE: &str = "SEALANE_LOG";
/// The variable that chooses the format: `text` (default) or `json`.
pub const FORMAT_VARIABLE: &str = "SEALANE_LOG_FORMAT";

/// Starts logging for the process. Later calls change nothing.
pub fn init() {
    let filter = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let json = std::env::var(FORMAT_VARIABLE).is_ok_and(|format| format == "json");
    // A second start in one process (control and agent under `up`) finds the logger there already.
    let _ = if json {
        builder.json().try_init()
    } else {
        builder.with_target(false).with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init()
    };
}
