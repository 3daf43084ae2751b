//! Vouchers for what hosts are told: proof for a later control plane of the same mesh that an earlier one has said so. A store that was
//! put back does not know what it has said since, and its hosts alone can tell; none of them can make a voucher.

use std::fmt;

use aws_lc_rs::hmac;
use sealane_proto::resource::{Digest, Voucher};
use sealane_proto::types::{Generation, NetworkName};
use subtle::ConstantTimeEq;

/// Purpose of the key that is made of the authority's own.
const PURPOSE: &[u8] = b"sealane vouchers 1";

/// Vouches for states of networks.
#[derive(Clone)]
pub(crate) struct Notary(hmac::Key);

impl Notary {
    /// The notary of an authority with this key: every control plane of a mesh has the same.
    pub(crate) fn of(authority: &[u8]) -> Self {
        let key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, authority), PURPOSE);
        Self(hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()))
    }

    /// The word for a network that is so at a generation.
    pub(crate) fn vouch(&self, network: &NetworkName, generation: Generation, digest: Digest) -> Voucher {
        let tag = hmac::sign(&self.0, &Voucher::text(network, generation, digest));
        let mut code = [0; 16];
        code.iter_mut().zip(tag.as_ref()).for_each(|(octet, of)| *octet = *of);
        Voucher { digest, code }
    }

    /// Returns true if a control plane of the mesh has said that.
    pub(crate) fn vouches(&self, network: &NetworkName, generation: Generation, voucher: Voucher) -> bool {
        let own = self.vouch(network, generation, voucher.digest);
        own.code.ct_eq(&voucher.code).into()
    }
}

impl Default for Notary {
    /// The notary of nobody: it vouches for what is shown, and to whom nothing comes back.
    fn default() -> Self {
        Self::of(&[])
    }
}

impl fmt::Debug for Notary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notary").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_voucher_is_good_for_one_state_of_one_network_and_of_one_mesh() {
        let (notary, shop) = (Notary::of(b"key"), "shop".parse().unwrap());
        let generation = Generation { epoch: 3, revision: 9 };
        let voucher = notary.vouch(&shop, generation, Digest::default());
        assert!(notary.vouches(&shop, generation, voucher));
        assert!(!notary.vouches(&"office".parse().unwrap(), generation, voucher));
        for other in [Generation { epoch: 4, ..generation }, Generation { revision: 10, ..generation }] {
            assert!(!notary.vouches(&shop, other, voucher));
        }
        let mut forged = voucher;
        forged.code[15] ^= 1;
        assert!(!notary.vouches(&shop, generation, forged));
        assert!(!Notary::of(b"other").vouches(&shop, generation, voucher));
    }
}
