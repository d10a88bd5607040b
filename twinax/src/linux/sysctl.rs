//! Reads and writes switches under `/proc/sys/net`, in the calling thread's network namespace.

use std::{fs, io};

use twinax_core::model::Sysctl;

use super::process::line;

/// Why a switch could not be read or turned.
#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    #[error("{0:?} names no switch under /proc/sys/net")]
    BadName(String),
    #[error("cannot read the switch /proc/sys/net/{name}")]
    Read {
        name: String,
        #[source]
        cause: io::Error,
    },
    #[error(
        "cannot set the switch /proc/sys/net/{name} to {value}; where /proc/sys is mounted \
         read-only, set it from outside beforehand"
    )]
    Write {
        name: String,
        value: String,
        #[source]
        cause: io::Error,
    },
}

/// Returns the value of a switch without its line end.
pub fn read(switch: &Sysctl) -> Result<String, SysctlError> {
    let path = path(switch)?;
    match line(&path) {
        Ok(value) => Ok(value),
        Err(cause) => Err(SysctlError::Read { name: switch.0.clone(), cause }),
    }
}

/// Sets a switch.
pub fn write(switch: &Sysctl, value: &str) -> Result<(), SysctlError> {
    let path = path(switch)?;
    // Opened for writing only: a switch is not created, and truncating it means nothing.
    let written = fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()));
    written.map_err(|cause| SysctlError::Write {
        name: switch.0.clone(),
        value: value.to_owned(),
        cause,
    })
}

/// Whether this kernel has IPv6, in whatever namespace.
pub fn has_ipv6() -> bool {
    fs::exists("/proc/sys/net/ipv6").unwrap_or(false)
}

/// Lets a link of the calling thread's namespace have IPv6 addresses. Returns `false` where that
/// must wait: the link is not there yet, and will be born without IPv6. What cannot be told or
/// turned is for the kernel to refuse.
pub fn allow_ipv6(link: &str) -> bool {
    let switch = |of| format!("/proc/sys/net/ipv6/conf/{of}/disable_ipv6");
    let is_off = |path: &str| fs::read_to_string(path).map(|value| value.trim_end() != "0");
    let path = switch(link);
    match is_off(&path) {
        Ok(false) => true,
        Ok(true) => {
            let _ = fs::write(path, "0");
            true
        }
        Err(_) => !is_off(&switch("default")).unwrap_or(false),
    }
}

fn path(switch: &Sysctl) -> Result<String, SysctlError> {
    let good = |part: &str| !part.is_empty() && part != "." && part != "..";
    match switch.0.split('/').all(good) {
        true => Ok(format!("/proc/sys/net/{}", switch.0)),
        false => Err(SysctlError::BadName(switch.0.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_is_named_in_every_error() {
        for bad in ["", "/etc/passwd", "../kernel/x", "ipv4//x", "ipv4/.."] {
            let error = read(&Sysctl(bad.to_owned())).unwrap_err();
            assert!(matches!(error, SysctlError::BadName(_)), "{bad}");
        }
        let missing = Sysctl("ipv4/no_such_switch".to_owned());
        assert!(read(&missing).unwrap_err().to_string().contains("ipv4/no_such_switch"));
        assert!(write(&missing, "1").unwrap_err().to_string().contains("ipv4/no_such_switch"));
    }
}
