//! Terminals: raw mode and window size (termios(3), ioctl_tty(2)).

use std::io;
use std::os::fd::AsFd;

use rustix::termios::{self, OptionalActions, Termios, Winsize};

/// Switches a terminal to raw mode (cfmakeraw(3)) and gives back the settings it had.
///
/// Fails with ENOTTY when `terminal` is not one; then nothing has changed.
pub fn make_raw(terminal: impl AsFd) -> io::Result<Termios> {
    let before = termios::tcgetattr(&terminal)?;
    let mut raw = before.clone();
    raw.make_raw();
    termios::tcsetattr(&terminal, OptionalActions::Drain, &raw)?;
    Ok(before)
}

/// Gives a terminal settings that [`make_raw`] returned, once what was written has been shown.
pub fn restore(terminal: impl AsFd, settings: &Termios) -> io::Result<()> {
    Ok(termios::tcsetattr(terminal, OptionalActions::Drain, settings)?)
}

/// Rows and columns of a terminal. Fails with ENOTTY when it is not one.
pub fn window_size(terminal: impl AsFd) -> io::Result<(u16, u16)> {
    let size = termios::tcgetwinsize(terminal)?;
    Ok((size.ws_row, size.ws_col))
}

/// Sets rows and columns of a terminal; given a master, of its other side, whose foreground process group gets SIGWINCH
/// when they changed.
pub fn set_window_size(terminal: impl AsFd, (rows, columns): (u16, u16)) -> io::Result<()> {
    Ok(termios::tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?)
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use rustix::fs::{Mode, OFlags};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::LocalModes;

    use super::*;

    fn pty() -> (OwnedFd, OwnedFd) {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        (master, slave)
    }

    #[test]
    fn a_terminal_has_its_settings_back_after_raw_mode() {
        let (_master, slave) = pty();
        let echoes = |fd: &OwnedFd| termios::tcgetattr(fd).unwrap().local_modes.contains(LocalModes::ECHO);
        assert!(echoes(&slave));
        let before = make_raw(&slave).unwrap();
        assert!(!echoes(&slave));
        restore(&slave, &before).unwrap();
        assert!(echoes(&slave));
    }

    #[test]
    fn the_other_side_sees_the_size_set_on_the_master() {
        let (master, slave) = pty();
        set_window_size(&master, (40, 132)).unwrap();
        assert_eq!(window_size(&slave).unwrap(), (40, 132));
    }

    #[test]
    fn what_is_no_terminal_is_an_error() {
        let (reader, _writer) = std::io::pipe().unwrap();
        assert_eq!(make_raw(&reader).unwrap_err().raw_os_error(), Some(libc::ENOTTY));
        assert!(window_size(&reader).is_err());
    }
}
