//! WASI preview 2 in virtual time: clocks, waiting, dice and files are the guest's own [`World`]'s.
//!
//! What remains of the host's (streams, arguments, exit) does nothing by itself: a wait is a future
//! that only an [`Alarm`] holds up, and when one does, the clock jumps to the first of them.

mod files;
mod streams;
mod view;

use std::{
    future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
};

use wasmtime::{
    Engine, StoreContextMut,
    component::{Linker, Resource, ResourceTable},
    format_err,
};
use wasmtime_wasi::{
    WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView, async_trait,
    p2::{
        self, DynPollable, Pollable,
        bindings::{
            clocks::wall_clock::Datetime,
            filesystem,
            io::poll::{Host as _, HostPollable as _},
        },
        subscribe,
    },
};

use super::{clock::TimeIsOver, world::World};

const VERSION: &str = "0.2.12";
const NS_PER_S: u64 = 1_000_000_000;
/// The live executor's limit.
const RANDOM_BYTES_MAX: u64 = 64 << 20;
/// So much more does making a random byte cost than moving one.
const RANDOM_COST: usize = 16;

/// The state of one run of a component, inside its store.
pub(super) struct Host {
    pub(super) world: World,
    wasi: WasiCtx,
    table: ResourceTable,
    time: Arc<Time>,
}

/// The clock as alarms and files see it, between two looks at the fuel.
#[derive(Debug)]
struct Time {
    start_ns: u64,
    now_ns: AtomicU64,
    /// When the first of the alarms rings that were asked since this was reset.
    next_ns: AtomicU64,
}

/// Rings at a time after the guest's start.
struct Alarm {
    at_ns: u64,
    time: Arc<Time>,
}

impl Time {
    /// Since 1970.
    fn wall_ns(&self) -> u64 {
        self.start_ns.saturating_add(self.now_ns.load(Relaxed))
    }
}

#[async_trait]
impl Pollable for Alarm {
    async fn ready(&mut self) {
        let Self { at_ns, time } = &*self;
        future::poll_fn(|_| {
            if time.now_ns.load(Relaxed) >= *at_ns {
                return Poll::Ready(());
            }
            time.next_ns.fetch_min(*at_ns, Relaxed);
            Poll::Pending
        })
        .await;
    }
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl Host {
    pub(super) fn new(world: World) -> Self {
        let mut wasi = WasiCtxBuilder::new();
        wasi.stdout(world.stdout.clone()).stderr(world.log.clone());
        wasi.args(&world.args).envs(&world.env);
        wasi.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false);
        let time = Time {
            start_ns: world.clock.start_ns(),
            now_ns: AtomicU64::new(0),
            next_ns: AtomicU64::new(u64::MAX),
        };
        let (wasi, table) = (wasi.build(), ResourceTable::new());
        Self { world, wasi, table, time: Arc::new(time) }
    }

    fn alarm(&mut self, at_ns: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let alarm = self.table.push(Alarm { at_ns, time: Arc::clone(&self.time) })?;
        subscribe(&mut self.table, alarm)
    }
}

/// All of preview 2.
pub(super) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Host>> {
    let mut linker = Linker::new(engine);
    p2::add_to_linker_async(&mut linker)?;
    linker.allow_shadowing(true);
    filesystem::types::add_to_linker::<Host, view::Virtual>(&mut linker, view::view)?;
    filesystem::preopens::add_to_linker::<Host, view::Virtual>(&mut linker, view::view)?;
    clocks(&mut linker)?;
    waiting(&mut linker)?;
    dice(&mut linker)?;
    Ok(linker)
}

fn clocks(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut monotonic = linker.instance(&format!("wasi:clocks/monotonic-clock@{VERSION}"))?;
    monotonic.func_wrap("now", |mut store, ()| Ok((look(&mut store)?,)))?;
    monotonic.func_wrap("resolution", |_, ()| Ok((1_u64,)))?;
    monotonic.func_wrap("subscribe-instant", |mut store, (at_ns,): (u64,)| {
        look(&mut store)?;
        Ok((store.data_mut().alarm(at_ns)?,))
    })?;
    monotonic.func_wrap("subscribe-duration", |mut store, (for_ns,): (u64,)| {
        let at_ns = look(&mut store)?.saturating_add(for_ns);
        Ok((store.data_mut().alarm(at_ns)?,))
    })?;
    let mut wall = linker.instance(&format!("wasi:clocks/wall-clock@{VERSION}"))?;
    wall.func_wrap("now", |mut store, ()| {
        look(&mut store)?;
        Ok((datetime(store.data().world.clock.wall_ns()),))
    })?;
    wall.func_wrap("resolution", |_, ()| Ok((datetime(1),)))
}

fn waiting(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut poll = linker.instance(&format!("wasi:io/poll@{VERSION}"))?;
    poll.func_wrap("poll", |mut store, (list,): (Vec<Resource<DynPollable>>,)| {
        let ready = wait(&mut store, async |table| table.poll(list).await)?;
        Ok((ready,))
    })?;
    poll.func_wrap("[method]pollable.block", |mut store, (on,): (Resource<DynPollable>,)| {
        wait(&mut store, async |table| table.block(on).await)
    })?;
    poll.func_wrap("[method]pollable.ready", |mut store, (on,): (Resource<DynPollable>,)| {
        let ready = wait(&mut store, async |table| table.ready(on).await)?;
        Ok((ready,))
    })
}

fn dice(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    for (interface, bytes, number) in [
        ("random", "get-random-bytes", "get-random-u64"),
        ("insecure", "get-insecure-random-bytes", "get-insecure-random-u64"),
    ] {
        let mut random = linker.instance(&format!("wasi:random/{interface}@{VERSION}"))?;
        random.func_wrap(bytes, |mut store, (len,): (u64,)| Ok((throw(&mut store, len)?,)))?;
        random.func_wrap(number, |mut store: StoreContextMut<'_, Host>, ()| {
            Ok((store.data_mut().world.dice.next_u64(),))
        })?;
    }
    let mut seed = linker.instance(&format!("wasi:random/insecure-seed@{VERSION}"))?;
    seed.func_wrap("insecure-seed", |mut store: StoreContextMut<'_, Host>, ()| {
        let dice = &mut store.data_mut().world.dice;
        Ok(((dice.next_u64(), dice.next_u64()),))
    })
}

/// The time since the guest's start, brought up to its fuel.
fn look(store: &mut StoreContextMut<'_, Host>) -> wasmtime::Result<u64> {
    let left = store.get_fuel()?;
    let host = store.data_mut();
    host.world.clock.see(left);
    let now_ns = host.world.clock.elapsed_ns();
    host.time.now_ns.store(now_ns, Relaxed);
    Ok(now_ns)
}

/// Polls a future to its end; as often as alarms hold it up, the clock jumps to the first of them.
fn wait<R>(
    store: &mut StoreContextMut<'_, Host>,
    begin: impl AsyncFnOnce(&mut ResourceTable) -> wasmtime::Result<R>,
) -> wasmtime::Result<R> {
    look(store)?;
    let host = store.data_mut();
    let result = wait_in(host, begin);
    // Also at the end of its time: what is left in the tank says how long it computed.
    let left = host.world.clock.left();
    store.set_fuel(left)?;
    result
}

fn wait_in<R>(
    Host { world, table, time, .. }: &mut Host,
    begin: impl AsyncFnOnce(&mut ResourceTable) -> wasmtime::Result<R>,
) -> wasmtime::Result<R> {
    let mut end = pin!(begin(table));
    let mut context = Context::from_waker(Waker::noop());
    loop {
        time.next_ns.store(u64::MAX, Relaxed);
        if let Poll::Ready(result) = end.as_mut().poll(&mut context) {
            return result;
        }
        let next_ns = time.next_ns.load(Relaxed);
        world.clock.sleep_until(next_ns)?;
        if next_ns == u64::MAX {
            // It waits for nothing that will ever happen.
            return Err(TimeIsOver.into());
        }
        time.now_ns.store(world.clock.elapsed_ns(), Relaxed);
    }
}

fn throw(store: &mut StoreContextMut<'_, Host>, len: u64) -> wasmtime::Result<Vec<u8>> {
    if len > RANDOM_BYTES_MAX {
        return Err(format_err!("{len} random bytes are more than {RANDOM_BYTES_MAX}"));
    }
    look(store)?;
    let mut bytes = vec![0; usize::try_from(len)?];
    let world = &mut store.data_mut().world;
    world.dice.fill(&mut bytes);
    world.moved(bytes.len().saturating_mul(RANDOM_COST));
    let left = world.clock.left();
    store.set_fuel(left)?;
    Ok(bytes)
}

fn datetime(ns: u64) -> Datetime {
    // A remainder of a thousand million fits.
    let nanoseconds = u32::try_from(ns % NS_PER_S).unwrap_or_default();
    Datetime { seconds: ns / NS_PER_S, nanoseconds }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of what the host's own WASI offers, by this crate's version of it; what is not shadowed is
    /// the host's.
    const SHADOWED: &[(&str, &[&str])] = &[
        (
            "clocks/monotonic-clock",
            &["now", "resolution", "subscribe-instant", "subscribe-duration"],
        ),
        ("clocks/wall-clock", &["now", "resolution"]),
        ("io/poll", &["poll", "[method]pollable.block", "[method]pollable.ready"]),
        ("random/random", &["get-random-bytes", "get-random-u64"]),
        ("random/insecure", &["get-insecure-random-bytes", "get-insecure-random-u64"]),
        ("random/insecure-seed", &["insecure-seed"]),
    ];

    #[test]
    fn each_name_that_is_shadowed_is_one_of_the_hosts() {
        let mut linker = Linker::<Host>::new(&Engine::default());
        p2::add_to_linker_async(&mut linker).unwrap();
        let mut define = |interface: &str, version: &str, name: &str| {
            let mut instance = linker.instance(&format!("wasi:{interface}@{version}")).unwrap();
            instance.func_wrap(name, |_, ()| Ok(()))
        };
        for (interface, names) in SHADOWED {
            for name in *names {
                // Refused, since it is there already: so shadowing it hides the host's.
                assert!(define(interface, VERSION, name).is_err(), "{interface} {name}");
                define(interface, "0.9.9", name).unwrap();
            }
        }
    }
}
