package wiring

import (
	"context"

	"github.com/zhiyun-ops/zhiyun/cmdb"
)

// DriftFleet tells drift's ledger which module a device serves.
type DriftFleet struct{ CMDB *cmdb.DB }

// Module implements drift.Fleet.
func (f DriftFleet) Module(_ context.Context, device string) (string, int, error) {
	d, err := f.CMDB.Device(device)
	if err != nil || d.State != cmdb.InService {
		return "", 0, nil // a device that is not known, or serves nobody, has no module
	}
	return d.Module, len(f.CMDB.Devices(cmdb.DeviceFilter{Module: d.Module, State: cmdb.InService})), nil
}
