package leakguard

import (
	"database/sql"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// What the guard closes is closed, and what sql.DB says is open is: no handle
// lingers for which there is no connection.
func TestNoHandleWithoutAConnection(t *testing.T) {
	for name, size := range map[string]func(db *sql.DB){
		"none idle": func(db *sql.DB) { db.SetMaxIdleConns(-1) },
		"one":       func(db *sql.DB) { db.SetMaxOpenConns(1) },
		"default":   func(*sql.DB) {},
	} {
		for limit := range identityLimits {
			for _, expire := range []tracker.Expiry{tracker.Refresh, tracker.Close} {
				for _, mode := range []tracker.Mode{tracker.Enforce, tracker.Basic} {
					t.Run(name+"/"+limit+"/"+expire.String()+"/"+mode.String(), func(t *testing.T) {
						bubble(t, func(t *testing.T) {
							policy, tr := limited(limit)
							policy.Expire = expire
							g := open(t, Config{DSN: fileDSN(t, "_synchronous=OFF"), Policy: policy, Tracker: tr, Mode: mode})
							size(g.DB)
							file := fileOf(g.dsn)
							for i := range 6 {
								run(t, g, "CREATE TABLE IF NOT EXISTS t(a)", "INSERT INTO t VALUES(1)")
								number(t, g, "SELECT count(*) FROM t")
								if i%2 == 0 {
									sleep(time.Second)
								}
								if n := g.Stats().OpenConnections; n == 0 {
									if left := descriptors(t, file); len(left) > 0 {
										t.Fatalf("sql.DB has no connection, and yet are open: %v", left)
									}
									// Whoever needs the file for himself can have it.
									if got := g.outsideText(t, "PRAGMA journal_mode=DELETE"); got != "delete" {
										t.Fatalf("journal_mode: %s", got)
									}
								}
							}
							wantErr(t, "Close", g.Close(), nil)
							if left := descriptors(t, file); len(left) > 0 {
								t.Errorf("still open: %v", left)
							}
						})
					})
				}
			}
		}
	}
}

// outsideText is outside for a query that returns a text.
func (g *guarded) outsideText(t *testing.T, query string) (text string) {
	t.Helper()
	db, err := sql.Open("sqlite3", g.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRow(query).Scan(&text); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return text
}
