use super::*;

const NETWORK: &str = r#"{"apiVersion":"sealane.dev/v1","kind":"Network","metadata":{"name":"shop"},"spec":{"subnets":["10.42.0.0/16"]}}"#;
const SERVICE: &str = r#"{"apiVersion":"sealane.dev/v1","kind":"Service","metadata":{"name":"api","network":"shop"},"spec":{"ports":[{"name":"web","port":80,"protocol":"http"},{"port":9090}]}}"#;

const OUTSIDE: &str = r#"{"apiVersion":"sealane.dev/v1","kind":"Service","metadata":{"name":"db","network":"shop"},"spec":{"ports":[{"port":5432}],"external":["192.0.2.50:5432"],"check":{"http":"/health","interval":"2s"}}}"#;

#[test]
fn documents_are_written_as_they_were_read() {
    for text in [NETWORK, SERVICE, OUTSIDE] {
        let document = Document::from_json(text).unwrap();
        assert_eq!(document.to_json().unwrap(), text);
    }
}

#[test]
fn what_is_wrong_is_named() {
    let table = [
        (NETWORK, "10.42.0.0/16", "10.42.0.1/16", "did you mean 10.42.0.0/16"),
        (NETWORK, r#"["10.42.0.0/16"]"#, "[]", "one IPv4 subnet, not 0"),
        (NETWORK, r#"["10.42.0.0/16"]"#, r#"["fd42::/64"]"#, "one IPv4 subnet, not 0"),
        (
            NETWORK,
            r#"["10.42.0.0/16"]"#,
            r#"["10.42.0.0/16","fd42::/64","fd43::/64"]"#,
            "one IPv6 subnet, not 2",
        ),
        (NETWORK, r#"["10.42.0.0/16"]"#, r#"["10.42.0.0/16"],"mtu":100"#, "mtu 100 must be from 576 to 9000"),
        (NETWORK, r#"["10.42.0.0/16"]"#, r#"["10.42.0.0/16"],"replicas":1"#, "unknown field `replicas`"),
        (NETWORK, "shop", "Shop", "network name \"Shop\""),
        (NETWORK, "Network", "Netwrok", "kind \"Netwrok\" is not known; did you mean Network?"),
        (
            NETWORK,
            "Network",
            "Pod",
            "kind \"Pod\" is not known; it must be Network or Service or HTTPRoute or GRPCRoute",
        ),
        (NETWORK, "sealane.dev/v1", "sealane.dev/v2", "did you mean sealane.dev/v1?"),
        (NETWORK, "sealane.dev/v1", "v1", "apiVersion \"v1\" is not known; it must be sealane.dev/v1"),
        (NETWORK, "sealane.dev/v1", "", "apiVersion is missing"),
        (
            NETWORK,
            "sealane.dev/v1",
            "gateway.networking.k8s.io/v1",
            "of the Gateway API, of which HTTPRoute and GRPCRoute",
        ),
        (SERVICE, "9090", "80", "spec.ports[1].port: 80 is spec.ports[0].port already"),
        (SERVICE, r#"{"port":9090}"#, r#"{"port":9090,"name":"web"}"#, "spec.ports[1].name: web is"),
        (SERVICE, "9090", "70000", "port \"70000\" is not a number from 1 to 65535"),
        (SERVICE, r#"9090"#, r#"9090,"mtls":"lax""#, "unknown variant `lax`"),
        (
            SERVICE,
            r#"9090"#,
            r#"9090,"protocol":"udp","mtls":"strict""#,
            "spec.ports[1].mtls: port 9090 carries",
        ),
        (SERVICE, "http", "htp", "unknown variant `htp`"),
    ];
    assert_named(&table);
}

#[test]
fn what_is_wrong_with_external_instances_is_named() {
    assert_named(&[
        (OUTSIDE, "192.0.2.50:", "127.0.0.1:", "127.0.0.1 is a loopback address"),
        (
            OUTSIDE,
            r#""192.0.2.50:5432""#,
            r#""192.0.2.50","192.0.2.50""#,
            "spec.external[1]: 192.0.2.50 is there twice",
        ),
        (
            OUTSIDE,
            "[{",
            r#"[{"port":80},{"#,
            "spec.external[0]: 192.0.2.50:5432 has a port, and the service has 2",
        ),
        (
            OUTSIDE,
            "[{",
            r#"[{"mtls":"strict","#,
            "spec.ports[0].mtls: external instances are called in plain",
        ),
        (
            OUTSIDE,
            r#""spec":{"#,
            r#""spec":{"mtls":"strict","#,
            "spec.mtls: external instances are called in plain",
        ),
        (OUTSIDE, "5432}", r#"5432,"protocol":"udp"}"#, "spec.check.port: a check needs a port over TCP"),
        (OUTSIDE, r#""interval""#, r#""grpc":"","interval""#, "spec.check.grpc: a check asks one thing"),
        (OUTSIDE, r#""http":"/health""#, r#""status":"200""#, "spec.check.status: only an answer to http"),
        (OUTSIDE, r#""interval""#, r#""status":"2xx","interval""#, "is no status to expect"),
        (OUTSIDE, r#""interval""#, r#""healthy":0,"interval""#, "0 is no number of answers in a row"),
        (OUTSIDE, r#""interval""#, r#""startPeriod":"2d","interval""#, "is no time of a check"),
        (OUTSIDE, r#""interval""#, r#""exec":"true","interval""#, "unknown field `exec`"),
        (OUTSIDE, "/health", "health", "is no path to ask for"),
        (OUTSIDE, "2s", "2d", "is no time of a check"),
        (OUTSIDE, "interval", "every", "unknown field `every`"),
    ]);
}

/// Asserts that each text, with one part of it replaced, is refused in such words.
fn assert_named(table: &[(&str, &str, &str, &str)]) {
    for (text, from, to, expected) in table {
        let error = Document::from_json(&text.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(error.contains(expected), "{to}: {error}");
    }
}

#[test]
fn kinds_are_understood_as_people_type_them() {
    for text in ["network", "Networks", "net"] {
        assert_eq!(text.parse::<DocumentKind>().unwrap(), DocumentKind::Network);
    }
    assert_eq!("svc".parse::<DocumentKind>().unwrap(), DocumentKind::Service);
    let error = "servcie".parse::<DocumentKind>().unwrap_err().to_string();
    assert!(error.contains("did you mean Service?"), "{error}");
}

#[test]
fn schemas_know_each_kind_and_every_field() {
    let all = serde_json::to_value(schema(None)).unwrap();
    assert_eq!(all["oneOf"].as_array().unwrap().len(), DocumentKind::ALL.len());
    let service = serde_json::to_value(schema(Some(DocumentKind::Service))).unwrap();
    assert_eq!(service["additionalProperties"], false);
    assert_eq!(service["properties"]["spec"]["properties"]["ports"]["minItems"], 1);
}
