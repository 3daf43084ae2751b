//! Whatever Docker, or somebody in its place, writes is answered, and what is wrong of it is named.

use proptest::prelude::*;

use super::super::wire::Call;
use super::*;
use crate::testing;

/// A call of each kind that is read.
fn calls() -> Vec<(&'static str, Value)> {
    let endpoint = json!({
        "NetworkID": "4f1c", "EndpointID": "7e57", "SandboxKey": "/run/docker/netns/1", "Options": null,
        "Interface": {"Address": "10.42.0.9/16", "AddressIPv6": "", "MacAddress": "02:42:0a:2a:00:09"},
    });
    let network = json!({
        "NetworkID": "4f1c", "Options": {GENERIC: {OPTION: "shop"}, INTERNAL: false},
        "IPv6Data": [{"AddressSpace": SPACE, "Pool": "::/0", "Gateway": "::1:0:7/128"}],
        "IPv4Data": [{"AddressSpace": SPACE, "Pool": "10.42.0.0/16", "Gateway": "10.42.0.1/16"}],
    });
    vec![
        ("/NetworkDriver.GwAllocCheck", network.clone()),
        ("/NetworkDriver.CreateNetwork", network),
        ("/NetworkDriver.CreateEndpoint", endpoint.clone()),
        ("/NetworkDriver.Join", endpoint.clone()),
        ("/NetworkDriver.DeleteEndpoint", endpoint),
        (
            "/IpamDriver.RequestPool",
            json!({"AddressSpace": SPACE, "Pool": "10.42.0.0/16", "SubPool": "", "Options": {OPTION: "shop"}, "V6": false}),
        ),
        (
            "/IpamDriver.RequestAddress",
            json!({"PoolID": "sealane/shop", "Address": "10.42.0.9", "Options": {KIND: GATEWAY}}),
        ),
        (
            "/IpamDriver.RequestAddress",
            json!({"PoolID": "sealane6/::1:0:7", "Address": "fd42::a2a:9", "Options": null}),
        ),
    ]
}

/// Everything that is made of a call without a look at the world.
fn decide(path: &str, body: &[u8], book: &Book) -> Result<(), RequestFailure> {
    let shop = testing::snapshot().content.network;
    match Call::parse(path, body)? {
        Call::GatewayCheck(request) => named(&request).map(drop),
        Call::CreateNetwork(request) => network(&request, book)?.check(&shop).map(drop),
        Call::CreateEndpoint(request) => endpoint(&request, book).map(drop),
        Call::Join(request) | Call::Leave(request) => joined(&request, book).map(drop),
        Call::RequestPool(request) => {
            if request.v6 {
                return ipv6::pool(&request, 7).map(drop);
            }
            let _ = pool(&request, None, std::slice::from_ref(&shop), 7)?.answer(Some(&shop));
            check_subnet(&request, &shop)
        }
        Call::RequestAddress(request) | Call::ReleaseAddress(request) => address(&request, book).map(drop),
        Call::Activate
        | Call::NetworkCapabilities
        | Call::IpamCapabilities
        | Call::AddressSpaces
        | Call::Ignored
        | Call::ReleasePool
        | Call::DeleteNetwork(_)
        | Call::EndpointInfo
        | Call::DeleteEndpoint(_) => Ok(()),
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        Just(json!("10.42.0.9/16")),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let keys =
            prop_oneof![".{0,6}", Just(OPTION.to_owned()), Just(GENERIC.to_owned()), Just("Pool".to_owned())];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((keys, inner), 0..4)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_comes_in_a_call_is_answered(
        which in 0..8_usize,
        field in any::<prop::sample::Index>(),
        value in any_json(),
        bytes in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let (_dir, book) = book::testing::book();
        let (path, mut body) = calls().swap_remove(which);
        let _ = decide(path, &bytes, &book);
        let _ = decide(path, value.to_string().as_bytes(), &book);
        let fields = body.as_object_mut().unwrap();
        let name = fields.keys().nth(field.index(fields.len())).unwrap().clone();
        fields.insert(name.clone(), value);
        let unreadable = "Docker's request cannot be read";
        if let Err(failure) = decide(path, body.to_string().as_bytes(), &book)
            && failure.message.contains(unreadable)
        {
            prop_assert!(failure.message.contains(&name), "{name}: {failure}");
        }
    }
}
