//! Calls under way to a host that dies, is cut off or freezes: they go on elsewhere, or end, as soon as that is known.

use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sealane_lab::isolated;
use sealane_tests::{Load, LoadReport, Mesh, PATIENCE, Running, Site, eventually, testapp};

/// Longest time after a host's end in which calls may fail: a second, and what a machine does meanwhile.
const BOUND: Duration = Duration::from_millis(3_500);
/// The same of processes that are stopped: what cannot be made again waits for two seconds, and longer where this host lacks time too.
const STOPPED: Duration = Duration::from_millis(6_500);

/// Three hosts with an instance of `api` each, the third of which is to fail; and clients on the second.
struct Stage {
    mesh: Mesh,
    servers: Vec<Running>,
}

/// Clients that read, that write, and that read without end.
struct Clients {
    gets: Load,
    posts: Load,
    stream: Running,
}

impl Stage {
    fn set() -> Self {
        let (mesh, servers) = Mesh::serving(3, 3);
        Self::of(mesh, servers)
    }

    /// The same with an instance that has no sidecar on the third host.
    fn with_plain() -> Self {
        let (mesh, mut servers) = Mesh::serving(3, 2);
        let mesh = mesh.permissive();
        let flags =
            ["--network", "shop", "--service", "api", "--port", "8080", "--name", "api-3", "--no-sidecar"];
        let mut plain = mesh.site(3).run(&flags, &[testapp().to_str().unwrap(), "http", "8080", "api-3"]);
        plain.wait_for("listening");
        servers.push(plain);
        mesh.await_instances("api", 3);
        Self::of(mesh, servers)
    }

    /// Pulls the third host's cable under load, which goes on elsewhere, and puts it back; returns the load's numbers.
    fn cut_and_heal(&self) -> String {
        let mut clients = self.clients();
        let (began, at) = (Instant::now(), SystemTime::now());
        self.mesh.site(3).host.cut().unwrap();
        let ended = await_end(&mut clients.stream, began);
        let said = clients.assert_failed_over(at, ended, BOUND);
        self.mesh.site(3).host.heal().unwrap();
        self.mesh.site(2).await_instances("api", 3);
        let mut again = self.mesh.site(2).load("again", &["http://api:8080/"]);
        again.await_answer("api-3");
        let _ = again.stop().ok();
        said
    }

    fn of(mesh: Mesh, servers: Vec<Running>) -> Self {
        for (from, to) in [(2, 1), (2, 3)] {
            let what = format!("host-{from} reaches host-{to}");
            eventually(PATIENCE, &what, || (reach(mesh.site(from), to) == "reachable").then_some(()));
        }
        Self { mesh, servers }
    }

    fn clients(&self) -> Clients {
        let two = self.mesh.site(2);
        let mut gets = two.load("gets", &["http://api:8080/", "--pause-ms", "2"]);
        let mut posts = two.load("posts", &["http://api:8080/", "--post", "--pause-ms", "2"]);
        gets.await_answer("api-3");
        posts.await_answer("posted");
        // By its own name, so that it goes to the host that fails; so fast that what waits on the way is soon read.
        let url = "http://api-3:8080/bytes/200000000";
        let line = format!("curl -sS --limit-rate 10M -o /dev/null -D /dev/stdout {url}");
        let mut stream = two.run(&["--network", "shop", "--name", "stream"], &["sh", "-c", &line]);
        stream.wait_for("200 OK");
        Clients { gets, posts, stream }
    }

    /// Processes of the third host: Sealane's and its workloads'.
    fn third(&self) -> Vec<i32> {
        let site = self.mesh.site(3);
        let own = ["agent", "keep", "proxy"].iter().flat_map(|verb| site.processes(verb));
        own.chain([self.servers[2].pid()]).map(|pid| i32::try_from(pid).unwrap()).collect()
    }
}

impl Clients {
    /// Asserts that no call failed that could be made again, and that none failed or was stuck beyond the bound; returns the numbers.
    fn assert_failed_over(self, began: SystemTime, ended: Duration, within: Duration) -> String {
        assert!(ended < within, "a stream ended {ended:?} after its host");
        self.gets.await_further(300);
        self.posts.await_further(300);
        let (gets, posts) = (self.gets.stop(), self.posts.stop());
        let since = |report: &LoadReport| {
            report.failed.map(|failed| failed.duration_since(began).unwrap_or_default())
        };
        let said = format!(
            "gets: {} of {} failed, slowest {} ms; posts: {} of {} failed, the last after {:?}, slowest {} ms; stream ended after \
             {ended:?}",
            gets.failures,
            gets.requests,
            gets.max_ms,
            posts.failures,
            posts.requests,
            since(&posts),
            posts.max_ms
        );
        let millis = |bound: Duration| bound.as_secs_f64() * 1000.0;
        assert!(gets.max_ms < millis(BOUND) && posts.max_ms < millis(within), "{said}");
        let _ = gets.ok();
        assert!(posts.failures <= 4, "no more than were under way: {posts:#?}");
        assert!(since(&posts).is_none_or(|since| since < within), "{posts:#?}");
        said
    }
}

/// Returns a host's view of another one.
fn reach(from: &Site, to: usize) -> String {
    let nodes = from.json(&["node", "ls"]);
    let name = format!("host-{to}");
    let of = nodes.as_array().unwrap().iter().find(|view| view["name"] == name.as_str()).unwrap();
    of["reach"].as_str().unwrap_or_default().to_owned()
}

/// Waits until the stream has ended; returns how long that took.
fn await_end(stream: &mut Running, began: Instant) -> Duration {
    eventually(PATIENCE, "the stream ends", || (!stream.runs()).then_some(()));
    began.elapsed()
}

#[test]
fn calls_to_a_host_whose_cable_is_pulled_go_on_elsewhere_or_end_as_soon_as_that_is_known() {
    if !isolated() {
        return;
    }
    println!("{}", Stage::set().cut_and_heal());
}

#[test]
fn calls_to_an_instance_without_a_sidecar_whose_cable_is_pulled_go_on_elsewhere_or_end_as_soon_as_that_is_known()
 {
    if !isolated() {
        return;
    }
    println!("{}", Stage::with_plain().cut_and_heal());
}

#[test]
fn calls_to_a_host_all_of_whose_processes_are_stopped_go_on_elsewhere_or_end_and_come_back_to_it() {
    if !isolated() {
        return;
    }
    let stage = Stage::set();
    let mut clients = stage.clients();
    let all = stage.third();
    let signal = |signal| all.iter().for_each(|pid| kill(Pid::from_raw(*pid), signal).unwrap());
    let (began, at) = (Instant::now(), SystemTime::now());
    signal(Signal::SIGSTOP);
    let ended = await_end(&mut clients.stream, began);
    println!("{}", clients.assert_failed_over(at, ended, STOPPED));
    signal(Signal::SIGCONT);
    let thawed = Instant::now();
    let mut again = stage.mesh.site(2).load("again", &["http://api:8080/"]);
    again.await_answer("api-3");
    println!("it is called again {:?} after it went on", thawed.elapsed());
    let _ = again.stop().ok();
}

#[test]
fn calls_to_the_only_instance_of_a_service_end_with_an_error_at_once_when_its_host_is_cut_off_and_pass_when_it_is_back()
 {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(3);
    let _server = mesh.site(3).serve("api", "api-1");
    mesh.await_instances("api", 1);
    let two = mesh.site(2);
    let mut client = two.run(&["--network", "shop", "--name", "client"], &["sh", "-c", "echo up; sleep 600"]);
    client.wait_for("up");
    eventually(PATIENCE, "host-2 reaches host-3", || (reach(two, 3) == "reachable").then_some(()));
    let ask = || {
        let began = Instant::now();
        let line =
            ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "15", "http://api:8080/"];
        (two.exec("client", &line).stdout, began.elapsed())
    };
    eventually(PATIENCE, "the client is served", || (ask().0 == "200").then_some(()));
    mesh.site(3).host.cut().unwrap();
    let cut = Instant::now();
    let (status, took) = ask();
    println!("under way at the cut: {status} after {took:?}");
    assert!(["502", "503", "504"].contains(&status.as_str()) && took < BOUND, "{status} after {took:?}");
    eventually(PATIENCE, "the cut is known", || (reach(two, 3) == "unreachable").then_some(()));
    for _ in 0..10 {
        let (status, took) = ask();
        println!("{:?} after the cut: {status} after {took:?}", cut.elapsed());
        assert!(["502", "503", "504"].contains(&status.as_str()) && took < BOUND, "{status} after {took:?}");
    }
    mesh.site(3).host.heal().unwrap();
    let healed = Instant::now();
    eventually(PATIENCE, "the client is served again", || (ask().0 == "200").then_some(()));
    println!("served {:?} after the host was back", healed.elapsed());
}

#[test]
fn a_way_that_loses_one_packet_in_five_each_way_and_a_slow_answer_make_no_call_leave_its_instance() {
    if !isolated() {
        return;
    }
    let stage = Stage::set();
    let (two, three) = (stage.mesh.site(2), stage.mesh.site(3));
    let flags = ["--network", "shop", "--service", "slow", "--port", "8080", "--name", "slow-1"];
    let program = testapp();
    let command = [program.to_str().unwrap(), "http", "8080", "slow-1", "--delay-ms", "1500"];
    let mut slow = three.run(&flags, &command);
    slow.wait_for("listening");
    stage.mesh.await_instances("slow", 1);
    let mut load = two.load("web", &["http://api-3:8080/", "--post", "--pause-ms", "20"]);
    let mut waiting = two.load("waiting", &["http://slow:8080/", "--post"]);
    load.await_answer("posted");
    waiting.await_answer("posted");
    let rules = "add table ip lossy; add chain ip lossy i { type filter hook input priority -400; }; \
                 add chain ip lossy o { type filter hook output priority -400; }; \
                 add rule ip lossy i udp dport 4789 numgen random mod 5 == 0 drop; \
                 add rule ip lossy o udp dport 4789 numgen random mod 5 == 0 drop";
    let _ = three.command("nft", &[rules]).ok();
    for _ in 0..8 {
        load.await_further(50);
        waiting.await_further(10);
    }
    let (load, waiting) = (load.stop(), waiting.stop());
    println!("quick: {} of {} failed, slowest {} ms", load.failures, load.requests, load.max_ms);
    println!("slow: {} of {} failed, slowest {} ms", waiting.failures, waiting.requests, waiting.max_ms);
    let (_, _) = (load.ok(), waiting.ok());
    assert_eq!(two.metrics().sum("sealane_streams_abandoned_total", &[]), 0.0);
}
