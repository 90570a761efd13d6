// Package reconcile is the shell that the controllers share: it looks again and again at what is stored, acts, and
// holds no truth of its own. What a look does is the controller's; when there is one, what becomes of its error, and
// that the loop ends without leaving a goroutine behind, is here.
//
//	loop, err := reconcile.New(reconcile.Config{
//		Name: "gray", Interval: time.Second, Pass: c.pass,
//		Store: store, Prefix: "open/", // a change below it brings the next pass forward
//	})
//	err = loop.Run(ctx)
//
//	            +--- Interval, a change below Prefix, Wake ---+
//	            v                                             |
//	Run ----> pass ----> sweep (hourly, after a good pass) ---> wait ----> ctx ends: nil
//	            |                                             ^
//	            +-- an error: logged once, counted, kept -----+
//	            +-- ErrFenced: another controller leads, Run ends with it
package reconcile
