# What people and CI run. `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
CARGO ?= cargo
BIN := target/debug
VENV := target/venv
BAKED := target/image/disk/layers
TARBALL := $(BIN)/rollcall-agent.tar.gz
# No path of the machine that built it: the same sources give the same bytes everywhere.
RELEASE = RUSTFLAGS="--remap-path-prefix=$(CURDIR)=/rollcall --remap-path-prefix=$${CARGO_HOME:-$$HOME/.cargo}=/cargo" \
	$(CARGO) build --release --locked -p rollcall-agent
export LAB_PYTHON := $(abspath $(VENV)/bin/python)

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: build ## the main job, told from `control plan` to `control down` (KEEP=1 leaves it up)
	$(BIN)/demo

.PHONY: test
test: build ## unit, golden and lab tests
	$(CARGO) test --workspace --locked
	$(VENV)/bin/python -m pytest -q tests/lab/emulator/tests

.PHONY: fuzz
fuzz: ## bent input for every parser of the agent, from tests/fuzz/seeds (FUZZ_ROUNDS=50000 a target)
	FUZZ_ROUNDS=$${FUZZ_ROUNDS:-50000} $(CARGO) test --workspace --locked --test it -- hostile --nocapture

.PHONY: check
check: setup ## formatting, lints with warnings denied, documentation
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' $(CARGO) doc --workspace --no-deps --locked --document-private-items
	tests/lab/check-shell.sh

.PHONY: build
build: setup ## the programs, the lab and the agent's tarball
	$(CARGO) build --workspace --locked
	@$(MAKE) --no-print-directory $(TARBALL)

$(TARBALL): $(BIN)/rollcall-agent $(shell find systemd -type f) amis/files amis/stage.sh amis/tarball.sh
	amis/tarball.sh $(BIN)/rollcall-agent $@

.PHONY: corpus
corpus: build ## the fault corpus: every reason reproduced, every healthy variant joined (CASES="gpu-lost ApiServerDnsFailed" for some)
	$(BIN)/lab corpus run --kubernetes standin --nodes process $(CASES)

.PHONY: corpus-sample
corpus-sample: build ## the corpus's sample, which CI plays
	$(BIN)/lab corpus run --kubernetes standin --nodes process --sample

.PHONY: gpu-readers
gpu-readers: ## nvitop and NVIDIA's own nvidia-smi read the simulated GPUs; says what it cannot get here
	GPU_READERS=$$(tests/nvml-sim/readers/setup.sh) $(CARGO) test --workspace --locked --test it -- --ignored --nocapture prints_the_simulated_gpus

.PHONY: setup
setup: $(VENV)/ready ## what the machine lacks: Debian packages if it may, a Python environment

.PHONY: torture
torture: build ## control killed after each call that changes something, and each such call's answer lost: up and down (LABS=4 side by side)
	$(BIN)/torture $(if $(LABS),--labs $(LABS))

.PHONY: torture-sample
torture-sample: build ## a seeded twenty of these, which CI plays
	$(BIN)/torture --sample 20

.PHONY: torture-throttled
torture-throttled: build ## an account that throttles, fails and answers one behind: what it costs in calls (in `make test` too)
	$(CARGO) test --workspace --locked --test it -- --nocapture a_throttled_account

.PHONY: transcripts
transcripts: build ## what a person sees on two terminals and in a log, against tests/e2e/transcripts (UPDATE_GOLDEN=1 writes them)
	$(CARGO) test --workspace --locked --test it -- --ignored --nocapture what_a_person_sees

.PHONY: torture-crashes
torture-crashes: build ## the join killed at every point of its journal, one node for each
	$(CARGO) test --workspace --locked --test it -- --ignored --nocapture killed_at_any_point

.PHONY: torture-reports
torture-reports: build ## 300 agents that fail at once, against the account's limit of three reports a second
	nice -n -10 $(BIN)/storm

.PHONY: e2e
e2e: build e2e-setup ## the stories of a fleet and its nodes, on real Kubernetes and machines; says what it skips where that cannot be
	$(BIN)/e2e

.PHONY: e2e-full
e2e-full: build e2e-setup ## the same with nothing shortened, and on the stand-ins after that
	$(BIN)/e2e --full
	$(BIN)/e2e --kubernetes standin --nodes process

.PHONY: image
image: build e2e-setup image-setup ## packer/: fmt, validate, a real build against the lab, what a failed one leaves, a fleet that boots from it
	@packer=$$(tests/lab/parts/packer.sh) || { [ $$? -eq 3 ] && [ "$$REQUIRE" != 1 ]; exit; }; $(BIN)/image --packer $$packer

.PHONY: image-setup
image-setup: ## Packer and its amazon plugin, built once from the Go module proxy into the same cache (minutes)
	@tests/lab/parts/packer.sh >/dev/null || [ $$? -eq 3 ]

.PHONY: e2e-vm
e2e-vm: baked-image ## the baked disk as a virtual machine (QEMU, software emulation, cgroup v2): its join, and its units' sandboxes tried from inside
	$(BIN)/e2e_vm

# Made where there is none, or one of another agent or template; where Packer cannot be had, that is said and none is made.
.PHONY: baked-image
baked-image: build e2e-setup image-setup
	@$(MAKE) --no-print-directory $(BAKED)

$(BAKED): $(TARBALL) $(shell find packer -type f)
	@packer=$$(tests/lab/parts/packer.sh) || { [ $$? -eq 3 ] && [ "$$REQUIRE" != 1 ]; exit; }; $(BIN)/image --packer $$packer --build-only

.PHONY: e2e-setup
e2e-setup: ## the lab's real parts, into a cache outside the tree: Kubernetes, nodeadm, etcd, containerd
	tests/lab/parts/setup.sh

$(VENV)/ready: tests/lab/setup.sh tests/lab/emulator/requirements.txt tests/nvml-sim/readers/requirements.txt
	tests/lab/setup.sh $(VENV)

.PHONY: bench
bench: build ## what the agent costs, each figure beside its peer's, and control on fleets of size: target/bench/{summary,control}.json
	$(RELEASE)
	$(BIN)/lab bench --agent target/release/rollcall-agent
	$(BIN)/fleet_bench

.PHONY: dist
dist: setup dist-parts ## the agent for AMIs and nodes: tarball, deb, rpm, bill of materials and checksums, into target/dist

.PHONY: dist-parts
dist-parts:
	$(RELEASE)
	amis/dist.sh target/release/rollcall-agent target/dist

.PHONY: dist-twice
dist-twice: setup ## the same release built in two directories: the same checksums
	amis/dist-twice.sh

.PHONY: operate-doc
operate-doc: ## write docs/operate.md anew from the table of reasons
	UPDATE_GOLDEN=1 $(CARGO) test --workspace --locked --test it -- operate_page
