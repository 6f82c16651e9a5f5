-- The registry and the warehouse, each with a role of its own that cannot enter the other's database.
\set aam `cat "$PASSWORDS_DIR/aam"`
\set warehouse `cat "$PASSWORDS_DIR/warehouse"`
CREATE ROLE aam LOGIN PASSWORD :'aam';
CREATE ROLE warehouse LOGIN PASSWORD :'warehouse';
CREATE DATABASE aam OWNER aam;
CREATE DATABASE warehouse OWNER warehouse;
REVOKE ALL ON DATABASE aam, warehouse, postgres FROM PUBLIC;
