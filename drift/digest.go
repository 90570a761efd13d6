package drift

import (
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"
)

// hashed is a digest and what the file looked like when it was computed.
type hashed struct {
	stamp  stamp
	digest string
}

// stamp is what of a file changes when its content does. The kernel sets ctime, and no user can set it back.
type stamp struct {
	inode, device uint64
	size          int64
	mtime, ctime  int64 // ns
}

// clockTick bounds how coarse the file system's time stamps are. A file that changed within one tick before it was
// hashed may change again without a new stamp, so such a hash is not kept.
const clockTick = 20 * time.Millisecond

var buffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// digest is the digest of the regular file that info tells of, read only if it may have changed.
func (l *looking) digest(name, base string, info fs.FileInfo) (string, error) {
	now := stampOf(info)
	if have, ok := l.hashed[name]; ok && have.stamp == now {
		return have.digest, nil
	}
	delete(l.hashed, name)
	started := time.Now()
	file, err := l.handle.OpenFile(base, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer file.Close()
	opened, err := file.Stat()
	if err != nil {
		return "", err
	}
	if !opened.Mode().IsRegular() {
		return "", fmt.Errorf("drift: %s was replaced while it was looked at", name)
	}
	hash, buffer := sha256.New(), buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	if _, err := io.CopyBuffer(hash, onlyReader{file}, *buffer); err != nil {
		return "", err
	}
	digest := digestOf(hash.Sum(nil))
	read, err := file.Stat()
	if err != nil {
		return "", err
	}
	if still := stampOf(read); still == now && still.ctime < started.Add(-clockTick).UnixNano() {
		l.hashed[name] = hashed{now, digest}
	}
	return digest, nil
}

// onlyReader hides the other methods of a file, so that io.CopyBuffer uses the buffer.
type onlyReader struct{ io.Reader }
