//! `holmctl image …`

mod import;

use serde_json::json;

use crate::cli::exit::Status;
use crate::cli::output::{self, ListArgs, Table};
use crate::cli::report::{Report, quoted};
use crate::cli::{Outcome, many};
use crate::client::{Client, Options, Properties};
use crate::model::{Bytes, ImageName};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Import an OCI archive, a docker archive or the tar file of a root tree, compressed or not
    Import(import::Args),
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
        Verb::Import(args) => import::run(args).await,
        Verb::List(args) => list(args).await,
        Verb::Inspect(args) => inspect(args).await,
        Verb::Rm(args) => remove(args).await,
        Verb::Tag(args) => tag(args).await,
    }
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
    fn digests_are_short_in_tables() {
        assert_eq!(short("sha256:0123456789abcdef0"), "0123456789ab");
        assert_eq!(short("plain"), "plain");
    }
}
