//! Makes the kernel acknowledge at once what the broker sends.
//!
//! A broker that leaves Nagle's algorithm on, as Mosquitto does unless told `set_tcp_nodelay true`,
//! holds a small packet back until the one before it is acknowledged; and Linux puts an
//! acknowledgement off for 40 ms where it hopes to send data with it. A round waits for that two or
//! three times. The kernel takes the wish for a hint and forgets it again, so it is repeated after
//! every read.

#[cfg(target_os = "linux")]
pub(super) use linux::Promptness;

#[cfg(not(target_os = "linux"))]
pub(super) use elsewhere::Promptness;

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        fs,
        net::SocketAddr,
        os::fd::{BorrowedFd, RawFd},
        sync::atomic::{AtomicBool, Ordering},
    };

    use rustix::net::{getpeername, sockopt::set_tcp_quickack};

    /// Connections of one process to one port up to which they are looked for: each of many would
    /// ask for all of them, and none of many waits for one packet at a time.
    const SOCKETS_MAX: usize = 16;
    /// Whether there were more once. Stays: who has had thousands does not look at all again.
    static CROWDED: AtomicBool = AtomicBool::new(false);

    /// The sockets that are connected to a broker's port. The MQTT client shows its own to nobody,
    /// so they are looked for among all of the process; others that are found do not mind.
    #[derive(Debug)]
    pub(in super::super) struct Promptness(Vec<RawFd>);

    impl Promptness {
        /// Looks for them; call it when connected.
        pub(in super::super) fn towards(port: u16) -> Self {
            if CROWDED.load(Ordering::Relaxed) {
                return Self(vec![]);
            }
            let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
            let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
            let found: Vec<RawFd> = numbers.filter(|fd| peer_port(*fd) == Some(port)).collect();
            if found.len() > SOCKETS_MAX {
                CROWDED.store(true, Ordering::Relaxed);
                return Self(vec![]);
            }
            Self(found)
        }

        /// Asks for one acknowledgement now, and prompt ones for a while.
        pub(in super::super) fn ask(&self) {
            for fd in &self.0 {
                // It may have been closed meanwhile, and then there is nothing to be prompt about.
                let _ = set_tcp_quickack(borrow(*fd), true);
            }
        }

        #[cfg(test)]
        pub(super) const fn count(&self) -> usize {
            self.0.len()
        }
    }

    fn peer_port(fd: RawFd) -> Option<u16> {
        let peer = getpeername(borrow(fd)).ok()??;
        SocketAddr::try_from(peer).ok().map(|peer| peer.port())
    }

    #[expect(unsafe_code, reason = "the socket belongs to the MQTT client, which does not lend it")]
    fn borrow<'a>(fd: RawFd) -> BorrowedFd<'a> {
        // SAFETY: the number is used for two system calls that read or write no memory behind it.
        // Where it is closed they fail, and where it is another file by now they fail or make that
        // socket prompt, which is harmless.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }
}

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    /// Nothing to ask for.
    #[derive(Debug)]
    pub(in super::super) struct Promptness;

    impl Promptness {
        pub(in super::super) const fn towards(_port: u16) -> Self {
            Self
        }

        pub(in super::super) const fn ask(&self) {}
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn it_finds_the_connections_to_a_port_and_no_others() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(Promptness::towards(port).count(), 0);
        let here = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let found = Promptness::towards(port);
        assert_eq!(found.count(), 1);
        found.ask();
        drop(here);
        found.ask();
        assert_eq!(Promptness::towards(port).count(), 0);
    }
}
