package main

import (
	"context"
	"database/sql"
	"fmt"
	"runtime"
	"sync"
)

const selectByKey = "SELECT v FROM kv WHERE id = ?"

func queryRow(e env, db *sql.DB) (*job, error) {
	return &job{run: each(e, func(ctx context.Context, i int) error {
		var v string
		return db.QueryRowContext(ctx, selectByKey, key(i)).Scan(&v)
	})}, nil
}

func stmtQueryRow(e env, db *sql.DB) (*job, error) {
	stmt, err := db.PrepareContext(e.base(), selectByKey)
	if err != nil {
		return nil, err
	}
	return &job{close: stmt.Close, run: each(e, func(ctx context.Context, i int) error {
		var v string
		return stmt.QueryRowContext(ctx, key(i)).Scan(&v)
	})}, nil
}

// scan reads the whole table: 1000 rows of two columns.
func scan(e env, db *sql.DB) (*job, error) {
	return &job{run: each(e, func(ctx context.Context, _ int) error {
		rows, err := db.QueryContext(ctx, "SELECT id, v FROM kv")
		if err != nil {
			return err
		}
		defer rows.Close()
		n := 0
		for rows.Next() {
			var id int64
			var v string
			if err := rows.Scan(&id, &v); err != nil {
				return err
			}
			n++
		}
		if err := rows.Err(); err != nil {
			return err
		}
		if n != keys {
			return fmt.Errorf("read %d rows instead of %d", n, keys)
		}
		return nil
	})}, nil
}

// parQueryRow is queryRow from as many goroutines as there are processors.
func parQueryRow(e env, db *sql.DB) (*job, error) {
	single, err := queryRow(e, db)
	if err != nil {
		return nil, err
	}
	return &job{run: func(n int) error {
		workers := runtime.GOMAXPROCS(0)
		errs := make([]error, workers)
		var wg sync.WaitGroup
		for w := range workers {
			share := n / workers
			if w < n%workers {
				share++
			}
			wg.Go(func() { errs[w] = single.run(share) })
		}
		wg.Wait()
		for _, err := range errs {
			if err != nil {
				return err
			}
		}
		return nil
	}}, nil
}
