{{/*
Passwords and certificates that the chart makes. They are read back from the cluster on an upgrade,
so that they stay; with `helm template` there is nothing to read and they are made anew. They are
kept in .Values.rendered, so that all templates of one rendering see the same.
*/}}
{{- define "discoveryflow.secrets" -}}
{{- if not (hasKey .Values "rendered") -}}
{{- $fullname := include "discoveryflow.fullname" . -}}
{{- $rendered := dict "tls" dict "passwords" dict -}}
{{- $_ := set .Values "rendered" $rendered -}}
{{- $kept := (lookup "v1" "Secret" .Release.Namespace (printf "%s-database" $fullname)).data | default dict -}}
{{- $keys := ternary list (list "operator" "execution" "api") (not (empty .Values.database.roles.existingSecret)) -}}
{{- if .Values.postgresql.embedded.enabled -}}{{- $keys = append $keys "owner" -}}{{- end -}}
{{- range $keys -}}
{{- $_ := set $rendered.passwords . (get $kept . | default (randAlphaNum 32 | b64enc)) -}}
{{- end -}}
{{- if not .Values.api.session.existingSecret -}}
{{- $keptSession := (lookup "v1" "Secret" .Release.Namespace (printf "%s-session" $fullname)).data | default dict -}}
{{- $_ := set $rendered "session" (get $keptSession "keys" | default (randAlphaNum 48 | b64enc)) -}}
{{- end -}}
{{- $wanted := list -}}
{{- if not .Values.executionApi.tls.existingSecret -}}{{- $wanted = append $wanted "execution" -}}{{- end -}}
{{- if not .Values.api.tls.existingSecret -}}{{- $wanted = append $wanted "api" -}}{{- end -}}
{{- if .Values.postgresql.embedded.enabled -}}{{- $wanted = append $wanted "postgresql" -}}{{- end -}}
{{- if $wanted -}}
{{- $kept := (lookup "v1" "Secret" .Release.Namespace (printf "%s-ca" $fullname)).data -}}
{{- $ca := dict -}}
{{- if $kept -}}
{{- $ca = buildCustomCert (get $kept "tls.crt") (get $kept "tls.key") -}}
{{- else -}}
{{- $ca = genCA (printf "%s CA" $fullname) 3650 -}}
{{- end -}}
{{- $_ := set $rendered.tls "ca" (dict "crt" $ca.Cert "key" $ca.Key) -}}
{{- range $wanted -}}
{{- $name := printf "%s-%s" $fullname . -}}
{{- $hosts := list $name (printf "%s.%s" $name $.Release.Namespace) (printf "%s.%s.svc" $name $.Release.Namespace) (printf "%s.%s.svc.cluster.local" $name $.Release.Namespace) "localhost" -}}
{{- if eq . "api" -}}{{- $hosts = concat $hosts $.Values.api.tls.hosts -}}{{- end -}}
{{- $existing := lookup "v1" "Secret" $.Release.Namespace (printf "%s-tls" $name) | default dict -}}
{{- $annotations := dig "metadata" "annotations" dict $existing -}}
{{- $issued := get $annotations "discoveryflow.dev/issued" | default "0" -}}
{{- $fresh := lt (sub (now | unixEpoch) (int64 $issued)) 15552000 -}}
{{- $same := eq (get $annotations "discoveryflow.dev/hosts") (join "," $hosts) -}}
{{- if and $kept $existing $fresh $same -}}
{{- $_ := set $rendered.tls . (dict "crt" (get $existing.data "tls.crt" | b64dec) "key" (get $existing.data "tls.key" | b64dec) "issued" $issued "hosts" $hosts) -}}
{{- else -}}
{{- $leaf := genSignedCert $name (list "127.0.0.1") $hosts 1825 $ca -}}
{{- $_ := set $rendered.tls . (dict "crt" $leaf.Cert "key" $leaf.Key "issued" (now | unixEpoch) "hosts" $hosts) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
