package crashfs

import (
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// vfs is SQLite's record of a VFS, and what ours needs besides.
type vfs struct {
	sqlite3.Tsqlite3_vfs
	real uintptr // the VFS beneath
	disk uint64
}

// handle is an open file: SQLite's part, ours, and behind it that of the VFS beneath.
type handle struct {
	sqlite3.Tsqlite3_file
	disk uint64
	path uintptr // C string that SQLite keeps as long as the file is open; 0 if the file is not watched
}

// at is the Go view of C memory.
func at[T any](p uintptr) *T { return *(**T)(unsafe.Pointer(&p)) }

func beneath(p uintptr) uintptr { return p + unsafe.Sizeof(handle{}) }

func methods(file uintptr) *sqlite3.Tsqlite3_io_methods {
	return at[sqlite3.Tsqlite3_io_methods](at[sqlite3.Tsqlite3_file](file).FpMethods)
}

func diskOf(number uint64) *Disk {
	found, _ := disks.Load(number)
	disk, _ := found.(*Disk)
	return disk
}

// code is the C view of a Go function; it must be one of the package, not a closure.
func code(f any) uintptr { return (*[2]uintptr)(unsafe.Pointer(&f))[1] }

// call is the Go view of a C function.
func call[F any](code uintptr) F { return *(*F)(unsafe.Pointer(&struct{ uintptr }{code})) }

type (
	tls     = *libc.TLS
	opened  = func(tls, uintptr, uintptr, uintptr, int32, uintptr) int32
	named   = func(tls, uintptr, uintptr, int32) int32
	access  = func(tls, uintptr, uintptr, int32, uintptr) int32
	plain   = func(tls, uintptr) int32
	pointer = func(tls, uintptr, uintptr) int32
	number  = func(tls, uintptr, int32) int32
	control = func(tls, uintptr, int32, uintptr) int32
	moved   = func(tls, uintptr, uintptr, int32, int64) int32
	sized   = func(tls, uintptr, int64) int32
	shmMap  = func(tls, uintptr, int32, int32, int32, uintptr) int32
	shmLock = func(tls, uintptr, int32, int32, int32) int32
)

var openC, deleteC, accessC, pathC = code(xOpen), code(xDelete), code(xAccess), code(xFullPathname)

// table is what SQLite calls on a file. Version 2: without memory-mapped reads and writes, which would pass us by.
var table = sqlite3.Tsqlite3_io_methods{
	FiVersion: 2, FxClose: code(xClose), FxRead: code(xRead), FxWrite: code(xWrite), FxTruncate: code(xTruncate), FxSync: code(xSync), FxFileSize: code(xFileSize),
	FxLock: code(xLock), FxUnlock: code(xUnlock), FxCheckReservedLock: code(xCheckReservedLock), FxFileControl: code(xFileControl),
	FxSectorSize: code(xSectorSize), FxDeviceCharacteristics: code(xDeviceCharacteristics),
	FxShmMap: code(xShmMap), FxShmLock: code(xShmLock), FxShmBarrier: code(xShmBarrier), FxShmUnmap: code(xShmUnmap),
}

func xOpen(t tls, p, name, file uintptr, flags int32, out uintptr) int32 {
	v := at[vfs](p)
	rc := call[opened](at[sqlite3.Tsqlite3_vfs](v.real).FxOpen)(t, v.real, name, beneath(file), flags, out)
	h := at[handle](file)
	*h = handle{disk: v.disk}
	if methodsOf := at[sqlite3.Tsqlite3_file](beneath(file)).FpMethods; methodsOf != 0 {
		h.FpMethods = uintptr(unsafe.Pointer(&table))
	}
	if watched := flags&(sqlite3.SQLITE_OPEN_MAIN_DB|sqlite3.SQLITE_OPEN_WAL|sqlite3.SQLITE_OPEN_MAIN_JOURNAL) != 0; rc == sqlite3.SQLITE_OK && name != 0 && watched {
		h.path = name
		diskOf(v.disk).seen(libc.GoString(name))
	}
	return rc
}

func xDelete(t tls, p, name uintptr, sync int32) int32 {
	v := at[vfs](p)
	if diskOf(v.disk).deleted(libc.GoString(name)) {
		return sqlite3.SQLITE_IOERR_DELETE
	}
	return call[named](at[sqlite3.Tsqlite3_vfs](v.real).FxDelete)(t, v.real, name, 0)
}

func xAccess(t tls, p, name uintptr, flags int32, out uintptr) int32 {
	v := at[vfs](p)
	return call[access](at[sqlite3.Tsqlite3_vfs](v.real).FxAccess)(t, v.real, name, flags, out)
}

func xFullPathname(t tls, p, name uintptr, n int32, out uintptr) int32 {
	v := at[vfs](p)
	return call[access](at[sqlite3.Tsqlite3_vfs](v.real).FxFullPathname)(t, v.real, name, n, out)
}

func xClose(t tls, f uintptr) int32 { return call[plain](methods(beneath(f)).FxClose)(t, beneath(f)) }

func xRead(t tls, f, buffer uintptr, n int32, offset int64) int32 {
	return call[moved](methods(beneath(f)).FxRead)(t, beneath(f), buffer, n, offset)
}

func xWrite(t tls, f, buffer uintptr, n int32, offset int64) int32 {
	if h := at[handle](f); h.path != 0 {
		data := append([]byte{}, unsafe.Slice(at[byte](buffer), n)...)
		if diskOf(h.disk).changed(libc.GoString(h.path), write{offset, data}) {
			return sqlite3.SQLITE_IOERR_WRITE
		}
	}
	return call[moved](methods(beneath(f)).FxWrite)(t, beneath(f), buffer, n, offset)
}

func xTruncate(t tls, f uintptr, size int64) int32 {
	if h := at[handle](f); h.path != 0 && diskOf(h.disk).changed(libc.GoString(h.path), write{at: size}) {
		return sqlite3.SQLITE_IOERR_TRUNCATE
	}
	return call[sized](methods(beneath(f)).FxTruncate)(t, beneath(f), size)
}

func xSync(_ tls, f uintptr, _ int32) int32 {
	if h := at[handle](f); h.path != 0 && diskOf(h.disk).synced(libc.GoString(h.path)) {
		return sqlite3.SQLITE_IOERR_FSYNC
	}
	return sqlite3.SQLITE_OK
}

func xFileSize(t tls, f, out uintptr) int32 {
	return call[pointer](methods(beneath(f)).FxFileSize)(t, beneath(f), out)
}

func xLock(t tls, f uintptr, level int32) int32 {
	return call[number](methods(beneath(f)).FxLock)(t, beneath(f), level)
}

func xUnlock(t tls, f uintptr, level int32) int32 {
	return call[number](methods(beneath(f)).FxUnlock)(t, beneath(f), level)
}

func xCheckReservedLock(t tls, f, out uintptr) int32 {
	return call[pointer](methods(beneath(f)).FxCheckReservedLock)(t, beneath(f), out)
}

func xFileControl(t tls, f uintptr, op int32, arg uintptr) int32 {
	return call[control](methods(beneath(f)).FxFileControl)(t, beneath(f), op, arg)
}

func xSectorSize(t tls, f uintptr) int32 {
	return call[plain](methods(beneath(f)).FxSectorSize)(t, beneath(f))
}

func xDeviceCharacteristics(t tls, f uintptr) int32 {
	return call[plain](methods(beneath(f)).FxDeviceCharacteristics)(t, beneath(f))
}

func xShmMap(t tls, f uintptr, page, size, extend int32, out uintptr) int32 {
	return call[shmMap](methods(beneath(f)).FxShmMap)(t, beneath(f), page, size, extend, out)
}

func xShmLock(t tls, f uintptr, first, n, flags int32) int32 {
	return call[shmLock](methods(beneath(f)).FxShmLock)(t, beneath(f), first, n, flags)
}

func xShmBarrier(t tls, f uintptr) {
	call[func(tls, uintptr)](methods(beneath(f)).FxShmBarrier)(t, beneath(f))
}

func xShmUnmap(t tls, f uintptr, remove int32) int32 {
	return call[number](methods(beneath(f)).FxShmUnmap)(t, beneath(f), remove)
}
