//! A word to the service manager, as `sd_notify(3)` has it.

use std::os::unix::net::UnixDatagram;

/// Tells the manager that started this process, if one wants to hear it.
pub(crate) fn tell_manager(state: &str) {
    let Some(address) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(error) = send(&address, state) {
        tracing::debug!(%error, "the service manager was not told");
    }
}

fn send(address: &std::ffi::OsStr, state: &str) -> std::io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    #[cfg(target_os = "linux")]
    {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::ffi::OsStrExt;
        if let Some(name) = address.as_bytes().strip_prefix(b"@") {
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            return socket.send_to_addr(state.as_bytes(), &address).map(drop);
        }
    }
    socket.send_to(state.as_bytes(), address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_hears_it_at_a_path_and_at_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), "READY=1").unwrap();
        let mut heard = [0; 32];
        let count = manager.recv(&mut heard).unwrap();
        assert_eq!(&heard[..count], b"READY=1");
        #[cfg(target_os = "linux")]
        {
            use std::os::linux::net::SocketAddrExt;
            let name = format!("epithet-notify-{}", std::process::id());
            let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
            let manager = UnixDatagram::bind_addr(&address).unwrap();
            send(format!("@{name}").as_ref(), "STOPPING=1").unwrap();
            let count = manager.recv(&mut heard).unwrap();
            assert_eq!(&heard[..count], b"STOPPING=1");
        }
    }
}
