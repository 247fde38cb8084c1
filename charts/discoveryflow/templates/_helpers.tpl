{{/* Name prefix of all objects. */}}
{{- define "discoveryflow.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Labels that select the pods of one component: dict "root" $ "component" "operator". */}}
{{- define "discoveryflow.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* All labels of one component's objects. */}}
{{- define "discoveryflow.labels" -}}
{{ include "discoveryflow.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Image reference: dict "image" .Values.image "version" .Chart.AppVersion. */}}
{{- define "discoveryflow.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ default .version .image.tag }}
{{- end -}}
{{- end -}}

{{- define "discoveryflow.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "discoveryflow.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Placement of a pod: the values of one component. */}}
{{- define "discoveryflow.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "discoveryflow.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Secret with the passwords of the three login roles. */}}
{{- define "discoveryflow.rolesSecret" -}}
{{- default (printf "%s-database" (include "discoveryflow.fullname" .)) .Values.database.roles.existingSecret -}}
{{- end -}}

{{/* Secret with the certificate of the database's CA, or nothing. */}}
{{- define "discoveryflow.databaseCaSecret" -}}
{{- if .Values.postgresql.embedded.enabled -}}
{{ include "discoveryflow.fullname" . }}-postgresql-tls
{{- else -}}
{{ .Values.database.rootCertificate.existingSecret }}
{{- end -}}
{{- end -}}

{{/* Address of the database for one user: dict "root" $ "user" "discovery_operator". */}}
{{- define "discoveryflow.databaseUrl" -}}
{{- $values := .root.Values -}}
{{- $url := $values.database.url -}}
{{- if $values.postgresql.embedded.enabled -}}
{{- $url = printf "postgresql://%s-postgresql.%s.svc:5432/discoveryflow?sslmode=verify-full" (include "discoveryflow.fullname" .root) .root.Release.Namespace -}}
{{- end -}}
{{- if include "discoveryflow.databaseCaSecret" .root -}}
{{- $url = printf "%s%ssslrootcert=/etc/discoveryflow/database/ca.crt" $url (ternary "&" "?" (contains "?" $url)) -}}
{{- end -}}
{{- $url | replace "postgresql://" (printf "postgresql://%s@" .user) -}}
{{- end -}}

{{- define "discoveryflow.databasePort" -}}
{{- $host := (urlParse .Values.database.url).host -}}
{{- if and (not .Values.postgresql.embedded.enabled) (regexMatch ":[0-9]+$" $host) -}}
{{ regexFind "[0-9]+$" $host }}
{{- else -}}
5432
{{- end -}}
{{- end -}}

{{/* Environment of a database user: dict "root" $ "user" … "secret" … "key" …. */}}
{{- define "discoveryflow.databaseEnv" -}}
- name: DISCOVERY_DATABASE_URL
  value: {{ include "discoveryflow.databaseUrl" . | quote }}
- name: DISCOVERY_DATABASE_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ .secret }}, key: {{ .key }}}}
- name: DISCOVERY_LOG_LEVEL
  value: {{ .root.Values.logLevel }}
{{- end -}}

{{- define "discoveryflow.databaseMount" -}}
{{- if include "discoveryflow.databaseCaSecret" . }}
- name: database-ca
  mountPath: /etc/discoveryflow/database
  readOnly: true
{{- end }}
{{- end -}}

{{- define "discoveryflow.databaseVolume" -}}
{{- with include "discoveryflow.databaseCaSecret" . }}
- name: database-ca
  secret:
    secretName: {{ . }}
    items:
      - key: {{ ternary "ca.crt" $.Values.database.rootCertificate.key $.Values.postgresql.embedded.enabled }}
        path: ca.crt
{{- end }}
{{- end -}}

{{/* Restarts pods whose credentials changed: a list of Secret contents known to the chart. */}}
{{- define "discoveryflow.secretsChecksum" -}}
{{- include "discoveryflow.secrets" . -}}
{{- .Values.rendered | toJson | sha256sum -}}
{{- end -}}
