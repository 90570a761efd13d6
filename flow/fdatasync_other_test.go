//go:build !linux

package flow_test

import "os"

func fdatasync(file *os.File) error { return file.Sync() }
