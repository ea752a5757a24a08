//! STS by its own name: machines find it in `/etc/hosts` and trust its certificate.

use tokio_rustls::TlsAcceptor;

use super::{MachineError, network};
use crate::kubernetes::authority::Authority;

/// What stands before the emulator for STS.
pub(super) struct Sts {
    /// What machines add to the authorities that they trust, PEM.
    pub(super) ca_pem: String,
    /// Answers by STS's name.
    pub(super) acceptor: TlsAcceptor,
}

impl std::fmt::Debug for Sts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sts").finish_non_exhaustive()
    }
}

impl Sts {
    /// Makes an authority that lives as long as the lab, and a certificate of its.
    ///
    /// # Errors
    /// When there are no random numbers.
    pub(super) fn new() -> Result<Self, MachineError> {
        let authority = Authority::new("AWS of the lab")?;
        let name = network::STS.0;
        let acceptor = authority.server(name, &[name], &[])?.acceptor()?;
        Ok(Self { ca_pem: authority.ca_pem, acceptor })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::sync::watch;

    use super::*;
    use crate::relay::{Mode, Relay, Troubles};

    /// STS as a machine meets it: by its own name on a relay that ends TLS.
    #[tokio::test]
    async fn who_trusts_the_authority_reaches_the_name_and_who_does_not_is_warned() {
        let sts = Sts::new().unwrap();
        let behind = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = behind.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = behind.accept().await {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let answer =
                    "HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\npong";
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = Some(sts.acceptor);
        let relay = Relay { listener, upstream, troubles: Troubles::default(), tls };
        let (_mode, receiver) = watch::channel(Mode::Open);
        tokio::spawn(relay.run(receiver));

        let client = |pem: Option<&str>| {
            let mut builder = reqwest::Client::builder()
                .no_proxy()
                .resolve("sts.us-east-1.amazonaws.com", address);
            if let Some(pem) = pem {
                let trusted = reqwest::Certificate::from_pem(pem.as_bytes()).unwrap();
                builder = builder.tls_certs_only([trusted]);
            }
            builder.build().unwrap()
        };
        let url = format!("https://sts.us-east-1.amazonaws.com:{}/", address.port());
        let answer = client(Some(&sts.ca_pem)).get(&url).send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), "pong");
        assert!(client(None).get(&url).send().await.is_err());
    }
}
