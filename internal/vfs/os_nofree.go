//go:build !linux && !darwin && !windows

package vfs

import "errors"

func free(string) (int64, error) { return 0, errors.ErrUnsupported }
