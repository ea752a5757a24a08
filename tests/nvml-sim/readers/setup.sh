#!/usr/bin/env bash
# Gets the foreign readers of GPUs into a cache outside the tree: nvitop from PyPI, nvidia-smi from Debian's non-free section.
# Installs nothing on this machine. Idempotent. Prints the folder; what cannot be had here is named on stderr and left out.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
base=${XDG_CACHE_HOME:-${HOME:?needed for the cache, or XDG_CACHE_HOME}/.cache}/rollcall-lab
# The newest release that has it: an older Debian's programs would want an older driver.
release=trixie
dir=$base/gpu-readers-$(cat "$here/setup.sh" "$here"/requirements*.txt | sha256sum | head -c 10)
mkdir -p "$dir"
echo "$dir"

say() { echo "gpu-readers: $*" >&2; }

nvitop() {
    [ -e "$dir/venv/ready" ] && return 0
    rm -rf "$dir/venv"
    timeout 60 python3 -m venv "$dir/venv" &&
        timeout 300 "$dir/venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements-nvitop.txt" &&
        touch "$dir/venv/ready"
}

# Package lists of its own: the machine's are not touched.
nvidia_smi() {
    [ -e "$dir/nvidia-smi/version" ] && return 0
    local apt=$dir/apt key=/usr/share/keyrings/debian-archive-keyring.gpg
    rm -rf "$dir/nvidia-smi" "$apt"
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$dir/nvidia-smi"
    if ! [ -r "$key" ] || ! command -v apt-get >/dev/null; then
        echo "no apt-get, or no Debian keyring"
        return 1
    fi
    # Wherever this machine has its own Debian from.
    local mirror
    # shellcheck disable=SC2016 # apt's own variable
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m 1 '/debian/*$') || {
        echo "apt knows no Debian mirror"
        return 1
    }
    echo "deb [signed-by=$key] $mirror $release non-free" >"$apt/sources.list"
    local options=(
        -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null -o "Dir::State::Lists=$apt/lists"
        -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root
    )
    timeout 120 apt-get -qq "${options[@]}" update &&
        (cd "$apt" && timeout 120 apt-get -qq "${options[@]}" download nvidia-smi) &&
        dpkg-deb -x "$apt"/nvidia-smi_*.deb "$apt/root" &&
        cp "$apt/root/usr/lib/nvidia/current/nvidia-smi" "$dir/nvidia-smi/" &&
        dpkg-deb -f "$apt"/nvidia-smi_*.deb Version | sed 's/-.*//' >"$dir/nvidia-smi/version.new" &&
        mv "$dir/nvidia-smi/version.new" "$dir/nvidia-smi/version" &&
        rm -rf "$apt"
}

for part in nvitop nvidia_smi; do
    if ! why=$("$part" 2>&1); then
        say "skipping ${part/_/-}: $(tail -n 1 <<<"$why")"
    fi
done
