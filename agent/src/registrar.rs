//! Registration of services outside every network, as the files of a folder on this host say. Control takes the whole of it
//! each time something changes or a link comes up, so that files and mesh agree whoever was away meanwhile.
//!
//! A file that cannot be understood changes nothing: what it said before stays, and after a start, when nobody knows what it said,
//! nothing is taken back.

mod files;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sealane_proto::document::{Document, DocumentId, ServiceDocument};
use sealane_proto::wire::v1;
use tokio::sync::{mpsc, oneshot};
use tonic::{Code, Status};

use crate::certs::words;
use crate::workload::Workloads;
use files::Files;
use watch::Watched;

/// Interval at which a control plane that did not answer is asked again, and a folder is looked at that the kernel does not watch.
const LOOK: Duration = Duration::from_secs(1);
/// Number of these after which any folder is looked at: not every file system tells of all changes.
const SELDOM: u32 = 30;
/// Time from the first change to the look: files are made before they are written.
const SETTLE: Duration = Duration::from_millis(50);
/// Limit for control's answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads the documents of one file; an error says file, line and what is wrong.
pub type ReadDocuments = fn(&Path) -> Result<Vec<Document>, String>;

/// Reasons for which a service is not registered, or not dismissed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RegisterError {
    /// Control refuses it.
    #[error("{0}")]
    Refused(String),
    /// A file that somebody wrote has it.
    #[error("{id} is in {}; change it there", .file.display())]
    Elsewhere {
        /// The service.
        id: DocumentId,
        /// The file.
        file: PathBuf,
    },
    /// Nobody registered it here.
    #[error("{0} is not registered by this host; `sealane service inspect` says by whom it is")]
    Missing(DocumentId),
    /// The file cannot be written or removed.
    #[error("cannot write {}: {reason}", .file.display())]
    Disk {
        /// The file.
        file: PathBuf,
        /// Error of the system.
        reason: String,
    },
    /// The agent is ending.
    #[error("the agent is ending")]
    Ending,
}

/// Obstacle before control knows of a change; nothing when it does.
pub(crate) type Waits = Option<String>;

#[derive(Debug)]
enum RegistrarCommand {
    Register(Box<ServiceDocument>, oneshot::Sender<Result<Waits, RegisterError>>),
    Dismiss(DocumentId, oneshot::Sender<Result<Waits, RegisterError>>),
}

/// For whoever registers a service.
#[derive(Clone, Debug)]
pub(crate) struct RegistrarHandle(mpsc::Sender<RegistrarCommand>);

impl RegistrarHandle {
    /// Registers a service, in a file of its own.
    ///
    /// # Errors
    /// When control refuses it, or another file has it; nothing is changed then.
    pub(crate) async fn register(&self, document: ServiceDocument) -> Result<Waits, RegisterError> {
        self.ask(|answer| RegistrarCommand::Register(Box::new(document), answer)).await
    }

    /// Ends what [`RegistrarHandle::register`] began.
    ///
    /// # Errors
    /// When it is not there, or in a file of somebody else's.
    pub(crate) async fn dismiss(&self, id: DocumentId) -> Result<Waits, RegisterError> {
        self.ask(|answer| RegistrarCommand::Dismiss(id, answer)).await
    }

    async fn ask(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<Waits, RegisterError>>) -> RegistrarCommand,
    ) -> Result<Waits, RegisterError> {
        let (answer, wait) = oneshot::channel();
        self.0.send(request(answer)).await.map_err(|_| RegisterError::Ending)?;
        wait.await.map_err(|_| RegisterError::Ending)?
    }
}

/// The task that owns the folder.
#[derive(Debug)]
pub(crate) struct Registrar {
    files: Files,
    watched: Watched,
    workloads: Arc<Workloads>,
    requests: mpsc::Receiver<RegistrarCommand>,
}

impl Registrar {
    /// The registrar of a folder, which need not be there.
    #[must_use]
    pub(crate) fn new(
        folder: PathBuf,
        read: ReadDocuments,
        workloads: Arc<Workloads>,
    ) -> (RegistrarHandle, Self) {
        let (sender, requests) = mpsc::channel(16);
        let (files, watched) = (Files::new(folder.clone(), read), Watched::new(folder));
        (RegistrarHandle(sender), Self { files, watched, workloads, requests })
    }

    /// Follows the folder and the link, for ever.
    pub(crate) async fn run(mut self) {
        let mut control = self.workloads.host().views.control.clone();
        let (mut look, mut ticks) = (tokio::time::interval(LOOK), 0_u32);
        loop {
            tokio::select! {
                Some(request) = self.requests.recv() => {
                    // Control was just told, or could not be; what else was found meanwhile is told after the next look.
                    self.handle(request).await;
                    continue;
                }
                changed = control.changed() => match changed {
                    Ok(()) => self.files.due = true,
                    Err(_) => return,
                },
                () = self.watched.changed() => {
                    tokio::time::sleep(SETTLE).await;
                    // Armed first: what changes during the look is told again.
                    self.watched.arm();
                    self.files.look();
                }
                _ = look.tick() => {
                    if ticks.is_multiple_of(SELDOM) || !self.watched.is_armed() {
                        self.watched.arm();
                        self.files.look();
                    }
                    ticks = ticks.wrapping_add(1);
                }
            }
            if self.files.due {
                // What control says of single documents is told by `status`.
                let _ = self.submit().await;
            }
        }
    }

    async fn handle(&mut self, request: RegistrarCommand) {
        // Who asked and left gets no answer; what it asked for stands.
        match request {
            RegistrarCommand::Register(document, answer) => drop(answer.send(self.register(&document).await)),
            RegistrarCommand::Dismiss(id, answer) => drop(answer.send(self.dismiss(&id).await)),
        }
    }

    async fn register(&mut self, document: &ServiceDocument) -> Result<Waits, RegisterError> {
        let id = document.id();
        self.files.look();
        let own = self.files.own(&id);
        if let Some(file) = self.files.of(&id).filter(|file| **file != own) {
            return Err(RegisterError::Elsewhere { id, file: file.clone() });
        }
        let before = self.files.write(&own, document)?;
        match self.submit().await {
            Ok(refused) => match refused.into_iter().find(|(refused, _)| *refused == id) {
                Some((_, reason)) => {
                    self.files.restore(&own, before)?;
                    let _ = self.submit().await;
                    Err(RegisterError::Refused(reason))
                }
                None => Ok(None),
            },
            Err(why) => Ok(Some(why)),
        }
    }

    async fn dismiss(&mut self, id: &DocumentId) -> Result<Waits, RegisterError> {
        self.files.look();
        let own = self.files.own(id);
        match self.files.of(id).cloned() {
            Some(file) if file == own => self.files.restore(&own, None)?,
            Some(file) => return Err(RegisterError::Elsewhere { id: id.clone(), file }),
            None => return Err(RegisterError::Missing(id.clone())),
        }
        Ok(self.submit().await.err())
    }

    /// Tells control all that this host registers; answers what it refuses, or why it does not answer.
    async fn submit(&mut self) -> Result<Vec<(DocumentId, String)>, String> {
        self.files.due = true;
        let link = self.workloads.host().views.link.borrow().clone();
        let why = link.why_silent().to_owned();
        let documents = self.files.documents();
        let answered = match link.channel {
            Some(channel) => {
                let texts = documents.iter().filter_map(|(_, document)| document.to_json().ok());
                let request =
                    v1::RegisterRequest { documents: texts.collect(), partial: self.files.are_partial() };
                let mut client = v1::control_client::ControlClient::new(channel);
                match tokio::time::timeout(PATIENCE, client.register(request)).await {
                    Ok(answered) => answered.map(|answer| answer.into_inner().refused),
                    Err(_) => Err(Status::deadline_exceeded("control did not answer in time")),
                }
            }
            None => Err(Status::unavailable(why)),
        };
        let outcome = match answered {
            Ok(refused) => {
                self.files.due = false;
                let refused = documents.into_iter().zip(refused).filter(|(_, reason)| !reason.is_empty());
                Ok(refused.map(|((file, document), reason)| (file, document.id(), reason)).collect())
            }
            // One that does not know of it, and need not.
            Err(status) if status.code() == Code::Unimplemented => {
                self.files.due = false;
                let older =
                    "the control plane is of a version that registers no services; upgrade it".to_owned();
                if documents.is_empty() { Ok(Vec::new()) } else { Err(older) }
            }
            Err(status) => Err(words(&status)),
        };
        self.complain(outcome.as_ref());
        outcome.map(|refused| refused.into_iter().map(|(_, id, reason)| (id, reason)).collect())
    }

    /// Names what is wrong with files and what control refuses of them; takes back what is well again.
    fn complain(&self, outcome: Result<&Vec<(PathBuf, DocumentId, String)>, &String>) {
        let mut sentences = self.files.flaws();
        match outcome {
            Ok(refused) => sentences.extend(refused.iter().map(|(file, id, reason)| {
                (format!("services/{id}"), format!("{}: {id}: {reason}", file.display()))
            })),
            // That control is away, `status` says itself.
            Err(_) if self.files.due => {}
            Err(why) => {
                sentences.insert("services".to_owned(), why.clone());
            }
        }
        self.workloads.complain_all("services", sentences);
    }
}
