//! Messages that all sidecars of a network on a host are told alike: the network, and its changes.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use prost::Message as _;

use super::ChannelError;
use crate::resource::{NetworkChange, NetworkSnapshot};
use crate::wire::{WireError, v1};

/// A network, or a change of one, that many sidecars are told: copies share it and its wire form, which the first one that
/// is sent makes.
#[derive(Clone, Debug)]
pub struct Told<T = NetworkSnapshot> {
    said: Arc<T>,
    encoded: Arc<OnceLock<Bytes>>,
}

/// A type that has a wire form.
pub trait Tell: Sized + 'static {
    #[doc(hidden)]
    type Wire: prost::Message + Default + for<'a> From<&'a Self> + TryInto<Self, Error = WireError>;
}

impl Tell for NetworkSnapshot {
    type Wire = v1::NetworkState;
}

impl Tell for NetworkChange {
    type Wire = v1::NetworkChange;
}

impl<T: Tell> Told<T> {
    /// Returns the wire form, encoded once.
    pub(super) fn encoded(&self) -> Bytes {
        let encode = || T::Wire::from(&*self.said).encode_to_vec().into();
        self.encoded.get_or_init(encode).clone()
    }

    /// Decodes the wire form.
    pub(super) fn decode(encoded: Bytes) -> Result<Self, ChannelError> {
        let wire = T::Wire::decode(encoded);
        let wire = wire.map_err(|error| ChannelError::Malformed(error.to_string()))?;
        Ok(wire.try_into()?.into())
    }
}

impl<T> From<Arc<T>> for Told<T> {
    fn from(said: Arc<T>) -> Self {
        Self { said, encoded: Arc::default() }
    }
}

impl<T: Tell> From<T> for Told<T> {
    fn from(said: T) -> Self {
        Arc::new(said).into()
    }
}

impl<T> Deref for Told<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.said
    }
}

impl<T: Clone> DerefMut for Told<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.encoded = Arc::default();
        Arc::make_mut(&mut self.said)
    }
}

impl<T: PartialEq> PartialEq for Told<T> {
    fn eq(&self, other: &Self) -> bool {
        self.said == other.said
    }
}

impl<T: Eq> Eq for Told<T> {}

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
        let snapshot = NetworkSnapshot::new(Generation { epoch: 1, revision: 1 }, network.into());
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
        assert_eq!(Told::<NetworkSnapshot>::decode(other.encoded()).unwrap(), other);
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for encoded in [&[][..], &[0xff], &[8, 1]] {
            assert!(Told::<NetworkSnapshot>::decode(Bytes::copy_from_slice(encoded)).is_err(), "{encoded:?}");
        }
    }
}
