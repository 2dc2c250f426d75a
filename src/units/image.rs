//! `*.image`: an archive that is imported before the containers that need it start.

use super::index::Index;
use super::key::{self, Key};
use super::name::FileName;
use super::oneshot::{self, Oneshot};
use super::problem::{Place, Problem};
use super::sections::Sections;
use super::unit::Unit;
use super::value;
use super::words::{is_open, literal};
use crate::model::ImageName;

/// What `[Image]` says.
#[derive(Debug, Default)]
struct Image {
    archive: Option<String>,
}

/// Those that are used.
const KEYS: &[Key<Image>] = &[
    Key::once(
        "Archive",
        "FILE",
        "An OCI or docker archive, or the tar file of a root tree, compressed or not",
        |c: &mut Image, v, _| {
            c.archive = Some(value::absolute(v)?);
            Ok(())
        },
    ),
    Key::once("ImageTag", "NAME", "The image's name; that of the file when absent", |_, v, _| {
        if is_open(v) {
            return Err("specifiers and variables are not possible here".into());
        }
        ImageName::parse(v).map(drop).map_err(|error| error.to_string())
    }),
    Key::once(
        "ServiceName",
        "NAME",
        "The service's name without its end; that of the file and `-image` when absent",
        |_, v, _| oneshot::service_name(v),
    ),
];

/// Those that Quadlet has.
const REFUSED: &[Key<Image>] = &[
    Key::refused("AllTags", "comes later: registry pulls"),
    Key::refused("Arch", "comes later: registry pulls"),
    Key::refused("AuthFile", "comes later: registry pulls"),
    Key::refused("CertDir", "comes later: registry pulls"),
    Key::refused("ContainersConfModule", "not supported: holm.toml(5) configures holmd"),
    Key::refused("Creds", "comes later: registry pulls"),
    Key::refused("DecryptionKey", "comes later: registry pulls"),
    Key::refused("GlobalArgs", "not supported: use the key that does it"),
    Key::refused(
        "Image",
        "comes later: registry pulls; save the image as an archive, name that with Archive=, and say its name with ImageTag=",
    ),
    Key::refused("OS", "comes later: registry pulls"),
    Key::refused("PodmanArgs", "not supported: use the key that does it"),
    Key::refused("Policy", "comes later: registry pulls"),
    Key::refused("Retry", "comes later: registry pulls"),
    Key::refused("RetryDelay", "comes later: registry pulls"),
    Key::refused("TLSVerify", "comes later: registry pulls"),
    Key::refused("Variant", "comes later: registry pulls"),
];

/// Name, form and text of every key, the used ones first.
pub(super) fn described() -> impl Iterator<Item = key::Described> {
    KEYS.iter().chain(REFUSED).map(Key::described)
}

/// The image's name, as far as it is one.
pub(super) fn name_of<'v>(file: &FileName, last: &impl Fn(&str) -> Option<&'v str>) -> String {
    last("ImageTag").filter(|name| ImageName::parse(name).is_ok()).unwrap_or(file.stem()).to_owned()
}

/// The unit of a file.
pub(super) fn units(name: &FileName, sections: &Sections<'_>, index: &Index, problems: &mut Vec<Problem>) -> Vec<Unit> {
    let mut image = Image::default();
    let keys: Vec<_> = KEYS.iter().chain(REFUSED).collect();
    key::apply(&keys, &sections.of("Image"), &mut image, index, problems);
    let own = name_of(name, &|key: &str| sections.last("Image", key));
    let whole = Place::whole(sections.path());
    if let Err(error) = ImageName::parse(&own) {
        problems.push(whole.problem_of("ImageTag", format!("is needed in [Image]: {error}")));
    }
    let archive = image.archive.unwrap_or_else(|| {
        problems.push(whole.problem_of("Archive", "is missing in [Image]: name the file that has the image"));
        String::new()
    });
    let mut unit = Oneshot::new(format!("Image {own}"));
    // What it says makes the next start short: see docs/units.md.
    unit.state_directory = Some("holm/imports");
    let stamp = format!("--stamp=%S/holm/imports/{}", literal(&name.to_string()));
    unit.start_holmctl(vec!["image".into(), "import".into(), stamp, format!("--name={own}"), archive.clone()]);
    unit.mounts = Some(archive).filter(|path| !path.is_empty() && !path.contains('$'));
    vec![oneshot::unit(name, unit, sections, index, problems)]
}
