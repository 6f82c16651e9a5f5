-- prune_history: the one way by which a service deletes history, applied after every run of the migrations.
--
-- It runs as the tables' owner, so that no service needs DELETE on what it deletes. It refuses a retention that is too
-- short, and whatever it is told it keeps what something still refers to. Catalog versions and knowledge are kept for
-- ever. Returns how many rows were deleted, at most `at_most`: oldest first, skipping those that somebody holds.
DO $retention$
BEGIN
    IF to_regclass('public.stream_schemas') IS NULL OR to_regclass('public.credential_audit') IS NULL THEN
        DROP FUNCTION IF EXISTS public.prune_history(text, interval, integer); -- on the way down
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
        -- ARRAY: the subquery of IN may be run for each row, and would lock, and delete, at_most anew.
        CASE what
        WHEN 'events' THEN
            -- The oldest were published first. The cost does not grow with the rest.
            DELETE FROM events WHERE published_at < until
                AND id IN (SELECT id FROM events ORDER BY id LIMIT at_most);
        WHEN 'job_history' THEN
            -- Not the newest of a connection, nor one that a repair waits for.
            DELETE FROM job_history WHERE id = ANY (ARRAY(
                SELECT j.id FROM job_history j
                WHERE j.ended_at < until
                    AND EXISTS (
                        SELECT FROM job_history newer
                        WHERE newer.connection_id = j.connection_id AND newer.started_at > j.started_at
                    )
                    AND NOT EXISTS (
                        SELECT FROM repairs r
                        WHERE r.state IN ('approved', 'applying', 'verifying', 'rolling_back') AND r.job_id = j.id
                    )
                ORDER BY j.ended_at LIMIT at_most FOR UPDATE SKIP LOCKED
            ));
        WHEN 'operations' THEN
            -- With them go Idempotency-Keys, which count for a day. Not one that a repair waits for.
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
        WHEN 'webhook_deliveries' THEN
            DELETE FROM webhook_deliveries WHERE id = ANY (ARRAY(
                SELECT id FROM webhook_deliveries WHERE ended_at < until
                ORDER BY ended_at LIMIT at_most FOR UPDATE SKIP LOCKED
            ));
        WHEN 'repairs' THEN
            -- Not one that a version, a message, another repair or a pause refers to, that is not learned, or that
            -- tells the planner of a live connection what a person refused or what failed.
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
            -- Not the newest of a connection, nor one that a repair answers.
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
        WHEN 'snapshots' THEN
            -- Not the newest of a source, nor one that anything was made from or compared with.
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
            -- Those that no snapshot lists. One that is stored again meanwhile has another `created_at` by then, and
            -- stays: the condition outside is looked at again when its row was changed.
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
