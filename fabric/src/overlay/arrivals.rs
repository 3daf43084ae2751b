//! Echoes of other hosts as they come to this one's device: whether they come says which direction of a way is blocked.

use super::{Overlay, OverlayError, lock};
use crate::netlink::RequestCounter;

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
}
