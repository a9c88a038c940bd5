package leakguard

import (
	"context"
	"database/sql/driver"
	"reflect"
)

// txStmts are a connection's BEGIN, COMMIT and ROLLBACK, prepared when first
// needed: go-sqlite3 prepares them each time, which is half of what an empty
// transaction costs. Guarded by the gate.
type txStmts struct {
	beginSQL                       string
	beginning, ending, rollingBack sqliteStmt
}

// run executes a prepared statement, preparing it if need be.
func (t *txStmts) run(c *conn, ctx context.Context, s *sqliteStmt, sql string) error {
	if *s == nil {
		prepared, err := c.inner.PrepareContext(ctx, sql)
		if err != nil {
			return err
		}
		var ok bool
		if *s, ok = prepared.(sqliteStmt); !ok {
			prepared.Close()
			return lacking(prepared)
		}
	}
	return c.txExec(ctx, *s)
}

// begin runs BEGIN in the form that _txlock in the DSN asks for.
func (t *txStmts) begin(c *conn, ctx context.Context) error {
	if t.beginSQL == "" {
		t.beginSQL = txLock(c.inner)
	}
	if t.beginSQL == "" { // not known: as go-sqlite3 does it
		_, err := c.inner.BeginTx(ctx, driver.TxOptions{})
		return err
	}
	return t.run(c, ctx, &t.beginning, t.beginSQL)
}

// commit runs COMMIT. If it fails the transaction is rolled back, as
// go-sqlite3 does: database/sql takes it for ended.
func (t *txStmts) commit(c *conn) error {
	err := t.run(c, context.Background(), &t.ending, "COMMIT")
	if err != nil {
		t.rollback(c)
	}
	return err
}

// rollback runs ROLLBACK.
func (t *txStmts) rollback(c *conn) error {
	return t.run(c, context.Background(), &t.rollingBack, "ROLLBACK")
}

// dropBegin forgets BEGIN: a BEGIN IMMEDIATE that was prepared before an ATTACH
// would not lock the attached file.
func (t *txStmts) dropBegin() {
	if t.beginning != nil {
		t.beginning.Close()
		t.beginning = nil
	}
}

// drop closes all of them.
func (t *txStmts) drop() {
	t.dropBegin()
	for _, s := range []*sqliteStmt{&t.ending, &t.rollingBack} {
		if *s != nil {
			(*s).Close()
			*s = nil
		}
	}
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
