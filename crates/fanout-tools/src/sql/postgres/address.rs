//! Where a PostgreSQL is, and how far its connection is trusted.
//!
//! From a URL, as its owner or a platform writes it. To `session`, which connects.
//!
//! `sslmode` and `sslrootcert` mean what libpq says they mean
//! (<https://www.postgresql.org/docs/current/libpq-ssl.html>, "SSL Mode Descriptions").

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::failure::innermost;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_platform_verifier::Verifier;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;
use url::form_urlencoded;

/// A server that is not there by then will hardly come.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Where a PostgreSQL listens unless said.
pub(super) const PORT: u16 = 5432;

/// What other programs write into such URLs, and what means nothing to this one.
const OF_OTHERS: [&str; 5] = ["pgbouncer", "connection_limit", "pool_timeout", "supa", "prepared_statements"];

/// Where to connect, and how.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) config: Config,
    pub(super) tls: MakeRustlsConnect,
    /// The server is on another machine, and nothing proves that it is the right one.
    pub(super) is_unproven: bool,
}

/// Why a URL of a PostgreSQL cannot be used. None repeats the URL: it holds a password.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// It is none.
    #[error("it is no URL of a PostgreSQL such as postgres://user:password@host/database")]
    Url,
    /// Something in it cannot be read.
    #[error("its URL cannot be used: {0}")]
    Config(String),
    /// An unknown `sslmode`.
    #[error("`sslmode={0}` is none of disable, allow, prefer, require, verify-ca, verify-full")]
    SslMode(String),
    /// What we cannot do.
    #[error("`{0}` in its URL is not supported")]
    Unsupported(String),
    /// The file of root certificates.
    #[error("the root certificates of `sslrootcert={path}` cannot be read: {why}")]
    Roots {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// TLS cannot be had.
    #[error("no TLS can be set up")]
    Tls(#[source] rustls::Error),
}

/// libpq's modes; `allow` is `prefer` here: TLS where there is any.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl Address {
    /// Reads a URL. A file that it names is looked for in `folder`.
    pub(super) fn parse(url: &str, folder: &Path) -> Result<Self, AddressError> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(AddressError::Url);
        }
        let (place, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut mode, mut roots, mut rest) = (None, None, form_urlencoded::Serializer::new(String::new()));
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                "sslmode" => mode = Some(Mode::read(&value)?),
                "sslrootcert" => roots = Some(value.into_owned()),
                "sslcert" | "sslkey" | "sslcrl" | "gssencmode" | "service" => {
                    return Err(AddressError::Unsupported(key.into_owned()));
                }
                key if OF_OTHERS.contains(&key) => {}
                _ => drop(rest.append_pair(&key, &value)),
            }
        }
        let query = rest.finish().replace('+', "%20");
        let mut config =
            Config::from_str(&format!("{place}?{query}")).map_err(|error| AddressError::Config(innermost(&error)))?;
        // A root certificate that nothing is held against would be a trap: libpq verifies then too.
        let mode = mode.unwrap_or(Mode::Prefer);
        config.ssl_mode(match mode {
            Mode::Disable => SslMode::Disable,
            Mode::Prefer => SslMode::Prefer,
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => SslMode::Require,
        });
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_MAX);
        }
        if config.get_application_name().is_none() {
            config.application_name("fanout");
        }
        let is_near = config.get_hosts().iter().all(is_near);
        let is_verified = matches!(mode, Mode::VerifyCa | Mode::VerifyFull) || mode == Mode::Require && roots.is_some();
        let verifier = verifier(mode, roots.as_deref(), folder)?;
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(AddressError::Tls)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Ok(Self { config, tls: MakeRustlsConnect::new(tls), is_unproven: !is_near && !is_verified })
    }

    /// The one name of the database there: the servers with their ports, and what it is called. User and options are of the
    /// connection and not of the database.
    pub(super) fn place(&self) -> String {
        let (hosts, ports) = (self.config.get_hosts(), self.config.get_ports());
        let server = |(at, host): (usize, &Host)| {
            let port = ports.get(at).or(ports.first().filter(|_| ports.len() == 1)).copied().unwrap_or(PORT);
            match host {
                Host::Tcp(name) => format!("{}:{port}", name.to_ascii_lowercase()),
                #[cfg(unix)]
                Host::Unix(folder) => format!("{}:{port}", folder.display()),
            }
        };
        let servers: Vec<String> = hosts.iter().enumerate().map(server).collect();
        let name = self.config.get_dbname().or(self.config.get_user()).unwrap_or_default();
        format!("postgres://{}/{name}", servers.join(","))
    }
}

fn is_near(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            let address = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
            name == "localhost" || address.is_ok_and(|address| address.is_loopback())
        }
        #[cfg(unix)]
        Host::Unix(_) => true,
    }
}

impl Mode {
    fn read(text: &str) -> Result<Self, AddressError> {
        Ok(match text {
            "disable" => Self::Disable,
            "allow" | "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            other => return Err(AddressError::SslMode(other.to_owned())),
        })
    }
}

fn verifier(mode: Mode, roots: Option<&str>, folder: &Path) -> Result<Arc<dyn ServerCertVerifier>, AddressError> {
    let provider = Arc::new(ring::default_provider());
    let is_checked = match mode {
        Mode::Disable | Mode::Prefer => false,
        Mode::Require => roots.is_some(),
        Mode::VerifyCa | Mode::VerifyFull => true,
    };
    if !is_checked {
        return Ok(Arc::new(Lenient { provider, full: None }));
    }
    let full: Arc<dyn ServerCertVerifier> = match roots.filter(|roots| *roots != "system") {
        None => Arc::new(Verifier::new(Arc::clone(&provider)).map_err(AddressError::Tls)?),
        Some(path) => {
            let wrong = |why: String| AddressError::Roots { path: path.to_owned(), why };
            let pem = std::fs::read(folder.join(path)).map_err(|error| wrong(error.to_string()))?;
            let mut store = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
                store.add(certificate).map_err(|error| wrong(error.to_string()))?;
            }
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider));
            verifier.build().map_err(|error| wrong(error.to_string()))?
        }
    };
    Ok(if mode == Mode::VerifyFull { full } else { Arc::new(Lenient { provider, full: Some(full) }) })
}

/// Takes a certificate whatever name it is for, and without a verifier any at all: then the line is encrypted, and who is at its
/// other end is not known. That the other end has the certificate's key is proven in any case.
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    full: Option<Arc<dyn ServerCertVerifier>>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(full) = &self.full else { return Ok(ServerCertVerified::assertion()) };
        // The name is the last thing that is looked at.
        match full.verify_server_cert(certificate, between, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn mistake(url: &str) -> String {
        match Address::parse(url, Path::new("")) {
            Ok(_) => panic!("{url} can be used"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_a_platform_writes_into_a_url_is_understood() {
        for (url, unproven) in [
            ("postgres://a:b@localhost/c", false),
            ("postgresql://a:b@127.0.0.1:5432,[::1]:5433/c?application_name=x%20y", false),
            ("postgres://a:b@db.example.com/c", true),
            ("postgres://a:b@db.example.com:6543/c?pgbouncer=true&connection_limit=1&sslmode=require", true),
            ("postgres://a:b@db.example.com/c?sslmode=verify-full", false),
            ("postgres://a:b@db.example.com/c?sslmode=disable", true),
        ] {
            assert_eq!(Address::parse(url, Path::new("")).unwrap().is_unproven, unproven, "{url}");
        }
    }

    #[test]
    fn a_database_has_one_name_whoever_comes_and_however() {
        let place = |url: &str| Address::parse(url, Path::new("")).unwrap().place();
        assert_eq!(place("postgres://a:b@DB.example.com/c"), "postgres://db.example.com:5432/c");
        assert_eq!(place("postgres://db.example.com:5432/c?sslmode=require"), place("postgresql://x@db.example.com/c"));
        assert_eq!(place("postgres://a@h,g:5433/c"), "postgres://h:5432,g:5433/c");
        assert_eq!(place("postgres://a@h"), place("postgres://b@h/a"));
        for other in ["postgres://a@h/c", "postgres://a@h:6543/b", "postgres://a@g/b"] {
            assert_ne!(place("postgres://a@h/b"), place(other));
        }
    }

    #[test]
    fn a_url_that_cannot_be_used_is_told_without_its_password() {
        for (url, part) in [
            ("mysql://a:s3cret@h/c", "no URL of a PostgreSQL"),
            ("postgres://a:s3cret@h/c?sslmode=verify", "verify-ca"),
            ("postgres://a:s3cret@h/c?sslcert=x", "`sslcert`"),
            ("postgres://a:s3cret@h/c?sslmode=verify-full&sslrootcert=absent.pem", "absent.pem"),
            ("postgres://a:s3cret@h:port/c", "invalid value for option `port`"),
            ("postgres://a:s3cret@h/c?foo=bar", "`foo`"),
        ] {
            let mistake = mistake(url);
            assert!(mistake.contains(part) && !mistake.contains("s3cret"), "{mistake}");
        }
    }
}
