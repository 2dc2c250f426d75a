//! Which mounts a mount namespace has (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One line of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Its number, which no other mount has while it is there.
    pub id: u64,
    /// `major:minor` of its file system.
    pub device: String,
    /// Which directory of the file system is mounted, from the file system's own root.
    pub root: PathBuf,
    /// Where, from the root of the process that was asked.
    pub point: PathBuf,
}

/// Reads the text of `/proc/<pid>/mountinfo`. A line that is none is left out.
pub fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let device = String::from_utf8(fields.nth(1)?.to_vec()).ok()?;
    let (root, point) = (fields.next()?, fields.next()?);
    Some(Mount { id, device, root: unescaped(root).into(), point: unescaped(point).into() })
}

/// Blanks and their like are octal numbers behind a backslash in it.
fn unescaped(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &after[3..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_mounted_where() {
        let text = b"36 35 98:0 / / rw - ext4 /dev/x rw\n\
            41 36 8:1 /trees/x/root\\040fs /mnt/c\\134 rw,noatime master:1 - ext4 /dev/sda1 rw\nno line\n";
        let mount = |id, device: &str, root: &str, point: &str| Mount {
            id,
            device: device.into(),
            root: root.into(),
            point: point.into(),
        };
        let wanted = [mount(36, "98:0", "/", "/"), mount(41, "8:1", "/trees/x/root fs", "/mnt/c\\")];
        assert_eq!(parse(text), wanted);
    }

    #[test]
    fn a_backslash_is_no_escape_without_its_digits() {
        assert_eq!(unescaped(b"a\\9\\x"), OsString::from("a\\9\\x"));
    }
}
