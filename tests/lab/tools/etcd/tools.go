//go:build tools

// Package tools pins what the lab builds; nothing here is compiled into anything.
package tools

import (
	_ "go.etcd.io/etcd/server/v3"
)
