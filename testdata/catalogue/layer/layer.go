// Package layer stands for a library around database/sql that the guard was
// told to skip: what is looked for is who calls it. Only the catalogue of leaks
// imports it.
package layer

import (
	"context"
	"database/sql"
	"iter"
)

// DB wraps a *sql.DB.
type DB struct{ *sql.DB }

// Select is a method that is named otherwise than database/sql's.
func (d *DB) Select(ctx context.Context, query string) (*sql.Rows, error) {
	return d.retry(func() (*sql.Rows, error) { return d.QueryContext(ctx, query) })
}

func (d *DB) retry(f func() (*sql.Rows, error)) (rows *sql.Rows, err error) {
	for range 3 {
		if rows, err = f(); err == nil {
			return rows, nil
		}
	}
	return nil, err
}

// Begin begins a transaction through interfaces and closures.
func Begin(ctx context.Context, q interface {
	BeginTx(context.Context, *sql.TxOptions) (*sql.Tx, error)
}) (*sql.Tx, error) {
	var (
		tx  *sql.Tx
		err error
	)
	func() { tx, err = q.BeginTx(ctx, nil) }()
	return tx, err
}

// Cursor is generic.
type Cursor[T any] struct{ rows *sql.Rows }

// Open opens a cursor.
func Open[T any](ctx context.Context, d *DB, query string) (*Cursor[T], error) {
	rows, err := d.Select(ctx, query)
	return &Cursor[T]{rows}, err
}

// One returns the next value.
func (c *Cursor[T]) One() (v T, err error) {
	c.rows.Next()
	err = c.rows.Scan(&v)
	return v, err
}

// WithConn calls the program back and forgets the connection unless f closes it.
func WithConn(ctx context.Context, d *DB, f func(*sql.Conn) error) error {
	c, err := d.Conn(ctx)
	if err != nil {
		return err
	}
	return f(c)
}

// Deep calls itself n times and then opens rows.
func Deep(ctx context.Context, d *DB, n int, query string) (*sql.Rows, error) {
	if n > 0 {
		rows, err := Deep(ctx, d, n-1, query)
		return rows, err
	}
	return d.Select(ctx, query)
}

// Rows is an iterator. Inlined, its function would have the name of the one that
// calls it.
//
//go:noinline
func Rows(ctx context.Context, db *sql.DB, query string) iter.Seq[*sql.Rows] {
	return func(yield func(*sql.Rows) bool) {
		rows, err := db.QueryContext(ctx, query)
		for err == nil && rows.Next() && yield(rows) {
		}
	}
}

// Later returns what opens rows.
func Later(ctx context.Context, db *sql.DB, query string) func() (*sql.Rows, error) {
	return func() (*sql.Rows, error) { return db.QueryContext(ctx, query) }
}

// Retry tries until there is no error.
func Retry[T any](f func() (T, error)) (v T, err error) {
	for range 3 {
		if v, err = f(); err == nil {
			break
		}
	}
	return v, err
}
