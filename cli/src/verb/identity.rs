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
    let named = workload.reference().map_err(Failure::usage)?;
    let network = named.network.map(|network| network.to_string()).unwrap_or_default();
    let request = v1::IdentityRequest { workload: named.name.to_string(), network };
    let shown = converse(async { answer(AgentClient::new(agent(common).await?).identity(request)).await })?;
    printer.sheet(&IdentityView::from(shown))
}
