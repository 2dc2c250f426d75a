//! Images that call themselves a whole system.

use super::output;
use crate::client::ContainerProxy;
use crate::model::Boot;

/// Tells what to say when the program, which was left to the image, is an init and none of the caller's: it may then hang
/// without a word. That no answer comes is no failure of anything.
pub(crate) async fn advise(container: ContainerProxy<'static>) {
    let Ok(command) = container.command().await else { return };
    if Boot::is_init(&command) && container.boot().await.is_ok_and(|boot| !boot) {
        output::tell(&format!(
            "{}, the image's own command, runs as any program does: --systemd=always boots it as a whole system, and \
             --systemd=never leaves it at that",
            command[0]
        ));
    }
}
