//! The ways between hosts, for `sealane check --peers`.

use sealane_proto::wire::v1;

use crate::matrix::Matrix;

/// Asks all hosts how they see each other.
pub(super) async fn seen(matrix: &Matrix) -> v1::PeersResponse {
    let rows = matrix.all().await;
    let problems = matrix.problems(&rows);
    let row = |(node, row): (_, Result<Vec<_>, String>)| {
        let (cells, problem) = match row {
            Ok(cells) => (cells.iter().map(Into::into).collect(), String::new()),
            Err(why) => (Vec::new(), why),
        };
        v1::PeersRow { node: sealane_proto::types::NodeName::to_string(&node), cells, problem }
    };
    v1::PeersResponse { rows: rows.into_iter().map(row).collect(), problems }
}
