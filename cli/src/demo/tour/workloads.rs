//! Chapter: real programs become workloads.

use std::path::Path;

use serde_json::Value;

use super::NETWORK;
use crate::demo::flaw::{Flaw, ensure, eventually};
use crate::demo::narrator::Narrator;
use crate::demo::stage::Stage;

/// An HTTP server that says where it runs.
const API: &str = r#"
import http.server, socket
class Api(http.server.BaseHTTPRequestHandler):
    protocol_version, wbufsize, disable_nagle_algorithm = "HTTP/1.1", -1, True
    def do_GET(self):
        body = f"api on {socket.gethostname()}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words):
        pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
Server(("", 8080), Api).serve_forever()
"#;

/// A client that has nothing to do by itself; it says when it begins, which is when it is attached.
const WEB: &str = "touch /run/demo-web; exec sleep infinity";
const WEB_BEGAN: &str = "/run/demo-web";

pub(super) fn chapter(stage: &mut Stage, narrator: &mut Narrator) -> Result<(), Flaw> {
    narrator.chapter(
        "Workloads",
        "`sealane run` gives a program a network of its own with an address, names and a sidecar, and becomes it.\n\
         Here: a web server in Python on every host, as instances of one service, and a client.",
    );
    for host in 0..stage.hosts().len() {
        let instance = format!("api-{}", host + 1);
        narrator.claim(&format!("{instance} runs on {}", stage.hosts()[host].name()), || {
            start_api(stage, host)?;
            workload(stage, &instance)
        })?;
    }
    narrator.claim("web, the client, runs on host-1", || {
        let run = ["run", "--network", NETWORK.0, "--name", "web", "--", "sh", "-c", WEB];
        stage.start(0, "web", &run)?;
        eventually(|| {
            stage.runs("web")?;
            let began = stage.first().within(|| Path::new(WEB_BEGAN).exists()).map_err(Flaw::of("web"))?;
            ensure(began, || "web waits to be attached".to_owned())
        })?;
        workload(stage, "web")
    })?;
    narrator.claim("the name api is known to web", || {
        known(stage, "api")?;
        let (short, long) = (resolve(stage, "api")?, resolve(stage, &format!("api.{}", NETWORK.0))?);
        ensure(short == long, || format!("api is {short}, api.{} is {long}", NETWORK.0))?;
        Ok(short)
    })?;
    narrator.claim("a name that is not there is said not to be there", || {
        let asked = stage.output(stage.first(), &["exec", "web", "--", "getent", "hosts", "nowhere"])?;
        ensure(asked.status.code() == Some(2), || format!("getent ended with {}", asked.status))?;
        Ok(String::new())
    })
}

/// Starts the instance of `api` on a host and waits until calls may be sent to it.
pub(super) fn start_api(stage: &mut Stage, host: usize) -> Result<(), Flaw> {
    let name = format!("api-{}", host + 1);
    let python = if Path::new("/usr/bin/python3").exists() { "/usr/bin/python3" } else { "python3" };
    let service = ["run", "--network", NETWORK.0, "--service", "api", "--port", "8080", "--name", &name];
    stage.start(host, &name, &[&service, ["--", python, "-c", API].as_slice()].concat())?;
    ready(stage, &name)
}

/// Waits until web may call a service: its host learns of it a moment after control.
pub(super) fn known(stage: &Stage, service: &str) -> Result<(), Flaw> {
    eventually(|| resolve(stage, service).map(drop))
}

/// Waits until calls may be sent to a workload.
pub(super) fn ready(stage: &Stage, name: &str) -> Result<(), Flaw> {
    eventually(|| {
        stage.runs(name)?;
        let found = find(stage, name)?;
        ensure(found["ready"] == Value::Bool(true), || format!("{name} is not ready: {}", found["problem"]))
    })
}

/// A workload as control knows it.
pub(super) fn find(stage: &Stage, name: &str) -> Result<Value, Flaw> {
    let control = ["workload", "ls", "--socket", "/run/sealane/control.sock"];
    let workloads = stage.ask_json(stage.first(), &control)?;
    let workloads = workloads.as_array().map(Vec::as_slice).unwrap_or_default();
    let found = workloads.iter().find(|workload| workload["name"] == name);
    found.cloned().ok_or_else(|| Flaw::new(format!("there is no workload {name}")))
}

fn workload(stage: &Stage, name: &str) -> Result<String, Flaw> {
    let found = eventually(|| find(stage, name))?;
    Ok(found["address"].as_str().unwrap_or("without an address").to_owned())
}

fn resolve(stage: &Stage, name: &str) -> Result<String, Flaw> {
    let line = stage.web(&["getent", "ahostsv4", name])?;
    let address = line.split_whitespace().next();
    address.map(str::to_owned).ok_or_else(|| Flaw::new(format!("{name} has no address")))
}
