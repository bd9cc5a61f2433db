{{/* host:port of the broker, by mode. */}}
{{- define "signer-flow.bootstrap" -}}
{{- if eq .Values.kafka.mode "bundled" -}}
{{ include "signer-flow.fullname" . }}-kafka:9092
{{- else if eq .Values.kafka.mode "strimzi" -}}
{{ .Values.kafka.strimzi.cluster }}-kafka-bootstrap.{{ .Values.kafka.strimzi.namespace | default .Release.Namespace }}.svc:{{ .Values.kafka.strimzi.port }}
{{- else -}}
{{ .Values.kafka.external.bootstrap }}
{{- end -}}
{{- end -}}

{{/* Whether pods log in there. */}}
{{- define "signer-flow.kafkaLogin" -}}
{{- if and (ne .Values.kafka.mode "bundled") .Values.kafka.security.existingSecret }}true{{ end -}}
{{- end -}}

{{/* Variables of a process that uses Kafka: (list . "SIGNER_SERVICE_"). */}}
{{- define "signer-flow.kafkaEnv" -}}
{{- $root := index . 0 -}}
{{- $prefix := index . 1 -}}
- name: {{ $prefix }}KAFKA_BOOTSTRAP
  value: {{ include "signer-flow.bootstrap" $root | quote }}
{{- with $root.Values.kafka.topicPrefix }}
- name: {{ $prefix }}TOPIC_PREFIX
  value: {{ . | quote }}
{{- end }}
{{- if include "signer-flow.kafkaLogin" $root }}
- name: {{ $prefix }}KAFKA_SECURITY_FILE
  value: /run/kafka/client.properties
{{- end }}
{{- end -}}

{{/* Where the login is mounted: (list . "$(POD_NAME)"); the second is the key where each pod has its own. */}}
{{- define "signer-flow.kafkaMounts" -}}
{{- $root := index . 0 -}}
{{- if include "signer-flow.kafkaLogin" $root }}
# One file and not the folder: a container sees its own login only.
- name: kafka-login
  mountPath: /run/kafka/client.properties
  {{- if $root.Values.kafka.security.perPod }}
  subPathExpr: {{ index . 1 }}
  {{- else }}
  subPath: client.properties
  {{- end }}
  readOnly: true
{{- if $root.Values.kafka.security.caSecret }}
- name: kafka-ca
  mountPath: /run/kafka-ca
  readOnly: true
{{- end }}
{{- end }}
{{- end -}}

{{- define "signer-flow.kafkaVolumes" -}}
{{- if include "signer-flow.kafkaLogin" . }}
- name: kafka-login
  secret:
    secretName: {{ .Values.kafka.security.existingSecret }}
    defaultMode: 0440
{{- with .Values.kafka.security.caSecret }}
- name: kafka-ca
  secret:
    secretName: {{ . }}
    defaultMode: 0440
    items:
      - key: ca.crt
        path: ca.crt
{{- end }}
{{- end }}
{{- end -}}

{{/* Rules of a NetworkPolicy that let a pod reach the broker and DNS. */}}
{{- define "signer-flow.kafkaEgress" -}}
{{ include "signer-flow.dnsEgress" . }}
{{- if eq .Values.kafka.mode "bundled" }}
- to:
    - podSelector:
        matchLabels:
          {{- include "signer-flow.selector" (list . "kafka") | nindent 10 }}
  ports:
    - {port: 9092, protocol: TCP}
{{- else if eq .Values.kafka.mode "strimzi" }}
- to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: {{ .Values.kafka.strimzi.namespace | default .Release.Namespace }}
      podSelector:
        matchLabels:
          strimzi.io/cluster: {{ .Values.kafka.strimzi.cluster }}
  ports:
    - {port: {{ .Values.kafka.strimzi.port }}, protocol: TCP}
{{- else }}
# Where an external broker is, nobody here knows; which ports it has is said, or stands in its address.
- ports:
    {{- $ports := list }}
    {{- range .Values.networkPolicy.kafkaPorts }}{{ $ports = append $ports (toString .) }}{{ end }}
    {{- range splitList "," .Values.kafka.external.bootstrap }}{{ $ports = append $ports (regexFind "[0-9]+$" .) }}{{ end }}
    {{- range compact $ports | uniq }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end }}
{{- end -}}

{{- define "signer-flow.dnsEgress" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
{{- end -}}

{{/* To the collector of spans, if there is one: its port, wherever it is. */}}
{{- define "signer-flow.otlpEgress" -}}
{{- with .Values.otlpEndpoint }}
{{- $url := urlParse . }}
{{- $port := regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) | default (eq $url.scheme "https" | ternary "443" "80") -}}
- ports:
    - {port: {{ $port }}, protocol: TCP}
{{- end }}
{{- end -}}
