package main

import (
	"context"
	"database/sql"
)

const updateByKey = "UPDATE counter SET n = n + 1 WHERE id = ?"

// inTx makes a job whose batches run inside a transaction each, which is begun
// and committed outside the measured time: it is the operation that counts. on
// returns what the operations use of the transaction.
func inTx[T any](e env, db *sql.DB, on func(*sql.Tx) (T, error), op func(ctx context.Context, on T, i int) error) *job {
	var tx *sql.Tx
	var t T
	return &job{
		begin: func() (err error) {
			if tx, err = db.BeginTx(e.base(), nil); err != nil {
				return err
			}
			t, err = on(tx)
			return err
		},
		run: each(e, func(ctx context.Context, i int) error { return op(ctx, t, i) }),
		end: func() error { return tx.Commit() },
	}
}

func prepared(e env, query string) func(*sql.Tx) (*sql.Stmt, error) {
	return func(tx *sql.Tx) (*sql.Stmt, error) { return tx.PrepareContext(e.base(), query) }
}

func txStmtQueryRow(e env, db *sql.DB) (*job, error) {
	return inTx(e, db, prepared(e, selectByKey), func(ctx context.Context, stmt *sql.Stmt, i int) error {
		var v string
		return stmt.QueryRowContext(ctx, key(i)).Scan(&v)
	}), nil
}

func execTx(e env, db *sql.DB) (*job, error) {
	itself := func(tx *sql.Tx) (*sql.Tx, error) { return tx, nil }
	return inTx(e, db, itself, func(ctx context.Context, tx *sql.Tx, i int) error {
		_, err := tx.ExecContext(ctx, updateByKey, key(i))
		return err
	}), nil
}

func stmtExecTx(e env, db *sql.DB) (*job, error) {
	return inTx(e, db, prepared(e, updateByKey), func(ctx context.Context, stmt *sql.Stmt, i int) error {
		_, err := stmt.ExecContext(ctx, key(i))
		return err
	}), nil
}

func beginCommit(e env, db *sql.DB) (*job, error) {
	return &job{run: each(e, func(ctx context.Context, _ int) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		return tx.Commit()
	})}, nil
}

// insert100 begins, inserts and commits. The table is emptied before each
// batch, so that it is as large in the last round as in the first.
func insert100(e env, db *sql.DB) (*job, error) {
	return &job{
		begin: func() error {
			_, err := db.ExecContext(e.base(), "DELETE FROM inserted")
			return err
		},
		run: each(e, func(ctx context.Context, _ int) error {
			tx, err := db.BeginTx(ctx, nil)
			if err != nil {
				return err
			}
			defer tx.Rollback()
			for i := range insertsInTx {
				if _, err := tx.ExecContext(ctx, "INSERT INTO inserted (a, b) VALUES (?, ?)", i, "some text"); err != nil {
					return err
				}
			}
			return tx.Commit()
		}),
	}, nil
}
