package table

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// A file belongs to the user who reads it, and who owns a file can change it. The agent believes what it reads when it
// starts, and passes it on to other users; so it keeps what the files that it gave away hash to, in a file of its own.
type seals [Segments][sha256.Size]byte

// sealsOf names the file of the seals of a folder; it is beside the folder.
func sealsOf(folder string) string { return folder + ".seals" }

// readSeals returns the seals of a folder; none for a folder that has no whole file of them.
func readSeals(folder string) (s seals, err error) {
	content, err := os.ReadFile(sealsOf(folder))
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(content) != Segments*sha256.Size {
		return s, nil
	}
	for i := range content {
		s[i/sha256.Size][i%sha256.Size] = content[i]
	}
	return s, err
}

// seal notes what segments of a folder hold from now on.
func seal(folder string, segments map[int][]byte) error {
	s, err := readSeals(folder)
	if err != nil {
		return err
	}
	for segment, content := range segments {
		if s[segment] = [sha256.Size]byte{}; content != nil {
			s[segment] = sha256.Sum256(content)
		}
	}
	content := make([]byte, 0, Segments*sha256.Size)
	for _, sum := range s {
		content = append(content, sum[:]...)
	}
	return replace(folder, sealsOf(folder), os.Geteuid(), content)
}

// sealed is read for a file that somebody may have changed: it is copied first, lest it change while it is in use.
func (s *seals) sealed(file string, segment int, use func(*Segment) error) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if sha256.Sum256(data) != s[segment] {
		return fmt.Errorf("%s: %w (it is not as it was written)", file, ErrDamaged)
	}
	parsed, err := Parse(data, segment)
	if err == nil {
		err = use(parsed)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}
