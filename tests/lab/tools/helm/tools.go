//go:build tools

// Package tools pins what the lab builds; nothing here is compiled into anything.
package tools

import (
	_ "helm.sh/helm/v4/cmd/helm"
)
