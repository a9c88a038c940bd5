//go:build cgo

package capi_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/capi"
)

func TestHistory(t *testing.T) {
	file := tempFile(t)
	c := open(t, file)
	d := capi.Of(c)
	want := func(when string, want capi.History) {
		t.Helper()
		if h, ok := d.History(); !ok || h != want {
			t.Errorf("%s: %+v, %v, want %+v", when, h, ok, want)
		}
	}
	want("fresh", capi.History{})
	exec(t, c, "SELECT 1")
	exec(t, c, "CREATE TABLE t (a INTEGER PRIMARY KEY)")
	want("nothing inserted", capi.History{})
	exec(t, c, "INSERT INTO t VALUES (1 << 40), (7)")
	want("inserted", capi.History{RowID: 7, Changes: 2, TotalChanges: 2})
	exec(t, c, "DELETE FROM t WHERE a = 9")
	want("deleted nothing", capi.History{RowID: 7, TotalChanges: 2})
	exec(t, c, "INSERT INTO t VALUES (1 << 41)") // 0 in 32 bits
	want("a large rowid", capi.History{RowID: 1 << 41, Changes: 1, TotalChanges: 3})
	if _, ok := (capi.DB{}).History(); ok {
		t.Error("the zero DB has a history")
	}
}

// Reopens names the file as SQLite would now, and creates, reads and locks nothing.
func TestReopens(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "a.db")
	c := open(t, file)
	exec(t, c, "PRAGMA journal_mode=WAL; CREATE TABLE t (a)")
	link := filepath.Join(dir, "link.db")
	if err := os.Symlink("a.db", link); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	exec(t, c, "PRAGMA locking_mode=EXCLUSIVE; BEGIN IMMEDIATE") // whoever reads has to wait
	for name, want := range map[string]string{
		file: file, link: file, "a.db": file, "./link.db": file, "": "",
		filepath.Join(dir, "none.db"): "", filepath.Join(dir, "none", "a.db"): "", dir: "",
	} {
		path, ok := capi.Reopens(name, false)
		if ok != (want != "") || path != want {
			t.Errorf("%q: %q, %v, want %q", name, path, ok, want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "none.db")); err == nil {
		t.Error("it was created")
	}
	if path, ok := capi.Reopens(file, true); !ok || path != file {
		t.Errorf("for reading: %q, %v", path, ok)
	}
	exec(t, c, "ROLLBACK")

	if os.Getuid() != 0 { // who opens a file that may not be written gets one for reading
		if err := os.Chmod(file, 0o400); err != nil {
			t.Fatal(err)
		}
		if path, ok := capi.Reopens(file, false); ok {
			t.Errorf("for writing: %q, which may not be written", path)
		}
	}
}
