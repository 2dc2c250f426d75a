# guest: own
# vm: VM_BARE=1
# needs: programs
# timeout: 180
# tests/systemd.rs: scopes, machined and the journal, by the code of holmd but without it.
cp /host/programs/holm.slice /etc/systemd/system/
systemctl daemon-reload
rust_tests systemd
