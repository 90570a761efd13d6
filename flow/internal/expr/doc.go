// Package expr compiles and evaluates the expressions of a flow. The language is CEL: typed, without loops
// that could run for ever, and without access to anything but the variables it is given. Types come from JSON
// Schemas, so that a misspelt field of a tool's output is found when a flow is saved.
package expr
