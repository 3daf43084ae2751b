//! `sealane status`.

use sealane_proto::wire::v1;

use crate::args::Common;
use crate::client::{answer, converse, read};
use crate::failure::Failure;
use crate::printer::Printer;
use crate::view::StatusView;

/// `sealane status`.
pub(crate) fn call(common: &Common, printer: &Printer) -> Result<(), Failure> {
    let status = converse(async { answer(read(common).await?.status(v1::StatusRequest {})).await })?;
    printer.sheet(&StatusView::from(status))
}
