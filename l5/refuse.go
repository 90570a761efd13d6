package l5

import (
	"errors"

	"github.com/zhiyun-ops/zhiyun/l5/limit"
)

// refusal is why a call got no route.
type refusal uint8

const (
	refusedUnknown    refusal = iota // the name service had not answered when the context ended
	refusedDenied                    // no grant
	refusedNoInstance                // nobody takes calls
	refusedThrottled                 // limit.Throttled
	refusedAtLimit                   // limit.AtLimit
	refusedFull                      // limit.InstanceFull
	refusedTooLate                   // limit.TooLate
	refusals
)

// refusalNames are the values of the label "reason" and the keys of Explanation.Refused.
var refusalNames = [refusals]string{
	"unknown", "denied", "no_instance", limit.Throttled.String(), limit.AtLimit.String(), limit.InstanceFull.String(), limit.TooLate.String(),
}

// errFull says that the instances drawn carry as many calls as they may. It does not leave the package.
var errFull = errors.New("full")

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

// refusalOf is the refusal for a guard's reason.
func refusalOf(reason limit.Reason) refusal {
	switch reason {
	case limit.Throttled:
		return refusedThrottled
	case limit.AtLimit:
		return refusedAtLimit
	case limit.TooLate:
		return refusedTooLate
	}
	return refusedFull
}
