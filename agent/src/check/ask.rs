//! One question to an instance.

use std::io;
use std::net::{IpAddr, SocketAddr};

use sealane_base::text::{one_line, plain};
use sealane_proto::types::{Check, Probe};
use tokio::net::TcpSocket;

use super::exec::Shell;
use super::{grpc, http};

/// Longest reason for which an instance does not work.
const LONGEST: usize = 200;

/// Way by which an instance is asked.
pub(crate) struct Way<'a> {
    /// Place that is called.
    pub(crate) place: SocketAddr,
    /// Makes the socket for it.
    pub(crate) open: &'a (dyn Fn(IpAddr) -> io::Result<TcpSocket> + Send + Sync),
    /// Place in which its commands run, if it has a namespace here.
    pub(crate) shell: Option<&'a Shell>,
}

/// Asks whether the instance works.
///
/// # Errors
/// The reason for which it does not, in a line of bounded length.
///
/// # Cancel safety
/// Whatever it has begun ends with it.
pub(crate) async fn ask(check: &Check, way: &Way<'_>) -> Result<(), String> {
    let patience = check.patience();
    let answered = match tokio::time::timeout(patience, answer(check, way)).await {
        Ok(answered) => answered,
        Err(_) => Err(format!("no answer within {patience:?}")),
    };
    answered.map_err(|why| {
        let of = match &check.probe {
            Probe::Exec(_) => String::new(),
            Probe::Tcp | Probe::Http(..) | Probe::Grpc(_) => format!(" at {}", way.place),
        };
        one_line(&format!("its check {}{of} fails: {why}", check.probe), LONGEST).into_owned()
    })
}

async fn answer(check: &Check, way: &Way<'_>) -> Result<(), String> {
    let stream = async {
        let socket = (way.open)(way.place.ip()).map_err(|error| plain(&error))?;
        socket.connect(way.place).await.map_err(|error| plain(&error))
    };
    match &check.probe {
        Probe::Tcp => stream.await.map(drop),
        Probe::Http(path, expected) => http::ask(&mut stream.await?, way.place, path, *expected).await,
        Probe::Grpc(service) => grpc::ask(stream.await?, way.place, service).await,
        Probe::Exec(command) => match way.shell {
            Some(shell) => shell.run(command).await,
            None => Err("no command is run there".to_owned()),
        },
    }
}
