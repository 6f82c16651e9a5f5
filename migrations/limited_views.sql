-- The tables as a caller sees them whose API key is limited to connections by label; runs after every run of the
-- migrations, in the same transaction, and before privileges.sql.
--
-- A transaction of such a caller has `search_path = aam_limited` and its labels in `aam.labels`: see shared/database.py.
-- Each view leaves out the rows of other connections, and is updatable, so that every query works unchanged. A table
-- without a view here does not exist for such a caller. Without `aam.labels` a query fails.
DO $limited$
DECLARE
    sees CONSTANT text := 'c.labels @> CAST(current_setting(''aam.labels'') AS jsonb)';
    -- The columns of $1 that lead to a connection that the caller sees.
    of_connection CONSTANT text := 'EXISTS (SELECT FROM public.connections c WHERE c.id = t.%s AND ' || sees || ')';
    of_source CONSTANT text :=
        'EXISTS (SELECT FROM public.connections c WHERE c.airbyte_source_id = t.airbyte_source_id AND ' || sees || ')';
    of_webhook CONSTANT text :=
        'EXISTS (SELECT FROM public.webhooks w JOIN public.connections c ON c.id = w.connection_id'
        ' WHERE w.id = t.%s AND ' || sees || ')';
    views CONSTANT text[] := ARRAY[
        -- table, condition
        ['connections', replace(sees, 'c.', 't.')],
        ['connection_health', format(of_connection, 'connection_id')],
        ['drifts', format(of_connection, 'connection_id')],
        ['events', format(of_connection, 'connection_id')],
        ['job_history', format(of_connection, 'connection_id')],
        ['knowledge', format(of_connection, 'connection_id')], -- not what is about no connection
        -- Not what is about no connection. Recorded in the table itself: see shared/operations/_sql.py.
        ['operations', format(of_connection, 'connection_id')],
        ['plans', format(of_connection, 'connection_id')],
        ['policies', format(of_connection, 'connection_id')],
        ['repairs', format(of_connection, 'connection_id')],
        ['stream_states', format(of_connection, 'connection_id')],
        ['sync_volumes', format(of_connection, 'connection_id')],
        ['sync_catalog_versions', format(of_connection, 'connection_id')],
        ['timeline_events', format(of_connection, 'connection_id')],
        ['watches', format(of_connection, 'connection_id')],
        ['webhooks', format(of_connection, 'connection_id')], -- not those of all connections
        ['webhook_deliveries', format(of_webhook, 'webhook_id')],
        ['setting_changes',
            '(t.subject IN (''policy'', ''observation'', ''connection'') AND ' || format(of_connection, 'subject_id')
            || ' OR t.subject = ''webhook'' AND ' || format(of_webhook, 'subject_id') || ')'],
        ['discoveries', of_source],
        ['observations', of_source],
        ['snapshots', of_source],
        ['source_connectors', of_source],
        ['credential_versions',
            'EXISTS (SELECT FROM public.connections c WHERE c.credential_id = t.credential_id AND ' || sees || ')'],
        -- What belongs to no connection, and is needed to carry out what the caller may do.
        ['policy_layers', 'true'],
        ['source_trials', 'true'],
        ['stream_schemas', 'true'],
        ['periodic_runs', 'true']
    ];
    role_name text;
    one text[];
BEGIN
    CREATE SCHEMA IF NOT EXISTS aam_limited;
    FOREACH role_name IN ARRAY ARRAY[
        'aam_services', 'aam_orchestrator', 'aam_drift_repair_agent', 'aam_schema_observer', 'aam_rag_engine'
    ] LOOP
        CONTINUE WHEN to_regrole(role_name) IS NULL;
        EXECUTE format('GRANT USAGE ON SCHEMA aam_limited TO %I', role_name);
    END LOOP;
    FOREACH one SLICE 1 IN ARRAY views LOOP
        CONTINUE WHEN to_regclass('public.' || one[1]) IS NULL;
        BEGIN
            EXECUTE format(
                'CREATE VIEW aam_limited.%I AS SELECT t.* FROM public.%I t WHERE %s WITH LOCAL CHECK OPTION',
                one[1], one[1], one[2]
            );
        EXCEPTION WHEN undefined_column THEN
            NULL; -- in an older version, which has no limited keys
        END;
    END LOOP;
END
$limited$
