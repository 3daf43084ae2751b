//! `sealane identity`.

use sealane_proto::wire::v1;
use sealane_proto::wire::v1::agent_client::AgentClient;

use crate::args::{Common, NamedWorkload};
use crate::client::{agent, answer, converse};
use crate::failure::Failure;
use crate::printer::Printer;
use crate::view::IdentityView;

/// `sealane identity`.
pub(crate) fn call(workload: &NamedWorkload, common: &Common, printer: &Printer) -> Result<(), Failure> {
    let network = workload.network.as_ref().map(ToString::to_string).unwrap_or_default();
    let request = v1::IdentityRequest { workload: workload.name.to_string(), network };
    let shown = converse(async { answer(AgentClient::new(agent(common).await?).identity(request)).await })?;
    printer.sheet(&IdentityView::from(shown))
}
