use std::collections::VecDeque;
use std::future::pending;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::*;

/// Steps of every end, in their order.
const END: [&str; 7] = ["close", "retire", "clear", "remove device", "erase", "forget", "leave"];
/// Time that a step takes in the twin.
const WORK: Duration = Duration::from_millis(10);

/// Outcome of a step that may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Works,
    Fails,
    /// Waits for something that does not come, and says so.
    Waits,
}

/// Steps without a kernel: they are written down.
#[derive(Clone, Debug, Default)]
struct Twin {
    done: Arc<Mutex<Vec<&'static str>>>,
    said: Arc<Mutex<Vec<Option<String>>>>,
    acts: VecDeque<Act>,
}

impl Twin {
    fn new(acts: impl IntoIterator<Item = Act>) -> Self {
        Self { acts: acts.into_iter().collect(), ..Self::default() }
    }

    fn note(&self, step: &'static str) {
        self.done.lock().unwrap().push(step);
    }

    fn done(&self) -> Vec<&'static str> {
        self.done.lock().unwrap().clone()
    }

    /// Returns the steps before the end, which must be whole.
    fn before_end(&self) -> Vec<&'static str> {
        let mut done = self.done();
        assert!(done.ends_with(&END), "{done:?}");
        done.truncate(done.len() - END.len());
        assert!(!done.iter().any(|step| END.contains(step)), "{done:?}");
        done
    }

    async fn act(&mut self, progress: &Progress) -> Result<(), AttachError> {
        sleep(WORK).await;
        match self.acts.pop_front().unwrap_or(Act::Works) {
            Act::Works => Ok(()),
            Act::Fails => Err(AttachError::Namespace("it is not there".to_owned())),
            Act::Waits => {
                progress.waiting("rain".to_owned()).await;
                pending().await
            }
        }
    }
}

impl Steps for Twin {
    async fn set_up(&mut self, _given: Option<NetNs>, progress: &Progress) -> Result<(), AttachError> {
        self.note("set up");
        self.act(progress).await
    }

    async fn adopt(&mut self, _anchor: &Anchor, progress: &Progress) -> Result<(), AttachError> {
        self.note("adopt");
        self.act(progress).await
    }

    async fn set_aside(&self) {
        self.note("set aside");
    }

    fn complaints(&self) -> impl Fn(Option<String>) + Send + 'static {
        let said = self.said.clone();
        move |why| said.lock().unwrap().push(why)
    }

    fn open(&self) -> Option<Attached> {
        self.note("open");
        Some(Attached {
            workload: "api-1".parse().unwrap(),
            netns: PathBuf::new(),
            resolv_conf: PathBuf::new(),
            seats: vec![],
            nameserver: None,
            notes: vec![],
        })
    }

    fn remember(&self, _anchor: &Anchor) {
        self.note("remember");
    }

    async fn live(&mut self, lifeline: &Lifeline, adopted: bool) {
        self.note(if adopted { "live on" } else { "live" });
        lifeline.ended().await;
    }

    fn lose(&self) {
        self.note("lose");
    }

    fn close(&mut self) {
        self.note("close");
    }

    async fn retire(&mut self) {
        sleep(WORK).await;
        self.note("retire");
    }

    fn clear(&mut self) {
        self.note("clear");
    }

    async fn remove_device(&mut self) {
        sleep(WORK).await;
        self.note("remove device");
    }

    fn erase(&self) {
        self.note("erase");
    }

    async fn forget(&self) {
        self.note("forget");
    }

    fn leave(&self) {
        self.note("leave");
    }
}

/// An anchor that does not end by itself.
fn anchor() -> Anchor {
    Anchor::Held { hold: "docker/1".parse().unwrap(), path: PathBuf::new(), process: None }
}

/// A lifeline, and the way to end it.
fn lifeline() -> (Lifeline, watch::Sender<bool>) {
    let (dismiss, dismissed) = watch::channel(false);
    (Lifeline { anchor: anchor(), dismissed }, dismiss)
}

/// Words that an asker has heard.
async fn heard(mut words: mpsc::Receiver<Result<Event, RequestFailure>>) -> Vec<String> {
    let mut heard = Vec::new();
    while let Some(word) = words.recv().await {
        heard.push(match word {
            Ok(Event::Waiting(what)) => format!("waits for {what}"),
            Ok(Event::Attached(attached)) => format!("attached {}", attached.workload),
            Err(failure) => failure.to_string(),
        });
    }
    heard
}

#[tokio::test(start_paused = true)]
async fn a_new_workload_is_told_of_once_people_are_let_in_and_lives_until_it_is_dismissed() {
    let (twin, (lifeline, dismiss), (progress, words)) =
        (Twin::new([Act::Works]), lifeline(), Progress::channel(8));
    let course = begin(twin.clone(), None, lifeline, pending(), progress);
    let asker = async {
        assert_eq!(heard(words).await, ["attached api-1"]);
        assert_eq!(twin.done(), ["set up", "open", "remember", "live"]);
        sleep(Duration::from_secs(3600)).await;
        dismiss.send_replace(true);
    };
    tokio::join!(course, asker);
    assert_eq!(twin.before_end(), ["set up", "open", "remember", "live"]);
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_be_set_up_is_never_opened_and_leaves_nothing() {
    let (twin, (lifeline, _dismiss), (progress, words)) =
        (Twin::new([Act::Fails]), lifeline(), Progress::channel(8));
    let (said, ()) = tokio::join!(heard(words), begin(twin.clone(), None, lifeline, pending(), progress));
    assert_eq!((said, twin.before_end()), (vec!["it is not there".to_owned()], vec!["set up"]));
}

#[tokio::test(start_paused = true)]
async fn what_is_waited_for_ends_with_the_asker_the_anchor_or_control_s_refusal() {
    for (leaves, dismissed, refused) in [(true, false, false), (false, true, false), (false, false, true)] {
        let (twin, (lifeline, dismiss), (progress, mut words)) =
            (Twin::new([Act::Waits]), lifeline(), Progress::channel(8));
        let (refuse, refusal) = oneshot::channel();
        let refusal = async { AttachError::Refused(refusal.await.unwrap_or_else(|_| "nothing".to_owned())) };
        let course = begin(twin.clone(), None, lifeline, refusal, progress);
        let asker = async {
            assert_eq!(words.recv().await.unwrap().unwrap(), Event::Waiting("rain".to_owned()));
            match (leaves, dismissed) {
                (true, _) => drop(words),
                (false, true) => {
                    dismiss.send_replace(true);
                    assert_eq!(heard(words).await, ["the agent is ending"]);
                }
                (false, false) => {
                    refuse.send("host-1 was removed".to_owned()).unwrap();
                    assert_eq!(heard(words).await, ["host-1 was removed"]);
                }
            }
        };
        timeout(Duration::from_secs(1), async { tokio::join!(course, asker) }).await.unwrap();
        assert_eq!(twin.before_end(), ["set up"], "{leaves} {dismissed} {refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_be_taken_up_gets_calls_for_a_second_and_is_tried_again_until_it_can() {
    let twin = Twin::new([Act::Fails; 12]);
    let (dismiss, dismissed) = watch::channel(false);
    let course = resume(twin.clone(), Ok(anchor()), dismissed);
    let outside = async {
        sleep(PATIENCE).await;
        assert!(!twin.done().contains(&"set aside"), "calls go on");
        while !twin.done().contains(&"live on") {
            sleep(WORK).await;
        }
        dismiss.send_replace(true);
    };
    timeout(Duration::from_secs(120), async { tokio::join!(course, outside) }).await.unwrap();
    let done = twin.before_end();
    assert_eq!(done.iter().filter(|step| **step == "adopt").count(), 13);
    assert!(done.ends_with(&["adopt", "open", "live on"]) && done.contains(&"set aside"), "{done:?}");
    let said = twin.said.lock().unwrap().clone();
    assert_eq!((said.len(), said.last().unwrap()), (13, &None), "the trouble is over: {said:?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_workload_of_before_waits_for_is_shown_and_its_end_is_not_missed_meanwhile() {
    let twin = Twin::new([Act::Waits]);
    let (dismiss, dismissed) = watch::channel(false);
    let outside = async {
        sleep(Duration::from_secs(60)).await;
        assert_eq!(*twin.said.lock().unwrap(), [Some("it waits for rain".to_owned())]);
        dismiss.send_replace(true);
    };
    let course = resume(twin.clone(), Ok(anchor()), dismissed);
    timeout(Duration::from_secs(61), async { tokio::join!(course, outside) }).await.unwrap();
    assert_eq!(twin.before_end(), ["adopt"]);
}

#[tokio::test]
async fn one_whose_anchor_is_gone_ends_at_once_and_is_counted_lost_only_with_the_boot() {
    for (gone, before) in
        [(Gone::Rebooted, vec!["lose"]), (Gone::Ended("process 7 ended".to_owned()), vec![])]
    {
        let twin = Twin::default();
        resume(twin.clone(), Err(gone), watch::channel(false).1).await;
        assert_eq!(twin.before_end(), before);
    }
}

proptest! {
    /// Whenever the end comes, all of it is done, in order and once, and nothing afterwards.
    #[test]
    fn nothing_is_left_whenever_a_workload_ends(
        acts in prop::collection::vec(prop_oneof![Just(Act::Works), Just(Act::Fails), Just(Act::Waits)], 0..8),
        adopted: bool,
        ends_ms in 0_u64..3000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let twin = Twin::new(acts);
        runtime.block_on(async {
            let ((lifeline, dismiss), (progress, words)) = (lifeline(), Progress::channel(8));
            let outside = async {
                sleep(Duration::from_millis(ends_ms)).await;
                dismiss.send_replace(true);
            };
            let course = async {
                match adopted {
                    true => resume(twin.clone(), Ok(lifeline.anchor), lifeline.dismissed).await,
                    false => begin(twin.clone(), None, lifeline, pending(), progress).await,
                }
            };
            tokio::join!(outside, course, heard(words));
        });
        let before = twin.before_end();
        let opened = before.iter().position(|step| *step == "open");
        let lived = before.iter().position(|step| step.starts_with("live"));
        prop_assert_eq!(opened.is_some(), lived.is_some());
        prop_assert!(opened <= lived, "{:?}", before);
        prop_assert!(lived.is_none_or(|lived| lived + 1 == before.len()), "{:?}", before);
    }
}
