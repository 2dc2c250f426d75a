//! Who uses a block device, for messages: the devices over it, who has it mounted, who has its node open.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::sys::mountinfo;

/// One entry for each user that can be seen of `/dev/dm-<minor>`. Mounts that are in no mount namespace are not.
pub(super) fn of(minor: u32) -> Vec<String> {
    let block = format!("/sys/block/dm-{minor}");
    let mut users: Vec<String> = names_in(Path::new(&block).join("holders").as_path())
        .into_iter()
        .map(|holder| format!("the block device {holder}"))
        .collect();
    let Ok(number) = fs::read_to_string(format!("{block}/dev")) else { return users };
    let mut seen = BTreeSet::new();
    for process in names_in(Path::new("/proc")).into_iter().filter(|name| name.bytes().all(|b| b.is_ascii_digit())) {
        let proc = Path::new("/proc").join(&process);
        let name = fs::read_to_string(proc.join("comm")).unwrap_or_default();
        let namespace = fs::read_link(proc.join("ns/mnt")).unwrap_or_default();
        let mounts = mountinfo::parse(&fs::read(proc.join("mountinfo")).unwrap_or_default());
        let mount = mounts.iter().find(|mount| mount.device == number.trim());
        // One process of each namespace is enough.
        if let Some(mount) = mount.filter(|_| seen.insert(namespace)) {
            let place = mount.point.display();
            users.push(format!("process {process} ({}), which has it mounted on {place}", name.trim()));
        }
        if has_open(&proc.join("fd"), Path::new(&format!("/dev/dm-{minor}"))) {
            users.push(format!("process {process} ({}), which has it open", name.trim()));
        }
    }
    users
}

fn has_open(descriptors: &Path, node: &Path) -> bool {
    let open = fs::read_dir(descriptors).into_iter().flatten().flatten();
    open.map(|entry| entry.path()).any(|link| fs::read_link(link).is_ok_and(|target| target == node))
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_file_is_found_in_its_process() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let descriptors = Path::new("/proc/self/fd");
        assert!(has_open(descriptors, file.path()));
        assert!(!has_open(descriptors, Path::new("/dev/dm-4000")));
    }
}
