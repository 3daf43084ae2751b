//! The kernel of one host as its networks need it: devices, rows, rules and settings.
//!
//! It makes the kernel be what a [`NetworkSnapshot`](sealane_proto::resource::NetworkSnapshot) and this host's own
//! [`Attachment`]s say, and knows neither who asked for them nor how they live. Main type: [`overlay::Overlay`].

pub mod async_fd;
mod attachment;
pub mod egress;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod health;
pub mod netlink;
pub mod nft;
pub mod overlay;
mod pace;
pub mod seat;
pub mod services;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod transition;

pub use attachment::{Attachment, AttachmentId};
pub use pace::LookPace;
