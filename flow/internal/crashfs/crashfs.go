// Package crashfs is a disk for tests of SQLite: an SQLite VFS over the usual one, beneath the driver, that counts every write and sync, fails at any of them as
// if the process had ended there, and can lose what was not synced, as a power cut does.
//
//	disk, err := crashfs.New()
//	db, err := sql.Open("sqlite", "file:"+path+"?vfs="+disk.Name())
//	disk.FailAt(17)            // the 17th write, sync, truncation or deletion fails, and so does every one after it
//	...                        // until the store says so
//	db.Close()
//	err = disk.PowerCut(nil)   // the files are what was synced, and nothing else
//	disk.Mend()
//
// What a sync promises is simulated: nothing is synced for real, which makes it fast.
package crashfs

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// sector is how much a disk writes at once, or not at all.
const sector = 512

// Disk is a VFS. All methods are safe for concurrent use.
type Disk struct {
	name string
	tls  *libc.TLS // of New and Close
	c    uintptr   // sqlite3_vfs
	cstr uintptr

	mu     sync.Mutex // guards what follows
	ops    int
	failAt int // 0: never
	lieAt  int // 0: never
	files  map[string]*file
}

// file is what a disk knows of one file.
type file struct {
	durable []byte  // as of the last sync
	pending []write // since
}

// write is a write that is not synced; data nil is a truncation to the size at.
type write struct {
	at   int64
	data []byte
}

var (
	serial atomic.Uint64
	disks  sync.Map // of sqlite3_vfs.pAppData, a number, to *Disk: C memory holds no Go pointers
)

// New registers a disk with SQLite. Close it after the databases on it.
func New() (*Disk, error) {
	number := serial.Add(1)
	d := &Disk{name: fmt.Sprintf("crashfs%d", number), tls: libc.NewTLS(), files: map[string]*file{}}
	real := sqlite3.Xsqlite3_vfs_find(d.tls, 0)
	if real == 0 {
		d.tls.Close()
		return nil, fmt.Errorf("crashfs: SQLite has no VFS")
	}
	var err error
	if d.cstr, err = libc.CString(d.name); err != nil {
		return nil, fmt.Errorf("crashfs: %w", err)
	}
	d.c = libc.Xcalloc(d.tls, 1, libc.Tsize_t(unsafe.Sizeof(vfs{})))
	v := at[vfs](d.c)
	*v = vfs{Tsqlite3_vfs: *at[sqlite3.Tsqlite3_vfs](real), real: real, disk: number}
	v.FpNext, v.FzName = 0, d.cstr
	v.FszOsFile += int32(unsafe.Sizeof(handle{}))
	v.FxOpen, v.FxDelete, v.FxAccess, v.FxFullPathname = openC, deleteC, accessC, pathC
	disks.Store(number, d)
	if rc := sqlite3.Xsqlite3_vfs_register(d.tls, d.c, 0); rc != sqlite3.SQLITE_OK {
		return nil, fmt.Errorf("crashfs: register: SQLite says %d", rc)
	}
	return d, nil
}

// Close takes the disk from SQLite. No database may be open on it.
func (d *Disk) Close() {
	sqlite3.Xsqlite3_vfs_unregister(d.tls, d.c)
	disks.Delete(at[vfs](d.c).disk)
	libc.Xfree(d.tls, d.c)
	libc.Xfree(d.tls, d.cstr)
	d.tls.Close()
}

// Name is what the parameter vfs of a database's name takes.
func (d *Disk) Name() string { return d.name }

// Ops is how many writes, syncs, truncations and deletions have been asked for.
func (d *Disk) Ops() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ops
}

// FailAt has the n-th operation from now on, and all after it, fail and change nothing.
func (d *Disk) FailAt(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failAt = d.ops + n
}

// LieAfter has syncs from the n-th operation on say that they have done what they have not.
func (d *Disk) LieAfter(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lieAt = d.ops + n
}

// Mend ends both.
func (d *Disk) Mend() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failAt, d.lieAt = 0, 0
}

// PowerCut leaves of every file what was synced. Of what was not, those sectors are there that keep says, each asked for once in the order of writing; nil
// keeps none. No database may be open on the disk.
func (d *Disk) PowerCut(keep func() bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, path := range slices.Sorted(maps.Keys(d.files)) {
		f := d.files[path]
		for _, w := range f.pending {
			if keep == nil {
				break
			}
			if w.data == nil {
				if keep() {
					f.apply(w)
				}
				continue
			}
			for from := 0; from < len(w.data); {
				end := min(len(w.data), from+sector-int((w.at+int64(from))%sector))
				if keep() {
					f.apply(write{w.at + int64(from), w.data[from:end]})
				}
				from = end
			}
		}
		f.pending = nil
		if err := os.WriteFile(path, f.durable, 0o600); err != nil {
			return fmt.Errorf("crashfs: power cut: %w", err)
		}
	}
	return nil
}

// apply makes a write durable.
func (f *file) apply(w write) {
	if w.data == nil {
		f.durable = f.durable[:min(w.at, int64(len(f.durable)))]
		return
	}
	if missing := w.at + int64(len(w.data)) - int64(len(f.durable)); missing > 0 {
		f.durable = append(f.durable, make([]byte, missing)...)
	}
	copy(f.durable[w.at:], w.data)
}

// op counts an operation, and reports whether it fails.
func (d *Disk) op() (fails bool) {
	d.ops++
	return d.failAt > 0 && d.ops >= d.failAt
}

// changed notes a write to a file.
func (d *Disk) changed(path string, w write) (fails bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.op() {
		return true
	}
	f := d.file(path)
	f.pending = append(f.pending, w)
	return false
}

// file returns what is known of a file. What is there when it is first seen is durable.
func (d *Disk) file(path string) *file {
	f := d.files[path]
	if f == nil {
		f = &file{}
		f.durable, _ = os.ReadFile(path) // not there: empty
		d.files[path] = f
	}
	return f
}

// synced makes what was written to a file durable.
func (d *Disk) synced(path string) (fails bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.op() {
		return true
	}
	if d.lieAt > 0 && d.ops >= d.lieAt {
		return false
	}
	f := d.file(path)
	for _, w := range f.pending {
		f.apply(w)
	}
	f.pending = nil
	return false
}

// deleted forgets a file. A deletion is durable at once: SQLite asks for that where it matters.
func (d *Disk) deleted(path string) (fails bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.op() {
		return true
	}
	delete(d.files, path)
	return false
}

// seen has a file known as it is, before anything is written to it.
func (d *Disk) seen(path string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.file(path)
}
