//go:build !linux && !darwin

package peer

import "errors"

func of(int) (Credentials, error) { return Credentials{}, errors.ErrUnsupported }
