#!/usr/bin/env bash
# Builds Packer and its amazon plugin from the Go module proxy into the lab's cache, beside the other parts; versions.env and the
# go.mod of packer/ and packer-plugin-amazon/ pin them. Idempotent; installs nothing on this machine.
#
#   packer.sh          get what is missing; prints the folder that holds `packer` and `plugins/`
#   packer.sh --where  print that folder, whether or not it is there
#
# Exit code 3: it cannot be had here (no Go, no network), said on standard error. E2E_SETUP_SECONDS bounds the whole (1200);
# what Go has compiled by then it keeps, and a later run goes on from there.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck disable=SC1091 # beside this file
. "$here/versions.env"
# shellcheck disable=SC2034 # both are read by lib.sh
limit=${E2E_SETUP_SECONDS:-1200} who=image-setup
# shellcheck source=tests/lab/parts/lib.sh
. "$here/lib.sh"

sources=(packer/go.mod packer/go.sum packer-plugin-amazon/go.mod packer-plugin-amazon/go.sum)
dir=$base/packer-$PACKER_VERSION-amazon-$PACKER_AMAZON_VERSION-$(hash "${sources[@]}")
if [ "${1:-}" = --where ]; then
    echo "$dir"
    exit 0
fi

# The two modules require what versions.env pins.
check_pins() {
    local pin
    for pin in "packer v$PACKER_VERSION" "packer-plugin-amazon v$PACKER_AMAZON_VERSION"; do
        grep -q "github.com/hashicorp/$pin\b" "$here/${pin% *}/go.mod" ||
            { say "${pin% *}/go.mod does not require ${pin#* }, which versions.env pins"; exit 1; }
    done
}

# A plugin is found below PACKER_PLUGIN_PATH by a name that says its version and API, with its checksum beside it: Packer's own
# command puts both there.
build_packer() {
    local module=github.com/hashicorp
    go_build packer "$1/packer" $module/packer '' &&
        go_build packer-plugin-amazon "$1/packer-plugin-amazon" $module/packer-plugin-amazon '' &&
        mkdir "$1/plugins" "$1/home" &&
        CHECKPOINT_DISABLE=1 PACKER_CONFIG_DIR="$1/home" PACKER_PLUGIN_PATH="$1/plugins" bounded 60 \
            "$1/packer" plugins install --path "$1/packer-plugin-amazon" github.com/hashicorp/amazon &&
        rm -rf "${1:?}/packer-plugin-amazon" "${1:?}/home"
}

check_pins
take_lock
if command -v go >/dev/null; then make_part "$dir" packer build_packer; else skip packer "go is missing"; fi
[ -d "$dir" ] || exit 3
echo "$dir"
