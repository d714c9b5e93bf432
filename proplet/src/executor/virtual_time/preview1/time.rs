//! Clocks, sleep, dice, and the sockets that are not there.

use super::{super::world::Descriptor, BADF, Call, Done, INVAL, NOTSOCK, Stop, after};

const REALTIME: u32 = 0;
const MONOTONIC: u32 = 1;
const PROCESS: u32 = 2;
const THREAD: u32 = 3;

const SUBSCRIPTION_BYTES: usize = 48;
const EVENT_BYTES: usize = 32;
/// How many things may be waited for at once; a list is read twice.
const SUBSCRIPTIONS_MAX: u32 = 4096;
const TAG_CLOCK: u8 = 0;
const TAG_READ: u8 = 1;
const TAG_WRITE: u8 = 2;
const ABSOLUTE: u16 = 1;
/// Random bytes are made in pieces of this size.
const PIECE_BYTES: usize = 4096;
/// So much more does making a random byte cost than moving one.
const RANDOM_COST: usize = 16;

/// Something that a guest waits for.
#[derive(Clone, Copy)]
struct Wait {
    userdata: u64,
    tag: u8,
    /// When it happens, since the guest's start; at once, where there is no clock in it.
    at_ns: u64,
    bytes: u64,
}

impl Call<'_> {
    pub(super) fn clock_res_get(&mut self, id: u32, result: u32) -> Done {
        match id {
            REALTIME | MONOTONIC => self.put_u64(result, 1),
            PROCESS | THREAD => Err(Stop::Errno(BADF)),
            _ => Err(Stop::unknown("Clockid")),
        }
    }

    pub(super) fn clock_time_get(&mut self, id: u32, _precision: u64, result: u32) -> Done {
        let now_ns = match id {
            REALTIME => self.world.clock.wall_ns(),
            MONOTONIC => self.world.clock.elapsed_ns(),
            PROCESS | THREAD => return Err(Stop::Errno(BADF)),
            _ => return Err(Stop::unknown("Clockid")),
        };
        self.put_u64(result, now_ns)
    }

    pub(super) fn poll_oneoff(
        &mut self,
        subscriptions: u32,
        events: u32,
        count: u32,
        result: u32,
    ) -> Done {
        if count == 0 || count > SUBSCRIPTIONS_MAX {
            return Err(Stop::Errno(INVAL));
        }
        self.world.moved(count as usize * SUBSCRIPTION_BYTES);
        let mut waits = Vec::new();
        for index in 0..count as usize {
            waits.push(self.wait(after(subscriptions, index * SUBSCRIPTION_BYTES))?);
        }
        let first_ns = waits.iter().map(|wait| wait.at_ns).min().unwrap_or_default();
        self.world.clock.sleep_until(first_ns)?;
        let now_ns = self.world.clock.elapsed_ns();
        let mut happened = 0;
        for wait in waits.iter().filter(|wait| wait.at_ns <= now_ns) {
            let event = after(events, happened as usize * EVENT_BYTES);
            self.put(event, &[0; EVENT_BYTES])?;
            self.put_u64(event, wait.userdata)?;
            self.put(after(event, 10), &[wait.tag])?;
            self.put_u64(after(event, 16), wait.bytes)?;
            happened += 1;
        }
        self.put_u32(result, happened)
    }

    fn wait(&mut self, address: u32) -> Result<Wait, Stop> {
        let userdata = self.u64(address)?;
        let [tag] = self.array(after(address, 8))?;
        let (at_ns, bytes) = match tag {
            TAG_CLOCK => (self.alarm(address)?, 0),
            TAG_READ | TAG_WRITE => (0, self.ready_bytes(tag, address)?),
            _ => return Err(Stop::unknown("Eventtype")),
        };
        Ok(Wait { userdata, tag, at_ns, bytes })
    }

    fn alarm(&mut self, address: u32) -> Result<u64, Stop> {
        let id = self.u32(after(address, 16))?;
        let timeout_ns = self.u64(after(address, 24))?;
        let absolute = self.u16(after(address, 40))? & ABSOLUTE != 0;
        let now_ns = self.world.clock.elapsed_ns();
        match (id, absolute) {
            (REALTIME | MONOTONIC, false) => Ok(now_ns.saturating_add(timeout_ns)),
            (MONOTONIC, true) => Ok(timeout_ns),
            (REALTIME, true) => {
                let wall_ns = self.world.clock.wall_ns();
                Ok(now_ns.saturating_add(timeout_ns.saturating_sub(wall_ns)))
            }
            (PROCESS | THREAD, _) => Err(Stop::Errno(INVAL)),
            _ => Err(Stop::unknown("Clockid")),
        }
    }

    /// Files and streams never make a guest wait.
    fn ready_bytes(&mut self, tag: u8, address: u32) -> Result<u64, Stop> {
        let fd = self.u32(after(address, 16))?;
        match (self.world.descriptors.get(&fd), tag) {
            (Some(Descriptor::Stdin), TAG_READ)
            | (Some(Descriptor::Stdout | Descriptor::Stderr), TAG_WRITE) => Ok(1),
            (Some(Descriptor::File(file)), _) => {
                let size = self.world.files.lock().stat(file.place)?.size;
                Ok(size.saturating_sub(file.position).max(1))
            }
            _ => Err(Stop::Errno(BADF)),
        }
    }

    pub(super) fn random_get(&mut self, buffer: u32, len: u32) -> Done {
        // Out of bounds before the first byte, not after the last.
        self.at(buffer, len as usize)?;
        let mut piece = [0; PIECE_BYTES];
        for from in (0..len as usize).step_by(PIECE_BYTES) {
            let piece = &mut piece[..PIECE_BYTES.min(len as usize - from)];
            self.world.dice.fill(piece);
            self.put(after(buffer, from), piece)?;
            self.world.moved(piece.len() * RANDOM_COST);
            if self.world.clock.left() == 0 {
                // The guest ends for want of fuel as soon as it goes on.
                break;
            }
        }
        Ok(())
    }

    #[expect(clippy::unused_self, reason = "called like the others")]
    pub(super) fn sched_yield(&mut self) -> Done {
        Ok(())
    }

    pub(super) fn sock_accept(&mut self, fd: u32, _flags: u32, _result: u32) -> Done {
        self.no_socket(fd)
    }

    pub(super) fn sock_recv(
        &mut self,
        fd: u32,
        _list: u32,
        _count: u32,
        _flags: u32,
        _received: u32,
        _result: u32,
    ) -> Done {
        self.no_socket(fd)
    }

    pub(super) fn sock_send(
        &mut self,
        fd: u32,
        _list: u32,
        _count: u32,
        _flags: u32,
        _sent: u32,
    ) -> Done {
        self.no_socket(fd)
    }

    pub(super) fn sock_shutdown(&mut self, fd: u32, _how: u32) -> Done {
        self.no_socket(fd)
    }

    fn no_socket(&mut self, fd: u32) -> Done {
        let known = self.world.descriptors.contains_key(&fd);
        Err(Stop::Errno(if known { NOTSOCK } else { BADF }))
    }
}
