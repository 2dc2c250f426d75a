//! `holmctl create`

use crate::cli::Outcome;
use crate::cli::container_args::ContainerArgs;
use crate::cli::exit::Status;
use crate::cli::output;
use crate::cli::system;
use crate::client::Client;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    container: ContainerArgs,
}

pub(crate) async fn run(args: Args) -> Outcome {
    let (name, image) = (args.container.bus_name().to_owned(), args.container.image()?);
    let leaves_program = args.container.leaves_program();
    let options = args.container.options(|name| std::env::var(name).ok())?.into_dict();
    let client = Client::connect().await?;
    let path = client.manager().await?.create_container(&name, image.as_str(), &options).await?;
    let container = client.container_at(path).await?;
    let name = if name.is_empty() { container.name().await? } else { name };
    output::write(&format!("{name}\n"))?;
    if leaves_program {
        system::advise(container).await;
    }
    Ok(Status::SUCCESS)
}
