"""Registry queries used by several services, as functions that take the caller's session."""

from shared.registry.api_keys import (
    LiveKey,
    find_key,
    has_key,
    has_valid_key,
    insert_key,
    key_json,
    lock_key_creation,
    page_of_keys,
    revoke_key,
    use_key,
)
from shared.registry.connections import (
    CONNECTION_FIELDS,
    LIVE,
    JobFilter,
    append_version,
    begin_heal,
    connection_json,
    connection_names,
    end_heal,
    expect_free_name,
    expect_no_hidden_connection,
    find_connection,
    head_fingerprint,
    insert_pending,
    is_busy,
    lock_connection,
    page_of_jobs,
    page_of_versions,
    read_version,
)
from shared.registry.connectors import (
    connector_step,
    find_connector,
    read_step,
    record_connector,
    write_step,
)
from shared.registry.database_clock import now, take_turn
from shared.registry.destination_tables import (
    WrittenStreams,
    claimed_streams,
    lock_tables,
    naming_of,
    page_of_written_streams,
    read_naming,
    save_naming,
)
from shared.registry.discoveries import (
    SourceLoad,
    begin_discoveries,
    end_discoveries,
    end_discovery,
    forget_renewals,
    is_discovery_over,
    limit_frees_at,
    lock_discoveries,
    prune_discoveries,
    record_discovery,
    renewed_sources,
    source_loads,
    withdraw_discoveries,
)
from shared.registry.health import (
    mark_changed,
    mark_source_changed,
    rebuild_health,
    refresh_health,
)
from shared.registry.paging import (
    Cursor,
    Position,
    after_cursor,
    after_position,
    after_stream,
    cursor_of,
    like,
    next_position,
    page,
    read_cursor,
    read_position,
    read_stream_cursor,
    stamp,
    stream_cursor,
)
from shared.registry.policies import (
    exclusions_of,
    exclusions_of_type,
    find_policy,
    former_labels,
    labels_with_policies,
    layers_of,
    lock_policy_layers,
)
from shared.registry.prune_history import prune_history
from shared.registry.refusals import (
    ADDRESS,
    MOST_ROWS,
    Count,
    Refused,
    add_refusals,
    among_others,
    page_of_refusals,
)
from shared.registry.setting_changes import (
    POLICY_LAYERS,
    SettingSubject,
    record_setting_change,
    setting_history_json,
)
from shared.registry.snapshots import (
    find_snapshot,
    insert_stream_schemas,
    latest_snapshot,
    mark_snapshot_seen,
    offered_streams,
    snapshot_streams,
    split_hashes,
    stream_bodies,
)
