"""Texts of the OpenAPI description: a summary for each operation, and where to find each id."""

from __future__ import annotations

from typing import Any

_IDS = {
    "connection_id": "`id` of a connection: in `GET /connections` of the orchestrator",
    "operation_id": "`operation_id` of an answer, or of `GET /operations`",
    "job_id": "`job_id` of `GET /connections/{connection_id}/jobs`",
    "version": "`version_number` of `GET /connections/{connection_id}/catalog-versions`",
    "from_version": "`version_number` of `GET /connections/{connection_id}/catalog-versions`",
    "to_version": "`version_number` of `GET /connections/{connection_id}/catalog-versions`",
    "before": "`snapshot_id` of `GET /connections/{connection_id}/snapshots`",
    "after": "`snapshot_id` of `GET /connections/{connection_id}/snapshots`",
    "drift_id": "`id` of `GET /drifts`, or `drift_id` of an observation",
    "repair_id": "`id` of `GET /repairs`",
    "webhook_id": "`id` of `GET /webhooks`",
    "delivery_id": "`id` of `GET /webhooks/{webhook_id}/deliveries`",
    "source_type": "`name` or `id` of `GET /source-types`",
    "label": "a name and a value of `labels` of a connection: `team=sales`",
    "key_id": "`id` of `GET /api-keys`",
}
"""Where callers find the value of a path parameter."""


def describe(operation: dict[str, Any]) -> None:
    """Set an operation's summary to its description's first sentence, and describe its ids."""
    words = operation.get("description", "")
    first, _, rest = words.partition("\n\n")
    sentence = " ".join(first.split())
    if sentence:
        operation["summary"] = sentence.removesuffix(".")
        operation["description"] = rest.strip() or sentence
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path" and parameter["name"] in _IDS:
            parameter.setdefault("description", _IDS[parameter["name"]])
