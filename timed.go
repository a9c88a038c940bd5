package leakguard

import (
	"context"
	"database/sql/driver"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/sqltext"
)

// The types below time operations, on connections that are opened while
// somebody asks for that. They stand around the others so that nobody else pays
// for them.

type timedConn struct{ *conn }

// timed returns the connection as database/sql gets it.
func (c *conn) timed() driver.Conn {
	if c.rec.Pool().Tracker().TimesOperations() {
		return timedConn{c}
	}
	return c
}

// timing is an operation under way.
type timing struct {
	c     *conn
	name  string
	began time.Time
}

func (c *conn) operate(query string) timing {
	if !c.rec.Pool().Tracker().TimesOperations() {
		return timing{}
	}
	return timing{c, operationName(query), time.Now()}
}

func (o timing) over(err error) {
	if o.c == nil { // nobody asks any more
		return
	}
	took := time.Since(o.began)
	o.c.rec.Operated(o.name, took, errorType(err))
}

func (c timedConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	o := c.operate(query)
	res, err := c.conn.ExecContext(ctx, query, args)
	o.over(err)
	return res, err
}

func (c timedConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	o := c.operate(query)
	rows, err := c.conn.QueryContext(ctx, query, args)
	o.over(err)
	return rows, err
}

func (c timedConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	o := c.operate("BEGIN")
	tx, err := c.conn.BeginTx(ctx, opts)
	o.over(err)
	if err != nil {
		return nil, err
	}
	return timedTx{c.conn, tx}, nil
}

func (c timedConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	s, err := c.conn.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	return timedStmt{s.(*stmt)}, nil
}

type timedTx struct {
	c *conn
	driver.Tx
}

func (t timedTx) Commit() error {
	o := t.c.operate("COMMIT")
	err := t.Tx.Commit()
	o.over(err)
	return err
}

func (t timedTx) Rollback() error {
	o := t.c.operate("ROLLBACK")
	err := t.Tx.Rollback()
	o.over(err)
	return err
}

type timedStmt struct{ *stmt }

// operate is conn.operate for a statement; nothing is timed on a closed one.
func (s timedStmt) operate() timing {
	h := s.h.Load()
	if h == nil {
		return timing{}
	}
	return h.c.operate(h.st.query)
}

func (s timedStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	o := s.operate()
	res, err := s.stmt.ExecContext(ctx, args)
	o.over(err)
	return res, err
}

func (s timedStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	o := s.operate()
	rows, err := s.stmt.QueryContext(ctx, args)
	o.over(err)
	return rows, err
}

// operationNames are the first words of SQLite's statements.
// https://www.sqlite.org/lang.html
var operationNames = [...]string{
	"SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "REPLACE", "VALUES",
	"BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE",
	"CREATE", "ALTER", "DROP", "PRAGMA", "ATTACH", "DETACH",
	"ANALYZE", "EXPLAIN", "REINDEX", "VACUUM",
}

// operationName returns the first word of a text in upper case, "" if it is
// none of SQLite's: what a program makes up must not become a series.
func operationName(query string) string {
	start := sqltext.SkipSpace(query, 0)
	end := start
	for end < len(query) && sqltext.IsLetter(query[end]) {
		end++
	}
	for _, name := range operationNames {
		if strings.EqualFold(query[start:end], name) {
			return name
		}
	}
	return ""
}

// errorType returns what kind of error it is.
func errorType(err error) string {
	if err == nil {
		return ""
	}
	if code, ok := resultCode(err); ok {
		return strconv.Itoa(code)
	}
	return fmt.Sprintf("%T", err)
}
