package tracker

import (
	"slices"
	"testing"
)

// TestWrapperFrames tells the functions of known libraries from others whose
// names begin alike.
func TestWrapperFrames(t *testing.T) {
	for function, want := range map[string]bool{
		"github.com/jmoiron/sqlx.(*DB).Queryx":                   true,
		"github.com/jmoiron/sqlx/reflectx.(*Mapper).TypeMap":     true,
		"github.com/jmoiron/sqlxtra.Query":                       false,
		"gorm.io/gorm.(*DB).Find":                                true,
		"gorm.io/driver/sqlite.Dialector.Initialize":             true,
		"gorm.iota/x.F":                                          false,
		"xorm.io/xorm.(*Session).Find":                           true,
		"entgo.io/ent/dialect/sql.Conn.Query":                    true,
		"github.com/uptrace/bun.(*SelectQuery).Scan":             true,
		"gopkg.in/DataDog/dd-trace-go.v1/contrib/database/sql.F": true,
		"gopkg.in/DataDog/dd-trace-go%2ev1.F":                    true,
		"example.com/app/gorm.io/gorm.F":                         false,
		"main.main":                                              false,
	} {
		if got := wrapperFrame(function); got != want {
			t.Errorf("wrapperFrame(%q) = %v, want %v", function, got, want)
		}
	}
}

// TestSkipPackages adds libraries, once each.
func TestSkipPackages(t *testing.T) {
	before := wrappers.Load()
	defer wrappers.Store(before)
	const f = "example.com/own/dblayer.(*Repo).List"
	if wrapperFrame(f) {
		t.Fatalf("%s is skipped already", f)
	}
	SkipPackages("example.com/own/dblayer/", "", "example.com/own/dblayer")
	if !wrapperFrame(f) || wrapperFrame("example.com/own/dblayers.F") || wrapperFrame("main.main") {
		t.Error("SkipPackages does not skip the package, or skips others")
	}
	if n := len(*wrappers.Load()) - len(*before); n != 1 {
		t.Errorf("SkipPackages added %d paths, want 1", n)
	}
	if slices.Contains(*before, "example.com/own/dblayer") {
		t.Error("SkipPackages changed a list that readers may have")
	}
}
