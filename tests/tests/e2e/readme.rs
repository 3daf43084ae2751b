//! The first commands of README.md, typed as they are written.

use std::path::Path;

use sealane_lab::isolated;
use sealane_tests::{Mesh, Release, Running, Site, sealane};

/// The images that README.md names, out of what a host has: a server that says its name, and curl.
const IMAGES: &str = r#"set -e
cd /run/bb && mkdir www && echo 'Welcome to nginx!' >www/index.html
tar -c . | docker import -c 'CMD ["httpd", "-f", "-p", "80", "-h", "/www"]' - nginx
mkdir -p /run/curl/bin && cd /run/curl && cp /usr/bin/curl bin
for file in $(ldd bin/curl | grep -o '/[^ ]*'); do mkdir -p .$(dirname $file) && cp -L $file .$file; done
tar -c . | docker import -c 'ENTRYPOINT ["curl"]' - curlimages/curl"#;

/// The indented lines below the line that begins with `text`, up to the next text, block by block.
fn blocks(readme: &str, text: &str) -> Vec<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(readme);
    let whole = std::fs::read_to_string(path).unwrap();
    let below = whole.lines().skip_while(|line| !line.starts_with(text)).skip(1);
    let mut blocks = vec![Vec::new()];
    for line in below.take_while(|line| line.is_empty() || line.starts_with("    ")) {
        match line.strip_prefix("    ") {
            Some(line) => blocks.last_mut().unwrap().push(line.to_owned()),
            None => blocks.push(Vec::new()),
        }
    }
    blocks.retain(|block: &Vec<String>| !block.is_empty());
    assert!(!blocks.is_empty(), "{readme} has nothing to type below {text:?}");
    blocks
}

/// Types a line in a shell that finds the program.
fn begin(site: &Site, line: &str) -> Running {
    let folder = sealane().canonicalize().unwrap();
    let folder = folder.parent().unwrap().display().to_string();
    // What is in the foreground of its own shell gets the signals of who ends it.
    let line = line.split_once(" &").map_or(line.to_owned(), |(line, _)| format!("exec env {line}"));
    site.begin("sh", &["-c", &format!("PATH=/usr/sbin:/usr/bin:/sbin:/bin:{folder}; {line}")])
}

/// Types all lines; answers what the last one printed, and what stays in the background.
fn type_all(site: &Site, lines: &[String], as_here: impl Fn(&str) -> String) -> (Vec<String>, Vec<Running>) {
    let (mut said, mut background) = (Vec::new(), Vec::new());
    for line in lines {
        let typed = begin(site, &as_here(line));
        if line.contains(" &") {
            background.push(typed);
        } else {
            said.push(typed.wait().ok().stdout);
        }
    }
    (said, background)
}

#[test]
fn the_quick_start_with_docker_works_as_it_is_written() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::on(&[Release::Trixie; 2]);
    let _dockerds: Vec<_> = mesh.sites().map(Site::dockerd).collect();
    mesh.sites().for_each(|site| drop(site.command("sh", &["-c", IMAGES]).ok()));
    let address = mesh.site(1).host.address().to_string();
    let as_here = |line: &str| line.replace("192.0.2.10", &address);
    let first = &blocks("README.md", "On the first host, which runs")[0];
    let (said, _control) = type_all(mesh.site(1), first, as_here);
    let token = said.iter().find_map(|said| said.lines().find(|line| line.starts_with("slt1."))).unwrap();

    let second = &blocks("README.md", "On the second:")[0];
    let (said, _agent) =
        type_all(mesh.site(2), second, |line| as_here(line).replace("=TOKEN", &format!("={token}")));
    assert_eq!(said.last().unwrap(), "Welcome to nginx!\n");
    drop(
        mesh.sites()
            .map(|site| site.command("sh", &["-c", "docker rm -f $(docker ps -qa)"]))
            .collect::<Vec<_>>(),
    );
}

#[test]
fn the_quick_start_with_plain_processes_works_as_it_is_written() {
    if !isolated() {
        return;
    }
    let mesh = Mesh::shop(2);
    let typed = blocks("README.md", "They need no engine.");
    let [first, second] = typed.as_slice() else { panic!("{typed:?}") };
    let _server = begin(mesh.site(1), &first[0]);
    mesh.await_instances("files", 1);
    let answer = begin(mesh.site(2), &second[0]).wait().ok();
    assert!(answer.stdout.contains("Directory listing"), "{answer}");
}

#[test]
fn both_languages_say_the_same_lines() {
    let bare = |blocks: Vec<Vec<String>>| -> Vec<String> {
        let lines = blocks.into_iter().flatten();
        lines.map(|line| line.split(" #").next().unwrap().trim_end().to_owned()).collect()
    };
    for (english, chinese) in [
        ("On the first host, which runs", "第一台主机，同时运行"),
        ("On the second:", "第二台主机："),
        ("They need no engine.", "不需要任何容器引擎。"),
    ] {
        assert_eq!(bare(blocks("README.md", english)), bare(blocks("README.zh-CN.md", chinese)), "{english}");
    }
}
