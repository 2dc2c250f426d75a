//! What layers try in order to reach outside: nothing outside changes, and the tree holds what the rules say.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;

use super::archives::{Oci, Tar};
use super::store::Store;
use crate::images::codec::Compression;
use crate::images::job::Job;
use crate::images::limits::Limits;
use crate::images::tar::{Reader, Stream, Trailer};
use crate::images::unpack::unpack;
use crate::images::{ImageError, LayerStore, LayerTree, Progress};

impl Stream for &[u8] {}

/// Imports the layers as an image; gives the topmost tree.
fn layers(store: &Store, layers: &[Tar]) -> Result<PathBuf, ImageError> {
    let plain = |oci: Oci, layer: &Tar| oci.layer(Compression::None, &layer.clone().build());
    let imported = store.import(&layers.iter().fold(Oci::new(), plain).build())?;
    Ok(store.layer(&imported.chain_id))
}

fn refused(layer: Tar) -> String {
    let store = Store::new();
    match layers(&store, &[layer]) {
        Err(ImageError::RefusedEntry { path, reason, .. }) => format!("{path}: {reason}"),
        other => panic!("it should have been refused: {other:?}"),
    }
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn names_that_climb_are_refused() {
    for path in ["../canary/x", "..", "a/../../canary/x", "/../canary/x", "a/..", "../.wh.canary", "a/../.wh.x"] {
        assert!(refused(Tar::new().file(path, "x")).contains(".."), "{path}");
        assert!(refused(Tar::new().dir(path)).contains(".."), "{path}");
        assert!(refused(Tar::new().symlink(path, "x")).contains(".."), "{path}");
    }
    let long = "../canary/x";
    assert!(refused(Tar::new().long(b'L', long).file("a", "x")).contains(long));
    assert!(refused(Tar::new().pax("path", long).file("a", "x")).contains(long));
}

#[test]
fn absolute_names_are_taken_below_the_root() {
    let store = Store::new();
    let outside = store.canary().join("secret");
    let root = layers(&store, &[Tar::new().file(outside.to_str().unwrap(), "inside")]).unwrap();
    assert_eq!(read(root.join(outside.strip_prefix("/").unwrap())), "inside");
}

#[test]
fn links_on_the_way_lead_back_inside() {
    let store = Store::new();
    let canary = store.canary();
    let out = canary.to_str().unwrap();
    for target in [out.to_owned(), format!("../../../../../../..{out}"), format!("/..{out}")] {
        // The same path as outside, made inside the root, is where the link leads.
        let layer = Tar::new().dir(&out[1..]).symlink("a", &target).file("a/secret", "inside");
        let inside = Store::new();
        let root = layers(&inside, &[layer]).unwrap();
        assert_eq!(read(root.join(&out[1..]).join("secret")), "inside");
        store.check_canary();
    }
    // A chain of links, the last one dangling.
    let chain = Tar::new().symlink("a", "b").symlink("b", "c").symlink("c", out);
    assert!(refused(chain.file("a/secret", "x")).contains("leads nowhere"));
    store.check_canary();
}

#[test]
fn a_chain_of_links_is_resolved_in_the_root() {
    let store = Store::new();
    let layer = Tar::new().dir("etc").symlink("a", "/b").symlink("b", "../../../../etc").file("a/passwd", "inside");
    let root = layers(&store, &[layer]).unwrap();
    assert_eq!(read(root.join("etc/passwd")), "inside");
}

#[test]
fn what_stands_in_the_way_is_replaced_and_never_written_through() {
    let store = Store::new();
    let secret = store.canary().join("secret");
    let out = secret.to_str().unwrap();
    let canary = store.canary();
    let below = Tar::new().symlink("file", out).symlink("dir", canary.to_str().unwrap()).symlink("link", out);
    let above = Tar::new().file("file", "mine").dir("dir").file("dir/secret", "mine").symlink("link", "elsewhere");
    let above = above.symlink("hard", out).hard_link("hard", "file");
    let root = layers(&store, &[below, above]).unwrap();
    assert_eq!(read(root.join("file")), "mine");
    assert!(root.join("dir").symlink_metadata().unwrap().is_dir());
    assert_eq!(read(root.join("dir/secret")), "mine");
    assert_eq!(fs::read_link(root.join("link")).unwrap(), Path::new("elsewhere"));
    assert_eq!(fs::metadata(root.join("hard")).unwrap().ino(), fs::metadata(root.join("file")).unwrap().ino());
}

#[test]
fn a_directory_swapped_for_a_link_is_not_followed_out() {
    let store = Store::new();
    let out = store.canary();
    let below = Tar::new().dir("d").file("d/secret", "lower");
    let above = Tar::new().file("d/new", "x").symlink("d", out.to_str().unwrap());
    let error = layers(&store, &[below.clone(), above.clone().file("d/secret", "x")]).unwrap_err();
    assert!(matches!(error, ImageError::RefusedEntry { .. }), "{error}");
    let root = layers(&Store::new(), &[below, above.dir("d").file("d/secret", "upper")]);
    root.unwrap();
    store.check_canary();
}

#[test]
fn a_hard_link_stays_inside() {
    let store = Store::new();
    let out = store.canary().join("secret");
    let out = out.to_str().unwrap();
    assert!(refused(Tar::new().hard_link("a", out)).contains("not there"));
    assert!(refused(Tar::new().hard_link("a", "../../canary/secret")).contains(".."));
    assert!(refused(Tar::new().symlink("l", "../../canary").hard_link("a", "l/secret")).contains("not there"));
    assert!(refused(Tar::new().dir("d").hard_link("a", "d")).contains("directory"));
    assert!(refused(Tar::new().hard_link("a", "/")).contains("root"));
    assert!(refused(Tar::new().file("d/a", "x").hard_link("d", "d/a")).contains("not there"));
    // To a symbolic link: the link itself, not what it names.
    let root = layers(&store, &[Tar::new().symlink("l", out).hard_link("a", "l")]).unwrap();
    assert_eq!(fs::read_link(root.join("a")).unwrap(), Path::new(out));
    // Through a symbolic link: resolved inside.
    let layer = Tar::new().file("etc/motd", "x").symlink("l", "/etc").hard_link("a", "l/motd");
    let root = layers(&Store::new(), &[layer]).map(|_| ());
    root.unwrap();
}

#[test]
fn a_hard_link_to_itself_changes_nothing() {
    let store = Store::new();
    let root =
        layers(&store, &[Tar::new().file("a", "x").hard_link("a", "./a").hard_link("b", "a").hard_link("a", "b")]);
    assert_eq!(read(root.unwrap().join("a")), "x");
}

#[test]
fn the_root_stays_a_directory() {
    for layer in [Tar::new().file(".", "x"), Tar::new().symlink(".", "etc"), Tar::new().hard_link("/", "a")] {
        assert!(refused(layer).contains("root"));
    }
}

#[test]
fn a_parent_that_is_no_directory_is_refused() {
    assert!(refused(Tar::new().file("a", "x").file("a/b", "y")).contains("not a directory"));
    assert!(refused(Tar::new().symlink("a", "gone").file("a/b", "y")).contains("leads nowhere"));
    assert!(refused(Tar::new().symlink("a", "a").file("a/b", "y")).contains("symbolic links"));
}

#[test]
fn types_may_change_from_layer_to_layer() {
    let store = Store::new();
    let below = Tar::new().dir("d").file("d/deep/er/file", "x").file("f", "y").file("kept/a", "1");
    let above = Tar::new().file("d", "now a file").dir("f").file("f/in", "z").dir("kept").file("kept/b", "2");
    let root = layers(&store, &[below, above]).unwrap();
    assert_eq!(read(root.join("d")), "now a file");
    assert_eq!(read(root.join("f/in")), "z");
    assert_eq!(read(root.join("kept/a")) + &read(root.join("kept/b")), "12");
}

#[test]
fn of_a_name_that_comes_twice_the_later_stands() {
    let store = Store::new();
    let layer = Tar::new().file("a", "first, and longer").file("a", "second").symlink("b", "x").file("b", "file");
    let root = layers(&store, &[layer]).unwrap();
    assert_eq!(read(root.join("a")), "second");
    assert_eq!(read(root.join("b")), "file");
}

#[test]
fn a_parent_kept_open_is_not_used_after_it_was_replaced() {
    let store = Store::new();
    let layer = Tar::new().dir("x").symlink("a", ".").dir("a/y").file("a/y/1", "1");
    // `a` leads to the root; `a/a` is therefore `a` itself, which becomes a directory.
    let layer = layer.dir("a/a").file("a/2", "2");
    let root = layers(&store, &[layer]).unwrap();
    assert_eq!(read(root.join("y/1")), "1");
    assert_eq!(read(root.join("a/2")), "2");
    assert!(!root.join("2").exists());
}

#[test]
fn whiteouts_remove_what_lower_layers_have() {
    let store = Store::new();
    let below = Tar::new().file("a", "x").file("d/b", "x").file("d/c/e", "x").file("o/lower", "x").symlink("s", "d");
    let above = Tar::new().whiteout(".wh.a").whiteout("d/.wh.c").whiteout("o/.wh..wh..opq").whiteout("s/.wh.b");
    let root = layers(&store, &[below, above.whiteout("not/there/.wh.x").whiteout(".wh.nothing")]).unwrap();
    for gone in ["a", "d/c", "o/lower", "d/b", "not", ".wh.a", "o/.wh..wh..opq"] {
        assert!(!root.join(gone).exists(), "{gone}");
    }
    assert!(root.join("d").is_dir() && root.join("o").is_dir());
}

#[test]
fn whiteouts_spare_what_the_same_layer_has() {
    let below = Tar::new().file("o/lower", "x").file("o/sub/lower", "x").file("d/lower", "x").file("f", "lower");
    let upper = |tar: Tar| tar.dir("o").file("o/new", "n").file("o/sub/new", "n").file("d/new", "n").file("f", "upper");
    let hide = |tar: Tar| tar.whiteout("o/.wh..wh..opq").whiteout(".wh.d").whiteout(".wh.f");
    for above in [upper(hide(Tar::new())), hide(upper(Tar::new()))] {
        let store = Store::new();
        let root = layers(&store, &[below.clone(), above]).unwrap();
        for gone in ["o/lower", "o/sub/lower", "d/lower"] {
            assert!(!root.join(gone).exists(), "{gone}");
        }
        for there in ["o/new", "o/sub/new", "d/new"] {
            assert_eq!(read(root.join(there)), "n", "{there}");
        }
        assert_eq!(read(root.join("f")), "upper");
    }
}

#[test]
fn a_whiteout_by_another_name_of_the_directory_spares_the_layer_too() {
    let store = Store::new();
    let below = Tar::new().dir("usr/lib").symlink("lib", "usr/lib").file("usr/lib/old", "x");
    let above = Tar::new().file("usr/lib/new", "n").whiteout("lib/.wh.new").whiteout("lib/.wh..wh..opq");
    let root = layers(&store, &[below, above]).unwrap();
    assert_eq!(read(root.join("usr/lib/new")), "n");
    assert!(!root.join("usr/lib/old").exists());
}

#[test]
fn an_opaque_root_hides_every_lower_file() {
    let store = Store::new();
    let below = Tar::new().file("a/b", "x").file("c", "x");
    let root = layers(&store, &[below, Tar::new().whiteout(".wh..wh..opq").file("d", "n")]).unwrap();
    let names: Vec<_> = fs::read_dir(root).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["d"]);
}

#[test]
fn a_whiteout_does_not_follow_links_out() {
    let store = Store::new();
    let canary = store.canary();
    let below = Tar::new().symlink("out", canary.to_str().unwrap()).dir("d").symlink("d/out", "../../../canary");
    let above = Tar::new().whiteout("out/.wh.secret").whiteout("out/.wh..wh..opq").whiteout("d/.wh..wh..opq");
    let root = layers(&store, &[below, above.whiteout(".wh.out")]).unwrap();
    assert!(root.join("out").symlink_metadata().is_err() && root.join("d/out").symlink_metadata().is_err());
}

#[test]
fn malformed_whiteouts_are_refused() {
    for path in [".wh.", ".wh..", ".wh...", "d/.wh...", ".wh..wh.plnk", ".wh..wh..wh.a", ".wh.a/b", ".wh..wh..opq/a"] {
        refused(Tar::new().file(path, ""));
    }
    assert!(refused(Tar::new().dir(".wh.a")).contains("regular file"));
    assert!(refused(Tar::new().file("a", "").hard_link(".wh.b", "a")).contains("regular file"));
}

#[test]
fn a_deep_tree_is_removed_without_recursion() {
    let store = Store::new();
    let deep = "d/".repeat(120);
    let mut below = Tar::new().dir("top");
    for level in 0..8 {
        // Each link shortens the path to where the last one ended, so that the tree becomes deeper than any path.
        let from = if level == 0 { "top".to_owned() } else { format!("l{}", level - 1) };
        below = below.long(b'L', &format!("{from}/{deep}")).dir("x");
        below = below.long(b'K', &format!("{from}/{deep}")).symlink(&format!("l{level}"), "");
    }
    let root = layers(&store, &[below, Tar::new().file("top", "flat")]).unwrap();
    assert_eq!(read(root.join("top")), "flat");
}

#[test]
fn nodes_are_made_as_they_are_and_their_targets_left_alone() {
    let store = Store::new();
    let fifo = Tar::new().entry(b'6', "fifo", "", b"");
    let root = layers(&store, &[fifo]).unwrap();
    assert!(fs::symlink_metadata(root.join("fifo")).unwrap().file_type().is_fifo());
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root may make device nodes");
        return;
    }
    let nodes = Tar::new().device(1, 3).mode(0o666).entry(b'3', "dev/null", "", b"");
    let nodes = nodes.device(7, 300).entry(b'4', "dev/loop", "", b"");
    let root = layers(&Store::new(), std::slice::from_ref(&nodes)).map(|_| ());
    root.unwrap();
    // A file over a node replaces it: nothing is written to the device.
    let store = Store::new();
    let root = layers(&store, &[nodes, Tar::new().file("dev/null", "data").file("dev/loop", "data")]).unwrap();
    assert_eq!(read(root.join("dev/null")) + &read(root.join("dev/loop")), "datadata");
}

#[test]
fn unknown_types_and_impossible_owners_are_refused() {
    assert!(refused(Tar::new().entry(b'Z', "a", "", b"")).contains("'Z'"));
    assert!(refused(Tar::new().owner(u64::from(u32::MAX), 0).file("a", "")).contains("owner"));
    assert!(refused(Tar::new().owner(0, 1 << 33).file("a", "")).contains("owner"));
    assert!(refused(Tar::new().symlink("a", "")).contains("target"));
    assert!(refused(Tar::new().long(b'L', &"n".repeat(256)).file("a", "")).contains("longer"));
    assert!(refused(Tar::new().pax("path", "a\0b").file("a", "")).contains("zero byte"));
}

/// Few names, so that entries meet; targets that lead everywhere.
fn an_entry() -> impl Strategy<Value = (u8, String, String)> {
    let part = prop::sample::select(vec!["a", "b", "c", "..", ".", ".wh.a", ".wh..wh..opq", "canary", "secret"]);
    let path = prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"));
    let target =
        prop::sample::select(vec!["a", "b/c", "/a", "..", "../..", "../../canary", "../../../canary/secret", "/", "."]);
    (prop::sample::select(b"000555221167".to_vec()), path, target.prop_map(str::to_owned))
}

proptest! {
    #[test]
    fn no_entries_reach_outside(entries in prop::collection::vec(an_entry(), 1..40), planted in any::<bool>()) {
        let store = Store::new();
        let tree = store.begin(None).unwrap();
        if planted {
            rustix::fs::symlinkat(store.canary(), tree.root(), "c").unwrap();
        }
        let progress = Arc::new(Progress::default());
        let job = Job::new(&progress, Path::new("/nowhere"), Limits::default());
        for (kind, path, target) in &entries {
            let data: &[u8] = if *kind == b'0' && !path.contains(".wh.") { b"data" } else { b"" };
            let layer = Tar::new().entry(*kind, path, target, data).build();
            // Most are refused; the others build a tree that leads the next ones astray.
            let mut reader = Reader::new(&layer[..], Trailer::Required, &job.limits);
            let _ = unpack(&mut reader, tree.root(), "test", &job);
            store.check_canary();
        }
    }
}

#[test]
fn the_canary_would_be_noticed() {
    let store = Store::new();
    symlink("x", store.canary().join("new")).unwrap();
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| store.check_canary())).is_err());
}
