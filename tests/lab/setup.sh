#!/usr/bin/env bash
# Sets up what a fresh Debian machine lacks: a C compiler, rpmbuild, shellcheck and Python's venv from Debian where we may
# install packages, and a Python environment with the emulator's pinned versions. Idempotent.
set -euo pipefail

venv=${1:?usage: setup.sh VENV}
here=$(cd "$(dirname "$0")" && pwd)

missing=()
command -v cc >/dev/null || missing+=(build-essential)
command -v curl >/dev/null || missing+=(curl)
command -v rpmbuild >/dev/null || missing+=(rpm)
command -v shellcheck >/dev/null || missing+=(shellcheck)
command -v python3 >/dev/null || missing+=(python3)
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "setup: please install: ${missing[*]} (as root: apt-get install ${missing[*]})" >&2
        exit 1
    fi
    echo "setup: installing ${missing[*]}" >&2
    timeout 300 apt-get -qq update
    DEBIAN_FRONTEND=noninteractive timeout 600 apt-get -qq install -y "${missing[@]}" >/dev/null
fi
if ! command -v cargo >/dev/null; then
    echo "setup: cargo is missing: install Rust 1.95 or newer, for example with rustup" >&2
    exit 1
fi

if [ ! -x "$venv/bin/python" ]; then
    echo "setup: making the Python environment $venv" >&2
    python3 -m venv "$venv"
fi
timeout 600 "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    -r "$here/emulator/requirements.txt" -r "$here/../nvml-sim/readers/requirements.txt"
touch "$venv/ready"
