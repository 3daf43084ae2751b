//! Things to try after the tour.

use super::NETWORK;
use crate::demo::narrator::Narrator;
use crate::demo::outer::METRICS_PORT;
use crate::demo::stage::Stage;

pub(super) fn tell(stage: &Stage, narrator: &Narrator) {
    let shell = "sealane demo shell host-1";
    let hosts = stage.hosts().len();
    narrator.say(&format!(
        "\nIt all runs on until Ctrl-C. What to try next, in another terminal, as root:\n\
         \n\
         \x20   {shell}                        a shell on a host; there, for example:\n\
         \x20     sealane status\n\
         \x20     sealane service ls                             also: node, workload, network\n\
         \x20     sealane exec web -- curl -s http://api:8080/\n\
         \x20     sealane run --network {network} -- redis-cli -h cache INCR visits\n\
         \x20     tcpdump -ni eth0 udp port 4789\n\
         \x20   http://127.0.0.1:{first}/metrics                     host-1; the last one, host-{hosts}, on {last}\n",
        network = NETWORK.0,
        first = METRICS_PORT + 1,
        last = METRICS_PORT as usize + hosts,
    ));
}
