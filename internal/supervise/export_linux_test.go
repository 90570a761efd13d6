//go:build linux

package supervise

// ParseStatLine parses a line of /proc/PID/stat.
func ParseStatLine(line []byte) (pgrp int, start uint64, err error) {
	s, err := parseStat(line)
	return s.pgrp, s.start, err
}
