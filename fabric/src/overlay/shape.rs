//! Shape of a network's devices: the settings that they are made with, and have as long as nobody changes them. Pure.

use std::mem::discriminant;
use std::net::IpAddr;

use netlink_packet_route::link::{BridgeStpState, InfoBridge, InfoBridgePort, InfoData, InfoVxlan};

use sealane_proto::types::UnderlayAddr;

use super::KernelAccess;
use super::plan::Base;
use crate::netlink::Link;

impl KernelAccess {
    /// The settings of a network's VXLAN device that sends from the address `local`.
    pub(super) fn vxlan_settings(&self, base: &Base, local: UnderlayAddr) -> Vec<InfoVxlan> {
        let local = match local.to_ip() {
            IpAddr::V4(address) => InfoVxlan::Local(address),
            IpAddr::V6(address) => InfoVxlan::Local6(address),
        };
        vec![
            InfoVxlan::Id(base.vni.get()),
            local,
            InfoVxlan::Port(self.config.vxlan_port),
            InfoVxlan::Learning(false),
            InfoVxlan::Proxy(true),
        ]
    }

    /// Returns the settings that a device lacks to be the network's VXLAN device. The kernel lists every setting, but the local
    /// address when it has none.
    pub(super) fn vxlan_lacks(&self, link: &Link, base: &Base, local: UnderlayAddr) -> Vec<InfoVxlan> {
        let data = if let Some(InfoData::Vxlan(data)) = &link.data { data.as_slice() } else { &[] };
        let settings = self.vxlan_settings(base, local).into_iter();
        settings.filter(|setting| !data.contains(setting)).collect()
    }
}

/// Returns true if the device is as the network's bridge should be.
pub(super) fn is_bridge(link: &Link, base: &Base) -> bool {
    let data = if let Some(InfoData::Bridge(data)) = &link.data { data.as_slice() } else { &[] };
    let shaped = link.mtu == base.mtu && link.mac == Some(base.gateway_mac) && link.up;
    shaped && !differs(&bridge_settings(), data)
}

/// Returns true if the device is as a port of the bridge with these settings should be.
pub(super) fn is_bridge_port(link: &Link, mtu: u32, bridge: u32, settings: &[InfoBridgePort]) -> bool {
    link.master == Some(bridge) && link.mtu == mtu && link.up && !differs(settings, &link.port)
}

/// A workload's port gets what the forwarding table says is for it, and takes in (`locked`) only frames of a MAC
/// that the table has behind it.
pub(super) fn port_settings() -> Vec<InfoBridgePort> {
    let own = [InfoBridgePort::UnicastFlood(false), InfoBridgePort::Locked(true)];
    SHARED_PORT_SETTINGS.into_iter().chain(own).collect()
}

/// Returns true if the kernel lists a setting with another value. One that it does not list it does not know.
pub(super) fn differs<T: PartialEq>(wanted: &[T], actual: &[T]) -> bool {
    wanted.iter().any(|wanted| {
        actual.iter().any(|actual| discriminant(actual) == discriminant(wanted) && actual != wanted)
    })
}

/// Settings of every port: it passes on whatever its own settings, the forwarding table and the rules let through, and answers
/// nothing itself.
const SHARED_PORT_SETTINGS: [InfoBridgePort; 7] = [
    InfoBridgePort::Learning(false),
    InfoBridgePort::HairpinMode(false),
    InfoBridgePort::Isolated(false),
    InfoBridgePort::BroadcastFlood(true),
    InfoBridgePort::MulticastFlood(true),
    InfoBridgePort::ProxyARP(false),
    InfoBridgePort::NeighSupress(false),
];

pub(super) fn bridge_settings() -> Vec<InfoBridge> {
    vec![
        InfoBridge::ForwardDelay(0),
        InfoBridge::StpState(BridgeStpState::Disabled),
        InfoBridge::MulticastSnooping(false),
        InfoBridge::NfCallIpTables(false),
        InfoBridge::NfCallIp6Tables(false),
        InfoBridge::NfCallArpTables(false),
    ]
}

/// Settings of the ports of the VXLAN devices, the second of which is there or not. Whatever is not local goes to the first one,
/// which drops what it has no row for; to the second one goes what the bridge has a row for, and nothing from one to the other.
pub(super) fn vxlan_port_settings(is_first: bool, are_two: bool) -> Vec<InfoBridgePort> {
    let own = [
        InfoBridgePort::UnicastFlood(is_first),
        InfoBridgePort::BroadcastFlood(is_first),
        InfoBridgePort::MulticastFlood(is_first),
        InfoBridgePort::Isolated(are_two),
    ];
    let shared = SHARED_PORT_SETTINGS.into_iter();
    let shared = shared.filter(|shared| own.iter().all(|own| discriminant(own) != discriminant(shared)));
    shared.chain(own.clone()).collect()
}
