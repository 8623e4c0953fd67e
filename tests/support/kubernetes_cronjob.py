"""The part of Kubernetes' schema of a CronJob (batch/v1) that the page's manifest uses.

Invariant: what any supported version refuses is refused here: no member that is not listed, and `status` required of
pod conditions, as versions up to 1.34 do.
"""

from __future__ import annotations

from typing import Any

__all__ = ["CRON_JOB"]


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


def _list(items: dict[str, Any], most: int = 20) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1, "maxItems": most}


def _one_of(*values: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(values)}


_TEXT = {"type": "string", "minLength": 1}
_NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 52}
_CODES = {
    "type": "array",
    "items": {"type": "integer", "minimum": 1, "maximum": 255},
    "uniqueItems": True,
    "minItems": 1,
}
_RULE = {
    **_object(
        ["action"],
        action=_one_of("FailJob", "FailIndex", "Ignore", "Count"),
        onExitCodes=_object(
            ["operator", "values"], containerName=_NAME, operator=_one_of("In", "NotIn"), values=_CODES
        ),
        onPodConditions=_list(_object(["type", "status"], type=_TEXT, status=_one_of("True", "False", "Unknown"))),
    ),
    "oneOf": [{"required": ["onExitCodes"]}, {"required": ["onPodConditions"]}],
}
_CONTAINER = _object(
    ["name", "image"],
    name=_NAME,
    image=_TEXT,
    workingDir=_TEXT,
    command=_list(_TEXT, 100),
    envFrom=_list(_object(["secretRef"], secretRef=_object(["name"], name=_NAME))),
    volumeMounts=_list(_object(["name", "mountPath"], name=_NAME, mountPath=_TEXT)),
)
_CLAIM = _object(["claimName"], claimName=_NAME)
_POD = _object(
    ["containers", "restartPolicy"],
    restartPolicy=_one_of("Never"),  # the only one that a podFailurePolicy takes
    containers=_list(_CONTAINER),
    volumes=_list(_object(["name", "persistentVolumeClaim"], name=_NAME, persistentVolumeClaim=_CLAIM)),
)
_JOB = _object(
    ["template"],
    backoffLimit={"type": "integer", "minimum": 0},
    podFailurePolicy=_object(["rules"], rules=_list(_RULE)),
    template=_object(["spec"], spec=_POD),
)
CRON_JOB = _object(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion=_one_of("batch/v1"),
    kind=_one_of("CronJob"),
    metadata=_object(["name"], name=_NAME),
    spec=_object(
        ["schedule", "jobTemplate"],
        schedule={"type": "string", "pattern": r"^\S+( \S+){4}$"},
        timeZone={"type": "string", "pattern": "^[A-Za-z]+(/[A-Za-z_]+)*$"},
        concurrencyPolicy=_one_of("Allow", "Forbid", "Replace"),
        jobTemplate=_object(["spec"], spec=_JOB),
    ),
)
