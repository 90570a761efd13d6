// Package rule decides which instances of a service a call may go to, and in what proportion, before health and load
// decide among them. It is pure: no clock, no I/O, nothing global.
//
// Rules are a document that the operator of a service writes:
//
//	{
//	  "locality": {"prefer": "site"},
//	  "subset": 50,
//	  "routes": [
//	    {"name": "testers", "match": {"labels": {"user": ["tester"]}}, "to": [{"select": {"version": "v2"}}], "fallback": "fail"},
//	    {"name": "lanes",   "match": {"caller_labels": {"lane": ["*"]}}, "to": [{"select": {"lane": "@caller"}}]},
//	    {"name": "canary",  "match": {"callers": ["shop.web"]},
//	     "to": [{"select": {"version": "v2"}, "weight": 5}, {"select": {"version": "v1"}, "weight": 95}]}
//	  ],
//	  "isolate": {"10.0.0.7:8080": "heap dump under way, ask li.wei"}
//	}
//
// The first route whose match holds decides; without one, all instances are candidates. What is known of the caller
// (module, labels, device, site, city) is matched once, by Compile; what only the call knows, its labels, by Table.Class,
// without allocation. Each class has a Layout of candidates that is made when rules or instances change, and whose
// weights follow health.
//
// # Order
//
// Factors multiply in this order: isolation, the route's selection and split, locality (Locality), and within each level
// the subset. Nothing of it is evaluated on a call.
package rule
