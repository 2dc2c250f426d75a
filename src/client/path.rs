//! Names in object paths.

/// The name in the last part of an object path: `_2d` is `-` (the escape that systemd's bus objects have too). `None`
/// when an escape is broken.
pub fn object_name(path: &str) -> Option<String> {
    let last = path.rsplit('/').next()?;
    let mut name = Vec::with_capacity(last.len());
    let mut rest = last.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'_' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            name.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            name.push(byte);
            rest = tail;
        }
    }
    String::from_utf8(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_out_of_paths() {
        assert_eq!(object_name("/org/holm1/container/web").unwrap(), "web");
        assert_eq!(object_name("/org/holm1/container/db_2d1_2ex").unwrap(), "db-1.x");
        assert_eq!(object_name("/org/holm1/image/debian_3abookworm").unwrap(), "debian:bookworm");
    }

    #[test]
    fn a_broken_escape_is_no_name() {
        assert_eq!(object_name("/a/b_"), None);
        assert_eq!(object_name("/a/b_zz"), None);
    }
}
