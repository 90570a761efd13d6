package drift

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Watch implements Watcher: it holds a pidfd of each process that was seen last, which tells when it ends.
func (c *ProcessCollector) Watch(ctx context.Context, changed func(Touched)) error {
	bell, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("drift: watch processes: %w", err)
	}
	w := &pidWatch{bell: os.NewFile(uintptr(bell), "drift-bell"), fds: make(map[int]int)}
	defer w.close()
	c.mu.Lock()
	c.watched = w.ring
	c.mu.Unlock()
	stop := context.AfterFunc(ctx, w.ring)
	defer func() {
		c.mu.Lock()
		c.watched = nil
		c.mu.Unlock()
		stop()
	}()
	changed(Touched{}) // look, now that somebody watches
	for ctx.Err() == nil {
		c.mu.Lock()
		pids := c.pids
		c.mu.Unlock()
		gone, err := w.follow(pids)
		if err == nil && !gone {
			gone, err = w.wait(bell)
		}
		if err != nil {
			return fmt.Errorf("drift: watch processes: %w", err)
		}
		if gone {
			changed(Touched{})
		}
	}
	return nil
}

// pidWatch is one run of Watch. Only its goroutine touches fds; ring may be called from any.
type pidWatch struct {
	bell *os.File
	fds  map[int]int // pidfd by pid; -1 for one that has ended
}

// ring ends wait.
func (w *pidWatch) ring() {
	_, _ = w.bell.Write([]byte{1, 0, 0, 0, 0, 0, 0, 0}) // it fails only if it rings already, or is closed
}

func (w *pidWatch) close() {
	w.bell.Close()
	for _, fd := range w.fds {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// follow holds a pidfd of each of pids, and of no others. It says whether one has ended already.
func (w *pidWatch) follow(pids []int) (gone bool, err error) {
	wanted := make(map[int]bool, len(pids))
	for _, pid := range pids {
		wanted[pid] = true
		if _, have := w.fds[pid]; have {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		switch {
		case errors.Is(err, unix.ESRCH):
			w.fds[pid], gone = -1, true
		case err != nil:
			return false, fmt.Errorf("pidfd of %d: %w", pid, err)
		default:
			w.fds[pid] = fd
		}
	}
	for pid, fd := range w.fds {
		if !wanted[pid] {
			if fd >= 0 {
				unix.Close(fd)
			}
			delete(w.fds, pid)
		}
	}
	return gone, nil
}

// wait blocks until the bell rings or a process ends, and says whether one has.
func (w *pidWatch) wait(bell int) (gone bool, err error) {
	polled := []unix.PollFd{{Fd: int32(bell), Events: unix.POLLIN}}
	var pids []int
	for pid, fd := range w.fds {
		if fd >= 0 {
			polled = append(polled, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
			pids = append(pids, pid)
		}
	}
	if _, err := unix.Poll(polled, -1); err != nil && !errors.Is(err, unix.EINTR) {
		return false, err
	}
	if polled[0].Revents != 0 {
		var count [8]byte
		_, _ = unix.Read(bell, count[:]) // it is not blocking, and what it holds does not matter
	}
	for i, pid := range pids {
		if polled[i+1].Revents != 0 {
			unix.Close(w.fds[pid])
			w.fds[pid], gone = -1, true
		}
	}
	return gone, nil
}
