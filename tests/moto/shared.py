"""What the fidelity modules share: state per region, client tokens, states that settle after some describes, errors.

State hangs on moto's own EC2 backend, so that moto's reset call (POST /moto-api/reset) clears it as well.
"""

import functools
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.utils import generic_filter

Action = Callable[[Any], ActionResult]


@dataclass
class RegionState:
    """What clawd's tests need to be remembered for one account and region."""

    answers: dict[tuple[str, str], tuple[str, ActionResult]] = field(default_factory=dict)
    import_tasks: dict[str, Any] = field(default_factory=dict)
    last_time: datetime = datetime(1970, 1, 1)


def state_of(ec2_backend: Any) -> RegionState:
    return ec2_backend.__dict__.setdefault("clawd_state", RegionState())


def next_time(ec2_backend: Any) -> datetime:
    """Now, in whole milliseconds, and later than every answer before."""
    state = state_of(ec2_backend)
    now = datetime.now(UTC).replace(tzinfo=None)
    now = now.replace(microsecond=now.microsecond // 1000 * 1000)
    state.last_time = max(now, state.last_time + timedelta(milliseconds=1))
    return state.last_time


def ec2_error(code: str, message: str) -> EC2ClientError:
    return EC2ClientError(code, message)


def parameter_mismatch() -> ServiceException:
    return ec2_error(
        "IdempotentParameterMismatch",
        "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
    )


def idempotent(action: Action, mismatch: Callable[[], ServiceException] = parameter_mismatch) -> Action:
    """The action, run once for each ClientToken. moto ignores tokens, so a retried request would act twice."""

    @functools.wraps(action)
    def once(response: Any) -> ActionResult:
        token = response._get_param("ClientToken")
        if not token or response._get_param("DryRun"):
            return action(response)
        request = {k: v for k, v in response.params.items() if k not in ("ClientToken", "DryRun")}
        fingerprint = json.dumps(request, sort_keys=True, default=str)
        answers = state_of(region_backend(response)).answers
        if (action.__name__, token) not in answers:
            answers[action.__name__, token] = fingerprint, action(response)
        remembered, result = answers[action.__name__, token]
        if remembered != fingerprint:
            raise mismatch()
        return result

    return once


def region_backend(response: Any) -> Any:
    """The EC2 backend of the request's account and region, from an EC2 or an EBS request."""
    return response.ec2_backend if hasattr(response, "ec2_backend") else response.ebs_backend.ec2_backend


@dataclass
class Settling:
    """How a resource reaches its final state: after `describes` describe calls that still show the old one."""

    attribute: str
    final: str
    describes: int


def observe(resources: Iterable[Any]) -> list[Any]:
    """One describe call over these resources."""
    seen = list(resources)
    for resource in seen:
        settling: Settling | None = getattr(resource, "settling", None)
        if settling is None:
            continue
        if settling.describes > 0:
            settling.describes -= 1
        else:
            setattr(resource, settling.attribute, settling.final)
            resource.settling = None
    return seen


def observe_filtered(resources: list[Any], filters: dict[str, Any], state_filter: str) -> list[Any]:
    """Filters, observing before the filter on the state: waiting for `available` by filter must end too."""
    others = {name: values for name, values in filters.items() if name != state_filter}
    seen = observe(generic_filter(others, resources))
    return generic_filter({n: v for n, v in filters.items() if n == state_filter}, seen)
