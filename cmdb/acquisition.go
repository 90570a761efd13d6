package cmdb

import (
	"net/url"
	"strings"
	"time"
)

// Acquisition remembers which devices an Acquire took, so that the same request again gets the same ones. The
// DB writes it; documents do not.
type Acquisition struct {
	Name    string    `json:"name"`
	Owner   string    `json:"owner"`
	Key     string    `json:"key"`
	Asked   string    `json:"asked"` // fingerprint of the request
	Devices []string  `json:"devices"`
	At      time.Time `json:"at"`
	Ended   time.Time `json:"ended,omitzero"` // when a device of it went back
	Meta    Meta      `json:"meta,omitzero"`
}

func acquisitionName(owner, key string) string {
	return url.PathEscape(owner) + "/" + url.PathEscape(key)
}

// ownAcquisition tells whether a name is of an acquisition of owner.
func ownAcquisition(name, owner string) bool {
	return strings.HasPrefix(name, url.PathEscape(owner)+"/")
}

// Ref implements Object.
func (a *Acquisition) Ref() Ref { return Ref{KindAcquisition, a.Name} }

// Metadata implements Object.
func (a *Acquisition) Metadata() Meta { return a.Meta }

func (a *Acquisition) meta() *Meta    { return &a.Meta }
func (a *Acquisition) copied() Object { c := *a; return &c }
