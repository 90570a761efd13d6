package server

import (
	"log/slog"
	"sync"
)

// faults logs what keeps a module from being scaled: once when it comes, once when it has changed, once when it is gone. The
// decider reads the modules every second.
type faults struct {
	logger *slog.Logger

	mu   sync.Mutex
	have map[string]string // guarded by mu; by module
}

func newFaults(logger *slog.Logger) *faults {
	return &faults{logger: logger, have: make(map[string]string)}
}

// tell takes note of what is wrong with a module; nil is nothing.
func (f *faults) tell(module string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	f.mu.Lock()
	old := f.have[module]
	if text == "" {
		delete(f.have, module)
	} else {
		f.have[module] = text
	}
	f.mu.Unlock()
	switch {
	case text == old:
	case text == "":
		f.logger.Info("a module is scaled again", "module", module)
	default:
		f.logger.Error("a module is not scaled: mend its scale.params", "module", module, "error", text)
	}
}
