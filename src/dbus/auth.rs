//! May this caller do that? One question, asked in one place by every method that changes something.

use std::collections::HashMap;
use std::sync::Arc;

use zbus::Connection;
use zbus::message::{Flags, Header};
use zbus::names::UniqueName;
use zbus::proxy::CacheProperties;
use zbus_polkit::policykit1::{AuthorityProxy, CheckAuthorizationFlags, Subject};

use super::callers::Callers;
use super::error::{Error, Result};
use crate::model::ErrorCode;

/// Most descriptors that one message may carry: a request needs four, and passes some on. The buses have this limit too.
const MAX_DESCRIPTORS: u32 = 16;

/// A class of risk: one polkit action each. `dbus/org.holm1.policy` declares them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Define, start, stop, signal, rename and remove containers.
    ManageContainers,
    /// Run a program in a container, or sit at its terminal.
    Exec,
    /// Import, tag and remove images.
    ManageImages,
    /// Change the DeviceSet.
    ManageStorage,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 4] = [Self::ManageContainers, Self::Exec, Self::ManageImages, Self::ManageStorage];

    /// Its id for polkit.
    pub fn id(self) -> &'static str {
        match self {
            Self::ManageContainers => "org.holm1.manage-containers",
            Self::Exec => "org.holm1.exec",
            Self::ManageImages => "org.holm1.manage-images",
            Self::ManageStorage => "org.holm1.manage-storage",
        }
    }
}

/// What somebody wants to do. Polkit rules see everything but the action as details.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    action: Action,
    verb: &'static str,
    container: Option<String>,
    image: Option<String>,
    device: Option<String>,
    unit: Option<String>,
    user: Option<String>,
}

impl Wish {
    pub(super) fn new(action: Action, verb: &'static str) -> Self {
        Self { action, verb, container: None, image: None, device: None, unit: None, user: None }
    }

    /// What it is about, in words.
    fn object(&self) -> String {
        match (&self.container, &self.image) {
            (None, None) if self.device.is_some() => format!("device {}", self.device.as_deref().unwrap_or_default()),
            (Some(container), Some(image)) if container.is_empty() => format!("a container of image {image}"),
            (Some(container), Some(image)) => format!("container {container} of image {image}"),
            (Some(container), None) => format!("container {container}"),
            (None, Some(image)) => format!("image {image}"),
            (None, None) => "Holm".to_owned(),
        }
    }

    pub(super) fn container(mut self, name: impl Into<String>) -> Self {
        self.container = Some(name.into());
        self
    }

    pub(super) fn image(mut self, name: impl Into<String>) -> Self {
        self.image = Some(name.into());
        self
    }

    pub(super) fn device(mut self, id: impl Into<String>) -> Self {
        self.device = Some(id.into());
        self
    }

    /// The scope's name.
    pub(super) fn unit(mut self, name: impl Into<String>) -> Self {
        self.unit = Some(name.into());
        self
    }

    /// The user inside the container.
    pub(super) fn user(mut self, name: Option<&String>) -> Self {
        self.user = name.cloned();
        self
    }

    fn details(&self) -> HashMap<&'static str, &str> {
        let mut details = HashMap::from([("verb", self.verb)]);
        for (key, value) in [
            ("container", &self.container),
            ("image", &self.image),
            ("device", &self.device),
            ("unit", &self.unit),
            ("user", &self.user),
        ] {
            if let Some(value) = value {
                details.insert(key, value);
            }
        }
        details
    }
}

/// Asks polkit, and keeps the log of who did what.
#[derive(Debug)]
pub(super) struct Auth {
    callers: Arc<Callers>,
    polkit: AuthorityProxy<'static>,
}

impl Auth {
    /// Does not talk to polkit yet: it need not run before somebody else than root asks for something.
    pub(super) async fn new(connection: &Connection, callers: Arc<Callers>) -> zbus::Result<Self> {
        let polkit = AuthorityProxy::builder(connection).cache_properties(CacheProperties::No).build().await?;
        Ok(Self { callers, polkit })
    }

    /// Lets root pass and asks polkit about everybody else; what cannot be asked is refused. The question is put to the
    /// user only if the message allows it. May take as long as a person needs to type a password: what was looked up
    /// before must be looked up again after it.
    pub(super) async fn authorize(&self, header: &Header<'_>, wish: &Wish) -> Result<()> {
        let (action, op) = (wish.action.id(), wish.verb);
        let (container, image, device) = (wish.container.as_deref(), wish.image.as_deref(), wish.device.as_deref());
        let sender = sender(header)?;
        if header.unix_fds().unwrap_or(0) > MAX_DESCRIPTORS {
            return Err(Error::invalid(format!("a message may carry at most {MAX_DESCRIPTORS} descriptors")));
        }
        let uid = self.callers.uid(sender).await?;
        let answer = if uid == 0 { Ok(()) } else { self.ask_polkit(header, wish).await };
        match &answer {
            Ok(()) => tracing::info!(op, container, image, device, uid, "User {uid} asks to {op} {}.", wish.object()),
            Err(error) => tracing::warn!(op, container, image, device, uid, action, "refused {op}: {}", error.message),
        }
        answer
    }

    pub(super) async fn ask_polkit(&self, header: &Header<'_>, wish: &Wish) -> Result<()> {
        let id = wish.action.id();
        let refused = |why: String| Error::new(ErrorCode::NotAuthorized, format!("not authorized for {id}: {why}"));
        let subject = Subject::new_for_message_header(header).map_err(|error| refused(error.to_string()))?;
        let flags = if header.primary().flags().contains(Flags::ALLOW_INTERACTIVE_AUTH) {
            CheckAuthorizationFlags::ALLOW_USER_INTERACTION
        } else {
            CheckAuthorizationFlags::empty()
        };
        match self.polkit.check_authorization(&subject, id, &wish.details(), flags, "").await {
            Ok(result) if result.is_authorized => Ok(()),
            Ok(result) if result.is_challenge => {
                Err(refused("polkit wants a password: run it where an authentication agent is, or as root".to_owned()))
            }
            Ok(_) => Err(refused("polkit says no; an administrator can allow it with a rule".to_owned())),
            Err(error) => Err(refused(format!("polkit cannot be asked ({error}); run it as root"))),
        }
    }
}

/// The connection that sent a message.
pub(super) fn sender<'h>(header: &'h Header<'_>) -> Result<&'h UniqueName<'h>> {
    header.sender().ok_or_else(|| Error::new(ErrorCode::NotAuthorized, "the message does not say who sent it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn action_ids_begin_with_the_bus_name() {
        for action in Action::ALL {
            let class = action.id().strip_prefix("org.holm1.").unwrap();
            assert!(class.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{class}");
        }
    }

    #[test]
    fn rules_see_the_verb_the_container_and_the_user() {
        let user = "www".to_owned();
        let wish = Wish::new(Action::Exec, "exec").container("web").unit("holm-web.scope").user(Some(&user));
        let expected =
            HashMap::from([("verb", "exec"), ("container", "web"), ("unit", "holm-web.scope"), ("user", "www")]);
        assert_eq!(wish.details(), expected);
    }
}
