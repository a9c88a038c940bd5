//go:build cgo

package leakguard_test

import (
	"database/sql"
	"fmt"
	"strings"

	"github.com/mattn/go-sqlite3"
)

// Transactions that the program itself ends, or that go on, while it has the raw
// connection: the guard sees none of it happen and takes none of them for aborted.
func init() {
	for _, begin := range []string{"tx", "text", "raw"} {
		for name, texts := range map[string]string{
			"nothing":                  "",
			"reads":                    "SELECT count(*) FROM t",
			"writes":                   "INSERT INTO t VALUES (50, 'raw')",
			"savepoint":                "SAVEPOINT s; INSERT INTO t VALUES (50, 'raw'); ROLLBACK TO s; RELEASE s",
			"fails and goes on":        "INSERT INTO t VALUES (1, 'dup')",
			"fails, another goes well": "INSERT INTO t VALUES (1, 'dup')|SELECT 1",
			"commits":                  "COMMIT",
			"writes and commits":       "INSERT INTO t VALUES (50, 'raw'); COMMIT",
			"commits and fails":        "COMMIT|INSERT INTO t VALUES (1, 'dup')",
			"commits and begins":       "COMMIT; BEGIN; INSERT INTO t VALUES (50, 'raw')",
			"commits and again":        "COMMIT; BEGIN; INSERT INTO t VALUES (50, 'raw'); ROLLBACK",
			"commits and attaches":     "COMMIT; ATTACH ':memory:' AS other",
			"rolls back":               "ROLLBACK",
			"rolls back and tries":     "ROLLBACK|SELECT nothing",
			"rolls back and begins":    "ROLLBACK; BEGIN",
			"rolls back, then writes":  "ROLLBACK; INSERT INTO t VALUES (50, 'raw')",
		} {
			for _, wrote := range []bool{true, false} {
				if begin == "tx" && (wrote && (name == "rolls back" || name == "rolls back and tries") || !wrote && name == "commits and fails") {
					continue // a sql.Tx whose transaction is gone can end in an error only
				}
				scenario := diffScenario{
					name: fmt.Sprintf("raw in a transaction by %s, written %v: %s", begin, wrote, name),
					on:   "file wal memory", one: true,
					run: func(r *diffRec, db *sql.DB) { diffRawInTx(r, db, begin, texts, wrote) },
				}
				diffScenarios = append(diffScenarios, scenario)
			}
		}
	}
}

func diffRawInTx(r *diffRec, db *sql.DB, begin, texts string, wrote bool) {
	diffFilled(r, db)
	c := r.connection(db)
	raw := func(texts string) {
		r.err("raw", r.raw(c, func(sc *sqlite3.SQLiteConn) error {
			for text := range strings.SplitSeq(texts, "|") {
				_, err := sc.Exec(text, nil)
				r.err("raw "+text, err)
			}
			r.note("autocommit %v", sc.AutoCommit())
			return nil
		}))
	}
	q := diffQuerier(c)
	var tx *sql.Tx
	switch begin {
	case "tx":
		tx = r.tx(c)
		q = tx
	case "text":
		r.must(c, "BEGIN")
	case "raw":
		raw("BEGIN")
	}
	if wrote {
		r.exec(q, "INSERT INTO t VALUES (10, 'first')")
	} else {
		r.query(q, "SELECT count(*) FROM t")
	}
	raw(texts)
	raw("") // and once more, before anything else is run
	r.exec(q, "INSERT INTO t VALUES (11, 'second')")
	s := r.prepare(q, "INSERT INTO t VALUES (?, 'prepared')")
	r.stmtExec(s, 12)
	r.err("close prepared", s.Close())
	r.query(q, "SELECT * FROM t ORDER BY 1")
	if tx != nil {
		r.err("commit", tx.Commit())
	} else {
		r.exec(q, "COMMIT")
	}
	r.err("close", c.Close())
	r.query(db, "SELECT * FROM t ORDER BY 1")
	r.exec(db, "INSERT INTO t VALUES (13, 'third')")
}
