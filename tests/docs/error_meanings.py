"""What a code means whose error class does not say it, in a sentence for docs/errors.md."""

from __future__ import annotations

MEANINGS: dict[tuple[int, str], str] = {
    (400, "bom"): "The body starts with a byte order mark.",
    (400, "invalid_http"): "The request is not valid HTTP.",
    (400, "not_utf8"): "The body is not UTF-8.",
    (403, "wrong_credential"): "The service token is for another credential.",
    (404, "credential_not_found"): "The credential store has no credential with this id.",
    (404, "credential_unused"): "No connection uses this credential.",
    (404, "no_such_route"): "The service has no such route.",
    (404, "unknown_source_type"): "Airbyte's workspace has no source type of this name or id.",
    (
        405,
        "method_not_allowed",
    ): "The route does not take this method; `Allow` lists those it takes.",
    (408, "head_timeout"): "The head of the request did not arrive in time.",
    (409, "already_delivered"): "The webhook message has already been delivered.",
    (409, "archiving"): "The connection is being archived.",
    (409, "cancelling"): "A job of the connection is being cancelled.",
    (409, "changed_meanwhile"): "The connection was changed while the request was prepared; retry.",
    (409, "credential_changed"): "The credential changed in its store after it had been checked.",
    (409, "credential_used_up"): (
        "A connector has renewed the credential's single-use token, so the one in the store no"
        " longer works; authorize again, and onboard with a new credential id."
    ),
    (409, "decision_differs"): "A different decision was already recorded under this id.",
    (409, "editing"): "The connection's settings are being changed.",
    (409, "heal_in_progress"): "A catalog is already being applied to the connection.",
    (409, "healing"): "A catalog is being applied to the connection; retry once it is ACTIVE.",
    (409, "job_ended"): "The job has ended already; `job_status` says how.",
    (409, "already_managed"): (
        "AAM already has a connection for this Airbyte connection; see `connection_id`."
    ),
    (409, "no_digest_key"): (
        "Credentials cannot be rotated or replaced, since ROTATION_DIGEST_KEY is not set."
    ),
    (409, "repair_in_progress"): "Another repair or operation of the connection is in progress.",
    (409, "rollback_impossible"): (
        "The source no longer offers what the older catalog version needs; `problems` lists it."
    ),
    (409, "rotating"): "The connection's credential is being rotated, or has just been.",
    (409, "rotation_incomplete"): (
        "Some connections that use the credential are busy; `connections` has the outcome of each."
    ),
    (409, "source_shared"): ("Other connections use the source, too; `connection_ids` lists them."),
    (409, "superseded"): "The repair no longer controls the connection.",
    (409, "trial_running"): (
        "Another check or preview with this source type and credential is running."
    ),
    (409, "upgrading"): "The connector of the connection's source is being upgraded.",
    (409, "webhook_deleted"): "The webhook is deleted.",
    (415, "unsupported_content_encoding"): "The body is compressed or otherwise encoded.",
    (422, "address_refused"): "The webhook's URL leads to an address outside WEBHOOK_NETWORKS.",
    (422, "ambiguous_source_type"): (
        "Several source types have this name; `candidates` has the id and version of each."
    ),
    (422, "ambiguous_stream"): "Several streams of the source have this name.",
    (422, "ambiguous_destination"): (
        "Several destinations have this name; `candidates` lists them with their ids."
    ),
    (422, "invalid_credential_id"): "The credential id is malformed.",
    (422, "choice_not_used"): "Only the approval of a group takes a `choice`.",
    (422, "invalid_label"): "The label in the path is not a name and a value: `team=sales`.",
    (422, "repairs_or_group"): "The request names both `repairs` and a `group`, or neither.",
    (422, "invalid_cursor"): "`after` is not a cursor of this list.",
    (422, "configuration_invalid"): (
        "`configuration` does not fit the connector's specification; `fields` has each path."
    ),
    (422, "connector_upgrade_refused"): (
        "Airbyte refuses to upgrade the source without a reason: its version may be pinned by a"
        " rollout."
    ),
    (422, "catalog_too_large"): "The catalog is larger than AAM or Airbyte accepts.",
    (422, "compound_cursor"): "A cursor is an object or array, which has no order.",
    (422, "compound_key"): "A primary key is an object or array, which no destination compares.",
    (422, "connection_locked"): "The connection is locked in Airbyte.",
    (
        422,
        "credential_incomplete",
    ): "A required field of the credential is missing; see `variable`.",
    (422, "credential_invalid"): "A field of the credential is invalid; see `variable`.",
    (422, "credential_not_found"): (
        "The credential store has no credential with this id, or it is used only by connections"
        " that the API key may not see."
    ),
    (422, "credential_not_used"): "This source type does not take a `credential_id`.",
    (422, "admin_not_limited"): "A key that is limited by labels cannot have the scope admin.",
    (422, "credential_required"): "This source type needs a `credential_id`.",
    (422, "cursor_not_selected"): "The cursor of a stream is not among its selected fields.",
    (422, "destination_required"): (
        "Neither the request nor AIRBYTE_DESTINATION_ID names a destination."
    ),
    (422, "duplicate_key"): "An object in the body has the same member twice.",
    (422, "duplicate_stream"): "Two streams of the catalog have the same name and namespace.",
    (422, "empty_catalog"): "The catalog has no streams.",
    (422, "empty_change"): "The request names no setting to change.",
    (422, "empty_policy"): "The request changes nothing in the policy.",
    (422, "forbidden_character"): (
        "A string has a NUL character or half of a surrogate pair, which Postgres cannot store."
    ),
    (422, "destination_cannot_hold"): (
        "The destination cannot hold a field, key or stream of the request, or another connection "
        "writes the same table."
    ),
    (422, "heal_impossible"): (
        "The decisions do not lead to a catalog that Airbyte can sync; see `problems`."
    ),
    (422, "integer_out_of_range"): "An integer does not fit into 64 bits.",
    (422, "invalid_catalog"): "The catalog is malformed.",
    (422, "invalid_json"): "The body is not valid JSON.",
    (422, "invalid_selected_field"): "A selected field has an empty path.",
    (422, "key_not_selected"): "A field of the primary key is not among the selected fields.",
    (422, "invalid_mapper"): "The configuration of a mapper is invalid.",
    (422, "continuity_required"): (
        "A field was renamed: `continuity` must say whether its column is kept."
    ),
    (422, "column_not_keepable"): (
        "The column of the renamed field cannot be kept; the message says why."
    ),
    (422, "no_kept_column"): "No mapper at the front of the stream's mappers renames the field.",
    (422, "not_renamed"): "`continuity` is given for a change that is not the rename of a field.",
    (422, "mapper_choice_required"): (
        "Mappers no longer find their field: `choices` must say what to do about them."
    ),
    (422, "mapper_field_exists"): "A mapper writes a field that is selected, too.",
    (422, "mapper_without_field"): (
        "A mapper names a field that is not selected or does not exist; Airbyte would refuse it."
    ),
    (422, "missing_cursor"): "A stream that is read incrementally has no cursor.",
    (422, "missing_primary_key"): "A stream that is deduplicated has no primary key.",
    (422, "missing_selected_fields"): "Field selection is enabled, but no field is selected.",
    (422, "name_too_long"): "The name of a member in the body is too long.",
    (422, "nested_selected_field"): "A nested field is selected; Airbyte selects top-level fields.",
    (422, "namespace_format_not_used"): (
        "`namespace_format` needs the `namespace_definition` `customformat`."
    ),
    (422, "namespace_format_required"): (
        "The `namespace_definition` `customformat` needs a `namespace_format`."
    ),
    (422, "never_selected"): "The connection's policy never selects this stream or field.",
    (422, "no_selected_stream"): "No stream is selected.",
    (422, "non_finite_number"): "A number in the body is infinite or not a number.",
    (422, "not_active"): "The connection has been archived; only as the reason of a failed repair.",
    (422, "not_created_by_aam"): "The connection to adopt has no marker of AAM in its name.",
    (422, "one_destination"): "The request names a destination twice.",
    (422, "refresh_unsupported"): (
        "The destination does not support refreshes of streams, so `on_global_state` cannot be"
        " `refresh`, and no stream can be refreshed on request."
    ),
    (422, "requested_by_given"): "Only services may send `requested_by` and `decided_at`.",
    (422, "reserved_key"): "The configuration has a name that Airbyte uses for its own members.",
    (422, "secret_in_order"): (
        "The request has a secret, which must come from the credential; `fields` has its path."
    ),
    (422, "secret_reference_misplaced"): (
        "The credential refers to Airbyte's secret store where the specification has no secret."
    ),
    (422, "secret_references_disabled"): (
        "The credential refers to Airbyte's secret store, but AIRBYTE_SECRET_REFERENCES is off."
    ),
    (422, "secret_references_unsupported"): (
        "The credential refers to Airbyte's secret store, which needs Airbyte 1.7 or newer."
    ),
    (422, "source_not_managed"): (
        "The connection was imported, and AAM does not change its source."
    ),
    (422, "store_not_configured"): (
        "The credential id names a store that the auth_broker is not configured for."
    ),
    (422, "stream_not_incremental"): (
        "The stream is read as a whole by each sync, so it needs no refresh."
    ),
    (422, "too_deep"): "The body is nested too deeply.",
    (422, "too_many_labels"): "The connection would have more labels than it may have.",
    (
        422,
        "too_many_streams",
    ): "More streams are selected than this Airbyte accepts in a connection.",
    (422, "too_many_members"): "An object in the body has too many members.",
    (422, "too_many_nodes"): "The body has too many values.",
    (422, "unknown_airbyte_connection"): "Airbyte has no such connection.",
    (422, "unknown_attempt"): "The job has no attempt of this number.",
    (422, "unknown_change"): "The repair has no change with this id.",
    (422, "unknown_connection"): "The connection that the webhook is for does not exist.",
    (422, "unknown_destination"): "Airbyte has no such destination.",
    (422, "not_a_mapper"): "`choices` has a `mapper` for a change that is not a lapsed mapper.",
    (422, "secret_in_catalog"): (
        "The catalog has an encryption key of a mapper, which AAM does not store."
    ),
    (422, "unknown_field"): "The catalog names a field that the stream does not have.",
    (422, "unknown_policy_entry"): "The policy has no such entry.",
    (422, "unknown_setting"): "A stream has a setting that Airbyte does not have.",
    (422, "unknown_snapshot"): "The snapshot does not exist, or belongs to another source.",
    (422, "unknown_source_type"): "Airbyte's workspace has no source type of this name or id.",
    (422, "unknown_stream"): "The source does not offer a stream of this name.",
    (422, "unknown_workspace"): "Airbyte has no such workspace, or AAM's login may not use it.",
    (422, "unsupported_sync_mode"): (
        "The source or the destination does not support the sync mode of a stream."
    ),
    (422, "upstream_unsupported"): (
        "This Airbyte lacks the endpoint: its version is unsupported, or AIRBYTE_API_URL is wrong."
    ),
    (422, "workspace_mismatch"): "The destination is in another workspace than `workspace_id`.",
    (429, "discovery_quota"): (
        "The source has reached its limit of discoveries in 24 hours, or the source type and"
        " credential have reached that of checks and previews."
    ),
    (429, "too_many_failures"): "This address has failed to authenticate too often.",
    (429, "too_many_streams"): (
        "The caller has EVENT_STREAMS_PER_CALLER event streams open in this process."
    ),
    (431, "head_too_large"): "The head of the request is too large.",
    (500, "internal_error"): "A bug; the log has the details under `request_id`.",
    (502, "broker_refused"): "The auth_broker refused the orchestrator's service token.",
    (502, "rotation_incomplete"): (
        "Not every source was given the credential; `connections` has the outcome of each."
    ),
    (502, "specification_unusable"): (
        "The specification that Airbyte has of this source type is too large, recursive or invalid."
    ),
    (502, "store_denied"): "The vault does not let the auth_broker read the credential.",
    (502, "upstream_auth"): "Airbyte refused AAM's login, or it has no access to the object.",
    (503, "airbyte_busy"): (
        "AIRBYTE_SLOW_CALLS slow calls to Airbyte are already in progress; nothing was sent."
    ),
    (503, "airbyte_workspace_not_set"): (
        "This Airbyte has no default workspace, and AIRBYTE_WORKSPACE_ID is not set."
    ),
    (503, "auth_broker_unavailable"): "The auth_broker cannot provide the credential now.",
    (503, "busy"): "The process is shutting down, or runs as many operations as it can.",
    (
        503,
        "rotation_unchecked",
    ): "The credential cannot be checked at the moment; nothing was changed.",
    (503, "events_unavailable"): "Redis does not respond, so events cannot be read now.",
    (503, "stopping"): "The process is stopping; connect again to reach another one.",
    (503, "store_unavailable"): "The credential store cannot be read now.",
    (503, "streams_full"): "The process has as many event streams open as it can serve.",
    (503, "too_many_connections"): "The process has reached its limit of concurrent requests.",
    (503, "webhooks_not_configured"): "Webhooks are disabled: WEBHOOK_SIGNING_KEY is not set.",
    (504, "abandon_failed"): (
        "The operation passed its deadline, and this could not be recorded for its connection."
    ),
    (504, "archive_deadline"): "Archiving the connection did not finish before its deadline.",
    (504, "cancel_deadline"): "Cancelling the job did not finish before its deadline.",
    (504, "commit_unknown"): "Whether the registry recorded the change is unknown.",
    (504, "edit_deadline"): "Changing the settings did not finish before its deadline.",
    (504, "heal_deadline"): "Applying the catalog did not finish before its deadline.",
    (504, "import_deadline"): (
        "The import did not finish before its deadline; another import processes the rest."
    ),
    (504, "onboard_deadline"): "The onboarding did not finish before its deadline.",
    (504, "outcome_unknown"): "The repair is decided, but its progress cannot be read now.",
    (
        504,
        "pause_deadline",
    ): "Pausing or resuming the connection did not finish before its deadline.",
    (
        504,
        "reapply_deadline",
    ): "Putting the newest catalog version back did not finish before its deadline.",
    (504, "refresh_deadline"): "Starting the refresh did not finish before its deadline.",
    (
        504,
        "rotate_deadline",
    ): "Giving the source its credential did not finish before its deadline.",
    (504, "rotation_unknown"): (
        "Whether every source was given the credential is unknown; `connections` has the outcome"
        " of each."
    ),
    (504, "sync_deadline"): "Starting the sync did not finish before its deadline.",
    (504, "upgrade_deadline"): "Upgrading the connector did not finish before its deadline.",
    (1000, "http_error"): "The HTTP framework refused the request.",
}
"""By status and code."""

PROBLEMS = {
    "cursor_gone": "The source no longer has the cursor of a stream.",
    "cursor_lost": "The cursor is gone, and the source offers the stream only incrementally.",
    "decided_twice": "Two decisions are about the same change.",
    "decision_outdated": "The source has changed again since the decision.",
    "excluded_field_needed": "A field to be excluded is the cursor or part of the primary key.",
    "field_gone": "The source no longer has a selected field.",
    "key_gone": "The source no longer has a field of the primary key.",
    "not_a_rename": "Only a removed field can have become another one.",
    "renamed_twice": "Two fields are said to have become the same one.",
    "stream_already_selected": "The connection already syncs the stream.",
    "stream_gone": "The source no longer offers the stream.",
}
"""By code: the members of `problems` that are no code of an answer."""
