// Package flowbench loads a flow engine on a store, and measures beside it what the same disk and database do with nothing of ours in the way: a write and
// fdatasync per step, and a bare group commit of one row per step. It also kills an engine with executions in flight, and watches one that only waits.
//
// Kill and Idle run processes of their own: the calling program, started again. It must call Main before it does anything else.
package flowbench

// Steps is the length of the measured flow, that of an expansion.
const Steps = 23
