{{/* Pod of the migration Job. Its content names the Job, since a Job cannot be changed. */}}
{{- define "discoveryflow.migrationPod" -}}
{{- include "discoveryflow.secrets" . -}}
{{- $fullname := include "discoveryflow.fullname" . -}}
{{- $embedded := .Values.postgresql.embedded.enabled -}}
{{- $roles := include "discoveryflow.rolesSecret" . -}}
metadata:
  labels: {{- include "discoveryflow.labels" (dict "root" $ "component" "migration") | nindent 4 }}
  annotations:
    # new passwords make a new Job, which sets them on the roles
    discoveryflow.dev/passwords: {{ .Values.rendered.passwords | toJson | sha256sum }}
spec:
  automountServiceAccountToken: false
  restartPolicy: OnFailure
  {{- include "discoveryflow.pullSecrets" . | nindent 2 }}
  securityContext: {{- include "discoveryflow.podSecurity" 65532 | nindent 4 }}
  containers:
    - name: migrate
      image: {{ include "discoveryflow.image" (dict "image" .Values.image "version" .Chart.AppVersion) }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      command: [python, -m, discovery_core.store.migrate, upgrade]
      env:
        {{- include "discoveryflow.databaseEnv" (dict "root" $ "user" (ternary "postgres" .Values.database.owner.username $embedded) "secret" (ternary (printf "%s-database" $fullname) .Values.database.owner.existingSecret $embedded) "key" (ternary "owner" .Values.database.owner.passwordKey $embedded)) | nindent 8 }}
        {{- range list "operator" "execution" "api" }}
        - name: DISCOVERY_{{ upper . }}_PASSWORD
          valueFrom: {secretKeyRef: {name: {{ $roles }}, key: {{ . }}}}
        {{- end }}
      resources: {{- toYaml .Values.migration.resources | nindent 8 }}
      securityContext: {{- include "discoveryflow.containerSecurity" . | nindent 8 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        {{- include "discoveryflow.databaseMount" . | nindent 8 }}
  volumes:
    - name: tmp
      emptyDir: {sizeLimit: 64Mi}
    {{- include "discoveryflow.databaseVolume" . | nindent 4 }}
{{- end -}}
