{{/*
Every secret that is in use, by a name of its own: {secret: {name, key}, file, readers, needed, …}. `file` is the name
under which a setting is read; `readers` are the services' keys, and `migrate` and `firstKey` the two steps of the Job.
*/}}
{{- define "aam.secrets" -}}
{{- $v := .Values.secrets -}}
{{- $all := dict -}}
{{- range $service, $secret := $v.registry -}}
{{- $reader := ternary "migrate" $service (eq $service "migration") -}}
{{- $readers := ternary (list $reader "firstKey") (list $reader) (eq $service "orchestrator") -}}
{{- $_ := set $all (printf "registry-%s" (kebabcase $service)) (dict "of" $secret "path" (printf "registry.%s" $service) "file" "supabase_db_url" "readers" $readers "needed" true) -}}
{{- end -}}
{{- $callers := list "orchestrator" "driftRepairAgent" "schemaObserver" -}}
{{- $_ := set $all "redis-url" (dict "of" $v.redisUrl "path" "redisUrl" "file" "redis_url" "readers" (list "orchestrator") "needed" true) -}}
{{- range $name := list "airbyteClientId" "airbyteClientSecret" "airbyteApiKey" "airbyteUsername" "airbytePassword" -}}
{{- $_ := set $all (kebabcase $name) (dict "of" (index $v $name) "path" $name "file" (snakecase $name) "readers" $callers) -}}
{{- end -}}
{{- $_ := set $all "webhook-signing-key" (dict "of" $v.webhookSigningKey "path" "webhookSigningKey" "file" "webhook_signing_key" "readers" (list "driftRepairAgent")) -}}
{{- $_ := set $all "state-encryption-keys" (dict "of" $v.stateEncryptionKeys "path" "stateEncryptionKeys" "file" "state_encryption_keys" "readers" (list "orchestrator" "driftRepairAgent")) -}}
{{- $_ := set $all "rotation-digest-key" (dict "of" $v.rotationDigestKey "path" "rotationDigestKey" "file" "rotation_digest_key" "readers" (list "orchestrator")) -}}
{{- if .Values.console.enabled -}}
{{- $_ := set $all "console-session-keys" (dict "of" $v.consoleSessionKeys "path" "consoleSessionKeys" "file" "console_session_keys" "readers" (list "console") "needed" true) -}}
{{- $_ := set $all "oidc-client-secret" (dict "of" $v.oidcClientSecret "path" "oidcClientSecret" "file" "oidc_client_secret" "readers" (list "console")) -}}
{{- end -}}
{{- range $service, $secret := $v.serviceKeys -}}
{{- if or (ne $service "console") $.Values.console.enabled -}}
{{- $_ := set $all (printf "service-key-%s" (kebabcase $service)) (dict "of" $secret "path" (printf "serviceKeys.%s" $service) "file" (printf "%s.pem" (snakecase $service)) "readers" (list $service) "needed" true "in" "key") -}}
{{- end -}}
{{- end -}}
{{- $_ := set $all "service-public-keys" (dict "of" $v.servicePublicKeys "path" "servicePublicKeys" "readers" (list "orchestrator" "authBroker" "driftRepairAgent" "schemaObserver" "ragEngine") "needed" true "in" "public") -}}
{{- $_ := set $all "registry-ca" (dict "of" $v.registryCa "path" "registryCa" "file" "registry.crt" "readers" (list "migrate" "firstKey" "orchestrator" "authBroker" "driftRepairAgent" "schemaObserver" "ragEngine") "in" "files") -}}
{{- $_ := set $all "first-key" (dict "of" $v.firstKey "path" "firstKey" "file" "auth" "readers" (list "firstKey") "in" "first-key") -}}
{{- if eq .Values.credentialStore "vault" -}}
{{- $_ := set $all "vault-secret-id" (dict "of" $v.vaultSecretId "path" "vaultSecretId" "file" "vault_secret_id" "readers" (list "authBroker") "needed" true "in" "files") -}}
{{- $_ := set $all "vault-ca" (dict "of" $v.vaultCa "path" "vaultCa" "file" "vault.crt" "readers" (list "authBroker") "in" "files") -}}
{{- end -}}
{{- range $id, $secret := .Values.credentials -}}
{{- $_ := set $all (printf "credential-%s" $id) (dict "of" $secret "path" (printf "credentials.%s" $id) "credential" $id "readers" (list "authBroker") "needed" true "in" "credential") -}}
{{- end -}}

{{- $used := dict -}}
{{- range $name, $one := $all -}}
{{- $of := $one.of -}}
{{- $path := ternary $one.path (printf "secrets.%s" $one.path) (eq ($one.in | default "") "credential") -}}
{{- if $of.remoteKey -}}
{{- if not $.Values.externalSecrets.store.name -}}{{- fail (printf "%s.remoteKey needs externalSecrets.store.name" $path) -}}{{- end -}}
{{- if $of.existingSecret -}}{{- fail (printf "%s has both existingSecret and remoteKey" $path) -}}{{- end -}}
{{- $_ := set $one "secret" (printf "%s-%s" (include "aam.fullname" $) $name) -}}
{{- else if $of.existingSecret -}}
{{- $_ := set $one "secret" $of.existingSecret -}}
{{- else if $one.needed -}}
{{- fail (printf "%s.existingSecret is not set" $path) -}}
{{- end -}}
{{- if $one.secret -}}{{- $_ := set $used $name $one -}}{{- end -}}
{{- end -}}
{{- range $pair := list (list "airbyte-client-id" "airbyte-client-secret") (list "airbyte-username" "airbyte-password") -}}
{{- if ne (hasKey $used (first $pair)) (hasKey $used (last $pair)) -}}{{- fail (printf "secrets: %s and %s go together" (camelcase (snakecase (first $pair)) | untitle) (camelcase (snakecase (last $pair)) | untitle)) -}}{{- end -}}
{{- end -}}
{{- $used | toYaml -}}
{{- end -}}

{{/* The volumes with one reader's secrets, and where they are mounted: {volumes: […], mounts: […]}. */}}
{{- define "aam.mounts" -}}
{{- $reader := .reader -}}
{{- $prefix := .prefix | default "" -}}
{{- $folders := dict "settings" "/run/aam" "key" "/run/key" "public" "/run/keys/public" "files" "/run/files" "first-key" "/run/first-key" -}}
{{- $sources := dict -}}
{{- $volumes := list -}}
{{- $mounts := list -}}
{{- range $name, $one := .secrets -}}
{{- if has $reader $one.readers -}}
{{- if eq ($one.in | default "") "credential" -}}
{{- $volumes = append $volumes (dict "name" $name "secret" (dict "secretName" $one.secret "defaultMode" 288)) -}}
{{- $mounts = append $mounts (dict "name" $name "mountPath" (printf "/run/credentials/%s" $one.credential) "readOnly" true) -}}
{{- else -}}
{{- $in := $one.in | default "settings" -}}
{{- $source := dict "name" $one.secret -}}
{{- if $one.file -}}{{- $_ := set $source "items" (list (dict "key" $one.of.key "path" $one.file)) -}}{{- end -}}
{{- $_ := set $sources $in (append (index $sources $in | default list) (dict "secret" $source)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $in, $list := $sources -}}
{{- $volume := printf "%s%s" $prefix $in -}}
{{- $volumes = append $volumes (dict "name" $volume "projected" (dict "defaultMode" 288 "sources" $list)) -}}
{{- $mounts = append $mounts (dict "name" $volume "mountPath" (index $folders $in) "readOnly" true) -}}
{{- end -}}
{{- dict "volumes" $volumes "mounts" $mounts | toYaml -}}
{{- end -}}
