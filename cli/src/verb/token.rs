//! `sealane token`.

use std::net::SocketAddr;
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
        printer.talk(&usage(uses, created.listens, &expires));
    }
    let text = created.token.clone();
    printer.result(&created, &text)
}

/// Tells what to do with a token. At an address of loopback, no other host reaches control.
fn usage(uses: u32, listens: Option<SocketAddr>, expires: &str) -> String {
    let hosts = match uses {
        0 => "any number of hosts join".to_owned(),
        1 => "one host joins".to_owned(),
        several => format!("{several} hosts join"),
    };
    let unreached = listens.filter(|address| address.ip().is_loopback()).map(|address| {
        let (port, all) = (address.port(), if address.is_ipv4() { "0.0.0.0" } else { "[::]" });
        format!(
            "no other host reaches control, which listens at {address}: start `sealane up` or `sealane control` again with \
             `--listen {all}:{port}`; then "
        )
    });
    let first = unreached.unwrap_or_default();
    let port = listens.map_or_else(|| "PORT".to_owned(), |address| address.port().to_string());
    format!(
        "{first}{hosts} with `SEALANE_TOKEN=... sealane agent --control HOST:{port}`; the token expires {expires}"
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gets_a_token_hears_of_a_control_plane_that_no_host_reaches() {
        let said = |listens: &str| usage(1, listens.parse().ok(), "in 1h");
        assert!(said("192.0.2.1:7000").starts_with("one host joins with") && said("").contains("HOST:PORT`"));
        assert!(said("192.0.2.1:7000").contains("--control HOST:7000`; the token expires in 1h"));
        let unreached = said("127.0.0.1:7443");
        assert!(unreached.starts_with("no other host reaches control, which listens at 127.0.0.1:7443"));
        assert!(unreached.contains("`--listen 0.0.0.0:7443`; then one host joins"), "{unreached}");
        assert!(said("[::1]:7443").contains("`--listen [::]:7443`"));
    }
}
