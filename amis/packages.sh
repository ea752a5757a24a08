#!/usr/bin/env bash
# Makes the deb and the rpm from what `files` lists. The same inputs give the same bytes.
# GZIP_LEVEL=1 is quicker and larger.
set -euo pipefail

if [ $# -ne 3 ]; then
    echo "usage: $0 AGENT_BINARY VERSION DIRECTORY" >&2
    exit 64
fi
agent=$1 version=$2 out=$3
here=$(cd "$(dirname "$0")" && pwd)
# Some date, always the same: rpmbuild takes 0 for none.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-315532800}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
case $(uname -m) in
    x86_64) deb_arch=amd64 rpm_arch=x86_64 ;;
    aarch64) deb_arch=arm64 rpm_arch=aarch64 ;;
    *) echo "$0: no package for $(uname -m)" >&2 && exit 1 ;;
esac
summary='Bootstrap and health agent for GPU workers of EKS clusters'
text='Takes a node from power-on to a proven, Ready GPU worker, and says why when it does not get there.'
mkdir -p "$out"

# Directories that only we use; others belong to the system.
own_directories() {
    awk '$2 == "-" { print $3 }' "$here/files"
    echo /usr/libexec/rollcall
}

dated() {
    find "$1" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
}

deb() {
    local root=$work/deb
    "$here/stage.sh" "$agent" "$root"
    install -d -m 0755 "$root/DEBIAN"
    cat >"$root/DEBIAN/control" <<EOF
Package: rollcall-agent
Version: $version
Architecture: $deb_arch
Maintainer: Rollcall
Section: admin
Priority: optional
Description: $summary
 $text
EOF
    local hook call
    while read -r hook call; do
        { cat "$here/package/hooks.sh" && printf '\n%s\n' "$call"; } >"$root/DEBIAN/$hook"
        chmod 0755 "$root/DEBIAN/$hook"
    done <<'EOF'
postinst if [ "$1" = configure ] && [ -z "${2-}" ]; then installed; elif [ "$1" = configure ]; then upgraded; fi
prerm if [ "$1" = remove ]; then removing; fi
postrm case $1 in remove) reload ;; purge) purged ;; esac
EOF
    dated "$root"
    dpkg-deb --root-owner-group -Zgzip "-z${GZIP_LEVEL:-9}" --build "$root" "$out/rollcall-agent_${version}_${deb_arch}.deb" >/dev/null
}

rpm() {
    local root=$work/rpm
    mkdir -p "$work/top" "$root"
    "$here/stage.sh" "$agent" "$root"
    dated "$root"
    {
        cat <<EOF
Name: rollcall-agent
Version: $version
Release: 1
Summary: $summary
License: Apache-2.0
BuildArch: $rpm_arch
AutoReqProv: no
%description
$text
%install
cp -a $root/. %{buildroot}/
%files
%defattr(-,root,root,-)
EOF
        own_directories | sed 's/^/%dir /'
        awk '$1 ~ /^0/ && $2 != "-" { print "%attr(" $1 ",root,root) " $3 }' "$here/files"
        local hook call
        while read -r hook call; do
            printf '%%%s -p /bin/sh\n' "$hook"
            # A percent sign begins a macro.
            sed 's/%/%%/g' "$here/package/hooks.sh"
            printf '%s\n' "$call"
        done <<'EOF'
post if [ "$1" -eq 1 ]; then installed; else upgraded; fi
preun if [ "$1" -eq 0 ]; then removing; fi
postun if [ "$1" -eq 0 ]; then reload; purged; fi
EOF
    } >"$work/rollcall-agent.spec"
    rpmbuild -bb --quiet --target "$rpm_arch" \
        --define "_topdir $work/top" --define "_rpmdir $work/top" --define "_buildhost rollcall" \
        --define "_binary_payload w${GZIP_LEVEL:-9}.gzdio" --define "__os_install_post %{nil}" \
        --define "debug_package %{nil}" --define "clamp_mtime_to_source_date_epoch 1" \
        --define "use_source_date_epoch_as_buildtime 1" --define "_build_id_links none" \
        "$work/rollcall-agent.spec" >"$work/rpm.log" 2>&1 || { cat "$work/rpm.log" >&2; return 1; }
    mv "$work/top/$rpm_arch/"*.rpm "$out/"
}

deb
if command -v rpmbuild >/dev/null; then rpm; else
    echo "$0: no rpm was made: rpmbuild is not installed (Debian: rpm)" >&2
fi
