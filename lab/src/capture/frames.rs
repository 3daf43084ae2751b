//! Reading recorded Ethernet frames: as much of IPv4, UDP and VXLAN as proofs need.

/// The UDP port of VXLAN (RFC 7348, section 5).
const VXLAN_PORT: u16 = 4789;

/// Recorded Ethernet frames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// A frame that is a VXLAN packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vxlan<'a> {
    /// The network's identifier.
    pub vni: u32,
    /// The Ethernet frame inside.
    pub inner: &'a [u8],
}

impl Frames {
    pub(crate) fn push(&mut self, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
        self.ends.push(self.bytes.len());
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Returns the number of frames.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns true if nothing was recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// All frames, as they came.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).filter_map(|(start, &end)| self.bytes.get(start..end))
    }

    /// Iterates over the VXLAN packets over IPv4.
    pub fn vxlan(&self) -> impl Iterator<Item = Vxlan<'_>> {
        self.iter().filter_map(vxlan)
    }

    /// Returns true if any frame has these bytes in it.
    #[must_use]
    pub fn contain(&self, needle: &[u8]) -> bool {
        !needle.is_empty() && self.iter().any(|frame| frame.windows(needle.len()).any(|part| part == needle))
    }
}

fn vxlan(frame: &[u8]) -> Option<Vxlan<'_>> {
    let (ethernet, packet) = frame.split_at_checked(14)?;
    let is_udp_over_ipv4 =
        ethernet.ends_with(&[0x08, 0x00]) && packet.first()? >> 4 == 4 && *packet.get(9)? == 17;
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let (udp, vxlan) = packet.get(header..).filter(|_| is_udp_over_ipv4)?.split_at_checked(8)?;
    let port = u16::from_be_bytes([*udp.get(2)?, *udp.get(3)?]);
    let (vxlan, inner) = vxlan.split_at_checked(8).filter(|_| port == VXLAN_PORT)?;
    let vni = u32::from_be_bytes([0, *vxlan.get(4)?, *vxlan.get(5)?, *vxlan.get(6)?]);
    Some(Vxlan { vni, inner })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ethernet, IPv4 without options, UDP to `port`, VXLAN with VNI 0x100000, "inner".
    fn frame(port: u16) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00, 0x45]);
        frame.extend([0; 8]);
        frame.push(17);
        frame.extend([0; 10]);
        frame.extend([0xc0, 0x00]);
        frame.extend(port.to_be_bytes());
        frame.extend([0; 4]);
        frame.extend([0x08, 0, 0, 0, 0x10, 0, 0, 0]);
        frame.extend(b"inner");
        frame
    }

    #[test]
    fn vxlan_packets_are_told_by_their_port_and_short_frames_by_nothing() {
        let mut frames = Frames::default();
        for part in 0..frame(4789).len() {
            assert_eq!(
                vxlan(&frame(4789)[..part]).map(|found| found.inner.len() < 5),
                (part > 49).then_some(true),
                "{part}"
            );
        }
        frames.push(&frame(53));
        frames.push(&frame(4789));
        let found: Vec<Vxlan<'_>> = frames.vxlan().collect();
        assert_eq!(found, [Vxlan { vni: 0x10_0000, inner: b"inner" }]);
        assert_eq!(frames.len(), 2);
    }

    #[test]
    fn bytes_are_found_within_a_frame_and_never_across_two() {
        let mut frames = Frames::default();
        frames.push(b"one marker");
        frames.push(b"two");
        assert!(frames.contain(b"marker"));
        assert!(!frames.contain(b"markertwo"));
        assert!(!frames.contain(b""));
    }
}
