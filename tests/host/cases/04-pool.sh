# guest: own
# vm: VM_BARE=1
# needs: programs
# timeout: 600
# tests/storage_kernel.rs: driver `thin` on real device-mapper; and the unit tests that only root can run.
rust_tests storage_kernel
rust_tests holm images::tests:: copy_does_what_every_driver_does a_session_keyring_is_new
assert_eq "$(dmsetup ls | grep -v '^No devices' || true)" "" "devices left"
assert_eq "$(losetup -l -n)" "" "loop devices left"
