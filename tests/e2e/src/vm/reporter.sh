#!/bin/bash
# Tells the harness outside, by the second serial port, what the journal, systemd and the agent say inside: one line each, again
# and again until the machine ends.
exec >/dev/ttyS1
units="rollcall-join rollcall-agent kubelet nodeadm-run cloud-final"
baked=$(sed -n 's/^ *"agent": .*"sha256": "\([0-9a-f]*\)".*/\1/p' /usr/share/rollcall/image.json 2>/dev/null)
agent=
while :; do
    journalctl -o cat -u rollcall-agent.service -u rollcall-join.service --no-pager 2>/dev/null | grep '^PROBE '
    # shellcheck disable=SC2086 # a list of names
    systemctl show -p Id,ActiveState,SubState,Result,NRestarts $units | awk -v RS= -F'\n' '{
        for (field = 1; field <= NF; field++) { split($field, of, "="); is[of[1]] = of[2] }
        print "UNIT " is["Id"] " " is["ActiveState"] "/" is["SubState"] " result=" is["Result"] " restarts=" is["NRestarts"]
    }'
    echo "CGROUP $(stat -f -c %T /sys/fs/cgroup)"
    [ -s /run/rollcall/report.json ] && echo "REPORT $(tr -d '\n' </run/rollcall/report.json)"
    [ -e /run/rollcall-gate/admitted ] && echo "ADMITTED yes"
    echo "FAILED $(systemctl list-units --failed --plain --no-legend | cut -d' ' -f1 | tr '\n' ' ')"
    # Of the program that runs, whatever lies on the disk: read once, which takes a while here.
    if [ -z "$agent" ] && systemctl -q is-active rollcall-agent.service; then
        agent=$(sha256sum "/proc/$(systemctl show -P MainPID rollcall-agent.service)/exe" | cut -d' ' -f1)
    fi
    [ -z "$agent" ] || echo "AGENT $agent"
    [ -z "$baked" ] || echo "BAKED $baked"
    echo "MACHINE-ID $(cat /etc/machine-id)"
    echo "END"
    sleep 5
done
