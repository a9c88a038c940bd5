//go:build cgo

package leakguard

import (
	"testing"
)

// TestTextsAndAttachedTables: a name that led to a table of an attached database
// leads to main's as soon as there is one. SQLite does not expire statements for
// that, so a kept one would go on writing into the other file.
func TestTextsAndAttachedTables(t *testing.T) {
	for name, create := range map[string]func(t *testing.T, g *guarded, on execer){
		"by itself": func(t *testing.T, g *guarded, on execer) { run(t, on, "CREATE TABLE main.x(a)") },
		"by another": func(t *testing.T, g *guarded, on execer) {
			other := open(t, Config{DSN: g.dsn})
			run(t, other, "CREATE TABLE x(a)")
			number(t, on, "SELECT count(*) FROM t") // sees that the schema has changed
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := open(t, Config{})
			c := g.conn(t)
			run(t, c, createT, "ATTACH '"+t.TempDir()+"/aux.db' AS aux", "CREATE TABLE aux.x(a)")
			const insert = "INSERT INTO x VALUES (1)"
			run(t, c, insert, insert, insert)
			create(t, g, c)
			run(t, c, insert)
			if n := number(t, c, "SELECT count(*) FROM main.x"); n != 1 {
				t.Errorf("%d rows in main.x, want 1; %d in aux.x, want 3", n, number(t, c, "SELECT count(*) FROM aux.x"))
			}
		})
	}
}
