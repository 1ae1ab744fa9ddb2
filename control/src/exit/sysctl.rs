//! Switches of the kernel under `/proc/sys`: what they were, what we made of them, and back again.
//!
//! Switching forwarding on is not one switch. Writing `ip_forward` or `all/forwarding` writes the
//! switch of every interface too, `ip_forward` also inverts `accept_redirects`, and IPv6 forwarding
//! throws away default routes that came from router advertisements unless `accept_ra` is 2. So
//! everything that moves along is noted before, and restored after.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// One switch: its name below `/proc/sys`, its value before us, and the value we gave it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Path below `/proc/sys`, such as `net/ipv4/ip_forward`.
    pub name: String,
    /// Value before.
    pub before: String,
    /// Value we give it; `None` if it only moves along with another one.
    pub during: Option<String>,
}

/// The tree of switches.
#[derive(Clone, Debug)]
pub struct Sysctls {
    root: PathBuf,
}

impl Default for Sysctls {
    fn default() -> Self {
        Self { root: "/proc/sys".into() }
    }
}

/// A switch that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("Cannot {doing} the kernel switch {name} ({error})")]
pub struct SysctlError {
    doing: &'static str,
    /// Path below `/proc/sys`.
    pub name: String,
    /// Why.
    pub error: io::Error,
}

impl Sysctls {
    /// A tree elsewhere, for tests.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The value of a switch, without its line end.
    ///
    /// # Errors
    /// A switch that does not exist or may not be read.
    pub fn read(&self, name: &str) -> Result<String, SysctlError> {
        let read = fs::read_to_string(self.root.join(name));
        read.map(|text| text.trim_end().to_owned()).map_err(|error| SysctlError {
            doing: "read",
            name: name.to_owned(),
            error,
        })
    }

    /// Gives a switch a value.
    ///
    /// # Errors
    /// A switch that does not exist or may not be written.
    pub fn write(&self, name: &str, value: &str) -> Result<(), SysctlError> {
        fs::write(self.root.join(name), value).map_err(|error| SysctlError {
            doing: "write",
            name: name.to_owned(),
            error,
        })
    }

    /// Whether a new interface may have IPv6 addresses.
    #[must_use]
    pub fn has_ipv6(&self) -> bool {
        let switch = |scope: &str| self.read(&format!("net/ipv6/conf/{scope}/disable_ipv6"));
        ["all", "default"].into_iter().all(|scope| switch(scope).is_ok_and(|value| value == "0"))
    }

    /// What must be set so that the host forwards, in the order of setting it; nothing if it
    /// forwards already. Undoing goes backwards.
    ///
    /// # Errors
    /// Switches that cannot be read.
    pub fn forwarding(&self, v4: bool, v6: bool) -> Result<Vec<Setting>, SysctlError> {
        let mut settings = Vec::new();
        if v4 && self.read("net/ipv4/ip_forward")? == "0" {
            settings.extend(self.moves_along("net/ipv4/conf", "forwarding")?);
            settings.extend(self.moves_along("net/ipv4/conf", "accept_redirects")?);
            settings.push(change("net/ipv4/ip_forward", "0", "1"));
        }
        if v6 && self.read("net/ipv6/conf/all/forwarding")? == "0" {
            settings.extend(self.moves_along("net/ipv6/conf", "forwarding")?);
            // The default routes that advertisements gave stay, and are renewed.
            let advertised = self.moves_along("net/ipv6/conf", "accept_ra")?;
            let listening = advertised.into_iter().filter(|setting| setting.before == "1");
            settings.extend(listening.map(|setting| change(&setting.name, "1", "2")));
            settings.push(change("net/ipv6/conf/all/forwarding", "0", "1"));
        }
        Ok(settings)
    }

    /// Sets what the settings say.
    ///
    /// # Errors
    /// The first switch that cannot be written. Those before it are set.
    pub fn apply(&self, settings: &[Setting]) -> Result<(), SysctlError> {
        for setting in settings {
            if let Some(value) = &setting.during {
                self.write(&setting.name, value)?;
            }
        }
        Ok(())
    }

    /// Restores what was before, last setting first. A switch that somebody else has changed since
    /// is left alone, one that is gone with its interface is forgotten; both are no errors. Says
    /// what it left alone, and what it could not restore.
    pub fn undo(&self, settings: &[Setting]) -> Vec<String> {
        let mut notes = Vec::new();
        for setting in settings.iter().rev() {
            let Ok(now) = self.read(&setting.name) else { continue };
            let foreign = setting.during.as_ref().is_some_and(|during| *during != now);
            if now == setting.before {
                continue;
            }
            if foreign {
                notes.push(format!("{} is {now} by somebody else: left alone", setting.name));
            } else if let Err(error) = self.write(&setting.name, &setting.before) {
                notes.push(error.to_string());
            }
        }
        notes
    }

    /// A switch of every interface, as it is now.
    fn moves_along(&self, folder: &str, name: &str) -> Result<Vec<Setting>, SysctlError> {
        let failed = |error| SysctlError { doing: "list", name: folder.to_owned(), error };
        let mut settings = Vec::new();
        for entry in fs::read_dir(self.root.join(folder)).map_err(failed)? {
            let interface = entry.map_err(failed)?.file_name();
            let name = format!("{folder}/{}/{name}", interface.to_string_lossy());
            // An interface may disappear while we look.
            if let Ok(before) = self.read(&name) {
                settings.push(Setting { name, before, during: None });
            }
        }
        settings.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(settings)
    }
}

fn change(name: &str, before: &str, during: &str) -> Setting {
    let during = Some(during.to_owned());
    Setting { name: name.to_owned(), before: before.to_owned(), during }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    fn tree(name: &str, files: &[(&str, &str)]) -> (Scratch, Sysctls) {
        let folder = Scratch::new(name);
        for (file, value) in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{value}\n")).unwrap();
        }
        let sysctls = Sysctls::at(folder.path());
        (folder, sysctls)
    }

    const OFF: &[(&str, &str)] = &[
        ("net/ipv4/ip_forward", "0"),
        ("net/ipv4/conf/all/forwarding", "0"),
        ("net/ipv4/conf/all/accept_redirects", "0"),
        ("net/ipv4/conf/eth0/forwarding", "1"),
        ("net/ipv6/conf/all/forwarding", "0"),
        ("net/ipv6/conf/eth0/forwarding", "0"),
        ("net/ipv6/conf/eth0/accept_ra", "1"),
        ("net/ipv6/conf/eth1/accept_ra", "0"),
    ];

    #[test]
    fn advertised_routes_are_kept_before_forwarding_is_switched_on() {
        let (_folder, sysctls) = tree("sysctl_plan", OFF);
        let settings = sysctls.forwarding(true, true).unwrap();
        let set: Vec<(&str, &str)> = settings
            .iter()
            .filter_map(|setting| Some((setting.name.as_str(), setting.during.as_deref()?)))
            .collect();
        assert_eq!(
            set,
            [
                ("net/ipv4/ip_forward", "1"),
                ("net/ipv6/conf/eth0/accept_ra", "2"),
                ("net/ipv6/conf/all/forwarding", "1"),
            ]
        );
    }

    #[test]
    fn what_moved_along_is_restored_too() {
        let (folder, sysctls) = tree("sysctl_undo", OFF);
        let settings = sysctls.forwarding(true, true).unwrap();
        sysctls.apply(&settings).unwrap();
        // What the kernel does by itself.
        for name in ["net/ipv4/conf/all/forwarding", "net/ipv6/conf/eth0/forwarding"] {
            sysctls.write(name, "1").unwrap();
        }
        sysctls.write("net/ipv4/conf/eth0/forwarding", "0").unwrap();
        assert!(sysctls.undo(&settings).is_empty());
        for (name, before) in OFF {
            assert_eq!(sysctls.read(name).unwrap(), *before, "{name}");
        }
        drop(folder);
    }

    #[test]
    fn a_switch_that_somebody_else_changed_is_left_alone() {
        let (_folder, sysctls) = tree("sysctl_foreign", OFF);
        let settings = sysctls.forwarding(false, true).unwrap();
        sysctls.apply(&settings).unwrap();
        sysctls.write("net/ipv6/conf/eth0/accept_ra", "0").unwrap();
        let notes = sysctls.undo(&settings);
        assert_eq!(notes.len(), 1);
        assert!(notes[0].contains("left alone"), "{notes:?}");
        assert_eq!(sysctls.read("net/ipv6/conf/eth0/accept_ra").unwrap(), "0");
    }

    #[test]
    fn a_kernel_without_ipv6_has_none() {
        let on = ("net/ipv6/conf/all/disable_ipv6", "0");
        let (_folder, nothing) = tree("sysctl_no_ipv6", &[]);
        assert!(!nothing.has_ipv6());
        let off = tree("sysctl_ipv6_off", &[on, ("net/ipv6/conf/default/disable_ipv6", "1")]);
        assert!(!off.1.has_ipv6());
        let good = tree("sysctl_ipv6_on", &[on, ("net/ipv6/conf/default/disable_ipv6", "0")]);
        assert!(good.1.has_ipv6());
    }

    #[test]
    fn a_host_that_forwards_already_is_not_touched() {
        let on = [("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")];
        let (_folder, sysctls) = tree("sysctl_on", &on);
        assert!(sysctls.forwarding(true, true).unwrap().is_empty());
    }
}
