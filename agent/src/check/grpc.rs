//! The health service of gRPC, grpc.health.v1 (doc/health-checking.md of grpc/grpc), over HTTP/2 with prior knowledge.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HeaderMap, TE};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use sealane_proto::types::GrpcService;
use tokio::net::TcpStream;

/// Largest answer; one of the health service has a few bytes.
const LARGEST: usize = 4 << 10;
/// Length of what stands before a message: a flag for compression and its length.
const PREFIX: usize = 5;
/// The status SERVING of a `HealthCheckResponse`, and the names of all.
const SERVING: i32 = 1;
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];

#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Says the same whether the connection or the call is the first to fail.
#[allow(clippy::needless_pass_by_value, reason = "made for map_err")]
fn no_http2(error: hyper::Error) -> String {
    format!("it is not answered in HTTP/2: {error}")
}

/// Asks whether `service` serves.
///
/// # Errors
/// In words, why it does not.
pub(super) async fn ask(stream: TcpStream, place: SocketAddr, service: &GrpcService) -> Result<(), String> {
    let shaken = handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = shaken.map_err(no_http2)?;
    let answered = exchange(sender, place, service);
    tokio::select! {
        // An answer counts, whatever becomes of the connection behind it.
        biased;
        answered = answered => answered,
        ended = connection => Err(match ended {
            Ok(()) => "the connection was closed without an answer".to_owned(),
            Err(error) => no_http2(error),
        }),
    }
}

async fn exchange(
    mut sender: SendRequest<Full<Bytes>>,
    place: SocketAddr,
    service: &GrpcService,
) -> Result<(), String> {
    let message = HealthCheckRequest { service: service.to_string() }.encode_to_vec();
    let mut body = BytesMut::with_capacity(PREFIX + message.len());
    body.put_u8(0);
    body.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    body.put_slice(&message);
    let request = Request::post(format!("http://{place}/grpc.health.v1.Health/Check"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .body(Full::new(body.freeze()));
    let request = request.map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(no_http2)?;
    judge(response).await
}

async fn judge(response: Response<Incoming>) -> Result<(), String> {
    let (head, body) = response.into_parts();
    if !head.status.is_success() {
        return Err(format!("status {} of HTTP", head.status.as_u16()));
    }
    let collected = Limited::new(body, LARGEST)
        .collect()
        .await
        .map_err(|error| format!("its answer breaks off: {error}"))?;
    let status = collected.trailers().and_then(code).or_else(|| code(&head.headers));
    verdict(status, &collected.to_bytes())
}

/// The status of a call, and its message.
fn code(headers: &HeaderMap) -> Option<(u32, String)> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    Some((text("grpc-status")?.parse().ok()?, text("grpc-message").unwrap_or_default().to_owned()))
}

/// Judges the status of a call and the body of its answer. Pure.
fn verdict(status: Option<(u32, String)>, body: &[u8]) -> Result<(), String> {
    match status {
        Some((0, _)) => {}
        // NOT_FOUND and UNIMPLEMENTED of gRPC's status codes.
        Some((5, _)) => return Err("its health service does not know this service".to_owned()),
        Some((12, _)) => return Err("it has no health service (grpc.health.v1.Health)".to_owned()),
        Some((code, message)) => return Err(format!("status {code} of gRPC: {message}")),
        None => return Err("the answer has no status of gRPC".to_owned()),
    }
    let message = body.get(PREFIX..).map(HealthCheckResponse::decode);
    match message {
        Some(Ok(HealthCheckResponse { status: SERVING })) => Ok(()),
        Some(Ok(HealthCheckResponse { status })) => {
            let name = usize::try_from(status).ok().and_then(|status| STATUSES.get(status));
            Err(name.map_or_else(|| format!("it says status {status}"), |name| format!("it says {name}")))
        }
        Some(Err(_)) | None => Err("the answer is none of a health service".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_when_the_service_says_that_it_serves() {
        let body = |status: i32| {
            let mut body = vec![0; PREFIX];
            body.extend(HealthCheckResponse { status }.encode_to_vec());
            body
        };
        let ok = || Some((0, String::new()));
        let table = [
            (ok(), body(1), Ok(())),
            (ok(), body(2), Err("it says NOT_SERVING")),
            (ok(), body(0), Err("it says UNKNOWN")),
            (ok(), body(77), Err("it says status 77")),
            (ok(), vec![], Err("none of a health service")),
            (ok(), vec![0, 0, 0, 0, 1, 0xff], Err("none of a health service")),
            (Some((5, String::new())), vec![], Err("does not know this service")),
            (Some((12, String::new())), vec![], Err("no health service")),
            (Some((14, "busy".to_owned())), vec![], Err("status 14 of gRPC: busy")),
            (None, body(1), Err("no status of gRPC")),
        ];
        for (status, body, expected) in table {
            let said = verdict(status.clone(), &body);
            let fits = match (&said, expected) {
                (Ok(()), Ok(())) => true,
                (Err(said), Err(part)) => said.contains(part),
                (_, _) => false,
            };
            assert!(fits, "{status:?} {body:?}: {said:?}");
        }
    }
}
