package leakguard

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

var chaosTime = flag.Duration("chaos", 2*time.Second, "how long TestChaos runs, over all its variations")

const (
	accounts     = 20
	startBalance = 1000
	total        = accounts * startBalance
)

// chaosPolicy has limits of a few milliseconds.
func chaosPolicy() tracker.Policy {
	return tracker.Policy{
		TxTimeout:      2 * time.Millisecond,
		TxLimit:        3 * time.Millisecond,
		LeakAfter:      5 * time.Millisecond,
		MaxIdle:        10 * time.Millisecond,
		MaxAccess:      20,
		MaxLifetime:    30 * time.Millisecond,
		CheckInterval:  2 * time.Millisecond,
		MemoryInterval: time.Second,
	}
}

// TestChaos moves money between accounts while the guard undoes whatever takes
// more than a few milliseconds, contexts are cancelled, and transactions are
// forgotten and remembered again. The sum must never change, and each transfer
// must be there as a whole if it was reported committed, and not at all if not.
func TestChaos(t *testing.T) {
	for _, v := range []struct {
		name    string
		journal string
		run     func(*bank)
		aborts  bool
		share   float64 // of -chaos
	}{
		{name: "wal", journal: "WAL", run: (*bank).crowd, share: 0.25},
		{name: "rollback journal", journal: "DELETE", run: (*bank).crowd, share: 0.2},
		{name: "wal, shared cache", journal: "WAL&cache=shared", run: (*bank).crowd, share: 0.1},
		{name: "wal, sqlite aborts", journal: "WAL", run: (*bank).crowd, aborts: true, share: 0.15},
		{name: "rollback journal, sqlite aborts", journal: "DELETE", run: (*bank).crowd, aborts: true, share: 0.1},
		{name: "wal, one connection, text over leases", journal: "WAL", run: (*bank).loner, share: 0.1},
		{name: "rollback journal, one connection, text over leases", journal: "DELETE", run: (*bank).loner, aborts: true, share: 0.1},
	} {
		t.Run(v.name, func(t *testing.T) {
			b := newBank(t, v.journal, v.aborts)
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(float64(*chaosTime)*v.share))
			defer cancel()
			b.done, b.began = ctx.Done(), time.Now()
			var checker sync.WaitGroup
			checker.Go(b.check)
			v.run(b)
			checker.Wait()
			b.close()
		})
	}
}

// transfer is one movement of money.
type transfer struct {
	id       int64
	from, to int
	amount   int
}

// bank is the database and what was reported of it.
type bank struct {
	t         *testing.T
	seed      uint64
	file      string
	tracker   *tracker.Tracker
	connector *Connector
	db        *sql.DB
	raw       *sql.DB // go-sqlite3 itself, to look on
	done      <-chan struct{}
	began     time.Time
	aborts    bool // provoke SQLite to roll back by itself

	move, note *sql.Stmt // prepared over the pool

	nextID, nextConn atomic.Int64
	opened           atomic.Int64 // connections

	mu        sync.Mutex
	committed map[int64]transfer
	failed    map[int64]string
	errors    map[string]int
	attic     []func(*rand.Rand) // forgotten, may be remembered: goes on

	forgotten, remembered, lateCommits, stubborn, reads, reapedRows atomic.Int64
	worst                                                           atomic.Int64 // longest statement, in nanoseconds
}

func newBank(t *testing.T, journal string, aborts bool) *bank {
	b := &bank{
		t:         t,
		seed:      testSeed(t),
		file:      filepath.Join(t.TempDir(), "bank.db"),
		tracker:   tracker.New(tracker.Options{}),
		aborts:    aborts,
		committed: make(map[int64]transfer),
		failed:    make(map[int64]string),
		errors:    make(map[string]int),
	}
	dsn := "file:" + b.file + "?_synchronous=OFF&_journal_mode=" + journal
	var err error
	outside := strings.ReplaceAll(dsn, "&cache=shared", "") + "&_busy_timeout=10000"
	if b.raw, err = sql.Open("sqlite3", outside); err != nil {
		t.Fatal(err)
	}
	b.raw.SetMaxOpenConns(1)
	if _, err := b.raw.Exec(fmt.Sprintf(`
		CREATE TABLE accounts(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL, transfer);
		CREATE TABLE moves(transfer, account, amount);
		CREATE TRIGGER moved AFTER UPDATE ON accounts BEGIN INSERT INTO moves VALUES(new.transfer, new.id, new.balance - old.balance); END;
		CREATE TABLE journal(id INTEGER PRIMARY KEY, src, dst, amount, pad);
		CREATE TABLE poison(id);
		CREATE TABLE uniq(k INTEGER PRIMARY KEY);
		CREATE TRIGGER no BEFORE INSERT ON uniq WHEN new.k < 0 BEGIN SELECT RAISE(ROLLBACK, 'no'); END;
		INSERT INTO uniq VALUES(1);
		WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM n LIMIT %d) INSERT INTO accounts SELECT i, %d, 0 FROM n`,
		accounts, startBalance)); err != nil {
		t.Fatal(err)
	}

	b.connector, err = NewConnector(Config{
		DSN:     dsn + "&_busy_timeout=20",
		Policy:  chaosPolicy(),
		Tracker: b.tracker,
		SQLite:  &sqlite3.SQLiteDriver{ConnectHook: b.connected},
		Logger:  slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	b.db = sql.OpenDB(b.connector)
	return b
}

// connected gives a connection its number, and a limit for the file's size if
// SQLite is to abort transactions: those that come when it is reached.
func (b *bank) connected(c *sqlite3.SQLiteConn) error {
	id := b.nextConn.Add(1)
	if b.aborts {
		if _, err := c.Exec("PRAGMA max_page_count = 1", nil); err != nil { // SQLite makes it what the file has
			return err
		}
		rows, err := c.Query("PRAGMA page_count", nil)
		if err != nil {
			return err
		}
		defer rows.Close()
		row := make([]driver.Value, 1)
		if err := rows.Next(row); err != nil {
			return err
		}
		if _, err := c.Exec(fmt.Sprintf("PRAGMA max_page_count = %d", row[0].(int64)+12), nil); err != nil {
			return err
		}
	}
	if err := c.RegisterFunc("conn_id", func() int64 { return id }, true); err != nil {
		return err
	}
	b.opened.Add(1)
	return nil
}

// over reports whether the time is up and something has happened in it, or the
// test has failed.
func (b *bank) over() bool {
	select {
	case <-b.done:
		return b.chaos() || b.t.Failed() || time.Since(b.began) > *chaosTime+time.Minute
	default:
		return b.t.Failed()
	}
}

// chaos reports whether transfers were committed and failed, and leaks undone.
func (b *bank) chaos() bool {
	b.mu.Lock()
	committed, failed := len(b.committed), len(b.failed)
	b.mu.Unlock()
	return committed > 0 && failed > 0 && b.connector.Stats().Reaped > 0
}

// prepare prepares over the pool. The guard may undo a lease meanwhile.
func (b *bank) prepare(query string) (s *sql.Stmt, err error) {
	for s, err = b.db.Prepare(query); errors.Is(err, ErrReaped); {
		s, err = b.db.Prepare(query)
	}
	return s, err
}

func (b *bank) newTransfer(r *rand.Rand) transfer {
	t := transfer{id: b.nextID.Add(1), from: r.IntN(accounts), amount: 1 + r.IntN(100)}
	t.to = (t.from + 1 + r.IntN(accounts-1)) % accounts
	return t
}

// report notes what the program was told of a transfer; how says how it was
// done.
func (b *bank) report(tr transfer, how string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, twice := b.committed[tr.id]
	_, twice2 := b.failed[tr.id]
	if twice || twice2 {
		b.t.Errorf("transfer %d is reported twice", tr.id)
	}
	if err == nil {
		b.committed[tr.id] = tr
		return
	}
	b.failed[tr.id] = how + ": " + err.Error()
	b.errors[b.class(err)]++
	var reaped *ReapedError
	if errors.As(err, &reaped) && reaped.Leak.Kind == tracker.KindConnection && reaped.Leak.Reason != tracker.ReasonLeakAfter {
		b.t.Errorf("a program was given a connection that the guard had closed: %v", err)
	}
}

// class names an error for the log.
func (b *bank) class(err error) string {
	var reaped *ReapedError
	var aborted *TxAbortedError
	var s sqlite3.Error
	switch {
	case errors.Is(err, errPlanned):
		return errPlanned.Error()
	case errors.As(err, &reaped):
		return "reaped: " + string(reaped.Leak.Reason) + " " + reaped.Leak.Kind.String()
	case errors.As(err, &aborted):
		return "aborted: " + aborted.Cause.Error()
	case errors.As(err, &s):
		return "sqlite: " + s.Error()
	}
	first, _, _ := strings.Cut(err.Error(), "\n") // of what errors.Join joined
	return first
}

var errPlanned = errors.New("rolled back by the program")

// timed measures one statement.
func (b *bank) timed(f func() error) error {
	start := time.Now()
	err := f()
	for d := int64(time.Since(start)); ; {
		worst := b.worst.Load()
		if d <= worst || b.worst.CompareAndSwap(worst, d) {
			return err
		}
	}
}

// pause is chaos: nothing waits for what happens meanwhile.
func pause(r *rand.Rand) {
	switch r.IntN(24) {
	case 0:
		time.Sleep(time.Duration(r.IntN(6000)) * time.Microsecond) // a chaos pause, beyond the limits
	case 1, 2, 3:
		time.Sleep(time.Duration(r.IntN(300)) * time.Microsecond) // a chaos pause
	case 4, 5, 6, 7:
		runtime.Gosched()
	}
}

// crowd is eight goroutines over one pool, with limits that change.
func (b *bank) crowd() {
	b.db.SetMaxOpenConns(14)
	b.db.SetMaxIdleConns(8)
	var err error
	if b.move, err = b.prepare(moveSQL); err != nil {
		b.t.Error(err)
		return
	}
	if b.note, err = b.prepare("INSERT INTO journal VALUES(?, ?, ?, ?, ?)"); err != nil {
		b.t.Error(err)
		return
	}
	var workers sync.WaitGroup
	for i := range uint64(8) {
		r := rand.New(rand.NewPCG(b.seed, i))
		workers.Go(func() {
			for !b.over() {
				b.work(r)
			}
		})
	}
	var weather sync.WaitGroup
	weather.Go(func() {
		r := rand.New(rand.NewPCG(b.seed, 100))
		for !b.over() {
			time.Sleep(time.Duration(10+r.IntN(40)) * time.Millisecond) // a chaos pause
			p := chaosPolicy()
			p.TxLimit += time.Duration(r.IntN(8)) * time.Millisecond
			switch r.IntN(4) {
			case 0:
				p.TxTimeout, p.TxLimit = 0, 0 // else they come before leak_after
				p.LeakAfter = 3 * time.Millisecond
			case 1:
				p.TxLimit = 0 // what works is left to work
			}
			if err := b.connector.SetPolicy(p); err != nil {
				b.t.Error(err)
			}
			if r.IntN(3) == 0 {
				runtime.GC()
			}
			if r.IntN(3) == 0 {
				b.connector.Stats()
			}
		}
	})
	workers.Wait()
	weather.Wait()
	r := rand.New(rand.NewPCG(b.seed, 101))
	for b.remember(r) {
	}
	b.move.Close()
	b.note.Close()
}

// work does one random thing.
func (b *bank) work(r *rand.Rand) {
	switch n := r.IntN(20); {
	case n < 2:
		b.oneText(r)
	case n < 5:
		b.nested(r)
	case n < 7:
		b.read(r)
	case n < 10 && b.remember(r):
	default:
		if d := b.begin(r); d != nil {
			d.run(r, true)
		}
	}
}

// moveSQL changes a balance: amount, transfer, account.
const moveSQL = "UPDATE accounts SET balance = balance + ?, transfer = ? WHERE id = ?"

// dealing is a transaction, begun one way or the other.
type dealing interface {
	exec(ctx context.Context, query string, args ...any) error
	query(ctx context.Context, query string) (*sql.Rows, error)
	// move runs moveSQL as a prepared statement.
	move(ctx context.Context, args ...any) error
	commit(ctx context.Context) error
	rollback() error
	// end gives back what is still held.
	end()
}

// txSession is a transaction by BeginTx.
type txSession struct {
	b    *bank
	tx   *sql.Tx
	sc   *sql.Conn // nil: from the pool
	stmt *sql.Stmt
}

func (s *txSession) exec(ctx context.Context, query string, args ...any) error {
	_, err := s.tx.ExecContext(ctx, query, args...)
	return err
}

func (s *txSession) query(ctx context.Context, query string) (*sql.Rows, error) {
	return s.tx.QueryContext(ctx, query)
}

func (s *txSession) move(ctx context.Context, args ...any) error {
	if s.stmt == nil {
		s.stmt = s.tx.StmtContext(ctx, s.b.move)
	}
	_, err := s.stmt.ExecContext(ctx, args...)
	return err
}

func (s *txSession) commit(context.Context) error { return s.tx.Commit() }
func (s *txSession) rollback() error              { return s.tx.Rollback() }

func (s *txSession) end() {
	s.tx.Rollback()
	if s.sc != nil {
		s.sc.Close()
	}
}

// textSession is a transaction by SQL text on a connection.
type textSession struct {
	sc   *sql.Conn
	stmt *sql.Stmt
}

func (s *textSession) exec(ctx context.Context, query string, args ...any) error {
	_, err := s.sc.ExecContext(ctx, query, args...)
	return err
}

func (s *textSession) query(ctx context.Context, query string) (*sql.Rows, error) {
	return s.sc.QueryContext(ctx, query)
}

func (s *textSession) move(ctx context.Context, args ...any) error {
	if s.stmt == nil {
		stmt, err := s.sc.PrepareContext(ctx, moveSQL)
		if err != nil {
			return err
		}
		s.stmt = stmt
	}
	_, err := s.stmt.ExecContext(ctx, args...)
	return err
}

func (s *textSession) commit(ctx context.Context) error {
	if rand.IntN(4) > 0 {
		return s.exec(ctx, "COMMIT")
	}
	rows, err := s.query(ctx, "COMMIT")
	if err == nil {
		rows.Close()
	}
	return err
}

func (s *textSession) rollback() error { return s.exec(context.Background(), "ROLLBACK") }

func (s *textSession) end() {
	if s.stmt != nil {
		s.stmt.Close()
	}
	s.sc.Close()
}

// deal is one transfer under way.
type deal struct {
	b      *bank
	tr     transfer
	s      dealing
	ctx    context.Context
	cancel context.CancelFunc
	late   bool   // it was forgotten once
	how    string // it ended
	wrote  bool

	steps []step
	at    int
	rows  *sql.Rows
	read  int // rows read
	sum   int
	clean bool // nothing was written since the rows were opened
}

// step is one statement. A step that aborts makes SQLite roll back.
type step struct {
	name   string
	aborts bool
	rows   bool // its error may be about the rows alone
	run    func(d *deal) error
}

// begin starts a transfer one way or the other, nil if BEGIN failed.
func (b *bank) begin(r *rand.Rand) *deal {
	d := &deal{b: b, tr: b.newTransfer(r)}
	switch r.IntN(6) {
	case 0:
		d.ctx, d.cancel = context.WithTimeout(context.Background(), time.Duration(r.IntN(12000))*time.Microsecond)
	case 1, 2:
		d.ctx, d.cancel = context.WithCancel(context.Background())
	default:
		d.ctx, d.cancel = context.Background(), func() {}
	}
	err := b.timed(func() error {
		switch r.IntN(3) {
		case 0:
			tx, err := b.db.BeginTx(d.ctx, nil)
			d.s = &txSession{b: b, tx: tx}
			return err
		case 1:
			sc, err := b.db.Conn(d.ctx)
			if err != nil {
				return err
			}
			tx, err := sc.BeginTx(d.ctx, nil)
			if err != nil {
				sc.Close()
			}
			d.s = &txSession{b: b, tx: tx, sc: sc}
			return err
		default:
			sc, err := b.db.Conn(d.ctx)
			if err != nil {
				return err
			}
			begin := "BEGIN IMMEDIATE"
			if r.IntN(3) == 0 {
				begin = "BEGIN" // not SAVEPOINT: it would join what somebody left in the pool
			}
			if _, err = sc.ExecContext(d.ctx, begin); err != nil {
				if r.IntN(2) == 0 {
					sc.ExecContext(context.Background(), "ROLLBACK") // somebody else's, in the pool
				}
				sc.Close()
			}
			d.s = &textSession{sc: sc}
			return err
		}
	})
	if err != nil {
		d.cancel()
		b.report(d.tr, "begin", err)
		return nil
	}
	d.plan(r)
	return d
}

// plan makes the list of statements.
func (d *deal) plan(r *rand.Rand) {
	b, tr := d.b, d.tr
	move := func(name string, amount, account int) step {
		return step{name: name, run: func(d *deal) error {
			d.wrote, d.clean = true, false
			switch tr.id % 3 {
			case 0:
				return d.s.move(d.ctx, amount, tr.id, account)
			case 1:
				rows, err := d.s.query(d.ctx, fmt.Sprintf("UPDATE accounts SET balance = balance + %d, transfer = %d WHERE id = %d RETURNING balance", amount, tr.id, account))
				if err != nil {
					return err
				}
				n := 0
				for rows.Next() {
					n++
				}
				if err := errors.Join(rows.Err(), rows.Close()); err != nil {
					return err
				}
				if n != 1 {
					b.t.Errorf("an update returned %d rows and no error", n)
				}
				return nil
			default:
				return d.s.exec(d.ctx, moveSQL, amount, tr.id, account)
			}
		}}
	}
	pad := 0
	if b.aborts {
		pad = r.IntN(3000)
	}
	work := []step{
		move("debit", -tr.amount, tr.from),
		move("credit", tr.amount, tr.to),
		{name: "journal", run: func(d *deal) error {
			d.wrote, d.clean = true, false
			return d.s.exec(d.ctx, "INSERT INTO journal VALUES(?, ?, ?, ?, zeroblob(?))", tr.id, tr.from, tr.to, tr.amount, pad)
		}},
	}
	r.Shuffle(len(work), func(i, j int) { work[i], work[j] = work[j], work[i] })
	if b.aborts && r.IntN(6) == 0 {
		query := "INSERT OR ROLLBACK INTO uniq VALUES(1)"
		if r.IntN(2) == 0 {
			query = "INSERT INTO uniq VALUES(-1)" // the trigger says RAISE(ROLLBACK)
		}
		work = slices.Insert(work, r.IntN(4), step{name: "abort", aborts: true, run: func(d *deal) error {
			return d.s.exec(d.ctx, query)
		}})
	}
	if r.IntN(3) == 0 { // read the accounts, with some of the work in between
		from := r.IntN(len(work) + 1)
		to := from + r.IntN(len(work)+1-from)
		work = slices.Insert(work, to, step{name: "read on", rows: true, run: (*deal).readRows})
		work = slices.Insert(work, from, step{name: "open rows", run: func(d *deal) error {
			rows, err := d.s.query(d.ctx, "SELECT id, balance FROM accounts")
			if err != nil {
				return err
			}
			d.rows, d.read, d.sum, d.clean = rows, 0, 0, !d.wrote
			return nil
		}})
	}
	d.steps = work
}

// readRows reads to the end. Rows that end without an error are complete.
func (d *deal) readRows() error {
	defer d.rows.Close()
	for d.rows.Next() {
		var id, balance int
		if err := d.rows.Scan(&id, &balance); err != nil {
			return err
		}
		d.read++
		d.sum += balance
	}
	if err := d.rows.Err(); err != nil {
		return err
	}
	d.b.reads.Add(1)
	if d.read != accounts {
		d.b.t.Errorf("law 2: rows ended after %d of %d and no error", d.read, accounts)
	}
	if d.clean && d.sum != total {
		d.b.t.Errorf("a transaction that has not written sees %d, not %d", d.sum, total)
	}
	return nil
}

// run goes on with the deal until it is over or forgotten.
func (d *deal) run(r *rand.Rand, mayForget bool) {
	b := d.b
	for d.at < len(d.steps) {
		pause(r)
		if mayForget && r.IntN(40) == 0 && d.forget() {
			return
		}
		if r.IntN(60) == 0 {
			d.cancel()
		}
		st := d.steps[d.at]
		d.at++
		if err := b.timed(func() error { return st.run(d) }); err != nil {
			d.fail(r, st, err)
			return
		}
		if st.aborts {
			b.t.Errorf("%s succeeded", st.name)
		}
	}
	pause(r)
	switch {
	case mayForget && r.IntN(40) == 0 && d.forget():
		return
	case r.IntN(40) == 0:
		d.giveUp(errPlanned, false)
		return
	}
	err := b.timed(func() error { return d.s.commit(d.ctx) })
	for err != nil && busyError(err) && r.IntN(2) == 0 {
		if _, text := d.s.(*textSession); !text {
			break
		}
		err = b.timed(func() error { return d.s.commit(d.ctx) }) // the transaction is still open
	}
	if err == nil {
		if d.late {
			b.lateCommits.Add(1)
		}
		b.report(d.tr, "", nil)
		d.end()
		return
	}
	d.how = ", COMMIT"
	d.vanished("COMMIT", err)
	b.law5(d.ctx, "COMMIT", err)
	d.giveUp(err, undone(err))
}

// busyError reports whether SQLite wants the statement to be tried again.
func busyError(err error) bool {
	var s sqlite3.Error
	return errors.As(err, &s) && (s.Code == sqlite3.ErrBusy || s.Code == sqlite3.ErrLocked)
}

// undone reports whether the error says that the transaction is no more.
func undone(err error) bool { return errors.Is(err, ErrReaped) || errors.Is(err, ErrTxAborted) }

// vanished complains of the error by which SQLite tells that what was a
// transaction has become autocommit.
func (d *deal) vanished(what string, err error) {
	if strings.Contains(err.Error(), "no transaction is active") {
		d.b.t.Errorf("law 1: %s of transfer %d: %v", what, d.tr.id, err)
	}
}

// law5 complains of an interrupt that was not meant: those of the guard answer
// with ErrReaped, and those of the own context with its error.
func (b *bank) law5(ctx context.Context, what string, err error) {
	var s sqlite3.Error
	if !undone(err) && errors.As(err, &s) && s.Code == sqlite3.ErrInterrupt && ctx.Err() == nil {
		b.t.Errorf("law 5: %s: %v", what, err)
	}
}

// fail handles the first error of a deal: some programs roll back, others go
// on. Nothing that they do then may reach the database.
func (d *deal) fail(r *rand.Rand, st step, err error) {
	b := d.b
	b.law5(d.ctx, st.name, err)
	over := st.aborts && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) && !busyError(err) || undone(err) && !st.rows
	if r.IntN(2) == 0 {
		d.giveUp(err, over && undone(err))
		return
	}
	b.stubborn.Add(1)
	d.how = ", went on after the error"
	if !over { // it may be open or not: do something, and roll back whatever it was
		d.s.exec(context.Background(), "INSERT INTO poison VALUES(?)", d.tr.id)
		d.giveUp(err, false)
		return
	}
	for _, next := range d.steps[d.at:] {
		if next.rows || next.name == "open rows" {
			continue
		}
		d.refused(next.name, err, next.run(d))
	}
	d.refused("a statement", err, d.s.exec(context.Background(), "INSERT INTO poison VALUES(?)", d.tr.id))
	d.refused("COMMIT", err, d.s.commit(d.ctx))
	if _, text := d.s.(*textSession); text {
		d.giveUp(err, undone(err))
		return
	}
	b.report(d.tr, d.done(), err)
	d.end()
}

// refused checks what came after a transaction was over.
func (d *deal) refused(what string, first, err error) {
	switch {
	case err == nil:
		d.b.t.Errorf("law 1: transfer %d: %s after %v succeeded", d.tr.id, what, first)
	case !undone(err) && !errors.Is(err, sql.ErrTxDone) && !errors.Is(err, sql.ErrConnDone) && d.ctx.Err() == nil:
		d.b.t.Errorf("transfer %d: %s after %v: %v", d.tr.id, what, first, err)
	}
}

// giveUp rolls back. If the guard has done so, that is no error.
func (d *deal) giveUp(why error, byGuard bool) {
	err := d.b.timed(d.s.rollback)
	if byGuard && errors.Is(why, ErrReaped) && err != nil && !errors.Is(err, sql.ErrTxDone) {
		d.b.t.Errorf("transfer %d: ROLLBACK after %v: %v", d.tr.id, why, err)
	}
	d.b.report(d.tr, d.done(), why)
	d.end()
}

// done says what the deal has done.
func (d *deal) done() string {
	how := fmt.Sprintf("%T of context %v", d.s, d.ctx)
	if d.late {
		how += ", forgotten for a while"
	}
	for _, st := range d.steps[:d.at] {
		how += ", " + st.name
	}
	return how + d.how
}

func (d *deal) end() {
	if d.rows != nil {
		d.rows.Close()
	}
	d.s.end()
	d.cancel()
}

// forget puts the deal aside; false if too many are.
func (d *deal) forget() bool {
	return d.b.forget(func(r *rand.Rand) {
		d.late = true
		d.run(r, false)
	})
}

func (b *bank) forget(goOn func(*rand.Rand)) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.attic) >= 4 {
		return false
	}
	b.forgotten.Add(1)
	b.attic = append(b.attic, goOn)
	return true
}

// remember goes on with something forgotten, and returns false if nothing is.
func (b *bank) remember(r *rand.Rand) bool {
	b.mu.Lock()
	if len(b.attic) == 0 {
		b.mu.Unlock()
		return false
	}
	i := r.IntN(len(b.attic))
	goOn := b.attic[i]
	b.attic = slices.Delete(b.attic, i, i+1)
	b.mu.Unlock()
	b.remembered.Add(1)
	goOn(r)
	return true
}

// oneText transfers by one text of several statements. If it fails, what it
// has begun may stay behind in the pool.
func (b *bank) oneText(r *rand.Rand) {
	tr := b.newTransfer(r)
	text := fmt.Sprintf(`BEGIN IMMEDIATE;
		UPDATE accounts SET balance = balance - %[4]d, transfer = %[1]d WHERE id = %[2]d;
		UPDATE accounts SET balance = balance + %[4]d, transfer = %[1]d WHERE id = %[3]d; -- one; two
		INSERT INTO journal VALUES(%[1]d, %[2]d, %[3]d, %[4]d, ''); COMMIT`, tr.id, tr.from, tr.to, tr.amount)
	var args []any
	if r.IntN(2) == 0 {
		text = "BEGIN IMMEDIATE; " + moveSQL + "; " + moveSQL + "; INSERT INTO journal VALUES(?, ?, ?, ?, ''); END;"
		args = []any{-tr.amount, tr.id, tr.from, tr.amount, tr.id, tr.to, tr.id, tr.from, tr.to, tr.amount}
	}
	ctx, cancel := context.Background(), context.CancelFunc(func() {})
	if r.IntN(4) == 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(r.IntN(3000))*time.Microsecond)
	}
	defer cancel()
	if r.IntN(3) == 0 {
		_, err := b.db.ExecContext(ctx, text, args...)
		b.law5(ctx, "a text", err)
		b.report(tr, "one text over the pool", err)
		return
	}
	sc, err := b.db.Conn(ctx)
	if err == nil {
		if _, err = sc.ExecContext(ctx, text, args...); err != nil && r.IntN(2) == 0 {
			sc.ExecContext(context.Background(), "ROLLBACK")
		}
		sc.Close()
	}
	b.law5(ctx, "a text", err)
	b.report(tr, "one text", err)
}

// nested transfers by InTx, with more transfers in levels below.
func (b *bank) nested(r *rand.Rand) {
	var all []transfer
	level := 0
	var transferIn func(ctx context.Context) error
	transferIn = func(ctx context.Context) error {
		tr := b.newTransfer(r)
		mark := len(all)
		all = append(all, tr)
		level++
		defer func() { level-- }()
		err := InTx(ctx, b.db, nil, func(ctx context.Context, tx *sql.Tx) error {
			pause(r)
			for _, half := range [][2]int{{-tr.amount, tr.from}, {tr.amount, tr.to}} {
				if _, err := tx.ExecContext(ctx, moveSQL, half[0], tr.id, half[1]); err != nil {
					return err
				}
			}
			if level < 4 && r.IntN(2) == 0 {
				err := func() (err error) {
					defer func() {
						if p := recover(); p != nil {
							if p != errPlanned {
								panic(p)
							}
							err = errPlanned
						}
					}()
					return transferIn(ctx)
				}()
				if err != nil && err != errPlanned {
					return err
				}
			}
			if _, err := tx.StmtContext(ctx, b.note).ExecContext(ctx, tr.id, tr.from, tr.to, tr.amount, nil); err != nil {
				return err
			}
			pause(r)
			switch r.IntN(10) {
			case 0:
				return errPlanned
			case 1:
				if level > 1 {
					// What it did below is undone with it.
					b.undo(&all, mark, errPlanned)
					panic(errPlanned)
				}
			}
			return nil
		})
		if err != nil {
			b.undo(&all, mark, err)
		}
		return err
	}
	ctx, cancel := context.Background(), context.CancelFunc(func() {})
	if r.IntN(4) == 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(r.IntN(12000))*time.Microsecond)
	}
	defer cancel()
	b.law5(ctx, "InTx", transferIn(ctx))
	for _, tr := range all {
		b.report(tr, "", nil)
	}
}

// undo reports the transfers from mark on as failed.
func (b *bank) undo(all *[]transfer, mark int, err error) {
	for i, tr := range (*all)[mark:] {
		b.report(tr, fmt.Sprintf("InTx, level %d", mark+i+1), err)
	}
	*all = (*all)[:mark]
}

// read reads the accounts over the pool, now and then slowly, or forgets to
// read on, without a transaction.
func (b *bank) read(r *rand.Rand) {
	ctx, cancel := context.WithCancel(context.Background())
	sc, err := b.db.Conn(ctx)
	if err != nil {
		cancel()
		return
	}
	rows, err := sc.QueryContext(ctx, "SELECT id FROM accounts")
	if err != nil {
		sc.Close()
		cancel()
		return
	}
	n, slow := 0, r.IntN(4) == 0
	goOn := func(r *rand.Rand) {
		for rows.Next() {
			n++
			if slow {
				pause(r)
			}
			if r.IntN(400) == 0 {
				cancel()
			}
		}
		if err := rows.Err(); err == nil && n != accounts {
			b.t.Errorf("law 2: rows ended after %d of %d and no error", n, accounts)
		} else if errors.Is(err, ErrReaped) {
			b.reapedRows.Add(1)
		}
		rows.Close()
		if r.IntN(2) == 0 {
			sc.PingContext(ctx)
			sc.ExecContext(ctx, "SELECT 1")
		}
		sc.Close()
		cancel()
		b.reads.Add(1)
	}
	for range r.IntN(5) {
		if rows.Next() {
			n++
		}
	}
	if r.IntN(8) > 0 || !b.forget(goOn) {
		goOn(r)
	}
}

// loner transfers by SQL text over a pool of one connection: BEGIN, statements
// and COMMIT are a lease each. Once it is told that its transaction was reaped,
// the connection is another one.
func (b *bank) loner() {
	b.db.SetMaxOpenConns(1)
	r := rand.New(rand.NewPCG(b.seed, 0))
	replaced := 0
	for !b.over() {
		tr := b.newTransfer(r)
		exec := func(query string, args ...any) error {
			return b.timed(func() error {
				_, err := b.db.Exec(query, args...)
				return err
			})
		}
		err := exec([]string{"BEGIN", "BEGIN IMMEDIATE", "SAVEPOINT s"}[r.IntN(3)])
		began := err == nil
		var conn int64
		if began {
			err = b.db.QueryRow("SELECT conn_id()").Scan(&conn)
		}
		pad := 0
		if b.aborts {
			pad = r.IntN(3000)
		}
		aborting := false
		for i, f := range []func() error{
			func() error { return exec(moveSQL, -tr.amount, tr.id, tr.from) },
			func() error {
				if !b.aborts || r.IntN(10) > 0 {
					return nil
				}
				aborting = true
				return exec("INSERT OR ROLLBACK INTO uniq VALUES(1)")
			},
			func() error { return exec(moveSQL, tr.amount, tr.id, tr.to) },
			func() error {
				return exec("INSERT INTO journal VALUES(?, ?, ?, ?, zeroblob(?))", tr.id, tr.from, tr.to, tr.amount, pad)
			},
			func() error { return exec("COMMIT") },
		} {
			if err != nil {
				break
			}
			switch r.IntN(60) {
			case 0:
				time.Sleep(time.Duration(r.IntN(8000)) * time.Microsecond) // a chaos pause, beyond the limits
			case 1:
				runtime.GC()
			case 2, 3, 4: // an error, which is none of the transaction's unless the guard says so
				if _, err = b.db.Query("SELECT broken"); !undone(err) {
					err = nil
				}
			}
			if err != nil {
				break
			}
			if err = f(); err != nil && i == 4 && strings.Contains(err.Error(), "no transaction is active") {
				b.t.Errorf("law 1: COMMIT of transfer %d: %v", tr.id, err)
			}
		}
		b.report(tr, "texts over leases", err)
		if err == nil {
			continue
		}
		if errors.Is(err, ErrReaped) && r.IntN(2) == 0 {
			// Its next statement is on a new connection, or told the same once
			// more: if the first was already inside when it was condemned.
			var now int64
			if err := b.db.QueryRow("SELECT conn_id()").Scan(&now); errors.Is(err, ErrReaped) {
				if err := b.db.QueryRow("SELECT conn_id()").Scan(&now); err != nil {
					b.t.Errorf("told twice, and then: %v", err)
				}
			} else if err != nil {
				b.t.Errorf("told once, and then: %v", err)
			}
			if began && now == conn {
				b.t.Errorf("transfer %d was reaped on connection %d, and it is still in use", tr.id, conn)
			}
			replaced++
			continue
		}
		if began && (aborting || undone(err)) {
			// What comes next is refused, or runs on another connection.
			b.stubborn.Add(1)
			b.db.Exec("INSERT INTO poison SELECT ? WHERE conn_id() = ?", tr.id, conn)
		}
		b.db.Exec("ROLLBACK")
	}
	b.t.Logf("%d times the connection was replaced after ErrReaped", replaced)
}

// check looks on from outside the guard.
func (b *bank) check() {
	r := rand.New(rand.NewPCG(b.seed, 200))
	checks, replays := 0, 0
	for n := 0; !b.over(); n++ {
		b.mu.Lock()
		reported := len(b.committed)
		b.mu.Unlock()
		tx, err := b.raw.Begin()
		if err != nil {
			b.t.Errorf("checker: %v", err)
			return
		}
		var sum, there int
		if err = tx.QueryRow("SELECT sum(balance) FROM accounts").Scan(&sum); err == nil && sum != total {
			b.t.Errorf("law 1: the sum is %d, want %d", sum, total)
		}
		checks++
		if n%50 == 0 && err == nil {
			err = tx.QueryRow("SELECT count(*) FROM journal").Scan(&there)
			if err == nil && there < reported {
				b.t.Errorf("law 1: %d transfers were reported committed, %d are there", reported, there)
			}
			if err == nil {
				err = b.replay(tx)
			}
			replays++
		}
		tx.Rollback()
		if err != nil {
			b.t.Errorf("checker: %v", err)
		}
		time.Sleep(time.Duration(500+r.IntN(3000)) * time.Microsecond) // a chaos pause
	}
	b.t.Logf("%d times the sum was checked, %d times the journal", checks, replays)
}

// replay compares the balances with the journal.
func (b *bank) replay(q interface {
	QueryRow(string, ...any) *sql.Row
}) error {
	var wrong sql.NullString
	err := q.QueryRow(fmt.Sprintf(`
		WITH moved(account, amount) AS (SELECT src, -amount FROM journal UNION ALL SELECT dst, amount FROM journal),
			should(account, balance) AS (SELECT account, sum(amount) + %d FROM moved GROUP BY account)
		SELECT group_concat(id || ': ' || accounts.balance || ' for ' || coalesce(should.balance, %[1]d))
		FROM accounts LEFT JOIN should ON account = id WHERE accounts.balance <> coalesce(should.balance, %[1]d)`,
		startBalance)).Scan(&wrong)
	if wrong.Valid {
		b.t.Errorf("law 1: balances differ from the journal: %s", wrong.String)
	}
	return err
}

// close ends the run and compares the database with what was reported.
func (b *bank) close() {
	t := b.t
	if err := b.db.Close(); err != nil {
		t.Errorf("closing the pool: %v", err)
	}
	b.tracker.Close()

	there := make(map[int64]transfer)
	rows, err := b.raw.Query("SELECT id, src, dst, amount FROM journal")
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var tr transfer
		if err := rows.Scan(&tr.id, &tr.from, &tr.to, &tr.amount); err != nil {
			t.Fatal(err)
		}
		there[tr.id] = tr
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	for id, tr := range b.committed {
		if got, ok := there[id]; !ok || got != tr {
			t.Errorf("law 1: transfer %d was reported committed: %v, in the journal: %v", id, tr, got)
		}
	}
	for id, why := range b.failed {
		if _, ok := there[id]; ok {
			t.Errorf("law 1: transfer %d was reported failed (%s) and is there", id, why)
		}
	}
	halves, err := b.raw.Query("SELECT transfer, count(*), group_concat(account || ': ' || amount) FROM moves GROUP BY transfer")
	if err != nil {
		t.Fatal(err)
	}
	for halves.Next() {
		var id int64
		var n int
		var what string
		if err := halves.Scan(&id, &n, &what); err != nil {
			t.Fatal(err)
		}
		if _, ok := b.committed[id]; !ok || n != 2 {
			t.Errorf("law 1: transfer %d (%s) left %d moves: %s", id, b.failed[id], n, what)
		}
	}
	if err := halves.Err(); err != nil {
		t.Fatal(err)
	}
	if n := len(b.committed) + len(b.failed); int64(n) != b.nextID.Load() {
		t.Errorf("%d transfers were begun and %d reported", b.nextID.Load(), n)
	}
	if err := b.replay(b.raw); err != nil {
		t.Error(err)
	}
	one := func(query string) (s string) {
		if err := b.raw.QueryRow(query).Scan(&s); err != nil {
			t.Errorf("%s: %v", query, err)
		}
		return s
	}
	if s := one("SELECT sum(balance) FROM accounts"); s != fmt.Sprint(total) {
		t.Errorf("law 1: the sum is %s, want %d", s, total)
	}
	if s := one("SELECT count(*) FROM poison"); s != "0" {
		t.Errorf("law 1: %s statements of transactions that were rolled back are there", s)
	}
	if s := one("PRAGMA integrity_check"); s != "ok" {
		t.Errorf("integrity_check: %s", s)
	}
	var busy, log, checkpointed int
	if err := b.raw.QueryRow("PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &log, &checkpointed); err != nil || busy != 0 {
		t.Errorf("wal_checkpoint: busy=%d, %v", busy, err)
	}
	if err := b.raw.Close(); err != nil {
		t.Error(err)
	}
	for _, name := range openFiles(t, b.file) {
		t.Errorf("%s is still open", name)
	}

	st := b.connector.Stats()
	if st.TotalConnections != 0 || st.OpenTransactions != 0 || st.OpenRows != 0 || st.OpenStatements != 0 || st.LeakDetection.PotentiallyLeakedCount != 0 {
		t.Errorf("something is left: %+v", st)
	}
	if st.Reaped+st.Recovered != st.LeakedDetected {
		t.Errorf("%d leaks found, %d reaped and %d recovered", st.LeakedDetected, st.Reaped, st.Recovered)
	}
	if st.Expired > st.Recycled || st.Recycled > st.Created || st.ForceClosed > st.Created || st.Created != uint64(b.opened.Load()) {
		t.Errorf("%d connections opened, %d counted as created, %d recycled, %d of them expired, %d closed by the guard",
			b.opened.Load(), st.Created, st.Recycled, st.Expired, st.ForceClosed)
	}
	if all := b.tracker.Stats(); all.LeakedDetected != st.LeakedDetected || all.Created != st.Created || all.CallbackPanics != 0 {
		t.Errorf("the tracker counts %+v, the pool %+v", all, st)
	}
	if len(b.committed) == 0 || len(b.failed) == 0 || st.Reaped == 0 {
		t.Errorf("no chaos: %d committed, %d failed, %d reaped", len(b.committed), len(b.failed), st.Reaped)
	}

	t.Logf("%d transfers: %d committed, %d failed; %d forgotten, %d remembered, %d of them committed late; %d went on after an error; %d reads, %d of them reaped; longest statement %v",
		b.nextID.Load(), len(b.committed), len(b.failed), b.forgotten.Load(), b.remembered.Load(), b.lateCommits.Load(),
		b.stubborn.Load(), b.reads.Load(), b.reapedRows.Load(), time.Duration(b.worst.Load()).Round(10*time.Microsecond))
	t.Logf("%d connections, %d leases of used ones; %d leaks, %d reaped, %d recovered; %d recycled, %d of them expired, %d closed by the guard; %d events dropped",
		st.Created, st.Reused, st.LeakedDetected, st.Reaped, st.Recovered, st.Recycled, st.Expired, st.ForceClosed, st.EventsDropped)
	for _, name := range slices.Sorted(maps.Keys(b.errors)) {
		t.Logf("%6d × %s", b.errors[name], name)
	}
}

// openFiles returns the process's open files whose name begins with prefix,
// none where /proc is not there.
func openFiles(t *testing.T, prefix string) (open []string) {
	dir, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Logf("open files are not checked: %v", err)
		return nil
	}
	for _, fd := range dir {
		if name, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(name, prefix) {
			open = append(open, name)
		}
	}
	return open
}
