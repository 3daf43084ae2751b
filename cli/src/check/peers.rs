//! `sealane check --peers`: the ways between hosts, a row per host that sees the others and a column per host that is seen.

use std::collections::{BTreeMap, BTreeSet};

use sealane_proto::wire::v1;
use sealane_proto::wire::v1::agent_client::AgentClient;
use serde::Serialize;

use crate::args::Common;
use crate::client::{agent, answer, converse};
use crate::failure::Failure;
use crate::printer::Printer;

/// Number of hosts up to which all ways are printed.
const WHOLE: usize = 16;
/// Number of ways that are printed of a larger mesh.
const SHOWN: usize = 200;

/// Verdict on a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Unknown,
    Suspect,
    Unreachable,
    #[serde(rename = "channel down")]
    ChannelDown,
    #[serde(rename = "wrong checksums")]
    WrongChecksums,
    #[serde(rename = "black hole")]
    BlackHole,
}

/// The way from one host to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct WayView {
    to: String,
    verdict: Verdict,
    rtt_micros: Option<u64>,
    /// The share of the last echoes that got no answer, in a thousand.
    loss_permille: Option<u32>,
    /// The longest packets that pass, in bytes with the outer headers.
    path_mtu: Option<u32>,
    /// Null: the channel stands.
    channel_problem: Option<String>,
    /// Echoes of the other host that came within the look; null: not looked for.
    heard: Option<u32>,
}

/// The ways from one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct RowView {
    from: String,
    ways: Vec<WayView>,
    /// Obstacle to asking the host; null: it was asked.
    problem: Option<String>,
}

/// The matrix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct MatrixView {
    rows: Vec<RowView>,
    /// Faults between hosts, with what to do about them.
    problems: Vec<String>,
}

/// Prints the matrix; fails when a way is bad.
pub(super) fn call(common: &Common, printer: &Printer) -> Result<(), Failure> {
    let seen =
        converse(async { answer(AgentClient::new(agent(common).await?).peers(v1::PeersRequest {})).await })?;
    let matrix = MatrixView::from(seen);
    let names = matrix.names();
    let mut behind: Vec<String> = vec![String::new()];
    behind.extend(matrix.unasked());
    behind.extend(matrix.problems.iter().map(|problem| format!("problem: {problem}")));
    behind.push(matrix.summary());
    if names.len() <= WHOLE {
        let headers: Vec<&str> = std::iter::once("FROM").chain(names.iter().copied()).collect();
        printer.grid(&matrix, &headers, matrix.cells(&names), &behind)?;
    } else {
        printer.grid(&matrix, &["FROM", "TO", "WAY"], matrix.exceptions(), &behind)?;
    }
    if matrix.is_well() { Ok(()) } else { Err(Failure::unsaid()) }
}

impl WayView {
    fn is_bad(&self) -> bool {
        match self.verdict {
            Verdict::Ok | Verdict::Unknown | Verdict::Suspect => false,
            Verdict::Unreachable | Verdict::ChannelDown | Verdict::WrongChecksums | Verdict::BlackHole => {
                true
            }
        }
    }

    /// Describes the way in a cell of a table.
    fn text(&self) -> String {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Unknown => "unknown",
            Verdict::Suspect => "suspect",
            Verdict::Unreachable if self.channel_problem.is_some() => {
                return "unreachable, no channel".to_owned();
            }
            Verdict::Unreachable => return "unreachable".to_owned(),
            Verdict::ChannelDown => "no channel",
            Verdict::WrongChecksums => "wrong checksums",
            Verdict::BlackHole => "black hole",
        };
        let rtt = self.rtt_micros.map(|micros| format!(" {:.2} ms", micros as f64 / 1_000.0));
        let loss = self.loss_permille.filter(|&loss| loss > 0);
        let loss = loss.map(|loss| format!(", {:.1} % lost", f64::from(loss) / 10.0));
        let mtu = self.path_mtu.map(|mtu| format!(", {mtu} B"));
        [rtt, loss, mtu].into_iter().flatten().fold(verdict.to_owned(), |text, part| text + &part)
    }
}

impl From<v1::PeerCell> for WayView {
    fn from(cell: v1::PeerCell) -> Self {
        let verdict = match cell.reach.as_str() {
            "unreachable" => Verdict::Unreachable,
            _ if !cell.channel_problem.is_empty() => Verdict::ChannelDown,
            _ if cell.loses_checksums => Verdict::WrongChecksums,
            _ if cell.loses_long => Verdict::BlackHole,
            "reachable" => Verdict::Ok,
            "suspect" => Verdict::Suspect,
            _ => Verdict::Unknown,
        };
        Self {
            to: cell.node,
            verdict,
            rtt_micros: Some(cell.rtt_micros).filter(|&micros| micros > 0),
            loss_permille: cell.loss_permille,
            path_mtu: Some(cell.path_mtu).filter(|&mtu| mtu > 0),
            channel_problem: Some(cell.channel_problem).filter(|words| !words.is_empty()),
            heard: cell.heard,
        }
    }
}

impl From<v1::PeersResponse> for MatrixView {
    fn from(seen: v1::PeersResponse) -> Self {
        let row = |row: v1::PeersRow| RowView {
            from: row.node,
            ways: row.cells.into_iter().map(Into::into).collect(),
            problem: Some(row.problem).filter(|problem| !problem.is_empty()),
        };
        Self { rows: seen.rows.into_iter().map(row).collect(), problems: seen.problems }
    }
}

impl MatrixView {
    fn names(&self) -> Vec<&str> {
        let seen = self.rows.iter().flat_map(|row| &row.ways).map(|way| way.to.as_str());
        let names: BTreeSet<&str> = self.rows.iter().map(|row| row.from.as_str()).chain(seen).collect();
        names.into_iter().collect()
    }

    /// The rows of the whole table.
    fn cells(&self, names: &[&str]) -> Vec<Vec<String>> {
        let row = |row: &RowView| {
            let ways: BTreeMap<&str, &WayView> = row.ways.iter().map(|way| (way.to.as_str(), way)).collect();
            let cell = |name: &&str| match ways.get(name) {
                Some(way) => way.text(),
                None if row.problem.is_some() && *name != row.from => "?".to_owned(),
                None => "-".to_owned(),
            };
            std::iter::once(row.from.clone()).chain(names.iter().map(cell)).collect()
        };
        self.rows.iter().map(row).collect()
    }

    /// The ways that are not as they should be.
    fn exceptions(&self) -> Vec<Vec<String>> {
        let of = |row: &RowView| -> Vec<Vec<String>> {
            let ways = row.ways.iter().filter(|way| way.verdict != Verdict::Ok);
            ways.map(|way| vec![row.from.clone(), way.to.clone(), way.text()]).collect()
        };
        self.rows.iter().flat_map(of).take(SHOWN).collect()
    }

    /// Names the hosts that could not be asked.
    fn unasked(&self) -> impl Iterator<Item = String> {
        let unasked = self.rows.iter().filter_map(|row| Some((&row.from, row.problem.as_ref()?)));
        unasked.map(|(from, why)| format!("{from} could not be asked: {why}"))
    }

    fn summary(&self) -> String {
        let ways = || self.rows.iter().flat_map(|row| &row.ways);
        let (bad, all) = (ways().filter(|way| way.is_bad()).count(), ways().count());
        let doubtful = ways().filter(|way| !way.is_bad() && way.verdict != Verdict::Ok).count();
        let doubtful = if doubtful > 0 { format!(", {doubtful} in doubt") } else { String::new() };
        let (asked, hosts) = (self.rows.iter().filter(|row| row.problem.is_none()).count(), self.rows.len());
        let said = format!("{asked} of {hosts} hosts were asked: {bad} of {all} ways are bad{doubtful}");
        if hosts == 1 && all == 0 {
            return format!(
                "{said}; no other host shares a network with this one, and only such ways are watched"
            );
        }
        said
    }

    fn is_well(&self) -> bool {
        self.problems.is_empty() && !self.rows.iter().flat_map(|row| &row.ways).any(WayView::is_bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(node: &str, reach: &str) -> v1::PeerCell {
        let (node, reach) = (node.to_owned(), reach.to_owned());
        v1::PeerCell {
            node,
            reach,
            rtt_micros: 210,
            loss_permille: Some(0),
            heard: Some(5),
            ..Default::default()
        }
    }

    fn row(node: &str, cells: Vec<v1::PeerCell>, problem: &str) -> v1::PeersRow {
        v1::PeersRow { node: node.to_owned(), cells, problem: problem.to_owned() }
    }

    fn matrix(rows: Vec<v1::PeersRow>) -> MatrixView {
        v1::PeersResponse { rows, problems: vec![] }.into()
    }

    #[test]
    fn each_way_has_a_cell_and_a_host_that_cannot_be_asked_shows_so() {
        let lossy = v1::PeerCell { loss_permille: Some(25), path_mtu: 1_500, ..cell("b", "reachable") };
        let seen = matrix(vec![
            row("a", vec![lossy, cell("c", "unreachable")], ""),
            row("b", vec![cell("a", "suspect"), cell("c", "reachable")], ""),
            row("c", vec![], "there is no channel to it"),
        ]);
        let names = seen.names();
        assert_eq!(names, ["a", "b", "c"]);
        let expected = [
            ["a", "-", "ok 0.21 ms, 2.5 % lost, 1500 B", "unreachable"],
            ["b", "suspect 0.21 ms", "-", "ok 0.21 ms"],
            ["c", "?", "?", "-"],
        ];
        assert_eq!(seen.cells(&names), expected);
        assert_eq!(seen.unasked().collect::<Vec<_>>(), ["c could not be asked: there is no channel to it"]);
        assert_eq!(seen.summary(), "2 of 3 hosts were asked: 1 of 4 ways are bad, 1 in doubt");
        assert!(!seen.is_well());
    }

    #[test]
    fn of_a_large_mesh_the_ways_that_are_not_well_are_shown_and_verdicts_say_why() {
        let no_channel = v1::PeerCell { channel_problem: "nobody answers".into(), ..cell("b", "reachable") };
        let hole = v1::PeerCell { loses_long: true, ..cell("c", "reachable") };
        let wrong = v1::PeerCell { loses_checksums: true, ..cell("d", "reachable") };
        let seen = matrix(vec![row("a", vec![no_channel, hole, wrong, cell("e", "reachable")], "")]);
        let expected =
            [["b", "no channel 0.21 ms"], ["c", "black hole 0.21 ms"], ["d", "wrong checksums 0.21 ms"]];
        assert_eq!(seen.exceptions(), expected.map(|[to, way]| ["a", to, way]));
        let json = serde_json::to_value(&seen).unwrap();
        let verdicts = json["rows"][0]["ways"].as_array().unwrap().iter().map(|way| way["verdict"].clone());
        assert_eq!(verdicts.collect::<Vec<_>>(), ["channel down", "black hole", "wrong checksums", "ok"]);
        assert!(matrix(vec![row("a", vec![cell("b", "reachable")], "")]).is_well());
    }
}
