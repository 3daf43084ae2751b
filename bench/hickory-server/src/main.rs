//! hickory-server with one name, for the benchmarks: `bench-hickory-server ADDRESS:PORT NAME IPV4`. Its handler finds the name
//! in a map, as ours does; one thread serves.

use std::collections::HashMap;
use std::error::Error;
use std::net::Ipv4Addr;

use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Header, HeaderCounts, MessageType, Metadata, OpCode, ResponseCode};
use hickory_server::proto::rr::{LowerName, Name, RData, Record};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::UdpSocket;

struct Names(HashMap<LowerName, Record>);

#[async_trait::async_trait]
impl RequestHandler for Names {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut handle: R,
    ) -> ResponseInfo {
        let found = request.request_info().ok().and_then(|info| self.0.get(info.query.name()));
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.authoritative = true;
        metadata.response_code = if found.is_some() { ResponseCode::NoError } else { ResponseCode::NXDomain };
        let response =
            MessageResponseBuilder::from_message_request(request).build(metadata, found, [], [], []);
        handle.send_response(response).await.unwrap_or_else(|_| {
            let metadata = Metadata::new(request.metadata.id, MessageType::Response, OpCode::Query);
            Header { metadata, counts: HeaderCounts::default() }.into()
        })
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [at, name, address] = &words[..] else { return Err("usage: ADDRESS:PORT NAME IPV4".into()) };
    let name = Name::from_ascii(format!("{name}."))?;
    let record = Record::from_rdata(name.clone(), 2, RData::A(address.parse::<Ipv4Addr>()?.into()));
    let names = Names(HashMap::from([(LowerName::from(name), record)]));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut server = Server::new(names);
        server.register_socket(UdpSocket::bind(at).await?);
        server.block_until_done().await?;
        Ok(())
    })
}
