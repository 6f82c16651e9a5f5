#!/bin/sh
# Generates, once, the database passwords of this installation, the key that signs webhooks, the key that encrypts saved
# states, the key of the credential digests, and the key of the console's sessions. Each is written only to where it is
# read: for Postgres a file per role, for each service a folder with the URL of its own login, and for the migrations the
# URL of the login that owns the tables.
set -eu
umask 077
: "${PASSWORDS_DIR:?}" "${SETTINGS_DIR:?}" "${MIGRATION_DIR:?}"

write() { # path, content: nobody ever sees half of it
    printf '%s\n' "$2" >"$1.new"
    mv "$1.new" "$1"
}

leave() { # the same, and what is there stays
    [ -s "$1" ] || write "$1" "$2"
}

draw() {
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

url() { # role, database
    printf 'postgresql://%s:%s@postgres:5432/%s?sslmode=disable' "$1" "$(cat "$PASSWORDS_DIR/$1")" "$2"
}

services="orchestrator auth_broker drift_repair_agent schema_observer rag_engine"
for role in postgres aam warehouse $(printf 'aam_%s_login ' $services); do
    leave "$PASSWORDS_DIR/$role" "$(draw)"
    chmod 0444 "$PASSWORDS_DIR/$role" # Postgres runs as another user; only it mounts this folder
done
chmod 0755 "$PASSWORDS_DIR"

write "$MIGRATION_DIR/supabase_db_url" "$(url aam aam)"
for service in $services; do
    write "$SETTINGS_DIR/$service/supabase_db_url" "$(url "aam_${service}_login" aam)"
done

ours="$SETTINGS_DIR/orchestrator" theirs="$SETTINGS_DIR/drift_repair_agent"
# Earlier releases had one folder for all services; it is the orchestrator's now.
if [ -s "$ours/webhook_signing_key" ]; then
    mv "$ours/webhook_signing_key" "$theirs/webhook_signing_key"
fi
leave "$theirs/webhook_signing_key" "$(draw)"
leave "$theirs/state_encryption_keys" "$(draw)"
write "$ours/state_encryption_keys" "$(cat "$theirs/state_encryption_keys")"
leave "$SETTINGS_DIR/console/console_session_keys" "$(draw)"
leave "$ours/rotation_digest_key" "$(draw)"
if [ -n "${AIRBYTE_ELSEWHERE:-}" ]; then
    rm -f "$ours/warehouse_db_url" # it does not reach a Postgres that is not published
else
    write "$ours/warehouse_db_url" "$(url warehouse warehouse)"
fi
