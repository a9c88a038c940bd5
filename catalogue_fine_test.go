package leakguard

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/testdata/catalogue/layer"
	"github.com/sqlite-leakguard/sqlite-leakguard/testdata/catalogue/store"
)

// behaving has the programs that look like a leak and are none. Each pause is
// shorter than leak_after, each transaction than tx_timeout; otherwise they
// take what time they like.
type behaving struct{}

const slow = 4*time.Minute + 30*time.Second // just below leak_after

// Rows.

func (behaving) StreamForAnHour(p *program) {
	rows := ok(p.QueryContext(p.ctx, orders))
	defer rows.Close()
	n := 0
	for rows.Next() {
		n++
		time.Sleep(time.Minute)
	}
	check(rows.Err())
	if n != 60 {
		panic(n)
	}
}

func (behaving) SlowConsumer(p *program) {
	rows := ok(p.QueryContext(p.ctx, orders))
	defer rows.Close()
	for rows.Next() {
		time.Sleep(slow)
	}
	check(rows.Err())
}

func (behaving) StreamBesideWork(p *program) {
	rows := ok(p.QueryContext(p.ctx, orders))
	defer rows.Close()
	for rows.Next() {
		var id int
		check(rows.Scan(&id))
		ok(p.ExecContext(p.ctx, "UPDATE orders SET customer = customer || '!' WHERE id = ?", id))
		time.Sleep(time.Minute)
	}
	check(rows.Err())
}

func (behaving) StreamAndWorkOnOneConn(p *program) {
	c := ok(p.DB.Conn(p.ctx))
	defer c.Close()
	rows := ok(c.QueryContext(p.ctx, orders))
	defer rows.Close()
	for rows.Next() {
		ok(c.ExecContext(p.ctx, "SELECT 1"))
		time.Sleep(3 * time.Minute)
	}
	check(rows.Err())
}

func (behaving) StreamBesideBusyWork(p *program) {
	c := ok(p.DB.Conn(p.ctx))
	defer c.Close()
	rows := ok(c.QueryContext(p.ctx, orders))
	defer rows.Close()
	for i := 0; rows.Next() && i < 10; i++ {
		for range 16 { // the rows rest, their connection does not
			ok(c.ExecContext(p.ctx, "SELECT 1"))
			time.Sleep(17 * time.Second)
		}
	}
	check(rows.Err())
}

func (behaving) StreamIntoAChannel(p *program) {
	ids := make(chan int)
	go func() {
		defer close(ids)
		rows := ok(p.QueryContext(p.ctx, orders))
		defer rows.Close()
		for rows.Next() {
			var id int
			check(rows.Scan(&id))
			ids <- id
		}
	}()
	for range ids {
		time.Sleep(2 * time.Minute)
	}
}

func (behaving) MergeOfTwoStreams(p *program) {
	a := ok(p.QueryContext(p.ctx, orders))
	defer a.Close()
	b := ok(p.QueryContext(p.ctx, orders+" ORDER BY customer"))
	defer b.Close()
	for a.Next() && b.Next() {
		time.Sleep(slow)
	}
	check(errors.Join(a.Err(), b.Err()))
}

func (behaving) ReadToTheEndWithoutClose(p *program) {
	rows := ok(p.QueryContext(p.ctx, orders))
	for rows.Next() {
	}
	check(rows.Err())
	p.keep(rows)
}

func (behaving) EmptyResultWithoutClose(p *program) {
	rows := ok(p.QueryContext(p.ctx, noOrder))
	if rows.Next() {
		panic("a row")
	}
	p.keep(rows)
}

func (behaving) BreakAndClose(p *program) {
	rows := ok(p.QueryContext(p.ctx, orders))
	for rows.Next() {
		break
	}
	check(rows.Close())
	p.keep(rows)
}

func (behaving) NeverReadAndClosed(p *program) {
	check(ok(p.QueryContext(p.ctx, returning)).Close())
}

func (behaving) ClosedTwice(p *program) {
	rows := ok(p.QueryContext(p.ctx, orders))
	defer rows.Close()
	rows.Next()
	check(rows.Close())
}

func (behaving) EarlyReturnWithDefer(p *program) {
	read := func() error {
		rows, err := p.QueryContext(p.ctx, "SELECT customer FROM orders")
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id int
			if err := rows.Scan(&id); err != nil {
				return err
			}
		}
		return rows.Err()
	}
	if read() == nil {
		panic("no error")
	}
}

func (behaving) PanicWithDefer(p *program) {
	defer func() { recover() }()
	rows := ok(p.QueryContext(p.ctx, orders))
	defer rows.Close()
	rows.Next()
	panic("in between")
}

func (behaving) ClosedByCancel(p *program) {
	ctx, cancel := context.WithCancel(p.ctx)
	rows := ok(p.QueryContext(ctx, orders))
	rows.Next()
	p.keep(rows)
	cancel()
}

func (behaving) ClosedByTimeout(p *program) {
	ctx, cancel := context.WithTimeout(p.ctx, slow)
	p.finally(cancel)
	rows := ok(p.QueryContext(ctx, orders))
	rows.Next()
	p.keep(rows)
}

func (behaving) ClosedByTheEndOfTheTx(p *program) {
	tx := ok(p.BeginTx(p.ctx, nil))
	rows := ok(tx.QueryContext(p.ctx, orders))
	rows.Next()
	p.keep(rows)
	time.Sleep(slow)
	check(tx.Rollback())
}

func (behaving) ClosedByAnotherGoroutine(p *program) {
	rows := ok(p.QueryContext(p.ctx, orders))
	rows.Next()
	time.AfterFunc(slow, func() { rows.Close() })
}

func (behaving) ClosedByTheOwnerOfTheStruct(p *program) {
	c := &cursor{}
	c.rows = ok(p.QueryContext(p.ctx, orders))
	defer func() { c.rows.Close() }()
	for c.rows.Next() {
		time.Sleep(slow)
	}
}

func (behaving) QueryRowAndScan(p *program) {
	for range 30 {
		var id int
		check(p.QueryRowContext(p.ctx, order7).Scan(&id))
		time.Sleep(time.Minute)
	}
}

func (behaving) QueryRowWithoutARow(p *program) {
	var id int
	if err := p.QueryRowContext(p.ctx, noOrder).Scan(&id); err != sql.ErrNoRows {
		panic(err)
	}
}

func (behaving) QueryRowThatCannotBeScanned(p *program) {
	var id int
	if p.QueryRowContext(p.ctx, "SELECT customer FROM orders").Scan(&id) == nil {
		panic("no error")
	}
}

func (behaving) InsertReturningScanned(p *program) {
	var id int
	check(p.QueryRowContext(p.ctx, returning).Scan(&id))
}

func (behaving) InsertReturningExecuted(p *program) {
	ok(p.ExecContext(p.ctx, returning))
	stmt := ok(p.PrepareContext(p.ctx, returning))
	defer stmt.Close()
	ok(stmt.ExecContext(p.ctx))
}

func (behaving) QueryThatFails(p *program) {
	if _, err := p.QueryContext(p.ctx, "SELECT nothing FROM nowhere"); err == nil {
		panic("no error")
	}
	ctx, cancel := context.WithCancel(p.ctx)
	cancel()
	if _, err := p.QueryContext(ctx, orders); err != context.Canceled {
		panic(err)
	}
}

func (behaving) SeveralResultSets(p *program) {
	rows := ok(p.QueryContext(p.ctx, order7+"; "+orders))
	defer rows.Close()
	for rows.Next() || rows.NextResultSet() {
		time.Sleep(slow)
	}
}

func fineOrders(ctx context.Context, db *sql.DB) iter.Seq[int] {
	return func(yield func(int) bool) {
		rows := ok(db.QueryContext(ctx, orders))
		defer rows.Close()
		for rows.Next() {
			var id int
			check(rows.Scan(&id))
			if !yield(id) {
				return
			}
		}
	}
}

func (behaving) IteratorBrokenOff(p *program) {
	for id := range fineOrders(p.ctx, p.DB) {
		time.Sleep(slow)
		if id == 20 {
			break
		}
	}
}

func (behaving) IteratorPulledAndStopped(p *program) {
	next, stop := iter.Pull(fineOrders(p.ctx, p.DB))
	defer stop()
	for range 10 {
		next()
		time.Sleep(slow)
	}
}

func (behaving) Layers(p *program) {
	rows := ok((&layer.DB{DB: p.DB}).Select(p.ctx, orders))
	defer rows.Close()
	for rows.Next() {
		time.Sleep(slow)
	}
	c := ok(store.Take(p.ctx, store.Deep{Store: store.Store{DB: p.DB}}))
	check(c.Close())
}

// Statements.

func (behaving) StatementForTheLifeOfTheProgram(p *program) {
	stmt := ok(p.PrepareContext(p.ctx, order7))
	defer stmt.Close()
	for range 20 {
		var id int
		check(stmt.QueryRowContext(p.ctx).Scan(&id))
		time.Sleep(10 * time.Minute) // its connection is closed meanwhile
	}
	p.keep(stmt)
}

func (behaving) StatementNeverClosed(p *program) {
	p.keep(ok(p.PrepareContext(p.ctx, order7)))
}

func (behaving) StatementsOfManyTexts(p *program) {
	p.SetMaxOpenConns(1)
	for i := range 99 {
		p.keep(ok(p.PrepareContext(p.ctx, fmt.Sprintf("%s LIMIT %d", orders, i))))
	}
}

func (behaving) StatementsBelowTheLimit(p *program) {
	p.SetMaxOpenConns(1)
	for range 99 {
		p.keep(ok(p.PrepareContext(p.ctx, order7)))
	}
}

func (behaving) StatementsInALoopClosed(p *program) {
	for range 500 {
		stmt := ok(p.PrepareContext(p.ctx, order7))
		var id int
		check(stmt.QueryRowContext(p.ctx).Scan(&id))
		check(stmt.Close())
		time.Sleep(time.Second)
	}
}

func (behaving) StatementsClosedByTheirTx(p *program) {
	for range 4 {
		tx := ok(p.BeginTx(p.ctx, nil))
		for range 60 {
			ok(tx.PrepareContext(p.ctx, order7))
		}
		check(tx.Commit())
	}
	time.Sleep(time.Hour)
}

func (behaving) StatementOverManyConnections(p *program) {
	stmt := ok(p.PrepareContext(p.ctx, order7))
	defer stmt.Close()
	var held []*sql.Conn
	for range 20 {
		held = append(held, ok(p.DB.Conn(p.ctx)))
		var id int
		check(stmt.QueryRowContext(p.ctx).Scan(&id))
	}
	for _, c := range held {
		c.Close()
	}
}

// Connections.

// Reported each time that it rests, and left alone.
func (behaving) ConnHeldOnPurpose(p *program) {
	c := ok(p.DB.Conn(Exempt(p.ctx, "leader lock"))) // exempt:connection x2
	ok(c.ExecContext(p.ctx, "SELECT 1"))
	p.keep(c)
	time.Sleep(2 * time.Hour)
	ok(c.ExecContext(p.ctx, newOrder))
	time.Sleep(time.Hour)
	check(c.Close())
}

func (behaving) ConnThatPolls(p *program) {
	c := ok(p.DB.Conn(p.ctx))
	defer c.Close()
	for range 120 {
		ok(c.ExecContext(p.ctx, "PRAGMA data_version"))
		time.Sleep(time.Minute)
	}
}

func (behaving) ConnThatPings(p *program) {
	c := ok(p.DB.Conn(p.ctx))
	defer c.Close()
	ok(c.ExecContext(p.ctx, "CREATE TEMP TABLE mine(a)"))
	for range 40 {
		check(c.PingContext(p.ctx))
		time.Sleep(slow)
	}
}

func (behaving) ConnGivenBack(p *program) {
	for range 200 {
		c := ok(p.DB.Conn(p.ctx))
		ok(c.ExecContext(p.ctx, newOrder))
		check(c.Close())
		time.Sleep(30 * time.Second)
	}
}

func (behaving) ConnUsedRaw(p *program) {
	c := ok(p.DB.Conn(p.ctx))
	defer c.Close()
	check(c.Raw(func(opened any) error {
		inner, is := SQLiteConn(opened.(driver.Conn))
		if !is {
			return errors.New("not go-sqlite3's")
		}
		return inner.RegisterFunc("one", func() int { return 1 }, true)
	}))
	time.Sleep(slow)
}

func (behaving) ConnWaitedFor(p *program) {
	p.SetMaxOpenConns(1)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			c := ok(p.DB.Conn(p.ctx))
			time.Sleep(slow)
			c.Close()
		})
	}
	wg.Wait()
}

func (behaving) PoolThatIdles(p *program) {
	for range 3 {
		ok(p.ExecContext(p.ctx, newOrder))
		time.Sleep(5 * time.Hour)
	}
}

func (behaving) PollsThePool(p *program) {
	for range 1000 {
		var id int
		check(p.QueryRowContext(p.ctx, "SELECT max(id) FROM orders").Scan(&id))
		time.Sleep(10 * time.Second)
	}
}

// Transactions.

func (behaving) RollbackAfterCommit(p *program) {
	work := func() error {
		tx, err := p.BeginTx(p.ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if _, err := tx.ExecContext(p.ctx, newOrder); err != nil {
			return err
		}
		return tx.Commit()
	}
	for range 10 {
		check(work())
		time.Sleep(10 * time.Minute)
	}
}

func (behaving) RollbackByDefer(p *program) {
	defer func() { recover() }()
	tx := ok(p.BeginTx(p.ctx, nil))
	defer tx.Rollback()
	ok(tx.ExecContext(p.ctx, newOrder))
	panic("in between")
}

func (behaving) RollbackByCancel(p *program) {
	ctx, cancel := context.WithCancel(p.ctx)
	tx := ok(p.BeginTx(ctx, nil))
	ok(tx.ExecContext(ctx, newOrder))
	p.keep(tx)
	time.Sleep(slow)
	cancel()
}

func (behaving) TxThatMoves(p *program) {
	tx := ok(p.BeginTx(p.ctx, nil))
	defer tx.Rollback()
	for range 9 {
		ok(tx.ExecContext(p.ctx, newOrder))
		time.Sleep(time.Minute)
	}
	check(tx.Commit())
}

func (behaving) TxThatThinks(p *program) {
	tx := ok(p.BeginTx(p.ctx, nil))
	defer tx.Rollback()
	ok(tx.ExecContext(p.ctx, newOrder))
	time.Sleep(slow)
	check(tx.Commit())
}

func (behaving) TxThatReadsOn(p *program) {
	tx := ok(p.BeginTx(p.ctx, &sql.TxOptions{ReadOnly: true}))
	defer tx.Rollback()
	rows := ok(tx.QueryContext(p.ctx, orders+" LIMIT 9"))
	defer rows.Close()
	for rows.Next() {
		time.Sleep(time.Minute)
	}
	check(rows.Err())
}

func (behaving) TxExempt(p *program) {
	tx := ok(p.BeginTx(Exempt(p.ctx, "nightly import"), nil)) // exempt:transaction/tx_timeout
	defer tx.Rollback()
	for range 60 {
		ok(tx.ExecContext(p.ctx, newOrder))
		time.Sleep(time.Minute)
	}
	check(tx.Commit())
}

func (behaving) RowsExempt(p *program) {
	rows := ok(p.QueryContext(Exempt(p.ctx, "export"), orders)) // exempt:rows
	defer rows.Close()
	rows.Next()
	time.Sleep(time.Hour)
	if !rows.Next() {
		panic(rows.Err())
	}
}

func (behaving) FanOut(p *program) {
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	p.SetMaxOpenConns(4)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			var id int
			check(p.QueryRowContext(ctx, "SELECT id FROM orders WHERE id = ?", i+1).Scan(&id))
			rows := ok(p.QueryContext(ctx, orders))
			defer rows.Close()
			for rows.Next() {
				time.Sleep(time.Second)
			}
		})
	}
	wg.Wait()
}

func (behaving) FirstErrorEndsAll(p *program) {
	ctx, cancel := context.WithCancelCause(p.ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			rows, err := p.QueryContext(ctx, orders)
			if err != nil {
				return
			}
			defer rows.Close()
			for rows.Next() {
				time.Sleep(time.Second)
				if i == 5 {
					cancel(errors.New("enough"))
				}
			}
		})
	}
	wg.Wait()
}

func (behaving) JobEveryHalfHour(p *program) {
	for range 20 {
		tx := ok(p.BeginTx(p.ctx, nil))
		ok(tx.ExecContext(p.ctx, newOrder))
		time.Sleep(time.Minute)
		check(tx.Commit())
		time.Sleep(29 * time.Minute)
	}
}

func (behaving) RetriesWhileBusy(p *program) {
	writer := ok(p.BeginTx(p.ctx, nil))
	ok(writer.ExecContext(p.ctx, newOrder))
	time.AfterFunc(slow, func() { writer.Commit() })
	for tries := 0; ; tries++ {
		tx := ok(p.BeginTx(p.ctx, nil))
		_, err := tx.ExecContext(p.ctx, newOrder)
		if err == nil {
			check(tx.Commit())
			return
		}
		if busy, is := err.(sqlite3.Error); !is || busy.Code != sqlite3.ErrBusy || tries > 1000 {
			panic(err)
		}
		check(tx.Rollback())
		time.Sleep(time.Second)
	}
}

func (behaving) Nested(p *program) {
	check(InTx(p.ctx, p.DB, nil, func(ctx context.Context, tx *sql.Tx) error {
		ok(tx.ExecContext(ctx, newOrder))
		time.Sleep(slow)
		InTx(ctx, p.DB, nil, func(ctx context.Context, tx *sql.Tx) error {
			ok(tx.ExecContext(ctx, newOrder))
			time.Sleep(2 * time.Minute)
			return errors.New("the inner one only")
		})
		return nil
	}))
}

func (behaving) CommitThatFails(p *program) {
	ok(p.ExecContext(p.ctx, "CREATE TABLE parts(o REFERENCES orders DEFERRABLE INITIALLY DEFERRED)"))
	c := ok(p.DB.Conn(p.ctx))
	defer c.Close()
	ok(c.ExecContext(p.ctx, "PRAGMA foreign_keys = on"))
	tx := ok(c.BeginTx(p.ctx, nil))
	defer tx.Rollback()
	ok(tx.ExecContext(p.ctx, "INSERT INTO parts VALUES(-1)"))
	if tx.Commit() == nil {
		panic("no error")
	}
}

func (behaving) BeginThatFails(p *program) {
	ctx, cancel := context.WithCancel(p.ctx)
	cancel()
	if _, err := p.BeginTx(ctx, nil); err == nil {
		panic("no error")
	}
}

func (behaving) OutlivesItsRequest(p *program) {
	ctx, cancel := context.WithCancel(p.ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tx := ok(p.BeginTx(context.WithoutCancel(ctx), nil))
		defer tx.Rollback()
		time.Sleep(slow)
		ok(tx.ExecContext(context.WithoutCancel(ctx), newOrder))
		check(tx.Commit())
	}()
	cancel()
	<-done
}

// Transactions by text.

func (behaving) TextOverLeases(p *program) {
	p.SetMaxOpenConns(1)
	for range 3 {
		ok(p.ExecContext(p.ctx, "BEGIN"))
		for range 40 {
			time.Sleep(400 * time.Millisecond)
			ok(p.ExecContext(p.ctx, newOrder))
		}
		ok(p.ExecContext(p.ctx, "COMMIT"))
		time.Sleep(time.Minute)
	}
}

func (behaving) TextOverManyLeases(p *program) {
	p.SetMaxOpenConns(1)
	ok(p.ExecContext(p.ctx, "BEGIN"))
	for range 600 {
		time.Sleep(800 * time.Millisecond)
		ok(p.ExecContext(p.ctx, newOrder))
	}
	ok(p.ExecContext(p.ctx, "COMMIT"))
}

func (behaving) TextInOnePiece(p *program) {
	ok(p.ExecContext(p.ctx, "BEGIN; "+newOrder+"; "+newOrder+"; COMMIT"))
	ok(p.ExecContext(p.ctx, "SAVEPOINT s; "+newOrder+"; RELEASE s"))
}

func (behaving) TextOnAConn(p *program) {
	c := ok(p.DB.Conn(p.ctx))
	defer c.Close()
	ok(c.ExecContext(p.ctx, "BEGIN IMMEDIATE"))
	defer c.ExecContext(background, "ROLLBACK")
	ok(c.ExecContext(p.ctx, newOrder))
	time.Sleep(slow)
	ok(c.ExecContext(p.ctx, "COMMIT"))
	time.Sleep(slow)
}

func (behaving) TextSavepoints(p *program) {
	c := ok(p.DB.Conn(p.ctx))
	defer c.Close()
	ok(c.ExecContext(p.ctx, "SAVEPOINT a"))
	time.Sleep(slow)
	ok(c.ExecContext(p.ctx, "SAVEPOINT b"))
	ok(c.ExecContext(p.ctx, "ROLLBACK TO a"))
	time.Sleep(slow)
	ok(c.ExecContext(p.ctx, "RELEASE a"))
	ok(p.ExecContext(p.ctx, "/* BEGIN */ SELECT 'BEGIN' -- BEGIN"))
}

func (behaving) TextPrepared(p *program) {
	p.SetMaxOpenConns(1)
	begin, commit := ok(p.PrepareContext(p.ctx, "BEGIN")), ok(p.PrepareContext(p.ctx, "COMMIT"))
	defer begin.Close()
	defer commit.Close()
	ok(begin.ExecContext(p.ctx))
	ok(p.ExecContext(p.ctx, newOrder))
	ok(commit.ExecContext(p.ctx))
}

func (behaving) TextEndedByAnError(p *program) {
	p.SetMaxOpenConns(1)
	if _, err := p.ExecContext(p.ctx, "BEGIN; INSERT OR ROLLBACK INTO orders(id) VALUES(1)"); err == nil {
		panic("no error")
	}
}

// Statements that run.

func (behaving) QueryThatRunsForHours(p *program) {
	var n int
	check(p.QueryRowContext(p.ctx, "SELECT sum(pause(3600)) FROM "+three).Scan(&n))
}

func (behaving) InsertThatRunsForHours(p *program) {
	ok(p.ExecContext(p.ctx, "INSERT INTO orders(customer) SELECT pause(3600+i) FROM "+three))
}

func (behaving) InsertThatRunsInATx(p *program) {
	tx := ok(p.BeginTx(p.ctx, nil))
	defer tx.Rollback()
	ok(tx.ExecContext(p.ctx, "INSERT INTO orders(customer) SELECT pause(180+i) FROM "+three))
	check(tx.Commit())
}

func (behaving) RowsThatTakeLongEach(p *program) {
	rows := ok(p.QueryContext(p.ctx, "SELECT pause(1800+i) FROM "+three))
	defer rows.Close()
	for rows.Next() {
		time.Sleep(slow)
	}
	check(rows.Err())
}

func (behaving) QueryThatIsCancelled(p *program) {
	ctx, cancel := context.WithTimeout(p.ctx, time.Hour)
	defer cancel()
	if err := p.QueryRowContext(ctx, "SELECT sum(pause(3000+i)) FROM "+three).Scan(new(int)); err == nil {
		panic("no error")
	}
}
