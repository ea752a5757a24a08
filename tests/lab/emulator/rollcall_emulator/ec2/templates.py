"""Launch templates: sizes, tags that stay on the template, merged versions, unknown ids."""

from typing import Any

from ..patching import override
from ..request import decoded_user_data
from .errors import check_user_data, ec2_error

# Templates on a page where nothing else is asked for.
PAGE = 200
# More than an account may have of anything.
EVERYTHING = 1_000_000


def install() -> None:
    """Extends moto's launch templates."""
    from moto.core.responses import ActionResult
    from moto.ec2.models import EC2Backend
    from moto.ec2.models.launch_templates import LaunchTemplate
    from moto.ec2.responses.launch_templates import LaunchTemplates
    from moto.ec2.utils import parse_user_data

    # moto keeps those that it was made with; CreateTags changes them.
    LaunchTemplate.tags = property(lambda self: self.get_tags(), lambda self, tags: None)

    def template_data(response: Any) -> dict[str, Any]:
        data = dict(response._get_param("LaunchTemplateData", {}))
        if data.get("UserData") is not None:
            data["UserData"] = parse_user_data(data["UserData"])
            check_user_data(decoded_user_data(str(data["UserData"])))
        return data

    def described(template: Any, created_by: str) -> dict[str, Any]:
        return {
            "CreateTime": template.create_time,
            "CreatedBy": created_by,
            "DefaultVersionNumber": template.default_version_number,
            "LatestVersionNumber": template.latest_version_number,
            "LaunchTemplateId": template.id,
            "LaunchTemplateName": template.name,
            "Tags": template.get_tags(),
        }

    @override(LaunchTemplates, "create_launch_template")
    def create_launch_template(_original: Any, self: Any) -> ActionResult:
        name = self._get_param("LaunchTemplateName")
        template = self.ec2_backend.create_launch_template(
            name,
            self._get_param("VersionDescription"),
            template_data(self),
            self._parse_tag_specification("launch-template"),
        )
        creator = f"arn:{self.partition}:iam::{self.current_account}:root"
        return ActionResult({"LaunchTemplate": described(template, creator)})

    @override(LaunchTemplates, "describe_launch_templates")
    def describe_launch_templates_response(_original: Any, self: Any) -> ActionResult:
        """Pages as EC2 has them; moto cuts the list after 15 and says nothing of the rest."""
        self.error_on_dryrun()
        found = self.ec2_backend.describe_launch_templates(
            template_names=self._get_param("LaunchTemplateNames", []),
            template_ids=self._get_param("LaunchTemplateIds", []),
            filters=self._filters_from_querystring(),
        )
        size = self._get_int_param("MaxResults", PAGE)
        start = int(self._get_param("NextToken") or 0)
        creator = f"arn:{self.partition}:iam::{self.current_account}:root"
        page = found[start : start + size]
        answer: dict[str, Any] = {"LaunchTemplates": [described(one, creator) for one in page]}
        if start + size < len(found):
            answer["NextToken"] = str(start + size)
        return ActionResult(answer)

    @override(EC2Backend, "describe_launch_template_versions")
    def describe_versions_backend(original: Any, self: Any, **asked: Any) -> Any:
        """All that was asked for: pages are the response's."""
        return original(self, **{**asked, "max_results": EVERYTHING})

    @override(LaunchTemplates, "describe_launch_template_versions")
    def describe_versions(original: Any, self: Any) -> ActionResult:
        """Pages as EC2 has them; moto cuts the list after 15 and says nothing of the rest."""
        answer: dict[str, Any] = dict(original(self).result)
        size = self._get_int_param("MaxResults", PAGE)
        start = int(self._get_param("NextToken") or 0)
        found = answer["LaunchTemplateVersions"]
        answer["LaunchTemplateVersions"] = found[start : start + size]
        if start + size < len(found):
            answer["NextToken"] = str(start + size)
        return ActionResult(answer)

    @override(LaunchTemplate, "create_version")
    def create_version(original: Any, self: Any, data: dict[str, Any], description: str) -> Any:
        if data.get("UserData") is not None:
            data = {**data, "UserData": parse_user_data(str(data["UserData"]))}
        return original(self, data, description)

    @override(LaunchTemplates, "create_launch_template_version")
    def create_launch_template_version(original: Any, self: Any) -> ActionResult:
        data = template_data(self)
        source = self._get_param("SourceVersion")
        if source is not None:
            backend = self.ec2_backend
            name = self._get_param("LaunchTemplateName")
            template = (
                backend.get_launch_template_by_name(name)
                if name
                else backend.get_launch_template(self._get_param("LaunchTemplateId"))
            )
            data = {**template.get_version(source).data, **data}
        self.params["LaunchTemplateData"] = data
        return original(self)

    @override(EC2Backend, "delete_launch_template")
    def delete_launch_template(
        original: Any, self: Any, name: str | None, template_id: str | None
    ) -> Any:
        if name:
            self.get_launch_template_by_name(name)
        elif template_id:
            self.get_launch_template(template_id)
        return original(self, name, template_id)

    @override(EC2Backend, "describe_launch_templates")
    def describe_launch_templates(
        original: Any,
        self: Any,
        template_names: Any = None,
        template_ids: Any = None,
        filters: Any = None,
    ) -> list[Any]:
        for template_id in template_ids or []:
            if template_id not in self.launch_templates:
                raise ec2_error(
                    "InvalidLaunchTemplateId.NotFound",
                    f"The specified launch template, with template ID {template_id}, does not "
                    "exist.",
                )
        return original(
            self, template_names=template_names, template_ids=template_ids, filters=filters
        )
