//! A server of datagrams that says who it is.

use std::net::UdpSocket;

use crate::Failure;

pub(crate) fn serve(port: &str, name: &str) -> Result<(), Failure> {
    let socket = UdpSocket::bind(("0.0.0.0", port.parse()?))?;
    println!("listening");
    let mut datagram = [0; 2048];
    loop {
        // A client that goes away leaves an error on the socket that is no concern of the server's.
        if let Ok((_, from)) = socket.recv_from(&mut datagram) {
            let _ = socket.send_to(name.as_bytes(), from);
        }
    }
}
