package transport

import (
	"net/http"
	"time"
)

// NewServerWithin is NewServer with another bound for bodies.
func NewServerWithin(handler http.Handler, body time.Duration) *Server {
	return newServer(handler, body)
}
