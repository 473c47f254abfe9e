{{- define "certbaton.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* The release's name, with the chart's where it is not in it. Room is left for "-http01". */}}
{{- define "certbaton.fullname" -}}
{{- $name := include "certbaton.name" . -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 56 | trimSuffix "-" -}}
{{- end -}}

{{/* Cluster-wide objects of two releases with one name must not meet. */}}
{{- define "certbaton.clusterName" -}}
{{- printf "%s.%s" .Release.Namespace (include "certbaton.fullname" .) -}}
{{- end -}}

{{- define "certbaton.serviceAccountName" -}}
{{- $made := ternary (include "certbaton.fullname" .) "default" .Values.serviceAccount.create -}}
{{- default $made .Values.serviceAccount.name -}}
{{- end -}}

{{- define "certbaton.selectorLabels" -}}
app.kubernetes.io/name: {{ include "certbaton.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "certbaton.labels" -}}
{{- $own := dict "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_") "app.kubernetes.io/managed-by" .Release.Service "app.kubernetes.io/version" (.Chart.AppVersion | replace "+" "_") -}}
{{- merge (include "certbaton.selectorLabels" . | fromYaml) $own .Values.commonLabels | toYaml -}}
{{- end -}}

{{- define "certbaton.image" -}}
{{- $name := .Values.image.repository -}}
{{- with .Values.image.registry }}{{ $name = printf "%s/%s" (trimSuffix "/" .) $name }}{{ end -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $name .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* Port of the http-01 solver; empty if none is configured. */}}
{{- define "certbaton.http01Port" -}}
{{- $ports := list -}}
{{- range $name, $solver := .Values.config.solvers -}}
{{- if eq (toString $solver.type) "http-01" }}{{ $ports = append $ports (int (default 8089 $solver.port)) }}{{ end -}}
{{- end -}}
{{- if gt (len $ports) 1 -}}
{{- fail "config.solvers: one http-01 solver serves all certificates, and the chart makes a Service for one only" -}}
{{- end -}}
{{- range $ports }}{{ . }}{{ end -}}
{{- end -}}

{{/* Port of the probes; empty if they are switched off. */}}
{{- define "certbaton.healthPort" -}}
{{- $port := 8080 -}}
{{- if hasKey .Values.config "healthPort" }}{{ $port = int .Values.config.healthPort }}{{ end -}}
{{- if $port }}{{ $port }}{{ end -}}
{{- end -}}

{{/* What values.schema.json cannot see: names that point nowhere. */}}
{{- define "certbaton.check" -}}
{{- $services := dict -}}
{{- range $name, $solver := .Values.config.solvers -}}
{{- if and (eq $solver.type "http-01") (eq (int (default 8089 $solver.port)) (int (default 8080 $.Values.config.healthPort))) -}}
{{- fail (printf "config.solvers.%s.port: %d is the port of healthPort" $name (int (default 8089 $solver.port))) -}}
{{- end -}}
{{- end -}}
{{- range $index, $certificate := .Values.config.certificates -}}
{{- if not (hasKey (default dict $.Values.config.issuers) $certificate.issuer) -}}
{{- fail (printf "config.certificates[%d].issuer: there is no issuer '%s'" $index $certificate.issuer) -}}
{{- end -}}
{{- if not (hasKey (default dict $.Values.config.solvers) $certificate.solver) -}}
{{- fail (printf "config.certificates[%d].solver: there is no solver '%s'" $index $certificate.solver) -}}
{{- end -}}
{{- $solver := get $.Values.config.solvers $certificate.solver -}}
{{- range $certificate.dnsNames -}}
{{- if and (hasPrefix "*." .) (ne $solver.type "dns-01") -}}
{{- fail (printf "config.certificates[%d].dnsNames: %s is a wildcard, which needs a dns-01 solver" $index .) -}}
{{- end -}}
{{- end -}}
{{- range $certificate.services -}}
{{- $ref := printf "%s/%s" .namespace .name -}}
{{- if hasKey $services $ref -}}
{{- fail (printf "config.certificates[%d].services: Service %s already has a certificate; put all names on one" $index $ref) -}}
{{- end -}}
{{- $_ := set $services $ref true -}}
{{- end -}}
{{- end -}}
{{- end -}}
