package sample

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"go.yaml.in/yaml/v3"
)

// SettingsPath is where the settings are, below the device's root.
const SettingsPath = "etc/sample.yaml"

// Settings is the module's configuration file. A zero field means its default.
type Settings struct {
	// Rate is the capacity in requests per second. Default: 100.
	Rate float64 `yaml:"rate,omitempty" json:"rate"`
	// Workers is how many requests are served at a time; each takes Workers/Rate seconds. Default: 2.
	Workers int `yaml:"workers,omitempty" json:"workers"`
	// Queue is how many requests may wait for a worker. Default: Rate/4, so at most a quarter of a second.
	Queue int `yaml:"queue,omitempty" json:"queue"`
	// Fail is the share of requests, 0 to 1, that are answered with 500: a bad version, to be found out by a
	// rollout. Default: 0.
	Fail float64 `yaml:"fail,omitempty" json:"fail,omitempty"`
	// Greeting is the answer. Default: "hello".
	Greeting string `yaml:"greeting,omitempty" json:"greeting"`
	// Drain is how long requests in flight may take at the end. Default: 10s.
	Drain time.Duration `yaml:"drain,omitempty" json:"drain_ns"`
}

// ErrSettings says that the settings are wrong.
var ErrSettings = errors.New("sample: wrong settings")

// ParseSettings reads a settings file, completes the defaults and reports every fault.
func ParseSettings(text []byte) (Settings, error) {
	var s Settings
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&s); err != nil && !errors.Is(err, io.EOF) {
		return s, fmt.Errorf("%w: %w", ErrSettings, err)
	}
	return s.complete()
}

func (s Settings) complete() (Settings, error) {
	var faults []error
	bad := func(name string, value any, mend string) {
		faults = append(faults, fmt.Errorf("%w: %s %v: %s", ErrSettings, name, value, mend))
	}
	if s.Rate == 0 {
		s.Rate = 100
	}
	if s.Workers == 0 {
		s.Workers = 2
	}
	if s.Greeting == "" {
		s.Greeting = "hello"
	}
	if s.Drain == 0 {
		s.Drain = 10 * time.Second
	}
	if !(s.Rate > 0 && s.Rate <= 1e6) {
		bad("rate", s.Rate, "give requests per second, up to 1000000")
	} else if s.Queue == 0 {
		s.Queue = max(1, int(s.Rate/4))
	}
	if s.Workers < 0 || s.Workers > 10_000 {
		bad("workers", s.Workers, "give 1 to 10000")
	}
	if s.Queue < 0 || s.Queue > 1_000_000 {
		bad("queue", s.Queue, "give 1 to 1000000")
	}
	if !(s.Fail >= 0 && s.Fail <= 1) {
		bad("fail", s.Fail, "give a share from 0 to 1")
	}
	if s.Drain < 0 {
		bad("drain", s.Drain, "give a duration such as 10s")
	}
	return s, errors.Join(faults...)
}

// readSettings reads the file; one that is absent means the defaults.
func readSettings(path string) (Settings, error) {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Settings{}, fmt.Errorf("sample: read settings: %w", err)
	}
	s, err := ParseSettings(text)
	if err != nil {
		return s, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}
