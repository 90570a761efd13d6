package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/lockfile"
	"github.com/zhiyun-ops/zhiyun/internal/store"
	"github.com/zhiyun-ops/zhiyun/internal/uid"
)

// One server works on one record: the executions of its flows, and who is connected to it, are known to it alone. A
// second one would run other executions over the same devices, and take the devices whose agents are not
// connected to it for lost.

// lock keeps a second process out of the data folder until unlock is called, or the process ends.
func lock(dir string) (unlock func() error, err error) {
	path := filepath.Join(dir, "lock")
	file, err := lockfile.Take(path)
	if errors.Is(err, lockfile.ErrHeld) {
		return nil, fmt.Errorf("server: another server runs in %s; stop it, or use another --dir: %w", dir, err)
	}
	if err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	return file.Close, nil
}

// ownerKey names the data folder that belongs to a record.
const ownerKey = "owner"

// ownTime bounds how long the record may take to say whose it is.
const ownTime = 15 * time.Second

// own makes the record that of the data folder, or refuses: it belongs to another.
func own(ctx context.Context, record store.Store, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, ownTime)
	defer cancel()
	id, err := folderID(dir)
	if err != nil {
		return err
	}
	_, err = record.Commit(ctx, store.Put(ownerKey, []byte(id+" "+dir)).At(0))
	if err == nil {
		return nil
	}
	if !errors.Is(err, store.ErrConflict) {
		return fmt.Errorf("server: ask the record whose it is: %w", err)
	}
	have, _, err := record.List(ctx, ownerKey)
	if err != nil {
		return fmt.Errorf("server: ask the record whose it is: %w", err)
	}
	for _, r := range have {
		owner, folder, _ := strings.Cut(string(r.Value), " ")
		if r.Key == ownerKey && owner != id {
			return fmt.Errorf("server: the record belongs to the server with the data folder %s (%s), which has its executions: run that one, or give this one a record of its own", folder, owner)
		}
	}
	return nil
}

// folderID is the name of a data folder, which goes with it when it is moved.
func folderID(dir string) (string, error) {
	path := filepath.Join(dir, "id")
	content, err := os.ReadFile(path)
	if err == nil {
		return strings.TrimSpace(string(content)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("server: %w", err)
	}
	id := uid.New()
	draft := path + ".new"
	if err := errors.Join(os.WriteFile(draft, []byte(id+"\n"), 0o600), os.Rename(draft, path)); err != nil {
		return "", fmt.Errorf("server: name the data folder: %w", err)
	}
	return id, nil
}
