//! Which objects there are and how they describe themselves: what introspection and the ObjectManager are read from.

use std::collections::{BTreeMap, HashMap};
use std::marker::PhantomData;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use zbus::names::{InterfaceName, OwnedInterfaceName};
use zbus::object_server::{Interface, InterfaceRef};
use zbus::{Connection, OwnedVariant};

use super::paths::Path;

/// Every property of an interface, as GetAll would have it.
pub(super) type Properties = HashMap<String, OwnedVariant>;

/// The objects by path, with the interfaces of ours that each has. The publisher keeps it.
#[derive(Default)]
pub(super) struct Tree(Mutex<BTreeMap<String, Vec<&'static dyn Kind>>>);

impl Tree {
    /// Notes that an object has an interface.
    pub(super) fn insert<I: Interface>(&self, path: &str) {
        self.lock().entry(path.to_owned()).or_default().push(const { &Of::<I>(PhantomData) });
    }

    /// Forgets an object.
    pub(super) fn remove(&self, path: &str) {
        self.lock().remove(path);
    }

    /// The interfaces of one object; none for a node that only leads to others.
    pub(super) fn at(&self, path: &str) -> Vec<&'static dyn Kind> {
        self.lock().get(path).cloned().unwrap_or_default()
    }

    /// The paths of all objects below one.
    pub(super) fn below(&self, path: &str) -> Vec<String> {
        let prefix = prefix(path);
        let objects = self.lock();
        objects
            .range(prefix.clone()..)
            .map(|(path, _)| path)
            .take_while(|path| path.starts_with(&prefix))
            .cloned()
            .collect()
    }

    /// The names of the nodes right below one. What is below those is skipped, not walked.
    pub(super) fn children(&self, path: &str) -> Vec<String> {
        let prefix = prefix(path);
        let objects = self.lock();
        let mut children = Vec::new();
        let mut from = prefix.clone();
        while let Some((path, _)) = objects.range(from..).next().filter(|(path, _)| path.starts_with(&prefix)) {
            let child = path[prefix.len()..].split('/').next().unwrap_or_default().to_owned();
            // '/' is the first of the characters in paths, and '0' the next one.
            from = format!("{prefix}{child}0");
            children.push(child);
        }
        children
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<&'static dyn Kind>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.lock().keys()).finish()
    }
}

/// What begins the paths below a path.
fn prefix(path: &str) -> String {
    if path == "/" { "/".to_owned() } else { format!("{path}/") }
}

/// An interface that an object may have.
pub(super) trait Kind: Send + Sync {
    /// Its name.
    fn name(&self) -> InterfaceName<'static>;
    /// Its introspection, indented for an object.
    fn xml<'a>(&self, connection: &'a Connection, path: &'a Path) -> BoxFuture<'a, zbus::Result<String>>;
    /// Its properties now. Takes zbus' lock of the interface to read only, which methods do too.
    fn properties<'a>(&self, connection: &'a Connection, path: &'a Path) -> BoxFuture<'a, zbus::Result<Properties>>;
}

/// The interface `I`.
pub(super) struct Of<I>(PhantomData<fn() -> I>);

impl<I: Interface> Kind for Of<I> {
    fn name(&self) -> InterfaceName<'static> {
        I::name()
    }

    fn xml<'a>(&self, connection: &'a Connection, path: &'a Path) -> BoxFuture<'a, zbus::Result<String>> {
        Box::pin(async move {
            let mut xml = String::new();
            interface::<I>(connection, path).await?.get().await.introspect_to_writer(&mut xml, 1);
            Ok(xml)
        })
    }

    fn properties<'a>(&self, connection: &'a Connection, path: &'a Path) -> BoxFuture<'a, zbus::Result<Properties>> {
        Box::pin(properties::<I>(connection, path))
    }
}

/// Every property of the interface `I` of an object.
pub(super) async fn properties<I: Interface>(connection: &Connection, path: &Path) -> zbus::Result<Properties> {
    let interface = interface::<I>(connection, path).await?;
    let object = interface.get().await;
    Ok(object.get_all(connection.object_server(), connection, None, interface.signal_emitter()).await?)
}

async fn interface<I: Interface>(connection: &Connection, path: &Path) -> zbus::Result<InterfaceRef<I>> {
    connection.object_server().interface::<_, I>(path.as_ref()).await
}

/// What an object is to the ObjectManager.
pub(super) type Described = HashMap<OwnedInterfaceName, Properties>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dbus::job::Job;

    #[test]
    fn children_are_named_once_and_in_order() {
        let tree = Tree::default();
        for path in [
            "/org/holm1",
            "/org/holm1/container/a/process/7",
            "/org/holm1/container/a",
            "/org/holm1/container/a0",
            "/org/holm1/container/a_2d",
            "/org/holm1/deviceset",
        ] {
            tree.insert::<Job>(path);
        }
        assert_eq!(tree.children("/"), ["org"]);
        assert_eq!(tree.children("/org/holm1"), ["container", "deviceset"]);
        assert_eq!(tree.children("/org/holm1/container"), ["a", "a0", "a_2d"]);
        assert_eq!(tree.children("/org/holm1/container/a"), ["process"]);
        assert_eq!(tree.children("/org/holm1/deviceset"), [""; 0]);
        assert_eq!(tree.below("/org/holm1").len(), 5);
        tree.remove("/org/holm1/container/a/process/7");
        assert_eq!(tree.children("/org/holm1/container/a"), [""; 0]);
        assert_eq!(tree.at("/org/holm1/container").len(), 0);
    }
}
