-- What the services may do with each table, applied after every run of the migrations, in its transaction.
--
-- The migrations run as the tables' owner; the services log in as a member of aam_services, which owns nothing.
-- A table that is not listed is closed to them. Where aam_services is missing and this login may not make it,
-- nothing is granted: the services then need the owner's login.
DO $privileges$
DECLARE
    granted record;
BEGIN
    IF to_regrole('aam_services') IS NULL THEN
        IF NOT (SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user) THEN
            RETURN;
        END IF;
        BEGIN
            CREATE ROLE aam_services NOLOGIN;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL; -- another registry of this server was faster
        END;
    END IF;

    GRANT USAGE ON SCHEMA public TO aam_services;

    FOR granted IN
        SELECT relname, relkind, may FROM (VALUES
            ('api_keys',              'SELECT, INSERT, UPDATE'),
            ('connections',           'SELECT, INSERT, UPDATE'),
            ('credential_audit',      'SELECT, INSERT'),
            ('discoveries',           'SELECT, INSERT, UPDATE, DELETE'),
            ('drifts',                'SELECT, INSERT'),
            ('events',                'SELECT, INSERT, UPDATE, DELETE'),
            ('job_history',           'SELECT, INSERT, UPDATE'),
            ('knowledge',             'SELECT, INSERT'),
            ('looks',                 'SELECT, INSERT, UPDATE'),
            ('observations',          'SELECT, INSERT, UPDATE, DELETE'),
            ('operations',            'SELECT, INSERT, UPDATE, DELETE'),
            ('plans',                 'SELECT, INSERT, UPDATE, DELETE'),
            ('policies',              'SELECT, INSERT, UPDATE'),
            ('repairs',               'SELECT, INSERT, UPDATE'),
            ('setting_changes',       'SELECT, INSERT'),
            ('snapshots',             'SELECT, INSERT, UPDATE'),
            ('source_credentials',    'SELECT, INSERT, UPDATE'),
            ('stream_schemas',        'SELECT, INSERT'),
            ('sync_catalog_versions', 'SELECT, INSERT'),
            ('watches',               'SELECT, INSERT, UPDATE'),
            ('webhook_deliveries',    'SELECT, INSERT, UPDATE, DELETE'),
            ('webhooks',              'SELECT, INSERT, UPDATE'),
            -- PgQueuer's own
            ('pgqueuer',              'SELECT, INSERT, UPDATE, DELETE'),
            ('pgqueuer_log',          'SELECT, INSERT, UPDATE, DELETE'),
            ('pgqueuer_statistics',   'SELECT, INSERT, UPDATE, DELETE'),
            ('pgqueuer_id_seq',            'USAGE'),
            ('pgqueuer_statistics_id_seq', 'USAGE')
        ) AS listed (name, may)
        JOIN pg_class ON relname = name AND relnamespace = 'public'::regnamespace
    LOOP
        EXECUTE format('REVOKE ALL ON %s %I FROM aam_services',
            CASE granted.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, granted.relname);
        EXECUTE format('GRANT %s ON %s %I TO aam_services', granted.may,
            CASE granted.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, granted.relname);
    END LOOP;
END
$privileges$
