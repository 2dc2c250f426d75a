//! `holmctl image import`

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::SeekFrom;
use zbus::Fd;

use crate::cli::error::CliError;
use crate::cli::exit::{self, Status};
use crate::cli::progress::Progress;
use crate::cli::stamp::Stamp;
use crate::cli::{Outcome, output, session};
use crate::client::{Client, ClientError, Goal, Jobs, Options, Rule};
use crate::model::{ErrorCode, ImageName};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The archive; - for standard input
    file: PathBuf,
    /// The image's name; the one in the archive when absent
    #[arg(long)]
    name: Option<ImageName>,
    /// Do nothing when the image is what this very archive gave the last time, as it is noted in this file; note it otherwise
    #[arg(long, value_name = "FILE", requires = "name")]
    stamp: Option<PathBuf>,
}

pub(crate) async fn run(args: Args) -> Outcome {
    let (archive, shown) = open(&args.file)?;
    let client = Client::connect().await?;
    let stamp = args.stamp.as_deref().map(|file| Stamp::of(file, &archive)).transpose()?;
    if let (Some(stamp), Some(name)) = (&stamp, &args.name)
        && stamp.holds(digest_of(&client, name).await?.as_deref())
    {
        return Ok(Status::SUCCESS);
    }
    let name = args.name.as_ref().map_or("", ImageName::as_str);
    let name = match send(&client, archive, name, &shown).await? {
        Sent::Imported(name) => name,
        Sent::Canceled(status) => return Ok(status),
    };
    if let (Some(stamp), Some(image)) = (stamp, &args.name)
        && let Some(digest) = digest_of(&client, image).await?
    {
        stamp.note(&digest)?;
    }
    output::write(&format!("{name}\n"))?;
    Ok(Status::SUCCESS)
}

/// How the import of an archive ended.
enum Sent {
    /// An image has this name now.
    Imported(String),
    /// The user gave it up.
    Canceled(Status),
}

/// Has an archive imported, also when holmd is restarted meanwhile: one that can be read from its beginning is sent again.
async fn send(client: &Client, mut archive: OwnedFd, name: &str, shown: &str) -> Result<Sent, CliError> {
    let again = Again::of(&archive);
    let mut left = TRIES;
    loop {
        left -= 1;
        let mut jobs = Jobs::listen(client, &[Rule::JobsRemoved]).await?;
        match send_once(client, &mut jobs, archive, name, shown).await {
            Err(CliError::Client(error)) if left > 0 && error.is_daemons_end() => {
                let Some(again) = &again else { return Err(error.into()) };
                jobs.wait_for_daemons_end().await?;
                output::tell(&format!("holmd was restarted: importing {shown} from its beginning"));
                archive = again.rewind().map_err(|source| CliError::io(format!("read {shown} again"), source))?;
            }
            sent => return sent,
        }
    }
}

async fn send_once(
    client: &Client,
    jobs: &mut Jobs,
    archive: OwnedFd,
    name: &str,
    shown: &str,
) -> Result<Sent, CliError> {
    let manager = client.manager().await?;
    let job = manager.import_image(&Fd::from(&archive), name, &Options::new()).await.map_err(ClientError::from)?;
    // Whoever feeds a pipe sees its end when the daemon closes it.
    drop(archive);
    let mut progress = Progress::new(format!("importing {shown}"));
    let ended = tokio::select! {
        ended = jobs.wait(&job, Goal::Nothing(shown), |at| progress.update(at)) => ended,
        signal = session::interrupted() => {
            let signal = signal?;
            client.job_at(job.clone()).await?.cancel().await?;
            let ended = jobs.wait(&job, Goal::Nothing(shown), |_| {}).await;
            progress.finish();
            // It may have been done before it could be cancelled.
            let status = ended.map_or_else(|error| { exit::report(&error.into()); signal }, |()| Status::SUCCESS);
            return Ok(Sent::Canceled(status));
        }
    };
    progress.finish();
    ended?;
    let found = jobs.subject(&job).await?.filter(|name| !name.is_empty());
    Ok(Sent::Imported(found.unwrap_or_else(|| name.to_owned())))
}

/// How often an archive is sent: a daemon that its contents end would be ended without end.
const TRIES: usize = 3;

/// An archive that can be read again, from where it was read first.
#[derive(Debug)]
struct Again {
    archive: OwnedFd,
    begin: u64,
}

impl Again {
    /// `None` for a pipe and the like.
    fn of(archive: &OwnedFd) -> Option<Self> {
        let begin = rustix::fs::tell(archive).ok()?;
        Some(Self { archive: archive.try_clone().ok()?, begin })
    }

    fn rewind(&self) -> io::Result<OwnedFd> {
        rustix::fs::seek(&self.archive, SeekFrom::Start(self.begin))?;
        self.archive.try_clone()
    }
}

/// The digest of an image, if it is there.
async fn digest_of(client: &Client, name: &ImageName) -> Result<Option<String>, CliError> {
    let image = match client.image(name.as_str()).await {
        Err(error) if error.is(ErrorCode::NoSuchImage) => return Ok(None),
        image => image?,
    };
    Ok(Some(client.properties(image.inner().path(), "org.holm1.Image").await?.text("Digest")))
}

/// The archive, and what to call it.
fn open(file: &Path) -> Result<(OwnedFd, String), CliError> {
    if file == Path::new("-") {
        if io::stdin().is_terminal() {
            return Err(CliError::Usage("standard input is a terminal: redirect an archive into it".into()));
        }
        let stdin = io::stdin().as_fd().try_clone_to_owned();
        return Ok((stdin.map_err(|source| CliError::io("pass standard input on", source))?, "standard input".into()));
    }
    let shown = file.display().to_string();
    let opened = File::open(file).and_then(|archive| Ok((archive.metadata()?.is_dir(), archive)));
    let (is_directory, archive) = opened.map_err(|source| CliError::io(format!("open {shown}"), source))?;
    if is_directory {
        let advice = format!(
            "{shown} is a directory: import an archive of it, such as 'tar -C {shown} -c . | holmctl image import -'"
        );
        return Err(CliError::Usage(advice));
    }
    Ok((archive.into(), shown))
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    #[test]
    fn a_directory_is_refused_with_advice() {
        let error = open(Path::new("/")).unwrap_err().to_string();
        assert!(error.contains("tar -C / -c ."), "{error}");
    }

    #[test]
    fn what_can_be_read_again_is_read_from_where_it_was_begun() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"skipped archive").unwrap();
        file.seek(io::SeekFrom::Start(8)).unwrap();
        let archive = OwnedFd::from(file);
        let again = Again::of(&archive).unwrap();
        let read = |archive| io::read_to_string(File::from(archive)).unwrap();
        assert_eq!(read(archive), "archive");
        assert_eq!(read(again.rewind().unwrap()), "archive");
        let (pipe, _writer) = io::pipe().unwrap();
        assert!(Again::of(&pipe.into()).is_none());
    }
}
