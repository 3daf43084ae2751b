//! Questions beside echoes: which echoes of other hosts come to this one's device, which says which direction of a way is blocked,
//! and whether checksums arrive as they should.

use std::net::IpAddr;

use super::{Overlay, OverlayError, blocking, lock};
use crate::netlink::{ChecksumProber, RequestCounter, Socket};

impl Overlay {
    /// Opens a socket that counts echoes of other hosts from now on; `None` while there is no device for them.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn request_counter(&self) -> Result<Option<RequestCounter>, OverlayError> {
        let echo = lock(&self.kernel.echo);
        let counter = echo.as_ref().map(|ns| RequestCounter::open(&self.kernel.hopper, ns));
        Ok(counter.transpose()?)
    }

    /// Opens sockets that try checksums; `None` while there is no device for echoes.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn checksum_prober(&self) -> Result<Option<ChecksumProber>, OverlayError> {
        let echo = lock(&self.kernel.echo);
        let prober = echo.as_ref().map(|ns| ChecksumProber::open(&self.kernel.hopper, ns));
        Ok(prober.transpose()?)
    }

    /// Names the device by which the host's packets to this address leave; `None` where no way leads there.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn device_to(&self, address: IpAddr) -> Result<Option<String>, OverlayError> {
        let kernel = self.kernel.clone();
        blocking(move || {
            let mut socket = Socket::open(&kernel.hopper, &kernel.host)?;
            let Some(way) = socket.way_to(address, None)? else { return Ok(None) };
            let device = socket.links()?.into_iter().find(|link| link.index == way.device);
            Ok(device.map(|device| device.name))
        })
        .await
    }
}
