package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/cmdb/memstore"
)

// cmdbApply measures how a whole fleet comes into an empty CMDB: planned from one YAML document, and applied at once.
func (s *suite) cmdbApply(ctx context.Context, objects []cmdb.Object) (err error) {
	s.Progress("cmdb: plan and apply the whole fleet")
	declared := make([]cmdb.Object, len(objects))
	rows := make(map[string][]byte, len(objects))
	for i, o := range objects {
		if d, ok := o.(*cmdb.Device); ok { // as a document declares it
			o = &cmdb.Device{Name: d.Name, Addr: d.Addr, Site: d.Site, Type: d.Type, State: cmdb.Idle}
		}
		declared[i] = o
	}
	text, err := cmdb.YAML(declared...)
	if err != nil {
		return err
	}
	began := time.Now()
	for decoder := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var node yaml.Node
		if err := decoder.Decode(&node); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
	}
	parsed := time.Since(began)

	db, err := cmdb.New(cmdb.Config{Store: memstore.New()})
	if err != nil {
		return err
	}
	stop := background(ctx, db.Run)
	defer func() { err = errors.Join(err, stop()) }()
	if err := db.Ready(ctx); err != nil {
		return err
	}
	began = time.Now()
	plan, err := db.Plan(ctx, cmdb.Documents(text))
	if err != nil {
		return err
	}
	planned := time.Since(began)
	began = time.Now()
	if _, err := db.Apply(ctx, plan, cmdb.By("bench")); err != nil {
		return err
	}
	applied := time.Since(began)

	began = time.Now()
	for _, o := range declared {
		if rows["live/"+o.Ref().String()], err = json.Marshal(o); err != nil {
			return err
		}
	}
	if err := fill(ctx, memstore.New(), rows, 100); err != nil {
		return err
	}
	written := time.Since(began)
	size := fmt.Sprintf("%d objects", len(objects))
	s.add("cmdb.plan-fleet", planned.Seconds(), "s", parsed.Seconds(), "parse the same YAML, "+size+", and look at nothing")
	s.add("cmdb.apply-fleet", applied.Seconds(), "s", written.Seconds(), "encode the same rows and commit them by the hundred: no plan, not at once, nobody reads them")
	return nil
}
