use super::*;

const GOOD: &str = "\
# Two documents.
apiVersion: sealane.dev/v1
kind: Network
metadata:
  name: shop
spec:
  subnets: [10.42.0.0/16]
---
apiVersion: sealane.dev/v1
kind: Service
metadata:
  name: api
  network: shop
spec:
  ports:
  - name: web
    port: 8080
    protocol: http
  - port: 9090
";

/// Returns the first flaw of a text, with its place.
fn flaw(text: &str) -> String {
    let read = parse(text).and_then(|nodes| nodes.iter().map(understand).collect::<Result<Vec<_>, _>>());
    read.map_or_else(|flaw| flaw.said("f"), |documents| format!("read as {documents:?}"))
}

#[test]
fn yaml_and_json_are_read_alike() {
    let nodes = parse(GOOD).unwrap();
    let documents: Vec<Document> = nodes.iter().map(|node| understand(node).unwrap()).collect();
    assert_eq!(nodes.iter().map(|node| node.at.line).collect::<Vec<_>>(), [2, 9]);
    let json = serde_json::to_string_pretty(&documents).unwrap();
    let again: Vec<Document> = parse(&json).unwrap().iter().map(|node| understand(node).unwrap()).collect();
    assert_eq!(again, documents);
    let yaml: Vec<String> =
        documents.iter().map(|document| serde_saphyr::to_string(document).unwrap()).collect();
    let again: Vec<Document> =
        parse(&yaml.join("---\n")).unwrap().iter().map(|node| understand(node).unwrap()).collect();
    assert_eq!(again, documents);
}

/// Replacements in the good text, and the words that follow.
const WRONG: &[(&str, &str, &str)] = &[
    ("subnets:", "subnet:", "f:7:3: spec: unknown field `subnet`; did you mean `subnets`?"),
    (
        "subnets:",
        "replicas: 3\n  subnets:",
        "f:7:3: spec: unknown field `replicas`; known are subnets, hosts, mtu, encryption, egress, mtls",
    ),
    ("subnets: [10.42.0.0/16]", "mtu: 1400", "f:7:3: spec: field `subnets` is missing"),
    ("10.42.0.0/16", "10.42.0.1/16", "f:7:13: spec.subnets[0]: subnet 10.42.0.1/16 has host bits set"),
    ("[10.42.0.0/16]", "10.42.0.0/16", "f:7:12: spec.subnets: must be a list, not the text \"10.42.0.0/16\""),
    (
        "[10.42.0.0/16]",
        "[10.42.0.0/16]\n  mtu: big",
        "f:8:8: spec.mtu: must be a number from 0 on, not the text \"big\"",
    ),
    (
        "[10.42.0.0/16]",
        "[10.42.0.0/16]\n  encryption: nome",
        "spec.encryption: unknown value `nome`; did you mean `none`?",
    ),
    ("name: shop", "name: 42", "f:5:9: metadata.name: must be a text, not 42; write it in quotes"),
    ("name: shop", "name: Shop", "f:5:9: metadata.name: network name \"Shop\" may hold lower-case letters"),
    ("name: shop", "name: \u{e4}", "f:5:9: metadata.name: network name"),
    ("kind: Network", "kind: Netwrok", "f:3:7: kind \"Netwrok\" is not known; did you mean Network?"),
    ("kind: Network", "kind: [a]", "f:3:7: kind: must be a text"),
    ("sealane.dev/v1", "sealane.dev/v2", "f:2:13: apiVersion \"sealane.dev/v2\" is not known; did you mean"),
    (
        "sealane.dev/v1",
        "gateway.networking.k8s.io/v1",
        "of the Gateway API, of which HTTPRoute and GRPCRoute",
    ),
    ("port: 9090", "port: 8080", "f:19:11: spec.ports[1].port: 8080 is spec.ports[0].port already"),
    (
        "port: 9090",
        "port: 70000",
        "f:19:11: spec.ports[1].port: port \"70000\" is not a number from 1 to 65535",
    ),
    ("port: 9090", "port: -1", "spec.ports[1].port: must be a number from 0 on, not -1"),
    ("port: 9090", "port: \"9090\"", "spec.ports[1].port: must be a number from 0 on, not the text"),
    ("port: 9090", "prot: 9090", "f:19:5: spec.ports[1]: unknown field `prot`; did you mean `port`?"),
    (
        "protocol: http",
        "protocol: htp",
        "f:18:15: spec.ports[0].protocol: unknown value `htp`; did you mean `http`?",
    ),
    ("  network: shop", "  network:", "f:13:10: metadata.network: must be a text, not nothing"),
    ("  name: api", "  name: api\n  name: api", "f:13:3: field `name` is there twice"),
    (
        "metadata:",
        "metadata: 5\n\"\\e[31m\":",
        "f:5:1: unknown field `\\u{1b}[31m`; known are apiVersion, kind, metadata, spec",
    ),
    ("metadata:", "metadata: 5\nx:", "f:5:1: unknown field `x`; known are apiVersion, kind, metadata, spec"),
    ("# Two documents.", "hello\n---", "f:1:1: a document is a mapping"),
    ("# Two documents.", "a: &a [*a]", "f:1:8: an anchor cannot hold its own alias"),
    ("# Two documents.", "<<: {a: b}", "merge keys"),
    ("# Two documents.", "\t- x: [", "f:"),
];

#[test]
fn what_is_wrong_is_told_with_place_and_path() {
    let said = WRONG.iter().map(|(from, to, expected)| (to, expected, flaw(&GOOD.replacen(from, to, 1))));
    let other: Vec<_> = said.filter(|(_, expected, said)| !said.contains(*expected)).collect();
    assert!(other.is_empty(), "{other:#?}");
}

#[test]
fn a_text_that_would_grow_beyond_measure_is_refused_at_once() {
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (from, to) in [('a', 'b'), ('b', 'c'), ('c', 'd'), ('d', 'e'), ('e', 'f'), ('f', 'g'), ('g', 'h')] {
        let many = vec![format!("*{from}"); 9].join(", ");
        bomb.push_str(&format!("{to}: &{to} [{many}]\n"));
    }
    let said = flaw(&bomb);
    assert!(said.contains("grown too large by its aliases"), "{said}");
    let deep = flaw(&"[".repeat(100_000));
    assert!(!deep.contains("read as"), "{deep}");
}
