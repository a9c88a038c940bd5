//go:build cgo

package leakguard

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/capi"
)

// alike reports whether a runner does what the go-sqlite3 of this binary does. It
// was written beside one version; another may make something else of a value. So
// both read and write a table in memory, once for the process, in one or two
// milliseconds, when the first statement comes that a runner could run. If there is
// any difference go-sqlite3 runs them all.
var alike = sync.OnceValue(func() (is bool) {
	defer func() {
		if recover() != nil { // go-sqlite3 does what nobody expects of it
			is = false
		}
	}()
	opened, err := (&sqlite3.SQLiteDriver{}).Open(":memory:")
	if err != nil {
		return false
	}
	defer opened.Close()
	return compareIn(opened) == nil
})

var errUnlike = errors.New("not what go-sqlite3 does")

const likenessTable = `CREATE TABLE %s (id INTEGER PRIMARY KEY, t TEXT, b BLOB, r REAL, n NUMERIC,
	ts TIMESTAMP, dt DATETIME, d Date, bo BOOLEAN, ti TIME, v VARCHAR(9), x)`

// likenessArgs are one of each kind that database/sql passes on, and texts that
// some columns make something of.
func likenessArgs() []driver.Value {
	args := []driver.Value{
		nil, int64(0), int64(-3), int64(1767323045), int64(1767323045678), 2.5, true, false,
		"", "text", "a\x00b", "2026-01-02", "2026-01-02 03:04:05Z", "2026-01-02T03:04:05.678901234+02:00",
		[]byte{}, []byte{0, 255}, []byte(nil),
	}
	if len(timeLayouts()) > 0 { // else a time cannot be bound at all
		args = append(args, time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.FixedZone("", 2*60*60)))
	}
	return args
}

// compareIn has both do the same in a fresh database.
func compareIn(opened driver.Conn) error {
	conn, ok := opened.(sqliteConn)
	if !ok {
		return errUnlike
	}
	for _, name := range []string{"theirs", "ours"} {
		if _, err := conn.ExecContext(context.Background(), strings.Replace(likenessTable, "%s", name, 1), nil); err != nil {
			return err
		}
	}
	if err := compareExec(conn); err != nil {
		return err
	}
	return compareQuery(conn)
}

// likeness is one statement, and how each of the two runs it.
type likeness struct {
	inner  sqliteStmt
	runner *runner
}

func newLikeness(conn sqliteConn, query string) (likeness, error) {
	prepared, err := conn.PrepareContext(context.Background(), query)
	if err != nil {
		return likeness{}, err
	}
	l := likeness{inner: prepared.(sqliteStmt)}
	if l.runner = runnerOf(conn, l.inner, capi.OfStmt(prepared)); l.runner == nil {
		prepared.Close()
		return l, errUnlike
	}
	return l, nil
}

// outcome is what a statement came to.
type outcome struct {
	id, changes int64
	names       []string
	types       []string
	scanTypes   []reflect.Type
	rows        [][]driver.Value
	err         error
}

func compareExec(conn sqliteConn) error {
	const insert = ` VALUES (?1, ?2, ?2, ?2, ?2, ?2, ?2, ?2, ?2, ?2, ?2, ?2)`
	theirs, err := newLikeness(conn, "INSERT INTO theirs"+insert)
	if err != nil {
		return err
	}
	defer theirs.inner.Close()
	ours, err := newLikeness(conn, "INSERT INTO ours"+insert)
	if err != nil {
		return err
	}
	defer ours.inner.Close()
	for i, v := range likenessArgs() {
		for range 2 { // the second time the key is there
			args := []driver.NamedValue{{Ordinal: 1, Value: int64(i + 1)}, {Ordinal: 2, Value: v}}
			a, b := theirs.execTheirs(args), ours.execOurs(args)
			if b.err != nil && a.err != nil { // the tables have different names
				if strings.Replace(a.err.Error(), "theirs", "ours", 1) != b.err.Error() || reflect.TypeOf(a.err) != reflect.TypeOf(b.err) {
					return errUnlike
				}
				a.err = b.err
			}
			if !reflect.DeepEqual(a, b) {
				return errUnlike
			}
		}
	}
	return nil
}

func (l likeness) execTheirs(args []driver.NamedValue) outcome {
	return execOutcome(l.inner.ExecContext(context.Background(), args))
}

func (l likeness) execOurs(args []driver.NamedValue) outcome {
	var to capi.Args
	if !bind(&to, args) {
		return outcome{err: errUnlike}
	}
	res, err, done := l.runner.exec(&to)
	if !done {
		return outcome{err: errUnlike}
	}
	return execOutcome(res, err)
}

func execOutcome(res driver.Result, err error) (o outcome) {
	if o.err = err; err == nil {
		o.id, _ = res.LastInsertId()
		o.changes, _ = res.RowsAffected()
	}
	return o
}

func compareQuery(conn sqliteConn) error {
	for _, name := range []string{"theirs", "ours"} {
		l, err := newLikeness(conn, "SELECT *, t || 'x', id + 0.5 FROM "+name)
		if err != nil {
			return err
		}
		theirs := l.queryTheirs()
		ours := l.queryOurs()
		l.inner.Close()
		if theirs.err != nil || len(theirs.rows) == 0 || !reflect.DeepEqual(theirs, ours) {
			return errUnlike
		}
	}
	return nil
}

func (l likeness) queryTheirs() outcome {
	opened, err := l.inner.QueryContext(context.Background(), nil)
	if err != nil {
		return outcome{err: err}
	}
	rows, ok := opened.(sqliteRows)
	if !ok {
		return outcome{err: errUnlike}
	}
	return queryOutcome(rows)
}

func (l likeness) queryOurs() outcome {
	if rowsOf(l.inner) == nil {
		return outcome{err: errUnlike}
	}
	if err, done := l.runner.query(new(capi.Args)); err != nil || !done {
		return outcome{err: errUnlike}
	}
	return queryOutcome(l.runner)
}

func queryOutcome(rows sqliteRows) (o outcome) {
	defer rows.Close()
	o.names = rows.Columns()
	for i := range o.names {
		o.types = append(o.types, rows.ColumnTypeDatabaseTypeName(i))
		o.scanTypes = append(o.scanTypes, rows.ColumnTypeScanType(i))
	}
	for {
		row := make([]driver.Value, len(o.names))
		if err := rows.Next(row); err != nil {
			if err != io.EOF {
				o.err = err
			}
			return o
		}
		o.rows = append(o.rows, row)
	}
}
