//! The result of ADD (CNI 1.1, section 5, "Success"), in the version that was asked for.

use sealane_proto::wire::v1;
use serde_json::{Value, json};

use super::version::Version;
use crate::plugin::dns::Dns;
use crate::plugin::json::Object;

/// The destination of a default route.
const EVERYWHERE: &str = "0.0.0.0/0";

/// Adds the attachment to a result, perhaps of plugins before.
pub(super) fn result(
    version: Version,
    seat: &v1::Attachment,
    netns: &str,
    dns: &Dns,
    previous: Option<&Object>,
) -> Value {
    if version < Version::V030 {
        return single(version, seat, dns);
    }
    let list = |key: &str| {
        let before = previous.and_then(|previous| previous.get(key));
        before.and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let (mut interfaces, mut ips, mut routes) = (list("interfaces"), list("ips"), list("routes"));
    let place = interfaces.len();
    interfaces.push(json!({ "name": seat.interface, "mac": seat.mac, "sandbox": netns }));
    let mut ip = |family: &str, address: &str, prefix_len: u32, gateway: Option<&str>| {
        let mut ip = json!({ "address": format!("{address}/{prefix_len}"), "interface": place });
        if let Some(gateway) = gateway {
            ip["gateway"] = gateway.into();
        }
        if version < Version::V100 {
            ip["version"] = family.into();
        }
        ips.push(ip);
    };
    ip("4", &seat.address, seat.prefix_len, Some(&seat.gateway));
    if !seat.address6.is_empty() {
        ip("6", &seat.address6, seat.prefix_len6, None);
    }
    // One that is there counts before ours (`seat.deny_egress`: ours leads nowhere).
    if !seat.deny_egress && !routes.iter().any(is_default) {
        routes.push(json!({ "dst": EVERYWHERE, "gw": seat.gateway }));
    }
    let mut all = dns.clone();
    if let Some(Value::Object(before)) = previous.and_then(|previous| previous.get("dns")) {
        all.extend(Dns::of_section(before));
    }
    let mut result = previous.cloned().unwrap_or_default();
    let own = [
        ("cniVersion", version.number().into()),
        ("interfaces", interfaces.into()),
        ("ips", ips.into()),
        ("routes", routes.into()),
        ("dns", all.section()),
    ];
    result.extend(own.map(|(key, value)| (key.to_owned(), value)));
    Value::Object(result)
}

/// The result before there were lists of plugins: one address of each family, without the interface. Mesos reads nothing else.
fn single(version: Version, seat: &v1::Attachment, dns: &Dns) -> Value {
    let mut ip4 = json!({ "ip": format!("{}/{}", seat.address, seat.prefix_len), "gateway": seat.gateway });
    if !seat.deny_egress {
        ip4["routes"] = json!([{ "dst": EVERYWHERE, "gw": seat.gateway }]);
    }
    let mut result = json!({ "cniVersion": version.number(), "ip4": ip4, "dns": dns.section() });
    if !seat.address6.is_empty() {
        result["ip6"] = json!({ "ip": format!("{}/{}", seat.address6, seat.prefix_len6) });
    }
    result
}

fn is_default(route: &Value) -> bool {
    route.get("dst").and_then(Value::as_str) == Some(EVERYWHERE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat() -> v1::Attachment {
        v1::Attachment {
            network: "shop".into(),
            address: "10.42.0.9".into(),
            interface: "eth0".into(),
            mac: "02:00:00:00:00:09".into(),
            gateway: "10.42.0.1".into(),
            prefix_len: 16,
            ..Default::default()
        }
    }

    #[test]
    fn a_result_has_the_form_of_its_version() {
        let dns = Dns { nameservers: vec!["127.0.0.11".into()], ..Dns::default() };
        for (version, number) in Version::ALL.into_iter().filter(|(version, _)| *version >= Version::V030) {
            let told = result(version, &seat(), "/run/netns/pod", &dns, None);
            let mut ip = json!({ "address": "10.42.0.9/16", "gateway": "10.42.0.1", "interface": 0 });
            if version < Version::V100 {
                ip["version"] = "4".into();
            }
            let expected = json!({
                "cniVersion": number,
                "interfaces": [{ "name": "eth0", "mac": "02:00:00:00:00:09", "sandbox": "/run/netns/pod" }],
                "ips": [ip],
                "routes": [{ "dst": "0.0.0.0/0", "gw": "10.42.0.1" }],
                "dns": { "nameservers": ["127.0.0.11"] },
            });
            assert_eq!(told, expected);
        }
    }

    #[test]
    fn before_there_were_lists_a_result_has_one_address_of_each_family() {
        let dns = Dns { nameservers: vec!["127.0.0.11".into()], ..Dns::default() };
        let told = |seat: &v1::Attachment| result(Version::V020, seat, "/n", &dns, None);
        let way = json!([{ "dst": "0.0.0.0/0", "gw": "10.42.0.1" }]);
        let expected = json!({
            "cniVersion": "0.2.0",
            "ip4": { "ip": "10.42.0.9/16", "gateway": "10.42.0.1", "routes": way },
            "dns": { "nameservers": ["127.0.0.11"] },
        });
        assert_eq!(told(&seat()), expected);
        let twin =
            v1::Attachment { address6: "fd42::a2a:9".into(), prefix_len6: 64, deny_egress: true, ..seat() };
        let told = told(&twin);
        assert_eq!((&told["ip6"], told["ip4"].get("routes")), (&json!({ "ip": "fd42::a2a:9/64" }), None));
    }

    #[test]
    fn the_way_to_everywhere_is_named_where_it_leads_there_and_none_is_before() {
        let routes = |seat: &v1::Attachment, previous: Value| {
            let told = result(Version::V110, seat, "/n", &Dns::default(), previous.as_object());
            told["routes"].as_array().unwrap().len()
        };
        let denied = v1::Attachment { deny_egress: true, ..seat() };
        assert_eq!((routes(&seat(), json!({})), routes(&denied, json!({}))), (1, 0));
        let default = json!({ "routes": [{ "dst": "0.0.0.0/0", "gw": "192.0.2.1" }] });
        assert_eq!(routes(&seat(), default), 1, "the one before");
    }

    #[test]
    fn what_plugins_before_made_stays_first() {
        let before = json!({
            "interfaces": [{ "name": "br0" }, { "name": "net0", "sandbox": "/n" }],
            "ips": [{ "address": "192.0.2.2/24", "interface": 1 }],
            "routes": [{ "dst": "192.0.2.0/24" }],
            "dns": { "nameservers": ["192.0.2.1"], "search": ["example"] },
            "example.com/more": 7,
        });
        let dns =
            Dns { nameservers: vec!["127.0.0.11".into()], search: vec!["shop".into()], ..Dns::default() };
        let twin = v1::Attachment { address6: "fd42::a2a:9".into(), prefix_len6: 64, ..seat() };
        let told = result(Version::V110, &twin, "/n", &dns, before.as_object());
        assert_eq!((told["interfaces"].as_array().unwrap().len(), &told["example.com/more"]), (3, &json!(7)));
        assert_eq!(told["ips"][0], before["ips"][0]);
        assert_eq!(
            (&told["ips"][1]["interface"], &told["ips"][2]["address"]),
            (&json!(2), &json!("fd42::a2a:9/64"))
        );
        assert_eq!(told["routes"][0], before["routes"][0]);
        assert_eq!(
            told["dns"],
            json!({ "nameservers": ["127.0.0.11", "192.0.2.1"], "search": ["shop", "example"] })
        );
    }
}
