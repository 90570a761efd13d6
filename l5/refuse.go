package l5

import "errors"

// refusal is why a call got no route.
type refusal uint8

const (
	refusedUnknown    refusal = iota // the name service had not answered when the context ended
	refusedDenied                    // no grant
	refusedNoInstance                // nobody takes calls
	refusedOverloaded                // Config.MaxInFlight
	refusals
)

// refusalNames are the values of the label "reason" and the keys of Explanation.Refused.
var refusalNames = [refusals]string{"unknown", "denied", "no_instance", "overloaded"}

// refuse counts a call that gets no route, tells of it and returns err.
func (s *service) refuse(why refusal, err error) error {
	s.refused[why].Add(1)
	if observer := s.client.config.Observer; observer != nil {
		observer.Refused(s.name, refusalNames[why], err)
	}
	return err
}

// reasonOf tells why picks lead nowhere.
func reasonOf(err error) refusal {
	if errors.Is(err, ErrDenied) {
		return refusedDenied
	}
	return refusedNoInstance
}
