{{/* The pod of the Job that makes the topics. It stands here because a hash of all of it is in the Job's name. */}}
{{- define "signer-flow.topicsPod" -}}
{{- $replication := int .Values.kafka.topics.replication | default (eq .Values.kafka.mode "bundled" | ternary 1 0) -}}
{{- $args := list "topics" "--create" "--kafka" (include "signer-flow.bootstrap" .) "--apis" (include "signer-flow.apis" .) "--signers" (toString .Values.committee.size) "--wait-s" "300" -}}
{{- if $replication }}{{ $args = concat $args (list "--replication" (toString $replication)) }}{{ end -}}
{{- with .Values.kafka.topicPrefix }}{{ $args = concat $args (list "--topic-prefix" .) }}{{ end -}}
{{- if include "signer-flow.kafkaLogin" . }}{{ $args = concat $args (list "--kafka-security-file" "/run/kafka/client.properties") }}{{ end -}}
metadata:
  labels:
    {{- include "signer-flow.selector" (list . "topics") | nindent 4 }}
spec:
  {{- include "signer-flow.podSecurity" . | nindent 2 }}
  serviceAccountName: {{ include "signer-flow.fullname" . }}
  restartPolicy: OnFailure
  containers:
    - name: topics
      image: {{ include "signer-flow.image" (list . .Values.restApi.repository) }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      {{- include "signer-flow.containerSecurity" . | nindent 6 }}
      command: [python, -m, rest_api.cli]
      args:
        {{- toYaml $args | nindent 8 }}
      terminationMessagePolicy: FallbackToLogsOnError
      resources:
        requests: {cpu: 50m, memory: 96Mi}
        limits: {memory: 256Mi}
      {{- with include "signer-flow.kafkaMounts" (list . "topics") }}
      volumeMounts:
        {{- . | trim | nindent 8 }}
      {{- end }}
  {{- with include "signer-flow.kafkaVolumes" . }}
  volumes:
    {{- . | trim | nindent 4 }}
  {{- end }}
{{- end -}}
