//! A workload's certificate.

use std::time::SystemTime;

use sealane_proto::wire::v1;
use serde::Serialize;

use super::{PortView, modes, rfc3339, text};
use crate::printer::{self, Sheet};

/// View of `identity`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct IdentityView {
    workload: String,
    network: String,
    spiffe_id: String,
    /// Leaf first, the authority last.
    chain: Vec<CertificateDetail>,
    /// Time at which the agent asks control for the next certificate.
    #[serde(serialize_with = "rfc3339")]
    renewed_from: Option<SystemTime>,
    control_connected: bool,
    /// For the ports that say nothing else: `strict` or `permissive`.
    mtls: String,
    /// The ports that it offers, each with the mode in effect.
    ports: Vec<PortView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct CertificateDetail {
    /// Null: the certificate names its holder by SPIFFE id alone.
    subject: Option<String>,
    issuer: String,
    serial: String,
    key_algorithm: String,
    #[serde(serialize_with = "rfc3339")]
    not_before: Option<SystemTime>,
    #[serde(serialize_with = "rfc3339")]
    not_after: Option<SystemTime>,
    authority: bool,
}

impl From<v1::IdentityView> for IdentityView {
    fn from(view: v1::IdentityView) -> Self {
        Self {
            workload: view.workload,
            network: view.network,
            spiffe_id: view.spiffe_id,
            chain: view.chain.into_iter().map(Into::into).collect(),
            renewed_from: printer::instant(view.renew_unix_seconds),
            control_connected: view.control_connected,
            mtls: view.mtls,
            ports: view.ports.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<v1::CertificateDetail> for CertificateDetail {
    fn from(detail: v1::CertificateDetail) -> Self {
        Self {
            subject: text(detail.subject),
            issuer: detail.issuer,
            serial: detail.serial,
            key_algorithm: detail.key_algorithm,
            not_before: printer::instant(detail.not_before_unix_seconds),
            not_after: printer::instant(detail.not_after_unix_seconds),
            authority: detail.authority,
        }
    }
}

impl CertificateDetail {
    fn lines(&self, now: SystemTime) -> Vec<(&'static str, String)> {
        let at = |instant: Option<SystemTime>| {
            instant.map_or_else(|| "-".to_owned(), |at| humantime::format_rfc3339_seconds(at).to_string())
        };
        let left = self.not_after.map_or_else(|| "-".to_owned(), |end| printer::remaining(end, now));
        vec![
            (if self.authority { "authority" } else { "certificate" }, format!("serial {}", self.serial)),
            ("  subject", self.subject.clone().unwrap_or_else(|| "by SPIFFE id alone".to_owned())),
            ("  issuer", self.issuer.clone()),
            ("  key", self.key_algorithm.clone()),
            ("  not before", at(self.not_before)),
            ("  not after", format!("{}, ends {left}", at(self.not_after))),
        ]
    }

    fn ends(&self, now: SystemTime) -> String {
        self.not_after.map_or_else(|| "-".to_owned(), |end| printer::remaining(end, now))
    }
}

impl Sheet for IdentityView {
    fn lines(&self, now: SystemTime) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            ("workload", self.workload.clone()),
            ("network", self.network.clone()),
            ("spiffe id", self.spiffe_id.clone()),
            ("mtls", modes(&self.mtls, &self.ports)),
        ];
        lines.extend(self.chain.iter().flat_map(|certificate| certificate.lines(now)));
        let due = self.renewed_from.is_some_and(|from| from <= now);
        let renewal = match (due, self.renewed_from) {
            (false, Some(from)) => format!("{}, by this host's agent", printer::remaining(from, now)),
            (true, _) | (false, None) => "due now, tried again and again by this host's agent".to_owned(),
        };
        lines.push(("renewal", renewal));
        let ends = self.chain.first().map_or_else(|| "-".to_owned(), |leaf| leaf.ends(now));
        let control = if self.control_connected { "control is there" } else { "control is away" };
        let runway = format!(
            "{control}; without it this certificate is good until it ends {ends}, and calls go on until then"
        );
        lines.push(("runway", runway));
        lines
    }
}
