-- Grants each service its privileges; runs after every run of the migrations, in the same transaction.
--
-- The migrations run as the owner of the tables. Each service's login is a member of its group role, which owns nothing:
-- aam_orchestrator, aam_auth_broker, aam_drift_repair_agent, aam_schema_observer, aam_rag_engine. A single login for all
-- services is a member of aam_services, which has the privileges of all five.
-- Everything else is revoked. A missing group role is created if this login has the privilege; otherwise it is skipped,
-- and gets its privileges in the next run after it was created. migrations/env.py reports missing roles.
DO $privileges$
DECLARE
    everything CONSTANT text := 'aam_services';
    roles CONSTANT text[] := ARRAY[
        everything, 'aam_orchestrator', 'aam_auth_broker', 'aam_drift_repair_agent', 'aam_schema_observer',
        'aam_rag_engine'
    ];
    -- Roles that a hosted Postgres grants every new table: those of Supabase's REST API.
    outsiders CONSTANT text[] := ARRAY['anon', 'authenticated', 'service_role'];
    closed CONSTANT text[] := ARRAY['alembic_version', 'pgqueuer_schedules'];
    grants CONSTANT text[] := ARRAY[
        -- role, table or sequence, privileges
        ['aam_orchestrator', 'api_keys', 'SELECT, INSERT, UPDATE (last_used_at, revoked_at)'],
        ['aam_orchestrator', 'connections', 'SELECT, INSERT, UPDATE'],
        ['aam_orchestrator', 'connection_health', 'SELECT, INSERT, UPDATE'],
        ['aam_orchestrator', 'credential_versions', 'SELECT, INSERT, UPDATE, DELETE'],
        ['aam_orchestrator', 'discoveries', 'SELECT, INSERT, UPDATE'],
        ['aam_orchestrator', 'events', 'SELECT, INSERT, UPDATE (published_at)'],
        ['aam_orchestrator', 'credential_audit', 'SELECT (id, at, caller, credential_id, source_type, result, request_id)'],
        ['aam_orchestrator', 'drifts',
            'SELECT (id, connection_id, after_snapshot_id, severity, affects_sync, connector_step, first_seen_at)'],
        ['aam_orchestrator', 'drifts', 'SELECT (summary)'],
        ['aam_orchestrator', 'import_items', 'SELECT, INSERT, UPDATE (outcome, code, connection_id, never_selected)'],
        ['aam_orchestrator', 'import_items', 'UPDATE (shared_tables)'],
        ['aam_orchestrator', 'job_history', 'SELECT, INSERT, UPDATE'],
        ['aam_orchestrator', 'observations',
            'SELECT (airbyte_source_id, airbyte_workspace_id, next_at, claimed_by, claimed_until)'],
        ['aam_orchestrator', 'observations',
            'SELECT (outcome, code, detail, suspicious_since, observed_at, overdue_at)'],
        ['aam_orchestrator', 'periodic_runs', 'SELECT, INSERT, UPDATE'],
        ['aam_orchestrator', 'operations', 'SELECT, INSERT, UPDATE, DELETE'],
        ['aam_orchestrator', 'policies', 'SELECT'],
        ['aam_orchestrator', 'policy_layers', 'SELECT'],
        ['aam_orchestrator', 'repairs',
            'SELECT (id, connection_id, kind, state, drift_id, parent_id, superseded_by, target_version, decisions,'
            ' operation_id, version_number, restored_version, job_id, failure_code, expires_at, created_at, ended_at)'],
        ['aam_orchestrator', 'repairs', 'SELECT (summary)'],
        ['aam_orchestrator', 'repairs', 'SELECT (decided_at)'],
        ['aam_orchestrator', 'setting_changes', 'SELECT, INSERT'],
        ['aam_orchestrator', 'snapshots',
            'SELECT, INSERT, UPDATE (seen_at, raw_hashes, stream_hashes, airbyte_catalog_id)'],
        ['aam_orchestrator', 'source_trials', 'SELECT, INSERT, UPDATE, DELETE'],
        ['aam_orchestrator', 'snapshots', 'UPDATE (connector_version, manifest_version)'],
        ['aam_orchestrator', 'source_connectors', 'SELECT, INSERT, UPDATE'],
        ['aam_orchestrator', 'stream_schemas', 'SELECT, INSERT, UPDATE (created_at)'],
        ['aam_orchestrator', 'stream_states', 'SELECT (operation_id, saved_at), INSERT'],
        ['aam_orchestrator', 'sync_catalog_versions', 'SELECT, INSERT'],
        ['aam_orchestrator', 'sync_volumes', 'SELECT, INSERT, UPDATE (job_id, ended_at, volumes)'],
        ['aam_orchestrator', 'timeline_events', 'SELECT, INSERT'],
        ['aam_orchestrator', 'watches', 'SELECT (connection_id, interval_seconds)'],

        ['aam_orchestrator', 'refusals', 'SELECT, INSERT, UPDATE (count, first_at, last_at)'],

        ['aam_auth_broker', 'credential_audit', 'INSERT'],

        ['aam_drift_repair_agent', 'api_keys',
            'SELECT (id, digest, owner, scopes, expires_at, last_used_at, revoked_at), UPDATE (last_used_at)'],
        ['aam_drift_repair_agent', 'api_keys', 'SELECT (labels)'],
        ['aam_drift_repair_agent', 'refusals', 'SELECT, INSERT, UPDATE (count, first_at, last_at)'],
        ['aam_drift_repair_agent', 'connections',
            'SELECT, UPDATE (status, heal_id, healing_since, catalog_version, has_mappers, failure_code, failure_detail,'
            ' drifted_upstream_at, upstream_code, paused_by, event_seq, updated_at)'],
        ['aam_drift_repair_agent', 'connections', 'UPDATE (unpaused_repair_id)'],
        ['aam_drift_repair_agent', 'connection_health', 'SELECT, INSERT, UPDATE'],
        ['aam_drift_repair_agent', 'drifts', 'SELECT'],
        ['aam_drift_repair_agent', 'events', 'SELECT, INSERT'],
        ['aam_drift_repair_agent', 'job_history', 'SELECT'],
        ['aam_drift_repair_agent', 'observations',
            'SELECT (airbyte_source_id, outcome, code, detail, suspicious_since, overdue_at)'],
        ['aam_drift_repair_agent', 'periodic_runs', 'SELECT, INSERT, UPDATE'],
        ['aam_drift_repair_agent', 'operations', 'SELECT, INSERT, UPDATE, DELETE'],
        ['aam_drift_repair_agent', 'plans', 'SELECT, INSERT, UPDATE, DELETE'],
        ['aam_drift_repair_agent', 'policies', 'SELECT, INSERT, UPDATE'],
        ['aam_drift_repair_agent', 'policy_layers', 'SELECT, INSERT, UPDATE, DELETE'],
        ['aam_drift_repair_agent', 'repairs', 'SELECT, INSERT, UPDATE'],
        ['aam_drift_repair_agent', 'setting_changes', 'SELECT, INSERT'],
        ['aam_drift_repair_agent', 'snapshots', 'SELECT'],
        ['aam_drift_repair_agent', 'snapshots', 'UPDATE (connector_version, manifest_version)'],
        ['aam_drift_repair_agent', 'source_connectors', 'SELECT, INSERT, UPDATE'],
        ['aam_drift_repair_agent', 'stream_schemas', 'SELECT'],
        ['aam_drift_repair_agent', 'stream_states', 'SELECT, INSERT'],
        ['aam_drift_repair_agent', 'sync_catalog_versions', 'SELECT, INSERT'],
        ['aam_drift_repair_agent', 'timeline_events', 'SELECT, INSERT, UPDATE (to_notify)'],
        ['aam_drift_repair_agent', 'webhook_deliveries', 'SELECT, INSERT, UPDATE'],
        ['aam_drift_repair_agent', 'webhooks', 'SELECT, INSERT, UPDATE'],

        ['aam_schema_observer', 'api_keys',
            'SELECT (id, digest, owner, scopes, expires_at, last_used_at, revoked_at), UPDATE (last_used_at)'],
        ['aam_schema_observer', 'api_keys', 'SELECT (labels)'],
        ['aam_schema_observer', 'refusals', 'SELECT, INSERT, UPDATE (count, first_at, last_at)'],
        ['aam_schema_observer', 'connections', 'SELECT, UPDATE (event_seq, updated_at)'],
        ['aam_schema_observer', 'connection_health', 'SELECT, INSERT, UPDATE'],
        ['aam_schema_observer', 'discoveries', 'SELECT, INSERT, UPDATE, DELETE'],
        ['aam_schema_observer', 'drifts', 'SELECT, INSERT'],
        ['aam_schema_observer', 'events', 'SELECT, INSERT'],
        ['aam_schema_observer', 'job_history', 'SELECT (connection_id, started_at, ended_at)'],
        ['aam_schema_observer', 'job_history', 'SELECT (id, status, failure_code)'],
        ['aam_schema_observer', 'job_history', 'SELECT (kind)'],
        ['aam_schema_observer', 'periodic_runs', 'SELECT, INSERT, UPDATE'],
        ['aam_schema_observer', 'observations', 'SELECT, INSERT, UPDATE, DELETE'],
        ['aam_schema_observer', 'operations', 'SELECT (connection_id, kind, status, created_at)'],
        ['aam_schema_observer', 'plans', 'SELECT'],
        ['aam_schema_observer', 'policies', 'SELECT (connection_id, policy)'],
        ['aam_schema_observer', 'policy_layers', 'SELECT (level, name, value, policy)'],
        ['aam_schema_observer', 'repairs', 'SELECT (connection_id, state, snapshot_id, ended_at)'],
        ['aam_schema_observer', 'repairs', 'SELECT (id, drift_id, summary, created_at)'],
        ['aam_schema_observer', 'setting_changes', 'SELECT, INSERT'],
        ['aam_schema_observer', 'snapshots',
            'SELECT, INSERT, UPDATE (seen_at, raw_hashes, stream_hashes, airbyte_catalog_id)'],
        ['aam_schema_observer', 'snapshots', 'UPDATE (connector_version, manifest_version)'],
        ['aam_schema_observer', 'source_connectors', 'SELECT, INSERT, UPDATE, DELETE'],
        ['aam_schema_observer', 'stream_schemas', 'SELECT, INSERT, UPDATE (created_at)'],
        ['aam_schema_observer', 'sync_catalog_versions', 'SELECT'],
        ['aam_schema_observer', 'timeline_events', 'SELECT, INSERT'],
        ['aam_schema_observer', 'watches', 'SELECT, INSERT, UPDATE'],

        ['aam_rag_engine', 'api_keys',
            'SELECT (id, digest, owner, scopes, expires_at, last_used_at, revoked_at), UPDATE (last_used_at)'],
        ['aam_rag_engine', 'api_keys', 'SELECT (labels)'],
        ['aam_rag_engine', 'refusals', 'SELECT, INSERT, UPDATE (count, first_at, last_at)'],
        ['aam_rag_engine', 'connections', 'SELECT (id, name)'],
        ['aam_rag_engine', 'knowledge', 'SELECT, INSERT'],

        -- PgQueuer's tables: one queue, from which three services run jobs.
        ['aam_orchestrator', 'pgqueuer', 'SELECT, INSERT, UPDATE, DELETE'],
        ['aam_orchestrator', 'pgqueuer_id_seq', 'USAGE'],
        ['aam_orchestrator', 'pgqueuer_log', 'SELECT, INSERT, UPDATE, DELETE'],
        ['aam_orchestrator', 'pgqueuer_statistics', 'SELECT, INSERT, UPDATE, DELETE'],
        ['aam_orchestrator', 'pgqueuer_statistics_id_seq', 'USAGE'],
        ['aam_drift_repair_agent', 'pgqueuer', 'SELECT, INSERT, UPDATE, DELETE'],
        ['aam_drift_repair_agent', 'pgqueuer_id_seq', 'USAGE'],
        ['aam_drift_repair_agent', 'pgqueuer_log', 'SELECT, INSERT, UPDATE, DELETE'],
        ['aam_drift_repair_agent', 'pgqueuer_statistics', 'SELECT, INSERT, UPDATE, DELETE'],
        ['aam_drift_repair_agent', 'pgqueuer_statistics_id_seq', 'USAGE'],
        ['aam_schema_observer', 'pgqueuer', 'SELECT, INSERT, UPDATE, DELETE'],
        ['aam_schema_observer', 'pgqueuer_id_seq', 'USAGE'],
        ['aam_schema_observer', 'pgqueuer_log', 'SELECT, INSERT, UPDATE, DELETE'],
        ['aam_schema_observer', 'pgqueuer_statistics', 'SELECT, INSERT, UPDATE, DELETE'],
        ['aam_schema_observer', 'pgqueuer_statistics_id_seq', 'USAGE']
    ];
    -- The function in migrations/prune_history.sql that deletes history; the orchestrator calls it.
    prune_history CONSTANT regprocedure := to_regprocedure('public.prune_history(text, interval, integer)');
    role_name text;
    granted text[];
    relation record;
BEGIN
    FOREACH role_name IN ARRAY roles LOOP
        CONTINUE WHEN to_regrole(role_name) IS NOT NULL;
        CONTINUE WHEN NOT (SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user);
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL; -- created by the migrations of another registry meanwhile
        END;
    END LOOP;

    FOREACH role_name IN ARRAY roles LOOP
        CONTINUE WHEN to_regrole(role_name) IS NULL;
        EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', role_name);
    END LOOP;

    FOR relation IN
        SELECT relname, CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind
        FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND (
            relname = ANY(grants) OR relname = ANY(closed)
            OR relkind = 'S' AND EXISTS ( -- of a column of these tables
                SELECT FROM pg_depend JOIN pg_class owned ON owned.oid = refobjid
                WHERE objid = pg_class.oid AND deptype IN ('a', 'i')
                    AND (owned.relname = ANY(grants) OR owned.relname = ANY(closed))
            )
        )
    LOOP
        FOREACH role_name IN ARRAY roles || outsiders LOOP
            CONTINUE WHEN to_regrole(role_name) IS NULL;
            EXECUTE format('REVOKE ALL ON %s %I FROM %I', relation.kind, relation.relname, role_name);
        END LOOP;
        EXECUTE format('REVOKE ALL ON %s %I FROM PUBLIC', relation.kind, relation.relname);
    END LOOP;

    FOREACH granted SLICE 1 IN ARRAY grants LOOP
        SELECT relname, CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind INTO relation
        FROM pg_class WHERE relname = granted[2] AND relnamespace = 'public'::regnamespace;
        CONTINUE WHEN NOT FOUND; -- during a downgrade
        FOREACH role_name IN ARRAY ARRAY[granted[1], everything] LOOP
            CONTINUE WHEN to_regrole(role_name) IS NULL;
            BEGIN
                EXECUTE format('GRANT %s ON %s %I TO %I', granted[3], relation.kind, relation.relname, role_name);
                IF to_regclass('aam_limited.' || granted[2]) IS NOT NULL THEN -- see limited_views.sql
                    EXECUTE format('GRANT %s ON aam_limited.%I TO %I', granted[3], granted[2], role_name);
                END IF;
            EXCEPTION WHEN undefined_column THEN
                NULL; -- in an older version: a column that came later has an entry of its own
            END;
        END LOOP;
    END LOOP;

    IF prune_history IS NOT NULL THEN
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', prune_history);
        FOREACH role_name IN ARRAY roles || outsiders LOOP
            CONTINUE WHEN to_regrole(role_name) IS NULL;
            EXECUTE format('REVOKE ALL ON FUNCTION %s FROM %I', prune_history, role_name);
            CONTINUE WHEN role_name NOT IN (everything, 'aam_orchestrator');
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', prune_history, role_name);
        END LOOP;
    END IF;
END
$privileges$
