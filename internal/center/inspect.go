package center

import (
	"context"
	"time"
)

// Inspections keeps which devices are to be compared with their declaration though they are not in service yet, as a
// test before they are.
type Inspections struct {
	shelf shelf[Inspection]
	now   func() time.Time
}

// Inspection is one such device.
type Inspection struct {
	Device string    `json:"device"`
	Until  time.Time `json:"until"`
	Actor  string    `json:"actor"`
}

// MaxInspection bounds an inspection.
const MaxInspection = time.Hour

// Begin has a device compared until a time. A second one extends the first.
func (i *Inspections) Begin(ctx context.Context, device string, until time.Time, actor string) error {
	now := i.now()
	if err := firstOf(checkName("device", device), checkActor(actor)); err != nil {
		return err
	}
	if !until.After(now) || until.Sub(now) > MaxInspection {
		return fault("until", until.Format(time.RFC3339), "give a time within %v from now", MaxInspection)
	}
	_, _, err := i.shelf.change(ctx, device, func(old Inspection, exists bool) (Inspection, verdict, error) {
		if exists && !old.Until.Before(until) {
			return old, keep, nil
		}
		return Inspection{device, until.UTC(), actor}, write, nil
	})
	return err
}

// Of says whether a device is being inspected.
func (i *Inspections) Of(ctx context.Context, device string) (bool, error) {
	one, exists, err := i.shelf.get(ctx, device)
	return exists && i.now().Before(one.value.Until), err
}

// End ends the inspection of a device. Nothing happens if there is none.
func (i *Inspections) End(ctx context.Context, device string) error {
	_, _, err := i.shelf.change(ctx, device, func(old Inspection, _ bool) (Inspection, verdict, error) { return old, remove, nil })
	return err
}
