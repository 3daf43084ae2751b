//! Sockets of a container's resolver that are there before anybody knows what the container is: what it asks as it begins waits in
//! them, in place of being answered by its runtime's resolver, which does not know the names and would ask the host's.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sealane_fabric::nft;
use sealane_sys::NetNs;

use super::Workloads;
use super::namespace::RESOLVER;
use crate::dns::DnsSockets;

/// Sockets by their namespace's inode, until the one that answers takes them.
#[derive(Debug, Default)]
pub(super) struct EarlySockets(Mutex<BTreeMap<u64, DnsSockets>>);

/// Right to the questions of a namespace. Those that nobody has taken when this is dropped are refused.
#[derive(Debug)]
pub(crate) struct EarlyQuestions {
    workloads: std::sync::Arc<Workloads>,
    inode: u64,
}

impl EarlySockets {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, DnsSockets>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the sockets in the namespace with this inode, to answer there.
    pub(super) fn take(&self, inode: u64) -> Option<DnsSockets> {
        self.lock().remove(&inode)
    }
}

impl Workloads {
    /// Lets questions of a container's namespace wait for our answers from now on; `None` where somebody answers or collects them
    /// already.
    ///
    /// # Errors
    /// When the namespace is not furnished yet.
    pub(crate) fn collect_questions(
        self: &std::sync::Arc<Self>,
        netns: &NetNs,
    ) -> io::Result<Option<EarlyQuestions>> {
        let context = &self.context;
        let inode = netns.inode().map_err(io::Error::other)?;
        if context.roster.early.lock().contains_key(&inode) {
            return Ok(None);
        }
        let sockets = match context.kernel.hopper.run(netns, || DnsSockets::bind(RESOLVER))? {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Ok(None),
            sockets => sockets?,
        };
        context.roster.early.lock().insert(inode, sockets);
        let questions = EarlyQuestions { workloads: self.clone(), inode };
        nft::put_names(&context.kernel.hopper, netns, RESOLVER).map_err(io::Error::other)?;
        Ok(Some(questions))
    }
}

impl Drop for EarlyQuestions {
    fn drop(&mut self) {
        drop(self.workloads.context.roster.early.take(self.inode));
    }
}
