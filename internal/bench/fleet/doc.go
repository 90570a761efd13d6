// Package fleet measures a name server with real processes around it: the server in one, those who watch it in others,
// each stream on a connection of its own, from an address of its own in 127.0.0.0/8.
//
//	figures, err := fleet.Streams(ctx, fleet.StreamsConfig{Streams: 10_000, Crowds: 4})
//
// The processes are the calling program, started again: it must call Main before it does anything else.
package fleet
