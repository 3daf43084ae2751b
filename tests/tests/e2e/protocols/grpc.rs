//! gRPC with grpcio: a channel is one connection, its calls are balanced all the same.

use sealane_lab::isolated;
use sealane_tests::{Mesh, PATIENCE, eventually};

use super::{PYTHON, client, program};

#[test]
fn calls_of_one_grpc_channel_reach_every_instance_and_every_kind_of_method_works() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(2);
    let serve = |n: usize| {
        let name = format!("api-{n}");
        let flags = ["--network", "shop", "--service", "api", "--port", "5000/grpc", "--name", &name];
        let mut server = mesh.site(n).run(&flags, &[PYTHON, &program("grpc_server.py"), "5000", &name]);
        server.wait_for("listening");
        server
    };
    let _servers = [serve(1), serve(2)];
    mesh.await_instances("api", 2);
    let _client = client(&mesh);
    let command = [PYTHON, &program("grpc_client.py"), "api:5000", "60"];
    let said = mesh.site(2).exec("web", &command).json();
    let by = |name: &str| said["by"][name].as_u64().unwrap_or_default();
    assert!(by("api-1") > 0 && by("api-2") > 0 && by("api-1") + by("api-2") == 60, "{said}");
    assert_eq!(said["failed"], serde_json::json!(["NOT_FOUND", "no such thing: ä"]));
    assert_eq!((&said["count"], &said["sum"]), (&1000.into(), &499_500.into()));
    assert_eq!(said["echoed"], serde_json::json!([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]));

    let counted = |class: &str| {
        let labels = [("direction", "outbound"), ("destination_service", "api"), ("code_class", class)];
        mesh.site(2).metrics().sum("sealane_requests_total", &labels)
    };
    eventually(PATIENCE, "63 calls went well and one found nothing", || {
        (counted("2xx") == 63.0 && counted("4xx") == 1.0).then_some(())
    });
}
