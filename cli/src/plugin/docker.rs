//! A plugin that dockerd runs in a container of its own. Swarms place tasks only where they know the plugin of a task's network, and
//! of plugins they know those that Docker manages. This one is the agent's: it passes on what dockerd says.

mod image;
mod relay;

use crate::args::PluginAction;
use crate::failure::Failure;
use crate::printer::Printer;

/// `sealane docker plugin`.
pub(crate) fn call(action: PluginAction, printer: &Printer) -> Result<(), Failure> {
    match action {
        PluginAction::Build { dir, agent } => {
            image::build(&dir, &agent)?;
            let dir = dir.display();
            printer.talk(&format!(
                "{dir} is ready; next: docker plugin create sealane-swarm {dir} && docker plugin enable sealane-swarm"
            ));
            Ok(())
        }
        PluginAction::Serve { listen, agent } => relay::serve(&listen, &agent),
    }
}
