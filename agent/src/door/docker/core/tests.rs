use super::book::testing::book;
use super::*;
use crate::testing;

fn shop() -> Network {
    testing::snapshot().content.network
}

fn create(options: Value, pool: &str, gateway: &str) -> CreateNetwork {
    let json = json!({"NetworkID": "4f1c4f1c4f1c4f1c", "Options": {GENERIC: options}, "IPv6Data": null,
        "IPv4Data": [{"AddressSpace": SPACE, "Pool": pool, "Gateway": gateway}]});
    serde_json::from_value(json).unwrap()
}

fn pool_of(json: Value) -> Result<Pool, RequestFailure> {
    pool(&serde_json::from_value(json).unwrap(), None, &[shop()], 7)
}

#[test]
fn a_pool_is_found_by_name_or_subnet_or_left_open_under_a_mark() {
    assert_eq!(pool_of(json!({"Options": {OPTION: "shop"}})).unwrap().id(), "sealane/shop");
    assert_eq!(pool_of(json!({"Pool": "10.42.0.0/16", "Options": null})).unwrap().id(), "sealane/shop");
    let later = pool_of(json!({"Pool": "", "Options": {}})).unwrap();
    assert_eq!(later, Pool::Later(Ipv4Addr::new(0, 0, 0, 7)));
    let answer = later.answer(None);
    assert_eq!(
        answer,
        json!({"PoolID": "sealane/0.0.0.7", "Pool": "0.0.0.0/0", "Data": {GATEWAY: "0.0.0.7/32"}})
    );
    let answer = Pool::Of(shop().name).answer(Some(&shop()));
    assert_eq!(answer["Pool"], "10.42.0.0/16");
    for (wrong, expected) in [
        (json!({"Pool": "10.9.0.0/16"}), "no network has subnet 10.9.0.0/16 here"),
        (
            json!({"Options": {"sealane.net": "shop"}}),
            "there is no IPAM option sealane.net; there is sealane.network",
        ),
        (json!({"SubPool": "10.42.7.0/24", "Pool": "10.42.0.0/16"}), "leave --ip-range out"),
        (json!({"Options": {OPTION: "No"}}), "network name"),
    ] {
        let error = pool_of(wrong).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let other = serde_json::from_value(json!({"Pool": "10.9.0.0/16"})).unwrap();
    let error = check_subnet(&other, &shop()).unwrap_err().to_string();
    assert!(error.contains("network shop has subnet 10.42.0.0/16, not 10.9.0.0/16"), "{error}");
}

#[test]
fn a_network_of_docker_s_is_one_of_ours_and_its_pool_is_found_again() {
    let (_dir, mut book) = book();
    let request = create(json!({OPTION: "shop"}), "0.0.0.0/0", "0.0.0.7/32");
    let plan = network(&request, &book).unwrap().check(&shop()).unwrap();
    assert_eq!((plan.network.as_str(), plan.pool.as_str()), ("shop", "sealane/0.0.0.7"));
    book.put_network(&request.network_id, plan).unwrap();
    assert!(network(&request, &book).is_ok(), "safe to repeat");
    let of = |id: &str, address: &str, options: Value| {
        let json = json!({"PoolID": id, "Address": address, "Options": options});
        address_of(json, &book)
    };
    let name = shop().name;
    assert_eq!(of("sealane/0.0.0.7", "", Value::Null).unwrap(), AddressPlan::Endpoint(name.clone(), None));
    let gateway = json!({KIND: GATEWAY});
    assert_eq!(of("sealane/shop", "", gateway.clone()).unwrap(), AddressPlan::Gateway(name));
    assert_eq!(of("sealane/0.0.0.8", "0.0.0.8", gateway).unwrap(), AddressPlan::Mark);
    assert!(of("sealane/0.0.0.8", "", Value::Null).is_err());
    assert!(of("other", "", Value::Null).is_err());

    let again = CreateNetwork { network_id: "other".to_owned(), ..request };
    let error = network(&again, &book).unwrap_err().to_string();
    assert!(error.contains("network shop is Docker's network 4f1c4f1c4f1c here already"), "{error}");
}

#[test]
fn a_network_that_was_named_before_its_pool_is_asked_for_needs_neither_subnet_nor_mark() {
    let (_dir, book) = book();
    let request: RequestPool = serde_json::from_value(json!({"Pool": "", "Options": null})).unwrap();
    let pool = pool(&request, Some(shop().name), &[shop()], 7).unwrap();
    let answer = pool.answer(None);
    assert_eq!(answer, json!({"PoolID": "sealane/shop", "Pool": EVERYTHING, "Data": {}}));
    // So Docker 28 and later create it, without a gateway.
    let request = create(json!({OPTION: "shop"}), EVERYTHING, "");
    let plan = network(&request, &book).unwrap().check(&shop()).unwrap();
    assert_eq!((plan.network.as_str(), plan.pool.as_str()), ("shop", "sealane/shop"));
}

fn address_of(json: Value, book: &Book) -> Result<AddressPlan, RequestFailure> {
    address(&serde_json::from_value(json).unwrap(), book)
}

#[test]
fn a_wrong_network_is_refused_with_the_line_to_type() {
    let (_dir, book) = book();
    let check = |request: &CreateNetwork, expected: &str| {
        let error = network(request, &book).and_then(|plan| plan.check(&shop())).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let mut docker_s = create(json!({OPTION: "shop"}), "172.18.0.0/16", "172.18.0.1/16");
    docker_s.ipv4.as_mut().unwrap()[0].address_space = "LocalDefault".to_owned();
    let line = "docker network create -d sealane --ipam-driver sealane -o sealane.network=shop shop";
    check(&docker_s, line);
    check(
        &create(json!({}), "0.0.0.0/0", "0.0.0.7/32"),
        "which network of Sealane's? type: docker network create",
    );
    check(&create(json!({"sealane.netwrk": "shop"}), "0.0.0.0/0", ""), "there is no option sealane.netwrk");
    check(
        &create(json!({OPTION: "shop"}), "10.9.0.0/16", "10.9.0.1/16"),
        "has subnet 10.42.0.0/16, not 10.9.0.0/16",
    );
    let mut internal = create(json!({OPTION: "shop"}), "0.0.0.0/0", "0.0.0.7/32");
    internal.options.as_mut().unwrap().insert(INTERNAL.to_owned(), true.into());
    check(&internal, "lets packets out, so it cannot be --internal");
}

#[test]
fn an_endpoint_has_an_address_of_ours_and_a_mac_that_may_be_asked_for() {
    let (_dir, mut book) = book();
    let plan = |json: Value, book: &Book| endpoint(&serde_json::from_value(json).unwrap(), book);
    let json = |mac: &str| json!({"NetworkID": "n", "EndpointID": "e", "Interface": {"Address": "10.42.0.9/16", "MacAddress": mac}});
    let error = plan(json(""), &book).unwrap_err().to_string();
    assert!(error.contains("not known on this host any more"), "{error}");
    book.put_network("n", super::book::testing::network()).unwrap();
    let planned = plan(json("02:00:00:00:00:07"), &book).unwrap();
    assert_eq!((planned.address.to_string().as_str(), planned.mac.is_some()), ("10.42.0.9", true));
    assert_eq!(plan(json(""), &book).unwrap().mac, None);
    assert!(plan(json("ff:ff:ff:ff:ff:ff"), &book).is_err());
    assert!(plan(json!({"NetworkID": "n", "Interface": null}), &book).is_err());
}
