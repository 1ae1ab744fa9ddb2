//! Client files of devices: what `wg-quick` reads, as text and as a QR code.
//!
//! What a policy says about routes and DNS comes before the configuration.

use ringway_proto::allowed_ips::IpNet;
use ringway_proto::crypto::{PresharedKey, PrivateKey};
use zeroize::Zeroizing;

use super::effective::Effective;
use super::refusal::Refusal;
use super::surroundings::Surroundings;
use crate::peers::client::ClientFile;
use crate::peers::qr;
use crate::store::records::Lease;

/// A client file. It may hold secrets and is erased when dropped.
#[derive(Clone)]
pub struct ClientText {
    /// For `wg-quick`.
    pub text: Zeroizing<String>,
    /// Whether the client's private key is in it.
    pub has_private_key: bool,
}

impl std::fmt::Debug for ClientText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClientText({} bytes)", self.text.len())
    }
}

impl ClientText {
    /// As an image for the camera of a phone; none if it is too long for one.
    #[must_use]
    pub fn svg(&self) -> Option<Zeroizing<String>> {
        qr::svg(&self.text)
    }
}

/// Writes the client file of a device.
pub(super) fn client_text(
    here: &Surroundings,
    name: &str,
    private: Option<PrivateKey>,
    preshared: &PresharedKey,
    lease: Option<&Lease>,
    effective: &Effective,
) -> Result<ClientText, Refusal> {
    let Some(endpoint) = here.endpoint.clone() else {
        let message = "Nobody knows where clients reach this gateway: write endpoint in [clients]";
        return Err(Refusal::Conflict(message.to_owned()));
    };
    let has_private_key = private.is_some();
    let four = lease.and_then(|lease| lease.address4).map(|four| IpNet::host(four.into()));
    let six = lease.and_then(|lease| lease.address6).map(|six| IpNet::host(six.into()));
    // Routes of a policy were checked when it was written.
    let routes: Vec<IpNet> =
        effective.routes.iter().filter_map(|route| route.parse().ok()).collect();
    let file = ClientFile {
        name: name.to_owned(),
        private,
        addresses: four.into_iter().chain(six).collect(),
        dns: if effective.dns.is_empty() { here.dns.clone() } else { effective.dns.clone() },
        mtu: here.mtu,
        gateway: here.gateway,
        preshared: preshared.clone(),
        allowed_ips: if routes.is_empty() { here.allowed_ips.clone() } else { routes },
        endpoint,
        keepalive_s: here.keepalive_s,
    };
    Ok(ClientText { text: file.text(), has_private_key })
}
