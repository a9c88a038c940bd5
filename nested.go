package leakguard

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
)

// savepointPrefix begins the names of InTx's savepoints.
const savepointPrefix = "leakguard_"

// nest is one level of InTx. The context that fn gets carries it.
type nest struct {
	tx    *sql.Tx
	level int
	// inner is taken by the level inside: savepoints nest, so goroutines that
	// share a level's context take turns.
	inner chan struct{}
}

// nestKey finds the level of one sql.DB: a transaction of another one is none
// of its business.
type nestKey struct{ db *sql.DB }

// InTx runs fn in a transaction and commits it, or, inside another InTx of the
// same db (found through ctx), in a savepoint of that one and releases it.
//
// If fn returns an error, panics or ends its goroutine with runtime.Goexit,
// exactly what this level did is rolled back; the error is returned, the panic
// goes on. An error of the rollback is joined to it; a savepoint that cannot
// be rolled back forces the connection out of the pool. opts count for the
// outermost level only. Goroutines that share a level's ctx take turns. A ctx, db
// or fn that is nil is an error, and nothing is begun.
//
// See https://www.sqlite.org/lang_savepoint.html.
func InTx(ctx context.Context, db *sql.DB, opts *sql.TxOptions, fn func(ctx context.Context, tx *sql.Tx) error) error {
	switch {
	case ctx == nil:
		return errors.New("leakguard: InTx: ctx is nil: want context.Background() if there is none")
	case db == nil:
		return errors.New("leakguard: InTx: db is nil")
	case fn == nil:
		return errors.New("leakguard: InTx: fn is nil")
	}
	if outer, ok := ctx.Value(nestKey{db}).(*nest); ok {
		return outer.savepoint(ctx, db, fn)
	}
	tx, err := db.BeginTx(ctx, opts)
	if err != nil {
		return err
	}
	n := &nest{tx: tx, level: 1, inner: make(chan struct{}, 1)}
	return n.run(ctx, db, fn, tx.Commit, tx.Rollback)
}

// savepoint runs fn one level below n.
func (n *nest) savepoint(ctx context.Context, db *sql.DB, fn func(context.Context, *sql.Tx) error) error {
	select {
	case n.inner <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-n.inner }()
	name := savepointPrefix + strconv.Itoa(n.level)
	if _, err := n.tx.ExecContext(ctx, "SAVEPOINT "+name); err != nil {
		return err
	}
	// What ends a level is not stopped by the context that the level had: a
	// savepoint left open would join what the level did to the one outside.
	ending := context.WithoutCancel(ctx)
	release := func() error {
		_, err := n.tx.ExecContext(ending, "RELEASE "+name)
		return err
	}
	rollback := func() error {
		if _, err := n.tx.ExecContext(ending, "ROLLBACK TO "+name); err != nil {
			return err
		}
		return release()
	}
	below := &nest{tx: n.tx, level: n.level + 1, inner: make(chan struct{}, 1)}
	return below.run(ctx, db, fn, release, rollback)
}

// run calls fn and ends the level.
func (n *nest) run(ctx context.Context, db *sql.DB, fn func(context.Context, *sql.Tx) error, commit, rollback func() error) error {
	returned := false
	defer func() {
		if !returned { // a panic or runtime.Goexit, which goes on
			rollback()
		}
	}()
	err := fn(context.WithValue(ctx, nestKey{db}, n), n.tx)
	returned = true
	if err == nil {
		if err = commit(); err != nil && n.level > 1 {
			// The level's work must not stay in the transaction outside.
			err = errors.Join(err, rollback())
		}
		return err
	}
	if rerr := rollback(); rerr != nil && !errors.Is(rerr, sql.ErrTxDone) {
		return errors.Join(err, fmt.Errorf("leakguard: rollback of level %d: %w", n.level, rerr))
	}
	return err
}
