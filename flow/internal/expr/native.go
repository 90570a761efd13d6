package expr

import (
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"time"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// native turns a CEL value into the form that Decode yields. What was handed in comes back as it is, not copied: nobody changes it.
func native(value ref.Val) (any, error) {
	room := maxValue
	return unfold(value, &room)
}

// unfold takes the room, in bytes about, that the value needs: one made by doubling is small until then.
func unfold(value ref.Val, room *int) (any, error) {
	if *room -= 32; *room < 0 {
		return nil, ErrCost
	}
	switch v := value.(type) {
	case types.Null:
		return nil, nil
	case types.Bool:
		return bool(v), nil
	case types.Int:
		return int64(v), nil
	case types.Uint:
		return int64(v), nil
	case types.Double:
		return float64(v), nil
	case types.String:
		*room -= len(v)
		return string(v), nil
	case types.Bytes:
		*room -= len(v)
		return base64.StdEncoding.EncodeToString(v), nil
	case types.Duration:
		return v.Duration.String(), nil
	case types.Timestamp:
		return v.Time.Format(time.RFC3339Nano), nil
	case traits.Mapper:
		if whole, ok := v.Value().(map[string]any); ok && !slices.ContainsFunc(slices.Collect(maps.Values(whole)), made) {
			return whole, nil // as it was handed in
		}
		*room -= 256
		out := map[string]any{}
		for it := v.Iterator(); it.HasNext() == types.True; {
			key := it.Next()
			name, ok := key.(types.String)
			if !ok {
				return nil, fmt.Errorf("a map's key is %v of type %s; JSON wants text", key.Value(), key.Type())
			}
			item, err := unfold(v.Get(key), room)
			if err != nil {
				return nil, err
			}
			out[string(name)] = item
		}
		return out, nil
	case traits.Lister:
		if whole, ok := v.Value().([]any); ok && !slices.ContainsFunc(whole, made) {
			return whole, nil // as it was handed in
		}
		out := []any{}
		for it := v.Iterator(); it.HasNext() == types.True; {
			item, err := unfold(it.Next(), room)
			if err != nil {
				return nil, err
			}
			out = append(out, item)
		}
		return out, nil
	case *types.Err:
		return nil, v
	}
	return nil, fmt.Errorf("a value of type %s has no JSON form", value.Type())
}

// made reports whether a value was made by CEL.
func made(value any) bool {
	_, is := value.(ref.Val)
	return is
}
