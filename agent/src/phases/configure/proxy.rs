//! Which proxy a service of the node uses for a URL: what the NodeConfig puts into its environment,
//! by the rules of Go's `httpproxy`, since nodeadm, kubelet and containerd are Go programs.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::{env, fmt};

use serde_json::Value;
use url::Url;

use super::lint;

/// The proxy variables of one service.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    https: Option<String>,
    http: Option<String>,
    except: String,
}

/// Shows no value: a proxy's URL may hold a password.
impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies")
            .field("https", &self.https.is_some())
            .field("http", &self.http.is_some())
            .field("except", &self.except)
            .finish()
    }
}

/// The proxies on the way to AWS, for a client that is there before the node's configuration is
/// read: at first those of this process, later those that the configuration gives everybody.
#[derive(Clone, Debug, Default)]
pub struct WayToAws(Arc<RwLock<Proxies>>);

impl WayToAws {
    /// The way that this process's own environment says.
    #[must_use]
    pub fn from_env() -> Self {
        Self(Arc::new(RwLock::new(Proxies::of(|name| env::var(name).ok()))))
    }

    /// Goes by what the configuration says, when it says something.
    pub fn learn(&self, merged: &Value) {
        let said = Proxies::of_service(merged, "default");
        if said != Proxies::default() {
            *self.0.write().unwrap_or_else(PoisonError::into_inner) = said;
        }
    }

    /// The proxy through which `url` is reached; none when directly.
    #[must_use]
    pub fn to(&self, url: &str) -> Option<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).to(url)
    }
}

impl Proxies {
    /// What an environment says, whose variables `given` reads in either case.
    fn of(given: impl Fn(&str) -> Option<String>) -> Self {
        let variable = |name: &str| {
            let value = given(name).or_else(|| given(&name.to_lowercase()));
            value.filter(|value| !value.is_empty())
        };
        Self {
            https: variable("HTTPS_PROXY"),
            http: variable("HTTP_PROXY"),
            except: variable("NO_PROXY").unwrap_or_default(),
        }
    }

    /// What `service` gets: its own environment before the default one.
    #[must_use]
    pub fn of_service(merged: &Value, service: &str) -> Self {
        let environment = lint::at(merged, "spec.instance.environment");
        let given = |service: &str, name: &str| {
            environment?.get(service)?.get(name)?.as_str().map(str::to_owned)
        };
        let in_either_case = |service: &str, name: &str| {
            given(service, name).or_else(|| given(service, &name.to_lowercase()))
        };
        Self::of(|name| {
            [service, "default"].into_iter().find_map(|service| in_either_case(service, name))
        })
    }

    /// The proxy through which `target` is reached; none when directly.
    #[must_use]
    pub fn to(&self, target: &str) -> Option<String> {
        let target = Url::parse(target).ok()?;
        let proxy = match target.scheme() {
            "https" => self.https.as_ref()?,
            _ => self.http.as_ref()?,
        };
        let host = target.host_str()?.trim_matches(['[', ']']).to_ascii_lowercase();
        let port = target.port_or_known_default()?;
        if is_local(&host) || self.except.split(',').any(|entry| excepts(entry, &host, port)) {
            return None;
        }
        // Go takes a proxy without a scheme for one of plain HTTP.
        Some(if proxy.contains("://") { proxy.clone() } else { format!("http://{proxy}") })
    }
}

fn is_local(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether one entry of NO_PROXY speaks of this host: `*`, an address, a range, a name with or
/// without what lies below it; each with or without a port.
fn excepts(entry: &str, host: &str, port: u16) -> bool {
    let entry = entry.trim().to_ascii_lowercase();
    if entry == "*" {
        return true;
    }
    let address = host.parse::<IpAddr>().ok();
    if let Some((network, bits)) = entry.split_once('/') {
        return matches!((network.parse(), bits.parse(), address), (Ok(network), Ok(bits), Some(address))
            if contains(network, bits, address));
    }
    if let Ok(only) = entry.trim_matches(['[', ']']).parse::<IpAddr>() {
        return address == Some(only);
    }
    let (name, wanted) = match entry.rsplit_once(':') {
        Some((name, digits)) => (name, digits.parse::<u16>().ok()),
        None => (entry.as_str(), None),
    };
    if name.is_empty() || wanted.is_some_and(|wanted| wanted != port) {
        return false;
    }
    if let (Ok(only), Some(address)) = (name.trim_matches(['[', ']']).parse::<IpAddr>(), address) {
        return only == address;
    }
    let below = name.strip_prefix("*").unwrap_or(name);
    match below.strip_prefix('.') {
        Some(_) => host.ends_with(below),
        None => host == below || host.strip_suffix(below).is_some_and(|head| head.ends_with('.')),
    }
}

fn contains(network: IpAddr, bits: u32, address: IpAddr) -> bool {
    let wide = |address: IpAddr| match address {
        IpAddr::V4(four) => (u128::from(u32::from(four)) << 96, 32),
        IpAddr::V6(six) => (u128::from(six), 128),
    };
    let ((network, width), (address, other)) = (wide(network), wide(address));
    let mask = u128::MAX.checked_shl(128_u32.saturating_sub(bits)).unwrap_or_default();
    width == other && bits <= width && network & mask == address & mask
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn except(entries: &str) -> Proxies {
        Proxies { https: Some("http://proxy:3128".into()), http: None, except: entries.into() }
    }

    #[test]
    fn exceptions_are_read_as_go_reads_them() {
        for (entries, target, through) in [
            ("", "https://api.example", true),
            ("*", "https://api.example", false),
            ("example", "https://api.example", false),
            ("api.example", "https://api.example", false),
            (".example", "https://api.example", false),
            (".example", "https://example", true),
            ("*.example", "https://api.example", false),
            ("ample", "https://api.example", true),
            ("api.example:8443", "https://api.example", true),
            ("api.example:443", "https://api.example", false),
            ("other, API.example", "https://api.example", false),
            ("10.0.0.0/8", "https://10.1.2.3", false),
            ("10.0.0.0/8", "https://11.1.2.3", true),
            ("0.0.0.0/0", "https://11.1.2.3", false),
            ("10.0.0.0/33", "https://10.1.2.3", true),
            ("10.1.2.3", "https://10.1.2.3:8443", false),
            ("10.1.2.3:443", "https://10.1.2.3", false),
            ("fd00::/8", "https://[fd00::1]", false),
            ("", "https://localhost:6443", false),
            ("", "https://127.0.0.1:6443", false),
            ("", "https://[::1]", false),
            ("", "http://api.example", false),
        ] {
            assert_eq!(except(entries).to(target).is_some(), through, "`{entries}`: {target}");
        }
    }

    #[test]
    fn the_way_to_aws_is_learnt_from_the_configuration() {
        let way = WayToAws::default();
        assert_eq!(way.to("https://ssm.us-east-1.amazonaws.com"), None);
        way.learn(&json!({"spec": {"instance": {"environment": {
            "default": {"HTTPS_PROXY": "proxy:3128"}, "kubelet": {"HTTPS_PROXY": "other:1"},
        }}}}));
        let learnt = way.to("https://ssm.us-east-1.amazonaws.com");
        assert_eq!(learnt.as_deref(), Some("http://proxy:3128"));
        way.learn(&Value::Null);
        assert_eq!(way.to("https://ssm.us-east-1.amazonaws.com"), learnt);
    }

    #[test]
    fn a_services_own_variables_come_before_the_default_ones() {
        let merged = json!({"spec": {"instance": {"environment": {
            "default": {"HTTPS_PROXY": "proxy:3128", "no_proxy": "a.example"},
            "kubelet": {"https_proxy": "http://user:s3cr3t@other:1"},
        }}}});
        let kubelet = Proxies::of_service(&merged, "kubelet");
        assert_eq!(kubelet.to("https://x").as_deref(), Some("http://user:s3cr3t@other:1"));
        assert_eq!(kubelet.to("https://a.example"), None);
        assert!(!format!("{kubelet:?}").contains("s3cr3t"));
        let nodeadm = Proxies::of_service(&merged, "nodeadm");
        assert_eq!(nodeadm.to("https://x").as_deref(), Some("http://proxy:3128"));
        assert_eq!(Proxies::of_service(&Value::Null, "kubelet"), Proxies::default());
    }
}
