{{/* What every pod of the chart has. */}}
{{- define "aam.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  {{- range $name := list "runAsUser" "runAsGroup" "fsGroup" }}
  {{- if not (kindIs "invalid" (index $.Values.podSecurity $name)) }}
  {{ $name }}: {{ index $.Values.podSecurity $name | int64 }}
  {{- end }}
  {{- end }}
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* What every container of the chart has. */}}
{{- define "aam.container" -}}
image: {{ include "aam.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{- define "aam.resources" -}}
requests: {cpu: {{ .cpu }}, memory: {{ .memory }}}
limits: {memory: {{ .memoryLimit }}}
{{- end -}}

{{/* The least number of replicas of a service, whoever sets it. */}}
{{- define "aam.replicas" -}}
{{- if .root.Values.autoscaling.enabled -}}{{ .root.Values.autoscaling.minReplicas }}
{{- else if and .root.Values.keda.enabled (hasKey (include "aam.jobs" .root | fromYaml) .key) -}}{{ .root.Values.keda.minReplicas }}
{{- else -}}{{ (index .root.Values.services .key).replicas }}
{{- end -}}
{{- end -}}

{{/* The jobs that a service runs, as the label `entrypoint` of the metrics names them. */}}
{{- define "aam.jobs" -}}
orchestrator: resume.orchestrator
driftRepairAgent: plan|resume.drift_repair_agent
schemaObserver: observe
{{- end -}}

{{/* The environment of one of `services`: what it reads of `settings`, and what follows from the chart. */}}
{{- define "aam.environment" -}}
{{- $v := .root.Values -}}
{{- $full := include "aam.fullname" .root -}}
{{- $services := .services -}}
{{- $secrets := .secrets -}}
{{- $service := index .services .key -}}
{{- $environment := dict "AAM_SETTINGS_DIR" "/run/aam" -}}
{{- range $name, $value := $v.settings -}}
{{- if has $name $service.settings -}}{{- $_ := set $environment $name $value -}}{{- end -}}
{{- end -}}
{{- if $v.metrics.enabled -}}
{{- $environment = merge (dict "METRICS_PORT" ($v.metrics.port | int | toString) "METRICS_HOST" "0.0.0.0") $environment -}}
{{- end -}}
{{- $hosts := list -}}
{{- range $called := $service.calls -}}
{{- $one := index $services $called -}}
{{- $host := printf "%s-%s" $full $one.component -}}
{{- $hosts = append $hosts $host -}}
{{- $_ := set $environment (printf "%s_URL" ($one.module | upper)) (printf "http://%s:%d" $host (int $one.port)) -}}
{{- end -}}
{{- if has .key (list "orchestrator" "driftRepairAgent" "schemaObserver") -}}
{{- $_ := set $environment "AIRBYTE_API_URL" $v.airbyte.url -}}
{{- if $v.airbyte.plainHttp -}}{{- $hosts = append $hosts (urlParse $v.airbyte.url).hostname -}}{{- end -}}
{{- end -}}
{{- if and $v.console.enabled (has .key (list "orchestrator" "driftRepairAgent" "schemaObserver" "console")) -}}
{{- $_ := set $environment "CONSOLE_URL" $v.console.url -}}
{{- end -}}
{{- if has "PLAIN_HTTP_HOSTS" $service.settings -}}
{{- $_ := set $environment "PLAIN_HTTP_HOSTS" (concat $hosts (without (splitList "," ($v.settings.PLAIN_HTTP_HOSTS | default "")) "") | join ",") -}}
{{- end -}}
{{- if hasKey $v.secrets.serviceKeys .key -}}{{- $_ := set $environment "SERVICE_PRIVATE_KEY_DIR" "/run/key" -}}{{- end -}}
{{- if ne .key "console" -}}
{{- $_ := set $environment "SERVICE_PUBLIC_KEYS_DIR" "/run/keys/public" -}}
{{- if hasKey $secrets "registry-ca" -}}{{- $_ := set $environment "SUPABASE_DB_CA_FILE" "/run/files/registry.crt" -}}{{- end -}}
{{- end -}}
{{- if eq .key "authBroker" -}}
{{- if $v.credentials -}}{{- $_ := set $environment "CREDENTIALS_DIR" "/run/credentials" -}}{{- end -}}
{{- if eq $v.credentialStore "vault" -}}
{{- $environment = merge (dict "CREDENTIAL_STORE" "vault" "VAULT_SECRET_ID_FILE" "/run/files/vault_secret_id") $environment -}}
{{- if hasKey $secrets "vault-ca" -}}{{- $_ := set $environment "VAULT_CA_FILE" "/run/files/vault.crt" -}}{{- end -}}
{{- else if $v.credentials -}}
{{- $_ := set $environment "CREDENTIAL_STORE" "file" -}}
{{- end -}}
{{- end -}}
{{- $environment | toYaml -}}
{{- end -}}
