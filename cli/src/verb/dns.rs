//! `sealane dns`.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::{Name, RecordType};
use sealane_proto::wire::v1;
use sealane_proto::wire::v1::agent_client::AgentClient;
use sealane_sys::NetNs;

use crate::args::{Common, Dns, DnsAction, DnsQuery};
use crate::client::{agent, answer, converse};
use crate::failure::{Exit, Failure, require_root};
use crate::printer::Printer;
use crate::view::RecordView;

/// Limit for the agent: longer than it gives the host's resolvers.
const TIMEOUT: Duration = Duration::from_secs(6);
/// The EDNS option of an Extended DNS Error.
const EXTENDED_ERROR: u16 = 15;
/// The largest datagram that is taken.
const UDP_SIZE: u16 = 1232;

/// `sealane dns query`.
pub(crate) fn call(dns: &Dns, common: &Common, printer: &Printer) -> Result<(), Failure> {
    let DnsAction::Query(query) = &dns.action;
    let asked = message(query).map_err(|reason| Failure::new(reason).exit(Exit::Usage))?;
    require_root("dns query")?;
    let request = v1::LocateRequest { workload: query.from.to_string(), ..Default::default() };
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
        return Err(Failure::new(nothing(query, &said)));
    }
    printer.list(&records)
}

fn message(query: &DnsQuery) -> Result<Message, String> {
    let kind: RecordType = query
        .kind
        .to_ascii_uppercase()
        .parse()
        .map_err(|_| format!("--type {:?} is no type of records like A, AAAA, SRV or PTR", query.kind))?;
    let name = match (query.name.parse::<IpAddr>(), kind) {
        (Ok(address), RecordType::PTR) => Name::from(address),
        (Ok(address), _) => {
            return Err(format!("{address} is an address, not a name; hint: --type PTR asks for its name"));
        }
        (Err(_), _) if query.name.is_empty() => return Err("the name is empty".to_owned()),
        (Err(_), _) => {
            let name = format!("{}.", query.name.trim_end_matches('.'));
            Name::from_ascii(name).map_err(|error| format!("name {:?}: {error}", query.name))?
        }
    };
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

/// Describes an answer without records, by what is true of every name of that kind.
fn nothing(query: &DnsQuery, said: &Message) -> String {
    let (name, kind, from) = (&query.name, query.kind.to_ascii_uppercase(), &query.from);
    let code = said.metadata.response_code;
    if code == ResponseCode::NoError {
        let hint = match kind.as_str() {
            "A" => "a service has some while an instance of it is ready and not drained (weight 0)",
            "AAAA" => {
                "there are none in networks without IPv6, and of a service only while an instance that listens for IPv6 is \
                 ready and not drained"
            }
            "SRV" if !name.starts_with('_') => "ask for a port of a service, such as _http._tcp.api",
            "SRV" => "a service has some while an instance of it is ready and not drained (weight 0)",
            "PTR" => "addresses have them: give one in place of the name",
            _ => "names of the mesh have A, AAAA, SRV and PTR records alone",
        };
        format!("{name} has no {kind} records for workload {from}; hint: {hint}")
    } else if code == ResponseCode::NXDomain {
        format!("there is no name {name} for workload {from} (NXDOMAIN)")
    } else {
        let why = extended_error(said).unwrap_or_else(|| code.to_string());
        format!("{name} could not be found out for workload {from}: {why}")
    }
}

/// Describes an Extended DNS Error (RFC 8914) of the answer.
fn extended_error(said: &Message) -> Option<String> {
    let EdnsOption::Unknown(_, data) = said.edns.as_ref()?.option(EdnsCode::Unknown(EXTENDED_ERROR))? else {
        return None;
    };
    let (code, text) = data.split_first_chunk()?;
    let (code, text) = (u16::from_be_bytes(*code), String::from_utf8_lossy(text));
    Some(if text.is_empty() { format!("extended DNS error {code}") } else { text.into_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: &str) -> DnsQuery {
        DnsQuery { name: name.into(), from: "client".parse().unwrap(), kind: kind.into() }
    }

    #[test]
    fn names_and_types_that_are_none_are_named() {
        let table = [
            ("api", "B", "--type \"B\""),
            ("a..b", "A", "name \"a..b\""),
            ("", "A", "the name is empty"),
            ("10.42.0.3", "A", "10.42.0.3 is an address, not a name; hint: --type PTR"),
        ];
        for (name, kind, expected) in table {
            let error = message(&query(name, kind)).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let asked = message(&query("_http._tcp.api", "srv")).unwrap();
        assert_eq!(asked.queries[0].to_string(), "_http._tcp.api. IN SRV");
        let asked = message(&query("10.42.0.3", "ptr")).unwrap();
        assert_eq!(asked.queries[0].to_string(), "3.0.42.10.in-addr.arpa. IN PTR");
    }

    #[test]
    fn an_answer_without_records_says_why() {
        let said = |code: ResponseCode, error: Option<&[u8]>| {
            let mut said = Message::query();
            said.metadata.response_code = code;
            let mut edns = Edns::new();
            let option = error.map(|error| EdnsOption::Unknown(EXTENDED_ERROR, error.to_vec()));
            option.into_iter().for_each(|option| edns.options_mut().insert(option));
            said.edns = Some(edns);
            Message::from_vec(&said.to_vec().unwrap()).unwrap()
        };
        let table: [(&str, &str, Message, &str); 7] = [
            (
                "api",
                "A",
                said(ResponseCode::NoError, None),
                "no A records for workload client; hint: a service",
            ),
            (
                "api",
                "txt",
                said(ResponseCode::NoError, None),
                "no TXT records for workload client; hint: names",
            ),
            ("api", "SRV", said(ResponseCode::NoError, None), "such as _http._tcp.api"),
            ("api", "A", said(ResponseCode::NXDomain, None), "(NXDOMAIN)"),
            ("a.example", "A", said(ResponseCode::ServFail, None), "for workload client: Server Failure"),
            (
                "a.example",
                "A",
                said(ResponseCode::ServFail, Some(b"\0\x16no resolver")),
                "client: no resolver",
            ),
            (
                "a.example",
                "A",
                said(ResponseCode::ServFail, Some(b"\0\x16")),
                "client: extended DNS error 22",
            ),
        ];
        for (name, kind, said, expected) in table {
            let text = nothing(&query(name, kind), &said);
            assert!(text.contains(expected), "{text}");
        }
    }
}
