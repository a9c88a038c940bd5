//go:build !linux

package proclocks

import "errors"

// Held returns an error: this system has no list of locks.
func Held(File) ([]Lock, error) { return nil, errors.ErrUnsupported }

// Self returns 0.
func Self() int { return 0 }

// Command returns "".
func Command(int) string { return "" }
