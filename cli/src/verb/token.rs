//! `sealane token`.

use std::time::SystemTime;

use sealane_proto::token::JoinToken;
use sealane_proto::wire::v1;

use crate::args::{Common, Token, TokenAction};
use crate::client::{admin, answer, converse};
use crate::failure::Failure;
use crate::printer::{self, Printer};
use crate::view::{Done, NewToken, TokenView};

/// `sealane token create|ls|revoke`.
pub(crate) fn call(token: &Token, common: &Common, printer: &Printer) -> Result<(), Failure> {
    match &token.action {
        TokenAction::Create { ttl, uses, node, networks } => {
            let node = node.as_ref().map(ToString::to_string).unwrap_or_default();
            let networks = networks.iter().map(ToString::to_string).collect();
            let request = v1::CreateTokenRequest { ttl_seconds: ttl.as_secs(), uses: *uses, node, networks };
            create(request, common, printer)
        }
        TokenAction::Ls => list(common, printer),
        TokenAction::Revoke { id } => revoke(id, common, printer),
    }
}

fn create(request: v1::CreateTokenRequest, common: &Common, printer: &Printer) -> Result<(), Failure> {
    let uses = request.uses;
    let created = converse(async { answer(admin(common).await?.create_token(request)).await })?;
    let created = NewToken::from(created);
    if let Some(expires) = created.expires {
        let expires = printer::remaining(expires, SystemTime::now());
        let hosts = match uses {
            0 => "any number of hosts join".to_owned(),
            1 => "one host joins".to_owned(),
            several => format!("{several} hosts join"),
        };
        printer.talk(&format!(
            "{hosts} with `SEALANE_TOKEN=... sealane agent --control HOST:PORT`; the token expires {expires}"
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
    let text = format!("token {id} revoked; hosts that joined by it stay");
    printer.done(&Done::of("Token", &id, "revoked"), &text)
}
