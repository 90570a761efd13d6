package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/cmdb/memstore"
)

// fleet is the deck's, as a store holds it: devices in service, a thousandth of them idle.
func fleet(devices, modules int) ([]cmdb.Object, map[string]*cmdb.Device, map[string][]*cmdb.Device) {
	at := time.Unix(1767323045, 0).UTC()
	meta := cmdb.Meta{Version: 1, Action: "create", Actor: "bench", At: at}
	objects := []cmdb.Object{&cmdb.DeviceType{Name: "type-0", Cores: 8, Meta: meta}}
	for i := range 40 {
		objects = append(objects, &cmdb.Site{Name: fmt.Sprintf("site-%d", i), City: fmt.Sprintf("city-%d", i%10), Meta: meta})
	}
	for i := range modules {
		objects = append(objects, &cmdb.Module{
			Name: fmt.Sprintf("module-%d", i), Owner: "ops", Packages: []cmdb.PackageSpec{{Name: "server", Version: "1.2.3"}},
			Services: []cmdb.ServiceSpec{{ID: fmt.Sprintf("module-%d", i), Port: 8080, Weight: 100}},
			Scale:    cmdb.ScaleSpec{Min: 2, Max: 100, Capacity: map[string]float64{"type-0": 500}}, Meta: meta,
		})
	}
	plain, byModule := make(map[string]*cmdb.Device, devices), make(map[string][]*cmdb.Device, modules)
	for i := range devices {
		d := &cmdb.Device{
			Name: fmt.Sprintf("device-%d", i), Addr: fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255), Site: fmt.Sprintf("site-%d", i%40),
			Type: "type-0", State: cmdb.InService, Module: fmt.Sprintf("module-%d", i%modules), Since: at, Meta: meta,
		}
		if i%1000 == 1 {
			d.State, d.Module = cmdb.Idle, ""
		} else {
			byModule[d.Module] = append(byModule[d.Module], d)
		}
		plain[d.Name] = d
		objects = append(objects, d)
	}
	return objects, plain, byModule
}

// cmdb measures reads and the life cycle of devices, at the deck's scale.
func (s *suite) cmdb(ctx context.Context) (err error) {
	devices, modules := s.scaled(deckInstances), s.scaled(deckServices)
	s.Progress(fmt.Sprintf("cmdb: %d devices, %d modules", devices, modules))
	objects, plain, byModule := fleet(devices, modules)
	rows := make(map[string][]byte, len(objects))
	for _, o := range objects {
		if rows["live/"+o.Ref().String()], err = json.Marshal(o); err != nil {
			return err
		}
	}
	store := memstore.New()
	if err := fill(ctx, store, rows, 4000); err != nil {
		return err
	}
	db, err := cmdb.New(cmdb.Config{Store: store})
	if err != nil {
		return err
	}
	stop := background(ctx, db.Run)
	defer func() { err = errors.Join(err, stop()) }()
	if err := db.Ready(ctx); err != nil {
		return err
	}
	if err := s.cmdbReads(db, plain, byModule); err != nil {
		return err
	}
	if err := s.cmdbLife(ctx, db); err != nil {
		return err
	}
	return s.cmdbApply(ctx, objects)
}

func (s *suite) cmdbReads(db *cmdb.DB, plain map[string]*cmdb.Device, byModule map[string][]*cmdb.Device) error {
	names := make([]string, min(4096, len(plain)))
	for i := range names {
		names[i] = fmt.Sprintf("device-%d", i*37%len(plain))
	}
	get, err := s.each(func(i int) error {
		_, err := db.Device(names[i%len(names)])
		return err
	})
	if err != nil {
		return err
	}
	var copied cmdb.Device
	floor, err := s.each(func(i int) error {
		d := plain[names[i%len(names)]]
		if d == nil {
			return errors.New("a device is missing")
		}
		copied = *d
		return nil
	})
	if err != nil || copied.Name == "" {
		return errors.Join(err, errors.New("nothing was read"))
	}
	s.add("cmdb.get", get, "ns", floor, "a plain map of structs, no snapshots")
	module := plain["device-0"].Module
	found := 0
	list, err := s.each(func(int) error {
		found = len(db.Devices(cmdb.DeviceFilter{Module: module, State: cmdb.InService}))
		return nil
	})
	if err != nil {
		return err
	}
	if found != len(byModule[module]) {
		return fmt.Errorf("module %s has %d devices, want %d", module, found, len(byModule[module]))
	}
	floor, err = s.each(func(int) error {
		out := make([]cmdb.Device, 0, found)
		for _, d := range byModule[module] {
			if d.State == cmdb.InService {
				out = append(out, *d)
			}
		}
		if len(out) != found {
			return errors.New("devices are missing")
		}
		return nil
	})
	s.add("cmdb.devices-of-module", list, "ns", floor, "a plain map of lists of structs")
	return err
}

func (s *suite) cmdbLife(ctx context.Context, db *cmdb.DB) error {
	s.Progress("cmdb: acquire and release")
	keys := 0 // each acquisition is another one
	ours, err := s.each(func(int) error {
		keys++
		held, err := db.Acquire(ctx, cmdb.AcquireRequest{Owner: "bench", Key: fmt.Sprint("key-", keys), Module: "module-0", Count: 1, TTL: time.Hour})
		if err != nil {
			return err
		}
		_, err = db.Release(ctx, "bench", []string{held[0].Name})
		return err
	})
	if err != nil {
		return err
	}
	// Each of the two verbs writes the device and its history.
	d, err := db.Device("device-1")
	if err != nil {
		return err
	}
	beside := memstore.New()
	floor, err := s.each(func(i int) error {
		rows := make(map[string][]byte, 4)
		for _, key := range []string{"a", "b", "c", "d"} {
			value, err := json.Marshal(d)
			if err != nil {
				return err
			}
			rows[key] = value
		}
		return fill(ctx, beside, rows, 2)
	})
	s.add("cmdb.acquire-release", ours/1e3, "us", floor/1e3, "encode and commit the same rows, no checks")
	return err
}
