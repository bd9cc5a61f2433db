{{/* The name that stands before that of every object. Room is left for the longest ending that is put after it. */}}
{{- define "signer-flow.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What selects this release's pods; with "component" only those of one part: (list . "signer"). */}}
{{- define "signer-flow.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: signer-flow
app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- if gt (len .) 1 }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}
{{- end -}}

{{/* Annotations of a volume: nobody who clears up what he did not make takes it, though it has the labels of ours. */}}
{{- define "signer-flow.kept" -}}
argocd.argoproj.io/sync-options: Prune=false,Delete=false
kustomize.toolkit.fluxcd.io/prune: disabled
{{- end -}}

{{/* Labels of an object: (list . "signer"). */}}
{{- define "signer-flow.labels" -}}
{{- $root := index . 0 -}}
{{ include "signer-flow.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* An image: (list . .Values.signer.repository). */}}
{{- define "signer-flow.image" -}}
{{- $root := index . 0 -}}
{{- $name := printf "%s:%s" (index . 1) $root.Values.image.tag -}}
{{- with $root.Values.image.registry }}{{ . }}/{{ end }}{{ $name }}
{{- end -}}

{{/* Objects that the keys are in, as `provision --kubernetes` calls them or as they were made elsewhere. */}}
{{- define "signer-flow.operatorSecret" -}}
{{ include "signer-flow.fullname" . }}-operator-key
{{- end -}}
{{- define "signer-flow.edgeSecret" -}}
{{ if .Values.provision.enabled }}{{ include "signer-flow.fullname" . }}-edge-key{{ else }}{{ .Values.provision.existing.edgeSecret }}{{ end }}
{{- end -}}
{{- define "signer-flow.identitiesSecret" -}}
{{ if .Values.provision.enabled }}{{ include "signer-flow.fullname" . }}-identities{{ else }}{{ .Values.provision.existing.identitiesSecret }}{{ end }}
{{- end -}}
{{- define "signer-flow.sealingSecret" -}}
{{ if .Values.provision.enabled }}{{ include "signer-flow.fullname" . }}-sealing-keys{{ else }}{{ .Values.provision.existing.sealingSecret }}{{ end }}
{{- end -}}
{{- define "signer-flow.rosterConfigMap" -}}
{{ if .Values.provision.enabled }}{{ include "signer-flow.fullname" . }}-roster{{ else }}{{ .Values.provision.existing.rosterConfigMap }}{{ end }}
{{- end -}}

{{/* How many API pods there may be: topics for their answers are made for so many. */}}
{{- define "signer-flow.apis" -}}
{{- with .Values.restApi -}}
{{- if .autoscaling.enabled }}{{ max .replicas .autoscaling.maxReplicas }}{{ else }}{{ .replicas }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* Changes when the roster is to change, so that pods start with the new one. Its bytes are not known while rendering. */}}
{{- define "signer-flow.committeeChecksum" -}}
{{ dict "size" .Values.committee.size "threshold" .Values.committee.threshold "replaced" .Values.provision.replaceSeats | toJson | sha256sum | trunc 16 }}
{{- end -}}

{{/* API pods by their own names and port, as arguments of what is asked before an upgrade: the Service may be about to change. */}}
{{- define "signer-flow.podUrls" -}}
{{- $name := include "signer-flow.fullname" . -}}
{{- range until (int (min 5 (include "signer-flow.apis" .))) }}
- --url=http://{{ $name }}-rest-api-{{ . }}.{{ $name }}-rest-api-pods:8000
{{- end }}
{{- end -}}

{{/* Names that requests may be for, as JSON: those that are said, and those that the chart itself uses. */}}
{{- define "signer-flow.allowedHosts" -}}
{{- $name := include "signer-flow.fullname" . -}}
{{- $service := printf "%s-rest-api" $name -}}
{{- $inside := printf "%s.%s" $service .Release.Namespace -}}
{{- $hosts := concat .Values.restApi.allowedHosts (list $service $inside (printf "%s.svc" $inside) (printf "%s.svc.cluster.local" $inside) "127.0.0.1" "localhost") -}}
{{- if .Values.restApi.ingress.enabled }}{{ $hosts = append $hosts .Values.restApi.ingress.host }}{{ end -}}
{{- range until (int (min 5 (include "signer-flow.apis" .))) }}{{ $hosts = append $hosts (printf "%s-%d.%s-pods" $service . $service) }}{{ end -}}
{{- $hosts | uniq | toJson -}}
{{- end -}}

{{/* The API as the tests of this release reach it. */}}
{{- define "signer-flow.apiUrl" -}}
http://{{ include "signer-flow.fullname" . }}-rest-api:{{ .Values.restApi.service.port }}
{{- end -}}
