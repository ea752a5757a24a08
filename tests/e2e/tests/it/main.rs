//! End-to-end tests: the programs that a user installs, against a lab of the test's own.

#![expect(clippy::unwrap_used, reason = "a test says what it found by failing")]

mod architecture;
mod breaker;
mod catalogue;
mod channels;
mod crashes;
mod doctor;
mod evidence;
mod fleets;
mod launches;
mod lease;
mod leftovers;
mod lines;
mod lives;
mod networks;
mod node_config;
mod offers;
mod operate_page;
mod packages;
mod pools;
mod rates;
mod refusals;
mod renders;
mod stack;
mod tokens;
mod transcripts;

/// A fleet file with one system node and `nodes` GPU nodes.
fn fleet_of(nodes: usize) -> String {
    fleet_with(&["gpu"], nodes)
}

/// A fleet file with one system node and `nodes` GPU nodes in each of `pools`.
fn fleet_with(pools: &[&str], nodes: usize) -> String {
    let mut text = String::from(
        "apiVersion: rollcall.dev/v1alpha1\nkind: Fleet\nname: prod\nregion: us-east-1\n\
         kubernetes: \"1.34\"\nagent: {publish: true}\n\
         network: {cidr: 10.7.0.0/16, zones: 2, nat: one}\n\
         pools:\n  - {name: system, class: system, instanceType: m6i.large, \
         size: {min: 1, desired: 1, max: 1}}\n",
    );
    for pool in pools {
        text += &format!(
            "  - {{name: {pool}, class: gpu, instanceType: g5.12xlarge, \
             size: {{min: 0, desired: {nodes}, max: {nodes}}}}}\n"
        );
    }
    text
}
