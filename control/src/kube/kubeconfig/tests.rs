//! Merging into files that people and other tools have written.

use super::*;

const ARN: &str = "arn:aws:eks:us-east-1:111122223333:cluster/prod";

fn facts() -> ClusterFacts {
    ClusterFacts {
        name: "prod".into(),
        region: "us-east-1".into(),
        arn: ARN.into(),
        endpoint: "https://ABC.gr7.us-east-1.eks.amazonaws.com".into(),
        certificate_authority: "LS0t".into(),
        version: "1.34".into(),
        service_cidr: "172.20.0.0/16".into(),
        security_group: "sg-1".into(),
        vpc: "vpc-1".into(),
        cluster_role_arn: String::new(),
        node_role_arns: vec![],
        oidc_issuer: String::new(),
        status: "ACTIVE".into(),
    }
}

fn exec() -> Exec<'static> {
    Exec { program: Path::new("/opt/rollcall/control"), profile: None }
}

const OTHERS: &str = "\
apiVersion: v1
kind: Config
clusters:
- name: minikube
  cluster:
    server: https://192.168.49.2:8443
    extensions:
    - name: cluster_info
      extension:
        version: v1.33.1
contexts:
- name: minikube
  context:
    cluster: minikube
    user: minikube
    namespace: default
current-context: minikube
preferences: {}
users:
- name: minikube
  user:
    client-certificate: /home/me/.minikube/client.crt
";

#[test]
fn a_new_file_is_the_golden_one() {
    let merged = merge("", &facts(), Exec { profile: Some("ops"), ..exec() }).unwrap();
    assert_eq!(
        merged.text,
        "\
apiVersion: v1
kind: Config
preferences: {}
clusters:
- name: arn:aws:eks:us-east-1:111122223333:cluster/prod
  cluster:
    server: https://ABC.gr7.us-east-1.eks.amazonaws.com
    certificate-authority-data: LS0t
contexts:
- name: prod
  context:
    cluster: arn:aws:eks:us-east-1:111122223333:cluster/prod
    user: arn:aws:eks:us-east-1:111122223333:cluster/prod
users:
- name: arn:aws:eks:us-east-1:111122223333:cluster/prod
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1beta1
      command: /opt/rollcall/control
      args:
      - token
      - --cluster-name
      - prod
      - --region
      - us-east-1
      interactiveMode: Never
      provideClusterInfo: false
      env:
      - name: AWS_PROFILE
        value: ops
current-context: prod
"
    );
    assert_eq!((merged.context.as_str(), merged.changed), ("prod", true));
}

#[test]
fn what_others_wrote_is_kept_to_the_letter() {
    let merged = merge(OTHERS, &facts(), exec()).unwrap();
    let value = parse(&merged.text).unwrap();
    let before = parse(OTHERS).unwrap();
    for list in ["clusters", "contexts", "users"] {
        assert_eq!(value[list][0], before[list][0], "{list}");
        assert_eq!(value[list].as_array().unwrap().len(), 2, "{list}");
    }
    assert_eq!(value["current-context"], "prod");
}

#[test]
fn a_second_time_changes_nothing() {
    let once = merge(OTHERS, &facts(), exec()).unwrap();
    let twice = merge(&once.text, &facts(), exec()).unwrap();
    assert!(!twice.changed);
    assert_eq!(twice.text, once.text);
}

#[test]
fn a_cluster_made_anew_renews_its_entries() {
    let once = merge(OTHERS, &facts(), exec()).unwrap();
    let mut anew = facts();
    anew.endpoint = "https://NEW.gr7.us-east-1.eks.amazonaws.com".into();
    let twice = merge(&once.text, &anew, exec()).unwrap();
    assert!(twice.changed && twice.text.contains("https://NEW.") && !twice.text.contains("ABC"));
}

#[test]
fn a_namespace_set_by_the_user_stays() {
    let once = merge("", &facts(), exec()).unwrap();
    let edited = once.text.replace(
        "contexts:\n- name: prod\n  context:\n",
        "contexts:\n- name: prod\n  context:\n    namespace: training\n",
    );
    assert_ne!(edited, once.text);
    let twice = merge(&edited, &facts(), exec()).unwrap();
    assert!(twice.text.contains("namespace: training"));
}

#[test]
fn a_context_of_the_same_name_is_not_taken() {
    let taken = OTHERS.replace("minikube", "prod");
    let merged = merge(&taken, &facts(), exec()).unwrap();
    assert_eq!(merged.context, ARN);
    let value = parse(&merged.text).unwrap();
    assert_eq!(value["contexts"][0]["context"]["cluster"], "prod");
}

#[test]
fn a_broken_file_is_refused() {
    for text in ["clusters: [", "- a\n- b\n", "just text", "kind: Pod\n", "clusters: 7\n"] {
        assert!(merge(text, &facts(), exec()).is_err(), "{text}");
        assert!(without(text, "us-east-1", "prod").is_err() || text == "clusters: 7\n", "{text}");
    }
}

#[test]
fn removal_is_the_reverse() {
    let merged = merge(OTHERS, &facts(), exec()).unwrap();
    let removed = without(&merged.text, "us-east-1", "prod").unwrap().unwrap();
    let mut expected = parse(OTHERS).unwrap();
    expected["current-context"] = "".into();
    assert_eq!(parse(&removed).unwrap(), expected);
    assert_eq!(without(&removed, "us-east-1", "prod").unwrap(), None);
}

#[test]
fn removal_leaves_other_regions_and_the_aws_cli_alone() {
    let merged = merge("", &facts(), exec()).unwrap();
    assert_eq!(without(&merged.text, "eu-west-1", "prod").unwrap(), None);
    assert_eq!(without(&merged.text, "us-east-1", "pro").unwrap(), None);
    let cli = merged.text.replace("- token\n      - --cluster-name", "- eks\n      - get-token");
    assert_ne!(cli, merged.text);
    assert_eq!(without(&cli, "us-east-1", "prod").unwrap(), None);
}
