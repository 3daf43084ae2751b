//! Other protocols than HTTP.

use sealane_lab::isolated;
use sealane_tests::Mesh;

#[test]
fn redis_is_called_across_hosts_and_a_large_value_arrives_intact() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(2);
    let flags = ["--network", "shop", "--service", "redis", "--port", "6379"];
    let server = ["redis-server", "--save", "", "--protected-mode", "no", "--bind", "0.0.0.0"];
    let mut redis = mesh.site(1).run(&flags, &server);
    redis.wait_for("Ready to accept connections");
    mesh.await_instances("redis", 1);

    let value: String = (0_u32..).map(|n| format!("{n:08x}")).take(10 * 1024 * 1024 / 8).collect();
    let mut set = mesh.site(2).shop(&["redis-cli", "-h", "redis", "-x", "SET", "large"]);
    set.say(&value);
    assert_eq!(set.wait().ok().stdout.trim(), "OK");
    let got = mesh.site(2).shop(&["redis-cli", "-h", "redis", "GET", "large"]).wait().ok();
    assert!(got.stdout.trim_end() == value, "{} bytes came back, or others", got.stdout.trim_end().len());
    let labels = [("direction", "inbound"), ("destination_service", "redis"), ("protocol", "tcp")];
    assert!(mesh.site(1).metrics().has("sealane_connections_total", &labels));
}
