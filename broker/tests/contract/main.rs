//! The contract of the seam, written once and run for every implementation in the build.

#[macro_use]
mod peer;
mod abuse;
mod life;
mod pump;
mod raw;
mod retained;
mod session;
mod wire;

use broker::{BrokerConfig, BrokerError, Kind, RunningBroker};
use peer::{Dial, Failure};
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

/// After this a check has failed, whatever it waits for.
const CHECK_TIME_MAX: Duration = Duration::from_secs(300);

/// What a check stands on: a fresh broker of the implementation under test.
#[derive(Clone, Copy)]
pub(crate) struct Ground {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
}

type Check = fn(Ground) -> Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

impl Ground {
    /// A broker of the same implementation besides the check's own.
    pub(crate) async fn another(self, config: BrokerConfig) -> Result<RunningBroker, BrokerError> {
        broker::start(BrokerConfig { kind: self.kind, ..config }).await
    }

    /// A new client must get its own message back: the broker serves.
    pub(crate) async fn serves(self) -> Result<(), Failure> {
        serves(self.address).await
    }
}

/// See [`Ground::serves`].
pub(crate) async fn serves(address: SocketAddr) -> Result<(), Failure> {
    let served = async {
        let mut fresh = Dial::to(address, "fresh").connect().await?;
        fresh.subscribe("fresh/water").await?;
        fresh.publish("fresh/water", b"drink").await?;
        fresh.expect("fresh/water", b"drink").await?;
        fresh.disconnect().await
    };
    served.await.map_err(|why| format!("a fresh client is not served: {why}"))
}

/// Loopback, a port of the system's choice.
pub(crate) fn anywhere() -> BrokerConfig {
    BrokerConfig { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..BrokerConfig::default() }
}

async fn run(kind: Kind, check: Check) -> Result<(), Failure> {
    let running = broker::start(BrokerConfig { kind, ..anywhere() }).await;
    let running = running.map_err(|error| error.to_string())?;
    let task = tokio::spawn(check(Ground { kind, address: running.address() }));
    let outcome = match tokio::time::timeout(CHECK_TIME_MAX, task).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(lost)) => Err(format!("the check panicked: {lost}")),
        Err(_) => Err("the check did not end".to_owned()),
    };
    running.stop().await;
    outcome
}

/// The list of checks, and for the default implementation a test for each.
macro_rules! contract {
    ($($module:ident :: $name:ident,)*) => {
        #[cfg(feature = "rumqttd")]
        const CHECKS: &[(&str, Check)] = &[
            $((concat!(stringify!($module), "::", stringify!($name)), |ground| Box::pin($module::$name(ground))),)*
        ];
        mod mqtt5 {
            $(contract!(@test $module $name);)*
        }
    };
    (@test $module:ident $name:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let outcome = super::run(broker::Kind::Mqtt5, |ground| Box::pin(super::$module::$name(ground))).await;
            if let Err(why) = outcome {
                panic!("{why}");
            }
        }
    };
}

contract! {
    retained::reaches_every_subscribe,
    retained::three_hundred_reach_a_wildcard,
    retained::empty_clears,
    retained::empty_unretained_leaves_it,
    session::queue_keeps_all_in_order,
    session::cuts_lose_nothing,
    session::unacknowledged_comes_again,
    session::clean_start_forgets,
    session::will_on_abrupt_close,
    session::no_will_on_goodbye,
    session::same_id_takes_over,
    wire::versions_hear_each_other,
    wire::user_properties_pass_by_four,
    wire::alias_arrives_as_topic,
    wire::large_retained_arrives,
    wire::large_live_arrives,
    abuse::non_ascii_topic,
    abuse::wildcard_in_topic,
    abuse::garbage_instead_of_connect,
    abuse::garbage_after_connect,
    abuse::oversized_packet,
    abuse::half_open_connects,
    abuse::slow_subscriber,
    abuse::shared_member_leaves,
    life::stop_frees_the_port,
    life::drop_stops_serving,
    life::stop_ends_stuck_connections,
    life::busy_port_is_refused,
    life::remote_address_is_refused,
    life::state_survives_a_restart,
    life::used_state_dir_is_refused,
}

/// What `rumqttd` fails every time; docs/decisions/002-embedded-broker.md says what that means.
#[cfg(feature = "rumqttd")]
const RUMQTTD_FAILS: &[&str] = &[
    "retained::reaches_every_subscribe",
    "retained::three_hundred_reach_a_wildcard",
    "retained::empty_unretained_leaves_it",
    "wire::versions_hear_each_other",
    "wire::alias_arrives_as_topic",
    "abuse::non_ascii_topic",
    "abuse::wildcard_in_topic",
    "abuse::shared_member_leaves",
    "life::state_survives_a_restart",
    "life::used_state_dir_is_refused",
];

/// What `rumqttd` fails at times: it drops a client that is back before its old socket was
/// noticed to be gone, so whatever reconnects at once depends on luck.
#[cfg(feature = "rumqttd")]
const RUMQTTD_FAILS_AT_TIMES: &[&str] = &[
    "session::cuts_lose_nothing",
    "session::unacknowledged_comes_again",
    "session::same_id_takes_over",
];

#[cfg(feature = "rumqttd")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rumqttd_fails_exactly_what_is_written_down() {
    let running: Vec<_> = CHECKS
        .iter()
        .map(|(name, check)| (*name, tokio::spawn(run(Kind::Rumqttd, *check))))
        .collect();
    let mut always = Vec::new();
    let mut report = String::new();
    for (name, task) in running {
        if let Err(why) = task.await.expect("the runner does not panic") {
            report += &format!("{name}: {why}\n");
            if !RUMQTTD_FAILS_AT_TIMES.contains(&name) {
                always.push(name);
            }
        }
    }
    assert_eq!(always, RUMQTTD_FAILS, "what failed, and why:\n{report}");
}
