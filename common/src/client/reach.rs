//! Finding a volcano that answers.
//!
//! All that are known are dialled, one shortly after the other, without waiting for those before: a dead host costs a
//! quarter of a second and not the time until it is given up (as in RFC 8305).

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};

use super::line::Ready;
use super::network::{Network, Unready};
use super::{ConnectError, HostPort, control};
use crate::proto::operation::FetchTopology;
use crate::surroundings::Surroundings;
use crate::topology::{Member, VolcanoId};
use crate::transport::link::{Link, LinkError};

/// A volcano that is up but does not serve yet is waited for this long by the first connect.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);
/// A volcano that does not serve is left for another one after this time.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// A handshake may take this long; while QUIC is left alone it asks less and less often.
const DIAL_LIMIT: Duration = Duration::from_secs(3);
/// It is cut shorter when a connection was lost a moment ago, to notice soon that the volcano is back.
const QUICK_DIAL_LIMIT: Duration = Duration::from_secs(1);
/// So many rounds are quick.
const QUICK_ROUNDS: u32 = 16;
/// Between the starts of two dials.
const STAGGER: Duration = Duration::from_millis(250);
/// Dials under way at a time.
const WIDTH: usize = 4;

/// Why nobody was reached: the failure that says most, and whose it is.
pub(super) struct Failed {
    pub(super) host: Option<HostPort>,
    pub(super) error: Unready,
}

impl Failed {
    fn nobody() -> Self {
        Self { host: None, error: LinkError::Lost("no host was named".into()).into() }
    }

    /// The failure that says most: one that will not pass, then that a volcano is there and does not serve yet, then the later one.
    fn or(self, later: Self) -> Self {
        let says = |failed: &Self| (failed.error.is_final(), failed.error.is_unavailable());
        if says(&self) > says(&later) { self } else { later }
    }
}

fn limit(round: u32) -> Duration {
    if round < QUICK_ROUNDS { QUICK_DIAL_LIMIT } else { DIAL_LIMIT }
}

impl Network {
    pub(super) async fn first_connect(&self) -> Result<Ready, ConnectError> {
        let started = self.surroundings.now();
        let failed = loop {
            match self.race(self.hosts.clone(), DIAL_LIMIT, PATIENCE).await {
                Ok(ready) => return Ok(ready),
                Err(failed) if failed.error.is_unavailable() && self.since(started) < FIRST_PATIENCE => {}
                Err(failed) => break failed,
            }
        };
        let hosts: Vec<_> = self.hosts.iter().map(|host| format!("{}:{}", host.host, host.port)).collect();
        let host = failed.host.map_or_else(String::new, |host| format!("{}:{}", host.host, host.port));
        Err(told(failed.error, host, &hosts.join(", ")))
    }

    /// Tries all hosts and members; `left` is the volcano that was lost last and comes last.
    pub(super) async fn reach_any(&self, left: Option<VolcanoId>, round: u32) -> Result<Ready, Unready> {
        let topology = self.topology();
        let members = topology.members.iter().filter(|member| !member.address.is_unspecified());
        let (last, others): (Vec<&Member>, _) = members.partition(|member| Some(member.id) == left);
        let place = |member: &Member| HostPort { host: member.address.to_string(), port: member.port };
        let last: Vec<HostPort> = last.into_iter().map(place).collect();
        let mut all: Vec<HostPort> = others.into_iter().map(place).collect();
        let more = self.hosts.iter().filter(|host| !last.contains(host)).cloned();
        for host in more.collect::<Vec<_>>().into_iter().chain(last.clone()) {
            if !all.contains(&host) {
                all.push(host);
            }
        }
        self.race(all, limit(round), PATIENCE).await.map_err(|failed| failed.error)
    }

    pub(super) async fn reach_owner(&self, owner: VolcanoId, round: u32) -> Result<Ready, Unready> {
        let address = self.topology().member(owner).map(Member::flare_address);
        let address = address.ok_or_else(|| LinkError::Lost("no longer a member".into()))?;
        let link = Link::connect(&self.surroundings, address, limit(round)).await?;
        self.greet_owner(link, owner).await
    }

    /// Whether there is another volcano to turn to than this one.
    pub(super) fn has_others(&self, door: VolcanoId) -> bool {
        self.hosts.len() > 1 || self.topology().members.iter().any(|member| member.id != door)
    }

    async fn race(&self, hosts: Vec<HostPort>, limit: Duration, patience: Duration) -> Result<Ready, Failed> {
        let mut dials = FuturesUnordered::new();
        let mut hosts = hosts.into_iter().peekable();
        let mut failed = Failed::nobody();
        let mut start_next = true;
        loop {
            if start_next && let Some(host) = hosts.next() {
                dials.push(async move {
                    let reached = dial_host(&self.surroundings, &host, limit).await;
                    (host, reached)
                });
            }
            let room = hosts.peek().is_some() && dials.len() < WIDTH;
            start_next = true;
            let (host, reached) = tokio::select! {
                biased;
                dialled = dials.next() => match dialled {
                    Some(dialled) => dialled,
                    None => return Err(failed),
                },
                () = self.surroundings.sleep(STAGGER), if room => continue,
            };
            let greeted = match reached {
                Ok(link) => self.greet(link, patience).await,
                Err(error) => Err(error.into()),
            };
            match greeted {
                Ok(ready) => return Ok(ready),
                Err(error) => failed = failed.or(Failed { host: Some(host), error }),
            }
        }
    }
}

/// Whether a volcano answers there and has the same key.
pub(super) async fn probe(surroundings: &Arc<dyn Surroundings>, host: &HostPort) -> Result<(), ConnectError> {
    let place = format!("{}:{}", host.host, host.port);
    let asked = async {
        let link = dial_host(surroundings, host, DIAL_LIMIT).await?;
        // Only an answer shows that it knows our key, too.
        let answered = control::ask(&**surroundings, &link, None, FetchTopology.into()).await;
        link.close();
        answered
    };
    let answered = asked.await.map_err(|error| told(error, place.clone(), &place));
    surroundings.finish().await;
    answered.map(drop)
}

fn told(error: Unready, host: String, hosts: &str) -> ConnectError {
    match error {
        Unready::Link(LinkError::WrongKey) => ConnectError::WrongKey { host },
        Unready::Link(LinkError::Version) => ConnectError::Version { host },
        error => ConnectError::Unreachable { hosts: hosts.to_owned(), reason: error.to_string() },
    }
}

async fn dial_host(
    surroundings: &Arc<dyn Surroundings>,
    host: &HostPort,
    limit: Duration,
) -> Result<Arc<Link>, LinkError> {
    let found = surroundings.resolve(host).await;
    let found = found.map_err(|error| LinkError::Lost(format!("cannot resolve {}: {error}", host.host)))?;
    let mut last = LinkError::Lost(format!("{} has no address", host.host));
    for address in found {
        match Link::connect(surroundings, address, limit).await {
            Ok(link) => return Ok(link),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::error::FlareError;

    fn failed(error: impl Into<Unready>) -> Failed {
        Failed { host: None, error: error.into() }
    }

    /// While a mirror took over, the volcanos that were there said that nobody served yet, and the dead one's silence, which was noticed
    /// last, made a mount give up.
    #[test]
    fn a_dead_volcano_does_not_hide_that_another_one_will_serve_in_a_moment() {
        let silent = || failed(LinkError::Lost("no answer".into()));
        let unserved = || failed(Unready::Refused(FlareError::Unavailable));
        assert!(unserved().or(silent()).error.is_unavailable());
        assert!(silent().or(unserved()).error.is_unavailable());
        assert!(unserved().or(failed(LinkError::WrongKey)).error.is_final());
        assert!(failed(LinkError::WrongKey).or(unserved()).error.is_final());
    }
}
