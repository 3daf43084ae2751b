//! `sealane check`: whether this host can carry Sealane, before anything is installed, and whether what is installed
//! works. Changes nothing.

mod firewall;
mod host;
mod names;
mod peers;
mod ports;
mod running;

use sealane_fabric::overlay::UnderlayChoice;
use sealane_sys::run_dir::Daemon;
use serde::Serialize;

use crate::args::{Check, Common};
use crate::failure::Failure;
use crate::printer::{Printer, Row, Tone};

/// Verdict of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// As it should be.
    Ok,
    /// The subject works, but not in every case.
    Warning,
    /// The subject does not work.
    Problem,
}

/// Finding of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    area: &'static str,
    verdict: Verdict,
    finding: String,
    /// Remedy.
    hint: Option<String>,
}

impl Finding {
    fn ok(area: &'static str, finding: impl Into<String>) -> Self {
        Self { area, verdict: Verdict::Ok, finding: finding.into(), hint: None }
    }

    fn warning(area: &'static str, finding: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { area, verdict: Verdict::Warning, finding: finding.into(), hint: Some(hint.into()) }
    }

    fn problem(area: &'static str, finding: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { area, verdict: Verdict::Problem, finding: finding.into(), hint: Some(hint.into()) }
    }

    /// A problem whose text ends with what to do.
    fn told(area: &'static str, text: &str) -> Self {
        match text.split_once("; ") {
            Some((finding, hint)) => Self::problem(area, finding, hint.trim_start_matches("hint: ")),
            None => Self { area, verdict: Verdict::Problem, finding: text.to_owned(), hint: None },
        }
    }
}

impl Row for Finding {
    const HEADERS: &'static [&'static str] = &["CHECK", "VERDICT", "FINDING"];
    const NONE: &'static str = "nothing to check";

    fn cells(&self, _: std::time::SystemTime) -> Vec<String> {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Problem => "problem",
        };
        let hint = self.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
        vec![self.area.to_owned(), verdict.to_owned(), format!("{}{hint}", self.finding)]
    }

    const TONED: Option<&'static str> = Some("VERDICT");

    fn tone(word: &str) -> Tone {
        match word {
            "ok" => Tone::Good,
            "warning" => Tone::Doubtful,
            "problem" => Tone::Bad,
            _ => Tone::Plain,
        }
    }
}

/// `sealane check`.
pub(crate) fn call(check: &Check, common: &Common, printer: &Printer) -> Result<(), Failure> {
    if check.peers {
        return peers::call(common, printer);
    }
    let mut findings = host::privileges();
    if findings.iter().all(|finding| finding.verdict != Verdict::Problem) {
        findings.extend(host::kernel());
        findings.extend(host::limits());
        findings.extend(host::clock());
        let own = || running::underlay(common).map(UnderlayChoice::Address);
        findings.extend(host::underlay(&check.underlay.clone().or_else(own).unwrap_or_default()));
        findings.extend(ports::check(check, &common.run_dir));
        findings.extend(names::check());
        let rules = firewall::rules();
        findings.extend(rules.iter().flat_map(|rules| firewall::check(check, rules)));
        findings.extend(firewall::forwarding(
            &rules.unwrap_or_default(),
            running::runs(&common.run_dir, Daemon::Agent),
        ));
        findings.extend(host::disk(&check.data.data_dir));
        findings.extend(running::check(common));
    }
    printer.list(&findings)?;
    let problems = findings.iter().filter(|finding| finding.verdict == Verdict::Problem).count();
    match problems {
        0 => Ok(()),
        1 => Err(Failure::new("one check found a problem")),
        more => Err(Failure::new(format!("{more} checks found problems"))),
    }
}
