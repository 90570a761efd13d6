// Package controlpb is the wire form of the control API, made from control.proto.
package controlpb

//go:generate go run -C ../../../tools ./protogen ../internal/control/controlpb/control.proto
