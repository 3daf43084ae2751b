//! Names that are not ours: asked of the host's resolvers.
//!
//! A plain question is answered from the cache or by the pool of resolvers, and may then be answered to others. Any other
//! one passes as it came.

mod cache;
mod cached;
mod upstream;
mod verbatim;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use sealane_base::mutex::lock;
use tokio::time;

use super::answer::{self, Transport};
use super::message::{CD, Query, RD, Rcode, RecordType, UDP_LIMIT, word};
use super::metrics::{CacheResult, DnsMetrics, ForwardFailure};
use super::resolv::{Resolv, ResolvFile};
use super::shares::{Place, QuestionsInFlight, Share, UnreadAnswers};
use super::sockets::PORT;
use cache::{Cache, Known};
pub(super) use cached::{Age, CachedAnswer};
use upstream::{Told, Upstream};

/// Limit for a question in all: less than the 5 s after which resolvers ask again.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(4);
/// Limit where an answer that is out of date is at hand (RFC 8767, section 5).
const STALE_TIMEOUT: Duration = Duration::from_millis(1800);
/// The class of the Internet.
const IN: u16 = 1;

/// Servers to ask.
#[derive(Clone, Debug)]
pub struct ForwardConfig {
    /// The host's resolv.conf; read again when it changes.
    pub resolv_conf: PathBuf,
    /// Addresses in it that are our own, and not asked.
    pub own: Vec<IpAddr>,
    /// The servers' port.
    pub port: u16,
    /// Certificates, in PEM, of those who vouch for servers that are asked over TLS; the host's without it.
    pub authorities: Option<PathBuf>,
}

impl ForwardConfig {
    /// The servers of `resolv_conf`, but for 127.0.0.11.
    #[must_use]
    pub fn new(resolv_conf: PathBuf) -> Self {
        Self { resolv_conf, own: vec![Ipv4Addr::new(127, 0, 0, 11).into()], port: PORT, authorities: None }
    }
}

/// Asks the host's resolvers, from the host's network namespace (that of the runtime's threads).
#[derive(Debug)]
pub struct Forwarder {
    resolv: ResolvFile,
    authorities: Option<PathBuf>,
    resolvers: Mutex<Option<Arc<Resolvers>>>,
    waiting: QuestionsInFlight,
    /// Answers that nobody takes, of all servers of this host.
    pub(super) unread: UnreadAnswers,
    metrics: DnsMetrics,
}

/// Servers that one content of resolv.conf names, and what they said: others may say otherwise.
#[derive(Debug)]
struct Resolvers {
    resolv: Arc<Resolv>,
    tls: Arc<ClientConfig>,
    upstream: Upstream,
    cache: Mutex<Cache>,
}

impl Forwarder {
    /// A forwarder with nothing in flight.
    #[must_use]
    pub fn new(config: ForwardConfig, metrics: DnsMetrics) -> Self {
        let resolv = ResolvFile::new(config.resolv_conf, config.port, config.own);
        let (authorities, resolvers) = (config.authorities, Mutex::default());
        let (waiting, unread) = (QuestionsInFlight::default(), UnreadAnswers::default());
        Self { resolv, authorities, resolvers, waiting, unread, metrics }
    }

    /// A place for one more question of this asker, if there is any for it.
    pub(super) fn take(&self, share: &Share) -> Option<Place> {
        self.waiting.take(share)
    }

    /// The answer to `query`, a well-formed query message: the servers', or SERVFAIL with an Extended DNS Error that
    /// says why, within 4 s. Cancel safe.
    pub(super) async fn forward(
        &self,
        query: &[u8],
        transport: Transport,
        _place: Place,
    ) -> (Vec<u8>, Rcode) {
        let started = Instant::now();
        let resolvers = self.resolvers(started);
        let answered = match Query::parse(query) {
            Ok(parsed) if is_plain(query, &parsed) => {
                self.resolve(&resolvers, query, &parsed, transport).await
            }
            Ok(_) | Err(_) => {
                let deadline = time::Instant::now() + TOTAL_TIMEOUT;
                resolvers.pass_on(query, transport, deadline).await
            }
        };
        match answered {
            Ok(answer) => {
                self.metrics.forward_duration.observe(started.elapsed().as_secs_f64());
                let rcode = Rcode::of(&answer);
                (answer, rcode)
            }
            Err(failure) => (self.fail(query, failure), Rcode::ServFail),
        }
    }

    /// SERVFAIL for a question that there is no room for.
    pub(super) fn overloaded(&self, query: &[u8]) -> (Vec<u8>, Rcode) {
        (self.fail(query, ForwardFailure::Overload), Rcode::ServFail)
    }

    /// The servers as the host names them now. Others than before are asked afresh.
    fn resolvers(&self, now: Instant) -> Arc<Resolvers> {
        let resolv = self.resolv.current(now);
        let mut resolvers = lock(&self.resolvers);
        match resolvers.as_ref().filter(|resolvers| resolvers.resolv == resolv) {
            Some(resolvers) => resolvers.clone(),
            None => resolvers.insert(Arc::new(Resolvers::new(resolv, self.authorities.as_deref()))).clone(),
        }
    }

    /// Answers a plain question from the cache, or else by the servers, or else by what they said before.
    async fn resolve(
        &self,
        resolvers: &Resolvers,
        query: &[u8],
        parsed: &Query<'_>,
        transport: Transport,
    ) -> Result<Vec<u8>, ForwardFailure> {
        let limit = match transport {
            Transport::Udp => parsed.udp_limit().min(UDP_LIMIT),
            Transport::Tcp => u16::MAX,
        };
        let write = |answer: &CachedAnswer, age| answer.write(parsed, age, limit.into());
        let known = lock(&resolvers.cache).find(parsed, Instant::now());
        let (before, patience) = match known {
            Known::Answer(answer, age) => {
                self.metrics.looked_up(if age == Age::Stale { CacheResult::Stale } else { CacheResult::Hit });
                return Ok(write(&answer, age));
            }
            Known::Before(answer) => (Some(answer), STALE_TIMEOUT),
            Known::Nothing => (None, TOTAL_TIMEOUT),
        };
        let deadline = time::Instant::now() + patience;
        let told = resolvers.ask(query, parsed, transport, deadline).await;
        if let Some(answer) = told.as_ref().ok().and_then(|told| CachedAnswer::read(parsed, told)) {
            self.metrics.looked_up(CacheResult::Miss);
            let (answer, now) = (Arc::new(answer), Instant::now());
            self.metrics.cache_evicted.inc_by(lock(&resolvers.cache).insert(parsed, answer.clone(), now));
            return Ok(write(&answer, Age::Fresh(Duration::ZERO)));
        }
        let is_answer = told.as_ref().is_ok_and(|told| Rcode::of(told).is_answer());
        let Some(answer) = before.filter(|_| !is_answer) else {
            self.metrics.looked_up(CacheResult::Miss);
            return told;
        };
        lock(&resolvers.cache).failed(parsed, Instant::now());
        self.metrics.looked_up(CacheResult::Stale);
        Ok(write(&answer, Age::Stale))
    }

    fn fail(&self, query: &[u8], failure: ForwardFailure) -> Vec<u8> {
        self.metrics.forward_failed(failure);
        tracing::debug!(reason = failure.as_str(), "a foreign name could not be asked for");
        let mut out = Vec::with_capacity(query.len() + 64);
        answer::fail(query, failure.extended_error(), &mut out);
        out
    }
}

impl Resolvers {
    fn new(resolv: Arc<Resolv>, authorities: Option<&Path>) -> Self {
        let tls = upstream::tls(&resolv, authorities);
        let upstream = Upstream::new(&resolv, tls.clone());
        Self { resolv, tls: Arc::new(tls), upstream, cache: Mutex::default() }
    }

    /// Asks the pool, or in the asker's words where that cannot ask: a server may know no streams, or no EDNS.
    async fn ask(
        &self,
        query: &[u8],
        parsed: &Query<'_>,
        transport: Transport,
        deadline: time::Instant,
    ) -> Result<Vec<u8>, ForwardFailure> {
        if self.resolv.servers.is_empty() {
            return Err(ForwardFailure::NoServer);
        }
        match self.upstream.ask(parsed, deadline).await {
            Told::Message(message) => Ok(addressed(message, parsed)),
            Told::Silence => Err(ForwardFailure::Timeout),
            Told::Unable(error) => {
                tracing::debug!(%error, "the host's resolvers are asked without a pool");
                self.pass_on(query, transport, deadline).await
            }
        }
    }

    async fn pass_on(
        &self,
        query: &[u8],
        transport: Transport,
        deadline: time::Instant,
    ) -> Result<Vec<u8>, ForwardFailure> {
        verbatim::ask_all(&self.resolv, &self.tls, query, transport, deadline).await
    }
}

/// Returns true if one answer to the question is as good as any other: a recursive question for records that are known here,
/// by somebody who does not want to see signatures or to say anything else.
fn is_plain(query: &[u8], parsed: &Query<'_>) -> bool {
    let known = matches!(
        parsed.kind,
        RecordType::A
            | RecordType::NS
            | RecordType::CNAME
            | RecordType::SOA
            | RecordType::PTR
            | RecordType::MX
            | RecordType::TXT
            | RecordType::AAAA
            | RecordType::SRV
            | RecordType::NAPTR
            | RecordType::SVCB
            | RecordType::HTTPS
            | RecordType::CAA
    );
    let bare = parsed.edns.is_none_or(|edns| !edns.dnssec_ok && !edns.end_to_end);
    // No signature of the message, for one.
    let alone = word(query, 10) == Some(u16::from(parsed.edns.is_some()));
    known && bare && alone && parsed.class == IN && parsed.flags & (RD | CD) == RD
}

/// The message with the id and the spelling of the one who asks.
fn addressed(mut message: Vec<u8>, query: &Query<'_>) -> Vec<u8> {
    if let Some(id) = message.get_mut(..2) {
        id.copy_from_slice(&query.id.to_be_bytes());
    }
    if query.is_echoed_in(&message) {
        let _ = query.spell_in(&mut message);
    }
    message
}

#[cfg(test)]
mod tests;
