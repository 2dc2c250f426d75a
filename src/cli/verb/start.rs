//! `holmctl start`

use zbus::OwnedObjectPath;

use crate::cli::error::CliError;
use crate::cli::many::Missing;
use crate::cli::passed::{self, Named};
use crate::cli::session::{self, Ending, Payload, Session, Start, Streams};
use crate::cli::{Outcome, many, output};
use crate::client::{Client, ClientError, Goal, Io, Jobs, Options};
use crate::model::{Ready, RestartWhen};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
    /// Stay with it until it ends, as 'run' does: its output, its exit status, and signals passed on
    #[arg(short, long)]
    attach: bool,
    /// Keep standard input open and pass it on
    #[arg(short, long, requires = "attach")]
    interactive: bool,
}

pub(crate) async fn run(args: Args, inherited: Named) -> Outcome {
    if args.attach {
        return match &args.names[..] {
            [name] => attached(name, args.interactive, inherited).await,
            _ => Err(CliError::Usage("--attach takes one container".into())),
        };
    }
    let client = &Client::connect().await?;
    many::jobs(client, &args.names, Goal::Running, Missing::FAILS, async |name: &str| {
        Ok(client.container(name).await?.start(&Options::new()).await?)
    })
    .await
}

async fn attached(name: &str, interactive: bool, inherited: Named) -> Outcome {
    let client = Client::connect().await?;
    let container = client.container(name).await?;
    let path = OwnedObjectPath::from(container.inner().path().to_owned());
    let known = client.properties(&path, "org.holm1.Container").await?;
    let terminal = known.flag("Terminal");
    let at_exec = known.text("Ready") == Ready::Exec.as_str();
    let (session, io) = Session::prepare_run(Streams { interactive, terminal })?;
    let mut options = Options::new();
    Io { passed: passed::checked(inherited)?, ..io }.add_to(&mut options);
    let mut jobs = Jobs::listen(&client, &[]).await?;
    let job = container.start(&options).await?;
    // Our copy of the monitor's side of the socket would keep it open.
    drop(options);
    let start = Start { jobs: &mut jobs, job: &job, name, limited: true, at_exec };
    let payload = Payload::Container(container, client.clone(), name.to_owned());
    match session.follow(&payload, Some(start)).await? {
        ending @ (Ending::Exited(exit) | Ending::Stopped(exit)) => {
            let restarts = known.text("RestartPolicy") != RestartWhen::No.as_str();
            let noted = async { if restarts { Ok(()) } else { jobs.wait_noted(&path).await } };
            ending.once(noted).await?;
            Ok(if matches!(ending, Ending::Stopped(_)) { session::end_like(exit) } else { exit.into() })
        }
        Ending::Detached => {
            output::tell(&format!("detached: 'holmctl attach {name}' comes back to it"));
            Ok(crate::cli::exit::Status::SUCCESS)
        }
        Ending::Closed => Err(ClientError::Lost { subject: name.to_owned() }.into()),
    }
}
