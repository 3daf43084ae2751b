//! WebSocket: HTTP/1 as far as its upgrade, then bytes both ways.

use sealane_lab::isolated;
use sealane_tests::Mesh;

use super::{PYTHON, client, program};

#[test]
fn a_websocket_carries_messages_both_ways_and_closes_in_order() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(2);
    let flags = ["--network", "shop", "--service", "chat", "--port", "8765"];
    let mut server = mesh.site(1).run(&flags, &[PYTHON, &program("websocket_server.py"), "8765", "chat-1"]);
    server.wait_for("listening");
    mesh.await_instances("chat", 1);
    let _client = client(&mesh);
    let command = [PYTHON, &program("websocket_client.py"), "ws://chat:8765/"];
    let said = mesh.site(2).exec("web", &command).ok();
    assert_eq!(said.stdout, "hello from chat-1\nclosed 1000\n");
    let labels = [("direction", "outbound"), ("destination_service", "chat"), ("code_class", "1xx")];
    assert_eq!(mesh.site(2).metrics().sum("sealane_requests_total", &labels), 1.0);
}
