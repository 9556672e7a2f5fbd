# Everything goes through cargo and scripts/; `make help` lists the targets.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/trimtab/target
FOR ?= 60s
LINTERS = $(or $(TRIMTAB_CACHE),$(HOME)/.cache/trimtab)/linters/bin

# Sets ENVOY_BIN, PROMETHEUS_BIN and KUBECTL to what `make deps` installed; looked up when a recipe runs, not before.
WITH_TOOLS := scripts/with-tools.sh

.DEFAULT_GOAL := help
.PHONY: help deps cluster quickstart test test-fast fuzz check fmt tree scripts image test-image release clippy doc generated deny bench bench-savings bench-soak bench-floods bench-xds bench-scale bench-lazyload bench-limiter bench-overload update-golden clean clean-cache

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

deps: ## install Envoy, Prometheus, kubectl, protocol clients, and build the control plane of the tests (once, into ~/.cache/trimtab)
	@scripts/deps.sh
	@scripts/protocol-tools.sh
	@scripts/cluster-tools.sh

cluster: ## start the control plane of the tests for yourself; prints its KUBECONFIG, Ctrl-C ends it
	@scripts/cluster-tools.sh
	@$(WITH_TOOLS) cargo run -q -p trimtab-cluster --bin cluster

quickstart: ## see it work on this machine: make quickstart FOR=60s
	@scripts/deps.sh --optional
	@test -x $(CARGO_TARGET_DIR)/debug/quickstart || echo "building trimtab (the first build takes some minutes)"
	@$(WITH_TOOLS) cargo run -p trimtab-lab --bin quickstart -- --for $(FOR)

test: ## all tests, with the real Envoy, Prometheus, kube-apiserver, istiod, helm and kubectl
	@scripts/deps.sh
	@scripts/protocol-tools.sh
	@scripts/cluster-tools.sh --background
	$(WITH_TOOLS) cargo test --workspace --no-fail-fast

# Test binaries that start no program but our own; what else they need is in the repository.
FAST_TESTS := aeraki features golden layering loopback properties repository routes rules server sources_mds sources_metrics_server total toy

test-fast: ## the tests that need no external program: no Envoy, Prometheus, cluster, helm or kubectl
	cargo test --workspace --no-fail-fast --lib $(FAST_TESTS:%=--test %)

fuzz: deps ## what nobody meant, against Envoy and through translate, and odd meshes against istiod, with two seeds; minutes
	$(WITH_TOOLS) cargo test -p trimtab-tests --test validity --test prediction -- --ignored --nocapture
	cargo test -p trimtab-kit --lib lease -- --ignored

check: fmt tree scripts clippy doc generated deny ## formatting, files of the repository, lints, docs, generated files, dependencies

fmt:
	cargo fmt --all --check

tree:
	cargo test -q -p trimtab-tests --test repository --test layering

scripts:
	@scripts/deps.sh linters
	$(LINTERS)/shellcheck -x scripts/*.sh .ci/run
	$(LINTERS)/hadolint Dockerfile

clippy:
	cargo clippy --workspace --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

generated:
	cargo run -q -p trimtab -- crds --check crds/manifests

deny:
	@scripts/deps.sh cargo-deny
	scripts/deny.sh

image: ## a static binary, an OCI image and an archive for docker load, without Docker
	scripts/image.sh

test-image: ## the end-to-end tests with the binary of the image
	scripts/test-image.sh

release: ## what a release publishes (image, charts, checksums), published nowhere
	scripts/release.sh --dry-run

bench: ## benchmarks
	$(WITH_TOOLS) cargo bench -p trimtab-bench

bench-xds: ## load on the xDS server, against go-control-plane and bare sockets: make bench-xds BENCH_XDS=--quick
	scripts/bench-xds.sh $(BENCH_XDS)

bench-scale: ## the operator with 10,000 limiters; memory in a mesh of 10,000 Services and 50,000 pods against stores of whole objects
	cargo run --release -p trimtab-bench --bin scale -- $(BENCH_SCALE)
	cargo run --release -p trimtab-bench --bin memory -- $(BENCH_MEMORY)

bench-floods: ## the shipped program under floods of connections, streams, logs and answers, against the chart's memory limit
	cargo build --release -p trimtab -p trimtab-bench --bin trimtab --bin floods
	$(CARGO_TARGET_DIR)/release/floods --trimtab $(CARGO_TARGET_DIR)/release/trimtab

bench-savings: ## what scoping saves on a real istiod and Envoy, and whether Trimtab predicts it
	@scripts/cluster-tools.sh
	$(WITH_TOOLS) cargo run -p trimtab-bench --bin savings -- $(BENCH_SAVINGS)

bench-soak: ## a whole mesh with two replicas under load while its parts are killed: make bench-soak FOR=15m
	@scripts/deps.sh
	@scripts/protocol-tools.sh
	@scripts/cluster-tools.sh
	TRIMTAB_SOAK_FOR=$(FOR) $(WITH_TOOLS) cargo test -p trimtab-tests --test soak the_mesh_survives_for_long -- --ignored --nocapture

bench-lazyload: ## lazy scoping: scopes of synthetic meshes against the truth, cost of learning, into target/bench
	cargo run --release -p trimtab-bench --bin scope -- $(BENCH_LAZYLOAD)
	cargo run --release -p trimtab-bench --bin edges

bench-limiter: ## strategy adaptive in virtual time, with the laws of others and bounds; a table: make bench-limiter BENCH_LIMITER="--seeds 100"
	cargo run --release -p trimtab-overload --bin overload -- $(BENCH_LIMITER) run

bench-overload: ## a real overload behind real Envoys: the law, Slime's rule, Envoy's own filters; a table and a picture: make bench-overload BENCH_OVERLOAD="--at-once 2"
	@scripts/deps.sh
	$(WITH_TOOLS) cargo run -p trimtab-bench --bin real -- $(BENCH_OVERLOAD)

update-golden: ## write the golden files anew; look at the difference before you keep it
	UPDATE_EXPECT=1 cargo test -p trimtab-tests golden

clean: ## remove build output (the installed tools stay)
	cargo clean

clean-cache: ## remove the installed tools and the build output: the next make starts from nothing
	scripts/clean-cache.sh
