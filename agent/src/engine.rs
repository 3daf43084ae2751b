//! Docker's API over its unix socket: what containers are, and what happens to them. Asked without a version, which means the
//! newest of whichever dockerd answers, so that none is too old or too new; what is asked for has been the same in all.

mod event;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod look;
mod view;
mod watch;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::header::HOST;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use sealane_base::task::{self, Task};
use serde::Deserialize;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use event::Event;
pub(crate) use view::{Container, ContainerEnd, Network, Pool};
use view::{ContainerView, Listed, NetworkView};
pub(crate) use watch::{News, follow};

/// The largest answer.
const LARGEST: usize = 16 << 20;
/// The longest event.
const LONGEST: usize = 1 << 20;
/// By when dockerd has said what it knows.
const INSTANT: Duration = Duration::from_millis(25);
/// Limit for an answer: dockerd holds back those about a container that starts.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Client of dockerd's API.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    socket: PathBuf,
}

/// Events from the question on, one after another.
#[derive(Debug)]
struct Events {
    body: Incoming,
    read: BytesMut,
    _connection: Task,
}

impl Engine {
    /// The one that listens at `socket`.
    pub(crate) fn at(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Returns the socket's path.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// A container; `None` when there is none of this id.
    ///
    /// # Errors
    /// When dockerd does not answer, as while the container starts.
    pub(crate) async fn container(&self, id: &str) -> io::Result<Option<Container>> {
        let view: io::Result<ContainerView> = self.get(&format!("/containers/{id}/json")).await;
        found(view).map(|view| view.map(ContainerView::into_container))
    }

    /// The container whose end this is; `None` before Docker knows.
    ///
    /// # Errors
    /// When dockerd does not answer.
    pub(crate) async fn container_at(&self, network: &str, endpoint: &str) -> io::Result<Option<Container>> {
        let Some(view) = found(self.get::<NetworkView>(&format!("/networks/{network}")).await)? else {
            return Ok(None);
        };
        match view.container_at(endpoint) {
            Some(id) => self.container(&id).await,
            None => Ok(None),
        }
    }

    /// The ids of all containers, and whether each of them runs.
    ///
    /// # Errors
    /// When dockerd does not answer.
    pub(crate) async fn containers(&self) -> io::Result<BTreeMap<String, bool>> {
        let listed: Vec<Listed> = self.get("/containers/json?all=1").await?;
        Ok(listed.into_iter().map(Listed::runs).collect())
    }

    /// All networks; those that this driver has made on this host alone are its own.
    ///
    /// # Errors
    /// When dockerd does not answer.
    pub(crate) async fn networks(&self, driver: &str) -> io::Result<Vec<Network>> {
        let listed: Vec<NetworkView> = self.get("/networks").await?;
        Ok(listed.into_iter().map(|view| view.into_network(driver)).collect())
    }

    /// Returns true if Docker has a network.
    ///
    /// # Errors
    /// When dockerd does not answer.
    pub(crate) async fn has_network(&self, id: &str) -> io::Result<bool> {
        found(self.get::<NetworkView>(&format!("/networks/{id}")).await).map(|view| view.is_some())
    }

    /// Returns those of these containers that dockerd has in its hands, as it has one that it starts: it says nothing of them
    /// meanwhile.
    pub(crate) async fn held_up(&self, ids: &[String]) -> Vec<String> {
        let (tell, mut told) = mpsc::channel(ids.len().max(1));
        for id in ids {
            let (engine, id, tell) = (self.clone(), id.clone(), tell.clone());
            // Dockerd complains of whoever leaves before the answer.
            let asked = async move {
                // Whatever it says: it says something.
                let _ = engine.container(&id).await;
                // Who comes too late is not heard.
                let _ = tell.send(id).await;
            };
            task::spawn("docker-look", asked).detach();
        }
        let mut silent: Vec<String> = ids.to_vec();
        let heard = async {
            // A dockerd that is slow is slow with all of them.
            let answers_others = self.get::<serde::de::IgnoredAny>("/version").await.is_ok();
            tokio::time::sleep(INSTANT).await;
            answers_others
        };
        tokio::pin!(heard);
        loop {
            tokio::select! {
                answers_others = &mut heard => return if answers_others { silent } else { Vec::new() },
                Some(id) = told.recv() => silent.retain(|other| *other != id),
            }
        }
    }

    /// Subscribes to events from now on.
    ///
    /// # Errors
    /// When dockerd does not answer.
    async fn events(&self) -> io::Result<Events> {
        let path = format!("/events?filters={}", view::query(&event::filters()));
        let asked = tokio::time::timeout(TIMEOUT, self.ask(&path)).await;
        let (response, connection) = asked.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(Events { body: response.into_body(), read: BytesMut::new(), _connection: connection })
    }

    async fn get<T: for<'a> Deserialize<'a>>(&self, path: &str) -> io::Result<T> {
        let asked = async {
            let (response, _connection) = self.ask(path).await?;
            let body = Limited::new(response.into_body(), LARGEST).collect().await;
            body.map(|body| body.to_bytes()).map_err(io::Error::other)
        };
        let body = tokio::time::timeout(TIMEOUT, asked).await;
        let body = body.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        serde_json::from_slice(&body).map_err(io::Error::other)
    }

    /// An answer's head, and the connection that its body comes by.
    async fn ask(&self, path: &str) -> io::Result<(Response<Incoming>, Task)> {
        let stream = UnixStream::connect(&self.socket).await;
        // A socket that is not there says nothing of what was asked for.
        let absent = |error| {
            io::Error::new(io::ErrorKind::NotConnected, format!("{}: {error}", self.socket.display()))
        };
        let stream = stream.map_err(absent)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let connection = task::spawn("docker-api", async move {
            // Whoever asked hears of it as well.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "Docker's API");
            }
        });
        let request = Request::get(path).header(HOST, "docker").body(Empty::<Bytes>::new());
        let request = request.map_err(io::Error::other)?;
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        if !response.status().is_success() {
            let missing = response.status() == StatusCode::NOT_FOUND;
            let kind = if missing { io::ErrorKind::NotFound } else { io::ErrorKind::Other };
            return Err(io::Error::new(kind, format!("{path}: {}", response.status())));
        }
        Ok((response, connection))
    }
}

/// Maps an object that is not there to `None` rather than an error.
fn found<T>(answered: io::Result<T>) -> io::Result<Option<T>> {
    match answered {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        answered => answered.map(Some),
    }
}

impl Events {
    /// The next one; `None` when dockerd has ended. Cancel safe.
    ///
    /// # Errors
    /// When the connection breaks.
    async fn next(&mut self) -> io::Result<Option<Event>> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.read.split_to(end + 1);
                match Event::parse(&line) {
                    Some(event) => return Ok(Some(event)),
                    None => continue,
                }
            }
            if self.read.len() > LONGEST {
                return Err(io::Error::other("an event of Docker's is longer than 1 MiB"));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.read.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(io::Error::other(error)),
                None => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dockerd_that_is_not_there_does_not_say_that_a_network_is_gone() {
        let engine = Engine::at(PathBuf::from("/nonexistent/docker.sock"));
        let error = engine.has_network("n1").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotConnected);
        assert!(error.to_string().contains("/nonexistent/docker.sock"), "{error}");
    }
}
