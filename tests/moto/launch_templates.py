"""EC2 DescribeLaunchTemplates and DescribeLaunchTemplateVersions, in pages.

moto answers the calls, also without a template id for `$Latest` and `$Default`, but cuts the answer after 15 rows and
never returns a NextToken.
"""

from moto.core.responses import ActionResult
from moto.ec2.responses import EC2Response

from shared import Action

LARGEST_PAGE = 200


def paged(action: Action, member: str) -> Action:
    def page(response: EC2Response) -> ActionResult:
        most = response.params.pop("MaxResults", None) or LARGEST_PAGE
        start = int(response.params.pop("NextToken", None) or 0)
        response.params["MaxResults"] = 1_000_000  # moto cuts at this; the page is cut here
        rows = action(response).result[member]
        token = str(start + most) if len(rows) > start + most else None
        return ActionResult({member: rows[start : start + most], "NextToken": token})

    return page


def install() -> None:
    # See above: more than 15 templates would silently lose some.
    versions = EC2Response.describe_launch_template_versions
    EC2Response.describe_launch_template_versions = paged(versions, "LaunchTemplateVersions")
    EC2Response.describe_launch_templates = paged(EC2Response.describe_launch_templates, "LaunchTemplates")
