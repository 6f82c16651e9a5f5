-- The registry and the warehouse, each with a role of its own that cannot enter the other's database. The
-- services enter the registry as aam_mesh, which owns nothing: the migrations, as aam, grant to aam_services.
\set aam `cat "$PASSWORDS_DIR/aam"`
\set aam_mesh `cat "$PASSWORDS_DIR/aam_mesh"`
\set warehouse `cat "$PASSWORDS_DIR/warehouse"`
CREATE ROLE aam LOGIN PASSWORD :'aam';
CREATE ROLE aam_services NOLOGIN;
CREATE ROLE aam_mesh LOGIN PASSWORD :'aam_mesh' IN ROLE aam_services;
CREATE ROLE warehouse LOGIN PASSWORD :'warehouse';
CREATE DATABASE aam OWNER aam;
CREATE DATABASE warehouse OWNER warehouse;
REVOKE ALL ON DATABASE aam, warehouse, postgres FROM PUBLIC;
GRANT CONNECT ON DATABASE aam TO aam_services;
