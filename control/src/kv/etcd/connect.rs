//! Connections to members of etcd: plain ones, and those over TLS.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use http::uri::{Authority, Scheme};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sealane_base::dial::dial_name;
use sealane_base::text::plain;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

/// Limit for connecting, the handshake included.
const CONNECT: Duration = Duration::from_secs(2);
/// Interval of pings on every connection, and the limit for the answer: a member that froze is noticed within both.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(2));

/// URL of a member of etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdUrl {
    secure: bool,
    authority: Authority,
}

/// A text that is no URL of a member of etcd.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no URL of etcd, like http://192.0.2.1:2379 or https://etcd-1:2379")]
pub struct EtcdUrlError(String);

/// Files of the certificates for `https://` URLs, PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EtcdTls {
    /// Authority that signed the certificates of etcd's members.
    pub authority: Option<PathBuf>,
    /// Certificate and key by which etcd knows this client.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// Files that make no TLS.
#[derive(Debug, thiserror::Error)]
pub enum EtcdTlsError {
    /// The authority is not said.
    #[error("{0} needs the authority of etcd's certificates: give its file with --etcd-ca")]
    Authority(EtcdUrl),
    /// A file cannot be read.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Fault of the file.
        reason: String,
    },
    /// Certificate and key do not go together.
    #[error("the certificate and key of --etcd-cert and --etcd-key cannot be used: {0}")]
    Client(rustls::Error),
}

impl FromStr for EtcdUrl {
    type Err = EtcdUrlError;

    fn from_str(text: &str) -> Result<Self, EtcdUrlError> {
        let no = || EtcdUrlError(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| no())?;
        let secure = uri.scheme() == Some(&Scheme::HTTPS);
        let authority = uri.authority().filter(|authority| {
            authority.port_u16().is_some()
                && !authority.host().is_empty()
                && !authority.as_str().contains('@')
        });
        let known = secure || uri.scheme() == Some(&Scheme::HTTP);
        match authority {
            Some(authority) if known && matches!(uri.path(), "" | "/") && uri.query().is_none() => {
                Ok(Self { secure, authority: authority.clone() })
            }
            Some(_) | None => Err(no()),
        }
    }
}

impl fmt::Display for EtcdUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.secure { "https" } else { "http" }, self.authority)
    }
}

/// Members of etcd, and the certificates for them.
pub(super) struct Members {
    pub(super) urls: Vec<EtcdUrl>,
    tls: Option<Arc<ClientConfig>>,
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Members").field("urls", &self.urls).finish_non_exhaustive()
    }
}

impl Members {
    /// The members at these URLs.
    ///
    /// # Errors
    /// When files for TLS are missing or of no use.
    pub(super) fn new(urls: Vec<EtcdUrl>, tls: &EtcdTls) -> Result<Self, EtcdTlsError> {
        let tls = match urls.iter().find(|url| url.secure) {
            Some(url) => Some(Arc::new(config(tls, url)?)),
            None => None,
        };
        Ok(Self { urls, tls })
    }

    /// The members, for people.
    pub(super) fn place(&self) -> String {
        let urls: Vec<String> = self.urls.iter().map(ToString::to_string).collect();
        format!("etcd at {}", urls.join(", "))
    }

    /// A channel to a member, connected now; nothing was sent when there is none.
    pub(super) async fn connect(&self, url: &EtcdUrl) -> io::Result<Channel> {
        let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
        timeout(CONNECT, self.dial(url)).await.unwrap_or_else(|_| Err(late()))
    }

    async fn dial(&self, url: &EtcdUrl) -> io::Result<Channel> {
        let tcp = dial_name(url.authority.as_str()).await?;
        tcp.set_nodelay(true)?;
        match &self.tls {
            Some(config) if url.secure => {
                let host = url.authority.host().trim_matches(['[', ']']).to_owned();
                let name = ServerName::try_from(host).map_err(io::Error::other)?;
                over(TlsConnector::from(config.clone()).connect(name, tcp).await?, url).await
            }
            Some(_) | None => over(tcp, url).await,
        }
    }
}

/// A channel over one connection; when that is lost, so is the channel.
async fn over<S>(stream: S, url: &EtcdUrl) -> io::Result<Channel>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: Uri| {
        std::future::ready(stream.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)))
    });
    let endpoint = Endpoint::from_shared(format!("http://{}", url.authority)).map_err(io::Error::other)?;
    let endpoint = endpoint
        .http2_keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .keep_alive_while_idle(true);
    endpoint.connect_with_connector(connector).await.map_err(io::Error::other)
}

fn config(files: &EtcdTls, url: &EtcdUrl) -> Result<ClientConfig, EtcdTlsError> {
    let authority = files.authority.as_ref().ok_or_else(|| EtcdTlsError::Authority(url.clone()))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authority)? {
        roots.add(certificate).map_err(|error| unfit(authority, &error))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(EtcdTlsError::Client)?
        .with_root_certificates(roots);
    let mut config = match &files.client {
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unfit(key, &error))?;
            config.with_client_auth_cert(chain, key).map_err(EtcdTlsError::Client)?
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, EtcdTlsError> {
    let read = CertificateDer::pem_file_iter(path).map_err(|error| unfit(path, &error))?;
    let read: Vec<_> = read.collect::<Result<_, _>>().map_err(|error| unfit(path, &error))?;
    if read.is_empty() {
        return Err(unfit(path, &"it has no certificate (PEM)"));
    }
    Ok(read)
}

fn unfit(path: &Path, reason: &dyn fmt::Display) -> EtcdTlsError {
    EtcdTlsError::File { path: path.to_owned(), reason: reason.to_string() }
}

/// Describes an error of a connection for people.
pub(super) fn words(error: &io::Error) -> String {
    plain(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_member_and_nothing_else() {
        for good in ["http://192.0.2.1:2379", "https://etcd-1:2379", "http://[2001:db8::1]:2379"] {
            assert_eq!(good.parse::<EtcdUrl>().unwrap().to_string(), good);
            assert_eq!(format!("{good}/").parse::<EtcdUrl>().unwrap().to_string(), good);
        }
        for bad in
            ["", "etcd-1:2379", "http://etcd-1", "ftp://etcd-1:2379", "http://a:2379/x", "http://u:p@a:1"]
        {
            let said = bad.parse::<EtcdUrl>().unwrap_err().to_string();
            assert!(said.starts_with(&format!("{bad:?} is no URL of etcd, like http://")), "{said}");
        }
    }

    #[test]
    fn https_needs_an_authority_and_says_so() {
        let url: EtcdUrl = "https://etcd-1:2379".parse().unwrap();
        let error = Members::new(vec![url], &EtcdTls::default()).unwrap_err();
        assert!(error.to_string().starts_with("https://etcd-1:2379 needs the authority"), "{error}");
    }
}
