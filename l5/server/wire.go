package server

import (
	"google.golang.org/protobuf/encoding/protowire"
)

// Frames are put together from rows as they stand in the store: nothing is decoded to be encoded again. The numbers are
// those of WatchResponse, Snapshot and Delta.

// snapshotFrame encodes a WatchResponse with the whole state of a service.
func snapshotFrame(service, epoch string, revision int64, rows []packed) []byte {
	size := 0
	for _, r := range rows {
		size += protowire.SizeTag(4) + protowire.SizeBytes(len(r.wire))
	}
	head := position(make([]byte, 0, 32+len(service)+len(epoch)), service, epoch)
	head = number(head, 3, revision)
	out := make([]byte, 0, len(head)+size+10)
	out = protowire.AppendTag(out, 1, protowire.BytesType)
	out = protowire.AppendVarint(out, uint64(len(head)+size))
	out = append(out, head...)
	for _, r := range rows {
		out = protowire.AppendTag(out, 4, protowire.BytesType)
		out = protowire.AppendBytes(out, r.wire)
	}
	return out
}

// deltaFrame encodes a WatchResponse with the way from the state at previous to that at revision.
func deltaFrame(service, epoch string, previous, revision int64, put [][]byte, remove []string) []byte {
	body := position(nil, service, epoch)
	body = number(body, 3, previous)
	body = number(body, 4, revision)
	for _, wire := range put {
		body = protowire.AppendTag(body, 5, protowire.BytesType)
		body = protowire.AppendBytes(body, wire)
	}
	for _, addr := range remove {
		body = protowire.AppendTag(body, 6, protowire.BytesType)
		body = protowire.AppendString(body, addr)
	}
	out := protowire.AppendTag(make([]byte, 0, len(body)+6), 2, protowire.BytesType)
	return protowire.AppendBytes(out, body)
}

func position(b []byte, service, epoch string) []byte {
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	b = protowire.AppendString(b, service)
	b = protowire.AppendTag(b, 2, protowire.BytesType)
	return protowire.AppendString(b, epoch)
}

func number(b []byte, field protowire.Number, value int64) []byte {
	if value == 0 {
		return b
	}
	b = protowire.AppendTag(b, field, protowire.VarintType)
	return protowire.AppendVarint(b, uint64(value))
}
