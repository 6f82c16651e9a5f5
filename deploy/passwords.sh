#!/bin/sh
# Draws this installation's own database passwords, the key that webhooks are signed with and the one that
# credentials are told apart with, once. Each is written where it is read: for Postgres one file per role, for the
# services the URLs that hold it, and the tables' owner's for the migrations alone.
set -eu
umask 077
: "${PASSWORDS_DIR:?}" "${AAM_SETTINGS_DIR:?}" "${MIGRATION_DIR:?}"

leave() { # path, content: nobody ever sees half of it, and what is there stays
    [ -s "$1" ] && return
    printf '%s\n' "$2" >"$1.new"
    mv "$1.new" "$1"
}

draw() {
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

for role in postgres aam aam_mesh warehouse; do
    leave "$PASSWORDS_DIR/$role" "$(draw)"
    chmod 0444 "$PASSWORDS_DIR/$role" # Postgres runs as another user; only it mounts this folder
done
chmod 0755 "$PASSWORDS_DIR"
leave "$MIGRATION_DIR/supabase_db_url" \
    "postgresql://aam:$(cat "$PASSWORDS_DIR/aam")@postgres:5432/aam?sslmode=disable"
leave "$AAM_SETTINGS_DIR/supabase_db_url" \
    "postgresql://aam_mesh:$(cat "$PASSWORDS_DIR/aam_mesh")@postgres:5432/aam?sslmode=disable"
leave "$AAM_SETTINGS_DIR/webhook_signing_key" "$(draw)"
leave "$AAM_SETTINGS_DIR/rotation_digest_key" "$(draw)"
if [ -n "${AIRBYTE_ELSEWHERE:-}" ]; then
    rm -f "$AAM_SETTINGS_DIR/warehouse_db_url" # it does not reach a Postgres that is not published
else
    leave "$AAM_SETTINGS_DIR/warehouse_db_url" \
        "postgresql://warehouse:$(cat "$PASSWORDS_DIR/warehouse")@postgres:5432/warehouse?sslmode=disable"
fi
