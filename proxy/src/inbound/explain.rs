//! Refusing a plain call: a caller of HTTP is told why, any other sees the connection broken off.

use std::rc::Rc;
use std::time::Duration;

use sealane_base::drain::Drain;
use tokio::time::{Instant, timeout, timeout_at};

use crate::detect;
use crate::http::answer::{self, Manner, Status};
use crate::http::{Method, request};
use crate::http2::{self, Peer, Pipe, Request, Window};
use crate::leg::{self, Input, Leg, LegError};
use crate::memory::Memory;
use crate::message::read_head;
use crate::protocol::Protocol;
use crate::tunnel::ResetCode;

/// Time that a caller has to show its protocol.
const FIRST_WORDS: Duration = Duration::from_secs(1);
/// Time that it has to ask, and to hear why there is no other answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Says `text` to whoever asks by HTTP/1, HTTP/2 or gRPC, and closes. Takes [`FIRST_WORDS`] and [`PATIENCE`] at most.
pub(super) async fn refuse(memory: &Rc<Memory>, mut near: Leg, text: &str) {
    match hear(&mut near.0).await {
        Ok(Some(Protocol::Http1)) => {
            let _ = timeout(PATIENCE, answer_http1(near, text)).await;
        }
        Ok(Some(Protocol::Http2)) => {
            answer_http2(memory, near, text).await;
        }
        Ok(Some(Protocol::Tls | Protocol::Opaque) | None) | Err(_) => near.1.reset(ResetCode::Denied),
    }
}

/// Detects the caller's protocol, as far as it shows that in time.
async fn hear(input: &mut Input) -> Result<Option<Protocol>, LegError> {
    let decided_by = Instant::now() + FIRST_WORDS;
    loop {
        let before = input.ahead().len();
        match (detect::client(input.ahead()), timeout_at(decided_by, input.fill_more())) {
            (None, more) => match more.await {
                Ok(filled) => filled?,
                Err(_) => return Ok(None),
            },
            (detected, _) => return Ok(detected),
        }
        if input.ahead().len() == before {
            return Ok(None);
        }
    }
}

async fn answer_http1(mut near: Leg, text: &str) {
    let Ok(Some(head)) = read_head(&mut near.0, request::parse).await else {
        return near.1.reset(ResetCode::Denied);
    };
    let manner = Manner { bodiless: head.head.method == Method::Head, close: true };
    if near.1.write(answer::local(Status::Forbidden, text, manner)).await.is_ok() {
        leg::close(&mut near).await;
    }
}

/// Answers what is asked, and soon says that there will be no other answer here.
async fn answer_http2(memory: &Rc<Memory>, near: Leg, text: &str) {
    let (window, drain) = (Window::new(memory, &Rc::default()), Drain::new());
    let leaving = drain.handle();
    let serve = |mut asked: Request| {
        let text = text.to_owned();
        async move {
            let Request { head, respond, .. } = &mut asked;
            http2::answer::local(respond, head.headers(), Status::Forbidden, &text).await;
        }
    };
    let served = http2::serve_all(Pipe::new(near, None), Peer::Client, &window, &leaving, serve);
    let leave = async {
        tokio::time::sleep(FIRST_WORDS).await;
        drain.drain(PATIENCE).await
    };
    tokio::select! {
        served = served => if let Err(error) = served {
            tracing::debug!(%error, "a plain caller of HTTP/2");
        },
        _ = leave => {}
    }
}
