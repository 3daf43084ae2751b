//! Chapter: requests are balanced, and both ends know who the other is.

use std::collections::BTreeMap;

use crate::demo::flaw::{Flaw, ensure, eventually};
use crate::demo::narrator::Narrator;
use crate::demo::stage::Stage;

pub(super) fn chapter(stage: &mut Stage, narrator: &mut Narrator) -> Result<(), Flaw> {
    narrator.chapter(
        "Calls",
        "web calls http://api:8080/. Its sidecar picks the instance that answers soonest for each request, and the\n\
         sidecars prove to each other who they are.",
    );
    narrator.claim("60 requests, 10 at a time, reach every host", || {
        let answers = stage.calls(60, &[])?;
        let counts = by_host(&answers);
        let all = stage.hosts().iter().all(|host| counts.contains_key(host.name()));
        let told: Vec<String> = counts.iter().map(|(host, count)| format!("{host} {count}")).collect();
        ensure(all && counts.values().sum::<usize>() == 60, || {
            format!("answers came from {}", told.join(", "))
        })?;
        Ok(told.join(", "))
    })?;
    narrator.claim("web's sidecar is", || certificate(stage, 0, "spiffe://sealane/net/shop/wl/web"))?;
    narrator
        .claim("api's sidecar on host-2 is", || certificate(stage, 1, "spiffe://sealane/net/shop/svc/api"))?;
    narrator.claim("host-2 has counted calls of web to api, by their certificates", || {
        let labels = [
            "direction=\"inbound\"",
            "source_service=\"_none\"",
            "destination_service=\"api\"",
            "code_class=\"2xx\"",
        ];
        let count =
            eventually(|| series(&stage.metrics(&stage.hosts()[1])?, "sealane_requests_total", &labels))?;
        Ok(format!("{count} answered"))
    })
}

/// Answers by the host they came from.
fn by_host(answers: &str) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for host in answers.lines().filter_map(|line| line.strip_prefix("api on ")) {
        *counts.entry(host).or_default() += 1;
    }
    counts
}

fn certificate(stage: &Stage, host: usize, identity: &str) -> Result<String, Flaw> {
    let label = format!("identity=\"{identity}\"");
    eventually(|| {
        let metrics = stage.metrics(&stage.hosts()[host])?;
        series(&metrics, "sealane_certificate_expiry_timestamp_seconds", &[&label])
    })?;
    Ok(identity.to_owned())
}

/// Returns the value of the first series of this name with these labels.
pub(super) fn series(metrics: &str, name: &str, labels: &[&str]) -> Result<String, Flaw> {
    let line = metrics.lines().find(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    });
    let value = line.and_then(|line| line.rsplit(' ').next());
    value.map(str::to_owned).ok_or_else(|| Flaw::new(format!("no series {name}{{{}}}", labels.join(","))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_host() {
        let counts = by_host("api on host-1\napi on host-2\ncurl: (7) refused\napi on host-1\n");
        assert_eq!(counts, BTreeMap::from([("host-1", 2), ("host-2", 1)]));
    }

    #[test]
    fn a_series_is_found_by_its_whole_name_and_all_labels() {
        let metrics = "a_total_more{x=\"1\"} 1\na_total{x=\"2\",y=\"3\"} 5\nb 7\n";
        assert_eq!(series(metrics, "a_total", &["y=\"3\"", "x=\"2\""]).unwrap(), "5");
        assert_eq!(series(metrics, "b", &[]).unwrap(), "7");
        assert!(series(metrics, "a_total", &["x=\"1\""]).is_err());
    }
}
