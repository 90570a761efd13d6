package limit

// Reason says which guard refused a call.
type Reason uint8

// The reasons.
const (
	Admitted     Reason = iota
	Throttled           // the callee takes only part of what is asked for
	AtLimit             // as many calls to the service are in flight as its limit allows
	InstanceFull        // the instances chosen carry as many calls as they may
	TooLate             // the deadline cannot be met
	BudgetSpent         // a retry or hedge that the budget does not pay for
	reasons
)

// Reasons is how many reasons there are.
const Reasons = int(reasons)

// String returns the reason as metrics name it.
func (r Reason) String() string {
	return [...]string{"admitted", "throttled", "at_limit", "instance_full", "too_late", "budget_spent"}[min(r, reasons-1)]
}
