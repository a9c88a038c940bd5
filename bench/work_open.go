package main

import "context"

// openPingClose is the life of a pool that is used once.
func openPingClose(e env) (*job, error) {
	return &job{run: each(e, func(ctx context.Context, _ int) error {
		db, err := e.open(e.dsn)
		if err != nil {
			return err
		}
		if err := db.PingContext(ctx); err != nil {
			db.Close()
			return err
		}
		return db.Close()
	})}, nil
}
