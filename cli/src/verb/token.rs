//! `sealane token`.

use std::time::{Duration, SystemTime};

use sealane_proto::wire::v1;

use crate::args::{Common, Token, TokenAction};
use crate::client::{admin, answer, converse};
use crate::failure::Failure;
use crate::printer::{self, Printer};
use crate::view::{NewToken, TokenView};

/// `sealane token create|ls`.
pub(crate) fn call(token: &Token, common: &Common, printer: &Printer) -> Result<(), Failure> {
    match token.action {
        TokenAction::Create { ttl } => create(ttl, common, printer),
        TokenAction::Ls => list(common, printer),
    }
}

fn create(ttl: Duration, common: &Common, printer: &Printer) -> Result<(), Failure> {
    let request = v1::CreateTokenRequest { ttl_seconds: ttl.as_secs() };
    let created = converse(async { answer(admin(common).await?.create_token(request)).await })?;
    let created = NewToken::from(created);
    if let Some(expires) = created.expires {
        let expires = printer::remaining(expires, SystemTime::now());
        printer.talk(&format!(
            "a host joins with `sealane agent --control HOST:PORT --token ...`; expires {expires}:"
        ));
    }
    let text = created.token.clone();
    printer.result(&created, &text)
}

fn list(common: &Common, printer: &Printer) -> Result<(), Failure> {
    let request = v1::ListTokensRequest {};
    let listed = converse(async { answer(admin(common).await?.list_tokens(request)).await })?;
    printer.list(&listed.tokens.into_iter().map(TokenView::from).collect::<Vec<_>>())
}
