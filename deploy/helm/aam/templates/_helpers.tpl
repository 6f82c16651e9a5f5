{{- define "aam.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "aam.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "aam.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "aam.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels that never change: those of selectors. */}}
{{- define "aam.selector" -}}
app.kubernetes.io/name: {{ include "aam.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "aam.labels" -}}
{{ include "aam.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: adaptive-api-mesh
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* The services that are enabled, by key, as in files/services.yaml. */}}
{{- define "aam.services" -}}
{{- $services := .Files.Get "files/services.yaml" | fromYaml -}}
{{- if not .Values.console.enabled -}}{{- $services = omit $services "console" -}}{{- end -}}
{{- $services | toYaml -}}
{{- end -}}

{{- define "aam.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default .Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The console's host, without scheme and port. */}}
{{- define "aam.host" -}}
{{- (urlParse .Values.console.url).hostname -}}
{{- end -}}

{{/* Values that contradict each other end the rendering with one line. */}}
{{- define "aam.validate" -}}
{{- $v := .Values -}}
{{- if not $v.image.repository -}}{{- fail "image.repository is not set: the registry to which you pushed the image" -}}{{- end -}}
{{- if not $v.airbyte.url -}}{{- fail "airbyte.url is not set: the URL of Airbyte's Configuration API, which ends with /api/v1" -}}{{- end -}}
{{- if and (hasPrefix "http://" $v.airbyte.url) (not $v.airbyte.plainHttp) -}}{{- fail "airbyte.url is http: set airbyte.plainHttp if no one else can read the network in between" -}}{{- end -}}
{{- if and $v.console.enabled (not $v.console.url) -}}{{- fail "console.url is not set: the address that people open; or set console.enabled to false" -}}{{- end -}}
{{- if and $v.autoscaling.enabled $v.keda.enabled -}}{{- fail "autoscaling.enabled and keda.enabled exclude each other: both would set the replicas of one service" -}}{{- end -}}
{{- if and $v.keda.enabled (not $v.keda.prometheusUrl) -}}{{- fail "keda.prometheusUrl is not set: KEDA reads the waiting jobs from Prometheus" -}}{{- end -}}
{{- if and $v.keda.enabled (not $v.metrics.enabled) -}}{{- fail "keda.enabled needs metrics.enabled" -}}{{- end -}}
{{- range $name := list "autoscaling" "keda" -}}
{{- $scaling := index $v $name -}}
{{- if and $scaling.enabled (gt (int $scaling.minReplicas) (int $scaling.maxReplicas)) -}}{{- fail (printf "%s.minReplicas is greater than %s.maxReplicas" $name $name) -}}{{- end -}}
{{- end -}}
{{- if and $v.ingress.enabled $v.gateway.enabled -}}{{- fail "ingress.enabled and gateway.enabled exclude each other" -}}{{- end -}}
{{- if and (or $v.ingress.enabled $v.gateway.enabled) (not $v.console.enabled) -}}{{- fail "ingress and gateway lead to the console: they need console.enabled" -}}{{- end -}}
{{- if and $v.gateway.enabled (not $v.gateway.parentRefs) -}}{{- fail "gateway.parentRefs is empty: name the Gateway" -}}{{- end -}}
{{- if and (eq $v.credentialStore "vault") (not (and $v.settings.VAULT_ADDR $v.settings.VAULT_ROLE $v.settings.VAULT_ROLE_ID)) -}}{{- fail "credentialStore vault needs settings.VAULT_ADDR, VAULT_ROLE and VAULT_ROLE_ID" -}}{{- end -}}
{{- end -}}
