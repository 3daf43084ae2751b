//! Records of names.

use std::time::SystemTime;

use hickory_proto::rr::Record;
use serde::Serialize;

use crate::printer::Row;

/// A record as `dns query` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct RecordView {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    ttl_seconds: u32,
    data: String,
}

impl From<&Record> for RecordView {
    fn from(record: &Record) -> Self {
        Self {
            name: record.name.to_string(),
            kind: record.record_type().to_string(),
            ttl_seconds: record.ttl,
            data: record.data.to_string(),
        }
    }
}

impl Row for RecordView {
    const HEADERS: &'static [&'static str] = &["NAME", "TYPE", "TTL", "DATA"];
    const NONE: &'static str = "no records";

    fn cells(&self, _: SystemTime) -> Vec<String> {
        vec![self.name.clone(), self.kind.clone(), format!("{} s", self.ttl_seconds), self.data.clone()]
    }
}
