# guest: own
# vm: VM_BARE=1
# needs: programs
# timeout: 180
# tests/runtime_launch: containers from the runtime alone, with every controller of a real host.
echo +memory +pids +cpu >/sys/fs/cgroup/cgroup.subtree_control
rust_tests runtime_launch
