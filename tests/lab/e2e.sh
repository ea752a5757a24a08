#!/usr/bin/env bash
# `make e2e`: the main job on real Kubernetes and machines: `control up` with two system and two GPU nodes, a pod that gets a
# GPU, a node that is kept out and one without its CNI, both lifted, `control down`, and nothing left. Says what it skips and
# ends with 0 where the real parts or root are missing; `REQUIRE=1` makes that a failure.
set -euo pipefail
cd "$(dirname "$0")/../.."

bin=$PWD/target/debug
lab=$PWD/target/e2e/lab
kubectl_config=$PWD/target/e2e/kubeconfig
fleet=$PWD/target/e2e/fleet.yaml
export PATH=$bin:$PATH LAB_PYTHON=${LAB_PYTHON:-$PWD/target/venv/bin/python}

say() { echo "e2e: $*" >&2; }
fail() {
    say "FAILED: $*"
    exit 1
}

mkdir -p target/e2e
if ! lab up --dir "$lab" --kubernetes real --nodes machine --speed 0.005; then
    [ "${REQUIRE:-}" != 1 ] || fail "the real parts are required"
    say "skipped: this machine cannot run real Kubernetes on machine nodes"
    exit 0
fi
trap 'lab down --dir "$lab" >/dev/null' EXIT
# shellcheck disable=SC1091 # written by lab up
. "$lab/env"
kubernetes=$(sed -nE 's/.*"kubernetes": .*"path": "([^"]*)".*/\1/p' "$(tests/lab/parts/setup.sh --where)/parts.json")
kubectl() { "${kubernetes%/*}/kubectl" --kubeconfig "$kubectl_config" "$@"; }

# until SECONDS WHAT COMMAND...: polls until the command succeeds.
until_true() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || fail "$what within the time"
        sleep 0.5
    done
}
ready() { [ "$(kubectl get nodes --no-headers 2>/dev/null | grep -c ' Ready ')" -eq "$1" ]; }
# in_node INSTANCE COMMAND...: in the machine of an instance, whose systemd is the child of its `unshare`.
in_node() {
    local unshare init
    unshare=$(pgrep -f "unshare --fork --kill-child .*/$1/machine/init.sh")
    init=$(pgrep -P "$unshare")
    shift
    nsenter -t "$init" -a "$@"
}
instance() { lab status --dir "$lab" -o json | python3 -c "
import json, sys
print(next(n['instance'] for n in json.load(sys.stdin)['nodes'] if (n['pool'], n['index']) == ('$1', $2)))"; }

sed 's/desired: 4, max: 4/desired: 2, max: 4/' examples/demo.yaml >"$fleet"

say "1. control up: four nodes Ready, all GPUs proven"
started=$SECONDS
control up -f "$fleet" --yes
took=$((SECONDS - started))
[ "$took" -le 180 ] || fail "control up took $took s"
rm -f "$kubectl_config"
control kubeconfig --kubeconfig "$kubectl_config"
kubectl get nodes
ready 4 || fail "four nodes are not Ready"

say "2. a pod that asks for a GPU runs"
kubectl apply -f - <<'END'
apiVersion: v1
kind: Pod
metadata: {name: one-gpu}
spec:
  tolerations: [{operator: Exists}]
  containers:
    - name: one-gpu
      image: 602401143452.dkr.ecr.us-east-1.amazonaws.com/eks/coredns:v1.12.4-eksbuild.1
      imagePullPolicy: Never
      resources: {limits: {nvidia.com/gpu: 1}}
END
kubectl wait --for=condition=Ready pod/one-gpu --timeout=30s

say "3. down, and again with a driver that does not match on one node and no CNI on the other"
control down -f "$fleet" --yes
lab fault --dir "$lab" gpu/0 driver-library-mismatch
lab fault --dir "$lab" gpu/1 cni-held
control up -f "$fleet" --yes >target/e2e/up.log 2>&1 &
up=$!
broken() { grep -q DriverLibraryMismatch "$lab"/nodes/"$(instance gpu 0)"/root/dev/console; }
registered() { [ "$(kubectl get nodes --no-headers 2>/dev/null | wc -l)" -eq 3 ]; }
until_true 90 "system nodes are Ready" grep -q 'CoreDNS available' target/e2e/up.log
until_true 60 "the broken driver is named" broken 2>/dev/null
control kubeconfig --kubeconfig "$kubectl_config"
until_true 60 "the node without a CNI registers" registered
ready 2 || fail "the node without a CNI is Ready"
kept_out=$(instance gpu 0) held=$(instance gpu 1)
[ "$(in_node "$kept_out" systemctl show -p ExecMainPID --value kubelet)" = 0 ] || fail "kubelet was started behind a closed gate"

say "4. a killed agent comes back, and kubelet does not notice"
before=$(in_node "$held" systemctl show -p ExecMainPID --value kubelet)
in_node "$held" systemctl kill -s KILL rollcall-join
restarted() { [ "$(in_node "$held" systemctl show -p NRestarts --value rollcall-join)" -ge 1 ]; }
until_true 15 "the agent is restarted" restarted
[ "$(in_node "$held" systemctl show -p ExecMainPID --value kubelet)" = "$before" ] || fail "kubelet was restarted with the agent"
in_node "$held" test -e /run/rollcall-gate/admitted || fail "admitted went with the agent"

say "5. both faults lifted: the nodes join by themselves"
lab fault --dir "$lab" gpu/0 clear
lab fault --dir "$lab" gpu/1 clear
until_true 90 "both nodes are Ready" ready 4
# What `up` says of a node that failed first and joined later is its own affair; it must end.
wait "$up" || true

say "6. down: nothing is left"
control down -f "$fleet" --yes
lab down --dir "$lab"
trap - EXIT
left=$(
    ip netns list | grep '^rollcall-' || true
    ip -brief link | grep '^rollcall-lab' || true
    ls -d /sys/fs/cgroup/*/rollcall-lab 2>/dev/null || true
    grep -F "$lab" /proc/mounts || true
    pgrep -af "$lab/nodes" || true
)
[ -z "$left" ] || fail "left over: $left"
say "passed in $SECONDS s"
