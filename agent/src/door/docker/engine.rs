//! Docker's API, over its unix socket: whose an endpoint is. Asked without a version, which means its newest.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use sealane_base::task;
use sealane_proto::types::{Alias, Aliases};
use serde::Deserialize;
use tokio::net::UnixStream;

/// How much of a container's id people use.
const SHORT: usize = 12;
/// The largest answer.
const LARGEST: usize = 16 << 20;
/// How long an answer may take: dockerd holds back those about a container that starts.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A container, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Container {
    /// Its name.
    pub(super) name: String,
    /// Its labels.
    pub(super) labels: BTreeMap<String, String>,
    /// Its first process; 0 before it has one.
    pub(super) pid: u32,
    /// Its further names in the network that was asked about.
    pub(super) aliases: Aliases,
}

/// Where dockerd answers.
#[derive(Clone, Debug)]
pub(super) struct Engine {
    socket: PathBuf,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NetworkView {
    #[serde(rename = "Containers")]
    containers: Option<BTreeMap<String, EndpointView>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct EndpointView {
    #[serde(rename = "EndpointID")]
    endpoint: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ContainerView {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Config")]
    config: Option<ConfigView>,
    #[serde(rename = "State")]
    state: Option<StateView>,
    #[serde(rename = "NetworkSettings")]
    settings: Option<SettingsView>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SettingsView {
    #[serde(rename = "Networks")]
    networks: Option<BTreeMap<String, EndView>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct EndView {
    #[serde(rename = "NetworkID")]
    network: String,
    #[serde(rename = "Aliases")]
    aliases: Option<Vec<String>>,
}

impl ContainerView {
    /// Its names in a network beside the one that makes it a workload: as given, with what a workload's name cannot have, and
    /// the short form of its id. What is no name in DNS is none here.
    fn aliases(&self, network: &str, id: &str) -> Aliases {
        let ends = self.settings.iter().flat_map(|settings| settings.networks.iter().flatten());
        let given =
            ends.filter(|(_, end)| end.network == network).flat_map(|(_, end)| end.aliases.iter().flatten());
        let short: String = id.chars().take(SHORT).collect();
        let own = [self.name.trim_start_matches('/').to_owned(), short];
        let names =
            own.iter().chain(given).filter_map(|name| name.to_ascii_lowercase().parse::<Alias>().ok());
        Aliases::new(names.take(Aliases::MOST)).unwrap_or_default()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ConfigView {
    #[serde(rename = "Labels")]
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StateView {
    #[serde(rename = "Pid")]
    pid: u32,
}

impl Engine {
    /// The one that listens at `socket`.
    pub(super) fn at(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// The container whose end this is; `None` before Docker knows.
    ///
    /// # Errors
    /// When dockerd does not answer.
    pub(super) async fn container(&self, network: &str, endpoint: &str) -> io::Result<Option<Container>> {
        let view: NetworkView = self.get(&format!("/networks/{network}")).await?;
        let mut ends = view.containers.into_iter().flatten();
        let Some((id, _)) = ends.find(|(_, end)| end.endpoint == endpoint) else { return Ok(None) };
        let view: ContainerView = self.get(&format!("/containers/{id}/json")).await?;
        let aliases = view.aliases(network, &id);
        Ok(Some(Container {
            aliases,
            name: view.name.trim_start_matches('/').to_owned(),
            labels: view.config.and_then(|config| config.labels).unwrap_or_default(),
            pid: view.state.map(|state| state.pid).unwrap_or_default(),
        }))
    }

    /// Whether Docker has a network.
    ///
    /// # Errors
    /// When dockerd does not answer.
    pub(super) async fn has_network(&self, id: &str) -> io::Result<bool> {
        match self.get::<NetworkView>(&format!("/networks/{id}")).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            answered => answered.map(|_| true),
        }
    }

    async fn get<T: for<'a> Deserialize<'a>>(&self, path: &str) -> io::Result<T> {
        let answer = tokio::time::timeout(TIMEOUT, self.ask(path)).await;
        let body = answer.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        serde_json::from_slice(&body).map_err(io::Error::other)
    }

    async fn ask(&self, path: &str) -> io::Result<Bytes> {
        let stream = UnixStream::connect(&self.socket).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // It ends with this question.
        let _connection = task::spawn_fallible("docker-api", connection);
        let request = Request::get(path).header(HOST, "docker").body(Empty::<Bytes>::new());
        let request = request.map_err(io::Error::other)?;
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        if !response.status().is_success() {
            let missing = response.status() == StatusCode::NOT_FOUND;
            let kind = if missing { io::ErrorKind::NotFound } else { io::ErrorKind::Other };
            return Err(io::Error::new(kind, format!("{path}: {}", response.status())));
        }
        let body = Limited::new(response.into_body(), LARGEST).collect().await.map_err(io::Error::other)?;
        Ok(body.to_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_has_the_names_that_its_network_gives_it() {
        let view: ContainerView = serde_json::from_str(
            r#"{"Name":"/demo_api_1","State":{"Pid":7},"NetworkSettings":{"Networks":{
                "shop":{"NetworkID":"n","Aliases":["api","4f1c4f1c4f1c","Big","no.label"]},
                "other":{"NetworkID":"m","Aliases":["else"]},"third":{"NetworkID":"n","Aliases":null}}}}"#,
        )
        .unwrap();
        let names: Vec<String> =
            view.aliases("n", "4f1c4f1c4f1c4f1c").iter().map(ToString::to_string).collect();
        assert_eq!(names, ["4f1c4f1c4f1c", "api", "big", "demo_api_1"]);
    }
}
