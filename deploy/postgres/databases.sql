-- Creates the registry and the warehouse, each with a role that has no access to the other database. Each service has
-- its own login to the registry, which owns nothing: the migrations, run as aam, grant privileges to its group role.
-- To create what is missing and set the passwords again:
--   docker compose exec postgres psql -U postgres -f /docker-entrypoint-initdb.d/databases.sql
\set aam `cat "$PASSWORDS_DIR/aam"`
\set warehouse `cat "$PASSWORDS_DIR/warehouse"`
\set orchestrator `cat "$PASSWORDS_DIR/aam_orchestrator_login"`
\set auth_broker `cat "$PASSWORDS_DIR/aam_auth_broker_login"`
\set drift_repair_agent `cat "$PASSWORDS_DIR/aam_drift_repair_agent_login"`
\set schema_observer `cat "$PASSWORDS_DIR/aam_schema_observer_login"`
\set rag_engine `cat "$PASSWORDS_DIR/aam_rag_engine_login"`
SELECT format('CREATE ROLE %I', name) FROM unnest(ARRAY[
    'aam', 'warehouse', 'aam_services',
    'aam_orchestrator', 'aam_auth_broker', 'aam_drift_repair_agent', 'aam_schema_observer', 'aam_rag_engine',
    'aam_orchestrator_login', 'aam_auth_broker_login', 'aam_drift_repair_agent_login', 'aam_schema_observer_login',
    'aam_rag_engine_login'
]) name WHERE to_regrole(name) IS NULL \gexec
ALTER ROLE aam LOGIN PASSWORD :'aam';
ALTER ROLE warehouse LOGIN PASSWORD :'warehouse';
ALTER ROLE aam_orchestrator_login LOGIN PASSWORD :'orchestrator';
ALTER ROLE aam_auth_broker_login LOGIN PASSWORD :'auth_broker';
ALTER ROLE aam_drift_repair_agent_login LOGIN PASSWORD :'drift_repair_agent';
ALTER ROLE aam_schema_observer_login LOGIN PASSWORD :'schema_observer';
ALTER ROLE aam_rag_engine_login LOGIN PASSWORD :'rag_engine';
GRANT aam_orchestrator TO aam_orchestrator_login;
GRANT aam_auth_broker TO aam_auth_broker_login;
GRANT aam_drift_repair_agent TO aam_drift_repair_agent_login;
GRANT aam_schema_observer TO aam_schema_observer_login;
GRANT aam_rag_engine TO aam_rag_engine_login;
SELECT format('CREATE DATABASE %I OWNER %I', name, name) FROM unnest(ARRAY['aam', 'warehouse']) name
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = name) \gexec
REVOKE ALL ON DATABASE aam, warehouse, postgres FROM PUBLIC;
GRANT CONNECT ON DATABASE aam TO aam_services, aam_orchestrator, aam_auth_broker, aam_drift_repair_agent,
    aam_schema_observer, aam_rag_engine;
