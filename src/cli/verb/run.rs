//! `holmctl run`
//!
//! One connection, one write with the match rules, one call. What follows comes by itself: the job's end when the start
//! fails, and from the monitor's socket the terminal and the end of the payload, whatever happens to the daemon.

use zbus::{OwnedObjectPath, Variant};

use crate::cli::container_args::ContainerArgs;
use crate::cli::error::CliError;
use crate::cli::exit::Status;
use crate::cli::passed::{self, Credential, Named};
use crate::cli::session::{self, Ending, Payload, Session, Start, Streams};
use crate::cli::{Outcome, notify, output, service, system, warnings};
use crate::client::{Client, ClientError, Goal, Io, Jobs, Options, Rule, object_name};
use crate::model::{ErrorCode, ImageName};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Do not wait for its end: print its name and leave it alone
    #[arg(short, long)]
    detach: bool,
    /// Remove a container of that name first, also one that runs
    #[arg(long, requires = "name")]
    replace: bool,
    /// Give the payload a secret: from a file, or from the service's own credential of that name
    #[arg(long, value_name = "NAME[:FILE]")]
    credential: Vec<Credential>,
    #[command(flatten)]
    container: ContainerArgs,
}

/// A request on its way.
struct Request {
    name: String,
    image: ImageName,
    options: Options,
    at_exec: bool,
    /// Whether a container of that name goes first.
    replace: bool,
    /// Whether the program is left to the image.
    leaves_program: bool,
}

pub(crate) async fn run(args: Args, inherited: Named) -> Outcome {
    let container = args.container;
    let streams = Streams { interactive: container.interactive, terminal: container.tty };
    if args.detach && streams.interactive && !streams.terminal {
        return Err(CliError::Usage("--interactive with --detach needs --tty: nothing else can be attached to".into()));
    }
    let (remove, leaves_program) = (container.auto_remove(), container.leaves_program());
    let at_exec = container.is_ready_at_exec();
    let (name, image) = (container.bus_name().to_owned(), container.image()?);
    let variable = |name: &str| std::env::var(name).ok();
    let mut options = container.options(variable)?;
    options.environment.extend(notify::watchdog(variable).filter(|_| !args.detach));
    let options = options.into_dict();
    let credentials = passed::credentials(args.credential, |name| std::env::var_os(name))?;
    let given = Io { passed: passed::checked(inherited)?, credentials: passed::checked(credentials)?, ..Io::default() };
    let request = Request { name, image, options, at_exec, replace: args.replace, leaves_program };
    if args.detach { detached(request, given).await } else { attached(request, given, streams, remove).await }
}

async fn detached(mut request: Request, given: Io) -> Outcome {
    given.add_to(&mut request.options);
    let leaves_program = request.leaves_program;
    let client = Client::connect().await?;
    let mut jobs = Jobs::listen(&client, &[]).await?;
    let limited = warnings::possible(&request.options);
    let (path, job) = request.send(&client).await?;
    let name = name_of(&path);
    jobs.wait(&job, Goal::Running(&name), |_| {}).await?;
    if limited {
        warnings::tell(&client.container_at(path.clone()).await?, &name).await;
    }
    output::write(&format!("{name}\n"))?;
    if leaves_program {
        system::advise(client.container_at(path).await?).await;
    }
    Ok(Status::SUCCESS)
}

async fn attached(mut request: Request, given: Io, streams: Streams, remove: bool) -> Outcome {
    let (mut session, io) = Session::prepare_run(streams)?;
    Io { passed: given.passed, credentials: given.credentials, ..io }.add_to(&mut request.options);
    let client = Client::connect().await?;
    let limited = warnings::possible(&request.options);
    let (leaves_program, restarts) = (request.leaves_program, request.options.contains_key("Restart"));
    let rules: &[Rule<'_>] = if remove { &[Rule::ContainersRemoved] } else { &[] };
    let mut jobs = Jobs::listen(&client, rules).await?;
    let at_exec = request.at_exec;
    // Sending consumes the request, and with it our copy of the monitor's side of the socket.
    let (path, job) = tokio::select! {
        sent = request.send(&client) => sent?,
        status = session.given_up() => return Ok(status),
    };
    let name = name_of(&path);
    let container = client.container_at(path.clone()).await?;
    if leaves_program {
        // Beside the run, which must not wait for it.
        tokio::spawn(system::advise(Clone::clone(&container)));
    }
    let payload = Payload::Container(container, client.clone(), name.clone());
    let start = Start { jobs: &mut jobs, job: &job, name: &name, limited, at_exec };
    match session.follow(&payload, Some(start)).await? {
        ending @ (Ending::Exited(exit) | Ending::Stopped(exit)) => {
            let noted = async {
                match remove {
                    true => jobs.wait_removed(&path, &name).await,
                    false if restarts => Ok(()),
                    false => jobs.wait_noted(&path).await,
                }
            };
            ending.once(noted).await?;
            Ok(if matches!(ending, Ending::Stopped(_)) { session::end_like(exit) } else { exit.into() })
        }
        Ending::Detached => {
            output::tell(&format!("detached: 'holmctl attach {name}' comes back to it"));
            Ok(Status::SUCCESS)
        }
        Ending::Closed => Err(ClientError::Lost { subject: name }.into()),
    }
}

/// Removes the container of that name, if there is one.
async fn make_room(client: &Client, name: &str) -> Result<(), CliError> {
    let mut jobs = Jobs::listen(client, &[]).await?;
    let force = Options::from([("Force", Variant::from(true))]);
    match client.manager().await?.remove_container(name, &force).await.map_err(ClientError::from) {
        Ok(job) => Ok(jobs.wait(&job, Goal::Removed(name), |_| {}).await?),
        Err(error) if error.is(ErrorCode::NoSuchContainer) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether the name is free again, after a wait for a container that was on its way out: removed after its run, and being
/// stopped or at its end, or of our own service. So it is when a service's holmctl was killed and the service is started again at once.
async fn has_left(client: &Client, name: &str) -> Result<bool, CliError> {
    let mut jobs = Jobs::listen(client, &[Rule::ContainersRemoved]).await?;
    let path = match client.container(name).await {
        Ok(container) => OwnedObjectPath::from(container.inner().path().to_owned()),
        Err(error) if error.is(ErrorCode::NoSuchContainer) => return Ok(true),
        Err(error) => return Err(error.into()),
    };
    // One that cannot be looked at any more has just gone.
    let Ok(known) = client.properties(&path, "org.holm1.Container").await else { return Ok(true) };
    // That its caller has gone the daemon may have yet to see.
    let ours = || async {
        match service::own() {
            Some(service) => client.is_stopped_after(&known.text("Unit"), &service.unit).await,
            None => Ok(false),
        }
    };
    // Between its end and its removal it is shown as what it ended as.
    let ends = matches!(known.text("State").as_str(), "stopping" | "stopped" | "failed");
    let leaves = known.flag("AutoRemove") && (ends || ours().await?);
    if leaves {
        session::unless_interrupted(jobs.wait_removed(&path, name)).await?;
    }
    Ok(leaves)
}

impl Request {
    async fn send(self, client: &Client) -> Result<(OwnedObjectPath, OwnedObjectPath), CliError> {
        let manager = client.manager().await?;
        if self.replace {
            make_room(client, &self.name).await?;
        }
        let run = || manager.run_container(&self.name, self.image.as_str(), &self.options);
        match run().await.map_err(ClientError::from) {
            Err(error) if error.is(ErrorCode::NameInUse) && has_left(client, &self.name).await? => Ok(run().await?),
            made => Ok(made?),
        }
    }
}

/// The name is in the path; one that cannot be read is shown as it is.
fn name_of(path: &OwnedObjectPath) -> String {
    object_name(path.as_str()).unwrap_or_else(|| path.to_string())
}
