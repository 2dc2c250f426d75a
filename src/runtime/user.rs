//! Who the payload runs as: `user`, `uid`, `user:group`, `uid:gid` against the container's own /etc/passwd and /etc/group.
//!
//! Pure: text in, ids out. No NSS, whose modules would be the container's code run as root (R2). Digits are an id, anything
//! else is a name that must be there (R16): nothing falls back to another user.

/// Ids of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// User id.
    pub(super) uid: u32,
    /// Primary group id.
    pub(super) gid: u32,
    /// Supplementary groups, the primary one among them (R15); sorted.
    pub(super) groups: Vec<u32>,
    /// Home directory; `/` when the user has none.
    pub(super) home: String,
}

/// Finds the user. `None`: there is no such user or group, or the text is not of the form above.
///
/// As Docker has it: an id that is not in `passwd` has group 0 unless one is given, and a given group takes the place of the
/// user's memberships.
pub(super) fn find(wanted: &str, passwd: &str, group: &str) -> Option<Identity> {
    let (user, wanted_group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (wanted, None),
    };
    let (uid, entry) = match Id::parse(user)? {
        Id::Number(uid) => (uid, entries(passwd).find(|entry| entry.uid == uid)),
        Id::Name(name) => {
            let entry = entries(passwd).find(|entry| entry.name == name)?;
            (entry.uid, Some(entry))
        }
    };
    let (gid, mut groups) = match wanted_group {
        Some(text) => (find_group(text, group)?, Vec::new()),
        None => (entry.as_ref().map_or(0, |entry| entry.gid), memberships(entry.as_ref(), group)),
    };
    groups.push(gid);
    groups.sort_unstable();
    groups.dedup();
    let home = entry.map(|entry| entry.home).filter(|home| home.starts_with('/')).unwrap_or("/").to_owned();
    Some(Identity { uid, gid, groups, home })
}

enum Id<'a> {
    Number(u32),
    Name(&'a str),
}

impl<'a> Id<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            // The highest number means "leave as it is" to setresuid(2).
            return text.parse().ok().filter(|id| *id != u32::MAX).map(Self::Number);
        }
        let name = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-$".contains(&byte);
        (!text.is_empty() && !text.starts_with('-') && text.bytes().all(name)).then_some(Self::Name(text))
    }
}

fn find_group(text: &str, group: &str) -> Option<u32> {
    match Id::parse(text)? {
        Id::Number(gid) => Some(gid),
        Id::Name(name) => group_lines(group).find(|(known, ..)| *known == name).map(|(_, gid, _)| gid),
    }
}

fn memberships(entry: Option<&Entry<'_>>, group: &str) -> Vec<u32> {
    let Some(entry) = entry else { return Vec::new() };
    group_lines(group)
        .filter(|(_, _, members)| members.split(',').any(|member| member == entry.name))
        .map(|(_, gid, _)| gid)
        .collect()
}

/// A line of passwd(5).
struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// Lines that are not of the right form are skipped.
fn entries(passwd: &str) -> impl Iterator<Item = Entry<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let home = fields.nth(1).unwrap_or_default();
        Some(Entry { name, uid: number(uid)?, gid: number(gid)?, home })
    })
}

/// Name, id and members of group(5).
fn group_lines(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _, gid) = (fields.next()?, fields.next()?, fields.next()?);
        Some((name, number(gid)?, fields.next().unwrap_or_default()))
    })
}

fn number(text: &str) -> Option<u32> {
    match Id::parse(text)? {
        Id::Number(id) => Some(id),
        Id::Name(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nalice:x:1000:1000::/home/alice:/bin/sh\n1234:x:0:0::/:\n\
        evil:x:-1:0::/:\nodd:x:+5:0::/:\nbare:x:7:8\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root,alice\nalice:x:1000:\nvideo:x:44:alice\nmore:x:45:malice\n";

    fn find(text: &str) -> Option<Identity> {
        super::find(text, PASSWD, GROUP)
    }

    #[test]
    fn a_name_brings_its_groups_with_the_primary_one() {
        let alice = find("alice").unwrap();
        assert_eq!((alice.uid, alice.gid, alice.groups), (1000, 1000, vec![10, 44, 1000]));
        assert_eq!(alice.home, "/home/alice");
    }

    #[test]
    fn digits_are_an_id_even_where_a_user_has_them_as_a_name() {
        let user = find("1234").unwrap();
        assert_eq!((user.uid, user.gid, user.home.as_str()), (1234, 0, "/"));
        assert_eq!(find("1000"), find("alice"));
    }

    #[test]
    fn a_given_group_takes_the_place_of_the_users_own() {
        let user = find("alice:video").unwrap();
        assert_eq!((user.gid, user.groups), (44, vec![44]));
        assert_eq!(find("1000:7").unwrap().gid, 7);
    }

    #[test]
    fn nothing_falls_back_to_root() {
        for text in [
            "",
            ":",
            "bob",
            "alice:",
            ":wheel",
            "alice:nobody",
            "+0",
            "-0",
            " 0",
            "0 ",
            "0x0",
            "1000x",
            "4294967295",
            "4294967296",
            "99999999999",
            "alice:wheel:video",
            "evil",
            "odd",
            "ali ce",
            "alice\n",
            "/root",
            "-",
        ] {
            assert_eq!(find(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_short_line_still_counts() {
        assert_eq!(find("bare").unwrap(), Identity { uid: 7, gid: 8, groups: vec![8], home: "/".to_owned() });
    }
}
