//! Answers of dockerd about containers and networks, as far as they matter here. Pure. `null` is as good as nothing.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::attachment::ContainerCondition;

/// A container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Container {
    /// Id of the container.
    pub(crate) id: String,
    /// Name of the container.
    pub(crate) name: String,
    /// Labels of the container.
    pub(crate) labels: BTreeMap<String, String>,
    /// The ports that it or its image exposes, such as `8080/tcp`.
    pub(crate) exposed: Vec<String>,
    /// First process; 0 before it has one.
    pub(crate) pid: u32,
    /// Condition of the container.
    pub(crate) condition: ContainerCondition,
    /// Ends of networks.
    pub(crate) ends: Vec<ContainerEnd>,
    /// Error that stopped it, where it should run by its restart policy.
    pub(crate) stopped: Option<String>,
}

impl Container {
    /// Returns the end with this id.
    pub(crate) fn end(&self, id: &str) -> Option<&ContainerEnd> {
        self.ends.iter().find(|end| end.endpoint == id)
    }
}

/// A container's end of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ContainerEnd {
    /// Docker's id of the network.
    pub(crate) network: String,
    /// Docker's id of the end; none while the container does not run.
    pub(crate) endpoint: String,
    /// Further names there.
    pub(crate) aliases: Vec<String>,
}

/// A network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Network {
    /// Id of the network.
    pub(crate) id: String,
    /// Name of the network.
    pub(crate) name: String,
    /// Options that it was made with.
    pub(crate) options: BTreeMap<String, String>,
    /// The addresses of IPv4.
    pub(crate) pool: Pool,
    /// The addresses of IPv6, where it has them.
    pub(crate) pool6: Option<Pool>,
    /// True if its containers get no way out.
    pub(crate) internal: bool,
    /// True if it was made on this host, by the driver that was asked about: those of swarms come and go with their tasks.
    pub(crate) own: bool,
}

/// Addresses of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Pool {
    /// Subnet of the network.
    #[serde(rename = "Subnet")]
    pub(crate) subnet: String,
    /// Gateway of the network.
    #[serde(rename = "Gateway")]
    pub(crate) gateway: String,
}

/// Something as the value of a query (RFC 3986, section 2.1).
pub(super) fn query(value: &Value) -> String {
    let encode = |byte: u8| match byte {
        plain if plain.is_ascii_alphanumeric() => char::from(plain).to_string(),
        other => format!("%{other:02X}"),
    };
    value.to_string().bytes().map(encode).collect()
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Listed {
    #[serde(rename = "Id")]
    id: String,
    #[serde(rename = "State")]
    state: String,
}

impl Listed {
    /// Returns its id, and true if it runs.
    pub(super) fn runs(self) -> (String, bool) {
        let runs = matches!(self.state.as_str(), "running" | "paused");
        (self.id, runs)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NetworkView {
    #[serde(rename = "Id")]
    id: String,
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Driver")]
    driver: String,
    #[serde(rename = "Scope")]
    scope: String,
    #[serde(rename = "Internal")]
    internal: bool,
    #[serde(rename = "Options")]
    options: Option<BTreeMap<String, String>>,
    #[serde(rename = "IPAM")]
    ipam: IpamView,
    #[serde(rename = "Containers")]
    containers: Option<BTreeMap<String, EndpointView>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct IpamView {
    #[serde(rename = "Config")]
    config: Option<Vec<Pool>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct EndpointView {
    #[serde(rename = "EndpointID")]
    endpoint: String,
}

impl NetworkView {
    /// The container whose end this is.
    pub(super) fn container_at(self, endpoint: &str) -> Option<String> {
        let mut ends = self.containers.into_iter().flatten();
        ends.find(|(_, end)| end.endpoint == endpoint).map(|(id, _)| id)
    }

    /// The network, as one who asks about this driver sees it.
    pub(super) fn into_network(self, driver: &str) -> Network {
        let pools = self.ipam.config.into_iter().flatten();
        let (six, four): (Vec<Pool>, Vec<Pool>) = pools.partition(|pool| pool.subnet.contains(':'));
        Network {
            own: self.driver == driver && self.scope == "local",
            id: self.id,
            name: self.name,
            options: self.options.unwrap_or_default(),
            pool: four.into_iter().next().unwrap_or_default(),
            pool6: six.into_iter().next(),
            internal: self.internal,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ContainerView {
    #[serde(rename = "Id")]
    id: String,
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Config")]
    config: ConfigView,
    #[serde(rename = "HostConfig")]
    host: HostView,
    #[serde(rename = "State")]
    state: StateView,
    #[serde(rename = "NetworkSettings")]
    settings: SettingsView,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ConfigView {
    #[serde(rename = "Labels")]
    labels: Option<BTreeMap<String, String>>,
    #[serde(rename = "ExposedPorts")]
    exposed: Option<Map<String, Value>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct HostView {
    #[serde(rename = "RestartPolicy")]
    restart: RestartView,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RestartView {
    #[serde(rename = "Name")]
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StateView {
    #[serde(rename = "Pid")]
    pid: u32,
    #[serde(rename = "Running")]
    running: bool,
    #[serde(rename = "Paused")]
    paused: bool,
    #[serde(rename = "Dead")]
    dead: bool,
    #[serde(rename = "Error")]
    error: String,
    #[serde(rename = "Health")]
    health: Option<HealthView>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct HealthView {
    #[serde(rename = "Status")]
    status: String,
}

impl StateView {
    fn condition(&self) -> ContainerCondition {
        if !self.running || self.dead {
            return ContainerCondition::Ended;
        }
        if self.paused {
            return ContainerCondition::Paused;
        }
        match self.health.as_ref().map(|health| health.status.as_str()) {
            Some("starting") => ContainerCondition::Starting,
            Some("unhealthy") => ContainerCondition::Unhealthy,
            // `none` and nothing are a container without a check.
            Some(_) | None => ContainerCondition::Serves,
        }
    }
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
    #[serde(rename = "EndpointID")]
    endpoint: String,
    #[serde(rename = "Aliases")]
    aliases: Option<Vec<String>>,
}

impl ContainerView {
    pub(super) fn into_container(self) -> Container {
        let Self { id, name, config, host, state, settings } = self;
        let ends = settings.networks.into_iter().flatten().map(|(_, end)| ContainerEnd {
            network: end.network,
            endpoint: end.endpoint,
            aliases: end.aliases.unwrap_or_default(),
        });
        let should_run = matches!(host.restart.name.as_str(), "always" | "unless-stopped");
        let stopped = should_run && !state.running && !state.error.is_empty();
        Container {
            id,
            name: name.trim_start_matches('/').to_owned(),
            labels: config.labels.unwrap_or_default(),
            exposed: config.exposed.into_iter().flatten().map(|(port, _)| port).collect(),
            pid: state.pid,
            condition: state.condition(),
            ends: ends.collect(),
            stopped: stopped.then_some(state.error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(state: &str) -> Container {
        let text = format!(
            r#"{{"Id":"4f1c","Name":"/demo_api_1","State":{state},"Config":{{"Labels":null,
                "ExposedPorts":{{"53/udp":{{}},"8080/tcp":{{}}}}}},"HostConfig":{{"RestartPolicy":{{"Name":"always"}}}},
                "NetworkSettings":{{"Networks":{{"shop":{{"NetworkID":"n","EndpointID":"e","Aliases":["api"]}},
                "other":{{"NetworkID":"m","Aliases":null}}}}}}}}"#
        );
        serde_json::from_str::<ContainerView>(&text).unwrap().into_container()
    }

    #[test]
    fn a_filter_travels_in_a_query() {
        assert_eq!(query(&serde_json::json!({"a": ["b c"]})), "%7B%22a%22%3A%5B%22b%20c%22%5D%7D");
    }

    #[test]
    fn a_container_is_read_with_its_ends_and_ports() {
        let container = container(r#"{"Pid":7,"Running":true}"#);
        assert_eq!((container.name.as_str(), container.pid), ("demo_api_1", 7));
        assert_eq!(container.exposed, ["53/udp", "8080/tcp"]);
        let end = ContainerEnd {
            network: "n".to_owned(),
            endpoint: "e".to_owned(),
            aliases: vec!["api".to_owned()],
        };
        assert!(container.ends.contains(&end) && container.ends.len() == 2);
    }

    #[test]
    fn a_network_is_its_driver_s_own_on_one_host_alone() {
        let own = |driver: &str, scope: &str| {
            let text =
                format!(r#"{{"Id":"n","Driver":"{driver}","Scope":"{scope}","Options":null,"IPAM":{{}}}}"#);
            serde_json::from_str::<NetworkView>(&text).unwrap().into_network("sealane").own
        };
        assert!(own("sealane", "local"));
        assert!(!own("sealane-swarm:latest", "swarm") && !own("sealane", "swarm") && !own("null", "local"));
    }

    #[test]
    fn only_a_container_that_runs_and_is_not_known_to_be_ill_serves() {
        let check = |state: &str, expected| assert_eq!(container(state).condition, expected, "{state}");
        check(r#"{"Running":true}"#, ContainerCondition::Serves);
        check(r#"{"Running":true,"Health":{"Status":"healthy"}}"#, ContainerCondition::Serves);
        check(r#"{"Running":true,"Health":{"Status":"starting"}}"#, ContainerCondition::Starting);
        check(r#"{"Running":true,"Health":{"Status":"unhealthy"}}"#, ContainerCondition::Unhealthy);
        check(r#"{"Running":true,"Paused":true,"Health":null}"#, ContainerCondition::Paused);
        check(r#"{"Running":false,"OOMKilled":true}"#, ContainerCondition::Ended);
    }

    #[test]
    fn a_container_that_should_run_and_could_not_start_says_why() {
        let failed = container(r#"{"Running":false,"Error":"plugin \"sealane\" not found"}"#);
        assert_eq!(failed.stopped.unwrap(), "plugin \"sealane\" not found");
        assert_eq!(container(r#"{"Running":false,"Error":""}"#).stopped, None, "somebody stopped it");
    }
}
