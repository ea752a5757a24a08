//! The objects: a keyed store with revisions, optimistic locking and a history for watches.
//!
//! One mutex guards everything, and every change runs under it, so a read-modify-write (a patch) is
//! atomic. Objects are JSON values behind `Arc`: a snapshot for a list or a controller is cheap.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::metadata::{keep_identity, name_for, stamp_new};
use super::registry::{NAMESPACES, ResourceType, SERVICEACCOUNTS, SERVICES};
use super::status::ApiError;

/// How many changes a watch may lie behind before it has to list again.
const HISTORY: usize = 8192;

/// An object's place among its type: namespace (empty for cluster-wide types) and name.
pub(super) type Key = (String, String);

/// One change, as watches see it.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) revision: u64,
    pub(super) kind: &'static ResourceType,
    pub(super) before: Option<Arc<Value>>,
    /// After a deletion: none; `before` then carries the deletion's revision.
    pub(super) after: Option<Arc<Value>>,
}

/// What a list answers: the objects and the revision they are of.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) revision: u64,
    pub(super) objects: Vec<Arc<Value>>,
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Written {
    /// The object is new.
    Created(Arc<Value>),
    /// It was there; it changed, or not.
    Updated(Arc<Value>),
}

impl Written {
    pub(super) fn object(&self) -> &Arc<Value> {
        match self {
            Self::Created(object) | Self::Updated(object) => object,
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    revision: u64,
    objects: HashMap<&'static str, BTreeMap<Key, Arc<Value>>>,
    history: VecDeque<Change>,
    /// Watches from a revision below this have missed something.
    oldest: u64,
    /// What each field manager last applied: (type, key, manager) → configuration.
    applied: HashMap<(String, Key, String), Value>,
}

/// The store. It starts empty; [`Store::seed`] makes the namespaces every cluster has.
#[derive(Debug)]
pub(super) struct Store {
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
}

impl Default for Store {
    fn default() -> Self {
        Self { inner: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl Store {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic between two lines of a change cannot leave half a change: the maps are written last.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the store's revision.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Makes what a new cluster starts with: its namespaces with their service accounts, and the API
    /// server's own Service. Nobody can watch from before that.
    pub(super) fn seed(&self) {
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            let object = json!({"metadata": {"name": name,
                "labels": {"kubernetes.io/metadata.name": name}},
                "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
            // Seeding twice changes nothing.
            let _exists = self.create(&NAMESPACES, "", object);
            let account = json!({"metadata": {"name": "default"}});
            let _exists = self.create(&SERVICEACCOUNTS, name, account);
        }
        let api = json!({"metadata": {"name": "kubernetes",
            "labels": {"component": "apiserver", "provider": "kubernetes"}},
            "spec": {"ports": [{"name": "https", "port": 443}]}, "status": {"loadBalancer": {}}});
        let _exists = self.create(&SERVICES, "default", api);
        let mut inner = self.lock();
        inner.oldest = inner.revision;
        inner.history.clear();
    }

    /// Forgets every object, and every watch's place.
    pub(super) fn clear(&self) {
        let mut inner = self.lock();
        inner.revision += 1;
        inner.oldest = inner.revision;
        inner.objects.clear();
        inner.history.clear();
        inner.applied.clear();
        let revision = inner.revision;
        drop(inner);
        self.changed.send_replace(revision);
    }

    pub(super) fn get(
        &self,
        kind: &ResourceType,
        namespace: &str,
        name: &str,
    ) -> Option<Arc<Value>> {
        let key = (namespace.to_owned(), name.to_owned());
        self.lock().objects.get(kind.resource)?.get(&key).cloned()
    }

    /// All objects of a type, in all namespaces or in one.
    pub(super) fn list(&self, kind: &ResourceType, namespace: &str) -> Snapshot {
        let inner = self.lock();
        let objects = inner.objects.get(kind.resource).into_iter().flatten();
        Snapshot {
            revision: inner.revision,
            objects: objects
                .filter(|((ns, _), _)| namespace.is_empty() || ns == namespace)
                .map(|(_, object)| Arc::clone(object))
                .collect(),
        }
    }

    /// The changes of a type after a revision.
    ///
    /// # Errors
    ///
    /// `Expired` when some of them are no longer remembered.
    pub(super) fn changes_since(
        &self,
        kind: &ResourceType,
        revision: u64,
    ) -> Result<(u64, Vec<Change>), ApiError> {
        let inner = self.lock();
        if revision < inner.oldest {
            return Err(ApiError::expired(revision, inner.oldest));
        }
        let start = inner.history.partition_point(|change| change.revision <= revision);
        let changes = inner.history.range(start..).filter(|change| change.kind == kind);
        Ok((inner.revision, changes.cloned().collect()))
    }

    /// Creates an object; its name may come from `generateName`.
    ///
    /// # Errors
    ///
    /// `AlreadyExists`; `Invalid` without a name; `NotFound` for a namespace that is not there.
    pub(super) fn create(
        &self,
        kind: &'static ResourceType,
        namespace: &str,
        mut object: Value,
    ) -> Result<Arc<Value>, ApiError> {
        let name = name_for(kind, &mut object)?;
        let mut inner = self.lock();
        let key = (namespace.to_owned(), name.clone());
        if kind.namespaced && !inner.contains(&NAMESPACES, &(String::new(), namespace.to_owned())) {
            return Err(ApiError::not_found(&NAMESPACES, namespace));
        }
        if inner.contains(kind, &key) {
            return Err(ApiError::already_exists(kind, &name));
        }
        stamp_new(kind, namespace, &mut object);
        let stored = inner.put(kind, key, object);
        let revision = inner.revision;
        drop(inner);
        self.changed.send_replace(revision);
        Ok(stored)
    }

    /// Changes an object under the lock: `change` gets the current one and answers the new one.
    /// Nothing happens when they are equal, as in the real store.
    ///
    /// # Errors
    ///
    /// `NotFound`, and whatever `change` refuses with.
    pub(super) fn update(
        &self,
        kind: &'static ResourceType,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&Value) -> Result<Value, ApiError>,
    ) -> Result<Arc<Value>, ApiError> {
        let mut inner = self.lock();
        let key = (namespace.to_owned(), name.to_owned());
        let current = inner.objects.get(kind.resource).and_then(|all| all.get(&key)).cloned();
        let current = current.ok_or_else(|| ApiError::not_found(kind, name))?;
        let mut next = change(&current)?;
        keep_identity(kind, &current, &mut next);
        if next == *current {
            return Ok(current);
        }
        let stored = inner.put(kind, key, next);
        let revision = inner.revision;
        drop(inner);
        self.changed.send_replace(revision);
        Ok(stored)
    }

    /// Removes an object.
    ///
    /// # Errors
    ///
    /// `NotFound`.
    pub(super) fn delete(
        &self,
        kind: &'static ResourceType,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<Value>, ApiError> {
        let mut inner = self.lock();
        let key = (namespace.to_owned(), name.to_owned());
        let removed = inner.objects.get_mut(kind.resource).and_then(|all| all.remove(&key));
        let removed = removed.ok_or_else(|| ApiError::not_found(kind, name))?;
        inner.revision += 1;
        let revision = inner.revision;
        let mut last = (*removed).clone();
        last["metadata"]["resourceVersion"] = revision.to_string().into();
        let last = Arc::new(last);
        inner.applied.retain(|(resource, k, _), _| resource != kind.resource || *k != key);
        inner.remember(Change { revision, kind, before: Some(Arc::clone(&last)), after: None });
        drop(inner);
        self.changed.send_replace(revision);
        Ok(last)
    }

    /// What `manager` last applied to this object.
    pub(super) fn applied(
        &self,
        kind: &ResourceType,
        namespace: &str,
        name: &str,
        manager: &str,
    ) -> Option<Value> {
        let key = (namespace.to_owned(), name.to_owned());
        self.lock().applied.get(&(kind.resource.to_owned(), key, manager.to_owned())).cloned()
    }

    /// Remembers what `manager` applied to this object.
    pub(super) fn remember_applied(
        &self,
        kind: &ResourceType,
        namespace: &str,
        name: &str,
        manager: &str,
        configuration: Value,
    ) {
        let key = (namespace.to_owned(), name.to_owned());
        let slot = (kind.resource.to_owned(), key, manager.to_owned());
        self.lock().applied.insert(slot, configuration);
    }
}

impl Inner {
    fn contains(&self, kind: &ResourceType, key: &Key) -> bool {
        self.objects.get(kind.resource).is_some_and(|all| all.contains_key(key))
    }

    fn put(&mut self, kind: &'static ResourceType, key: Key, mut object: Value) -> Arc<Value> {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        let object = Arc::new(object);
        let all = self.objects.entry(kind.resource).or_default();
        let before = all.insert(key, Arc::clone(&object));
        let after = Some(Arc::clone(&object));
        self.remember(Change { revision: self.revision, kind, before, after });
        object
    }

    fn remember(&mut self, change: Change) {
        if self.history.len() == HISTORY
            && let Some(dropped) = self.history.pop_front()
        {
            self.oldest = dropped.revision;
        }
        self.history.push_back(change);
    }
}

#[cfg(test)]
mod tests {
    use super::super::registry::{DAEMONSETS, NODES, PODS};
    use super::*;

    fn seeded() -> Store {
        let store = Store::default();
        store.seed();
        store
    }

    fn revision(object: &Value) -> u64 {
        object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
    }

    #[test]
    fn a_created_object_has_an_identity_and_cannot_be_created_twice() {
        let store = seeded();
        let made = store.create(&NODES, "", json!({"metadata": {"name": "a"}})).unwrap();
        assert_eq!(
            (made["kind"].as_str(), made["apiVersion"].as_str()),
            (Some("Node"), Some("v1"))
        );
        assert_eq!(made["metadata"]["uid"].as_str().unwrap().len(), 36);
        assert!(made["metadata"]["creationTimestamp"].as_str().unwrap().ends_with('Z'));
        let again = store.create(&NODES, "", json!({"metadata": {"name": "a"}})).unwrap_err();
        assert_eq!((again.code, again.reason), (409, "AlreadyExists"));
    }

    #[test]
    fn an_update_without_a_difference_is_none() {
        let store = seeded();
        let made =
            store.create(&NODES, "", json!({"metadata": {"name": "a"}, "spec": {}})).unwrap();
        let same = store.update(&NODES, "", "a", |now| Ok(now.clone())).unwrap();
        assert_eq!(revision(&made), revision(&same));
        let other = store
            .update(&NODES, "", "a", |_| Ok(json!({"metadata": {"name": "b"}, "spec": {"x": 1}})))
            .unwrap();
        assert!(revision(&other) > revision(&made));
        assert_eq!(other["metadata"]["name"], "a");
        assert_eq!(other["metadata"]["uid"], made["metadata"]["uid"]);
    }

    #[test]
    fn the_generation_counts_changes_of_the_spec_alone() {
        let store = seeded();
        let object = json!({"metadata": {"name": "d"}, "spec": {"a": 1}});
        store.create(&DAEMONSETS, "kube-system", object).unwrap();
        let status = |now: &Value| {
            let mut next = now.clone();
            next["status"] = json!({"numberReady": 1});
            Ok(next)
        };
        let after = store.update(&DAEMONSETS, "kube-system", "d", status).unwrap();
        assert_eq!(after["metadata"]["generation"], 1);
        let spec = |now: &Value| {
            let mut next = now.clone();
            next["spec"]["a"] = 2.into();
            Ok(next)
        };
        let after = store.update(&DAEMONSETS, "kube-system", "d", spec).unwrap();
        assert_eq!(after["metadata"]["generation"], 2);
    }

    #[test]
    fn namespaced_objects_need_their_namespace_and_may_have_generated_names() {
        let store = seeded();
        let pod = json!({"metadata": {"generateName": "p-"}});
        let lost = store.create(&PODS, "nowhere", pod.clone()).unwrap_err();
        assert_eq!(lost.message, "namespaces \"nowhere\" not found");
        let made = store.create(&PODS, "default", pod).unwrap();
        let name = made["metadata"]["name"].as_str().unwrap();
        assert!(name.starts_with("p-") && name.len() == 7, "{name}");
        assert_eq!(store.create(&PODS, "default", json!({})).unwrap_err().code, 422);
    }

    #[test]
    fn history_answers_changes_after_a_revision_and_refuses_what_it_forgot() {
        let store = seeded();
        let a = store.create(&NODES, "", json!({"metadata": {"name": "a"}})).unwrap();
        store.create(&PODS, "default", json!({"metadata": {"name": "p"}})).unwrap();
        store.delete(&NODES, "", "a").unwrap();
        let (_, changes) = store.changes_since(&NODES, revision(&a)).unwrap();
        assert_eq!(changes.len(), 1);
        assert!(changes[0].after.is_none() && changes[0].before.is_some());
        store.clear();
        assert_eq!(store.changes_since(&NODES, revision(&a)).unwrap_err().code, 410);
        assert!(store.list(&NAMESPACES, "").objects.is_empty());
    }
}
