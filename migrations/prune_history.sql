-- prune_history: the only way for a service to delete history; created after every run of the migrations.
--
-- It runs as the owner of the tables, so that services need no DELETE privilege. It refuses a retention that is too
-- short, and never deletes rows that are still referenced. Catalog versions and knowledge are kept for ever. Returns the
-- number of deleted rows, at most `at_most`: oldest first; locked rows are skipped.
DO $retention$
BEGIN
    IF to_regclass('public.stream_schemas') IS NULL OR to_regclass('public.credential_audit') IS NULL THEN
        DROP FUNCTION IF EXISTS public.prune_history(text, interval, integer); -- during a downgrade
        RETURN;
    END IF;
    CREATE OR REPLACE FUNCTION public.prune_history(what text, kept interval, at_most integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = public, pg_temp SET plan_cache_mode = force_custom_plan AS $prune$
    DECLARE
        until CONSTANT timestamptz := now() - kept;
        deleted integer;
    BEGIN
        IF kept < interval '1 day' OR kept < interval '90 days' AND what IN ('api_keys', 'credential_audit') THEN
            RAISE EXCEPTION 'The retention of % is too short: %.', what, kept
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        -- ARRAY: a subquery of IN may run for each row, and would then lock and delete at_most rows each time.
        CASE what
        WHEN 'events' THEN
            -- The oldest were published first. The cost does not depend on the number of other rows.
            DELETE FROM events WHERE published_at < until
                AND id = ANY (ARRAY(SELECT id FROM events ORDER BY id LIMIT at_most));
        WHEN 'timeline_events' THEN
            DELETE FROM timeline_events WHERE id = ANY (ARRAY(
                SELECT id FROM timeline_events WHERE at < until ORDER BY at LIMIT at_most FOR UPDATE SKIP LOCKED
            ));
        WHEN 'job_history' THEN
            -- Except the newest sync of each connection and the jobs after it, and those that a repair waits for.
            DELETE FROM job_history WHERE id = ANY (ARRAY(
                SELECT j.id FROM job_history j
                WHERE j.ended_at < until
                    AND EXISTS (
                        SELECT FROM job_history newer
                        WHERE newer.connection_id = j.connection_id AND newer.started_at > j.started_at
                            AND newer.kind IN ('sync', 'refresh')
                    )
                    AND NOT EXISTS (
                        SELECT FROM repairs r
                        WHERE r.state IN ('approved', 'applying', 'verifying', 'rolling_back') AND r.job_id = j.id
                    )
                ORDER BY j.ended_at LIMIT at_most FOR UPDATE SKIP LOCKED
            ));
        WHEN 'operations' THEN
            -- Including their Idempotency-Keys, which are valid for a day. Except those that a repair waits for.
            DELETE FROM operations WHERE id = ANY (ARRAY(
                SELECT o.id FROM operations o
                WHERE o.ended_at < until
                    AND NOT EXISTS (
                        SELECT FROM repairs r
                        WHERE r.state IN ('approved', 'applying', 'verifying', 'rolling_back')
                            AND r.operation_id = o.id
                    )
                ORDER BY o.ended_at LIMIT at_most FOR UPDATE SKIP LOCKED
            ));
        WHEN 'refusals' THEN
            DELETE FROM refusals WHERE id = ANY (ARRAY(
                SELECT id FROM refusals WHERE minute < until ORDER BY minute LIMIT at_most FOR UPDATE SKIP LOCKED
            ));
        WHEN 'webhook_deliveries' THEN
            DELETE FROM webhook_deliveries WHERE id = ANY (ARRAY(
                SELECT id FROM webhook_deliveries WHERE ended_at < until
                ORDER BY ended_at LIMIT at_most FOR UPDATE SKIP LOCKED
            ));
        WHEN 'repairs' THEN
            -- Except those that a version, a webhook message, another repair or a pause refers to, those that
            -- are not learned yet, and the rejections and failures that the planner of a live connection reads.
            DELETE FROM repairs WHERE id = ANY (ARRAY(
                SELECT r.id FROM repairs r JOIN connections c ON c.id = r.connection_id
                WHERE r.ended_at < until AND r.is_learned
                    AND (c.archived_at IS NOT NULL OR NOT (
                        r.state IN ('rejected', 'failed', 'rolled_back')
                        OR r.kind = 'rollback' AND r.state = 'applied'
                    ))
                    AND NOT EXISTS (SELECT FROM sync_catalog_versions v WHERE v.repair_id = r.id)
                    AND NOT EXISTS (SELECT FROM webhook_deliveries w WHERE w.repair_id = r.id)
                    AND NOT EXISTS (SELECT FROM repairs child WHERE child.parent_id = r.id)
                    AND NOT EXISTS (SELECT FROM repairs older WHERE older.superseded_by = r.id)
                    AND NOT EXISTS (SELECT FROM connections paused WHERE paused.paused_by = r.id)
                ORDER BY r.ended_at LIMIT at_most FOR UPDATE OF r SKIP LOCKED
            ));
        WHEN 'drifts' THEN
            -- Except the newest of each connection, and those that a repair belongs to.
            DELETE FROM drifts WHERE id = ANY (ARRAY(
                SELECT d.id FROM drifts d
                WHERE d.first_seen_at < until
                    AND NOT EXISTS (SELECT FROM repairs r WHERE r.drift_id = d.id)
                    AND EXISTS (
                        SELECT FROM drifts newer
                        WHERE newer.connection_id = d.connection_id AND newer.first_seen_at > d.first_seen_at
                    )
                ORDER BY d.first_seen_at LIMIT at_most FOR UPDATE SKIP LOCKED
            ));
        WHEN 'stream_states' THEN
            DELETE FROM stream_states WHERE id = ANY (ARRAY(
                SELECT id FROM stream_states WHERE saved_at < until
                ORDER BY saved_at LIMIT at_most FOR UPDATE SKIP LOCKED
            ));
        WHEN 'sync_volumes' THEN
            DELETE FROM sync_volumes WHERE job_id = ANY (ARRAY(
                SELECT job_id FROM sync_volumes WHERE ended_at < until
                ORDER BY ended_at LIMIT at_most FOR UPDATE SKIP LOCKED
            ));
        WHEN 'snapshots' THEN
            -- Except the newest of each source, and those that anything was made from or compared with.
            DELETE FROM snapshots WHERE id = ANY (ARRAY(
                SELECT s.id FROM snapshots s
                WHERE s.taken_at < until AND s.seen_at < until
                    AND EXISTS (
                        SELECT FROM snapshots newer
                        WHERE newer.airbyte_source_id = s.airbyte_source_id AND newer.taken_at > s.taken_at
                    )
                    AND NOT EXISTS (SELECT FROM sync_catalog_versions v WHERE v.snapshot_id = s.id)
                    AND NOT EXISTS (SELECT FROM repairs r WHERE r.snapshot_id = s.id)
                    AND NOT EXISTS (SELECT FROM plans p WHERE p.snapshot_id = s.id)
                    AND NOT EXISTS (SELECT FROM drifts d WHERE d.before_snapshot_id = s.id)
                    AND NOT EXISTS (SELECT FROM drifts d WHERE d.after_snapshot_id = s.id)
                    AND NOT EXISTS (SELECT FROM observations o WHERE o.snapshot_id = s.id)
                    AND NOT EXISTS (SELECT FROM watches w WHERE w.compared_snapshot_id = s.id)
                ORDER BY s.taken_at LIMIT at_most FOR UPDATE SKIP LOCKED
            ));
        WHEN 'stream_schemas' THEN
            -- Those that no snapshot lists. If one is stored again meanwhile, its `created_at` changes and it
            -- stays: Postgres evaluates the outer condition again for a changed row.
            DELETE FROM stream_schemas WHERE created_at < until AND hash IN (
                SELECT schema.hash FROM stream_schemas schema
                WHERE schema.created_at < until AND NOT EXISTS (
                    SELECT FROM (
                        SELECT substr(listed.hashes, at, 16) AS hash
                        FROM (SELECT stream_hashes || ''::bytea AS hashes FROM snapshots OFFSET 0) listed
                        CROSS JOIN generate_series(1, length(listed.hashes), 16) at
                    ) used WHERE used.hash = schema.hash
                )
                ORDER BY schema.created_at LIMIT at_most
            );
        WHEN 'api_keys' THEN
            DELETE FROM api_keys WHERE id = ANY (ARRAY(
                SELECT id FROM api_keys WHERE revoked_at < until OR expires_at < until
                ORDER BY id LIMIT at_most FOR UPDATE SKIP LOCKED
            ));
        WHEN 'credential_audit' THEN
            DELETE FROM credential_audit WHERE id = ANY (ARRAY(
                SELECT id FROM credential_audit WHERE at < until ORDER BY at LIMIT at_most FOR UPDATE SKIP LOCKED
            ));
        ELSE
            RAISE EXCEPTION 'There is no history of %.', what USING ERRCODE = 'invalid_parameter_value';
        END CASE;
        GET DIAGNOSTICS deleted = ROW_COUNT;
        RETURN deleted;
    END
    $prune$;
END
$retention$
