//! `sealane token`.

use std::time::SystemTime;

use sealane_proto::token::JoinToken;
use sealane_proto::wire::v1;

use crate::args::{Common, Token, TokenAction};
use crate::client::{admin, answer, converse};
use crate::failure::Failure;
use crate::printer::{self, Printer};
use crate::view::{NewToken, TokenView};

/// `sealane token create|ls|revoke`.
pub(crate) fn call(token: &Token, common: &Common, printer: &Printer) -> Result<(), Failure> {
    match &token.action {
        TokenAction::Create { ttl, uses, node } => {
            let node = node.as_ref().map(ToString::to_string).unwrap_or_default();
            let uses = uses.unwrap_or_default();
            create(v1::CreateTokenRequest { ttl_seconds: ttl.as_secs(), uses, node }, common, printer)
        }
        TokenAction::Ls => list(common, printer),
        TokenAction::Revoke { id } => revoke(id, common, printer),
    }
}

fn create(request: v1::CreateTokenRequest, common: &Common, printer: &Printer) -> Result<(), Failure> {
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

fn revoke(id: &str, common: &Common, printer: &Printer) -> Result<(), Failure> {
    // A whole token says its id; its secret need not travel.
    let id = id.parse::<JoinToken>().map_or_else(|_| id.to_owned(), |token| token.id);
    let request = v1::RevokeTokenRequest { id: id.clone() };
    converse(async { answer(admin(common).await?.revoke_token(request)).await })?;
    printer.talk(&format!("token {id} revoked; hosts that joined by it stay"));
    Ok(())
}
