//! Payloads with a terminal.

use std::fs::File;
use std::io::{Read, Write};

use holm::model::{Exit, MonitorMessage};

use super::host::{host, plan};

/// What the terminal shows until the last process has closed it: then the master reads EIO.
fn read_terminal(mut master: &File) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        match master.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => text.extend_from_slice(&buffer[..length]),
            Err(error) if error.raw_os_error() == Some(libc::EIO) => break,
            Err(error) => panic!("{error}"),
        }
    }
    String::from_utf8(text).unwrap().replace('\r', "")
}

#[test]
fn a_terminal_is_controlling_sized_and_shown_as_console() {
    let Some(host) = host() else { return };
    let script = "stty size; tty; [ -t 0 ] && [ -t 2 ] && echo yes; echo tty > /dev/tty; ls -l /dev/console
         read p c s pp g sid nr rest < /proc/1/stat; echo $sid $nr; echo $TERM; echo console > /dev/console";
    let mut plan = plan(&["sh", "-c", script]);
    plan.process.terminal = true;
    plan.terminal_size = Some((33, 120));
    let running = host.launch(&plan, [None, None, None]).unwrap();
    let (message, mut fds) = running.message();
    assert_eq!(message, MonitorMessage::Terminal);
    let master = File::from(fds.pop().unwrap());
    let text = read_terminal(&master);
    assert!(text.starts_with("33 120\n/dev/pts/0\nyes\ntty\n"), "{text}");
    assert!(text.contains("136,   0"), "the console is the terminal: {text}");
    assert!(text.ends_with("1 34816\nxterm\nconsole\n"), "session 1 is controlled by 136:0: {text}");
    assert!(running.launched.terminal.is_some(), "the daemon has the master too");
    assert_eq!(running.wait(), Exit::Code(0));
}

#[test]
fn the_terminal_belongs_to_the_user() {
    let Some(host) = host() else { return };
    let mut plan = plan(&["sh", "-c", "ls -ln $(tty); echo x > $(tty)"]);
    plan.process.terminal = true;
    plan.process.user = Some("alice".to_owned());
    let running = host.launch(&plan, [None, None, None]).unwrap();
    let (_, mut fds) = running.message();
    let text = read_terminal(&File::from(fds.pop().unwrap()));
    assert!(text.starts_with("crw--w----    1 1000     5 "), "{text}");
    assert_eq!(running.wait(), Exit::Code(0));
}

#[test]
fn interrupt_reaches_the_foreground() {
    let Some(host) = host() else { return };
    let mut plan = plan(&["sh", "-c", "trap 'echo caught; exit 5' INT; echo ready; sleep 60 & wait"]);
    plan.process.terminal = true;
    let running = host.launch(&plan, [None, None, None]).unwrap();
    let (_, mut fds) = running.message();
    let mut master = File::from(fds.pop().unwrap());
    let mut buffer = [0; 64];
    let length = master.read(&mut buffer).unwrap();
    assert!(buffer[..length].starts_with(b"ready"));
    master.write_all(&[3]).unwrap();
    assert_eq!(running.wait(), Exit::Code(5));
}

#[test]
fn under_init_the_command_controls_the_terminal() {
    let Some(host) = host() else { return };
    let mut plan = plan(&["sh", "-c", "echo $$; echo tty > /dev/tty"]);
    plan.process.terminal = true;
    plan.process.init = true;
    let running = host.launch(&plan, [None, None, None]).unwrap();
    let (_, mut fds) = running.message();
    assert_eq!(read_terminal(&File::from(fds.pop().unwrap())), "2\ntty\n");
    assert_eq!(running.wait(), Exit::Code(0));
}
