//! Units of an EKS node on AL2023, by the names, ordering and commands that they have there, and
//! cloud-init's stages with the double behind them.

/// One unit file.
pub(super) struct Unit {
    pub(super) name: &'static str,
    /// Whether the image enables it.
    pub(super) enabled: bool,
    pub(super) text: &'static str,
}

pub(super) static UNITS: &[Unit] = &[
    Unit {
        name: "nodeadm-boot-hook.service",
        enabled: true,
        // The real one waits for systemd-networkd, which a machine in a namespace does not run.
        text: "[Unit]\nDescription=Wait for the primary interface (double)\n\
            Before=nodeadm-config.service systemd-networkd-wait-online.service\n\
            [Service]\nType=oneshot\nExecStart=/bin/sh -c 'ip -4 address show dev eth0 | grep -q inet'\n\
            [Install]\nWantedBy=multi-user.target\n",
    },
    Unit {
        name: "nodeadm-config.service",
        enabled: true,
        text: "[Unit]\nDescription=nodeadm, configuration phase\n\
            After=nodeadm-boot-hook.service systemd-networkd-wait-online.service\nBefore=cloud-init.service\n\
            [Service]\nType=oneshot\n\
            ExecStart=/usr/bin/nodeadm init --skip run --config-source imds://user-data --config-cache /run/eks/nodeadm/config.json\n\
            StandardError=journal+console\n[Install]\nWantedBy=multi-user.target\n",
    },
    Unit {
        name: "nodeadm-run.service",
        enabled: true,
        text: "[Unit]\nDescription=nodeadm, run phase\nAfter=nodeadm-config.service cloud-final.service\n\
            Requires=nodeadm-config.service\n\
            [Service]\nType=oneshot\n\
            ExecStart=/usr/bin/nodeadm init --skip config --config-source imds://user-data \
            --config-source file:///etc/eks/nodeadm.d/ --config-cache /run/eks/nodeadm/config.json\n\
            StandardError=journal+console\n[Install]\nWantedBy=multi-user.target\n",
    },
    Unit {
        name: "kubelet.service",
        enabled: false,
        text: "[Unit]\nDescription=Kubernetes kubelet\nAfter=containerd.service\nWants=containerd.service\n\
            [Service]\nType=simple\nSlice=runtime.slice\nEnvironmentFile=/etc/eks/kubelet/environment\n\
            ExecStartPre=/sbin/iptables -P FORWARD ACCEPT -w 5\n\
            ExecStart=/usr/bin/kubelet $NODEADM_KUBELET_ARGS\n\
            Restart=on-failure\nRestartForceExitStatus=SIGPIPE\nRestartSec=5\nKillMode=process\n",
    },
    Unit {
        name: "containerd.service",
        enabled: false,
        // AL2023 has the images in its content store; here they come in when containerd has started.
        text: "[Unit]\nDescription=containerd\nAfter=network.target\n\
            [Service]\nType=notify\nSlice=runtime.slice\nExecStart=/usr/bin/containerd\n\
            ExecStartPost=/usr/libexec/rollcall-lab/import-images\n\
            Delegate=yes\nKillMode=process\nRestart=always\nRestartSec=5\n\
            LimitNOFILE=infinity\nTasksMax=infinity\n",
    },
    Unit {
        name: "cloud-init.service",
        enabled: true,
        text: "[Unit]\nDescription=cloud-init-double, first stage: files\nAfter=nodeadm-config.service\n\
            Before=cloud-final.service\n\
            [Service]\nType=oneshot\nRemainAfterExit=yes\nTimeoutSec=0\n\
            ExecStart=/usr/bin/cloud-init-double init\n\
            StandardOutput=journal+console\n[Install]\nWantedBy=multi-user.target\n",
    },
    Unit {
        name: "cloud-final.service",
        enabled: true,
        text: "[Unit]\nDescription=cloud-init-double, last stage: user scripts\nAfter=cloud-init.service\n\
            [Service]\nType=oneshot\nRemainAfterExit=yes\nTimeoutSec=0\nKillMode=process\n\
            ExecStart=/usr/bin/cloud-init-double final\n\
            StandardOutput=journal+console\n[Install]\nWantedBy=multi-user.target\n",
    },
];

/// Units of the host's systemd that a machine is better without: the first writes on its console,
/// the others wait for hardware.
pub(super) const MASKED: [&str; 5] = [
    "console-getty.service",
    "systemd-udevd.service",
    "systemd-udev-trigger.service",
    "systemd-networkd.service",
    "systemd-networkd-wait-online.service",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubelet_and_containerd_wait_for_nodeadm_and_the_rest_starts_at_boot() {
        for unit in UNITS {
            let by_nodeadm = ["kubelet.service", "containerd.service"].contains(&unit.name);
            assert_eq!(unit.enabled, !by_nodeadm, "{}", unit.name);
            assert_eq!(unit.text.contains("[Install]"), unit.enabled, "{}", unit.name);
            assert!(!MASKED.contains(&unit.name));
        }
    }

    #[test]
    fn user_scripts_come_between_the_two_phases_of_nodeadm() {
        let text = |name: &str| UNITS.iter().find(|unit| unit.name == name).unwrap().text;
        assert!(text("nodeadm-config.service").contains("Before=cloud-init.service"));
        assert!(text("cloud-final.service").contains("After=cloud-init.service"));
        assert!(
            text("nodeadm-run.service")
                .contains("After=nodeadm-config.service cloud-final.service")
        );
    }
}
