//! The bus's own interfaces that say what there is: `Introspectable` and `ObjectManager`.
//!
//! Ours and not those of zbus. Its introspection holds everything below a node with all its members, which grows with the
//! number of containers and which sd-bus cannot read; ours names the nodes right below and no more. Its ObjectManager
//! manages nodes that have no interface, and would announce our Introspectable as news of each object.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use zbus::message::Header;
use zbus::names::InterfaceName;
use zbus::object_server::{Interface, SignalEmitter};
use zbus::{Connection, ObjectPath, ObjectServer, OwnedObjectPath, fdo, interface};

use super::paths::{self, Path};
use super::tree::{self, Described, Properties, Tree};

/// `org.freedesktop.DBus.Introspectable`.
#[derive(Debug)]
pub(super) struct Introspectable(Arc<Tree>);

#[interface(name = "org.freedesktop.DBus.Introspectable", introspection_docs = false)]
impl Introspectable {
    /// The object's interfaces, and the names of the nodes right below it.
    #[zbus(out_args("xml_data"))]
    async fn introspect(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> fdo::Result<String> {
        let path = header.path().ok_or(zbus::Error::MissingField)?.to_owned();
        let mut xml = format!("{HEAD}{STANDARD}");
        for kind in self.0.at(&path) {
            xml.push_str(&kind.xml(connection, &path).await?);
        }
        for child in self.0.children(&path) {
            let _ = writeln!(xml, " <node name=\"{child}\"/>");
        }
        xml.push_str("</node>\n");
        Ok(xml)
    }
}

/// `org.freedesktop.DBus.ObjectManager`: the objects below its own.
#[derive(Debug)]
pub(super) struct ObjectManager(Arc<Tree>);

impl ObjectManager {
    pub(super) fn new(tree: Arc<Tree>) -> Self {
        Self(tree)
    }
}

#[interface(name = "org.freedesktop.DBus.ObjectManager", introspection_docs = false)]
impl ObjectManager {
    /// Every object with its interfaces and their properties.
    #[zbus(out_args("objpath_interfaces_and_properties"))]
    async fn get_managed_objects(
        &self,
        #[zbus(connection)] connection: &Connection,
    ) -> fdo::Result<HashMap<OwnedObjectPath, Described>> {
        let mut objects = HashMap::new();
        for path in self.0.below(paths::ROOT) {
            let path = Path::try_from(path)?;
            let mut described = Described::new();
            for kind in self.0.at(&path) {
                match kind.properties(connection, &path).await {
                    Ok(properties) => drop(described.insert(kind.name().into(), properties)),
                    // It went meanwhile.
                    Err(zbus::Error::InterfaceNotFound) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if !described.is_empty() {
                objects.insert(path.into(), described);
            }
        }
        Ok(objects)
    }

    #[zbus(signal)]
    async fn interfaces_added(
        emitter: &SignalEmitter<'_>,
        object_path: ObjectPath<'_>,
        interfaces_and_properties: HashMap<InterfaceName<'_>, Properties>,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn interfaces_removed(
        emitter: &SignalEmitter<'_>,
        object_path: ObjectPath<'_>,
        interfaces: Cow<'_, [InterfaceName<'_>]>,
    ) -> zbus::Result<()>;
}

/// Puts an object on the bus, with nodes that lead to it, and announces it unless it is the manager's own.
pub(super) async fn add<I: Interface>(
    connection: &Connection,
    tree: &Arc<Tree>,
    path: &Path,
    object: I,
) -> zbus::Result<()> {
    let server = connection.object_server();
    if server.at(path.as_ref(), object).await?.is_some() {
        return Ok(());
    }
    tree.insert::<I>(path);
    make_shallow(server, tree, path).await?;
    if path.as_str() == paths::ROOT {
        return Ok(());
    }
    let described = HashMap::from([(I::name(), tree::properties::<I>(connection, path).await?)]);
    ObjectManager::interfaces_added(&announcer(connection), path.as_ref(), described).await
}

/// Takes an object off the bus, and says so. Nodes that lead nowhere then go by themselves.
pub(super) async fn remove<I: Interface>(connection: &Connection, tree: &Tree, path: &Path) -> zbus::Result<()> {
    tree.remove(path);
    connection.object_server().remove::<I, _>(path.as_ref()).await?;
    ObjectManager::interfaces_removed(&announcer(connection), path.as_ref(), vec![I::name()].into()).await
}

fn announcer(connection: &Connection) -> SignalEmitter<'static> {
    SignalEmitter::from_parts(connection.clone(), Path::from_static_str_unchecked(paths::ROOT))
}

/// Gives a node, and each above it, our introspection instead of the one that zbus made it with. Where a node has ours,
/// those above have it: a node goes before the one above it.
async fn make_shallow(server: &ObjectServer, tree: &Arc<Tree>, path: &Path) -> zbus::Result<()> {
    let mut path = path.as_str();
    loop {
        if server.interface::<_, Introspectable>(path).await.is_ok() {
            return Ok(());
        }
        server.remove_named(path, Introspectable::name()).await?;
        server.at(path, Introspectable(Arc::clone(tree))).await?;
        match path.rfind('/') {
            _ if path == "/" => return Ok(()),
            Some(0) | None => path = "/",
            Some(slash) => path = &path[..slash],
        }
    }
}

const HEAD: &str = r#"<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">
<node>
"#;

/// What every node has (D-Bus specification, "Standard Interfaces").
const STANDARD: &str = r#" <interface name="org.freedesktop.DBus.Introspectable">
  <method name="Introspect">
   <arg name="xml_data" type="s" direction="out"/>
  </method>
 </interface>
 <interface name="org.freedesktop.DBus.Peer">
  <method name="Ping"/>
  <method name="GetMachineId">
   <arg name="machine_uuid" type="s" direction="out"/>
  </method>
 </interface>
 <interface name="org.freedesktop.DBus.Properties">
  <method name="Get">
   <arg name="interface_name" type="s" direction="in"/>
   <arg name="property_name" type="s" direction="in"/>
   <arg name="value" type="v" direction="out"/>
  </method>
  <method name="GetAll">
   <arg name="interface_name" type="s" direction="in"/>
   <arg name="properties" type="a{sv}" direction="out"/>
  </method>
  <method name="Set">
   <arg name="interface_name" type="s" direction="in"/>
   <arg name="property_name" type="s" direction="in"/>
   <arg name="value" type="v" direction="in"/>
  </method>
  <signal name="PropertiesChanged">
   <arg name="interface_name" type="s"/>
   <arg name="changed_properties" type="a{sv}"/>
   <arg name="invalidated_properties" type="as"/>
  </signal>
 </interface>
"#;
