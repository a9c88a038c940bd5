package leakguard

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// identityProgram is a random program over sql.DB that is correct over go-sqlite3: it
// relies on nothing but what its answers are determined by.
type identityProgram struct {
	seed, index      uint64
	journal          string // "WAL", "DELETE", "memory" or "shared memory"
	kind             identityKind
	lanes            [][]identityOp // what each goroutine does
	pools            int            // sql.DB on the one Connector, where kind is soloKind
	maxOpen, maxIdle int            // as database/sql takes them, -2 where nothing is set
	mode             tracker.Mode
	limits           string // a key of identityLimits
}

// identityKind says what the goroutines of a program have of their own, and with
// that which of their answers go-sqlite3 determines. database/sql's free
// connections are a stack, so who uses a sql.DB alone knows which one it gets.
type identityKind int

const (
	// soloKind: one goroutine. Everything is determined.
	soloKind identityKind = iota
	// fileKind: each goroutine has a database file and a sql.DB. Everything is
	// determined; the guard's goroutines have several pools at once.
	fileKind
	// poolKind: each has a sql.DB of its own on one Connector, hence one file.
	// Everything is determined but data_version, which the others change.
	poolKind
	// connKind: each has a sql.Conn of one sql.DB. As poolKind.
	connKind
	// togetherKind: all use one sql.DB. Determined are results and rows, and of the
	// history what was written under the same lease.
	togetherKind
)

var identityKindNames = [...]string{"alone", "each with a file", "each with a sql.DB of one Connector", "each with a sql.Conn", "together on one sql.DB"}

// identityOp is one call. Slots are small numbers: a call on an empty one, and one that
// would wait for a connection that this goroutine itself holds, is left out, so
// that a program stays one whatever is taken out of it.
type identityOp struct {
	do   string // exec, read, version, open, next, close, prepare, forget, conn, release, begin, commit, rollback, idle, ping, max idle, max open, close db
	on   string // db0, db1, conn0, conn1, tx0, tx1, stmt0 to stmt2
	slot int
	n    int // argument, milliseconds, limit
	text string
}

const (
	rowSlots, connSlots, txSlots, stmtSlots = 3, 2, 2, 3
	notSet                                  = -2
)

// identityLimits are what passes while a program runs.
var identityLimits = map[string]func(p *tracker.Policy){
	"max_idle":     func(p *tracker.Policy) { p.MaxIdle = 1e6 },
	"max_lifetime": func(p *tracker.Policy) { p.MaxLifetime = 1e6 },
	"max_access":   func(p *tracker.Policy) { p.MaxAccess = 1 },
	"conn_memory":  func(p *tracker.Policy) { p.ConnMemory, p.LeakMemory = 1, 1 },
	"pressure":     func(p *tracker.Policy) { p.Pressure = 0.5 },
	"all": func(p *tracker.Policy) {
		p.MaxIdle, p.MaxLifetime, p.MaxAccess, p.ConnMemory, p.LeakMemory, p.Pressure = 1e6, 1e6, 1, 1, 1, 0.5
	},
}

// newIdentityProgram returns the program that a seed stands for.
func newIdentityProgram(seed, index uint64) *identityProgram {
	r := rand.New(rand.NewPCG(seed, index))
	p := &identityProgram{seed: seed, index: index, journal: "WAL", pools: 1, maxOpen: notSet, maxIdle: notSet}
	if r.IntN(8) >= 5 {
		p.kind = identityKind(1 + r.IntN(4))
	}
	p.mode = pickOne(r, tracker.Enforce, tracker.Enforce, tracker.Enforce, tracker.Observe, tracker.Basic)
	p.limits = pickOne(r, "all", "all", "all", "max_idle", "max_lifetime", "max_access", "conn_memory", "pressure")
	switch p.kind {
	case soloKind:
		p.journal = pickOne(r, "WAL", "WAL", "DELETE", "DELETE", "memory", "shared memory")
		p.pools = pickOne(r, 1, 1, 2)
		p.maxOpen = pickOne(r, notSet, notSet, 1, 1, 2, 3)
	case fileKind:
		p.journal = pickOne(r, "WAL", "DELETE")
		p.maxOpen = pickOne(r, notSet, 1)
	case togetherKind:
		p.maxOpen = pickOne(r, notSet, 1, 2)
	}
	p.maxIdle = pickOne(r, notSet, notSet, 1, 4)
	lanes := 1
	if p.kind != soloKind {
		lanes = 2 + r.IntN(3)
	}
	for range lanes {
		w := &identityWriter{r: r, p: p, conns: p.kind != connKind}
		for n := 5 + r.IntN(45); len(w.ops) < n; {
			w.write()
		}
		p.lanes = append(p.lanes, w.ops)
	}
	return p
}

func pickOne[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// identityWriter writes what one goroutine does.
type identityWriter struct {
	r     *rand.Rand
	p     *identityProgram
	conns bool // it may take connections
	ops   []identityOp
}

func (w *identityWriter) add(o identityOp) { w.ops = append(w.ops, o) }

// Texts; T and C stand for the goroutine's tables. ? takes the op's number.
var (
	identityWrites = []string{
		"INSERT INTO T(v) VALUES('a')", "INSERT INTO T(v) VALUES(?)", "INSERT INTO T(v) VALUES(?)", "INSERT INTO T(v) VALUES('b'),('c')",
		"INSERT OR REPLACE INTO T(id, v) VALUES(?, 'set')", "INSERT OR IGNORE INTO T SELECT id, v FROM T ORDER BY id LIMIT 2",
		"UPDATE T SET v='new' WHERE id <= ?", "DELETE FROM T WHERE id = ?", "DELETE FROM T WHERE id = (SELECT max(id) FROM T)",
		"INSERT INTO T(id, v) VALUES(1, 'there already')",
	}
	// historic texts write or read what only the connection knows.
	identityHistoric = []string{
		"INSERT INTO C(parent, v) VALUES(last_insert_rowid(), ?)", "INSERT INTO C SELECT last_insert_rowid(), changes(), total_changes()",
	}
	identityHistories = []string{
		"SELECT last_insert_rowid()", "SELECT changes()", "SELECT total_changes()",
		"SELECT last_insert_rowid(), changes(), total_changes()", "SELECT 1; SELECT last_insert_rowid()",
		"SELECT max(id), last_insert_rowid() FROM T", "/* which */ select LAST_INSERT_ROWID() -- one",
		"PRAGMA database_list", "SELECT seq, name, file FROM pragma_database_list",
	}
	// Under one lease, whatever else goes on.
	identityOwnHistories = []string{
		"INSERT INTO T(v) VALUES('m'); SELECT last_insert_rowid(), changes()",
		"UPDATE T SET v='u' WHERE id <= 2; SELECT changes()",
		"INSERT INTO T(v) VALUES('r') RETURNING id, v",
	}
	identityVersions = []string{
		"PRAGMA data_version", "PRAGMA data_version", "SELECT data_version FROM pragma_data_version()", "SELECT * FROM pragma_data_version",
		"SELECT 1; PRAGMA data_version", "/* any */ pragma main.Data_Version;",
	}
	identityReads    = []string{"SELECT count(*), max(id) FROM T", "SELECT v FROM T WHERE id = ?", "SELECT id, v FROM T ORDER BY id", "SELECT * FROM C ORDER BY rowid"}
	identitySessions = []string{
		"CREATE TEMP TABLE IF NOT EXISTS x(a)", "INSERT INTO temp.x VALUES(?)", "DROP TABLE IF EXISTS temp.x",
		"ATTACH ':memory:' AS other", "CREATE TABLE IF NOT EXISTS other.y(a)", "INSERT INTO other.y VALUES(?)", "DETACH other",
		"PRAGMA cache_size=-200", "PRAGMA foreign_keys=1", "PRAGMA recursive_triggers=1",
	}
	identitySessionReads = []string{
		"SELECT count(*) FROM temp.x", "SELECT count(*) FROM other.y", "PRAGMA cache_size", "PRAGMA foreign_keys", "PRAGMA recursive_triggers",
		"SELECT count(*) FROM temp.sqlite_schema",
	}
	identityTransactions = []string{"BEGIN", "BEGIN IMMEDIATE", "COMMIT", "COMMIT", "ROLLBACK", "SAVEPOINT s", "RELEASE s", "ROLLBACK TO s"}
)

// write adds one step, of one or more calls.
func (w *identityWriter) write() {
	r, p := w.r, w.p
	if p.kind == togetherKind {
		w.writeTogether()
		return
	}
	on := w.target()
	n, slot := 1+r.IntN(6), r.IntN(rowSlots)
	switch r.IntN(22) {
	case 0, 1, 2, 3:
		w.add(identityOp{do: "exec", on: on, text: pickOne(r, identityWrites...), n: n})
	case 4, 5, 6:
		w.add(identityOp{do: "read", on: on, text: pickOne(r, identityHistories...)})
	case 7:
		w.add(identityOp{do: "exec", on: on, text: pickOne(r, identityHistoric...), n: n})
	case 8:
		w.add(identityOp{do: "read", on: on, text: pickOne(r, identityOwnHistories...)})
	case 9, 10:
		w.add(identityOp{do: "version", on: on, text: pickOne(r, identityVersions...)})
	case 11:
		w.add(identityOp{do: "read", on: on, text: pickOne(r, identityReads...), n: n})
	case 12, 13:
		w.add(identityOp{do: "idle", n: pickOne(r, 1, 1, 2, 2, 3, 15)})
	case 14: // nested
		w.add(identityOp{do: "open", on: on, slot: slot, text: pickOne(r, "SELECT id, v FROM T ORDER BY id", "SELECT value FROM json_each('[1,2,3]')")})
		w.add(identityOp{do: "next", slot: slot})
	case 15:
		w.add(identityOp{do: pickOne(r, "next", "close"), slot: slot})
	case 16:
		if w.conns {
			w.add(identityOp{do: pickOne(r, "conn", "release"), on: w.pool(), slot: r.IntN(connSlots)})
		}
	case 17:
		if r.IntN(2) == 0 {
			w.add(identityOp{do: "begin", on: w.pool(), slot: r.IntN(txSlots)})
		} else {
			w.add(identityOp{do: pickOne(r, "commit", "commit", "rollback"), slot: r.IntN(txSlots)})
		}
	case 18:
		if r.IntN(3) == 0 {
			w.add(identityOp{do: "forget", slot: r.IntN(stmtSlots)})
			return
		}
		all := slices.Concat(identityWrites, identityHistories, identityVersions[:1], identityVersions[2:4], identityReads)
		text := pickOne(r, all...)
		w.add(identityOp{do: "prepare", on: on, slot: r.IntN(stmtSlots), text: text})
	case 19:
		w.add(identityOp{do: "run", on: fmt.Sprint("stmt", r.IntN(stmtSlots)), n: n})
	case 20:
		if r.IntN(2) == 0 {
			w.add(identityOp{do: "exec", on: on, text: pickOne(r, identitySessions...), n: n})
		} else {
			w.add(identityOp{do: "read", on: on, text: pickOne(r, identitySessionReads...)})
		}
	case 21:
		switch {
		case p.kind != soloKind && p.kind != fileKind:
			w.add(identityOp{do: "ping", on: w.pool()})
		case r.IntN(2) == 0:
			w.add(identityOp{do: "exec", on: on, text: pickOne(r, identityTransactions...)})
		default:
			w.add(pickOne(r, identityOp{do: "ping", on: w.pool()}, identityOp{do: "max idle", on: w.pool(), n: pickOne(r, -1, 1, 2, 5)}, identityOp{do: "close db", on: "db1"}))
		}
	}
}

// pool returns a sql.DB, or the sql.Conn that stands for it.
func (w *identityWriter) pool() string {
	switch {
	case w.p.kind == connKind:
		return "conn0"
	case w.p.pools == 2 && w.r.IntN(3) == 0:
		return "db1"
	}
	return "db0"
}

// target returns what a text is run on.
func (w *identityWriter) target() string {
	switch w.r.IntN(5) {
	case 0:
		if w.conns {
			return fmt.Sprint("conn", w.r.IntN(connSlots))
		}
	case 1:
		return fmt.Sprint("tx", w.r.IntN(txSlots))
	}
	return w.pool()
}

// writeTogether adds a step of a goroutine that shares its sql.DB: leases one
// after the other, and what it asks for it has written itself under the same.
func (w *identityWriter) writeTogether() {
	r := w.r
	n := 1 + r.IntN(6)
	history := []string{"SELECT last_insert_rowid()", "SELECT changes()", "SELECT last_insert_rowid(), changes()"}
	inside := func(on string) {
		for range 1 + r.IntN(3) {
			w.add(identityOp{do: "exec", on: on, text: pickOne(r, identityWrites[:4]...), n: n})
			w.add(identityOp{do: "read", on: on, text: pickOne(r, history...)})
			if r.IntN(3) == 0 {
				w.add(identityOp{do: "idle", n: 1})
			}
		}
	}
	switch r.IntN(9) {
	case 0, 1:
		w.add(identityOp{do: "exec", on: "db0", text: pickOne(r, identityWrites...), n: n})
	case 2:
		w.add(identityOp{do: "read", on: "db0", text: pickOne(r, identityOwnHistories...)})
	case 3:
		w.add(identityOp{do: "read", on: "db0", text: pickOne(r, identityReads...), n: n})
	case 4:
		w.add(identityOp{do: "begin", on: "db0", slot: 0})
		inside("tx0")
		w.add(identityOp{do: pickOne(r, "commit", "commit", "rollback"), slot: 0})
	case 5:
		w.add(identityOp{do: "conn", on: "db0", slot: 0})
		inside("conn0")
		w.add(identityOp{do: "release", slot: 0})
	case 6:
		w.add(identityOp{do: "prepare", on: "db0", slot: 0, text: pickOne(r, identityWrites...)})
		w.add(identityOp{do: "run", on: "stmt0", n: n})
		w.add(identityOp{do: "run", on: "stmt0", n: n})
	case 7:
		w.add(identityOp{do: "open", on: "db0", slot: 0, text: "SELECT id, v FROM T ORDER BY id"})
		w.add(identityOp{do: "next", slot: 0})
		w.add(identityOp{do: "close", slot: 0})
	case 8:
		w.add(identityOp{do: "idle", n: pickOne(r, 1, 2, 3)})
	}
}

// String returns the program for a person.
func (p *identityProgram) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d goroutines %s, mode %v, limits %s", p.journal, len(p.lanes), identityKindNames[p.kind], p.mode, p.limits)
	if p.pools > 1 {
		fmt.Fprintf(&b, ", %d sql.DB on one Connector", p.pools)
	}
	if p.maxOpen != notSet {
		fmt.Fprintf(&b, ", SetMaxOpenConns(%d)", p.maxOpen)
	}
	if p.maxIdle != notSet {
		fmt.Fprintf(&b, ", SetMaxIdleConns(%d)", p.maxIdle)
	}
	for i, ops := range p.lanes {
		fmt.Fprintf(&b, "\n\tgoroutine %d:", i)
		for n, o := range ops {
			fmt.Fprintf(&b, "\n\t%4d  %v", n, o)
		}
	}
	return b.String()
}

// String returns the call about as Go would have it.
func (o identityOp) String() string {
	text := fmt.Sprintf("%q", o.text)
	if strings.Contains(o.text, "?") {
		text = fmt.Sprintf("%q, %d", o.text, o.n)
	}
	switch o.do {
	case "exec":
		return fmt.Sprintf("%s.Exec(%s)", o.on, text)
	case "read", "version":
		return fmt.Sprintf("%s.Query(%s), all rows", o.on, text)
	case "run":
		return fmt.Sprintf("%s run with %d", o.on, o.n)
	case "open":
		return fmt.Sprintf("rows%d := %s.Query(%s)", o.slot, o.on, text)
	case "next", "close":
		return fmt.Sprintf("rows%d.%s()", o.slot, map[string]string{"next": "Next", "close": "Close"}[o.do])
	case "prepare":
		return fmt.Sprintf("stmt%d := %s.Prepare(%q)", o.slot, o.on, o.text)
	case "forget":
		return fmt.Sprintf("stmt%d.Close()", o.slot)
	case "conn":
		return fmt.Sprintf("conn%d := %s.Conn()", o.slot, o.on)
	case "release":
		return fmt.Sprintf("conn%d.Close()", o.slot)
	case "begin":
		return fmt.Sprintf("tx%d := %s.Begin()", o.slot, o.on)
	case "commit", "rollback":
		return fmt.Sprintf("tx%d.%s()", o.slot, map[string]string{"commit": "Commit", "rollback": "Rollback"}[o.do])
	case "idle":
		return fmt.Sprintf("idle for %d ms", o.n)
	case "max idle", "max open":
		return fmt.Sprintf("%s.Set%sConns(%d)", o.on, map[string]string{"max idle": "MaxIdle", "max open": "MaxOpen"}[o.do], o.n)
	case "close db":
		return o.on + ".Close()"
	}
	return o.on + "." + o.do
}
