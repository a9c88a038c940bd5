// Package store is a program's own layer over database/sql, in files that are
// no tests: the guard sees it as it sees any program. Only the catalogue of
// leaks imports it.
package store

import (
	"context"
	"database/sql"
	"iter"
)

// Orders is the query that everybody runs.
const Orders = "SELECT id FROM orders"

// Store is a *sql.DB by embedding.
type Store struct{ *sql.DB }

// Deep embeds twice.
type Deep struct{ Store }

// Querier is what Store has by embedding: calls through it go through methods
// that the compiler makes.
type Querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	BeginTx(ctx context.Context, opts *sql.TxOptions) (*sql.Tx, error)
	Conn(ctx context.Context) (*sql.Conn, error)
}

// Hidden has a *sql.DB that is a part of a struct.
type Hidden struct {
	name string
	Querier
}

// NewHidden hides the db.
func NewHidden(q Querier) *Hidden { return &Hidden{"hidden", q} }

// First looks at the first order and forgets the rest.
func (s Store) First(ctx context.Context) bool {
	rows, err := s.QueryContext(ctx, Orders) // leak:rows for OwnLayer
	return err == nil && rows.Next()
}

// FirstOf is First through the embedding of an embedding, behind an interface.
func FirstOf(ctx context.Context, q Querier) bool {
	rows, err := q.QueryContext(ctx, Orders) // leak:rows for EmbeddedBehindInterface,EmbeddedTwice,EmbeddedInterface
	return err == nil && rows.Next()
}

// Begin is so small that it is inlined, and so is its caller.
func Begin(ctx context.Context, q Querier) (*sql.Tx, error) {
	return q.BeginTx(ctx, nil) // leak:transaction for InlinedTwice
}

// Take is a value of the type that has no method of its own for it.
func Take[Q Querier](ctx context.Context, q Q) (*sql.Conn, error) {
	return q.Conn(ctx) // leak:connection for GenericOverInterface,GenericOverStruct
}

// All returns the orders. Who breaks the loop off leaves the rows open.
func All(ctx context.Context, db *sql.DB) iter.Seq[int] {
	return func(yield func(int) bool) {
		rows, err := db.QueryContext(ctx, Orders) // leak:rows for IteratorOfOwnLayer
		if err != nil {
			return
		}
		for rows.Next() {
			var id int
			if rows.Scan(&id) != nil || !yield(id) {
				return
			}
		}
	}
}

// Any breaks the loop off.
func Any(ctx context.Context, db *sql.DB) bool {
	for range All(ctx, db) {
		return true
	}
	return false
}

// Repo has its statements and a unit of work in fields.
type Repo[T any] struct {
	db *sql.DB
	tx *sql.Tx
}

// NewRepo returns a repository.
func NewRepo[T any](db *sql.DB) *Repo[T] { return &Repo[T]{db: db} }

// Start begins the unit of work.
func (r *Repo[T]) Start(ctx context.Context) (err error) {
	r.tx, err = r.db.BeginTx(ctx, nil) // leak:transaction for GenericRepository
	return err
}

// Stop rolls it back.
func (r *Repo[T]) Stop() { r.tx.Rollback() }
