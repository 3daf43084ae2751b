//! Everything is killed in turn.

use sealane_lab::isolated;
use sealane_tests::Mesh;

#[test]
fn ten_thousand_requests_outlive_an_instance_control_and_an_agent() {
    if !isolated() {
        return;
    }
    let mut mesh = Mesh::shop(3);
    let mut servers: Vec<_> = (1..=3).map(|n| mesh.site(n).serve("api", &format!("api-{n}"))).collect();
    mesh.await_instances("api", 3);
    let load = mesh.site(2).load("web", &["http://api:8080/", "--concurrency", "8"]);
    load.await_further(1000);

    servers[2].kill9();
    load.await_further(1000);
    servers[2] = mesh.site(3).serve("api", "api-4");
    load.await_further(1000);

    mesh.control.kill9();
    load.await_further(2000);
    mesh.control.start();
    mesh.await_control();
    load.await_further(1000);

    mesh.site_mut(2).agent.kill9();
    load.await_further(2000);
    mesh.site_mut(2).agent.start();
    mesh.site_mut(2).await_ready();
    mesh.site_mut(1).agent.kill9();
    load.await_further(1000);
    mesh.site_mut(1).agent.start();
    mesh.site_mut(1).await_ready();
    load.await_further(1000);
    mesh.await_instances("api", 3);

    let report = load.stop().ok();
    println!("{} requests, the slowest took {} ms: {:?}", report.requests, report.max_ms, report.answers);
    assert!(report.requests >= 10_000);
}
