//! What a node boots from: MIME user data with the agent's configuration and the NodeConfig.
