//! Answers that the sidecar gives itself, in HTTP/2's or gRPC's words.

use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Response, header};

use super::{grpc, pump};
use crate::http::answer::Status;

/// Answers in place of the service; `request` is what the client asked with. A client that is gone hears nothing.
pub(crate) async fn local(
    respond: &mut SendResponse<Bytes>,
    request: &HeaderMap,
    status: Status,
    text: &str,
) {
    let mut response = Response::new(());
    let headers = response.headers_mut();
    headers.insert(header::SERVER, HeaderValue::from_static("sealane"));
    if grpc::is_grpc(request) {
        // A response of headers only (PROTOCOL-HTTP2 of gRPC, "Trailers-Only").
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", grpc_status(status).into());
        headers.insert("grpc-message", grpc::message(text));
        let _ = respond.send_response(response, true);
        return;
    }
    let body = Bytes::from(format!("{text}\n"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CONTENT_LENGTH, body.len().into());
    *response.status_mut() =
        http::StatusCode::from_u16(status.code()).unwrap_or(http::StatusCode::BAD_GATEWAY);
    if let Ok(mut stream) = respond.send_response(response, false) {
        // An error says that the client is gone.
        let _ = pump::say(&mut stream, body).await;
    }
}

/// Answers without a body, as a rule says, with these fields. A client that is gone hears nothing.
pub(crate) fn ruled(respond: &mut SendResponse<Bytes>, status: u16, fields: &[(&str, String)]) {
    let mut response = Response::new(());
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::BAD_GATEWAY);
    let headers = response.headers_mut();
    headers.insert(header::SERVER, HeaderValue::from_static("sealane"));
    for (name, value) in fields {
        let name = http::HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    }
    let _ = respond.send_response(response, true);
}

/// Returns gRPC's number for a status.
fn grpc_status(status: Status) -> u16 {
    match status {
        Status::HeadTooLarge | Status::AnswerTooLarge => grpc::RESOURCE_EXHAUSTED,
        Status::BadRequest | Status::RequestTimeout | Status::BadGateway => grpc::INTERNAL,
        Status::Forbidden => grpc::PERMISSION_DENIED,
        Status::Unavailable | Status::Timeout | Status::Unresolved => grpc::UNAVAILABLE,
        Status::NoRule => grpc::UNIMPLEMENTED,
        Status::Late => grpc::DEADLINE_EXCEEDED,
    }
}

/// The status under which an answer to this request is counted.
pub(crate) fn counted(request: &HeaderMap, status: Status) -> u16 {
    if grpc::is_grpc(request) { grpc::http_status(Some(grpc_status(status))) } else { status.code() }
}
