#!/bin/bash
# Installs the agent that /etc/rollcall/agent.yaml names. Runs in cloud-final, before nodeadm-run.
set -u
url='@URL@'
sha256='@SHA256@'
region='@REGION@'

# Also without network and IAM: whoever reads the serial console learns why.
fail() {
    now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
    line='ROLLCALL {"schema":"1.0","at":"'"$now"'","outcome":"failed","attempt":1,"reasons":["AgentInstallFailed"],"summary":"'"$1"'"}'
    printf '%s\n' "$line" >/dev/console
    logger -t rollcall-install "$line"
    # The node joins without us, unless it was told to stay out.
    if grep -Eq '^onAgentFault:[[:space:]]*"?closed"?[[:space:]]*$' /etc/rollcall/agent.yaml; then
        systemctl disable nodeadm-run.service
        systemctl stop --no-block nodeadm-run.service
    fi
    exit 1
}

tarball=$(mktemp) || fail 'no room for the tarball'
trap 'rm -f "$tarball"' EXIT
case $url in
    s3://*)
        timeout 120 aws s3 cp --only-show-errors --region "$region" "$url" "$tarball" ||
            fail 'could not fetch the tarball from S3 with the role of this instance' ;;
    *)
        curl -fsS --proto '=https' --location --retry 5 --retry-all-errors --max-time 120 -o "$tarball" "$url" ||
            fail 'could not fetch the tarball' ;;
esac
echo "$sha256  $tarball" | sha256sum --check --status ||
    fail 'the SHA-256 of the tarball is not the one in the user data'
tar -xzf "$tarball" -C / --no-same-owner --no-overwrite-dir || fail 'could not unpack the tarball'

systemctl daemon-reload
# Disabled for the boots to come; stopped, because in this one its start is queued already. Nothing
# here may wait: we run inside cloud-final, which those units are ordered after.
systemctl disable nodeadm-run.service
systemctl stop --no-block nodeadm-run.service
systemctl enable rollcall-join.service rollcall-agent.service
systemctl start --no-block rollcall-join.service rollcall-agent.service
