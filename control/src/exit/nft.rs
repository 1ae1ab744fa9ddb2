//! The firewall table of one gateway: `inet ringway_NAME`, ours alone, replaced and removed as a
//! whole.
//!
//! It speaks to the `nft` program, which checks a whole file and applies it in one transaction. nft
//! 1.0.6 has no `destroy`, so a table that may or may not exist is removed by adding it first.

use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use ringway_proto::allowed_ips::IpNet;

use crate::failure::{Failure, Status};

/// The name of the table of the gateway with this interface.
#[must_use]
pub fn table_name(interface: &str) -> String {
    format!("ringway_{interface}")
}

/// Hides the pools behind the address of whatever other interface their packets leave by.
///
/// # Errors
/// No `nft`, no permission, or what `nft` says.
pub fn masquerade(interface: &str, pools: &[IpNet]) -> Result<(), Failure> {
    run(&masquerade_text(interface, pools))
}

/// Removes the table, whether it exists or not.
///
/// # Errors
/// As [`masquerade`].
pub fn remove(table: &str) -> Result<(), Failure> {
    run(&remove_text(table))
}

/// Whether the table exists, as far as `nft` says.
pub fn is_there(table: &str) -> bool {
    let mut list = Command::new("nft");
    list.args(["list", "table", "inet", table]);
    let list = list.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    list.status().is_ok_and(|status| status.success())
}

/// The version that `nft` reports, if it is there.
///
/// # Errors
/// What the operating system says about starting it.
pub fn version() -> io::Result<String> {
    let output = Command::new("nft").arg("--version").stdin(Stdio::null()).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn masquerade_text(interface: &str, pools: &[IpNet]) -> String {
    let table = table_name(interface);
    let rules: String = pools
        .iter()
        .map(|pool| {
            let family = if pool.address().is_ipv4() { "ip" } else { "ip6" };
            format!("    {family} saddr {pool} oifname != \"{interface}\" masquerade\n")
        })
        .collect();
    format!(
        "{}add table inet {table}\n\
         table inet {table} {{\n  \
           chain postrouting {{\n    \
             type nat hook postrouting priority srcnat; policy accept;\n\
             {rules}  \
           }}\n\
         }}\n",
        remove_text(&table)
    )
}

fn remove_text(table: &str) -> String {
    format!("add table inet {table}\ndelete table inet {table}\n")
}

fn run(text: &str) -> Result<(), Failure> {
    let child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let output = child.and_then(|mut child| {
        if let Some(mut stdin) = child.stdin.take() {
            // nft that ends early says why on standard error; the broken pipe is not the reason.
            let _ = stdin.write_all(text.as_bytes());
        }
        child.wait_with_output()
    });
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(refused(&String::from_utf8_lossy(&output.stderr))),
        Err(error) => Err(not_started(&error)),
    }
}

fn not_started(error: &io::Error) -> Failure {
    let message = if error.kind() == io::ErrorKind::NotFound {
        "The program nft is missing, which hides clients behind this host's address: apt install \
         nftables, or write masquerade = false in [exit]"
            .to_owned()
    } else {
        format!("Cannot start nft ({error}): check that it can be run")
    };
    Failure::new(Status::Unsupported, message)
}

fn refused(said: &str) -> Failure {
    let first = said.lines().next().unwrap_or_default().trim();
    if said.contains("Operation not permitted") {
        let message = "Setting up the firewall needs the capability CAP_NET_ADMIN: run as root or \
                       by the systemd unit, or write masquerade = false in [exit]";
        return Failure::new(Status::Unsupported, message);
    }
    let message = format!(
        "nft refused the masquerade table ({first}): check that the kernel has nf_tables and \
         masquerade (modprobe nft_masq), or write masquerade = false in [exit]"
    );
    Failure::new(Status::Unsupported, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_masquerades_the_pools_and_replaces_an_older_one() {
        let pools = ["10.77.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()];
        assert_eq!(
            masquerade_text("ringway0", &pools),
            "add table inet ringway_ringway0\n\
             delete table inet ringway_ringway0\n\
             add table inet ringway_ringway0\n\
             table inet ringway_ringway0 {\n\
             \x20 chain postrouting {\n\
             \x20   type nat hook postrouting priority srcnat; policy accept;\n\
             \x20   ip saddr 10.77.0.0/24 oifname != \"ringway0\" masquerade\n\
             \x20   ip6 saddr fd00::/64 oifname != \"ringway0\" masquerade\n\
             \x20 }\n\
             }\n"
        );
    }

    #[test]
    fn what_is_missing_is_said_with_its_fix() {
        let missing = not_started(&io::ErrorKind::NotFound.into());
        assert!(missing.message.contains("apt install nftables"), "{missing}");
        let denied = refused("x: Error: Could not process rule: Operation not permitted\n");
        assert!(denied.message.contains("CAP_NET_ADMIN"), "{denied}");
        assert_eq!(denied.status, Status::Unsupported);
    }
}
