//! What nodeadm writes for kubelet: its configuration, its flags, its kubeconfig. Pure.

use serde_json::{Map, Value, json};

use super::config::NodeConfigSpec;
use super::enrich::InstanceDetails;

/// Where kubelet's own configuration goes.
pub(super) const CONFIG: &str = "etc/kubernetes/kubelet/config.json";
/// Where the user's part of it goes, in a drop-in.
pub(super) const DROP_IN: &str = "etc/kubernetes/kubelet/config.json.d/40-nodeadm.conf";
/// Where the kubeconfig goes.
pub(super) const KUBECONFIG: &str = "var/lib/kubelet/kubeconfig";
/// Where the cluster's certificate authority goes.
pub(super) const CA: &str = "etc/kubernetes/pki/ca.crt";
/// Where the flags go.
pub(super) const ENVIRONMENT: &str = "etc/eks/kubelet/environment";
/// Where the credential provider's configuration goes.
pub(super) const CREDENTIAL_PROVIDER: &str = "etc/eks/image-credential-provider/config.json";

/// Pods that fit a type: ENIs of the default network card × (addresses − 1) + 2. The real table
/// has 1,384 rows; an unknown type gets 110, as in nodeadm when EC2 does not say.
const MAX_PODS: &[(&str, u32)] = &[
    ("g4dn.xlarge", 29),
    ("g5.xlarge", 58),
    ("g6.xlarge", 58),
    ("m6i.large", 29),
    ("m6i.xlarge", 58),
    ("m6i.2xlarge", 58),
    ("g5.48xlarge", 345),
    ("g6e.48xlarge", 492),
    ("p4d.24xlarge", 737),
    ("p5.48xlarge", 100),
    ("p5en.48xlarge", 198),
    ("p6-b200.48xlarge", 198),
];

fn max_pods(instance_type: &str) -> u32 {
    MAX_PODS.iter().find(|(name, _)| *name == instance_type).map_or(110, |(_, pods)| *pods)
}

/// The name of the Node object.
pub(super) fn node_name(spec: &NodeConfigSpec, details: &InstanceDetails) -> String {
    if spec.gate("InstanceIdNodeName") {
        details.id.clone()
    } else {
        details.private_dns_name.clone()
    }
}

/// `<first three octets of the service range>.10`.
fn cluster_dns(cidr: &str) -> String {
    let address = cidr.split('/').next().unwrap_or_default();
    address.rsplit_once('.').map_or_else(|| format!("{address}a"), |(head, _)| format!("{head}.10"))
}

/// kubelet's configuration.
pub(super) fn configuration(spec: &NodeConfigSpec, details: &InstanceDetails) -> Value {
    let pods = max_pods(&details.instance_type);
    json!({
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "address": "0.0.0.0",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"cacheTTL": "2m0s", "enabled": true},
            "x509": {"clientCAFile": "/etc/kubernetes/pki/ca.crt"},
        },
        "authorization": {"mode": "Webhook", "webhook": {"cacheAuthorizedTTL": "5m0s", "cacheUnauthorizedTTL": "30s"}},
        "cgroupDriver": "systemd",
        "cgroupRoot": "/",
        "clusterDNS": [cluster_dns(&spec.cluster.cidr)],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "10%", "nodefs.inodesFree": "5%"},
        "featureGates": {
            "DynamicResourceAllocation": true,
            "MutableCSINodeAllocatableCount": true,
            "RotateKubeletServerCertificate": true,
        },
        "hairpinMode": "hairpin-veth",
        "kubeReserved": {"ephemeral-storage": "1Gi", "memory": format!("{}Mi", 11 * pods + 255)},
        "kubeReservedCgroup": "/runtime",
        "logging": {"verbosity": 2},
        "maxPods": pods,
        "protectKernelDefaults": true,
        "providerID": format!("aws:///{}/{}", details.availability_zone, details.id),
        "readOnlyPort": 0,
        "serializeImagePulls": false,
        "serverTLSBootstrap": true,
        "shutdownGracePeriod": "2m30s",
        "shutdownGracePeriodCriticalPods": "30s",
        "systemReservedCgroup": "/system",
        "tlsCipherSuites": ["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"],
    })
}

/// The user's part of kubelet's configuration; none when there is nothing of it.
pub(super) fn drop_in(spec: &NodeConfigSpec) -> Option<Value> {
    if spec.kubelet.config.is_empty() {
        return None;
    }
    let mut map = Map::new();
    map.insert("apiVersion".into(), "kubelet.config.k8s.io/v1beta1".into());
    map.insert("kind".into(), "KubeletConfiguration".into());
    map.extend(spec.kubelet.config.clone());
    Some(Value::Object(map))
}

/// The environment file: nodeadm's flags, the user's last.
pub(super) fn environment(spec: &NodeConfigSpec, details: &InstanceDetails) -> String {
    let mut flags = vec![
        "--cloud-provider=external".to_owned(),
        "--config=/etc/kubernetes/kubelet/config.json".to_owned(),
        format!("--hostname-override={}", node_name(spec, details)),
        "--image-credential-provider-bin-dir=/etc/eks/image-credential-provider".to_owned(),
        "--image-credential-provider-config=/etc/eks/image-credential-provider/config.json"
            .to_owned(),
        "--kubeconfig=/var/lib/kubelet/kubeconfig".to_owned(),
        format!("--node-ip={}", details.node_ip),
        "--runtime-cgroups=/runtime.slice/containerd.service".to_owned(),
    ];
    if !spec.kubelet.config.is_empty() {
        flags.push("--config-dir=/etc/kubernetes/kubelet/config.json.d".to_owned());
    }
    flags.extend(spec.kubelet.flags.iter().cloned());
    format!("NODEADM_KUBELET_ARGS={}\n", flags.join(" "))
}

/// The kubeconfig, whose token comes from the AWS CLI.
pub(super) fn kubeconfig(spec: &NodeConfigSpec, details: &InstanceDetails) -> String {
    let cluster = &spec.cluster;
    format!(
        "---\napiVersion: v1\nkind: Config\nclusters:\n  - name: kubernetes\n    cluster:\n      \
         certificate-authority: /etc/kubernetes/pki/ca.crt\n      server: {}\n\
         current-context: kubelet\ncontexts:\n  - name: kubelet\n    context:\n      \
         cluster: kubernetes\n      user: kubelet\nusers:\n  - name: kubelet\n    user:\n      exec:\n        \
         apiVersion: client.authentication.k8s.io/v1beta1\n        command: aws\n        args:\n          \
         - \"eks\"\n          - \"get-token\"\n          - \"--cluster-name\"\n          - \"{}\"\n          \
         - \"--region\"\n          - \"{}\"\n",
        cluster.api_server_endpoint, cluster.name, details.region
    )
}

/// The ECR credential provider's configuration.
pub(super) fn credential_provider() -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1",
        "kind": "CredentialProviderConfig",
        "providers": [{
            "name": "ecr-credential-provider",
            "matchImages": ["*.dkr.ecr.*.amazonaws.com", "public.ecr.aws", "ecr-public.aws.com"],
            "defaultCacheDuration": "12h0m0s",
            "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::super::config::{parse, tests::WHOLE};
    use super::*;

    fn details() -> InstanceDetails {
        InstanceDetails {
            id: "i-1".into(),
            instance_type: "p5.48xlarge".into(),
            availability_zone: "us-east-1a".into(),
            region: "us-east-1".into(),
            mac: "02:00".into(),
            private_dns_name: "ip-10-0-1-7.ec2.internal".into(),
            node_ip: "10.0.1.7".into(),
        }
    }

    #[test]
    fn the_node_is_named_as_the_configuration_says() {
        let spec = parse(WHOLE.as_bytes()).unwrap();
        assert_eq!(node_name(&spec, &details()), "ip-10-0-1-7.ec2.internal");
        let by_id = format!("{WHOLE}  featureGates: {{InstanceIdNodeName: true}}\n");
        assert_eq!(node_name(&parse(by_id.as_bytes()).unwrap(), &details()), "i-1");
    }

    #[test]
    fn the_users_flags_come_last() {
        let text =
            format!("{WHOLE}  kubelet: {{flags: [--node-labels=a=b], config: {{maxPods: 7}}}}\n");
        let spec = parse(text.as_bytes()).unwrap();
        let line = environment(&spec, &details());
        assert!(line.starts_with("NODEADM_KUBELET_ARGS=--cloud-provider=external "));
        assert!(
            line.ends_with(
                "--config-dir=/etc/kubernetes/kubelet/config.json.d --node-labels=a=b\n"
            )
        );
        assert!(line.contains("--hostname-override=ip-10-0-1-7.ec2.internal"));
        assert_eq!(drop_in(&spec).unwrap()["maxPods"], 7);
        let plain = parse(WHOLE.as_bytes()).unwrap();
        assert_eq!(drop_in(&plain), None);
        assert!(!environment(&plain, &details()).contains("--config-dir"));
    }

    #[test]
    fn the_configuration_follows_type_and_range() {
        let spec = parse(WHOLE.as_bytes()).unwrap();
        let value = configuration(&spec, &details());
        assert_eq!(value["clusterDNS"][0], "172.20.0.10");
        assert_eq!(value["maxPods"], 100);
        assert_eq!(value["kubeReserved"]["memory"], "1355Mi");
        assert_eq!(value["providerID"], "aws:///us-east-1a/i-1");
        assert_eq!(max_pods("unheard.of"), 110);
        let text = kubeconfig(&spec, &details());
        let parsed: Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(parsed["clusters"][0]["cluster"]["server"], "https://localhost:1");
        assert_eq!(parsed["users"][0]["user"]["exec"]["args"][3], "prod");
    }
}
