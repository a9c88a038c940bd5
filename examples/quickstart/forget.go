package main

import (
	"context"
	"database/sql"
	"fmt"
	"runtime"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// The mistakes, each in a function of its own. The line that the guard has to
// name is the one below nextLine.

// plant is one planted leak.
type plant struct {
	what string // the function that forgets
	kind tracker.Kind
	site tracker.Frame
	// undone is what the guard is expected to do about it, "" if it only
	// reports.
	undone string
}

// nextLine returns the place of the line below its caller's.
func nextLine() tracker.Frame {
	pc, file, line, _ := runtime.Caller(1)
	return tracker.Frame{Function: runtime.FuncForPC(pc).Name(), File: file, Line: line + 1}
}

// forgetRows reads the first order and returns without Close. The read
// transaction behind it keeps the WAL from being reset.
func forgetRows(ctx context.Context, db *sql.DB) (plant, error) {
	p := plant{what: "forgetRows", kind: tracker.KindRows, undone: "closed"}
	p.site = nextLine()
	rows, err := db.QueryContext(ctx, `SELECT id, customer FROM shop_orders`) // forgotten: rows
	if err != nil {
		return p, err
	}
	rows.Next()
	return p, rows.Err()
}

// forgetConn takes a connection out of the pool and keeps it.
func forgetConn(ctx context.Context, db *sql.DB) (plant, error) {
	p := plant{what: "forgetConn", kind: tracker.KindConnection}
	p.site = nextLine()
	conn, err := db.Conn(ctx) // forgotten: connection
	if err != nil {
		return p, err
	}
	var name string
	return p, conn.QueryRowContext(ctx, `SELECT name FROM shop_products`).Scan(&name)
}

// forgetStatement closes the connection and not the statement: database/sql
// does not close it either.
func forgetStatement(ctx context.Context, db *sql.DB) (plant, error) {
	p := plant{what: "forgetStatement", kind: tracker.KindStatement, undone: "closed"}
	conn, err := db.Conn(ctx)
	if err != nil {
		return p, err
	}
	defer conn.Close()
	p.site = nextLine()
	stmt, err := conn.PrepareContext(ctx, `SELECT stock FROM shop_products WHERE id = ?`) // forgotten: statement
	if err != nil {
		return p, err
	}
	var stock int
	return p, stmt.QueryRowContext(ctx, 1).Scan(&stock)
}

// forgetRawBegin begins a transaction by SQL text and goes on elsewhere. The
// connection goes back into the pool with it.
func forgetRawBegin(ctx context.Context, db *sql.DB) (plant, error) {
	p := plant{what: "forgetRawBegin", kind: tracker.KindTransaction, undone: "rolled back"}
	p.site = nextLine()
	_, err := db.ExecContext(ctx, `BEGIN`) // forgotten: raw BEGIN
	return p, err
}

// forgetTx writes and returns without Commit or Rollback: nobody else can
// write. It hands the transaction back so that a Commit can come too late.
func forgetTx(ctx context.Context, db *sql.DB) (plant, *sql.Tx, error) {
	p := plant{what: "forgetTx", kind: tracker.KindTransaction, undone: "rolled back"}
	p.site = nextLine()
	tx, err := db.BeginTx(ctx, nil) // forgotten: transaction
	if err != nil {
		return p, nil, err
	}
	_, err = tx.ExecContext(ctx, `UPDATE shop_products SET stock = 0`)
	return p, tx, err
}

func (p plant) String() string { return fmt.Sprintf("%s in %s", p.kind, p.what) }
