# The commands of a developer: `make help` lists them. What they do is in the scripts that they call.
SHELL := /bin/bash
.DEFAULT_GOAL := help

DESTDIR ?=
PREFIX ?= /usr
SYSCONFDIR ?= /etc

host := tests/host
target := $(or $(CARGO_TARGET_DIR),target)
triple = $(shell rustc -vV | sed -n 's/^host: //p')

# CMD is shell text, not make text: it reaches the guest as it was typed (and `$$$$NAME` is `$$NAME` for those used to make).
ifeq ($(origin CMD),command line)
override CMD := $(value CMD)
export HOLM_CMD_OF_MAKE := 1
endif
export CMD VM_SHARE VM_DISK VM_SUITE VM_KERNEL VM_MEM VM_TIMEOUT VM_OFF VM_BARE VM_VARIANT VM_CPU VM_CONSOLE VM_SIZE

# make ends with 2 when a recipe fails, these two with the status of the guest's command: see make_exit.c.
ifneq ($(filter vm vm-run,$(MAKECMDGOALS)),)
-load build/make_exit.so
endif
with_status = mkdir -p build/exit; status=0; $(1) || { status=$$?; echo $$status >build/exit/$$PPID; }; exit $$status
export HOLM_EXIT_DIR := $(CURDIR)/build/exit

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/make \1\t\2/p' Makefile | expand -t 16

.PHONY: demo
demo: build ## the main job on real input, in the embedded test host
	@$(host)/demo

.PHONY: test
test: ## every test; those that need systemd and device-mapper run in the embedded test host
	@tests/all

.PHONY: check
check: deps-build ## format, lints, unit tests: no root
	@tests/check

.PHONY: bench
bench: build ## the benchmarks beside the peers, in one boot of the test host
	@$(host)/bench/bench

.PHONY: torture
torture: build ## N power cuts (200) of test hosts in a storm of work, all that was acknowledged looked after each: make torture N=50 SEED=7
	@N='$(N)' SEED='$(SEED)' GUESTS='$(GUESTS)' $(host)/torture/torture

.PHONY: shutdowns
shutdowns: build ## N real shutdowns (20) of three tiers of containers, the order of each shown beside that of peers: make shutdowns N=20 VM_SUITE=trixie
	@N='$(N)' $(host)/shutdowns

.PHONY: vm
vm: vm-ready ## a root shell in the test host, with Holm installed and running
	@$(call with_status,$(host)/vm shell)

.PHONY: vm-run
vm-run: vm-ready ## a command in a fresh test host: make vm-run CMD='holmctl list' (VM_SHARE VM_DISK VM_SUITE VM_KERNEL VM_MEM VM_TIMEOUT VM_OFF: tests/host/README.md)
	@$(call with_status,$(host)/vm run)

.PHONY: vm-ready
vm-ready: $(if $(VM_BARE),deps,build)

.PHONY: build
build: deps ## holmd, holmctl, and the static holm-init and holm-generator, optimised
	@tests/build $(triple)

.PHONY: deps
deps: ## the Debian packages that all this needs (with root: installs them)
	@$(host)/deps

.PHONY: deps-build
deps-build:
	@$(host)/deps build tests

# Files that are not there yet are left out; the configuration of a machine is never overwritten.
put = $(if $(wildcard $(2)),install -D -m $(1) -t '$(DESTDIR)$(3)' $(wildcard $(2)))
.PHONY: install
install: ## into DESTDIR, below PREFIX (/usr)
	@test -x $(target)/release/holmd -a -x $(target)/release/holmctl -a -x $(target)/$(triple)/release/holm-init -a -x $(target)/$(triple)/release/holm-generator || { echo "nothing to install yet: run 'make build'" >&2; exit 1; }
	install -D -m 755 -t '$(DESTDIR)$(PREFIX)/bin' $(target)/release/holmd $(target)/release/holmctl
	install -D -m 755 -t '$(DESTDIR)$(PREFIX)/lib/holm' $(target)/$(triple)/release/holm-init
	install -D -m 755 -t '$(DESTDIR)$(PREFIX)/lib/systemd/system-generators' $(target)/$(triple)/release/holm-generator
	$(call put,644,units/*.service units/*.slice units/*.socket units/*.timer units/*.target,$(PREFIX)/lib/systemd/system)
	$(call put,644,units/*.rules,$(PREFIX)/lib/udev/rules.d)
	$(if $(wildcard units/holm.tmpfiles),install -D -m 644 units/holm.tmpfiles '$(DESTDIR)$(PREFIX)/lib/tmpfiles.d/holm.conf')
	$(call put,644,dbus/*.xml,$(PREFIX)/share/dbus-1/interfaces)
	$(call put,644,dbus/org.holm1.conf,$(PREFIX)/share/dbus-1/system.d)
	$(call put,644,dbus/org.holm1.service,$(PREFIX)/share/dbus-1/system-services)
	$(call put,644,dbus/org.holm1.policy,$(PREFIX)/share/polkit-1/actions)
	$(call put,644,packaging/man/*.8,$(PREFIX)/share/man/man8)
	$(call put,644,packaging/man/*.5,$(PREFIX)/share/man/man5)
	$(call put,644,packaging/man/*.1,$(PREFIX)/share/man/man1)
	$(call put,644,packaging/completions/*.bash,$(PREFIX)/share/bash-completion/completions)
	$(call put,644,packaging/*.catalog,$(PREFIX)/lib/systemd/catalog)
	$(if $(wildcard packaging/holm.toml),test -e '$(DESTDIR)$(SYSCONFDIR)/holm/holm.toml' || install -D -m 644 packaging/holm.toml '$(DESTDIR)$(SYSCONFDIR)/holm/holm.toml')

.PHONY: deb
deb: build ## a Debian package, in build/
	@packaging/deb

build/make_exit.so: $(host)/make_exit.c
	@$(host)/deps build && mkdir -p build && gcc -O2 -Wall -shared -fPIC -o $@.$$PPID $< && mv $@.$$PPID $@
