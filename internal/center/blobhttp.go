package center

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"
)

// BlobPath is where Handler is to be mounted.
const BlobPath = "/blobs/sha256/"

// Handler serves the blobs: GET and HEAD /blobs/sha256/HEX (ranges work), and PUT of content that has that
// digest. Who may call it is decided in front of it.
func (b *Blobs) Handler() (string, http.Handler) {
	return BlobPath, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		digits := r.URL.Path[min(len(BlobPath), len(r.URL.Path)):]
		switch r.Method {
		case http.MethodGet, http.MethodHead:
			content, _, err := b.Open(r.Context(), digits)
			if err != nil {
				refuse(w, err)
				return
			}
			defer content.Close()
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Header().Set("Cache-Control", "private, immutable, max-age=31536000")
			w.Header().Set("ETag", `"`+digits+`"`)
			http.ServeContent(w, r, "", time.Time{}, content)
		case http.MethodPut:
			digest, size, err := b.Put(r.Context(), http.MaxBytesReader(w, r.Body, b.most+1), digits)
			if err != nil {
				refuse(w, err)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusCreated)
			_ = json.NewEncoder(w).Encode(struct {
				Digest string `json:"digest"`
				Size   int64  `json:"size"`
			}{digest, size})
		default:
			w.Header().Set("Allow", "GET, HEAD, PUT")
			http.Error(w, "use GET, HEAD or PUT", http.StatusMethodNotAllowed)
		}
	})
}

func refuse(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	switch {
	case errors.Is(err, ErrInvalid):
		status = http.StatusBadRequest
	case errors.Is(err, ErrNotFound):
		status = http.StatusNotFound
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		status = http.StatusRequestTimeout
	}
	http.Error(w, err.Error(), status)
}
