"""Which EKS operations are served, by what; and their place in moto's server."""

from collections.abc import Callable
from typing import Any

from ..identity import Directory
from ..world import World
from . import access, addons, clusters, errors, nodegroups, pod_identity, rolling, tags, updates, versions
from .store import Store

OPERATIONS: dict[str, Callable[[Store, dict[str, Any], Any], dict[str, Any]]] = {
    "CreateCluster": clusters.create,
    "DescribeCluster": clusters.describe,
    "ListClusters": clusters.list_all,
    "UpdateClusterConfig": clusters.update_config,
    "DeleteCluster": clusters.delete,
    "DescribeClusterVersions": versions.describe_cluster_versions,
    "CreateAccessEntry": access.create,
    "DescribeAccessEntry": access.describe,
    "ListAccessEntries": access.list_all,
    "UpdateAccessEntry": access.update,
    "DeleteAccessEntry": access.delete,
    "AssociateAccessPolicy": access.associate_policy,
    "DisassociateAccessPolicy": access.disassociate_policy,
    "ListAssociatedAccessPolicies": access.list_associated,
    "ListAccessPolicies": access.list_policies,
    "CreateAddon": addons.create,
    "DescribeAddon": addons.describe,
    "ListAddons": addons.list_all,
    "UpdateAddon": addons.update,
    "DeleteAddon": addons.delete,
    "DescribeAddonVersions": versions.describe_addon_versions,
    "CreateNodegroup": nodegroups.create,
    "DescribeNodegroup": nodegroups.describe,
    "ListNodegroups": nodegroups.list_all,
    "UpdateNodegroupConfig": nodegroups.update_config,
    "UpdateNodegroupVersion": rolling.update_version,
    "DeleteNodegroup": nodegroups.delete,
    "CreatePodIdentityAssociation": pod_identity.create,
    "DescribePodIdentityAssociation": pod_identity.describe,
    "ListPodIdentityAssociations": pod_identity.list_all,
    "DeletePodIdentityAssociation": pod_identity.delete,
    "DescribeUpdate": updates.describe,
    "ListUpdates": updates.list_all,
    "TagResource": tags.tag,
    "UntagResource": tags.untag,
    "ListTagsForResource": tags.list_all,
}


def install(world: World, directory: Directory) -> Store:
    """Replaces moto's EKS; moto's request parsing and answer serialisation stay."""
    import moto.eks.urls
    from moto.core.exceptions import ServiceException
    from moto.core.responses import ActionResult, BaseResponse

    store = Store(world, directory)

    class EksResponse(BaseResponse):
        """Dispatches to `OPERATIONS`."""

        def __init__(self) -> None:
            super().__init__(service_name="eks")
            self.automated_parameter_parsing = True

        def call_action(self) -> Any:
            caller = directory.find(self.access_key)
            try:
                result = ActionResult(self._operate(caller))
            except ServiceException as error:
                result = ActionResult(error)
            return self.serialized(result)

        def _operate(self, caller: Any) -> dict[str, Any]:
            name = self._get_action()
            operation = OPERATIONS.get(name or "")
            if operation is None:
                raise errors.invalid_request(f"The emulator does not serve EKS {name}")
            return operation(store, dict(self.params), caller)

    moto.eks.urls.url_paths.clear()
    moto.eks.urls.url_paths["{0}/.*$"] = EksResponse.dispatch
    return store
