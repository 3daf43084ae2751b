//! `sealane dns`.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use sealane_proto::wire::v1;
use sealane_proto::wire::v1::agent_client::AgentClient;
use sealane_sys::NetNs;

use crate::args::{Common, Dns, DnsAction, DnsQuery};
use crate::client::{agent, answer, converse};
use crate::failure::{Exit, Failure, require_root};
use crate::printer::Printer;
use crate::view::RecordView;

/// How long the agent may take: longer than it gives the host's resolvers.
const TIMEOUT: Duration = Duration::from_secs(6);
/// The largest datagram that is taken.
const UDP_SIZE: u16 = 1232;

/// `sealane dns query`.
pub(crate) fn call(dns: &Dns, common: &Common, printer: &Printer) -> Result<(), Failure> {
    let DnsAction::Query(query) = &dns.action;
    let asked = message(query).map_err(|reason| Failure::new(reason).exit(Exit::Usage))?;
    require_root("dns query")?;
    let request = v1::LocateRequest { workload: query.from.to_string() };
    let location = converse(async { answer(AgentClient::new(agent(common).await?).locate(request)).await })?;
    let server = nameserver(&location.resolv_conf)?;
    let workload = &location.workload;
    let netns = NetNs::open(&location.netns)
        .map_err(Failure::of(format!("workload {workload} is not there (any more)")))?;
    netns.enter().map_err(Failure::of(format!("workload {workload}")))?;
    let said = ask(server, &asked)
        .map_err(Failure::of(format!("no answer from {server} of workload {workload}")))?;
    let records: Vec<RecordView> = said.answers.iter().map(RecordView::from).collect();
    if records.is_empty() {
        return Err(Failure::new(nothing(query, said.metadata.response_code)));
    }
    printer.list(&records)
}

fn message(query: &DnsQuery) -> Result<Message, String> {
    let kind: RecordType = query
        .kind
        .to_ascii_uppercase()
        .parse()
        .map_err(|_| format!("--type {:?} is no type of records like A, AAAA, SRV or PTR", query.kind))?;
    let name = format!("{}.", query.name.trim_end_matches('.'));
    let name = Name::from_ascii(name).map_err(|error| format!("name {:?}: {error}", query.name))?;
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.queries.push(Query::query(name, kind));
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_SIZE);
    message.edns = Some(edns);
    Ok(message)
}

/// The first one that the workload's resolv.conf names.
fn nameserver(resolv_conf: &str) -> Result<SocketAddr, Failure> {
    let text = fs::read_to_string(resolv_conf).map_err(Failure::of(format!("cannot read {resolv_conf}")))?;
    let servers = text.lines().filter_map(|line| line.strip_prefix("nameserver "));
    let address = servers.filter_map(|server| server.trim().parse::<IpAddr>().ok()).next();
    address
        .map(|address| SocketAddr::new(address, 53))
        .ok_or_else(|| Failure::new(format!("{resolv_conf} names no nameserver")))
}

fn ask(server: SocketAddr, asked: &Message) -> io::Result<Message> {
    let query = asked.to_vec().map_err(io::Error::other)?;
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.connect(server)?;
    socket.send(&query)?;
    let mut buffer = vec![0; UDP_SIZE.into()];
    let len = socket.recv(&mut buffer)?;
    let said = read(buffer.get(..len).unwrap_or_default(), asked)?;
    if !said.metadata.truncation {
        return Ok(said);
    }
    let mut stream = TcpStream::connect_timeout(&server, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let len = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes(), query.as_slice()].concat())?;
    let mut len = [0; 2];
    stream.read_exact(&mut len)?;
    let mut whole = vec![0; u16::from_be_bytes(len).into()];
    stream.read_exact(&mut whole)?;
    read(&whole, asked)
}

fn read(bytes: &[u8], asked: &Message) -> io::Result<Message> {
    let said = Message::from_vec(bytes).map_err(io::Error::other)?;
    if said.metadata.id == asked.metadata.id {
        Ok(said)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "the answer to another question"))
    }
}

fn nothing(query: &DnsQuery, code: ResponseCode) -> String {
    let (name, kind, from) = (&query.name, query.kind.to_ascii_uppercase(), &query.from);
    if code == ResponseCode::NoError {
        format!(
            "{name} has no {kind} records for workload {from} now; a service has some while an instance is ready"
        )
    } else if code == ResponseCode::NXDomain {
        format!("there is no name {name} for workload {from} (NXDOMAIN)")
    } else {
        format!("{name} could not be found out for workload {from}: {code}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: &str) -> DnsQuery {
        DnsQuery { name: name.into(), from: "client".parse().unwrap(), kind: kind.into() }
    }

    #[test]
    fn names_and_types_that_are_none_are_named() {
        let table = [("api", "B", "--type \"B\""), ("a..b", "A", "name \"a..b\"")];
        for (name, kind, expected) in table {
            let error = message(&query(name, kind)).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let asked = message(&query("_http._tcp.api", "srv")).unwrap();
        assert_eq!(asked.queries[0].to_string(), "_http._tcp.api. IN SRV");
    }
}
