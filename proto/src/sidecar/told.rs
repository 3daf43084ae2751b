//! The network as all its sidecars on a host are told of it.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use prost::Message as _;

use super::ChannelError;
use crate::resource::NetworkSnapshot;
use crate::wire::v1;

/// A network that many sidecars are told of: copies share it and its wire form, which the first one that is sent makes.
#[derive(Clone, Debug)]
pub struct Told {
    snapshot: Arc<NetworkSnapshot>,
    encoded: Arc<OnceLock<Bytes>>,
}

impl Told {
    /// Its wire form.
    pub(super) fn encoded(&self) -> Bytes {
        let encode = || v1::NetworkState::from(&*self.snapshot).encode_to_vec().into();
        self.encoded.get_or_init(encode).clone()
    }

    /// What the wire form says.
    pub(super) fn decode(encoded: Bytes) -> Result<Self, ChannelError> {
        let state = v1::NetworkState::decode(encoded);
        let state = state.map_err(|error| ChannelError::Malformed(error.to_string()))?;
        Ok(NetworkSnapshot::try_from(state)?.into())
    }
}

impl From<Arc<NetworkSnapshot>> for Told {
    fn from(snapshot: Arc<NetworkSnapshot>) -> Self {
        Self { snapshot, encoded: Arc::default() }
    }
}

impl From<NetworkSnapshot> for Told {
    fn from(snapshot: NetworkSnapshot) -> Self {
        Arc::new(snapshot).into()
    }
}

impl Deref for Told {
    type Target = NetworkSnapshot;

    fn deref(&self) -> &NetworkSnapshot {
        &self.snapshot
    }
}

impl DerefMut for Told {
    fn deref_mut(&mut self) -> &mut NetworkSnapshot {
        self.encoded = Arc::default();
        Arc::make_mut(&mut self.snapshot)
    }
}

impl PartialEq for Told {
    fn eq(&self, other: &Self) -> bool {
        self.snapshot == other.snapshot
    }
}

impl Eq for Told {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Network;
    use crate::types::{Generation, Vni};

    fn told() -> Told {
        let network = Network {
            name: "shop".parse().unwrap(),
            hosts: Default::default(),
            subnet: "10.42.0.0/16".parse().unwrap(),
            vni: Vni::FIRST,
            mtu: None,
            egress: Default::default(),
            subnet6: None,
            mtls: None,
        };
        let snapshot = NetworkSnapshot {
            generation: Generation { epoch: 1, revision: 1 },
            network,
            nodes: vec![],
            blocks: vec![],
            services: vec![],
            workloads: vec![],
            revoked: vec![],
            drained: vec![],
        };
        snapshot.into()
    }

    #[test]
    fn copies_share_one_wire_form_until_one_is_changed() {
        let (one, mut other) = (told(), told());
        let copy = one.clone();
        assert_eq!(one.encoded().as_ptr(), copy.encoded().as_ptr(), "encoded once");
        assert_eq!(one.encoded(), other.encoded());
        other.generation.revision = 2;
        assert_ne!(one.encoded(), other.encoded());
        assert_eq!(Told::decode(other.encoded()).unwrap(), other);
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for encoded in [&[][..], &[0xff], &[8, 1]] {
            assert!(Told::decode(Bytes::copy_from_slice(encoded)).is_err(), "{encoded:?}");
        }
    }
}
