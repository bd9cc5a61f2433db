{{/* Pod security "restricted", and no rights in the cluster; 10001 is the user of both images. */}}
{{- define "signer-flow.podSecurity" -}}
automountServiceAccountToken: false
# A Service that is named like one of our settings would be injected as its value.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- include "signer-flow.pullSecrets" . }}
{{- end -}}

{{- define "signer-flow.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "signer-flow.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{/* Spread over zones and nodes as far as there are any: (list . "signer"). Soft: one node must be enough. */}}
{{- define "signer-flow.spread" -}}
topologySpreadConstraints:
  {{- $here := . }}
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "signer-flow.selector" $here | nindent 8 }}
  {{- end }}
{{- end -}}

{{/* Where pods may go: the values of one part. */}}
{{- define "signer-flow.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Further settings as variables: (list "SIGNER_SERVICE_" .Values.signer.settings). */}}
{{- define "signer-flow.settings" -}}
{{- $prefix := index . 0 -}}
{{- range $name, $value := index . 1 }}
- name: {{ $prefix }}{{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}
