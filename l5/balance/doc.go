// Package balance is the pure core of l5's choice: which instances are healthy (Group) and how often each is drawn
// (Table). It has no clock and does no I/O: everything that happens is an Event with a time, and what is to be done
// comes back as Actions, so that every decision can be replayed and explained.
package balance
