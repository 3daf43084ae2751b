//! Watcher of Docker, one for everybody: its events, and all of it anew at each connection and now and then.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sealane_base::backoff::Backoff;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::event::Event;
use super::look::Looks;
use super::view::{Container, Network};
use super::{Engine, Events};
use crate::attachment::ContainerCondition;

/// Pause before a dockerd that is not there is tried again, at first.
const SOON: Duration = Duration::from_millis(50);
/// And at last.
const SELDOM: Duration = Duration::from_secs(2);
/// Time for which it may be away until that is worth a word: it is started again within that.
const AWAY: Duration = Duration::from_secs(20);
/// Interval at which everything is looked at without anything having happened.
const WHOLE: Duration = Duration::from_secs(300);

/// News of Docker.
#[derive(Debug)]
pub(crate) enum News {
    /// A container's present state.
    Container(Box<Container>),
    /// A container's condition, of which more will be told.
    Condition(String, ContainerCondition),
    /// A container was removed.
    Removed(String),
    /// A network was removed.
    NetworkRemoved(String),
    /// Everything that there is: all containers by whether they run, and the driver's networks. Of each that runs was told.
    Whole(BTreeMap<String, bool>, Vec<Network>),
    /// Dockerd has been away for long, with the reason.
    Away(String),
    /// Docker answers.
    Here,
}

/// Nobody hears of it any more.
struct Deaf;

/// Tells what is new with Docker, whose driver here is `driver`, from when somebody wants to know for as long as somebody `hears`.
pub(crate) async fn follow(
    engine: Engine,
    driver: String,
    mut wanted: watch::Receiver<bool>,
    hears: mpsc::Sender<News>,
) {
    let (mut backoff, mut gone) = (Backoff::new(SOON, SELDOM), Instant::now());
    let mut told = false;
    while wanted.wait_for(|wanted| *wanted).await.is_ok() {
        let why = match engine.events().await {
            Ok(events) => {
                (told, backoff) = (false, Backoff::new(SOON, SELDOM));
                let watcher = Watcher { engine: &engine, driver: &driver, hears: &hears };
                match watcher.run(events).await {
                    Ok(why) => {
                        gone = Instant::now();
                        why
                    }
                    Err(Deaf) => return,
                }
            }
            Err(error) => error,
        };
        if gone.elapsed() >= AWAY
            && !std::mem::replace(&mut told, true)
            && hears.send(News::Away(why.to_string())).await.is_err()
        {
            return;
        }
        tokio::time::sleep(backoff.next_wait(rand::random())).await;
    }
}

/// Containers that were listed and are still to be told of as a whole.
struct Whole {
    containers: BTreeMap<String, bool>,
    networks: Vec<Network>,
    /// Containers that were not asked about since.
    open: BTreeSet<String>,
}

struct Watcher<'a> {
    engine: &'a Engine,
    driver: &'a str,
    hears: &'a mpsc::Sender<News>,
}

impl Watcher<'_> {
    /// Follows one connection until it ends, with what became of it.
    async fn run(&self, mut events: Events) -> Result<io::Error, Deaf> {
        self.tell(News::Here).await?;
        let (mut looks, mut answers) = (Looks::default(), FuturesUnordered::new());
        let mut whole = None;
        let mut due = tokio::time::interval(WHOLE);
        loop {
            while let Some(id) = looks.next() {
                answers.push(self.look(id));
            }
            if let Some(Whole { containers, networks, .. }) =
                whole.take_if(|whole: &mut Whole| whole.open.is_empty())
            {
                self.tell(News::Whole(containers, networks)).await?;
            }
            tokio::select! {
                event = events.next() => match event {
                    Ok(Some(event)) => self.handle(event, &mut looks).await?,
                    Ok(None) => return Ok(io::ErrorKind::UnexpectedEof.into()),
                    Err(error) => return Ok(error),
                },
                Some((id, answer)) = answers.next() => {
                    let newest = looks.done(&id);
                    if let Some(whole) = &mut whole {
                        whole.open.remove(&id);
                    }
                    match answer {
                        Ok(Some(container)) if newest => self.tell(News::Container(Box::new(container))).await?,
                        Ok(_) => {}
                        // It starts, and dockerd says nothing of it before it has.
                        Err(error) if error.kind() == io::ErrorKind::TimedOut => looks.want(&id),
                        Err(error) => return Ok(error),
                    }
                }
                _ = due.tick() => match self.list().await {
                    Ok(listed) => {
                        listed.open.iter().for_each(|id| looks.want(id));
                        whole = Some(listed);
                    }
                    Err(error) => return Ok(error),
                },
            }
        }
    }

    async fn list(&self) -> io::Result<Whole> {
        let networks = self.engine.networks(self.driver).await?;
        let containers = self.engine.containers().await?;
        Ok(Whole { open: containers.keys().cloned().collect(), containers, networks })
    }

    async fn look(&self, id: String) -> (String, io::Result<Option<Container>>) {
        let answer = self.engine.container(&id).await;
        (id, answer)
    }

    async fn handle(&self, event: Event, looks: &mut Looks) -> Result<(), Deaf> {
        match event {
            Event::Container(id, condition) => {
                looks.want(&id);
                match condition {
                    Some(condition) => self.tell(News::Condition(id, condition)).await,
                    None => Ok(()),
                }
            }
            Event::Removed(id) => self.tell(News::Removed(id)).await,
            Event::NetworkRemoved(id) => self.tell(News::NetworkRemoved(id)).await,
        }
    }

    async fn tell(&self, news: News) -> Result<(), Deaf> {
        self.hears.send(news).await.map_err(|_| Deaf)
    }
}
