//! Real containers from the runtime alone, without daemon and systemd. Needs root, cgroup2 and a static busybox.

mod host;

use holm::model::Exit;
use host::{host, plan};

#[test]
fn the_command_is_process_1_and_its_output_arrives() {
    let Some(host) = host() else { return };
    assert_eq!(host.run("echo $$; cat /proc/sys/kernel/hostname").ok(), "1\nweb\n");
}

#[test]
fn exit_codes_and_signals_are_told_as_they_are() {
    for (script, exit) in [("exit 0", Exit::Code(0)), ("exit 42", Exit::Code(42))] {
        let Some(host) = host() else { return };
        assert_eq!(host.run(script).exit, exit);
        let record = host.record();
        assert_eq!((record.exit, record.run), (exit, 3));
    }
    let Some(host) = host() else { return };
    let running = host.launch(&plan(&["sleep", "60"]), [None, None, None]).unwrap();
    println!("{:?}", running.launched.steps);
}
