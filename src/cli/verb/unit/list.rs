//! `holmctl unit list`

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use serde_json::json;

use super::switch_of;
use crate::cli::Outcome;
use crate::cli::exit::Status;
use crate::cli::output::{ListArgs, Table};
use crate::units::{Declaration, Declared, Directories};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    list: ListArgs,
}

pub(super) fn run(args: &Args) -> Outcome {
    let directories = Directories::of_host();
    let declared = Declared::load(&directories);
    let services: Vec<_> = declared.files.iter().map(Declaration::service).collect();
    let active = active_states(&services);
    let mut table = Table::new(&["FILE", "UNIT", "STATE", "INSTALL", "ACTIVE", "PATH"]);
    let mut objects = Vec::new();
    for (file, service) in declared.files.iter().zip(services) {
        let name = file.source.name.to_string();
        let (state, install) = (state_of(file), install_of(&directories, file));
        let active = active.get(&service).cloned().unwrap_or_default();
        let path = file.source.path.display().to_string();
        objects.push(json!({
            "file": name, "unit": service, "state": state, "install": install, "active": active, "path": path,
            "drop_ins": file.source.drop_ins.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
        }));
        table.row([name, service, state.into(), install.into(), active, path]);
    }
    args.list.write(&table, || objects, "file")?;
    Ok(Status::SUCCESS)
}

fn state_of(file: &Declaration) -> &'static str {
    if file.masked {
        "masked"
    } else if file.problems.is_empty() {
        "ok"
    } else {
        "bad"
    }
}

fn install_of(directories: &Directories, file: &Declaration) -> &'static str {
    if switch_of(directories, file).exists() {
        "disabled"
    } else if file.units.iter().any(|unit| !unit.links.is_empty()) {
        "enabled"
    } else if file.source.name.is_template() {
        "template"
    } else {
        "static"
    }
}

/// What systemd says of units, in one question; nothing where systemd does not run.
fn active_states(services: &[String]) -> BTreeMap<String, String> {
    let mut states = BTreeMap::new();
    // A template has no state, and asked for one systemctl fails.
    let asked: Vec<_> = services.iter().filter(|service| !service.contains("@.")).collect();
    if asked.is_empty() {
        return states;
    }
    let mut command = Command::new("systemctl");
    command.args(["show", "--property=Id,ActiveState", "--"]).args(&asked);
    let shown = command.stdin(Stdio::null()).stderr(Stdio::null()).output();
    let text = shown.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    // One paragraph for each, in the order in which they were asked for.
    for (service, paragraph) in asked.into_iter().zip(text.split("\n\n")) {
        let state = paragraph.lines().find_map(|line| line.strip_prefix("ActiveState="));
        states.extend(state.map(|state| (service.clone(), state.to_owned())));
    }
    states
}
