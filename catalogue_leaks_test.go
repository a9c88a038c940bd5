package leakguard

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"iter"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/testdata/catalogue/layer"
	"github.com/sqlite-leakguard/sqlite-leakguard/testdata/catalogue/layers"
	"github.com/sqlite-leakguard/sqlite-leakguard/testdata/catalogue/store"
)

// leaking has the patterns of forgetting that age shows.
type leaking struct{}

// Rows, by where they come from.

func (leaking) RowsOfDB(p *program) {
	rows := ok(p.QueryContext(p.ctx, orders)) // leak:rows
	rows.Next()
}

func (leaking) RowsNeverRead(p *program) {
	p.keep(ok(p.QueryContext(p.ctx, orders))) // leak:rows
}

func (leaking) RowsWithoutContext(p *program) {
	p.keep(ok(p.Query(orders))) // leak:rows
}

func (leaking) RowsOfConn(p *program) {
	c := ok(p.Conn(p.ctx))
	rows := ok(c.QueryContext(p.ctx, orders)) // leak:rows
	rows.Next()
	p.keep(rows)
}

func (leaking) RowsOfTx(p *program) {
	tx := ok(p.BeginTx(p.ctx, nil)) // leak:transaction
	p.finally(func() { tx.Rollback() })
	rows := ok(tx.QueryContext(p.ctx, orders)) // leak:rows
	rows.Next()
	p.keep(rows)
}

func (leaking) RowsOfStmt(p *program) {
	stmt := ok(p.PrepareContext(p.ctx, orders))
	p.keep(stmt)
	rows := ok(stmt.QueryContext(p.ctx)) // leak:rows
	rows.Next()
}

func (leaking) RowsOfConnStmt(p *program) {
	c := ok(p.Conn(p.ctx))
	stmt := ok(c.PrepareContext(p.ctx, orders))
	p.keep(stmt)
	rows := ok(stmt.QueryContext(p.ctx)) // leak:rows
	rows.Next()
	p.keep(rows)
}

func (leaking) RowsOfTxStmt(p *program) {
	stmt := ok(p.PrepareContext(p.ctx, orders))
	defer stmt.Close()
	tx := ok(p.BeginTx(p.ctx, nil)) // leak:transaction
	p.finally(func() { tx.Rollback() })
	rows := ok(tx.StmtContext(p.ctx, stmt).QueryContext(p.ctx)) // leak:rows
	rows.Next()
	p.keep(rows)
}

func (leaking) RowsOfStatementPreparedInTx(p *program) {
	tx := ok(p.BeginTx(p.ctx, nil)) // leak:transaction
	p.finally(func() { tx.Rollback() })
	stmt := ok(tx.PrepareContext(p.ctx, orders))
	p.keep(ok(stmt.QueryContext(p.ctx))) // leak:rows
}

func (leaking) RowsOfPragma(p *program) {
	rows := ok(p.QueryContext(p.ctx, "PRAGMA table_info(orders)")) // leak:rows
	rows.Next()
}

func (leaking) RowsOfExplain(p *program) {
	rows := ok(p.QueryContext(p.ctx, "EXPLAIN QUERY PLAN "+orders)) // leak:rows
	rows.Next()
}

func (leaking) RowsOfClosedDB(p *program) {
	rows := ok(p.QueryContext(p.ctx, orders)) // leak:rows
	rows.Next()
	p.keep(rows)
	check(p.Close())
}

func (leaking) InsertReturningUnread(p *program) {
	p.keep(ok(p.QueryContext(p.ctx, returning))) // leak:rows
}

func (leaking) RowNeverScanned(p *program) {
	p.keep(p.QueryRowContext(p.ctx, orders)) // leak:rows
}

func (leaking) RowOnlyAskedForItsError(p *program) {
	check(p.QueryRowContext(p.ctx, order7).Err()) // leak:rows
}

func (leaking) RowOfInsertReturningNeverScanned(p *program) {
	row := p.QueryRowContext(p.ctx, returning) // leak:rows
	p.keep(row)
}

func (leaking) RowOfConnNeverScanned(p *program) {
	p.keep(ok(p.Conn(p.ctx)).QueryRowContext(p.ctx, orders)) // leak:rows
}

func (leaking) RowOfStmtNeverScanned(p *program) {
	stmt := ok(p.Prepare(order7))
	p.keep(stmt)
	p.keep(stmt.QueryRowContext(p.ctx)) // leak:rows
}

func (leaking) RowOfTxNeverScanned(p *program) {
	tx := ok(p.Begin()) // leak:transaction
	p.finally(func() { tx.Rollback() })
	p.keep(tx.QueryRow(orders)) // leak:rows
}

// Rows, by how they are forgotten.

func (leaking) BreakOutOfLoop(p *program) {
	rows := ok(p.QueryContext(p.ctx, orders)) // leak:rows
	for rows.Next() {
		var id int
		check(rows.Scan(&id))
		if id == 7 {
			break
		}
	}
}

func (leaking) ReturnOnScanError(p *program) {
	read := func() error {
		rows, err := p.QueryContext(p.ctx, "SELECT customer FROM orders") // leak:rows
		if err != nil {
			return err
		}
		for rows.Next() {
			var id int
			if err := rows.Scan(&id); err != nil {
				return err
			}
		}
		return rows.Close()
	}
	if read() == nil {
		panic("no error")
	}
}

func (leaking) ReturnBeforeDefer(p *program) {
	rows, err := p.QueryContext(p.ctx, orders) // leak:rows
	if err != nil || time.Now().Year() > 1999 {
		return
	}
	defer rows.Close()
}

func (leaking) PanicBetweenOpenAndClose(p *program) {
	defer func() { recover() }()
	rows := ok(p.QueryContext(p.ctx, orders)) // leak:rows
	rows.Next()
	panic("in between")
}

func (leaking) VariableUsedAgain(p *program) {
	rows := ok(p.QueryContext(p.ctx, orders)) // leak:rows
	p.keep(rows)
	rows = ok(p.QueryContext(p.ctx, order7))
	defer rows.Close()
}

func (leaking) ShadowedVariable(p *program) {
	var rows *sql.Rows
	defer func() {
		if rows != nil {
			rows.Close()
		}
	}()
	if p != nil {
		rows, err := p.QueryContext(p.ctx, orders) // leak:rows
		check(err)
		rows.Next()
	}
}

func (leaking) OneOfSeveralInALoop(p *program) {
	for i := range 4 {
		rows := ok(p.QueryContext(p.ctx, orders)) // leak:rows
		if i == 2 {
			continue
		}
		rows.Close()
	}
}

func (leaking) NestedQueriesInnerForgotten(p *program) {
	outer := ok(p.QueryContext(p.ctx, "SELECT id FROM orders LIMIT 2"))
	defer outer.Close()
	for outer.Next() {
		var id int
		check(outer.Scan(&id))
		inner := ok(p.QueryContext(p.ctx, "SELECT customer FROM orders WHERE id = ?", id))
		if id == 1 {
			inner.Close()
			inner = ok(p.QueryContext(p.ctx, order7)) // leak:rows
			inner.Next()
			continue
		}
		inner.Close()
	}
}

func (leaking) NestedQueriesBothForgotten(p *program) {
	outer := ok(p.QueryContext(p.ctx, orders)) // leak:rows
	outer.Next()
	inner := ok(p.QueryContext(p.ctx, order7)) // leak:rows
	inner.Next()
}

// cursor is rows in a struct.
type cursor struct {
	rows *sql.Rows
	open bool
}

func (leaking) RowsInAStruct(p *program) {
	c := &cursor{open: true}
	c.rows = ok(p.QueryContext(p.ctx, orders)) // leak:rows
	c.rows.Next()
	p.keep(c)
}

func (leaking) RowsInAMap(p *program) {
	byUser := map[string]*sql.Rows{}
	for _, user := range []string{"ann", "bob"} {
		if rows := byUser[user]; rows == nil {
			byUser[user] = ok(p.QueryContext(p.ctx, orders)) // leak:rows x2
		}
	}
	p.keep(byUser)
}

func (leaking) RowsSentAndNeverReceived(p *program) {
	results := make(chan *sql.Rows, 1)
	results <- ok(p.QueryContext(p.ctx, orders)) // leak:rows
	p.keep(results)
}

// Rows, by whose line it is.

//go:noinline
func openOrders(ctx context.Context, p *program) *sql.Rows {
	return ok(p.QueryContext(ctx, orders)) // leak:rows for ReturnedByAHelper
}

func (leaking) ReturnedByAHelper(p *program) {
	rows := openOrders(p.ctx, p)
	rows.Next()
}

func inlinedOrders(ctx context.Context, db *sql.DB) (*sql.Rows, error) {
	return db.QueryContext(ctx, orders) // leak:rows for Inlined
}

func (leaking) Inlined(p *program) {
	rows := ok(inlinedOrders(p.ctx, p.DB))
	rows.Next()
}

func (leaking) InlinedTwice(p *program) {
	tx := ok(store.Begin(p.ctx, store.Store{DB: p.DB}))
	p.finally(func() { tx.Rollback() })
}

func firstOf[T any](ctx context.Context, db *sql.DB, query string) (v T) {
	rows := ok(db.QueryContext(ctx, query)) // leak:rows x2 for GenericHelper
	rows.Next()
	check(rows.Scan(&v))
	return v
}

func (leaking) GenericHelper(p *program) {
	firstOf[int](p.ctx, p.DB, orders)
	firstOf[string](p.ctx, p.DB, "SELECT customer FROM orders")
}

func (leaking) Closure(p *program) {
	list := func(query string) *sql.Rows {
		return ok(p.QueryContext(p.ctx, query)) // leak:rows
	}
	list(orders).Next()
}

func (leaking) MethodValue(p *program) {
	query := p.QueryContext
	rows := ok(query(p.ctx, orders)) // leak:rows
	rows.Next()
}

func (leaking) MethodExpression(p *program) {
	query := (*sql.DB).QueryContext
	rows := ok(query(p.DB, p.ctx, orders)) // leak:rows
	rows.Next()
}

func (leaking) MethodValueCalledByTheLibrary(p *program) {
	begin := sync.OnceValues(p.Begin)
	tx := ok(begin()) // leak:transaction
	p.finally(func() { tx.Rollback() })
}

func (leaking) Interface(p *program) {
	var q execer = p.DB
	rows := ok(q.QueryContext(p.ctx, orders)) // leak:rows
	rows.Next()
}

func (leaking) Reflection(p *program) {
	out := reflect.ValueOf(p.DB).MethodByName("QueryContext").Call([]reflect.Value{ // leak:rows
		reflect.ValueOf(&p.ctx).Elem(), reflect.ValueOf(orders),
	})
	out[0].Interface().(*sql.Rows).Next()
}

func (leaking) MadeFunction(p *program) {
	// As mocks and proxies make them.
	f := reflect.MakeFunc(reflect.TypeFor[func() (*sql.Tx, error)](), func([]reflect.Value) []reflect.Value {
		return reflect.ValueOf(p.Begin).Call(nil) // leak:transaction
	}).Interface().(func() (*sql.Tx, error))
	tx := ok(f())
	p.finally(func() { tx.Rollback() })
}

func (leaking) OverSeveralLines(p *program) {
	rows, err := p.
		QueryContext( // leak:rows
			p.ctx,
			orders,
		)
	check(err)
	rows.Next()
}

func (leaking) InADefer(p *program) {
	defer func() {
		rows := ok(p.QueryContext(p.ctx, orders)) // leak:rows
		rows.Next()
	}()
}

func (leaking) InADeferWhilePanicking(p *program) {
	defer func() { recover() }()
	defer func() {
		p.keep(ok(p.QueryContext(p.ctx, orders))) // leak:rows
	}()
	var none *cursor
	none.open = true
}

func (leaking) InAGoroutine(p *program) {
	go func() {
		rows := ok(p.QueryContext(p.ctx, orders)) // leak:rows
		rows.Next()
	}()
}

func (leaking) GoroutineByItself(p *program) {
	go p.QueryRowContext(p.ctx, orders) // leak:rows
}

func (leaking) DeferByItself(p *program) {
	defer p.QueryRowContext(p.ctx, orders) // leak:rows
	p.keep(p)
}

func (leaking) OneWorkerOfMany(p *program) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			rows := ok(p.QueryContext(p.ctx, orders)) // leak:rows
			if i != 5 {
				rows.Close()
			}
		})
	}
	wg.Wait()
}

func (leaking) InATimer(p *program) {
	time.AfterFunc(time.Second, func() {
		p.keep(ok(p.QueryContext(p.ctx, orders))) // leak:rows
	})
}

func (leaking) WhenAContextEnds(p *program) {
	ctx, cancel := context.WithCancel(p.ctx)
	context.AfterFunc(ctx, func() {
		p.keep(ok(p.QueryContext(context.WithoutCancel(ctx), orders))) // leak:rows
	})
	cancel()
}

func (leaking) OnlyOnce(p *program) {
	var once sync.Once
	for range 3 {
		once.Do(func() {
			p.keep(ok(p.QueryContext(p.ctx, orders))) // leak:rows
		})
	}
}

func (leaking) CalledBack(p *program) {
	p.keep(slices.ContainsFunc([]int{1, 2, 3}, func(id int) bool {
		rows := ok(p.QueryContext(p.ctx, "SELECT id FROM orders WHERE id = ?", id)) // leak:rows
		if id == 2 {
			return rows.Next()
		}
		return rows.Close() != nil
	}))
}

func (leaking) DeepRecursion(p *program) {
	var walk func(n int) *sql.Rows
	walk = func(n int) *sql.Rows {
		if n == 0 {
			return ok(p.QueryContext(p.ctx, orders)) // leak:rows
		}
		rows := walk(n - 1)
		p.keep(n)
		return rows
	}
	p.keep(walk(100))
}

func allOrders(ctx context.Context, p *program) iter.Seq2[int, error] {
	return func(yield func(int, error) bool) {
		rows := ok(p.QueryContext(ctx, orders)) // leak:rows for IteratorBrokenOff,IteratorNeverStopped
		for rows.Next() {
			var id int
			if err := rows.Scan(&id); !yield(id, err) {
				return
			}
		}
	}
}

func (leaking) IteratorBrokenOff(p *program) {
	for id, err := range allOrders(p.ctx, p) {
		check(err)
		if id == 7 {
			break
		}
	}
}

func (leaking) IteratorNeverStopped(p *program) {
	next, stop := iter.Pull2(allOrders(p.ctx, p))
	p.finally(stop)
	next()
}

func (leaking) IteratorOfOwnLayer(p *program) { store.Any(p.ctx, p.DB) }

func (leaking) OwnLayer(p *program) { store.Store{DB: p.DB}.First(p.ctx) }

func (leaking) EmbeddedDB(p *program) {
	s := store.Store{DB: p.DB}
	rows := ok(s.QueryContext(p.ctx, orders)) // leak:rows
	rows.Next()
}

func (leaking) EmbeddedBehindInterface(p *program) { store.FirstOf(p.ctx, store.Store{DB: p.DB}) }

func (leaking) EmbeddedTwice(p *program) {
	store.FirstOf(p.ctx, &store.Deep{Store: store.Store{DB: p.DB}})
}

func (leaking) EmbeddedInterface(p *program) {
	store.FirstOf(p.ctx, store.NewHidden(store.NewHidden(p.DB)))
}

func (leaking) GenericOverInterface(p *program) {
	p.keep(ok(store.Take[store.Querier](p.ctx, p.DB)))
}

func (leaking) GenericOverStruct(p *program) {
	p.keep(ok(store.Take(p.ctx, store.Deep{Store: store.Store{DB: p.DB}})))
}

func (leaking) GenericRepository(p *program) {
	r := store.NewRepo[cursor](p.DB)
	check(r.Start(p.ctx))
	p.finally(r.Stop)
}

// A library around database/sql that is to be skipped.

func (leaking) Layer(p *program) {
	rows := ok((&layer.DB{DB: p.DB}).Select(p.ctx, orders)) // leak:rows
	rows.Next()
}

func (leaking) LayerGeneric(p *program) {
	c := ok(layer.Open[int](p.ctx, &layer.DB{DB: p.DB}, orders)) // leak:rows
	ok(c.One())
}

func (leaking) LayerBegins(p *program) {
	tx := ok(layer.Begin(p.ctx, &layer.DB{DB: p.DB})) // leak:transaction
	p.finally(func() { tx.Rollback() })
}

func (leaking) LayerByMethodValue(p *program) {
	query := (&layer.DB{DB: p.DB}).Select
	ok(query(p.ctx, orders)).Next() // leak:rows
}

func (leaking) LayerEmbedded(p *program) {
	service := struct {
		*layer.DB
		name string
	}{&layer.DB{DB: p.DB}, "orders"}
	ok(service.QueryContext(p.ctx, orders)).Next() // leak:rows
}

func (leaking) LayerCallsBack(p *program) {
	check(layer.WithConn(p.ctx, &layer.DB{DB: p.DB}, func(c *sql.Conn) error {
		p.keep(c)
		rows, err := c.QueryContext(p.ctx, orders) // leak:rows
		p.keep(rows)
		return err
	}))
}

func (leaking) LayerForgetsTheConn(p *program) {
	check(layer.WithConn(p.ctx, &layer.DB{DB: p.DB}, func(c *sql.Conn) error { // leak:connection
		p.keep(c)
		return c.PingContext(p.ctx)
	}))
}

func (leaking) LayerIterator(p *program) {
	for range layer.Rows(p.ctx, p.DB, orders) { // leak:rows
		break
	}
}

func (leaking) LayerClosureReturned(p *program) {
	open := layer.Later(p.ctx, p.DB, orders)
	p.keep(ok(open())) // leak:rows
}

func (leaking) LayerGenericRetry(p *program) {
	p.keep(ok(layer.Retry(func() (*sql.Rows, error) {
		return p.QueryContext(p.ctx, orders) // leak:rows
	})))
}

func (leaking) LayerGenericRetryOfAMethodValue(p *program) {
	tx := ok(layer.Retry(p.Begin)) // leak:transaction
	p.finally(func() { tx.Rollback() })
}

func (leaking) LayerByItself(p *program) {
	go (&layer.DB{DB: p.DB}).Select(p.ctx, orders) // leak:rows
}

func (leaking) LayerOfAnotherName(p *program) {
	tx := ok(layers.Begin(p.ctx, p.DB))
	p.finally(func() { tx.Rollback() })
}

func (leaking) LayerDeep(p *program) {
	ok(layer.Deep(p.ctx, &layer.DB{DB: p.DB}, 8, orders)).Next() // leak:rows
}

// Connections.

func (leaking) Conn(p *program) {
	p.keep(ok(p.DB.Conn(p.ctx))) // leak:connection
}

func (leaking) ConnOfAFreshPool(p *program) {
	p.SetMaxIdleConns(0)
	p.keep(ok(p.DB.Conn(p.ctx))) // leak:connection
}

func (leaking) ConnAfterWork(p *program) {
	c := ok(p.DB.Conn(p.ctx)) // leak:connection
	ok(c.ExecContext(p.ctx, newOrder))
	tx := ok(c.BeginTx(p.ctx, nil))
	check(tx.Commit())
	p.keep(c)
}

func (leaking) ConnWaitsForEver(p *program) {
	go func() {
		c := ok(p.DB.Conn(p.ctx)) // leak:connection
		defer c.Close()
		<-p.never
	}()
}

func (leaking) ConnUsedRaw(p *program) {
	c := ok(p.DB.Conn(p.ctx)) // leak:connection
	check(c.Raw(func(any) error { return nil }))
	p.keep(c)
}

func (leaking) ConnWaitedFor(p *program) {
	p.SetMaxOpenConns(1)
	first := ok(p.DB.Conn(p.ctx))
	go func() { p.keep(ok(p.DB.Conn(p.ctx))) }() // leak:connection
	time.Sleep(time.Second)
	first.Close()
}

// database/sql opens a connection on a goroutine of its own and does not tell
// the driver when it hands it out: the first operation does.
func (leaking) ConnOfTheOpener(p *program) {
	p.SetMaxOpenConns(1)
	first := ok(p.DB.Conn(p.ctx))
	go func() {
		c := ok(p.DB.Conn(p.ctx))
		check(c.PingContext(p.ctx))
		ok(c.ExecContext(p.ctx, newOrder)) // leak:connection
		p.keep(c)
	}()
	time.Sleep(time.Second)
	first.Raw(func(any) error { return driver.ErrBadConn })
	first.Close()
}

// Transactions.

func (leaking) Tx(p *program) {
	tx := ok(p.BeginTx(p.ctx, nil)) // leak:transaction
	p.finally(func() { tx.Rollback() })
}

func (leaking) TxWithoutContext(p *program) {
	tx := ok(p.Begin()) // leak:transaction
	p.finally(func() { tx.Rollback() })
}

func (leaking) TxAfterWrite(p *program) {
	tx := ok(p.BeginTx(p.ctx, nil)) // leak:transaction
	p.finally(func() { tx.Rollback() })
	ok(tx.ExecContext(p.ctx, newOrder))
}

func (leaking) TxOfConn(p *program) {
	c := ok(p.DB.Conn(p.ctx))
	tx := ok(c.BeginTx(p.ctx, nil)) // leak:transaction
	p.finally(func() { tx.Rollback() })
	p.keep(c)
}

func (leaking) TxReadOnly(p *program) {
	tx := ok(p.BeginTx(p.ctx, &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelSerializable})) // leak:transaction
	p.finally(func() { tx.Rollback() })
	ok(tx.ExecContext(p.ctx, order7))
}

func (leaking) TxEarlyReturn(p *program) {
	work := func() error {
		tx, err := p.BeginTx(p.ctx, nil) // leak:transaction
		if err != nil {
			return err
		}
		p.finally(func() { tx.Rollback() })
		if _, err := tx.ExecContext(p.ctx, "INSERT INTO nowhere VALUES(1)"); err != nil {
			return err
		}
		return tx.Commit()
	}
	if work() == nil {
		panic("no error")
	}
}

func (leaking) TxOfAPanickingHandler(p *program) {
	defer func() { recover() }()
	tx := ok(p.BeginTx(p.ctx, nil)) // leak:transaction
	p.finally(func() { tx.Rollback() })
	ok(tx.ExecContext(p.ctx, newOrder))
	ok(tx.ExecContext(p.ctx, "syntax error"))
	check(tx.Commit())
}

func (leaking) TxOnlyCommittedOnOnePath(p *program) {
	for _, paid := range []bool{true, false} {
		tx := ok(p.BeginTx(p.ctx, nil)) // leak:transaction
		p.finally(func() { tx.Rollback() })
		ok(tx.ExecContext(p.ctx, newOrder))
		if paid {
			check(tx.Commit())
		}
	}
}

func (leaking) TxBlockedOnAChannel(p *program) {
	go func() {
		tx := ok(p.BeginTx(p.ctx, nil)) // leak:transaction
		defer tx.Rollback()
		ok(tx.ExecContext(p.ctx, newOrder))
		<-p.never
	}()
}

func (leaking) TxWaitsForItsOwnPool(p *program) {
	p.SetMaxOpenConns(1)
	tx := ok(p.BeginTx(p.ctx, nil)) // leak:transaction
	p.finally(func() { tx.Rollback() })
	go func() {
		var n int
		p.QueryRowContext(p.ctx, order7).Scan(&n) // for a place that tx has
	}()
}

func (leaking) TxInAContext(p *program) {
	type key struct{}
	ctx := context.WithValue(p.ctx, key{}, ok(p.BeginTx(p.ctx, nil))) // leak:transaction
	tx := ctx.Value(key{}).(*sql.Tx)
	p.finally(func() { tx.Rollback() })
	p.keep(ctx)
}

func (leaking) TxOfADetachedContext(p *program) {
	ctx, cancel := context.WithTimeout(p.ctx, time.Second)
	defer cancel()
	tx := ok(p.BeginTx(context.WithoutCancel(ctx), nil)) // leak:transaction
	p.finally(func() { tx.Rollback() })
}

func (leaking) TxWithStatement(p *program) {
	tx := ok(p.BeginTx(p.ctx, nil)) // leak:transaction
	p.finally(func() { tx.Rollback() })
	stmt := ok(tx.PrepareContext(p.ctx, newOrder))
	for range 3 {
		ok(stmt.ExecContext(p.ctx))
	}
}

// The heart beats beyond tx_timeout, then it stops, and nobody commits.
func (leaking) TxThatMovesForLong(p *program) {
	tx := ok(p.BeginTx(p.ctx, nil)) // leak:transaction/tx_timeout
	p.finally(func() { tx.Rollback() })
	go func() {
		for range 45 {
			ok(tx.ExecContext(p.ctx, newOrder))
			time.Sleep(20 * time.Second)
		}
	}()
}

func (leaking) SavepointsOfATx(p *program) {
	tx := ok(p.BeginTx(p.ctx, nil)) // leak:transaction
	p.finally(func() { tx.Rollback() })
	ok(tx.ExecContext(p.ctx, "SAVEPOINT a"))
	ok(tx.ExecContext(p.ctx, newOrder))
	ok(tx.ExecContext(p.ctx, "SAVEPOINT b"))
	ok(tx.ExecContext(p.ctx, "RELEASE a"))
}

func (leaking) InTxThatHangs(p *program) {
	go InTx(p.ctx, p.DB, nil, func(ctx context.Context, tx *sql.Tx) error { // leak:transaction
		<-p.never
		return nil
	})
}

func (leaking) InTxForgetsRows(p *program) {
	go func() {
		InTx(p.ctx, p.DB, nil, func(ctx context.Context, tx *sql.Tx) error { // leak:transaction
			p.keep(ok(tx.QueryContext(ctx, orders))) // leak:rows
			<-p.never
			return nil
		})
	}()
}

// Transactions by text.

func (leaking) TextBegin(p *program) {
	ok(p.ExecContext(p.ctx, "BEGIN")) // leak:transaction/in_pool
}

func (leaking) TextBeginDressedUp(p *program) {
	ok(p.ExecContext(p.ctx, " ; -- now\n /* all */ begin Immediate transaction")) // leak:transaction/in_pool
}

func (leaking) TextSavepoint(p *program) {
	ok(p.ExecContext(p.ctx, "SAVEPOINT s")) // leak:transaction/in_pool
}

func (leaking) TextAmongOthers(p *program) {
	ok(p.ExecContext(p.ctx, newOrder+"; BEGIN; "+newOrder)) // leak:transaction/in_pool
}

func (leaking) TextPrepared(p *program) {
	stmt := ok(p.PrepareContext(p.ctx, "BEGIN"))
	defer stmt.Close()
	ok(stmt.ExecContext(p.ctx)) // leak:transaction/in_pool
}

func (leaking) TextByQuery(p *program) {
	rows := ok(p.QueryContext(p.ctx, "BEGIN")) // leak:transaction/in_pool
	rows.Close()
}

func (leaking) TextOfConn(p *program) {
	c := ok(p.DB.Conn(p.ctx))
	ok(c.ExecContext(p.ctx, "BEGIN")) // leak:transaction
	ok(c.ExecContext(p.ctx, newOrder))
	p.keep(c)
}

func (leaking) TextOfConnGivenBack(p *program) {
	c := ok(p.DB.Conn(p.ctx))
	defer c.Close()
	ok(c.ExecContext(p.ctx, "BEGIN IMMEDIATE")) // leak:transaction/in_pool
	ok(c.ExecContext(p.ctx, newOrder))
}

func (leaking) TextCommitOnAnotherConnection(p *program) {
	ok(p.ExecContext(p.ctx, "BEGIN")) // leak:transaction/in_pool
	mine := ok(p.DB.Conn(p.ctx))
	other := ok(p.DB.Conn(p.ctx))
	defer mine.Close()
	defer other.Close()
	if _, err := other.ExecContext(p.ctx, "COMMIT"); err == nil {
		panic("it was another connection")
	}
}

func (leaking) TextSecondTransaction(p *program) {
	ok(p.ExecContext(p.ctx, "BEGIN; "+newOrder+"; COMMIT; BEGIN")) // leak:transaction/in_pool
}

func (leaking) TextRollbackToIsNoEnd(p *program) {
	c := ok(p.DB.Conn(p.ctx))
	ok(c.ExecContext(p.ctx, "SAVEPOINT s")) // leak:transaction
	ok(c.ExecContext(p.ctx, "ROLLBACK TO s"))
	p.keep(c)
}

// A connection that goes on.

func (leaking) RowsOfAConnThatGoesOn(p *program) {
	c := ok(p.DB.Conn(p.ctx))
	rows := ok(c.QueryContext(p.ctx, orders)) // leak:rows
	rows.Next()
	p.keep(rows)
	go func() {
		for {
			select {
			case <-p.never:
				return
			case <-time.After(20 * time.Second):
				c.ExecContext(background, newOrder)
			}
		}
	}()
}

func (leaking) RowsOfATxThatGoesOn(p *program) {
	tx := ok(p.BeginTx(p.ctx, nil))
	rows := ok(tx.QueryContext(p.ctx, orders)) // leak:rows
	rows.Next()
	p.keep(rows)
	go func() {
		for range 80 {
			time.Sleep(7 * time.Second) // not when the reaper looks
			ok(tx.ExecContext(p.ctx, newOrder))
		}
		check(tx.Commit())
	}()
}

// Statements.

func (leaking) StatementsInALoop(p *program) {
	p.SetMaxOpenConns(1)
	for range 120 {
		stmt := ok(p.PrepareContext(p.ctx, order7)) // leak:statement/max_statements
		var id int
		check(stmt.QueryRowContext(p.ctx).Scan(&id))
	}
}

func (leaking) StatementsInALoopOverAConn(p *program) {
	c := ok(p.DB.Conn(p.ctx))
	defer c.Close()
	for range 100 {
		p.keep(ok(c.PrepareContext(p.ctx, order7))) // leak:statement/max_statements
	}
}

func (leaking) StatementsInALoopOverATx(p *program) {
	tx := ok(p.BeginTx(p.ctx, nil)) // leak:transaction
	p.finally(func() { tx.Rollback() })
	for range 150 {
		ok(tx.PrepareContext(p.ctx, newOrder)) // leak:statement/max_statements
	}
}

func (leaking) StatementsInALoopAmongOthers(p *program) {
	p.SetMaxOpenConns(1)
	for i := range 110 {
		p.keep(ok(p.PrepareContext(p.ctx, orders+" LIMIT "+string(rune('0'+i%10)))))
		p.keep(ok(p.Prepare(noOrder))) // leak:statement/max_statements
	}
}

// dropping has the patterns of forgetting that garbage collection proves.
type dropping struct{}

func (dropping) Rows(p *program) {
	rows := ok(p.Query(orders)) // leak:rows
	rows.Next()
}

func (dropping) Row(p *program) {
	p.QueryRow(orders) // leak:rows
}

func (dropping) RowOnlyAskedForItsError(p *program) {
	check(p.QueryRow(order7).Err()) // leak:rows
}

func (dropping) InsertReturning(p *program) {
	ok(p.Query(returning)) // leak:rows
}

func (dropping) RowsOfConn(p *program) {
	rows := ok(ok(p.DB.Conn(p.ctx)).QueryContext(p.ctx, orders)) // leak:rows
	rows.Next()
}

func (dropping) RowsInAStruct(p *program) {
	c := &cursor{open: true}
	c.rows = ok(p.Query(orders)) // leak:rows
	c.rows.Next()
}

func (dropping) VariableUsedAgain(p *program) {
	var rows *sql.Rows
	for range 3 {
		rows = ok(p.Query(orders)) // leak:rows x2
	}
	rows.Close()
}

func (dropping) DeletedFromAMap(p *program) {
	m := map[int]*sql.Rows{7: ok(p.Query(orders))} // leak:rows
	delete(m, 7)
	p.keep(m)
}

func (dropping) ChannelDropped(p *program) {
	c := make(chan *sql.Rows, 1)
	c <- ok(p.Query(orders)) // leak:rows
}

func (dropping) IteratorBrokenOff(p *program) {
	for range func(yield func(int) bool) {
		rows := ok(p.Query(orders)) // leak:rows
		for rows.Next() && yield(1) {
		}
	} {
		break
	}
}

func (dropping) GoroutineEnded(p *program) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		rows := ok(p.Query(orders)) // leak:rows
		if rows.Next() {
			runtime.Goexit()
		}
		rows.Close()
	}()
	<-done
}

func (dropping) PanicRecovered(p *program) {
	defer func() { recover() }()
	rows := ok(p.Query(orders)) // leak:rows
	rows.Next()
	panic(errors.New("in between"))
}

func (dropping) Statement(p *program) {
	c := ok(p.DB.Conn(p.ctx))
	defer c.Close()
	stmt := ok(c.PrepareContext(p.ctx, order7)) // leak:statement
	var id int
	check(stmt.QueryRow().Scan(&id))
}

func (dropping) StatementOfAConnThatStays(p *program) {
	c := ok(p.DB.Conn(p.ctx))
	p.keep(c)
	ok(c.PrepareContext(p.ctx, order7)) // leak:statement
}

func (dropping) Layer(p *program) {
	ok((&layer.DB{DB: p.DB}).Select(p.ctx, orders)).Next() // leak:rows
}
