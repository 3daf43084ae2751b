//! A control plane that does not lead: it names the one that does, and shows what it knows while there is none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream;
use rustls::crypto::CryptoProvider;
use sealane_base::drain::{Drain, Draining};
use sealane_base::ready::{Part, Readiness};
use sealane_base::socket::Listener;
use sealane_base::task::{self, Task};
use sealane_proto::types::Generation;
use sealane_proto::wire::v1;
use sealane_sys::RunDir;
use tokio::net::TcpListener;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use v1::admin_server::AdminServer;
use v1::control_server::ControlServer;
use v1::fellows_server::FellowsServer;
use v1::lookout_server::LookoutServer;
use v1::read_server::ReadServer;

use super::bereft::Bereft;
use crate::Control;
use crate::api::{AdminApi, ControlApi, ControlsApi, LookoutApi, ReadApi, Standing};
use crate::ca::{Authority, OwnCertificate};
use crate::core::State;
use crate::fellows::Fellows;
use crate::forward::Forwarding;
use crate::metrics::Metrics;
use crate::registry::{Directory, Registry};
use crate::serve::{self, Acceptor, Connections, Leader, Ready, Refusing, Socket};
use crate::start::{Cause, clock, serve_controls, server, strangers_server};
use crate::store::{LastKnown, Meta, Writability};

/// Limit for the end of calls, each of which is a refusal.
const DRAIN: Duration = Duration::from_millis(500);
/// Interval at which the own certificate is looked at.
const RENEW: Duration = Duration::from_secs(60);

/// The mesh as this control plane last knew it, and what TLS needs.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) authority: Arc<Authority>,
    pub(super) registry: Arc<Registry>,
}

/// A standby that serves.
pub(super) struct Standby {
    metrics: Metrics,
    drain: Drain,
    servers: Vec<Task>,
    upkeep: [Task; 2],
    socket: Socket,
}

impl Known {
    /// Content of a store.
    pub(super) fn of(authority: Arc<Authority>, state: &State, meta: &Meta) -> Result<Self, Cause> {
        let generation = Generation { epoch: meta.epoch, revision: meta.revision };
        let connected = Metrics::new()?.agents_connected;
        let registry =
            Registry::new(Directory::first(state, generation, authority.notary()), connected, clock());
        Ok(Self { authority, registry })
    }
}

impl Control {
    /// Returns what it knows of the mesh.
    pub(super) fn known(&self) -> Known {
        Known { authority: self.authority.clone(), registry: self.shown.clone() }
    }
}

impl Standby {
    /// Serves at these sockets.
    ///
    /// # Errors
    /// When TLS or the socket cannot be made.
    pub(super) async fn start(
        known: &Known,
        (leader, fellows, last): (Leader, Fellows, LastKnown),
        listener: TcpListener,
        run_dir: &RunDir,
        readiness: &Readiness,
    ) -> Result<Self, Cause> {
        let Known { authority, registry } = known.clone();
        let (metrics, drain, started) = (Metrics::new()?, Drain::new(), Instant::now());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let own = Arc::new(OwnCertificate::new(&authority, &provider, clock())?);
        let tls = serve::config(&authority, own.clone(), provider.clone())?;
        let renewing = task::spawn("upkeep", renew(own.clone(), authority.clone(), provider));
        let (unix, socket) = Socket::bind(run_dir).await?;
        let (ready, [from_hosts, from_strangers, from_controls]) = Ready::channels(true);
        let acceptor = Acceptor::new(tls, registry.clone(), metrics.clone(), ready);
        let refuse = |server, connections, lookout, part| {
            refuse_hosts(
                (server, connections),
                (leader.clone(), lookout),
                drain.handle(),
                readiness.part(part),
            )
        };
        let lookout = LookoutApi::new(fellows.roster(), registry.clone(), drain.handle());
        let hosts = refuse(server(), from_hosts, Some(lookout.clone()), "hosts");
        let strangers = refuse(strangers_server(), from_strangers, None, "joining");
        let writes = Writability::default();
        let read = ReadApi {
            registry,
            authority,
            own,
            writes,
            started,
            standing: Standing::Standby(leader.clone()),
            fellows: Some(fellows.clone()),
        };
        let controls = ControlsApi::new(read.clone(), String::new());
        let people = People { read: read.clone(), controls: controls.clone(), last, fellows };
        let people = people.serve(unix, drain.handle(), readiness.part("control.sock"));
        let admin = Refusing::<AdminServer<AdminApi>>::new(leader);
        let others = serve_controls(admin, (lookout, controls, read), from_controls, drain.handle());
        let upkeep = [task::spawn("accept", acceptor.run(listener)), renewing];
        Ok(Self { metrics, drain, servers: vec![hosts, strangers, people, others], upkeep, socket })
    }

    /// Returns its metrics.
    pub(super) fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// Ends it; its sockets are free then.
    pub(super) async fn end(self) {
        let Self { drain, servers, upkeep, socket, .. } = self;
        drop(upkeep);
        drain.drain(DRAIN).await;
        serve::ended(servers).await;
        // Last: who still listens would give a name that is gone to its socket again.
        drop(socket);
    }
}

/// Services for people.
struct People {
    read: ReadApi,
    controls: ControlsApi,
    last: LastKnown,
    fellows: Fellows,
}

impl People {
    /// Serves them: what the control plane that leads should answer goes there.
    fn serve(self, unix: Listener, mut draining: Draining, part: Part) -> Task {
        let Self { read, controls, last, fellows } = self;
        let admin = Bereft { last, roster: fellows.roster() };
        task::spawn_fallible("people", async move {
            part.ready();
            server()
                .add_service(Forwarding::changes(admin, fellows.clone()))
                .add_service(Forwarding::questions(ReadServer::new(read), fellows))
                .add_service(FellowsServer::new(controls))
                .serve_with_incoming_shutdown(stream::unfold(unix, Listener::next), draining.begun())
                .await
        })
    }
}

/// Renews the own certificate until aborted: a standby may stand by for longer than that is good.
async fn renew(own: Arc<OwnCertificate>, authority: Arc<Authority>, provider: Arc<CryptoProvider>) {
    loop {
        tokio::time::sleep(RENEW).await;
        if let Err(error) = own.renew(&authority, &provider, clock()) {
            tracing::error!(%error, "the certificate of this control plane cannot be renewed");
        }
    }
}

fn refuse_hosts(
    (mut server, connections): (Server, Connections),
    (leader, lookout): (Leader, Option<LookoutServer<LookoutApi>>),
    mut draining: Draining,
    part: Part,
) -> Task {
    task::spawn_fallible("hosts", async move {
        part.ready();
        let incoming = ReceiverStream::new(connections);
        let service = Refusing::<ControlServer<ControlApi>>::new(leader);
        let router = server.add_service(service).add_optional_service(lookout);
        router.serve_with_incoming_shutdown(incoming, draining.begun()).await
    })
}
