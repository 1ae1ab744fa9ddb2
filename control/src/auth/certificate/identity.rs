//! What a client certificate says about its holder. Called only with certificates whose chain has
//! been validated: nothing here proves anything.

use std::collections::BTreeMap;

use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::OID_SIG_ED25519;
use x509_parser::prelude::X509Certificate;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::AttributeTypeAndValue;

use crate::auth::backend::{Attributes, Proof};
use crate::auth::name;
use crate::auth::reason::Reason;
use crate::store::records::Timestamp;

/// Smallest keys, in bits.
const RSA_BITS_MIN: usize = 2048;
const EC_BITS_MIN: usize = 256;
/// Groups and permissions taken from a certificate.
const WORDS_MAX: usize = 64;
/// The user principal name of directories, an `otherName`.
const UPN: &str = "1.3.6.1.4.1.311.20.2.3";

/// Where a certificate has the user's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UserFrom {
    /// The common name of the subject.
    #[default]
    CommonName,
    /// The mail address among the alternative names.
    Email,
    /// The user principal name among the alternative names.
    PrincipalName,
}

/// Whether the holder's key is one that nobody forges.
pub(super) fn is_strong(certificate: &X509Certificate<'_>) -> bool {
    let key = certificate.public_key();
    if key.algorithm.algorithm == OID_SIG_ED25519 {
        return true;
    }
    match key.parsed() {
        Ok(PublicKey::RSA(rsa)) => rsa.key_size() >= RSA_BITS_MIN,
        Ok(PublicKey::EC(point)) => point.key_size() >= EC_BITS_MIN,
        Ok(
            PublicKey::DSA(_)
            | PublicKey::GostR3410(_)
            | PublicKey::GostR3410_2012(_)
            | PublicKey::Unknown(_),
        )
        | Err(_) => false,
    }
}

/// Who holds the certificate: the user from where `user_from` says, groups from the organisational
/// units, permissions from the certificate policies that `permissions` knows by object identifier.
pub(super) fn read(
    certificate: &X509Certificate<'_>,
    user_from: UserFrom,
    permissions: &BTreeMap<String, String>,
) -> Result<Proof, Reason> {
    let subject = certificate.subject();
    let names: Vec<String> = match user_from {
        UserFrom::CommonName => subject.iter_common_name().filter_map(text).collect(),
        UserFrom::Email => alternative(certificate, |name| {
            let GeneralName::RFC822Name(mail) = name else { return None };
            Some((*mail).to_owned())
        }),
        UserFrom::PrincipalName => alternative(certificate, |name| {
            let GeneralName::OtherName(oid, value) = name else { return None };
            if oid.to_id_string() == UPN { utf8(value) } else { None }
        }),
    };
    // Two names are none: which of them counts would be a matter of order.
    let [user] = names.as_slice() else { return Err(Reason::CertificateName) };
    let user = name::checked(user).ok_or(Reason::CertificateName)?;
    let groups: Vec<String> =
        subject.iter_organizational_unit().filter_map(text).take(WORDS_MAX).collect();
    let end = certificate.validity().not_after.timestamp();
    let attributes = Attributes {
        groups,
        permissions: policies(certificate, permissions),
        valid_until: Some(Timestamp(end.saturating_mul(1000))),
        ..Attributes::default()
    };
    Ok(Proof { user: Some(user), attributes, password_print: None })
}

fn policies(
    certificate: &X509Certificate<'_>,
    permissions: &BTreeMap<String, String>,
) -> Vec<String> {
    let mut found = Vec::new();
    for extension in certificate.extensions() {
        if let ParsedExtension::CertificatePolicies(policies) = extension.parsed_extension() {
            let known = policies.iter().take(WORDS_MAX);
            found.extend(
                known.filter_map(|p| permissions.get(&p.policy_id.to_id_string()).cloned()),
            );
        }
    }
    found
}

fn alternative(
    certificate: &X509Certificate<'_>,
    pick: impl Fn(&GeneralName<'_>) -> Option<String>,
) -> Vec<String> {
    let names = certificate.subject_alternative_name().ok().flatten();
    names
        .map(|names| names.value.general_names.iter().filter_map(pick).collect())
        .unwrap_or_default()
}

fn text(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    attribute.as_str().ok().map(str::to_owned)
}

/// The value of an `otherName`: a UTF8String inside an explicit tag, both of short form.
fn utf8(value: &[u8]) -> Option<String> {
    let [0xa0, outer, 0x0c, inner, text @ ..] = value else { return None };
    let fits = usize::from(*inner) == text.len() && usize::from(*outer) == text.len() + 2;
    let is_short = *outer < 0x80;
    String::from_utf8(text.to_vec()).ok().filter(|_| fits && is_short)
}
