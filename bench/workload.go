package main

import (
	"context"
	"database/sql"
	"runtime"
)

// workload is one thing that programs do with a database.
type workload struct {
	name string // with the kind of context: QueryRow/bg
	kind ctxKind

	// extra workloads are shown but stay out of the geometric means: what the
	// guard gains by cancelling itself is not to be had there, and the means
	// stay comparable with the ones that their bounds were made from.
	extra bool

	make func(env) (*job, error)
}

// ctxKind is what the operations get as their context.
type ctxKind string

const (
	ctxBackground ctxKind = "bg"     // cannot be cancelled
	ctxLong       ctxKind = "ctx"    // one cancellable context for all of them
	ctxNew        ctxKind = "newctx" // a cancellable one each, as in a request
)

// group is the mean that the workload counts in.
func (k ctxKind) group() string {
	if k == ctxBackground {
		return "bg"
	}
	return "ctx"
}

// env is what a job is made from.
type env struct {
	open opener
	dsn  string
	kind ctxKind
	long context.Context // cancellable, lives as long as the job
}

// base is the context of what is not an operation itself: the transaction or
// the statement around it.
func (e env) base() context.Context {
	if e.kind == ctxBackground {
		return context.Background()
	}
	return e.long
}

// contexts returns what gives each operation its context. The call is the same
// for every kind and every candidate.
func (e env) contexts() func() (context.Context, context.CancelFunc) {
	if e.kind == ctxNew {
		return func() (context.Context, context.CancelFunc) { return context.WithCancel(context.Background()) }
	}
	base, done := e.base(), func() {}
	return func() (context.Context, context.CancelFunc) { return base, done }
}

// job is a workload on one candidate's database. begin and end surround a
// batch and are not timed; all but run may be nil.
type job struct {
	begin func() error
	run   func(n int) error // n operations
	end   func() error
	close func() error
}

// each makes run out of one operation. i differs from operation to operation
// and is the same for all candidates.
func each(e env, op func(ctx context.Context, i int) error) func(n int) error {
	next := e.contexts()
	return func(n int) error {
		for i := range n {
			ctx, done := next()
			err := op(ctx, i)
			done()
			if err != nil {
				return err
			}
		}
		return nil
	}
}

// key spreads the operations over the table.
func key(i int) int64 { return int64(i)*7919%keys + 1 }

// pool opens the candidate's pool. More idle connections than database/sql
// keeps by itself, so that the parallel workload does not measure opening.
func (e env) pool() (*sql.DB, error) {
	db, err := e.open(e.dsn)
	if err != nil {
		return nil, err
	}
	db.SetMaxIdleConns(2 * runtime.GOMAXPROCS(0))
	return db, nil
}

// onPool makes a job that keeps its pool open for as long as it lives.
func onPool(make func(env, *sql.DB) (*job, error)) func(env) (*job, error) {
	return func(e env) (*job, error) {
		db, err := e.pool()
		if err != nil {
			return nil, err
		}
		j, err := make(e, db)
		if err != nil {
			db.Close()
			return nil, err
		}
		inner := j.close
		j.close = func() error {
			if inner != nil {
				inner()
			}
			return db.Close()
		}
		return j, nil
	}
}

// workloads is the order of every table.
func workloads() []workload {
	all := []workload{}
	add := func(name string, make func(env) (*job, error), kinds ...ctxKind) {
		for _, k := range kinds {
			all = append(all, workload{name: name + "/" + string(k), kind: k, make: make})
		}
	}
	add("QueryRow", onPool(queryRow), ctxBackground, ctxLong, ctxNew)
	add("StmtQueryRow", onPool(stmtQueryRow), ctxBackground, ctxLong)
	add("TxStmtQueryRow", onPool(txStmtQueryRow), ctxBackground, ctxLong)
	add("ExecTx", onPool(execTx), ctxBackground, ctxLong)
	add("StmtExecTx", onPool(stmtExecTx), ctxBackground, ctxLong, ctxNew)
	add("Insert100", onPool(insert100), ctxBackground, ctxLong)
	add("BeginCommit", onPool(beginCommit), ctxBackground, ctxLong)
	add("Scan1000x2", onPool(scan), ctxBackground, ctxLong)
	add("OpenPingClose", openPingClose, ctxBackground, ctxLong)
	add("ParQueryRow", onPool(parQueryRow), ctxBackground, ctxLong)
	for i, w := range all {
		all[i].extra = w.name == "OpenPingClose/ctx" || w.name == "ParQueryRow/ctx"
	}
	return all
}
