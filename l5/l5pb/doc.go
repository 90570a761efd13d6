// Package l5pb is the wire format of l5: version 1 of the name service, spoken between client and agent, client
// and server, and agent and server. The handler and client made from it are in package l5pbconnect.
package l5pb

//go:generate go run -C ../../tools ./protogen ../l5/l5pb/l5.proto
