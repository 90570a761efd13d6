// Package l5test runs a whole l5 in a test: a server, agents and clients in one process, joined by real unix sockets,
// with the faults that networks have: a server that is stopped and started again, a connection that is cut, a peer that
// stalls.
package l5test
