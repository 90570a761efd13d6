package drift

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"
)

// Kind is what sort of resource a finding is about.
type Kind string

// The kinds. The first three are all files, told apart because different people own them and different
// modes may apply.
const (
	KindFile    Kind = "file"    // of the central file source, or any other
	KindConfig  Kind = "config"  // rendered configuration
	KindPackage Kind = "package" // unpacked from a package
	KindProcess Kind = "process"
	KindPort    Kind = "port" // a listening port
)

// Kinds lists every kind.
func Kinds() []Kind { return []Kind{KindFile, KindConfig, KindPackage, KindProcess, KindPort} }

func (k Kind) valid() bool { return k == KindProcess || k == KindPort || k.isFile() }

// isFile says whether the subject of such a finding is a path.
func (k Kind) isFile() bool { return k == KindFile || k == KindConfig || k == KindPackage }

// State is a device: either what it should be, or what it is. Both have one type so that they can be compared,
// and so that one device can be compared with another. A State that was handed over is never changed.
type State struct {
	// Files by path, relative to the device's root, with slashes, in the form that path.Clean gives.
	Files     map[string]File `json:"files,omitempty"`
	Processes []Process       `json:"processes,omitempty"`
	Ports     []Port          `json:"ports,omitempty"`

	// The rest is declaration; it is empty in a live state.

	Exact  Exact         `json:"exact,omitzero"`   // where more than what is declared is a finding too
	Ignore []Ignore      `json:"ignore,omitempty"` // what is not compared
	Holds  []Hold        `json:"holds,omitempty"`  // what must not be repaired now, and why
	Orders []Order       `json:"orders,omitempty"` // what somebody asked to have repaired
	Modes  map[Kind]Mode `json:"modes,omitempty"`  // overrides Config.Mode and Config.Modes

	// Coverage says what a live state does not see. Empty, the state is taken to be complete.
	Coverage []Coverage `json:"coverage,omitempty"`
}

// FileType tells a regular file from what else may be at a path.
type FileType string

const (
	Regular FileType = ""
	Link    FileType = "link"    // a symbolic link
	Dir     FileType = "dir"     // a directory
	Absent  FileType = "absent"  // nothing may be there (declared)
	Special FileType = "special" // a device, socket or pipe (live only)
	Outside FileType = "outside" // the path leaves the root through a symbolic link (live only)
)

// File is one path.
type File struct {
	Kind   Kind     `json:"kind,omitempty"`   // KindFile by default
	Type   FileType `json:"type,omitempty"`   // Regular by default
	Digest string   `json:"digest,omitempty"` // "sha256:" and 64 hex digits, the prefix may be missing; empty: content is not compared
	Size   int64    `json:"size,omitempty"`   // for people; the digest decides
	Mode   Perm     `json:"mode,omitempty"`   // permission bits; 0: not compared
	Link   string   `json:"link,omitempty"`   // target of a symbolic link
	Source string   `json:"source,omitempty"` // declared: where the Repairer finds the content; never compared
	// PerDevice says that the content is rendered for the device: Peers does not compare it, Compare does.
	PerDevice bool `json:"per_device,omitempty"`
}

// kind is the file's kind with its default.
func (f File) kind() Kind {
	if f.Kind == "" {
		return KindFile
	}
	return f.Kind
}

// fileType is the file's type with its default.
func (f File) fileType() FileType {
	if f.Type == Regular && f.Link != "" {
		return Link
	}
	return f.Type
}

// Process is, in a declaration, a process that must run; in a live state, one that runs. A live process with a name
// answers to the declared one of that name, and what its lister does not know of it (Exe, Argv) is not compared; one
// without answers to the first that it fits.
type Process struct {
	Name string `json:"name"` // declared: the subject of its findings. Live: the supervisor's name for it, or empty
	// Exe is the executable. Declared with a slash it must equal the live path, which is relative to the root
	// where it lies under it and has all links resolved; without a slash only the last element counts; empty, any
	// will do.
	Exe string `json:"exe,omitempty"`
	// Argv holds the arguments. Those declared must all occur among the live ones, in order; others may stand
	// between them. The first is compared by its last element if it is declared without a slash.
	Argv      []string  `json:"argv,omitempty"`
	Count     int       `json:"count,omitempty"`      // declared: how many, 1 by default. Live: 1
	PerDevice bool      `json:"per_device,omitempty"` // Peers does not compare the arguments
	PID       int       `json:"pid,omitempty"`        // live
	Started   time.Time `json:"started,omitzero"`     // live
	Stopped   bool      `json:"stopped,omitempty"`    // live: a signal or a debugger has stopped it, so that it gets nowhere
}

// Port is a listening port.
type Port struct {
	Proto   string `json:"proto,omitempty"`   // "tcp" (default) or "udp"
	Addr    string `json:"addr,omitempty"`    // IP address. Declared empty: the device's own, or all of them
	Port    int    `json:"port"`              // 1 to 65535
	Process string `json:"process,omitempty"` // declared: the process that should listen, "" for any. Live: the listener's name
	PID     int    `json:"pid,omitempty"`     // live, 0 if not known
	Exe     string `json:"exe,omitempty"`     // live, "" if not known
}

func (p Port) proto() string {
	if p.Proto == "" {
		return "tcp"
	}
	return p.Proto
}

// subject is the name under which the port's findings go: "tcp/8080".
func (p Port) subject() string { return p.proto() + "/" + strconv.Itoa(p.Port) }

// Exact names where nothing may be but what is declared.
type Exact struct {
	Dirs      []string `json:"dirs,omitempty"`      // directories, with all below them
	Processes bool     `json:"processes,omitempty"` // every live process must match a declared one
	Ports     bool     `json:"ports,omitempty"`     // every listening port must be declared
}

// Ignore is a declaration of what is not compared. All the fields that are set must fit.
type Ignore struct {
	Kind    Kind   `json:"kind,omitempty"`    // empty: any
	Subject string `json:"subject,omitempty"` // a path.Match pattern, or a path ending in "/..." for all below it; empty: any
	Field   string `json:"field,omitempty"`   // "content", "mode", ...: only this difference; empty: any
	Reason  string `json:"reason,omitempty"`
}

// Hold keeps repairs back; findings are reported as before, with the hold's verdict.
type Hold struct {
	Kind    Kind      `json:"kind,omitempty"`    // empty: any
	Subject string    `json:"subject,omitempty"` // as in Ignore; empty: any
	Verdict Verdict   `json:"verdict,omitempty"` // Deploying by default
	Reason  string    `json:"reason,omitempty"`
	By      string    `json:"by,omitempty"`
	Until   time.Time `json:"until,omitzero"` // zero: until it is taken away
}

// Order asks for one repair, whatever the mode and whether or not the finding was escalated. The agent serves an
// ID once. Rate limit and holds still count.
type Order struct {
	ID      string `json:"id"`
	Kind    Kind   `json:"kind"`
	Subject string `json:"subject"`
	By      string `json:"by,omitempty"`
	Reason  string `json:"reason,omitempty"`

	// Anew asks for no repair: the agent forgets what it learnt of the subject, that repairing was given up included, and
	// from then on does what its mode says.
	Anew bool `json:"anew,omitempty"`
}

// Mode is what is done about a finding.
type Mode string

const (
	Observe Mode = "observe" // report it (default)
	Repair  Mode = "repair"  // report it, then repair it
)

func (m Mode) valid() bool { return m == "" || m == Observe || m == Repair }

// Perm holds permission bits as chmod counts them, setuid, setgid and sticky included. In JSON it is a string of
// octal digits, "0644"; a number is read as the bits themselves.
type Perm uint32

// PermOf takes the permission bits from a mode of package fs.
func PermOf(mode fs.FileMode) Perm {
	p := Perm(mode.Perm())
	for bit, with := range map[Perm]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if mode&with != 0 {
			p |= bit
		}
	}
	return p
}

// FileMode is the inverse of PermOf.
func (p Perm) FileMode() fs.FileMode {
	mode := fs.FileMode(p & 0o777)
	if p&0o4000 != 0 {
		mode |= fs.ModeSetuid
	}
	if p&0o2000 != 0 {
		mode |= fs.ModeSetgid
	}
	if p&0o1000 != 0 {
		mode |= fs.ModeSticky
	}
	return mode
}

func (p Perm) String() string { return fmt.Sprintf("%04o", uint32(p)) }

// MarshalJSON implements json.Marshaler.
func (p Perm) MarshalJSON() ([]byte, error) { return json.Marshal(p.String()) }

// UnmarshalJSON implements json.Unmarshaler.
func (p *Perm) UnmarshalJSON(data []byte) error {
	var number uint32
	if json.Unmarshal(data, &number) == nil {
		if number > 0o7777 {
			return fmt.Errorf("drift: mode %d has bits beyond 07777; write it as a string of octal digits, \"0644\"", number)
		}
		*p = Perm(number)
		return nil
	}
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return fmt.Errorf("drift: mode %s is neither a number nor a string of octal digits", data)
	}
	bits, err := strconv.ParseUint(strings.TrimPrefix(text, "0o"), 8, 32)
	if err != nil || bits > 0o7777 {
		return fmt.Errorf("drift: mode %q is not a string of up to five octal digits such as \"0644\"", text)
	}
	*p = Perm(bits)
	return nil
}

// Digest is the digest of content in the form that File.Digest has.
func Digest(content []byte) string {
	sum := sha256.Sum256(content)
	return digestOf(sum[:])
}

func digestOf(sum []byte) string { return "sha256:" + hex.EncodeToString(sum) }
