"""UpdateNodegroupVersion: EKS replaces a group's nodes by ones of another template version, as many
at a time as `updateConfig` says. New ones come first; old ones go once the new are Ready nodes. What
does not become Ready in time ends the update as Failed, and the nodes that are left stay.

Pod disruption budgets are not emulated: a drain never fails.
"""

import time
from dataclasses import dataclass
from math import ceil
from typing import Any

from .. import autoscaling, durations
from ..clock import utcnow
from . import errors, launch_template, nodegroup_lifecycle
from .model import Cluster, Nodegroup, Update
from .store import Store

# Between two looks, in real seconds at least: at high speeds a look must not take the whole lock.
SHORTEST_LOOK = 0.2
VERSION_TAG = "aws:ec2launchtemplate:version"


def update_version(store: Store, params: dict[str, Any], _caller: Any) -> dict[str, Any]:
    """UpdateNodegroupVersion."""
    cluster = store.cluster(params["clusterName"])
    group = store.nodegroup(cluster, params["nodegroupName"])
    if store.replayed("UpdateNodegroupVersion", params):
        newest = [u for u in cluster.updates.values() if u.nodegroup == group.name][-1]
        return {"update": newest.described()}
    nodegroup_lifecycle.reconsider(store, cluster, group)
    nodegroup_lifecycle.check_updatable(cluster, group)
    template, data = _asked(store, cluster, group, params)
    update = Update(
        id=store.new_id(),
        type="VersionUpdate",
        params=[{"type": "LaunchTemplateVersion", "value": template.get("version", "")}],
        nodegroup=group.name,
    )
    cluster.updates[update.id] = update
    store.keep_token("UpdateNodegroupVersion", params)
    group.status = "UPDATING"
    roll = _Roll(store, cluster, group, update, template, data)
    store.world.clock.after(durations.NODEGROUP_UPDATE, roll.begin)
    return {"update": update.described()}


def _asked(
    store: Store, cluster: Cluster, group: Nodegroup, params: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    if not group.template:
        raise errors.invalid_request("The emulator rolls groups with a launch template alone")
    if group.fields["amiType"] == "CUSTOM" and (
        params.get("version") or params.get("releaseVersion")
    ):
        raise errors.invalid_parameter(
            "You cannot specify the field version or releaseVersion when using a custom AMI."
        )
    reference = params.get("launchTemplate") or {**group.template, "version": "$Latest"}
    given = {key: reference[key] for key in ("id", "name", "version") if reference.get(key)}
    if given.get("id"):
        given.pop("name", None)
    template, data = launch_template.resolve(store, cluster, {"launchTemplate": given})
    if template["id"] != group.template["id"]:
        raise errors.invalid_parameter(
            "You cannot update a node group to another launch template than its own."
        )
    return template, data


@dataclass
class _Roll:
    """One rolling update."""

    store: Store
    cluster: Cluster
    group: Nodegroup
    update: Update
    template: dict[str, Any]
    data: dict[str, Any]
    version: str = ""
    until: float = 0.0

    def begin(self) -> None:
        """A new version of EKS's own template, from which the group launches from now on."""
        group = self.group
        if group.status != "UPDATING" or group.autoscaling_group is None:
            return
        own = group.autoscaling_group.ec2_launch_template
        data = nodegroup_lifecycle.launch_data(self.cluster, group, self.data)
        self.version = str(own.create_version(data, "").number)
        group.autoscaling_group.launch_template_version = self.version
        self._add_batch()
        self._again()

    def _again(self) -> None:
        clock = self.store.world.clock
        pause = max(durations.NODEGROUP_SCALE_STEP * clock.speed, SHORTEST_LOOK)
        clock.after_real(pause, self._look)

    def _members(self) -> tuple[list[Any], list[Any]]:
        living = nodegroup_lifecycle.instances(self.group)

        def is_new(instance: Any) -> bool:
            tags = {tag["key"]: tag["value"] for tag in instance.get_tags()}
            return tags.get(VERSION_TAG) == self.version

        return [i for i in living if not is_new(i)], [i for i in living if is_new(i)]

    def _batch(self) -> int:
        config, size = self.group.fields["updateConfig"], self.group.scaling["desiredSize"]
        if config.get("maxUnavailablePercentage"):
            return max(1, ceil(size * int(config["maxUnavailablePercentage"]) / 100))
        return int(config.get("maxUnavailable") or 1)

    def _add_batch(self) -> None:
        """Makes place for the next ones, beyond the group's largest size where it must be."""
        old, _ = self._members()
        self._resize(self.group.scaling["desiredSize"] + min(self._batch(), len(old)))
        self.until = time.monotonic() + self.store.world.settings.join_timeout

    def _resize(self, size: int) -> None:
        target = self.group.autoscaling_group
        target.max_size = max(self.group.scaling["maxSize"], size)
        target.set_desired_capacity(size)

    def _look(self) -> None:
        if self.group.status != "UPDATING":
            return
        old, new = self._members()
        wanted = self.group.autoscaling_group.desired_capacity
        registered = self.store.world.registered
        missing = [i.id for i in new if not registered.get(i.id)]
        if len(old) + len(new) >= wanted and not missing:
            self._retire(old)
        elif time.monotonic() > self.until:
            self._fail(missing)
        else:
            self._again()

    def _retire(self, old: list[Any]) -> None:
        """The new ones are Ready: as many old ones go, then the next batch comes."""
        leaving = sorted(old, key=lambda instance: instance.rollcall_index)[: self._batch()]
        if not leaving:
            self._finish()
            return
        target = self.group.autoscaling_group
        # Before they go, or the group would replace them.
        target.desired_capacity = self.group.scaling["desiredSize"]
        self.store.world.ec2.terminate_instances([instance.id for instance in leaving])
        if len(old) > len(leaving):
            self._add_batch()
        self._again()

    def _finish(self) -> None:
        group = self.group
        group.template, group.template_data = self.template, self.data
        if group.fields["amiType"] == "CUSTOM":
            group.fields["releaseVersion"] = self.data["ImageId"]
        self._end("Successful")

    def _fail(self, missing: list[str]) -> None:
        failed = autoscaling.failures(self.group.autoscaling_group)
        code, text = "NodeCreationFailure", "Couldn't proceed with upgrade process as new nodes "
        text += "are not joining node group " + self.group.name
        if failed and not missing:
            code, text = "AsgInstanceLaunchFailures", failed[0]["StatusMessage"]
        self.update.errors = [
            {"errorCode": code, "errorMessage": text, "resourceIds": missing}
        ]
        # The nodes that are left stay; the one that did not come goes with the room made for it.
        self.group.autoscaling_group.launch_template_version = "1"
        self._resize(self.group.scaling["desiredSize"])
        self._end("Failed")

    def _end(self, status: str) -> None:
        self.group.autoscaling_group.max_size = self.group.scaling["maxSize"]
        self.update.status = status
        self.group.status = "ACTIVE"
        self.group.modified_at = utcnow()
