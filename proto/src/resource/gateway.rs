//! Documents of the Gateway API (`gateway.networking.k8s.io`, release 1.4), unchanged: routes and what they refer to. A
//! namespace is a network.
//!
//! The types have the fields of the API's custom resources with their defaults filled in, and are read as an API server reads
//! them: a field that is not known is refused by name, and what the server itself adds (`uid`, `managedFields`, `status` and
//! the like) is dropped. [`DocumentType::check`] is the rest of the resources' validation. After it, a filter is one
//! [`HttpAction`] or [`GrpcAction`], and a replacement of a path one [`PathReplacement`].
//!
//! [`DocumentType::check`]: super::document::DocumentType::check

mod backend;
mod cors;
mod dropped;
mod duration;
mod grpc;
mod header;
mod http;
mod matching;
mod metadata;
mod parent;
mod pattern;
mod place;
mod reference;
mod rewrite;
mod session;
mod status;
mod text;
mod timeout;

pub use backend::{BackendObjectRef, BackendRef, Fraction, RequestMirror, Weighted};
pub use cors::{AllowedMethod, Cors, CorsOrigin};
pub use dropped::Dropped;
pub use duration::{GatewayDuration, GatewayDurationError};
pub use grpc::{
    GrpcAction, GrpcBackendRef, GrpcFilter, GrpcFilterType, GrpcMatch, GrpcMethodMatch, GrpcRouteDocument,
    GrpcRouteKind, GrpcRouteSpec, GrpcRule,
};
pub use header::{HeaderModifier, HeaderSetting};
pub use http::{
    HttpAction, HttpBackendRef, HttpFilter, HttpFilterType, HttpMatch, HttpRouteDocument, HttpRouteKind,
    HttpRouteSpec, HttpRule,
};
pub use matching::{HeaderMatch, HttpMethod, MatchType, PathMatch, PathMatchType, QueryMatch};
pub use metadata::{ObjectMetadata, RouteVersion};
pub use parent::ParentRef;
pub use pattern::{Pattern, PatternError};
pub use reference::RefFault;
pub use rewrite::{
    PathModifier, PathModifierType, PathReplacement, RedirectScheme, RedirectStatus, RequestRedirect,
    UrlRewrite,
};
pub use session::{CookieConfig, CookieLifetime, SessionPersistence, SessionType};
pub use status::{Condition, MESH_CONTROLLER, RouteParentStatus, RouteStatus, instant};
pub use text::{Group, HeaderName, HeaderValue, Hostname, Kind, PreciseHostname, SectionName, TextError};
pub use timeout::{HttpTimeouts, Retry, RetryStatus};

#[cfg(test)]
mod tests;
