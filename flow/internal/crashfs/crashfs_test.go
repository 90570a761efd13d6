package crashfs_test

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/zhiyun-ops/zhiyun/flow/internal/crashfs"
)

// session inserts rows, one commit each, until the disk fails, and returns how many commits were said to be durable.
func session(t *testing.T, disk *crashfs.Disk, path, sync string, rows int) (acknowledged int) {
	t.Helper()
	db, err := sql.Open("sqlite", fmt.Sprintf("file:%s?vfs=%s&_pragma=journal_mode(wal)&_pragma=synchronous(%s)&_pragma=wal_autocheckpoint(5)", path, disk.Name(), sync))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, text TEXT)"); err != nil {
		return 0
	}
	for i := range rows {
		if _, err := db.Exec("INSERT INTO t (text) VALUES (?)", fmt.Sprintf("%0300d", i)); err != nil {
			return i
		}
	}
	return rows
}

// count reads what is there once the lights are on again; healthy is what SQLite says of the whole file.
func count(t *testing.T, path string) (n int, healthy bool) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var health string
	if err := db.QueryRow("PRAGMA integrity_check").Scan(&health); err != nil || health != "ok" {
		return 0, false
	}
	if err := db.QueryRow("SELECT count(*) FROM t").Scan(&n); err != nil {
		return 0, true // no table yet
	}
	return n, true
}

func newDisk(t *testing.T) *crashfs.Disk {
	t.Helper()
	disk, err := crashfs.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(disk.Close)
	return disk
}

// SQLite keeps its word at every point, whichever sectors survive; and where it gives none (synchronous off) the disk shows it.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	const rows = 12
	clean := newDisk(t)
	if got := session(t, clean, filepath.Join(t.TempDir(), "x.db"), "full", rows); got != rows {
		t.Fatalf("%d rows on a disk without faults", got)
	}
	random := rand.New(rand.NewPCG(1, 2))
	lost := 0
	for point := 1; point <= clean.Ops(); point++ {
		for _, sync := range []string{"full", "off"} {
			disk, path := newDisk(t), filepath.Join(t.TempDir(), "x.db")
			disk.FailAt(point)
			acknowledged := session(t, disk, path, sync, rows)
			var keep func() bool
			if point%2 == 0 && sync == "full" {
				keep = func() bool { return random.IntN(2) == 0 }
			}
			if err := disk.PowerCut(keep); err != nil {
				t.Fatal(err)
			}
			got, healthy := count(t, path)
			if sync == "off" {
				if got < acknowledged {
					lost++
				}
				continue
			}
			if !healthy || got < acknowledged || got > acknowledged+1 {
				t.Errorf("point %d: %d rows were acknowledged, %d are there (healthy: %t)", point, acknowledged, got, healthy)
			}
		}
	}
	if lost == 0 {
		t.Error("nothing was lost without a sync: the disk does not lose what it should")
	}
}

// An operation that fails changes nothing, and the disk works again once it is mended.
func TestFailAndMend(t *testing.T) {
	t.Parallel()
	disk, path := newDisk(t), filepath.Join(t.TempDir(), "x.db")
	before := session(t, disk, path, "full", 3)
	disk.FailAt(1)
	if got := session(t, disk, path, "full", 3); got != 0 {
		t.Errorf("%d rows on a disk that fails", got)
	}
	disk.Mend()
	if got := session(t, disk, path, "full", 4); got != 4 {
		t.Errorf("%d rows on a disk that is mended", got)
	}
	if got, healthy := count(t, path); got != before+4 || !healthy {
		t.Errorf("%d rows, want %d (healthy: %t)", got, before+4, healthy)
	}
}
