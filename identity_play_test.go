package leakguard

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mattn/go-sqlite3"
)

// identityAnswer is what one call of a program told.
type identityAnswer struct {
	op   int
	text string
	// version is a data_version; its figure means something only beside other
	// ones of the same connection, which go-sqlite3 alone can name.
	versioned bool
	version   int64
	conn      int64
}

// identityEngine is what a program runs over.
type identityEngine struct {
	connect func(dsn string, e *identityEngine) (driver.Connector, error)
	idle    func(d time.Duration)
	over    func() // when it has run, nil if there is nothing to count
	bubble  bool
	used    sync.Map // where go-sqlite3 runs, by Connector: *atomic.Int64, the connection that was used last
}

// play runs a program and returns what each goroutine was told, and at the end
// what is in its tables.
func (p *identityProgram) play(e *identityEngine) (told [][]identityAnswer, err error) {
	const memory = "/dev/shm" // faster by far, where there is one
	dir, err := os.MkdirTemp(memory, "identity")
	if err != nil {
		if dir, err = os.MkdirTemp("", "identity"); err != nil {
			return nil, err
		}
	}
	defer os.RemoveAll(dir)
	if dir, err = filepath.EvalSymlinks(dir); err != nil { // as SQLite names files
		return nil, err
	}
	s := &identityStage{p: p, e: e, dir: dir}
	defer s.close()
	for i := range p.lanes {
		if err := s.enter(i); err != nil {
			return nil, err
		}
	}
	var wg sync.WaitGroup
	for _, l := range s.lanes {
		wg.Go(func() {
			for n, o := range p.lanes[l.number] {
				l.play(n, o)
			}
			l.leave(len(p.lanes[l.number]))
		})
	}
	wg.Wait()
	closed := s.close()
	for i, l := range s.lanes {
		left, err := l.left()
		if err != nil {
			return nil, err
		}
		told = append(told, append(l.told, identityAnswer{op: len(p.lanes[i]), text: left}))
	}
	return told, closed
}

// identityStage is what the goroutines of a program share.
type identityStage struct {
	p      *identityProgram
	e      *identityEngine
	dir    string
	keeper *sql.DB // keeps the WAL of a file that several use
	shared driver.Connector
	dbs    []*sql.DB
	lanes  []*identityPlayer
}

// identityPlayer is one goroutine.
type identityPlayer struct {
	*identityStage
	number int
	dsn    string
	own    []*sql.DB // the first is db0
	open   []bool
	used   *atomic.Int64
	rows   [rowSlots]*playedRows
	conns  [connSlots]*playedConn
	txs    [txSlots]*playedTx
	stmts  [stmtSlots]*playedStmt
	wrote  map[string]bool // by conn0, tx0 …: something under this lease
	held   int             // connections of its pools that it has out
	told   []identityAnswer
}

type playedRows struct {
	*sql.Rows
	on     string
	leased bool // a connection of its own
}

type playedConn struct {
	*sql.Conn
	on string
}

type playedTx struct {
	*sql.Tx
	on string
}

type playedStmt struct {
	*sql.Stmt
	on, text string
}

// enter prepares what a goroutine needs: its tables by go-sqlite3, so that the
// program's own connections have no history to begin with.
func (s *identityStage) enter(number int) error {
	l := &identityPlayer{identityStage: s, number: number, wrote: make(map[string]bool)}
	s.lanes = append(s.lanes, l)
	params := "_synchronous=OFF&_busy_timeout=0"
	if l.contended() {
		params = "_synchronous=OFF&_busy_timeout=60000&_txlock=immediate"
	}
	file := "one.db"
	if s.p.kind == fileKind {
		file = fmt.Sprintf("%d.db", number)
	}
	path := filepath.Join(s.dir, file)
	switch s.p.journal {
	case "memory":
		l.dsn = "file::memory:?" + params
	case "shared memory":
		l.dsn = fmt.Sprintf("file:%s?mode=memory&cache=shared&%s", filepath.Base(s.dir), params)
	default:
		l.dsn = fmt.Sprintf("file:%s?_journal_mode=%s&%s", path, s.p.journal, params)
		db, err := sql.Open("sqlite3", l.dsn)
		if err == nil {
			db.SetMaxOpenConns(1)
			_, err = db.Exec(l.names("CREATE TABLE T(id INTEGER PRIMARY KEY, v); INSERT INTO T(v) VALUES('x'),('y'),('z'); CREATE TABLE C(parent, v, w)"))
		}
		if err != nil {
			return err
		}
		if l.contended() && s.keeper == nil {
			s.keeper = db
		} else if err := db.Close(); err != nil {
			return err
		}
	}
	var err error
	connector := s.shared
	if connector == nil || s.p.kind == fileKind {
		if connector, err = s.e.connect(l.dsn, s.e); err != nil {
			return err
		}
		s.shared = connector
	}
	if used, ok := s.e.used.Load(connector); ok {
		l.used = used.(*atomic.Int64)
	}
	for len(l.own) < s.p.pools {
		var db *sql.DB
		if len(s.dbs) > 0 && (s.p.kind == connKind || s.p.kind == togetherKind) {
			db = s.dbs[0]
		} else {
			db = sql.OpenDB(connector)
			s.dbs = append(s.dbs, db)
			if s.p.maxIdle != notSet {
				db.SetMaxIdleConns(s.p.maxIdle)
			}
			if s.p.maxOpen != notSet {
				db.SetMaxOpenConns(s.p.maxOpen)
			}
		}
		l.own, l.open = append(l.own, db), append(l.open, true)
	}
	if s.p.kind == connKind {
		c, err := l.own[0].Conn(context.Background())
		if err != nil {
			return err
		}
		l.conns[0] = &playedConn{c, "db0"}
	}
	if strings.HasSuffix(s.p.journal, "memory") {
		_, err = l.own[0].Exec(l.names("CREATE TABLE IF NOT EXISTS T(id INTEGER PRIMARY KEY, v); CREATE TABLE IF NOT EXISTS C(parent, v, w)"))
	}
	return err
}

func (s *identityStage) close() error {
	var errs []error
	for _, db := range s.dbs {
		errs = append(errs, db.Close())
	}
	if s.keeper != nil {
		errs = append(errs, s.keeper.Close())
	}
	return errors.Join(errs...)
}

// left returns what is in the goroutine's tables, in the file.
func (l *identityPlayer) left() (string, error) {
	if strings.HasSuffix(l.p.journal, "memory") {
		return "", nil
	}
	db, err := sql.Open("sqlite3", l.dsn)
	if err != nil {
		return "", err
	}
	defer db.Close()
	var all string
	err = db.QueryRow(l.names("SELECT (SELECT json_group_array(json_array(id, v)) FROM T ) || (SELECT json_group_array(json_array(parent, v, w)) FROM C )")).Scan(&all)
	return all, err
}

// contended: several goroutines write one file, and wait for each other.
func (l *identityPlayer) contended() bool { return l.p.kind >= poolKind }

// names puts the goroutine's own tables into a text.
func (l *identityPlayer) names(text string) string {
	words := strings.Split(text, " ")
	for i, w := range words {
		for _, table := range []string{"T", "C"} {
			if rest, ok := strings.CutPrefix(w, table); ok && (rest == "" || strings.HasPrefix(rest, "(")) {
				words[i] = fmt.Sprintf("%s%d%s", strings.ToLower(table), l.number, rest)
			}
		}
	}
	return strings.Join(words, " ")
}

func (l *identityPlayer) tell(n int, format string, args ...any) {
	l.told = append(l.told, identityAnswer{op: n, text: strings.ReplaceAll(fmt.Sprintf(format, args...), l.dir, "$DIR")})
}

// on returns what a call runs on, nil if there is nothing or it would wait for
// this goroutine itself. lease says that it takes a connection.
func (l *identityPlayer) on(name string) (on execer, lease bool) {
	slot := int(name[len(name)-1] - '0')
	switch name[:len(name)-1] {
	case "db":
		if slot < len(l.own) && !(l.p.kind == togetherKind && l.held > 0) && (l.p.maxOpen <= 0 || l.heldOf(name) < l.p.maxOpen) {
			return l.own[slot], true
		}
	case "conn":
		if c := l.conns[slot]; c != nil {
			return c, false
		}
	case "tx":
		if tx := l.txs[slot]; tx != nil {
			return tx, false
		}
	}
	return nil, false
}

// heldOf counts the connections of a sql.DB that this goroutine has out.
func (l *identityPlayer) heldOf(db string) (n int) {
	for _, r := range l.rows {
		if r != nil && r.leased && r.on == db {
			n++
		}
	}
	for _, c := range l.conns {
		if c != nil && c.on == db {
			n++
		}
	}
	for _, tx := range l.txs {
		if tx != nil && tx.on == db {
			n++
		}
	}
	return n
}

// readsOnly texts write nothing.
func readsOnly(text string) bool {
	for _, word := range []string{"INSERT INTO", "INSERT OR", "UPDATE ", "DELETE ", "CREATE ", "DROP ", "BEGIN"} {
		if strings.Contains(strings.ToUpper(text), word) {
			return false
		}
	}
	return true
}

// waits reports whether a write would wait for another connection of this
// goroutine, or find that its snapshot is old: what others wrote decides.
func (l *identityPlayer) waits(on, text string) bool {
	if !l.contended() || readsOnly(text) {
		return false
	}
	if s := l.stmtOf(on); s != nil {
		on = s.on
	}
	for slot, tx := range l.txs {
		if tx != nil && on != fmt.Sprint("tx", slot) {
			return true
		}
	}
	for _, r := range l.rows {
		if r != nil && !r.leased && strings.HasPrefix(r.on, "conn") && (r.on == on || strings.HasPrefix(on, "tx")) {
			return true
		}
	}
	return false
}

func (l *identityPlayer) stmtOf(name string) *playedStmt {
	if rest, ok := strings.CutPrefix(name, "stmt"); ok {
		return l.stmts[rest[0]-'0']
	}
	return nil
}

// determined reports whether go-sqlite3's answer about a connection's history
// is determined by this goroutine.
func (l *identityPlayer) determined(on string) bool { return l.p.kind != togetherKind || l.wrote[on] }

// play makes one call. Its answer goes into told as far as it is determined.
func (l *identityPlayer) play(n int, o identityOp) {
	if o.on != "" && strings.HasPrefix(o.on, "db") && (int(o.on[2]-'0') >= len(l.own) || !l.open[o.on[2]-'0']) {
		return
	}
	text := l.names(o.text)
	switch o.do {
	case "idle":
		if l.e.bubble && l.contended() && (l.txs[0] != nil || l.txs[1] != nil) {
			return // the others wait inside SQLite: the bubble's time would stand still
		}
		l.e.idle(time.Duration(o.n) * time.Millisecond)
	case "exec":
		if on, _ := l.on(o.on); on != nil && !l.waits(o.on, text) {
			res, err := on.ExecContext(context.Background(), text, arguments(text, o.n)...)
			l.executed(n, o.on, text, res, err)
		}
	case "read", "version":
		if on, _ := l.on(o.on); on != nil && !l.waits(o.on, text) {
			l.read(n, o.on, text, o.do == "version", func() (*sql.Rows, error) {
				return on.QueryContext(context.Background(), text, arguments(text, o.n)...)
			})
		}
	case "prepare":
		if on, _ := l.on(o.on); on != nil && l.stmts[o.slot] == nil {
			s, err := on.PrepareContext(context.Background(), text)
			l.tell(n, "%v", err)
			if err == nil {
				l.stmts[o.slot] = &playedStmt{s, o.on, text}
			}
		}
	case "run":
		s := l.stmtOf(o.on)
		if s == nil || l.waits(o.on, s.text) {
			return
		}
		if on, _ := l.on(s.on); on == nil {
			return
		}
		args := arguments(s.text, o.n)
		if readsOnly(s.text) {
			l.read(n, s.on, s.text, strings.Contains(s.text, "data_version"), func() (*sql.Rows, error) { return s.Query(args...) })
			return
		}
		res, err := s.Exec(args...)
		l.executed(n, s.on, s.text, res, err)
	case "forget":
		if s := l.stmts[o.slot]; s != nil {
			l.tell(n, "%v", s.Close())
			l.stmts[o.slot] = nil
		}
	case "open":
		if on, leased := l.on(o.on); on != nil && l.rows[o.slot] == nil {
			rows, err := on.QueryContext(context.Background(), text)
			l.tell(n, "%v", err)
			if err == nil {
				l.rows[o.slot] = &playedRows{rows, o.on, leased}
				l.count(leased, 1)
			}
		}
	case "next":
		if r := l.rows[o.slot]; r != nil {
			if r.Next() {
				l.tell(n, "%s", scanned(r.Rows))
				return
			}
			l.tell(n, "end: %v", r.Err())
			l.closeRows(n, o.slot)
		}
	case "close":
		l.closeRows(n, o.slot)
	case "conn":
		if on, _ := l.on(o.on); on != nil && l.conns[o.slot] == nil {
			c, err := on.(*sql.DB).Conn(context.Background())
			l.tell(n, "%v", err)
			if err == nil {
				l.conns[o.slot] = &playedConn{c, o.on}
				l.count(true, 1)
			}
		}
	case "release":
		if l.p.kind != connKind {
			l.release(n, o.slot)
		}
	case "begin":
		l.begin(n, o)
	case "commit", "rollback":
		l.end(n, o.slot, o.do)
	case "ping":
		switch on, _ := l.on(o.on); on := on.(type) {
		case *sql.DB:
			l.tell(n, "%v", on.Ping())
		case *playedConn:
			l.tell(n, "%v", on.PingContext(context.Background()))
		}
	case "max idle":
		l.own[o.on[2]-'0'].SetMaxIdleConns(o.n)
	case "close db":
		i := o.on[2] - '0'
		if l.heldOf(o.on) > 0 || l.usedBy(o.on) {
			return
		}
		l.tell(n, "%v", l.own[i].Close())
		l.open[i] = false
	}
}

// usedBy reports whether a statement belongs to the sql.DB.
func (l *identityPlayer) usedBy(db string) bool {
	for _, s := range l.stmts {
		if s != nil && s.on == db {
			return true
		}
	}
	return false
}

func arguments(text string, n int) []any {
	if !strings.Contains(text, "?") {
		return nil
	}
	return []any{n}
}

func (l *identityPlayer) count(leased bool, n int) {
	if leased {
		l.held += n
	}
}

// executed tells what an Exec returned. What SQLite says behind a text that
// wrote nothing is history.
func (l *identityPlayer) executed(n int, on, text string, res sql.Result, err error) {
	if err != nil {
		l.tell(n, "%v", err)
		return
	}
	id, _ := res.LastInsertId()
	rows, _ := res.RowsAffected()
	first, _, _ := strings.Cut(text, " ")
	ignored := strings.HasPrefix(text, "INSERT OR IGNORE") // and then the id is an older one's
	switch {
	case l.determined(on) || first == "INSERT" && !ignored:
		l.tell(n, "id %d, %d rows", id, rows)
	default:
		l.tell(n, "%d rows", rows)
	}
	if first == "INSERT" && !ignored && !strings.HasPrefix(on, "db") {
		l.wrote[on] = true
	}
}

// read runs a query and tells all its rows.
func (l *identityPlayer) read(n int, on, text string, version bool, query func() (*sql.Rows, error)) {
	rows, err := query()
	if err != nil {
		l.tell(n, "%v", err)
		return
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		all = append(all, scanned(rows))
	}
	if err := rows.Err(); err != nil {
		l.tell(n, "%v, %v", all, err)
		return
	}
	if version {
		if l.contended() || len(all) != 1 {
			l.tell(n, "%d rows", len(all))
			return
		}
		a := identityAnswer{op: n, versioned: true}
		fmt.Sscan(all[0], &a.version)
		if l.used != nil {
			a.conn = l.used.Load()
		}
		l.told = append(l.told, a)
		return
	}
	historic := strings.Contains(text, "last_insert_rowid") || strings.Contains(text, "changes()")
	if historic && !strings.Contains(text, ";") && !l.determined(on) {
		l.tell(n, "%d rows", len(all))
		return
	}
	l.tell(n, "%v", all)
}

// scanned returns the present row as a text.
func scanned(rows *sql.Rows) string {
	columns, err := rows.Columns()
	if err != nil {
		return err.Error()
	}
	values, into := make([]any, len(columns)), make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	if err := rows.Scan(into...); err != nil {
		return err.Error()
	}
	return strings.TrimSuffix(fmt.Sprintln(values...), "\n")
}

func (l *identityPlayer) begin(n int, o identityOp) {
	on, lease := l.on(o.on)
	if on == nil || l.txs[o.slot] != nil || l.waits(o.on, "BEGIN") {
		return
	}
	var tx *sql.Tx
	var err error
	switch on := on.(type) {
	case *sql.DB:
		tx, err = on.Begin()
	case *playedConn:
		tx, err = on.BeginTx(context.Background(), nil)
	}
	l.tell(n, "%v", err)
	if err == nil {
		l.txs[o.slot] = &playedTx{tx, o.on}
		l.count(lease, 1)
	}
}

// end ends a transaction; what is open in it goes before.
func (l *identityPlayer) end(n, slot int, how string) {
	tx := l.txs[slot]
	if tx == nil {
		return
	}
	name := fmt.Sprint("tx", slot)
	l.closeAllOf(n, name)
	if how == "commit" {
		l.tell(n, "%v", tx.Commit())
	} else {
		l.tell(n, "%v", tx.Rollback())
	}
	l.count(strings.HasPrefix(tx.on, "db"), -1)
	l.txs[slot] = nil
	delete(l.wrote, name)
}

// release closes a sql.Conn; what is open on it goes before.
func (l *identityPlayer) release(n, slot int) {
	c := l.conns[slot]
	if c == nil {
		return
	}
	name := fmt.Sprint("conn", slot)
	for i, tx := range l.txs {
		if tx != nil && tx.on == name {
			l.end(n, i, "rollback")
		}
	}
	l.closeAllOf(n, name)
	l.tell(n, "%v", c.Close())
	l.count(l.p.kind != connKind, -1)
	l.conns[slot] = nil
	delete(l.wrote, name)
}

// closeAllOf closes the rows and statements of a sql.Conn or sql.Tx.
func (l *identityPlayer) closeAllOf(n int, name string) {
	for i, r := range l.rows {
		if r != nil && r.on == name {
			l.closeRows(n, i)
		}
	}
	for i, s := range l.stmts {
		if s != nil && s.on == name {
			l.tell(n, "%v", s.Close())
			l.stmts[i] = nil
		}
	}
}

func (l *identityPlayer) closeRows(n, slot int) {
	if r := l.rows[slot]; r != nil {
		l.tell(n, "%v", r.Close())
		l.count(r.leased, -1)
		l.rows[slot] = nil
	}
}

// leave ends what is open, asks once more, and reads the tables.
func (l *identityPlayer) leave(n int) {
	for i := range l.rows {
		l.closeRows(n, i)
	}
	for i := range l.txs {
		l.end(n, i, "rollback")
	}
	l.play(n, identityOp{do: "idle", n: 5})
	ask := l.names("SELECT last_insert_rowid(), changes(), total_changes()")
	switch l.p.kind {
	case soloKind, fileKind, poolKind:
		l.play(n, identityOp{do: "read", on: "db0", text: ask})
	case connKind:
		l.play(n, identityOp{do: "read", on: "conn0", text: ask})
	}
	for i := range l.conns {
		l.release(n, i)
	}
	for i, s := range l.stmts {
		if s != nil {
			l.tell(n, "%v", s.Close())
			l.stmts[i] = nil
		}
	}
	for _, table := range []string{"T", "C"} {
		l.play(n, identityOp{do: "read", on: "db0", text: "SELECT * FROM " + table + " ORDER BY rowid"})
	}
}

// plain is go-sqlite3 as a driver.Connector, which notes the connection that was
// used last.
type plainConnector struct {
	dsn  string
	used *atomic.Int64
	made atomic.Int64
}

func (p *plainConnector) Driver() driver.Driver { return plain }

func (p *plainConnector) Connect(context.Context) (driver.Conn, error) {
	c, err := plain.Open(p.dsn)
	if err != nil {
		return nil, err
	}
	return &plainConn{c.(*sqlite3.SQLiteConn), p.made.Add(1), p.used}, nil
}

type plainConn struct {
	*sqlite3.SQLiteConn
	number int64
	used   *atomic.Int64
}

func (c *plainConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	c.used.Store(c.number)
	return c.SQLiteConn.ExecContext(ctx, query, args)
}

func (c *plainConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	c.used.Store(c.number)
	return c.SQLiteConn.QueryContext(ctx, query, args)
}

func (c *plainConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	s, err := c.SQLiteConn.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	return &plainStmt{s.(*sqlite3.SQLiteStmt), c}, nil
}

type plainStmt struct {
	*sqlite3.SQLiteStmt
	c *plainConn
}

func (s *plainStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	s.c.used.Store(s.c.number)
	return s.SQLiteStmt.QueryContext(ctx, args)
}
