{{/* Whether `helm test` has a way to sign. */}}
{{- define "signer-flow.testable" -}}
{{- if or (eq .Values.restApi.auth "none") .Values.restApi.testTokenSecret }}true{{ end -}}
{{- end -}}

{{/* The container of a test: (list . "--evict=…"). */}}
{{- define "signer-flow.testContainer" -}}
{{- $root := index . 0 -}}
name: prove
image: {{ include "signer-flow.image" (list $root $root.Values.restApi.repository) }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
{{ include "signer-flow.containerSecurity" $root }}
command: [python, -m, rest_api.cli]
args:
  - prove
  - --url={{ include "signer-flow.apiUrl" $root }}
  {{- with $root.Values.committee.publicKey }}
  - --public-key={{ . }}
  {{- end }}
  {{- range rest . }}
  - {{ . }}
  {{- end }}
{{- with $root.Values.restApi.testTokenSecret }}
env:
  - name: SIGNER_FLOW_TOKEN
    valueFrom:
      secretKeyRef:
        name: {{ . }}
        key: token
{{- end }}
resources:
  requests: {cpu: 50m, memory: 96Mi}
  limits: {memory: 256Mi}
{{- end -}}
