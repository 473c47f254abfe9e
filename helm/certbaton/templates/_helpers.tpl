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

{{/* Whoever looks into the configuration first says that there is none. */}}
{{- define "certbaton.guard" -}}
{{- if not (kindIs "map" .Values.config) -}}
{{- fail "config: must hold keys and values, not null; leave it out for the chart's own, or take away single keys, such as config.issuers.letsencrypt=null" -}}
{{- end -}}
{{- end -}}

{{/* Names of CAs whose directories certbaton knows (daemon/certbaton/wellknown.py). */}}
{{- define "certbaton.wellKnown" -}}
letsencrypt letsencrypt-staging zerossl google sslcom
{{- end -}}

{{/* The names of a certificate's issuers, the wanted one first. */}}
{{- define "certbaton.issuersOf" -}}
{{- default (list .issuer) .issuers | toJson -}}
{{- end -}}

{{/* Port of the http-01 solver; empty if none is configured. */}}
{{- define "certbaton.http01Port" -}}
{{- include "certbaton.guard" . -}}
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
{{- include "certbaton.guard" . -}}
{{- $port := 8080 -}}
{{- if hasKey .Values.config "healthPort" }}{{ $port = int .Values.config.healthPort }}{{ end -}}
{{- if $port }}{{ $port }}{{ end -}}
{{- end -}}

{{/* What values.schema.json cannot see: names that point nowhere. */}}
{{- define "certbaton.check" -}}
{{- include "certbaton.guard" . -}}
{{- $services := dict -}}
{{- range $name, $issuer := .Values.config.issuers -}}
{{- if not (or $issuer.directory (has $name (splitList " " (include "certbaton.wellKnown" $)))) -}}
{{- fail (printf "config.issuers.%s.directory: this key is required: the address of the CA's directory, or one of the names %s" $name (include "certbaton.wellKnown" $)) -}}
{{- end -}}
{{- end -}}
{{- range $name, $solver := .Values.config.solvers -}}
{{- if and (eq $solver.type "http-01") (eq (int (default 8089 $solver.port)) (int (default 8080 $.Values.config.healthPort))) -}}
{{- fail (printf "config.solvers.%s.port: %d is the port of healthPort" $name (int (default 8089 $solver.port))) -}}
{{- end -}}
{{- end -}}
{{- range $index, $certificate := .Values.config.certificates -}}
{{- range (include "certbaton.issuersOf" $certificate | fromJsonArray) -}}
{{- if not (hasKey (default dict $.Values.config.issuers) .) -}}
{{- fail (printf "config.certificates[%d].%s: there is no issuer '%s'" $index (ternary "issuers" "issuer" (hasKey $certificate "issuers")) .) -}}
{{- end -}}
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
{{- if and $certificate.ipAddresses (ne $solver.type "http-01") -}}
{{- fail (printf "config.certificates[%d].ipAddresses: an IP address needs an http-01 solver" $index) -}}
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

{{/* Environment of a pod behind a proxy: what is in the cluster is reached without. */}}
{{- define "certbaton.proxyEnv" -}}
{{- $names := list }}
{{- range .Values.extraEnv }}
{{- $names = append $names (upper .name) }}
{{- end }}
{{- $ways := or (has "HTTPS_PROXY" $names) (has "HTTP_PROXY" $names) (has "ALL_PROXY" $names) }}
{{- if or .Values.proxy.url .Values.proxy.noProxy (and $ways (not (has "NO_PROXY" $names))) }}
{{- with .Values.proxy.url }}
- name: HTTPS_PROXY
  value: {{ . | quote }}
{{- end }}
- name: NO_PROXY
  value: {{ prepend (compact (splitList "," .Values.proxy.noProxy)) "$(KUBERNETES_SERVICE_HOST)" | join "," | quote }}
{{- end }}
{{- end -}}
