//! `holmctl show`

use std::fmt::Write as _;

use crate::cli::{Outcome, many, output};
use crate::client::{Client, Properties, to_text};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
    /// Show only this property; may be given more than once
    #[arg(short, long = "property", value_name = "NAME", value_delimiter = ',')]
    property: Vec<String>,
    /// Show values without their names
    #[arg(long)]
    value: bool,
    /// Write a JSON array with an object for each container
    #[arg(long, conflicts_with = "value")]
    json: bool,
}

pub(crate) async fn run(args: Args) -> Outcome {
    let client = &Client::connect().await?;
    if args.json {
        return run_json(client, &args).await;
    }
    let mut gap = "";
    many::each(&args.names, async |name| {
        let properties = properties(client, name).await?;
        let text = text(&properties, &args.property, args.value);
        output::write(&format!("{}{text}", std::mem::replace(&mut gap, "\n")))
    })
    .await
}

async fn run_json(client: &Client, args: &Args) -> Outcome {
    let mut objects = Vec::new();
    let worst = many::each(&args.names, async |name| {
        let mut json = properties(client, name).await?.to_json();
        if let Some(object) = json.as_object_mut().filter(|_| !args.property.is_empty()) {
            object.retain(|name, _| args.property.contains(name));
        }
        objects.push(json);
        Ok(())
    })
    .await?;
    output::write_json(&objects.into())?;
    Ok(worst)
}

async fn properties(client: &Client, name: &str) -> Result<Properties, crate::client::ClientError> {
    let container = client.container(name).await?;
    client.properties(container.inner().path(), "org.holm1.Container").await
}

/// The lines, in the order asked for, or of names.
fn text(properties: &Properties, only: &[String], bare: bool) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = if bare { writeln!(text, "{value}") } else { writeln!(text, "{name}={value}") };
    };
    if only.is_empty() {
        properties.iter().for_each(|(name, value)| line(name, to_text(value)));
    } else {
        for name in only {
            if let Some(value) = properties.get(name) {
                line(name, to_text(value));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use zbus::OwnedVariant;

    use super::*;

    #[test]
    fn properties_are_shown_as_machinectl_does() {
        let map =
            [("Leader".to_owned(), OwnedVariant::from(7u32)), ("AutoRemove".to_owned(), OwnedVariant::from(true))];
        let properties = Properties::from_map(map.into());
        assert_eq!(text(&properties, &[], false), "AutoRemove=yes\nLeader=7\n");
        assert_eq!(text(&properties, &["Leader".into(), "Nothing".into()], true), "7\n");
    }
}
