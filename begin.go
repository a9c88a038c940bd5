package leakguard

import (
	"cmp"
	"context"
	"database/sql/driver"
	"reflect"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/capi"
)

// txStmts are a connection's BEGIN, COMMIT and ROLLBACK, prepared when first
// needed: go-sqlite3 prepares them each time, which is half of what an empty
// transaction costs. Guarded by the gate.
type txStmts struct {
	// once: they are prepared each time, for an authorizer that the program may
	// have set is asked then.
	once                           bool
	beginSQL                       string
	beginning, ending, rollingBack txStmt
}

// txStmt is one of them.
type txStmt struct {
	inner sqliteStmt   // nil: not prepared
	run   *capi.Cursor // where it can be run directly
}

// execute runs a statement, preparing it if need be.
func (t *txStmt) execute(c *conn, ctx context.Context, sql string) error {
	err := t.step(c, ctx, sql)
	if c.begins.once {
		t.close()
	}
	return err
}

func (t *txStmt) step(c *conn, ctx context.Context, sql string) error {
	if t.inner == nil {
		prepared, err := c.innerPrepare(ctx, sql)
		if err != nil {
			return err
		}
		inner, ok := prepared.(sqliteStmt)
		if !ok {
			prepared.Close()
			return lacking(prepared)
		}
		t.inner = inner
		// With a shared cache go-sqlite3 may be built to wait for the others, see
		// https://www.sqlite.org/unlock_notify.html.
		if c.gate.Shared() == nil {
			c.compareClocks()
			t.run = capi.NewCursor(capi.OfStmt(prepared))
		}
	}
	if ctx.Done() == nil && t.run != nil {
		begins := t == &c.begins.beginning
		code := c.txRun(t.run, begins)
		if code == capi.OK {
			if begins {
				c.happened(t.run)
			}
			return nil
		}
		// Closing a statement that failed returns its error, text included.
		if err := t.close(); err != nil {
			return err
		}
		return codeError(code)
	}
	return c.txExec(ctx, t.inner)
}

func (t *txStmt) close() (err error) {
	if t.inner != nil {
		err = t.inner.Close()
	}
	*t = txStmt{}
	return err
}

// begin runs BEGIN in the form that _txlock in the DSN asks for.
func (t *txStmts) begin(c *conn, ctx context.Context) error {
	if t.beginSQL == "" {
		t.beginSQL = txLock(c.inner)
	}
	if t.beginSQL == "" { // not known: as go-sqlite3 does it
		return c.innerBegin(ctx, driver.TxOptions{})
	}
	return t.beginning.execute(c, ctx, t.beginSQL)
}

// text is the BEGIN that begin ran.
func (t *txStmts) text() string { return cmp.Or(t.beginSQL, "BEGIN") }

// commit runs COMMIT. If it fails the transaction is rolled back, as
// go-sqlite3 does: database/sql takes it for ended.
func (t *txStmts) commit(c *conn) error {
	err := t.ending.execute(c, context.Background(), "COMMIT")
	if err != nil {
		t.rollback(c)
	}
	return err
}

// rollback runs ROLLBACK.
func (t *txStmts) rollback(c *conn) error {
	return t.rollingBack.execute(c, context.Background(), "ROLLBACK")
}

// dropBegin forgets BEGIN: a BEGIN IMMEDIATE that was prepared before an ATTACH
// would not lock the attached file.
func (t *txStmts) dropBegin() { t.beginning.close() }

// drop closes all of them.
func (t *txStmts) drop() {
	t.beginning.close()
	t.ending.close()
	t.rollingBack.close()
}

// txLock returns the text that go-sqlite3 begins a transaction with, "" if it
// cannot be read.
func txLock(inner sqliteConn) string {
	v := reflect.ValueOf(inner)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return ""
	}
	f := v.Elem().FieldByName("txlock")
	if f.Kind() != reflect.String {
		return ""
	}
	return f.String()
}
