// Package table is a device's copy of the name service as files that all its processes map: a service is found by a
// sorted index and decoded alone, whatever else the table holds.
//
// # Files
//
// A table is a folder with one folder per user id, and in it up to Segments files. A service is in the segment that its
// name's hash chooses, so that a change rewrites one small file. A file is replaced, never changed: who has it mapped
// goes on reading what was there. It is little-endian, holds offsets and no pointers, and ends with a pool in which
// each distinct string stands once:
//
//	header    52 bytes: magic, version, segment, CRC-32C of all that follows it, counts, size, time of writing, place
//	services  44 bytes each, by hash and name: revision, name, epoch, settings, first and number of instances and of callers
//	callers    4 bytes each: who may call the service
//	instances 28 bytes each: address, port, flags, share, weight, device, module, owner, rest
//	pool      length and bytes of each string; of each IPv6 address; and of each rest
//
// A rest is a wire-format Instance with the fields that have no place of their own, labels and those that this version does
// not know among them.
//
// # Who reads what
//
// A user id is what the kernel can tell apart, so a table holds one folder per user id: what the callers that run as
// that user may call. A file has mode 0400 and is owned by that user, who could change it for himself: the agent knows its own files again
// by their digests. Within a user's folder each service names its callers,
// and Find gives a caller what it may call.
package table

import (
	"errors"
	"hash/crc32"
)

// Segments is into how many files a table is split.
const Segments = 128

const (
	magic        = "zhiyunl5"
	version      = 1
	headerSize   = 52
	serviceSize  = 44
	callerSize   = 4
	instanceSize = 28
	sumStart     = 20 // the checksum covers everything from here on
)

// Flags of an instance.
const (
	addrIPv4     = 0 // the address itself
	addrIPv6     = 1 // 16 bytes in the pool
	addrText     = 2 // host:port in the pool, as it stands
	addrMask     = 3
	stateShift   = 2
	stateInRest  = 3
	stateMask    = 3
	suspectFlag  = 1 << 4
	shareInRest  = 254
	shareAbsent  = 255
	maxSegmentSz = 1 << 31
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	// ErrDamaged says that a file is no segment of a table, or not a whole one.
	ErrDamaged = errors.New("not a whole segment of a route table; the agent writes a new one at its next start")
	// ErrVersion says that a file was written by a version that this one does not read.
	ErrVersion = errors.New("a route table of another version; update this program, or the agent")
	// ErrUnknown says that the table does not know the service, or not for that caller.
	ErrUnknown = errors.New("the route table does not hold the service for this caller")
)

// hash is FNV-1a, 64 bits.
func hash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// SegmentOf returns in which segment a service is.
func SegmentOf(service string) int { return int(hash(service) * 0x9e3779b97f4a7c15 >> (64 - 7)) }
