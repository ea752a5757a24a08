//! What all cases share: a lab of their own, and in it the fleet of `tests/corpus/fleet.yaml`, built
//! by `control` as it is.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::process::Command;

use super::case::{Case, Subnet};
use super::places::{Behind, Places};
use super::roles::Roles;
use super::user_data::{Base, Rendered};
use crate::aws::{Emulator, EmulatorError, Instance, xml_text};
use crate::directory::LabDirectory;
use crate::kubernetes::Operator;
use crate::supervisor::{FaultRequest, LIFT, Record, ask};
use crate::user_data::from_base64;

/// The fleet's name, and its pool that cases are launched beside.
const CLUSTER: &str = "corpus";
const POOL: &str = "gpu";

/// Where an image that brings the NodeConfig has it.
const NODE_ON_DISK: &str = "/etc/eks/nodeadm.d/10-image.yaml";

/// The range of a subnet that is to be full, and how many interfaces of others fill it: of its
/// sixteen addresses AWS keeps five for itself.
const SMALLEST: &str = "10.60.255.240/28";
const OTHERS: usize = 6;

/// How long EC2 may take to learn of an instance profile.
const LEARN: Duration = Duration::from_secs(30);

/// How long `control up` may take.
const UP: Duration = Duration::from_secs(180);

/// The stage.
#[derive(Debug)]
pub struct Stage {
    /// The lab's directory.
    pub directory: LabDirectory,
    /// The lab.
    pub record: Record,
    /// AWS.
    pub emulator: Emulator,
    /// The cluster, with the operator's rights.
    pub cluster: Operator,
    /// Where nodes can be sent to.
    pub places: Places,
    /// What the pool's instances boot from.
    pub base: Base,
    roles: Roles,
    image: String,
    neighbour: Instance,
}

impl Stage {
    /// Builds the fleet in a lab that serves.
    ///
    /// # Errors
    /// When `control` does not get it up, or AWS does not say what it has made.
    pub async fn set(
        directory: LabDirectory,
        record: Record,
        fleet: &Path,
    ) -> anyhow::Result<Self> {
        let operator = record.operator.clone().context("the lab has no operator")?;
        let emulator = Emulator::new(record.endpoint.clone(), record.region.clone(), operator);
        build(&directory, &record, fleet).await?;
        let name = format!("{CLUSTER}-{POOL}");
        let asked = [("LaunchTemplateName", name.as_str()), ("LaunchTemplateVersion.1", "$Latest")];
        let template = emulator.query("ec2", "DescribeLaunchTemplateVersions", &asked).await?;
        let field = |name: &str| {
            xml_text(&template, name).with_context(|| format!("the pool's template has no {name}"))
        };
        let (image, user_data) = (field("imageId")?, field("userData")?);
        let instances = emulator.instances().await?;
        let neighbour = instances.into_iter().find(|i| i.state == "running");
        let described = emulator.eks("GET", &format!("/clusters/{CLUSTER}"), None).await?;
        let cluster = Operator::of(&record, CLUSTER, &described["cluster"])?;
        let endpoint = described["cluster"]["endpoint"].as_str().unwrap_or_default();
        let behind = Behind { api: host_and_port(endpoint), aws: host_and_port(&record.endpoint) };
        Ok(Self {
            base: Base::of(&from_base64(&user_data)?)?,
            roles: Roles::new(emulator.clone(), CLUSTER.to_owned()),
            places: Places::open(behind).await.context("could not open the places")?,
            neighbour: neighbour.context("the fleet has no system node")?,
            directory,
            record,
            emulator,
            cluster,
            image,
        })
    }

    /// Launches a case's instance; gives its id.
    ///
    /// # Errors
    /// When the lab or AWS refuses.
    pub async fn launch(&self, case: &Case, rendered: &Rendered) -> anyhow::Result<String> {
        if let Some(agent) = &rendered.agent_on_disk {
            let write = format!("write={}:{agent}", contract::names::AGENT_CONFIG_PATH);
            self.fault(case, &write).await?;
        }
        if let Some(node) = &rendered.node_on_disk {
            self.fault(case, &format!("write={NODE_ON_DISK}:{node}")).await?;
        }
        for fault in &case.faults {
            self.fault(case, &self.places.fill(fault)).await?;
        }
        self.put_policy(case).await?;
        let subnet = match case.subnet {
            Subnet::Roomy => self.neighbour.subnet_id.clone(),
            Subnet::Full => self.full_subnet().await.context("could not fill a subnet")?,
        };
        let profile = self.roles.profile(&case.role).await?;
        let user_data = rendered.user_data.as_deref().map(base64);
        let tags = [
            (contract::names::TAG_POOL, case.case.as_str()),
            (contract::names::TAG_FLEET, CLUSTER),
            ("eks:cluster-name", CLUSTER),
        ];
        let mut parameters: Vec<(String, String)> = vec![
            ("ImageId".into(), self.image.clone()),
            ("InstanceType".into(), case.instance_type.clone()),
            ("MinCount".into(), "1".into()),
            ("MaxCount".into(), "1".into()),
            ("SubnetId".into(), subnet),
            ("TagSpecification.1.ResourceType".into(), "instance".into()),
        ];
        let groups = self.neighbour.security_groups.iter().enumerate();
        parameters.extend(groups.map(|(n, id)| (format!("SecurityGroupId.{}", n + 1), id.clone())));
        parameters.extend(user_data.map(|data| ("UserData".into(), data)));
        parameters.extend(profile.map(|name| ("IamInstanceProfile.Name".into(), name)));
        for (n, (key, value)) in tags.into_iter().enumerate() {
            let tag = format!("TagSpecification.1.Tag.{}", n + 1);
            parameters.push((format!("{tag}.Key"), key.into()));
            parameters.push((format!("{tag}.Value"), value.into()));
        }
        let parameters: Vec<(&str, &str)> =
            parameters.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let launched = self.run(&parameters).await.context("could not launch")?;
        xml_text(&launched, "instanceId").context("RunInstances says no instance")
    }

    /// The policy of the case's pool, where it has one.
    async fn put_policy(&self, case: &Case) -> anyhow::Result<()> {
        let Some(policy) = &case.policy else { return Ok(()) };
        let put = json!({"Name": contract::names::policy_parameter(CLUSTER, &case.case),
            "Value": policy.to_string(), "Type": "String", "Overwrite": true});
        self.emulator.ssm("PutParameter", &put).await.context("could not put the policy")?;
        Ok(())
    }

    /// A subnet of the smallest size, of whose addresses interfaces of other things take all but
    /// a few.
    async fn full_subnet(&self) -> anyhow::Result<String> {
        let vpc = self.neighbour.vpc_id.as_str();
        let zone = self.neighbour.zone.as_str();
        let asked = [("VpcId", vpc), ("AvailabilityZone", zone), ("CidrBlock", SMALLEST)];
        let made = self.emulator.query("ec2", "CreateSubnet", &asked).await?;
        let subnet = xml_text(&made, "subnetId").context("CreateSubnet says no subnet")?;
        for _ in 0..OTHERS {
            let asked = [("SubnetId", subnet.as_str())];
            self.emulator.query("ec2", "CreateNetworkInterface", &asked).await?;
        }
        Ok(subnet)
    }

    /// RunInstances, again as long as EC2 does not know the profile yet.
    async fn run(&self, parameters: &[(&str, &str)]) -> Result<String, EmulatorError> {
        let deadline = Instant::now() + LEARN;
        loop {
            match self.emulator.query("ec2", "RunInstances", parameters).await {
                Err(EmulatorError::Refused { body, .. })
                    if body.contains("Invalid IAM Instance Profile")
                        && Instant::now() < deadline =>
                {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                done => return done,
            }
        }
    }

    /// Breaks something of a case's node, or lifts everything with `clear`.
    ///
    /// # Errors
    /// When the lab refuses.
    pub async fn fault(&self, case: &Case, fault: &str) -> anyhow::Result<()> {
        let target = if case.alone && crate::faults::is_for_all(fault) {
            "all".to_owned()
        } else {
            format!("{}/0", case.case)
        };
        let request = FaultRequest { target, fault: fault.to_owned() };
        let (status, body) = ask(&self.record, "/faults", Some(&request)).await?;
        if status != 200 {
            bail!("the lab refuses {fault}: {}", body["error"].as_str().unwrap_or_default());
        }
        Ok(())
    }

    /// Lifts one fault of a case's node.
    ///
    /// # Errors
    /// When the lab refuses.
    pub async fn lift(&self, case: &Case, fault: &str) -> anyhow::Result<()> {
        self.fault(case, &format!("{LIFT}{fault}")).await
    }

    /// Ends a case's instance.
    ///
    /// # Errors
    /// When AWS refuses.
    pub async fn terminate(&self, instance: &str) -> anyhow::Result<()> {
        self.emulator.query("ec2", "TerminateInstances", &[("InstanceId.1", instance)]).await?;
        Ok(())
    }

    /// The Description of a node's report in Parameter Store.
    pub async fn parameter(&self, case: &Case, instance: &str) -> Option<String> {
        let name = contract::names::report_parameter(CLUSTER, &case.case, instance);
        let filter = json!({"ParameterFilters": [{"Key": "Name", "Values": [name]}]});
        let found = self.emulator.ssm("DescribeParameters", &filter).await.ok()?;
        found["Parameters"][0]["Description"].as_str().map(str::to_owned)
    }

    /// A case's instance, as AWS knows it.
    pub async fn instance(&self, id: &str) -> Option<Instance> {
        let instances = self.emulator.instances().await.ok()?;
        instances.into_iter().find(|instance| instance.instance_id == id)
    }

    /// The events on a Node.
    pub async fn events(&self, name: &str) -> Vec<Value> {
        let all = self.cluster.get("/api/v1/namespaces/default/events").await.unwrap_or_default();
        let items = all["items"].as_array().cloned().unwrap_or_default();
        items.into_iter().filter(|event| event["involvedObject"]["name"] == name).collect()
    }

    /// A Node object.
    pub async fn node(&self, name: &str) -> Option<Value> {
        self.cluster.get(&format!("/api/v1/nodes/{name}")).await
    }
}

/// `host:port` of a URL that names its port.
fn host_and_port(url: &str) -> String {
    url.split_once("://").map_or(url, |(_, rest)| rest).trim_end_matches('/').to_owned()
}

fn base64(data: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(data)
}

/// `control up`, beside this program.
async fn build(directory: &LabDirectory, record: &Record, fleet: &Path) -> anyhow::Result<()> {
    let control = beside("control")?;
    let path = directory.path().join("control.log");
    let log = std::fs::File::create(&path).context("could not open control's log")?;
    let operator = record.operator.as_ref().context("the lab has no operator")?;
    let running = Command::new(&control)
        .args(["up", "--yes", "-f"])
        .arg(fleet)
        .env_remove("AWS_PROFILE")
        .env_remove("AWS_SESSION_TOKEN")
        .env("AWS_ENDPOINT_URL", &record.endpoint)
        .env("AWS_REGION", &record.region)
        .env("AWS_ACCESS_KEY_ID", &operator.access_key_id)
        .env("AWS_SECRET_ACCESS_KEY", &operator.secret_access_key)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .status();
    let ended = tokio::time::timeout(UP, running).await;
    let status =
        ended.with_context(|| format!("control up has not ended: see `{}`", path.display()));
    let status = status?.context("could not run control")?;
    if !status.success() {
        bail!("control up ended with {status}: see `{}`", path.display());
    }
    Ok(())
}

/// A program or file that was built beside this one.
///
/// # Errors
/// When it is not there.
pub fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("could not find this program's own path")?;
    let path = program.with_file_name(name);
    if path.is_file() {
        return Ok(path);
    }
    bail!("there is no `{}`: make build makes it", path.display())
}
