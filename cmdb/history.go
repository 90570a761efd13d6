package cmdb

import (
	"context"
	"encoding/json"
	"fmt"
)

// History returns the changes of one object that are kept, oldest first. An object that was deleted still has
// its history. ErrNotFound says that there never was such an object.
func (db *DB) History(ctx context.Context, kind Kind, name string) ([]Change, error) {
	if _, err := newObject(kind); err != nil {
		return nil, err
	}
	ref := Ref{kind, name}
	records, _, err := db.store.List(ctx, "history/"+ref.String()+"/")
	if err != nil {
		return nil, fmt.Errorf("cmdb: history of %s: %w", ref, err)
	}
	changes := make([]Change, len(records))
	for i, record := range records {
		if err := json.Unmarshal(record.Value, &changes[i]); err != nil {
			return nil, fmt.Errorf("cmdb: history of %s: record %q: %w", ref, record.Key, err)
		}
	}
	if len(changes) == 0 {
		return nil, fmt.Errorf("%w: no history of %s", ErrNotFound, ref)
	}
	return changes, nil
}
