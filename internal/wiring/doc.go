// Package wiring joins the packages: each adapter here fulfils an interface that one package declares with what
// another offers. The packages themselves know nothing of one another. Examples/loop shows the same joints in
// the form an embedder would write.
//
//	gray.Weights      <- l5/server   Weights
//	gray.Outcomes     <- records     Outcomes
//	scale.Modules     <- cmdb, l5    Fleet
//	scale.Candidates  <- cmdb        Fleet
//	scale.Metrics     <- records     Load
//	scale.Launcher    <- flow        Launcher
//	l5/server.Sink    <- records     Sink
//	l5/server.Grants  <- center      (center.Permissions as it is)
//	cmdb, flow        <- one another: Holds gives back what executions that are over left held
//	drift.Desired     <- cmdb, center through the control API
//	drift.Repairer    <- the device's tools and supervisor
package wiring
