//! `holmctl image …`

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use serde_json::json;
use zbus::Fd;

use crate::cli::error::CliError;
use crate::cli::exit::{self, Status};
use crate::cli::output::{self, ListArgs, Table};
use crate::cli::progress::Progress;
use crate::cli::report::{Report, quoted};
use crate::cli::stamp::Stamp;
use crate::cli::{Outcome, many, session};
use crate::client::{Client, Goal, Jobs, Options, Properties, Rule};
use crate::model::{Bytes, ErrorCode, ImageName};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Import an OCI archive, a docker archive or the tar file of a root tree, compressed or not
    Import(ImportArgs),
    /// List images
    List(ListArgs),
    /// Show all there is to know about images
    Inspect(InspectArgs),
    /// Remove images
    Rm(RmArgs),
    /// Give an image a second name
    Tag(TagArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ImportArgs {
    /// The archive; - for standard input
    file: PathBuf,
    /// The image's name; the one in the archive when absent
    #[arg(long)]
    name: Option<ImageName>,
    /// Do nothing when the image is what this very archive gave the last time, as it is noted in this file; note it otherwise
    #[arg(long, value_name = "FILE", requires = "name")]
    stamp: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    /// Images
    #[arg(required = true, value_name = "IMAGE")]
    names: Vec<String>,
    /// Write a JSON array with an object for each image
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RmArgs {
    /// Images
    #[arg(required = true, value_name = "IMAGE")]
    names: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct TagArgs {
    /// The image
    image: String,
    /// Its second name
    name: ImageName,
}

pub(crate) async fn run(verb: Verb) -> Outcome {
    match verb {
        Verb::Import(args) => import(args).await,
        Verb::List(args) => list(args).await,
        Verb::Inspect(args) => inspect(args).await,
        Verb::Rm(args) => remove(args).await,
        Verb::Tag(args) => tag(args).await,
    }
}

async fn import(args: ImportArgs) -> Outcome {
    let (archive, shown) = open(&args.file)?;
    let client = Client::connect().await?;
    let stamp = args.stamp.as_deref().map(|file| Stamp::of(file, &archive)).transpose()?;
    if let (Some(stamp), Some(name)) = (&stamp, &args.name)
        && stamp.holds(digest_of(&client, name).await?.as_deref())
    {
        return Ok(Status::SUCCESS);
    }
    let mut jobs = Jobs::listen(&client, &[Rule::JobsRemoved]).await?;
    let name = args.name.as_ref().map_or("", ImageName::as_str);
    let job = client.manager().await?.import_image(&Fd::from(&archive), name, &Options::new()).await?;
    // Whoever feeds a pipe sees its end when the daemon closes it.
    drop(archive);
    let mut progress = Progress::new(format!("importing {shown}"));
    let ended = tokio::select! {
        ended = jobs.wait(&job, Goal::Nothing(&shown), |at| progress.update(at)) => ended,
        signal = session::interrupted() => {
            let signal = signal?;
            client.job_at(job.clone()).await?.cancel().await?;
            let ended = jobs.wait(&job, Goal::Nothing(&shown), |_| {}).await;
            progress.finish();
            // It may have been done before it could be cancelled.
            return Ok(ended.map_or_else(|error| { exit::report(&error.into()); signal }, |()| Status::SUCCESS));
        }
    };
    progress.finish();
    ended?;
    let name = jobs.subject(&job).await?.filter(|name| !name.is_empty()).unwrap_or_else(|| name.to_owned());
    if let (Some(stamp), Some(image)) = (stamp, &args.name)
        && let Some(digest) = digest_of(&client, image).await?
    {
        stamp.note(&digest)?;
    }
    output::write(&format!("{name}\n"))?;
    Ok(Status::SUCCESS)
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

async fn list(args: ListArgs) -> Outcome {
    let client = Client::connect().await?;
    let mut images = client.manager().await?.list_images().await?;
    images.sort_by(|a, b| a.0.cmp(&b.0));
    let mut table = Table::new(&["NAME", "DIGEST", "SIZE", "IMPORTED"]);
    for (name, digest, size, created, _) in &images {
        table.row([
            name.clone(),
            short(digest),
            Bytes(*size).to_string(),
            output::moment_text(*created).unwrap_or_default(),
        ]);
    }
    let json = || {
        let object = |(name, digest, size, created, _): &(String, String, u64, u64, _)| json!({"name": name, "digest": digest, "size": size, "created_usec": created});
        images.iter().map(object).collect()
    };
    args.write(&table, json, "image")?;
    Ok(Status::SUCCESS)
}

/// Enough of a digest to tell it from others.
fn short(digest: &str) -> String {
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    hex.chars().take(12).collect()
}

async fn inspect(args: InspectArgs) -> Outcome {
    let client = &Client::connect().await?;
    let mut objects = Vec::new();
    let worst = many::each(&args.names, async |name| {
        let image = client.image(name).await?;
        objects.push(client.properties(image.inner().path(), "org.holm1.Image").await?);
        Ok(())
    })
    .await?;
    if args.json {
        output::write_json(&objects.iter().map(Properties::to_json).collect())?;
    } else {
        let texts: Vec<_> = objects.iter().map(text).collect();
        output::write(&texts.join("\n"))?;
    }
    Ok(worst)
}

fn text(properties: &Properties) -> String {
    let mut report = Report::default();
    let get = |name| properties.text(name);
    report.title(&get("Name"));
    report.line("Digest", &get("Digest"));
    report.line("Size", &Bytes(properties.number("Size")).to_string());
    report.line("Imported", &output::since(properties.number("CreatedUSec")));
    report.line("Entrypoint", &quoted(&properties.texts("Entrypoint")));
    report.line("Command", &quoted(&properties.texts("Command")));
    for key in ["Environment", "Layers"] {
        report.lines(key, properties.texts(key).iter().map(String::as_str));
    }
    report.line("Device", &get("Device"));
    report.into_text()
}

async fn remove(args: RmArgs) -> Outcome {
    let client = Client::connect().await?;
    let manager = &client.manager().await?;
    many::each(&args.names, async |name| Ok(manager.remove_image(name, &Options::new()).await?)).await
}

async fn tag(args: TagArgs) -> Outcome {
    let client = Client::connect().await?;
    client.manager().await?.tag_image(&args.image, args.name.as_str()).await?;
    Ok(Status::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_refused_with_advice() {
        let error = open(Path::new("/")).unwrap_err().to_string();
        assert!(error.contains("tar -C / -c ."), "{error}");
    }

    #[test]
    fn digests_are_short_in_tables() {
        assert_eq!(short("sha256:0123456789abcdef0"), "0123456789ab");
        assert_eq!(short("plain"), "plain");
    }
}
