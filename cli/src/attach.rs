//! `sealane attach` and `sealane detach`: namespaces that are there already.

mod container;
mod tap;
mod unit;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sealane_proto::wire::v1;
use sealane_proto::wire::v1::agent_client::AgentClient;
use sealane_sys::NetNs;

use crate::args::{AttachTo, Common, Detach, Target, UnitName};
use crate::client::{agent, answer, answer_within, coming_agent, converse};
use crate::failure::{Exit, Failure, require_root};
use crate::printer::Printer;
use crate::run::{follow, request};
use crate::view::{Done, LocationView};
use container::Container;
use unit::Unit;

/// Time for an answer beyond that for open calls.
const ANSWER: Duration = Duration::from_secs(30);

/// A namespace that somebody named.
struct Found {
    path: PathBuf,
    pid: u32,
    /// Beginning of a workload's name that is made.
    stem: String,
    container: Option<Container>,
}

/// `sealane attach`.
pub(crate) fn attach(to: &AttachTo, common: &Common, printer: &Printer) -> Result<(), Failure> {
    require_root("attach")?;
    if let Some(name) = &to.target.unit {
        return attach_unit(name, to, common, printer);
    }
    if let Some(device) = &to.target.tap {
        return tap::attach(device, to, common, printer);
    }
    let found = find(&to.target, printer)?;
    let netns = NetNs::open(&found.path).map_err(|error| {
        Failure::new(error.to_string())
            .hint("a network namespace is named by a path such as /run/netns/NAME or /proc/PID/ns/net")
    })?;
    let mut workload = request(&to.attach, found.stem)?;
    let container = found.container.as_ref();
    workload.preferred = container.and_then(|container| container.name.clone()).unwrap_or_default();
    let request = v1::AttachRequest {
        workload: Some(workload),
        container: container.map(|container| container.id.clone()).unwrap_or_default(),
        netns: found.path.display().to_string(),
        pid: found.pid,
        inode: netns.inode().map_err(Failure::of("cannot look at the namespace"))?,
        ..Default::default()
    };
    let location = converse(async {
        let mut client = AgentClient::new(agent(common).await?);
        follow(client.attach(request).await, printer).await
    })?;
    for note in &location.notes {
        printer.talk(note);
    }
    let said = location.notes.iter().any(|note| note.contains("--dns"));
    if found.container.is_some() && !said {
        // As the container sees it. One that has ended meanwhile needs no advice.
        let asks =
            fs::read_to_string(format!("/proc/{}/root/etc/resolv.conf", found.pid)).unwrap_or_default();
        container::advice(&asks, &location.nameserver).iter().for_each(|advice| printer.talk(advice));
    }
    printer.sheet(&LocationView::from(location))
}

/// A namespace for a service of systemd. Whatever a start before this one has left is taken back first; of one that fails,
/// nothing stays.
fn attach_unit(name: &UnitName, to: &AttachTo, common: &Common, printer: &Printer) -> Result<(), Failure> {
    let unit = Unit::new(&common.run_dir, name);
    let mut workload = request(&to.attach, name.as_str().to_owned())?;
    // As the agent would have made it of a container's name; `api@1` is called `api-1`.
    workload.preferred = name.as_str().to_owned();
    let before = v1::DetachRequest { holder: unit.holder.clone(), ..Default::default() };
    let attached = converse(async {
        let mut client = AgentClient::new(coming_agent(common, |text| printer.talk(text)).await?);
        answer(client.detach(before)).await?;
        unit.make()?;
        let request = v1::AttachRequest {
            workload: Some(workload),
            netns: unit.netns().display().to_string(),
            holder: unit.holder.clone(),
            ..Default::default()
        };
        follow(client.attach(request).await, printer).await
    });
    let named = attached.and_then(|location| {
        let resolv_conf = unit.name_server(&location.resolv_conf)?.display().to_string();
        Ok(v1::Location { resolv_conf, netns: unit.netns().display().to_string(), ..location })
    });
    match named {
        Ok(location) => {
            location.notes.iter().for_each(|note| printer.talk(note));
            printer.sheet(&LocationView::from(location))
        }
        Err(failure) => {
            // The agent takes back what nobody waits for; the first failure is the one to tell.
            let _ = unit.remove();
            Err(failure)
        }
    }
}

/// `sealane detach`.
pub(crate) fn detach(detach: &Detach, common: &Common, printer: &Printer) -> Result<(), Failure> {
    require_root("detach")?;
    let text = |value: Option<String>| value.unwrap_or_default();
    let workload = text(detach.workload.as_ref().map(ToString::to_string));
    let unit = detach.unit.as_ref().map(|name| Unit::new(&common.run_dir, name));
    let holder = text(detach.holder.clone().or(unit.as_ref().map(|unit| unit.holder.clone())));
    // Nothing is as short as a request can say.
    let drain = detach.drain.max(Duration::from_millis(1));
    let request = v1::DetachRequest {
        workload: workload.clone(),
        holder: holder.clone(),
        drain_milliseconds: u64::try_from(drain.as_millis()).unwrap_or(u64::MAX),
    };
    let detached = converse(async {
        let mut client = AgentClient::new(agent(common).await?);
        answer_within(drain.saturating_add(ANSWER), client.detach(request)).await
    })?;
    unit.as_ref().map_or(Ok(()), Unit::remove)?;
    let text = match (holder.is_empty(), detached.ending) {
        (true, true) => format!("workload {workload} is ending: it waits until every host has heard of it"),
        (true, false) => format!("workload {workload} detached"),
        (false, true) => {
            format!("the workload that {holder} holds is ending: it waits until every host has heard of it")
        }
        (false, false) => format!("{holder} holds no workload any more"),
    };
    let workload = if holder.is_empty() { workload } else { format!("of {holder}") };
    let effect = if detached.ending { "ending" } else { "detached" };
    printer.done(&Done::of("Workload", &workload, effect), &text)
}

fn find(target: &Target, printer: &Printer) -> Result<Found, Failure> {
    if let Some(path) = &target.path {
        let path = std::path::absolute(path).map_err(Failure::of("the path of the namespace"))?;
        let stem = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        // What /proc calls it says nothing.
        let stem = if path.starts_with("/proc") { String::new() } else { stem };
        return Ok(Found { path, pid: 0, stem, container: None });
    }
    if let Some(pid) = target.pid {
        let folder = Path::new("/proc").join(pid.to_string());
        let stem = fs::read_to_string(folder.join("comm"))
            .map_err(|_| Failure::new(format!("there is no process {pid}")).exit(Exit::Failed))?;
        let stem = stem.trim().to_owned();
        return Ok(Found { path: folder.join("ns/net"), pid, stem, container: None });
    }
    let id = target.container.as_deref().unwrap_or_default();
    let found = container::find(id)?;
    printer.talk(&format!("container {} is process {}, found by {}", found.id, found.pid, found.by));
    let stem = found.id.chars().take(12).collect();
    Ok(Found {
        path: format!("/proc/{}/ns/net", found.pid).into(),
        pid: found.pid,
        stem,
        container: Some(found),
    })
}
