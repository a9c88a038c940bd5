//go:build !nopeers

package main

import (
	"path/filepath"
	"testing"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// TestGuardOTel: its pools are not those that the other guards are watched by.
func TestGuardOTel(t *testing.T) {
	open, stop, err := startGuardOTel()
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	before := tracker.Default().Stats().Created
	db, err := open("file:" + filepath.Join(t.TempDir(), "db") + "?_journal_mode=WAL")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Ping(); err != nil {
		t.Error(err)
	}
	if n := tracker.Default().Stats().Created - before; n != 0 {
		t.Errorf("%d connections of the default tracker", n)
	}
}
