// Package drift keeps a device as it is declared to be: it compares files, processes and listening ports with the
// declaration, says what differs, and, where it is told to, has it repaired.
package drift
